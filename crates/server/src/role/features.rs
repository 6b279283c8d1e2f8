//! Feature names of `--enable-feature`, as upstream's: which switch something here, which are accepted and do nothing.

/// What the known names switch on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Enabled {
    /// What the parser accepts beyond the stable language.
    pub(super) parser: promql::ParseOptions,
    /// What changes results.
    pub(super) engine: engine::Features,
}

/// Names that are always on here, or that concern parts that work otherwise here.
const ACCEPTED: &[&str] = &[
    "promql-duration-expr",
    "promql-extended-range-selectors",
    "ooo-native-histograms",
    "native-histograms",
    "exemplar-storage",
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

/// What `names` switch on, with a warning for each that does nothing here. Fails on a name that is not known.
pub(super) fn enable(names: &[String]) -> Result<(Enabled, Vec<String>), String> {
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
            known if ACCEPTED.contains(&known) => {
                warnings.push(format!("feature {known} switches nothing here"));
            }
            unknown => return Err(format!("--enable-feature: there is no feature {unknown:?}")),
        }
    }
    Ok((enabled, warnings))
}

#[cfg(test)]
mod tests {
    use super::enable;

    #[test]
    fn known_names_switch_accepted_ones_warn_unknown_ones_fail() {
        let names = |list: &[&str]| list.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>();
        let (enabled, warnings) =
            enable(&names(&["promql-experimental-functions", "native-histograms", ""])).unwrap();
        assert!(enabled.parser.experimental_functions && !enabled.parser.fill_modifiers);
        assert_eq!(warnings, ["feature native-histograms switches nothing here"]);
        assert!(enable(&names(&["no-such-thing"])).unwrap_err().contains("no-such-thing"));
    }
}
