//! What is broken in a run, when, and for how long; all of it decided by the seed.

use super::entropy::Rng;
use super::node::{End, Pace};
use super::world::World;

/// Everything that can be broken, with the name under which it is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// F1, one node.
    Kill,
    /// F1, all nodes at once.
    KillAll,
    /// F2, one node.
    PowerCut,
    /// F2, all nodes at once.
    PowerCutAll,
    /// F2, one node, as soon as another one has its vote; and that one is alone.
    PowerCutVoter,
    /// F3.
    Freeze,
    /// F4, both ways.
    Isolate,
    /// F4, nothing arrives at one node.
    Deaf,
    /// F4, nothing leaves one node.
    Mute,
    /// F4, two nodes do not see each other and all others see both.
    Bridge,
    /// F5.
    SlowNet,
    /// F5, connections between two nodes are reset.
    Reset,
    /// F6, the database of a node has no space, and none after a crash meanwhile.
    FullDisk,
    /// F7.
    FsyncFails,
    /// F9.
    SlowDisk,
    /// F10, the wall clock of a node jumps, stands still or runs ten times as fast.
    WallClock,
    /// F10, the monotonic clock of a node runs too fast or too slow.
    Drift,
    /// F18, a node hands over and stops.
    Stop,
    /// A leader is asked to hand over.
    Transfer,
    /// The log is purged of what somebody still needs: state is transferred.
    Purge,
}

impl Kind {
    pub(crate) const ALL: [Self; 20] = [
        Self::Kill,
        Self::KillAll,
        Self::PowerCut,
        Self::PowerCutAll,
        Self::PowerCutVoter,
        Self::Freeze,
        Self::Isolate,
        Self::Deaf,
        Self::Mute,
        Self::Bridge,
        Self::SlowNet,
        Self::Reset,
        Self::FullDisk,
        Self::FsyncFails,
        Self::SlowDisk,
        Self::WallClock,
        Self::Drift,
        Self::Stop,
        Self::Transfer,
        Self::Purge,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Kill => "kill",
            Self::KillAll => "kill all",
            Self::PowerCut => "power cut",
            Self::PowerCutAll => "power cut all",
            Self::PowerCutVoter => "power cut of a voter",
            Self::Freeze => "freeze",
            Self::Isolate => "isolate",
            Self::Deaf => "deaf",
            Self::Mute => "mute",
            Self::Bridge => "bridge",
            Self::SlowNet => "slow network",
            Self::Reset => "reset",
            Self::FullDisk => "full disk",
            Self::FsyncFails => "fsync fails",
            Self::SlowDisk => "slow disk",
            Self::WallClock => "wall clock",
            Self::Drift => "drift",
            Self::Stop => "stop",
            Self::Transfer => "transfer",
            Self::Purge => "purge",
        }
    }
}

/// A fault to end.
#[derive(Clone, Debug)]
pub(crate) struct Ends {
    pub(crate) at: u64,
    pub(crate) what: Undo,
}

#[derive(Clone, Debug)]
pub(crate) enum Undo {
    /// A node ends for so long.
    End(usize, u64),
    Start(usize),
    Thaw(usize),
    Heal(Vec<(usize, usize)>),
    Fast,
    Space(usize),
    Disk(usize),
    Clocks(usize),
}

/// Breaks something; counts it.
pub(crate) fn strike(world: &mut World, kind: Kind, rng: &mut Rng) {
    let count = world.nodes.len();
    let one = rng.below(count as u64) as usize;
    let other = (one + 1 + rng.below(count as u64 - 1) as usize) % count;
    let short = rng.between(100, 2500);
    let away = rng.between(100, 5000);
    match kind {
        Kind::Kill => end(world, one, End::Kill, away),
        Kind::PowerCut => end(world, one, End::PowerCut, away),
        Kind::KillAll | Kind::PowerCutAll => {
            let how = if kind == Kind::KillAll { End::Kill } else { End::PowerCut };
            for at in 0..count {
                let away = rng.between(100, 1500);
                end(world, at, how, away);
            }
        }
        Kind::PowerCutVoter => {
            // It counts when there was a vote: `voted`.
            world.net.watch_for_vote();
            if let Some(leader) = world.a_leader() {
                end(world, leader, End::Kill, rng.between(100, 1000));
            }
            return;
        }
        Kind::Freeze if world.nodes[one].life.is_some() => {
            world.nodes[one].frozen = true;
            world.net.freeze(one, true);
            world.undo(away, Undo::Thaw(one));
        }
        Kind::Isolate | Kind::Deaf | Kind::Mute => {
            let inwards = (0..count).map(|at| (at, one));
            let outwards = (0..count).map(|at| (one, at));
            let cut: Vec<_> = match kind {
                Kind::Deaf => inwards.collect(),
                Kind::Mute => outwards.collect(),
                _ => inwards.chain(outwards).collect(),
            };
            cut_off(world, cut, away);
        }
        Kind::Bridge => cut_off(world, vec![(one, other), (other, one)], away),
        Kind::SlowNet => {
            let least = rng.between(0, 100);
            world.net.slow(Some((least, least + rng.between(20, 200))));
            world.undo(short, Undo::Fast);
        }
        Kind::Reset => world.net.reset(one, other),
        Kind::FullDisk => {
            // Long enough for a flush to meet it, and often for a crash behind that.
            let away = rng.between(1500, 6000);
            world.nodes[one].fill(true);
            world.undo(away, Undo::Space(one));
            if rng.chance(75) {
                world.undo(rng.between(1000, away), Undo::End(one, rng.between(100, 1000)));
            }
        }
        Kind::FsyncFails if world.nodes[one].life.is_some() => {
            world.nodes[one].fail_sync();
            world.undo(away, Undo::Disk(one));
        }
        Kind::SlowDisk => {
            let least = rng.between(20, 400);
            world.nodes[one].disk = (least, least + rng.between(0, 500));
            world.undo(short, Undo::Disk(one));
        }
        Kind::WallClock => {
            let hour = 3_600_000;
            match rng.below(4) {
                0 => world.nodes[one].jump_wall(hour),
                1 => world.nodes[one].jump_wall(-hour),
                2 => world.nodes[one].pace.wall = 0,
                _ => world.nodes[one].pace.wall = 1000,
            }
            world.undo(away, Undo::Clocks(one));
        }
        Kind::Drift => {
            let monotonic = rng.pick(&[30, 60, 150, 300, 1000]).unwrap_or(100);
            world.nodes[one].pace = Pace { monotonic, wall: i64::try_from(monotonic).unwrap_or(100) };
            world.undo(away, Undo::Clocks(one));
        }
        Kind::Stop => {
            let Some(inner) = world.nodes[one].inner().cloned() else { return };
            world.nodes[one].spawn(async move {
                crate::tend::hand_over_all(&inner).await;
                // The flush of a stop fails on a full disk; what was acknowledged is in the log.
                let _ = inner.flush_all();
            });
            world.stops.push((world.now + rng.between(20, 1500), one, away));
        }
        Kind::Transfer => world.transfer(one, other),
        Kind::Purge => world.purge(one),
        Kind::Freeze | Kind::FsyncFails => return,
    }
    world.counted(kind);
}

/// Cuts the power of the node at `voter`, whose vote has just arrived at `candidate`, before anything else makes it sync
/// its log; and cuts off `candidate`, so that others stand for election in that term, too.
pub(crate) fn voted(world: &mut World, (voter, candidate): (usize, usize), rng: &mut Rng) {
    end(world, voter, End::PowerCut, rng.between(50, 500));
    let others = (0..world.nodes.len()).filter(|at| *at != candidate);
    let cut = others.flat_map(|at| [(at, candidate), (candidate, at)]).collect();
    cut_off(world, cut, rng.between(1000, 5000));
    world.counted(Kind::PowerCutVoter);
}

pub(crate) fn end(world: &mut World, at: usize, how: End, away: u64) {
    if world.nodes[at].life.is_some() {
        world.nodes[at].end(&world.net.clone(), how);
        world.undo(away, Undo::Start(at));
    }
}

fn cut_off(world: &mut World, cut: Vec<(usize, usize)>, away: u64) {
    for (from, to) in &cut {
        world.net.cut(*from, *to, from != to);
    }
    world.undo(away, Undo::Heal(cut));
}
