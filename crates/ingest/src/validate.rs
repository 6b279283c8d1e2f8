//! Label bytes of a series that is not in the cache, to a valid label set or the reason why not. Rules are
//! Prometheus's: a metric name, UTF-8, no empty and no repeated label names; and the limits.

use model::seam::{DecodeLabels, RejectReason};
use model::{LabelError, Labels, LabelsBuilder};

use crate::limits::{Limits, RESERVED_LABEL};
use crate::report::shorten;

/// Label bytes are not even looked at beyond this length, whatever the limits.
const MAX_REGION_BYTES: usize = 1 << 20;

/// Why a series is not accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Rejection {
    pub(crate) reason: RejectReason,
    pub(crate) text: String,
}

/// The label set that `region` means. `builder` is scratch.
pub(crate) fn labels(
    region: &[u8],
    decode: DecodeLabels,
    limits: &Limits,
    builder: &mut LabelsBuilder,
) -> Result<Labels, Rejection> {
    let over = |text: String| Rejection { reason: RejectReason::LabelLimit, text };
    if region.len() > MAX_REGION_BYTES {
        return Err(over(format!(
            "a series has {} bytes of labels, the limit is {MAX_REGION_BYTES}",
            region.len()
        )));
    }
    let labels =
        decode(region, builder).and_then(|()| builder.build()).map_err(|error| invalid(&error, builder))?;
    if labels.metric_name().is_empty() {
        let text = format!("series {} has no metric name", show(&labels));
        return Err(Rejection { reason: RejectReason::InvalidLabels, text });
    }
    let n_labels = labels.len();
    if limits.max_labels != 0 && n_labels > limits.max_labels {
        let limit = limits.max_labels;
        return Err(over(format!("series {} has {n_labels} labels, the limit is {limit}", show(&labels))));
    }
    for (name, value) in &labels {
        for (what, text, limit) in
            [("name", name, limits.max_label_name_bytes), ("value", value, limits.max_label_value_bytes)]
        {
            if limit != 0 && text.len() > limit {
                return Err(over(format!(
                    "series {} has a label {what} of {} bytes ({}), the limit is {limit}",
                    shorten(labels.metric_name(), 60),
                    text.len(),
                    shorten(name, 60),
                )));
            }
        }
        if name == RESERVED_LABEL {
            let text = format!("series {} has the reserved label {RESERVED_LABEL}", show(&labels));
            return Err(Rejection { reason: RejectReason::InvalidLabels, text });
        }
    }
    Ok(labels)
}

fn invalid(error: &LabelError, builder: &LabelsBuilder) -> Rejection {
    let name = builder.get(model::METRIC_NAME).unwrap_or("without a metric name");
    let error = shorten(&error.to_string(), 120);
    Rejection { reason: RejectReason::InvalidLabels, text: format!("series {}: {error}", shorten(name, 60)) }
}

/// `labels` as `name{label="value"}`, cut to what a message may echo.
pub(crate) fn show(labels: &Labels) -> String {
    let mut out = labels.metric_name().to_owned();
    out.push('{');
    for (at, (name, value)) in labels.iter().filter(|(name, _)| *name != model::METRIC_NAME).enumerate() {
        if at > 0 {
            out.push_str(", ");
        }
        out.push_str(&format!("{name}={value:?}"));
        if out.len() > 150 {
            break;
        }
    }
    out.push('}');
    shorten(&out, 150)
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::labels::push_pair;
    use model::seam::decode_canonical;

    fn check(pairs: &[(&str, &str)], expected: &str) {
        let mut region = Vec::new();
        for (name, value) in pairs {
            push_pair(&mut region, name, value);
        }
        let limits =
            Limits { max_labels: 3, max_label_name_bytes: 8, max_label_value_bytes: 9, ..Limits::default() };
        let got = match labels(&region, decode_canonical, &limits, &mut LabelsBuilder::new()) {
            Ok(labels) => format!("{labels:?}"),
            Err(rejection) => format!("{}: {}", rejection.reason.as_str(), rejection.text),
        };
        assert_eq!(got, expected);
    }

    #[test]
    fn rules_and_limits() {
        check(&[("__name__", "up"), ("é", "x\n")], r#"{"__name__": "up", "é": "x\n"}"#);
        check(&[("a", "b")], r#"invalid_labels: series {a="b"} has no metric name"#);
        check(&[], "invalid_labels: series {} has no metric name");
        check(
            &[("__name__", "m"), ("a", "1"), ("a", "2")],
            "invalid_labels: series without a metric name: label name \"a\" appears twice",
        );
        check(
            &[("__name__", "m"), ("a", "1"), ("b", "2"), ("c", "3")],
            r#"label_limit: series m{a="1", b="2", c="3"} has 4 labels, the limit is 3"#,
        );
        check(
            &[("__name__", "m"), ("long_name", "1")],
            "label_limit: series m has a label name of 9 bytes (long_name), the limit is 8",
        );
        check(
            &[("__name__", "m"), ("b", "1234567890")],
            "label_limit: series m has a label value of 10 bytes (b), the limit is 9",
        );
        let limits = Limits::default();
        let big = vec![0; MAX_REGION_BYTES + 1];
        let rejection = labels(&big, decode_canonical, &limits, &mut LabelsBuilder::new()).unwrap_err();
        assert_eq!(rejection.text, "a series has 1048577 bytes of labels, the limit is 1048576");
    }

    #[test]
    fn no_region_label_from_outside() {
        let mut region = Vec::new();
        push_pair(&mut region, "__name__", "m");
        push_pair(&mut region, RESERVED_LABEL, "eu");
        let result = labels(&region, decode_canonical, &Limits::default(), &mut LabelsBuilder::new());
        assert_eq!(
            result.unwrap_err().text,
            r#"series m{__region__="eu"} has the reserved label __region__"#
        );
    }

    #[test]
    fn messages_stay_short() {
        let value = "é\u{0}\"".repeat(1_000);
        let labels = Labels::from_pairs([("__name__", "m".repeat(300).as_str()), ("a", &value)]).unwrap();
        assert!(show(&labels).len() <= 153, "{}", show(&labels).len());
    }
}
