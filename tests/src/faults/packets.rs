//! F4 and F5 below TCP: packets between nodes that are lost, some or all.

use anyhow::{Context as _, Result, ensure};

use super::{is_refused, pause, resumes};
use crate::packets::Packets;
use crate::scenario::Scenario;

/// How many of a hundred packets are lost.
const LOSS: u8 = 20;

fn packets(s: &Scenario) -> Result<&Packets> {
    s.cluster.packets.as_ref().context("nodes have networks of their own")
}

/// Every node loses a fifth of what others send it.
pub(super) fn lossy(s: &mut Scenario) -> Result<u64> {
    let all = 0..s.cluster.len();
    all.clone().try_for_each(|at| packets(s)?.drop_some(at, LOSS))?;
    let outcome = resumes(s).and_then(|()| resumes(s));
    let dropped = all.clone().map(|at| packets(s)?.dropped(at)).sum::<Result<u64>>()?;
    all.clone().try_for_each(|at| packets(s)?.heal(at))?;
    outcome?;
    ensure!(dropped > 20, "only {dropped} packets were lost");
    Ok(dropped)
}

/// A node loses everything that others send it, and they what it sends.
pub(super) fn partition(s: &mut Scenario, at: usize) -> Result<u64> {
    pause(s, 0, 300);
    packets(s)?.isolate(at)?;
    let outcome = resumes(s).and_then(|()| is_refused(s, at));
    let dropped = packets(s)?.dropped(at)?;
    packets(s)?.heal(at)?;
    outcome?;
    resumes(s)?;
    ensure!(dropped > 0, "no packet met the hole");
    Ok(dropped)
}
