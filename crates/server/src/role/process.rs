//! Metrics of the process and of the configuration, under the names that dashboards know, read when they are asked for.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Unit;

/// Outcome of the last load of the configuration.
#[derive(Debug, Default)]
pub(super) struct ReloadState {
    successful: AtomicBool,
    last_success_ms: AtomicI64,
}

impl ReloadState {
    /// Notes an outcome.
    pub(super) fn set(&self, successful: bool, now_ms: i64) {
        self.successful.store(successful, Ordering::Relaxed);
        if successful {
            self.last_success_ms.store(now_ms, Ordering::Relaxed);
        }
    }

    /// Whether the last load went well, and when one last did, ms.
    pub(super) fn get(&self) -> (bool, i64) {
        (self.successful.load(Ordering::Relaxed), self.last_success_ms.load(Ordering::Relaxed))
    }
}

/// Reads `/proc/self` at each scrape.
pub(super) struct ProcessMetrics {
    /// Start of the process, ms.
    pub(super) start_ms: i64,
    /// Outcome of the last load.
    pub(super) reload: Arc<ReloadState>,
    /// How many settings are not active.
    pub(super) not_active: Box<dyn Fn() -> usize + Send + Sync>,
}

impl std::fmt::Debug for ProcessMetrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("process metrics")
    }
}

/// Figures of this process; zero where the system does not tell.
#[derive(Clone, Copy, Debug, Default)]
struct Figures {
    cpu_seconds: f64,
    resident_bytes: u64,
    virtual_bytes: u64,
    threads: u64,
    open_files: u64,
    max_files: u64,
}

impl Figures {
    fn read() -> Self {
        let text = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let stat = text("/proc/self/stat");
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or("").split_whitespace().collect();
        let field = |at: usize| fields.get(at).and_then(|f| f.parse::<u64>().ok()).unwrap_or(0);
        let limits = text("/proc/self/limits");
        let max_files = limits.lines().find(|l| l.starts_with("Max open files"));
        Self {
            // The kernel counts user and system time in hundredths of a second on every Linux that runs this.
            cpu_seconds: (field(11) + field(12)) as f64 / 100.0,
            resident_bytes: field(21) * 4096,
            virtual_bytes: field(20),
            threads: field(17),
            open_files: std::fs::read_dir("/proc/self/fd").map_or(0, |d| d.count() as u64),
            max_files: max_files.and_then(|l| l.split_whitespace().nth(3)?.parse().ok()).unwrap_or(0),
        }
    }
}

impl Collector for ProcessMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let figures = Figures::read();
        let cpu = ConstCounter::new(figures.cpu_seconds);
        cpu.encode(encoder.encode_descriptor(
            "process_cpu",
            "User and system CPU time",
            Some(&Unit::Seconds),
            cpu.metric_type(),
        )?)?;
        let (successful, last_ms) = self.reload.get();
        let gauges: [(&str, &str, f64); 9] = [
            ("process_resident_memory_bytes", "Resident memory", figures.resident_bytes as f64),
            ("process_virtual_memory_bytes", "Virtual memory", figures.virtual_bytes as f64),
            ("process_threads", "Threads", figures.threads as f64),
            ("process_open_fds", "Open file descriptors", figures.open_files as f64),
            ("process_max_fds", "Most open file descriptors", figures.max_files as f64),
            ("process_start_time_seconds", "Start of the process, Unix time", self.start_ms as f64 / 1e3),
            (
                "prometheus_config_last_reload_successful",
                "Whether the last load of the configuration went well",
                f64::from(u8::from(successful)),
            ),
            (
                "prometheus_config_last_reload_success_timestamp_seconds",
                "When the configuration was last loaded well, Unix time",
                last_ms as f64 / 1e3,
            ),
            (
                "isobar_config_not_active",
                "Settings of the configuration that this version does not act on",
                (self.not_active)() as f64,
            ),
        ];
        for (name, help, value) in gauges {
            let gauge = ConstGauge::new(value);
            gauge.encode(encoder.encode_descriptor(name, help, None, gauge.metric_type())?)?;
        }
        Ok(())
    }
}
