//! F10: wall clocks that are wrong, on a leader and on another node, under load.

use anyhow::{Context as _, Result, ensure};
use model::time::format_rfc3339;

use super::{Fault, pause, resumes};
use crate::oracle::write_body;
use crate::scenario::{Scenario, all_shards, instance_in};
use benches::http::{Client, encoded};

/// An hour, ms.
const HOUR: i64 = 3_600_000;
/// How exactly an hour is an hour: answers take their time.
const SLACK: i64 = 60_000;

/// Makes the clocks of `which` wrong, one after the other; gives how many were seen to be.
pub(super) fn wrong(s: &mut Scenario, fault: Fault, which: &[usize]) -> Result<u64> {
    for at in which {
        let outcome = one(s, fault, *at);
        clocks(s)?.set(*at, "+0")?;
        outcome.with_context(|| format!("the clock of node {at}"))?;
        // It goes back, or forth.
        resumes(s)?;
    }
    Ok(which.len() as u64)
}

/// All nodes' clocks are wrong in different ways, until [`right`].
pub(super) fn all_wrong(s: &Scenario) -> Result<()> {
    let ways = ["+3600", "-3600", "+0 x10"];
    (0..s.cluster.len()).try_for_each(|at| clocks(s)?.set(at, ways[at % ways.len()]))
}

/// Gives how many clocks were wrong, and makes all right.
pub(super) fn right(s: &Scenario) -> Result<u64> {
    let mut wrong = 0;
    for at in 0..s.cluster.len() {
        wrong += u64::from(ahead(s, at)?.abs() > 1_000);
        clocks(s)?.set(at, "+0")?;
    }
    Ok(wrong)
}

fn clocks(s: &Scenario) -> Result<&crate::clock::Clocks> {
    s.cluster.clocks.as_ref().context("nodes have clocks of their own")
}

/// How far a node's clock is ahead, ms.
fn ahead(s: &Scenario, at: usize) -> Result<i64> {
    let answer = s.cluster.node(at)?.query("time()", None)?;
    let seconds: f64 = answer[1].as_str().context("a scalar")?.parse()?;
    Ok((seconds * 1000.0) as i64 - s.clock.now_ms())
}

fn one(s: &mut Scenario, fault: Fault, at: usize) -> Result<()> {
    let set = |s: &Scenario, wrong: &str| clocks(s)?.set(at, wrong);
    let is = |s: &Scenario, what: &str, right: fn(i64) -> bool| -> Result<()> {
        let ahead = ahead(s, at)?;
        ensure!(right(ahead), "the clock should {what}, but it is {ahead} ms ahead");
        Ok(())
    };
    match fault {
        Fault::ClockAhead => {
            set(s, "+3600")?;
            is(s, "be an hour ahead", |ahead| (ahead - HOUR).abs() < SLACK)?;
            resumes(s)
        }
        Fault::ClockBehind => {
            set(s, "-3600")?;
            is(s, "be an hour late", |ahead| (ahead + HOUR).abs() < SLACK)?;
            resumes(s)?;
            future_limit(s, at)
        }
        Fault::ClockFrozen => {
            // To the second, without the zone.
            let now = format_rfc3339(s.clock.now_ms()).replace('T', " ");
            set(s, now.get(..19).context("a date and a time")?)?;
            pause(s, 2_500, 1);
            is(s, "stand still", |ahead| ahead < -1_000)?;
            resumes(s)
        }
        Fault::ClockFast => {
            let before = ahead(s, at)?;
            set(s, "+0 x10")?;
            pause(s, 1_000, 1);
            let first = ahead(s, at)?;
            pause(s, 1_000, 1);
            let gained = ahead(s, at)? - first;
            ensure!(
                gained > 5_000 && first > before,
                "a second should be ten: {gained} ms were gained in one"
            );
            resumes(s)
        }
        _ => {
            let (mut early, mut late) = (0, 0);
            for step in ["+90", "-90", "+1", "-1", "+7200", "-7200"].iter().cycle().take(18) {
                set(s, step)?;
                pause(s, 50, 100);
                let ahead = ahead(s, at)?;
                early += u32::from(ahead > 80_000);
                late += u32::from(ahead < -80_000);
            }
            ensure!(early > 3 && late > 3, "the clock should step: {early} times early, {late} times late");
            resumes(s)
        }
    }
}

/// What lies too far in the future is judged once, by the node that is asked: one whose clock is an hour late refuses what
/// is sent now, and leads it all the same when another one has taken it. What was refused is nowhere (I3, I18).
fn future_limit(s: &mut Scenario, late: usize) -> Result<()> {
    let right = (late + 1) % s.cluster.len();
    let leaders = s.cluster.leaders(right)?;
    let led = all_shards().into_iter().zip(&leaders).find(|(_, leader)| **leader == late);
    let shard = led.map_or_else(|| all_shards()[0], |(shard, _)| shard);
    let now = s.clock.now_ms();
    let send = |at: usize, name: &str| -> Result<(u16, String)> {
        let labels = vec![
            ("__name__", "oracle".to_owned()),
            ("future", name.to_owned()),
            ("instance", instance_in(shard)?),
            ("job", "oracle".to_owned()),
        ];
        let body = write_body([(labels, vec![(now, 1.0)])]);
        let headers = [("Content-Type", "application/x-protobuf"), ("Content-Encoding", "snappy")];
        let mut client = Client::new(&s.cluster.addresses[at]);
        let (status, text) = client.request("POST", "/api/v1/write", &headers, &body)?;
        Ok((status, String::from_utf8_lossy(&text).into_owned()))
    };
    let (taken, refused) = (format!("taken-{now}"), format!("refused-{now}"));
    let (status, text) = send(late, &refused)?;
    ensure!(
        status == 400 && text.contains("future"),
        "I18: a node that is late refuses what is an hour ahead: {status} {text}"
    );
    let (status, text) = send(right, &taken)?;
    ensure!(status < 300, "I18: who led it does not judge it again: {status} {text}");
    for at in 0..s.cluster.len() {
        for (name, there) in [(&taken, true), (&refused, false)] {
            let query = format!("count_over_time(oracle{{future=\"{name}\"}}[1m])");
            let path = format!("/api/v1/query?query={}&time={}", encoded(&query), now as f64 / 1000.0);
            let body = Client::new(&s.cluster.addresses[at]).get(&path)?;
            let found = String::from_utf8_lossy(&body).contains(",\"1\"]");
            ensure!(found == there, "I18: {name} at node {at}: {}", String::from_utf8_lossy(&body));
        }
    }
    Ok(())
}
