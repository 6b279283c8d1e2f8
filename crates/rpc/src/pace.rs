//! A bound of bytes a second for work that may wait.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// Bytes a second, shared by all who wait for it.
#[derive(Debug)]
pub(crate) struct Pace {
    bytes_per_second: u64,
    next: Mutex<Option<Instant>>,
}

impl Pace {
    /// A pace; 0 = no bound.
    pub(crate) fn new(bytes_per_second: u64) -> Self {
        Self { bytes_per_second, next: Mutex::new(None) }
    }

    /// Returns when `bytes` more may be sent.
    pub(crate) async fn take(&self, bytes: usize) {
        if let Some(turn) = self.turn(bytes, Instant::now()) {
            tokio::time::sleep_until(turn).await;
        }
    }

    /// When they may be sent, by those who asked before; `None` = at once.
    fn turn(&self, bytes: usize, now: Instant) -> Option<Instant> {
        if self.bytes_per_second == 0 {
            return None;
        }
        let takes = Duration::from_secs_f64(bytes as f64 / self.bytes_per_second as f64);
        let mut next = self.next.lock();
        let turn = next.map_or(now, |next| next.max(now));
        *next = Some(turn + takes);
        (turn > now).then_some(turn)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_take_their_time() {
        let (pace, now) = (Pace::new(1000), Instant::now());
        let ms = Duration::from_millis;
        assert_eq!(pace.turn(500, now), None, "the first goes at once");
        assert_eq!(pace.turn(500, now), Some(now + ms(500)));
        assert_eq!(pace.turn(100, now + ms(100)), Some(now + ms(1000)));
        assert_eq!(pace.turn(100, now + ms(5000)), None, "what was not used is not saved up");
        assert_eq!(pace.turn(100, now + ms(5000)), Some(now + ms(5100)));
        assert_eq!(Pace::new(0).turn(1 << 30, now), None);
    }
}
