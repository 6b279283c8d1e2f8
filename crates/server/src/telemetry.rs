//! Logs: one line an event, logfmt (as Prometheus 3 writes it) or JSON.
//!
//! Control characters in values are escaped, so that hostile labels cannot forge lines or drive a terminal.

use std::fmt::{self, Write as _};

use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt as _;

/// Installs the process's log writer (standard error). Later calls change nothing.
pub fn init(level: &str, format: &str) {
    // Raft and HTTP libraries report ordinary business at "info"; theirs is wanted only when debugging.
    let others = if level == "debug" { "info" } else { "error" };
    let filter = format!("{level},openraft={others},hyper={others},h2={others},tower={others}");
    let filter = tracing_subscriber::EnvFilter::new(filter);
    let base = tracing_subscriber::registry().with(filter);
    let writer = std::io::stderr;
    let installed = if format == "json" {
        base.with(tracing_subscriber::fmt::layer().json().flatten_event(true).with_writer(writer)).try_init()
    } else {
        base.with(tracing_subscriber::fmt::layer().event_format(Logfmt).with_writer(writer)).try_init()
    };
    if let Err(error) = installed {
        tracing::debug!(%error, "a log writer was installed before");
    }
}

struct Logfmt;

impl<S, N> FormatEvent<S, N> for Logfmt
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, _: &FmtContext<'_, S, N>, mut out: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let mut line = Line::default();
        event.record(&mut line);
        let now = model::time::format_rfc3339(model::seam::Clock::now_ms(&model::seam::SystemClock::new()));
        let level = event.metadata().level();
        let target = event.metadata().target();
        write!(out, "time={now} level={level} component={target} msg={}", quoted(&line.message))?;
        writeln!(out, "{}", line.fields)
    }
}

#[derive(Default)]
struct Line {
    message: String,
    fields: String,
}

impl Visit for Line {
    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "message" {
            value.clone_into(&mut self.message);
        } else {
            // Writing to a String does not fail.
            let _ = write!(self.fields, " {}={}", field.name(), quoted(value));
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.record_str(field, &format!("{value:?}"));
    }
}

/// `value` as logfmt wants it: bare where that is clear, else quoted and escaped.
fn quoted(value: &str) -> String {
    let bare = !value.is_empty() && value.chars().all(|c| c.is_ascii_graphic() && !"\"=\\".contains(c));
    if bare { value.to_owned() } else { format!("{value:?}") }
}

#[cfg(test)]
mod tests {
    use super::quoted;

    #[test]
    fn values_are_quoted_when_they_could_mislead() {
        assert_eq!(quoted("plain/path:1"), "plain/path:1");
        assert_eq!(quoted("two words"), "\"two words\"");
        assert_eq!(quoted("\u{1b}[31m\nforged=1"), "\"\\u{1b}[31m\\nforged=1\"");
        assert_eq!(quoted(""), "\"\"");
    }
}
