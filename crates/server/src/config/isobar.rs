//! The top-level block `isobar:`, which holds everything that upstream's file has no place for.

use std::collections::BTreeMap;

use model::TenantId;

use super::out::Out;
use super::section::Section;

/// The block, checked. What is absent is `None` or empty: the flag or the default decides then.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Isobar {
    /// Name of the region that this cluster is.
    pub region: Option<String>,
    /// As the `--cluster.*` flags, by their names without the prefix, as written.
    pub cluster: BTreeMap<String, String>,
    /// Take the tenant from the header.
    pub tenancy_enabled: Option<bool>,
    /// The tenant of requests that name none.
    pub default_tenant: Option<TenantId>,
}

/// Flags of the cluster, without their prefix.
const CLUSTER: [&str; 12] = [
    "name",
    "secret_file",
    "listen_address",
    "advertise_address",
    "join",
    "bootstrap_expect",
    "replication_factor",
    "shards",
    "insecure",
    "tls_cert_file",
    "tls_key_file",
    "tls_ca_file",
];

/// Limits of a tenant.
const LIMITS: [&str; 9] = [
    "max_series",
    "max_series_per_metric",
    "max_samples_per_second",
    "max_samples_burst",
    "max_label_names",
    "max_label_name_length",
    "max_label_value_length",
    "max_rule_groups",
    "max_rules_per_group",
];

/// Reads the block. A key leaves the list of those without effect when the server takes it from [`Isobar`].
pub(super) fn isobar(top: &mut Section<'_>) -> Isobar {
    let mut found = Isobar::default();
    let Some(mut block) = top.section("isobar") else { return found };
    for key in ["region", "cluster", "retention", "ha", "query", "federation", "alertmanager_file"] {
        block.not_active(key);
    }
    found.region = block.text("region");
    cluster(&mut block, &mut found);
    tenancy(&mut block, &mut found);
    block.sections("retention", "empty or null section in retention", |mut item| {
        if item.text("match").is_none() {
            item.problem("match", "a retention rule needs a match");
        }
        if item.duration_or("time", 0) == 0 {
            item.problem("time", "a retention rule needs a time");
        }
        item.finish()
    });
    if let Some(mut ha) = block.section("ha") {
        ha.bool_or("enabled", false);
        ha.text("cluster_label");
        ha.text("replica_label");
        let out = ha.finish();
        block.put("ha", out);
    }
    query(&mut block);
    federation(&mut block);
    block.file("alertmanager_file", "alertmanager configuration");
    let out = block.finish();
    top.put("isobar", out);
    found
}

fn cluster(block: &mut Section<'_>, found: &mut Isobar) {
    let Some(mut cluster) = block.section("cluster") else { return };
    for key in CLUSTER {
        if key == "join" && matches!(cluster.get(key).map(|n| &n.value), Some(super::node::Node::List(_))) {
            let addresses = cluster.texts(key);
            found.cluster.insert(key.into(), addresses.join(","));
        } else if let Some(text) = cluster.text(key) {
            found.cluster.insert(key.into(), text);
        }
    }
    let out = cluster.finish();
    block.put("cluster", out);
}

fn tenancy(block: &mut Section<'_>, found: &mut Isobar) {
    let Some(mut tenancy) = block.section("tenancy") else { return };
    for key in ["limits", "overrides"] {
        tenancy.not_active(key);
    }
    found.tenancy_enabled = tenancy.bool("enabled");
    if let Some(name) = tenancy.text("default") {
        match TenantId::new(&name) {
            Ok(tenant) => found.default_tenant = Some(tenant),
            Err(error) => tenancy.problem("default", error),
        }
    }
    if let Some(limits) = tenancy.section("limits") {
        let out = read_limits(limits);
        tenancy.put("limits", out);
    }
    if let Some(mut overrides) = tenancy.section("overrides") {
        for tenant in overrides.keys(|_| true) {
            if let Err(error) = TenantId::new(tenant) {
                overrides.problem(tenant, error);
            }
            if let Some(limits) = overrides.section(tenant) {
                let out = read_limits(limits);
                overrides.put(tenant, out);
            }
        }
        let out = overrides.finish();
        tenancy.put("overrides", out);
    }
    let out = tenancy.finish();
    block.put("tenancy", out);
}

fn read_limits(mut limits: Section<'_>) -> Out {
    for key in LIMITS {
        limits.number_or(key, 0);
    }
    limits.finish()
}

fn query(block: &mut Section<'_>) {
    let Some(mut query) = block.section("query") else { return };
    for key in ["timeout", "lookback_delta", "split_interval", "cache_max_freshness"] {
        query.duration_or(key, 0);
    }
    for key in ["max_memory", "cache_size"] {
        query.size_or(key, 0);
    }
    for key in ["max_concurrency", "max_series", "max_text_bytes"] {
        query.number_or(key, 0);
    }
    query.bool("partial_response");
    let out = query.finish();
    block.put("query", out);
}

fn federation(block: &mut Section<'_>) {
    let Some(mut federation) = block.section("federation") else { return };
    federation.text("region_label");
    federation.sections("regions", "empty or null section in regions", |mut region| {
        if region.text("name").is_none() {
            region.problem("name", "a region needs a name");
        }
        if region.texts("endpoints").is_empty() {
            region.problem("endpoints", "a region needs endpoints");
        }
        super::http::tls(&mut region);
        region.duration_or("timeout", 0);
        region.bool("required");
        region.text("policy");
        region.texts("copies_of");
        region.finish()
    });
    let out = federation.finish();
    block.put("federation", out);
}
