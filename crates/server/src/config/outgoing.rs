//! Sections about what leaves the server: `alerting`, `remote_write`, `remote_read`, `tracing`. They are checked and
//! kept for the effective configuration; none is active yet.

use model::relabel::NameScheme;

use super::discovery::discovery;
use super::http;
use super::out::Out;
use super::relabel::rules;
use super::section::Section;

/// Reads all of them.
pub(super) fn outgoing(top: &mut Section<'_>, scheme: NameScheme) {
    for key in ["alerting", "remote_write", "remote_read", "tracing"] {
        top.not_active(key);
    }
    alerting(top, scheme);
    remote_write(top, scheme);
    remote_read(top);
    tracing(top);
}

fn alerting(top: &mut Section<'_>, scheme: NameScheme) {
    let Some(mut alerting) = top.section("alerting") else { return };
    rules(&mut alerting, "alert_relabel_configs", "alert relabeling rule", scheme);
    alerting.sections("alertmanagers", "empty or null section in alertmanagers", |mut item| {
        http::client(&mut item, true);
        sigv4(&mut item);
        item.text_or("scheme", "http");
        item.text("path_prefix");
        item.duration_or("timeout", 10_000);
        if let Some(version) = item.raw("api_version")
            && version != "v2"
        {
            item.problem(
                "api_version",
                format!("expected Alertmanager api version to be one of [v2] but got {version}"),
            );
        }
        item.put("api_version", Out::Text("v2".into()));
        let relabel = rules(&mut item, "relabel_configs", "Alertmanager target relabeling rule", scheme);
        rules(&mut item, "alert_relabel_configs", "Alertmanager alert relabeling rule", scheme);
        discovery(&mut item, relabel.is_empty());
        item.finish()
    });
    let out = alerting.finish();
    top.put("alerting", out);
}

fn remote_write(top: &mut Section<'_>, scheme: NameScheme) {
    let mut names: Vec<String> = Vec::new();
    top.sections("remote_write", "empty or null remote write config section", |mut item| {
        url(&mut item, "remote_write");
        item.duration_or("remote_timeout", 30_000);
        headers(&mut item);
        rules(&mut item, "write_relabel_configs", "relabeling rule in remote write config", scheme);
        unique_name(&mut item, &mut names, "remote write");
        item.flag("send_exemplars");
        item.flag("send_native_histograms");
        item.flag("round_robin_dns");
        let messages = ["prometheus.WriteRequest", "io.prometheus.write.v2.Request"];
        if item.one_of("protobuf_message", &messages).is_none() {
            item.put("protobuf_message", Out::Text(messages[0].into()));
        }
        item.flag("failed_request_logging");
        http::client(&mut item, false);
        queue(&mut item);
        if let Some(mut metadata) = item.section("metadata_config") {
            metadata.bool_or("send", true);
            metadata.duration_or("send_interval", 60_000);
            metadata.number_or("max_samples_per_send", 2000);
            let out = metadata.finish();
            item.put("metadata_config", out);
        }
        sigv4(&mut item);
        item.opaque("azuread");
        item.opaque("google_iam");
        item.finish()
    });
}

fn queue(item: &mut Section<'_>) {
    let Some(mut queue) = item.section("queue_config") else { return };
    let defaults =
        [("capacity", 10_000), ("max_shards", 50), ("min_shards", 1), ("max_samples_per_send", 2000)];
    let mut values = [0; 4];
    for (value, (key, default)) in values.iter_mut().zip(defaults) {
        let given = queue.raw_number(key);
        if given == Some(0) {
            queue.problem(key, format!("remote write queue {key} must be positive"));
        }
        *value = given.unwrap_or(default);
        queue.put(key, Out::Number(*value));
    }
    if values[2] > values[1] {
        queue.problem("min_shards", "remote write queue min_shards must not be greater than max_shards");
    }
    queue.duration_or("batch_send_deadline", 5000);
    let min = queue.duration_or("min_backoff", 30);
    let max = queue.duration_or("max_backoff", 5000);
    if max < min {
        queue.problem("max_backoff", "remote write queue max_backoff must not be less than min_backoff");
    }
    queue.flag("retry_on_http_429");
    queue.duration_or("sample_age_limit", 0);
    let out = queue.finish();
    item.put("queue_config", out);
}

fn remote_read(top: &mut Section<'_>) {
    let mut names: Vec<String> = Vec::new();
    top.sections("remote_read", "empty or null remote read config section", |mut item| {
        url(&mut item, "remote_read");
        item.duration_or("remote_timeout", 60_000);
        item.number_or("chunked_read_limit", 50_000_000);
        headers(&mut item);
        item.flag("read_recent");
        unique_name(&mut item, &mut names, "remote read");
        http::client(&mut item, true);
        item.text_map("required_matchers");
        item.bool_or("filter_external_labels", true);
        item.finish()
    });
}

fn url(item: &mut Section<'_>, what: &str) {
    if item.url("url").is_none() {
        item.problem("", format!("url for {what} is empty"));
    }
}

fn unique_name(item: &mut Section<'_>, names: &mut Vec<String>, what: &str) {
    let Some(name) = item.text("name") else { return };
    if names.contains(&name) {
        item.problem("name", format!("found multiple {what} configs with job name {name:?}"));
    }
    names.push(name);
}

/// `headers`, which in these sections are texts; they often hold keys, so they are never shown.
fn headers(item: &mut Section<'_>) {
    let Some(mut headers) = item.section("headers") else { return };
    for name in headers.keys(|_| true) {
        if name.eq_ignore_ascii_case("authorization") {
            let message = "authorization header must be changed via the basic_auth, authorization, oauth2, sigv4, \
                           azuread or google_iam parameter";
            headers.problem(name, message);
        } else if http::RESERVED.contains(&name.to_ascii_lowercase().as_str()) {
            headers.problem(name, format!("{name} is a reserved header. It must not be changed"));
        }
        headers.secret(name);
    }
    let out = headers.finish();
    item.put("headers", out);
}

fn sigv4(item: &mut Section<'_>) {
    let Some(mut sigv4) = item.section("sigv4") else { return };
    for key in ["region", "access_key"] {
        sigv4.text(key);
    }
    sigv4.secret("secret_key");
    for key in ["profile", "role_arn", "external_id"] {
        sigv4.text(key);
    }
    sigv4.flag("use_fips_sts_endpoint");
    sigv4.text("service_name");
    let out = sigv4.finish();
    item.put("sigv4", out);
}

fn tracing(top: &mut Section<'_>) {
    let Some(mut tracing) = top.section("tracing") else { return };
    if tracing.one_of("client_type", &["http", "grpc"]).is_none() {
        tracing.put("client_type", Out::Text("grpc".into()));
    }
    if tracing.text("endpoint").is_none() {
        tracing.problem("", "tracing endpoint must be set");
    }
    tracing.float("sampling_fraction");
    tracing.flag("insecure");
    http::tls(&mut tracing);
    headers(&mut tracing);
    tracing.one_of("compression", &["gzip"]);
    tracing.duration_or("timeout", 0);
    let out = tracing.finish();
    top.put("tracing", out);
}
