//! The only source of randomness of a simulated run: its seed.
//!
//! The standard library's hash keys, tokio's order of ready tasks, openraft's election timers and the ids of nodes all
//! come from the system call `getrandom` in the end. This process answers it itself once a run has begun: so a run needs
//! a process of its own, and one thread.

use std::sync::atomic::{AtomicU64, Ordering};

/// What the next answer is made of; 0 = the system answers.
static STATE: AtomicU64 = AtomicU64::new(0);

/// From now on the process's randomness comes from `seed`.
pub(crate) fn close(seed: u64) {
    STATE.store(seed.wrapping_mul(2).wrapping_add(1), Ordering::SeqCst);
}

/// Random bytes as the C library gives them; whatever asks for randomness in this test program ends here, since a symbol
/// of the program comes before those of libraries.
#[allow(unsafe_code, reason = "a function of the C library is replaced, in this test program only")]
#[unsafe(no_mangle)]
extern "C" fn getrandom(into: *mut libc::c_void, len: usize, flags: libc::c_uint) -> isize {
    if STATE.load(Ordering::SeqCst) == 0 {
        // SAFETY: the arguments are passed on as they came; the kernel checks them.
        return unsafe { libc::syscall(libc::SYS_getrandom, into, len, flags) } as isize;
    }
    for at in 0..len {
        let state = STATE.fetch_add(0x9e37_79b9_7f4a_7c14, Ordering::SeqCst);
        // SAFETY: the caller says that there is room for `len` bytes.
        unsafe { into.cast::<u8>().add(at).write(mix(state) as u8) };
    }
    len as isize
}

/// splitmix64's output function.
fn mix(state: u64) -> u64 {
    let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// Decisions of the simulation itself: splitmix64.
#[derive(Clone, Debug)]
pub(crate) struct Rng(u64);

impl Rng {
    pub(crate) fn new(seed: u64) -> Self {
        Self(mix(seed.wrapping_add(0x5851_f42d_4c95_7f2d)))
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }

    /// A number below `bound`; 0 when that is 0.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound.max(1)
    }

    /// A number from `least` to `most`, both included.
    pub(crate) fn between(&mut self, least: u64, most: u64) -> u64 {
        least + self.below(most - least + 1)
    }

    /// True in `percent` of 100 cases.
    pub(crate) fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    /// One of `choices`.
    pub(crate) fn pick<T: Copy>(&mut self, choices: &[T]) -> Option<T> {
        let at = self.below(choices.len() as u64) as usize;
        choices.get(at).copied()
    }
}

/// Mixes `bytes` into `hash`: FNV-1a.
pub(crate) fn fold(hash: u64, bytes: &[u8]) -> u64 {
    bytes.iter().fold(hash, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}
