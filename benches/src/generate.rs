//! Remote-write 1.0 bodies of an estate of targets, from a fixed seed: the same arguments give the same bytes.
//!
//! Every target has counters, gauges and classic histograms under 9 to 10 labels; nearly every counter moves at every
//! scrape, so sizes say little beside production data: compare servers with each other only.

/// What to generate.
#[derive(Clone, Debug)]
pub struct Shape {
    /// Number of series, rounded down to whole targets.
    pub series: usize,
    /// Scrapes of every series.
    pub steps: usize,
    /// Distance of scrapes, ms.
    pub interval_ms: i64,
    /// Time of the first scrape, ms.
    pub start_ms: i64,
    /// Samples a request.
    pub batch: usize,
    /// Seed of all randomness.
    pub seed: u64,
}

/// Series of one target.
pub const SERIES_PER_TARGET: usize = 100;

/// One request: the body, and what is in it.
#[derive(Clone, Debug)]
pub struct Request {
    /// Snappy-compressed protobuf.
    pub body: Vec<u8>,
    /// Samples in it.
    pub samples: u64,
}

/// Repeatable noise (xorshift).
#[derive(Clone, Debug)]
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }
}

/// One series: its labels as coded on the wire, and how its value moves.
struct Series {
    labels: Vec<u8>,
    kind: Kind,
    value: f64,
}

#[derive(Clone, Copy)]
enum Kind {
    Counter { rate: f64 },
    Seconds { rate: f64 },
    Gauge { around: f64 },
    Bucket { share: f64 },
}

/// Generates step by step; every step gives its requests, in target order.
pub struct Generator {
    shape: Shape,
    series: Vec<Series>,
    noise: Noise,
    step: usize,
}

impl Generator {
    /// A generator at its first step.
    pub fn new(shape: &Shape) -> Self {
        let mut noise = Noise(shape.seed | 1);
        let targets = (shape.series / SERIES_PER_TARGET).max(1);
        let mut series = Vec::with_capacity(targets * SERIES_PER_TARGET);
        for target in 0..targets {
            for number in 0..SERIES_PER_TARGET {
                series.push(make_series(target, number, &mut noise));
            }
        }
        Self { shape: shape.clone(), series, noise, step: 0 }
    }

    /// The requests of the next step, or `None` after the last.
    pub fn next_step(&mut self) -> Option<Vec<Request>> {
        if self.step >= self.shape.steps {
            return None;
        }
        let step_ms = self.shape.start_ms + self.step as i64 * self.shape.interval_ms;
        let load = 1.0 + 0.5 * (self.step as f64 / 40.0).sin();
        let mut requests = Vec::new();
        let mut raw = Vec::with_capacity(self.shape.batch * 320);
        let mut samples = 0u64;
        let mut encoder = snap::raw::Encoder::new();
        let n_series = self.series.len();
        for (at, series) in self.series.iter_mut().enumerate() {
            let target = (at / SERIES_PER_TARGET) as i64;
            // Half of the targets scrape exactly on time, the others up to 3 ms off.
            let jitter = if target % 2 == 0 { 0 } else { (target * 7 + self.step as i64 * 3) % 7 - 3 };
            let timestamp = step_ms + target % 1000 * 10 + jitter;
            series.advance(load, &mut self.noise);
            put_series(&mut raw, &series.labels, series.value, timestamp);
            samples += 1;
            if samples as usize >= self.shape.batch || at + 1 == n_series {
                let body = encoder.compress_vec(&raw).expect("a body is far below snappy's 4 GiB");
                requests.push(Request { body, samples });
                raw.clear();
                samples = 0;
            }
        }
        self.step += 1;
        Some(requests)
    }
}

impl Series {
    fn advance(&mut self, load: f64, noise: &mut Noise) {
        match self.kind {
            Kind::Counter { rate } => self.value += (rate * load * (0.5 + noise.unit())).round(),
            Kind::Seconds { rate } => {
                self.value = ((self.value + rate * load * noise.unit()) * 1000.0).round() / 1000.0;
            }
            Kind::Gauge { around } => {
                let drift = (noise.unit() - 0.5) * around * 0.1;
                self.value = (self.value * 0.95 + around * 0.05 + drift).round();
            }
            Kind::Bucket { share } => {
                self.value += (40.0 * load * share * (0.8 + 0.4 * noise.unit())).round()
            }
        }
    }
}

fn make_series(target: usize, number: usize, noise: &mut Noise) -> Series {
    let (name, extra, kind) = match number {
        0..20 => {
            let method = ["GET", "POST", "PUT", "DELETE"][number % 4];
            let status = ["200", "201", "400", "404", "500"][number / 4];
            let rate = 60.0 * noise.unit();
            (
                "http_requests_total",
                vec![("method", method.to_owned()), ("status", status.to_owned())],
                Kind::Counter { rate },
            )
        }
        20..40 => {
            let mode = ["idle", "user", "system", "iowait", "irq"][number % 5];
            let cpu = (number - 20) / 5;
            (
                "node_cpu_seconds_total",
                vec![("cpu", cpu.to_string()), ("mode", mode.to_owned())],
                Kind::Seconds { rate: 15.0 },
            )
        }
        40..70 => {
            let around = 10f64.powf(2.0 + 6.0 * noise.unit()).round();
            (
                "container_memory_bytes",
                vec![("container", format!("c{}", number - 40))],
                Kind::Gauge { around },
            )
        }
        _ => {
            let bucket = (number - 70) % 10;
            let le = ["0.005", "0.01", "0.025", "0.05", "0.1", "0.25", "0.5", "1", "2.5", "+Inf"][bucket];
            let handler = ["/api", "/login", "/static"][(number - 70) / 10];
            let labels = vec![("handler", handler.to_owned()), ("le", le.to_owned())];
            (
                "http_request_duration_seconds_bucket",
                labels,
                Kind::Bucket { share: (bucket + 1) as f64 / 10.0 },
            )
        }
    };
    let namespace =
        if target.is_multiple_of(20) { "payments".to_owned() } else { format!("shop-{}", target % 13) };
    let mut pairs: Vec<(&str, String)> = vec![
        ("__name__", name.to_owned()),
        ("cluster", "bench".to_owned()),
        ("instance", format!("10.{}.{}.{}:8080", target / 65536, target / 256 % 256, target % 256)),
        ("job", format!("service-{}", target % 15)),
        ("namespace", namespace),
        ("node", format!("node-{:04}", target / 10)),
        (
            "pod",
            format!(
                "service-{}-{:08x}",
                target % 15,
                (target as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32
            ),
        ),
        ("region", ["eu-west-1", "us-east-1"][target % 2].to_owned()),
    ];
    pairs.extend(extra);
    pairs.sort();
    let mut labels = Vec::new();
    for (name, value) in &pairs {
        let length = name.len() + value.len() + 4;
        labels.extend_from_slice(&[0x0a, length as u8, 0x0a, name.len() as u8]);
        labels.extend_from_slice(name.as_bytes());
        labels.extend_from_slice(&[0x12, value.len() as u8]);
        labels.extend_from_slice(value.as_bytes());
    }
    Series { labels, kind, value: (1000.0 * noise.unit()).round() }
}

fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn put_series(out: &mut Vec<u8>, labels: &[u8], value: f64, timestamp: i64) {
    let mut sample = vec![0x09];
    sample.extend_from_slice(&value.to_le_bytes());
    sample.push(0x10);
    put_varint(&mut sample, timestamp as u64);
    out.push(0x0a);
    put_varint(out, (labels.len() + 2 + sample.len()) as u64);
    out.extend_from_slice(labels);
    out.extend_from_slice(&[0x12, sample.len() as u8]);
    out.extend_from_slice(&sample);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_bytes_and_all_samples_are_there() {
        let shape = Shape { series: 1000, steps: 3, interval_ms: 15_000, start_ms: 0, batch: 300, seed: 7 };
        let run = || {
            let mut generator = Generator::new(&shape);
            let mut all = Vec::new();
            while let Some(requests) = generator.next_step() {
                all.extend(requests);
            }
            all
        };
        let (a, b) = (run(), run());
        assert_eq!(a.iter().map(|r| r.samples).sum::<u64>(), 3000);
        assert!(a.iter().zip(&b).all(|(x, y)| x.body == y.body));
    }
}
