//! F17: too little memory and too little CPU, by control groups.

use std::time::Duration;

use anyhow::{Result, ensure};
use benches::http::{Client, encoded};

use super::{RESUME, resumes, until};
use crate::limits::{Group, memory_of};
use crate::scenario::Scenario;

/// How often the process must have been killed.
const KILLED: u64 = 2;
/// How long it may live under its limit before it gets a lower one.
const LIFE: Duration = Duration::from_secs(3);

/// Starts a node with less memory than it needs, again whenever it is killed, as a supervisor does; the others go on. Then
/// it gets what it needs.
pub(super) fn out_of_memory(s: &mut Scenario, at: usize) -> Result<u64> {
    let need = memory_of(s.cluster.node(at)?.pid())?;
    s.cluster.kill(at)?;
    let (mut killed, mut percent) = (0, 60);
    while killed < KILLED {
        ensure!(percent > 0, "no limit on {need} bytes of memory had the node killed");
        let group = Group::memory(need * percent / 100)?;
        // One that is killed before it answers does not come up.
        if s.cluster.spawn_as(at, &group.launch()).is_ok() {
            let deadline = s.clock.monotonic() + LIFE;
            while s.cluster.runs(at)? && s.clock.monotonic() < deadline {
                s.load.run_for(Duration::from_millis(100));
            }
            s.cluster.kill(at)?;
        }
        let times = group.killed()?;
        killed += times;
        if times == 0 {
            percent -= 10;
        }
        s.load.wait(&s.load.mark(), 1, 1, RESUME)?;
    }
    resumes(s)?;
    s.cluster.restart()?;
    resumes(s)?;
    Ok(killed)
}

/// Gives a node a fifth of a core.
pub(super) fn little_cpu(s: &mut Scenario, at: usize) -> Result<u64> {
    let group = Group::cpu(20)?;
    group.take(s.cluster.node(at)?.pid())?;
    // The load may be content with that: large queries are not.
    let end = s.clock.now_ms() / 1000;
    let query = encoded("rate(oracle[5m])");
    let path = format!("/api/v1/query_range?query={query}&start={}&end={end}&step=3", end - 9_000);
    until(s, "the node has to wait", |s| {
        Client::new(&s.cluster.node(at)?.address).get(&path)?;
        Ok(group.throttled()? >= 10)
    })?;
    resumes(s)?;
    group.throttled()
}
