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
        if self.bytes_per_second == 0 {
            return;
        }
        let takes = Duration::from_secs_f64(bytes as f64 / self.bytes_per_second as f64);
        let turn = {
            let mut next = self.next.lock();
            let now = Instant::now();
            let turn = next.map_or(now, |next| next.max(now));
            *next = Some(turn + takes);
            turn
        };
        tokio::time::sleep_until(turn).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn bytes_take_their_time() {
        let pace = Pace::new(1000);
        let begin = Instant::now();
        for _ in 0..4 {
            pace.take(500).await;
        }
        assert_eq!(begin.elapsed(), Duration::from_millis(1500), "the first goes at once");
    }
}
