//! What nodes log, in a file, on demand. A subscriber of our own: one that draws hash keys would make another run of it.

use std::fmt::{Debug, Write as _};
use std::fs::File;
use std::io::Write as _;
use std::path::Path;

use parking_lot::Mutex;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

struct Log {
    file: Mutex<File>,
    level: Level,
}

/// Writes what is logged to `log` in `folder`, where `ISOBAR_SIM_LOG` names a level.
pub(crate) fn start(folder: &Path) {
    let Some(level) = super::setting("ISOBAR_SIM_LOG") else { return };
    let level = level.parse().expect("ISOBAR_SIM_LOG is a level: error, warn, info, debug or trace");
    let file = Mutex::new(File::create(folder.join("log")).expect("a log file"));
    tracing::subscriber::set_global_default(Log { file, level }).expect("the first subscriber");
}

/// A line being made.
struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        // Writing to a string does not fail.
        let _ = write!(self.0, " {}={value:?}", field.name());
    }
}

impl Subscriber for Log {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() <= self.level
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut line = Line(format!("{} {}", event.metadata().level(), event.metadata().target()));
        event.record(&mut line);
        writeln!(self.file.lock(), "{}", line.0).expect("the log file takes a line");
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

/// A line that the simulation says itself.
pub(crate) fn note(line: &str) {
    tracing::info!(target: "sim", "{line}");
}
