//! Our own metrics as text: OpenMetrics as the registry writes it, or turned into Prometheus's text format 0.0.4.
//!
//! The turn: counters' families get their samples' name (`x` → `x_total`), types that 0.0.4 lacks become `gauge` or
//! `untyped`, units, exemplars and the end mark go.

use std::fmt::Write as _;

/// The text of format 0.0.4 for OpenMetrics text `open`.
pub(crate) fn to_prometheus_text(open: &str) -> String {
    let mut out = String::with_capacity(open.len());
    let mut help: Option<(&str, &str)> = None;
    for line in open.lines() {
        let Some(comment) = line.strip_prefix("# ") else {
            let sample = line.split_once(" # {").map_or(line, |(sample, _)| sample);
            out.push_str(sample);
            out.push('\n');
            continue;
        };
        let mut words = comment.splitn(3, ' ');
        let (kind, name, rest) = (words.next(), words.next().unwrap_or(""), words.next().unwrap_or(""));
        match kind {
            Some("HELP") => help = Some((name, rest)),
            Some("TYPE") => {
                let (suffix, kind) = match rest {
                    "counter" => ("_total", "counter"),
                    "info" => ("_info", "gauge"),
                    "gauge" | "stateset" => ("", "gauge"),
                    "histogram" => ("", "histogram"),
                    "summary" => ("", "summary"),
                    _ => ("", "untyped"),
                };
                // The registry writes the help before the type.
                if let Some((_, text)) = help.take().filter(|(of, _)| *of == name) {
                    let _ = writeln!(out, "# HELP {name}{suffix} {}", text.replace("\\\"", "\""));
                }
                let _ = writeln!(out, "# TYPE {name}{suffix} {kind}");
            }
            _ => {}
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use prometheus_client::metrics::counter::Counter;
    use prometheus_client::metrics::family::Family;
    use prometheus_client::metrics::gauge::Gauge;
    use prometheus_client::metrics::histogram::Histogram;
    use prometheus_client::registry::{Registry, Unit};

    #[test]
    fn the_registrys_text_in_the_old_format() {
        let mut registry = Registry::default();
        let counter: Family<Vec<(String, String)>, Counter> = Family::default();
        counter.get_or_create(&vec![("path".into(), "/a\"b".into())]).inc_by(3);
        registry.register("requests", "Requests seen", counter);
        let gauge: Gauge = Gauge::default();
        gauge.set(-4);
        registry.register_with_unit("size", "Size now", Unit::Bytes, gauge);
        let histogram = Histogram::new([0.5, 1.0]);
        histogram.observe(0.7);
        registry.register("wait", "Waiting", histogram);
        let mut open = String::new();
        prometheus_client::encoding::text::encode(&mut open, &registry).unwrap();
        assert_eq!(
            to_prometheus_text(&open),
            "# HELP requests_total Requests seen.\n\
             # TYPE requests_total counter\n\
             requests_total{path=\"/a\\\"b\"} 3\n\
             # HELP size_bytes Size now.\n\
             # TYPE size_bytes gauge\n\
             size_bytes -4\n\
             # HELP wait Waiting.\n\
             # TYPE wait histogram\n\
             wait_sum 0.7\n\
             wait_count 1\n\
             wait_bucket{le=\"0.5\"} 0\n\
             wait_bucket{le=\"1.0\"} 1\n\
             wait_bucket{le=\"+Inf\"} 1\n"
        );
    }
}
