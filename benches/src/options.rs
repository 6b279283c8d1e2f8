//! What the measuring programs are told: how many samples, how often, and where the figures go.

use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};

use crate::generate::Shape;

/// What they have in common.
#[derive(Debug)]
pub struct Options {
    /// The samples; they end now.
    pub shape: Shape,
    /// How often all is measured (`--runs`).
    pub runs: usize,
    /// Where every figure is written as JSON (`--out`).
    pub out: PathBuf,
}

impl Options {
    /// Those of the command line, where nothing is said 100,000 series of `steps` steps, two runs and `out`. `own` takes
    /// the flags that only one program has; false says that it has no such flag.
    ///
    /// # Errors
    /// A flag that is unknown, or has no value or a wrong one.
    #[allow(clippy::disallowed_methods, reason = "a measuring program needs the machine's clock")]
    pub fn read(steps: usize, out: &str, mut own: impl FnMut(&str, &str) -> bool) -> Result<Self> {
        let now_ms = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_millis() as i64;
        let shape = Shape { series: 100_000, steps, interval_ms: 15_000, start_ms: 0, batch: 2000, seed: 42 };
        let mut options = Self { shape, runs: 2, out: PathBuf::from(out) };
        let mut args = std::env::args().skip(1);
        while let Some(flag) = args.next() {
            let value = args.next().with_context(|| format!("{flag} needs a value"))?;
            match flag.as_str() {
                "--series" => options.shape.series = value.parse()?,
                "--steps" => options.shape.steps = value.parse()?,
                "--runs" => options.runs = value.parse()?,
                "--out" => options.out = value.into(),
                _ if own(&flag, &value) => {}
                _ => bail!("there is no flag {flag}"),
            }
        }
        options.shape.start_ms = now_ms - options.shape.steps as i64 * options.shape.interval_ms;
        Ok(options)
    }
}
