//! F17: too little memory and too little CPU, by control groups.

use std::time::Duration;

use anyhow::{Result, ensure};

use super::{RESUME, resumes, until};
use crate::limits::{Group, cpu_of, memory_of};
use crate::scenario::Scenario;

/// How often the process must have been killed.
const KILLED: u64 = 2;
/// For how long it is looked how much CPU a node uses, and whether a quota is little enough.
const MEASURED: Duration = Duration::from_secs(2);
/// In how many periods a node must have had to wait.
const THROTTLED: u64 = 10;
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

/// Gives a node a fifth of a core, or half of what it uses where that is less, and less still until it has to wait: how
/// much a node needs depends on how it was built.
pub(super) fn little_cpu(s: &mut Scenario, at: usize) -> Result<u64> {
    let pid = s.cluster.node(at)?.pid();
    let (begun, before) = (s.clock.monotonic(), cpu_of(pid)?);
    s.load.run_for(MEASURED);
    let used = (cpu_of(pid)? - before).as_secs_f64() / (s.clock.monotonic() - begun).as_secs_f64();
    let mut percent = ((used * 50.0) as u64).clamp(1, 20);
    let group = Group::cpu(percent)?;
    group.take(pid)?;
    let mut lower_at = s.clock.monotonic() + MEASURED;
    until(s, "the node has to wait", |s| {
        if s.clock.monotonic() >= lower_at && percent > 1 {
            percent /= 2;
            group.set_cpu(percent)?;
            lower_at = s.clock.monotonic() + MEASURED;
        }
        Ok(group.throttled()? >= THROTTLED)
    })?;
    resumes(s)?;
    group.throttled()
}
