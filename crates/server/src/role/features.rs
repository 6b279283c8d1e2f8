//! Feature names of `--enable-feature`, as upstream's: which switch something here, which are accepted and do nothing.
//! Names that are not known are a warning, as they are upstream.

/// What the known names switch on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Enabled {
    /// What the parser accepts beyond the stable language.
    pub(super) parser: promql::ParseOptions,
    /// What changes results.
    pub(super) engine: engine::Features,
}

/// Names whose features are always on, upstream (3.16) and here.
const ALWAYS_ON: &[&str] = &[
    "promql-duration-expr",
    "promql-extended-range-selectors",
    "ooo-native-histograms",
    "native-histograms",
];

/// Names that concern parts that work otherwise here.
const ACCEPTED: &[&str] = &[
    "delayed-compaction",
    "exemplar-storage",
    "extra-scrape-metrics",
    "fast-startup",
    "histograms-st-encoding",
    "old-ui",
    "otlp-native-delta-ingestion",
    "search-api",
    "st-synthesis",
    "xor2-encoding",
    "memory-snapshot-on-shutdown",
    "auto-reload-config",
    "concurrent-rule-eval",
    "created-timestamp-zero-ingestion",
    "st-storage",
    "metadata-wal-records",
    "otlp-deltatocumulative",
    "promql-per-step-stats",
    "query-cost",
    "zstd-scrape",
    "openmetrics2",
    "use-uncached-io",
];

/// What `names` switch on, with a warning for each that does nothing here or is not known.
pub(super) fn enable(names: &[String]) -> (Enabled, Vec<String>) {
    let mut enabled = Enabled::default();
    let mut warnings = Vec::new();
    for name in names.iter().map(|name| name.trim()).filter(|name| !name.is_empty()) {
        match name {
            "promql-experimental-functions" => enabled.parser.experimental_functions = true,
            "promql-binop-fill-modifiers" => enabled.parser.fill_modifiers = true,
            "promql-unquoted-utf8-names" => enabled.parser.unquoted_utf8_names = true,
            "promql-delayed-name-removal" => enabled.engine.delayed_name_removal = true,
            "type-and-unit-labels" => enabled.engine.type_and_unit_labels = true,
            "use-start-timestamps" => enabled.engine.use_start_timestamps = true,
            known if ALWAYS_ON.contains(&known) => {
                warnings.push(format!("feature {known} is always on: its name switches nothing"));
            }
            known if ACCEPTED.contains(&known) => {
                warnings.push(format!("feature {known} switches nothing here"));
            }
            unknown => warnings.push(format!("unknown option for --enable-feature: {unknown}")),
        }
    }
    (enabled, warnings)
}

#[cfg(test)]
mod tests {
    use super::enable;

    #[test]
    fn known_names_switch_others_warn() {
        let names = |list: &[&str]| list.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>();
        let (enabled, warnings) = enable(&names(&[
            "promql-experimental-functions",
            "promql-duration-expr",
            "exemplar-storage",
            "no-such-thing",
            "",
        ]));
        assert!(enabled.parser.experimental_functions && !enabled.parser.fill_modifiers);
        assert_eq!(
            warnings,
            [
                "feature promql-duration-expr is always on: its name switches nothing",
                "feature exemplar-storage switches nothing here",
                "unknown option for --enable-feature: no-such-thing",
            ]
        );
    }
}
