//! Sections about the server itself: `runtime`, `storage`, `otlp`.

use std::collections::BTreeSet;

use api::{OtlpPromote, OtlpSettings, OtlpStrategy};
use model::relabel::NameScheme;

use super::out::Out;
use super::section::Section;

/// Retention as the file states it; flags state it otherwise.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct FileRetention {
    /// How long samples are kept, ms.
    pub time_ms: Option<i64>,
    /// Most bytes kept.
    pub size_bytes: Option<u64>,
}

/// Reads `runtime`: nothing of it has a meaning here.
pub(super) fn runtime(top: &mut Section<'_>) {
    let Some(mut runtime) = top.section("runtime") else { return };
    runtime.not_active("gogc");
    runtime.not_active("log_level");
    runtime.opaque("gogc");
    runtime.one_of("log_level", &["debug", "info", "warn", "error"]);
    let out = runtime.finish();
    top.put("runtime", out);
}

/// Reads `storage`.
pub(super) fn storage(top: &mut Section<'_>) -> FileRetention {
    let mut found = FileRetention::default();
    let Some(mut storage) = top.section("storage") else { return found };
    if let Some(mut tsdb) = storage.section("tsdb") {
        for key in ["out_of_order_time_window", "stale_series_compaction_threshold", "chunk_encoding"] {
            tsdb.not_active(key);
        }
        tsdb.duration_or("out_of_order_time_window", 0);
        tsdb.float("stale_series_compaction_threshold");
        if let Some(mut encoding) = tsdb.section("chunk_encoding") {
            encoding.one_of("floats", &["xor", "xor2"]);
            let out = encoding.finish();
            tsdb.put("chunk_encoding", out);
        }
        if let Some(retention) = tsdb.section("retention") {
            let out = read_retention(retention, &mut found);
            tsdb.put("retention", out);
        }
        let out = tsdb.finish();
        storage.put("tsdb", out);
    }
    storage.not_active("exemplars");
    if let Some(mut exemplars) = storage.section("exemplars") {
        exemplars.opaque("max_exemplars");
        let out = exemplars.finish();
        storage.put("exemplars", out);
    }
    let out = storage.finish();
    top.put("storage", out);
    found
}

fn read_retention(mut retention: Section<'_>, found: &mut FileRetention) -> Out {
    for key in ["size", "percentage"] {
        retention.not_active(key);
    }
    found.time_ms = Some(retention.duration_or("time", 0)).filter(|ms| *ms != 0);
    found.size_bytes = Some(retention.size_or("size", 0)).filter(|bytes| *bytes != 0);
    if let Some(percentage) = retention.float("percentage")
        && !(0.0..=100.0).contains(&percentage)
    {
        let message =
            format!("'storage.tsdb.retention.percentage' must be in the range [0, 100], got {percentage}");
        retention.problem("percentage", message);
    }
    retention.finish()
}

/// Reads `otlp`.
pub(super) fn otlp(top: &mut Section<'_>, scheme: NameScheme) -> OtlpSettings {
    let mut settings = OtlpSettings::default();
    let Some(mut otlp) = top.section("otlp") else { return settings };
    let all = otlp.flag("promote_all_resource_attributes");
    let promoted = otlp.texts("promote_resource_attributes");
    let ignored = otlp.texts("ignore_resource_attributes");
    for (key, names) in [("promote_resource_attributes", &promoted), ("ignore_resource_attributes", &ignored)]
    {
        let mut seen = BTreeSet::new();
        for name in names.iter().map(|name| name.trim()) {
            if name.is_empty() {
                otlp.problem(key, "empty OTel resource attribute");
            } else if !seen.insert(name) {
                otlp.problem(key, format!("duplicated OTel resource attribute {name:?}"));
            }
        }
    }
    if all && !promoted.is_empty() {
        let message = "'promote_all_resource_attributes' and 'promote_resource_attributes' cannot be configured simultaneously";
        otlp.problem("promote_resource_attributes", message);
    }
    if !all && !ignored.is_empty() {
        let message = "'ignore_resource_attributes' cannot be configured unless 'promote_all_resource_attributes' is true";
        otlp.problem("ignore_resource_attributes", message);
    }
    let trimmed = |names: &[String]| names.iter().map(|name| name.trim().to_owned()).collect();
    settings.promote =
        if all { OtlpPromote::AllExcept(trimmed(&ignored)) } else { OtlpPromote::Only(trimmed(&promoted)) };
    let names = OtlpStrategy::ALL.map(OtlpStrategy::name);
    if let Some(name) = otlp.one_of("translation_strategy", &names) {
        settings.strategy =
            OtlpStrategy::ALL.into_iter().find(|strategy| strategy.name() == name).unwrap_or_default();
        if !settings.strategy.escapes() && scheme == NameScheme::Legacy {
            let message = format!("OTLP translation strategy {name:?} is not allowed when UTF8 is disabled");
            otlp.problem("translation_strategy", message);
        }
    }
    settings.keep_identifying = otlp.flag("keep_identifying_resource_attributes");
    settings.convert_histograms = otlp.flag("convert_histograms_to_nhcb");
    settings.promote_scope = otlp.flag("promote_scope_metadata");
    settings.sanitize_underscore = otlp.bool("label_name_underscore_sanitization").unwrap_or(true);
    settings.keep_underscores = otlp.bool("label_name_preserve_multiple_underscores").unwrap_or(true);
    let out = otlp.finish();
    top.put("otlp", out);
    settings
}
