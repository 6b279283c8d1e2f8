//! `static_configs` and `*_sd_configs`. Static, file and HTTP discovery are active; the other kinds of upstream are
//! accepted with their known keys.

use std::time::Duration;

use scrape::{Discovery, TargetGroup};

use super::http;
use super::out::Out;
use super::section::{Section, redacted_url};

/// Keys of discovery kinds that are not active yet: (kind, own keys, whether it takes the keys of an HTTP client).
const OTHERS: &[(&str, &str, bool)] = &[
    (
        "aws",
        "role region endpoint access_key secret_key profile role_arn external_id refresh_interval port filters clusters",
        true,
    ),
    (
        "azure",
        "environment port subscription_id tenant_id client_id client_secret refresh_interval authentication_method resource_group",
        true,
    ),
    (
        "consul",
        "server path_prefix token datacenter namespace partition tag_separator scheme username password allow_stale refresh_interval services tags node_meta filter health_filter",
        true,
    ),
    ("digitalocean", "refresh_interval port role", true),
    ("dns", "names refresh_interval type port", false),
    ("docker", "host port filters host_networking_host refresh_interval match_first_network", true),
    ("dockerswarm", "host role port filters refresh_interval", true),
    (
        "ec2",
        "endpoint region access_key secret_key profile role_arn external_id refresh_interval port filters",
        true,
    ),
    (
        "ecs",
        "region endpoint access_key secret_key profile role_arn external_id clusters port refresh_interval request_concurrency",
        true,
    ),
    (
        "elasticache",
        "region endpoint access_key secret_key profile role_arn external_id clusters port refresh_interval request_concurrency",
        true,
    ),
    ("eureka", "server refresh_interval", true),
    ("gce", "project zone filter refresh_interval port tag_separator", false),
    ("hetzner", "refresh_interval port role label_selector", true),
    ("ionos", "datacenter_id refresh_interval port", true),
    ("kubernetes", "api_server role kubeconfig_file namespaces selectors attach_metadata", true),
    ("kuma", "refresh_interval fetch_timeout server client_id", true),
    (
        "lightsail",
        "endpoint region access_key secret_key profile role_arn external_id refresh_interval port",
        true,
    ),
    ("linode", "refresh_interval port tag_separator region", true),
    ("marathon", "servers refresh_interval auth_token auth_token_file", true),
    (
        "msk",
        "region endpoint access_key secret_key profile role_arn external_id clusters port refresh_interval request_concurrency",
        true,
    ),
    ("nerve", "servers paths timeout", false),
    ("nomad", "allow_stale namespace refresh_interval region server tag_separator", true),
    (
        "oci",
        "auth tenancy user fingerprint key_file key_passphrase key_passphrase_file region compartments port refresh_interval",
        true,
    ),
    (
        "openstack",
        "identity_endpoint username userid password project_name project_id domain_name domain_id application_credential_name application_credential_id application_credential_secret role region refresh_interval port all_tenants tls_config availability",
        false,
    ),
    ("outscale", "endpoint region access_key secret_key secret_key_file refresh_interval port", true),
    ("ovhcloud", "endpoint application_key application_secret consumer_key refresh_interval service", false),
    ("puppetdb", "refresh_interval url query include_parameters port", true),
    (
        "rds",
        "region endpoint access_key secret_key profile role_arn external_id clusters port refresh_interval filters request_concurrency",
        true,
    ),
    (
        "scaleway",
        "project_id api_url zone access_key secret_key secret_key_file name_filter tags_filter refresh_interval port role",
        true,
    ),
    ("serverset", "servers paths timeout", false),
    (
        "stackit",
        "project refresh_interval port region endpoint service_account_key private_key service_account_key_path private_key_path credentials_file_path",
        true,
    ),
    ("triton", "account role dns_suffix endpoint groups port refresh_interval tls_config version", false),
    ("uyuni", "server username password entitlement separator refresh_interval", true),
    ("vultr", "refresh_interval port", true),
];

/// Reads all discovery keys of `section`; `check_addresses` refuses URLs among static targets.
pub(super) fn discovery(section: &mut Section<'_>, check_addresses: bool) -> Vec<Discovery> {
    let mut found = Vec::new();
    let groups = static_groups(section, check_addresses);
    others(section);
    file(section, &mut found);
    http_sd(section, &mut found);
    if !groups.is_empty() {
        found.push(Discovery::Static(groups));
    }
    found
}

fn static_groups(section: &mut Section<'_>, check_addresses: bool) -> Vec<TargetGroup> {
    let mut groups = Vec::new();
    section.sections("static_configs", "empty or null section in static_configs", |mut item| {
        let targets = item.raw_texts("targets");
        item.put("targets", Out::texts(&targets));
        if check_addresses && let Some(bad) = targets.iter().find(|target| target.contains('/')) {
            item.problem("targets", format!("{bad:?} is not a valid hostname"));
        }
        let labels = item.text_map("labels");
        if labels.contains_key("") {
            item.problem("labels", "\"\" is not a valid label name");
        }
        groups.push(TargetGroup { targets, labels, source: groups.len().to_string() });
        item.finish()
    });
    groups
}

fn file(section: &mut Section<'_>, found: &mut Vec<Discovery>) {
    let key = "file_sd_configs";
    section.sections(key, "empty or null section in file_sd_configs", |mut item| {
        let names = item.raw_texts("files");
        if names.is_empty() {
            item.problem("files", "file service discovery config must contain at least one path name");
        }
        if let Some(bad) = names.iter().find(|name| !is_file_pattern(name)) {
            item.problem("files", format!("path name {bad:?} is not valid for file discovery"));
        }
        let patterns: Vec<String> =
            names.iter().map(|name| item.reader.join(name).to_string_lossy().into_owned()).collect();
        item.put("files", Out::texts(&patterns));
        let refresh = item.duration_or("refresh_interval", 5 * 60_000);
        found.push(Discovery::File { patterns, refresh: ms(refresh) });
        item.finish()
    });
}

/// Whether upstream accepts it: one star at most, in the last part, and a known ending.
fn is_file_pattern(name: &str) -> bool {
    let ending =
        ["json", "yml", "yaml", "JSON", "YML", "YAML"].iter().any(|e| name.ends_with(&format!(".{e}")));
    match name.find('*') {
        None => ending,
        Some(star) => ending && !name[star + 1..].contains('/'),
    }
}

fn http_sd(section: &mut Section<'_>, found: &mut Vec<Discovery>) {
    section.sections("http_sd_configs", "empty or null section in http_sd_configs", |mut item| {
        let http = http::client(&mut item, true);
        let refresh = item.duration_or("refresh_interval", 60_000);
        match item.url("url") {
            None => item.problem("url", "URL is missing"),
            Some(url) => {
                let text = url.expose();
                let host = text
                    .split_once("://")
                    .map_or("", |(_, rest)| rest.split(['/', '?']).next().unwrap_or(""));
                if !text.starts_with("http://") && !text.starts_with("https://") {
                    item.problem("url", "URL scheme must be 'http' or 'https'");
                } else if host.is_empty() {
                    item.problem("url", "host is missing in URL");
                }
                found.push(Discovery::Http { url, refresh: ms(refresh), http: Box::new(http) });
            }
        }
        item.finish()
    });
}

fn others(section: &mut Section<'_>) {
    for (kind, own, with_client) in OTHERS {
        let key = format!("{kind}_sd_configs");
        section.not_active(&key);
        section.sections(&key, &format!("empty or null section in {key}"), |mut item| {
            if *with_client {
                http::client(&mut item, true);
            }
            for key in own.split(' ') {
                item.opaque(key);
            }
            item.finish()
        });
    }
}

/// A file's groups refused for what `isobar check config` finds wrong with them.
pub(super) fn check_groups(groups: &[TargetGroup], job: &scrape::JobConfig) -> Result<(), String> {
    for group in groups {
        for target in &group.targets {
            scrape::populate_labels(target, &group.labels, job).map_err(|error| {
                format!("target {:?} in group {}: {error}", redacted_url(target), group.source)
            })?;
        }
    }
    Ok(())
}

/// A duration of milliseconds that are not negative.
pub(super) fn ms(ms: i64) -> Duration {
    Duration::from_millis(ms.unsigned_abs())
}
