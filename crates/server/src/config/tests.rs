//! Text in; the effective YAML, the jobs, or the problems with their places out.

use std::collections::BTreeMap;
use std::time::Duration;

use scrape::{Auth, Escaping, ScrapeProtocol, Source};

use super::*;

fn load(text: &str) -> Result<Loaded, ConfigError> {
    load_str(text, "p.yml", Path::new("/etc/p"), &|name| (name == "ZONE").then(|| "z1".to_owned()))
}

fn good(text: &str) -> Loaded {
    load(text).unwrap_or_else(|error| panic!("{error}"))
}

fn job(keys: &str) -> JobConfig {
    let indented = keys.lines().map(|line| format!("  {line}\n")).collect::<String>();
    good(&format!("scrape_configs:\n- job_name: j\n{indented}")).scrape.jobs.remove(0)
}

/// The one problem of a text: `line:column: message`.
fn check_problem(text: &str, want: &str) {
    let error = load(text).expect_err(text);
    let problem = &error.problems[0];
    let got = format!("{}:{}: {}", problem.line, problem.column, problem.message);
    assert_eq!(got, want, "{text}\nall: {error}");
}

#[test]
fn defaults_and_inheritance() {
    let loaded = good(
        "global:\n  scrape_interval: 5s\n  sample_limit: 10\n  keep_dropped_targets: 3\nscrape_configs:\n- job_name: a\n- job_name: b\n  scrape_interval: 1m\n  scrape_timeout: 20s\n  sample_limit: 5\n",
    );
    let [a, b] = loaded.scrape.jobs.as_slice() else { panic!("two jobs") };
    let secs = Duration::from_secs;
    assert_eq!((a.interval, a.timeout, a.sample_limit, a.keep_dropped_targets), (secs(5), secs(5), 10, 3));
    assert_eq!((b.interval, b.timeout, b.sample_limit), (secs(60), secs(20), 5));
    assert_eq!(
        *a,
        JobConfig {
            interval: secs(5),
            timeout: secs(5),
            sample_limit: 10,
            keep_dropped_targets: 3,
            ..JobConfig::new("a")
        }
    );
    for empty in ["", "global:\n", "scrape_configs:\n", "# nothing\n"] {
        let loaded = good(empty);
        assert!(loaded.scrape.jobs.is_empty() && loaded.global == Global::default(), "{empty:?}");
        assert_eq!(
            loaded.to_yaml(),
            "global:\n  scrape_interval: 1m\n  scrape_timeout: 10s\n  evaluation_interval: 1m\n"
        );
    }
}

#[test]
fn every_key_of_a_job_arrives() {
    let got = job("honor_labels: yes
honor_timestamps: false
track_timestamps_staleness: true
params: {module: [http_2xx, x], n: [1.10]}
scrape_interval: 30s
scrape_timeout: 7s
scrape_protocols: [OpenMetricsText1.0.0, PrometheusText0.0.4]
fallback_scrape_protocol: PrometheusText0.0.4
metrics_path: /m
scheme: https
enable_compression: false
body_size_limit: 10MB
sample_limit: 1
target_limit: 2
label_limit: 3
label_name_length_limit: 4
label_value_length_limit: 5
keep_dropped_targets: 6
metric_name_validation_scheme: legacy
metric_name_escaping_scheme: dots
extra_scrape_metrics: true
basic_auth: {username: u, password_file: pw}
follow_redirects: false
enable_http2: false
tls_config: {ca_file: ca.pem, server_name: s, insecure_skip_verify: true, min_version: TLS12}
http_headers: {X-A: {values: [v], secrets: [s], files: [f]}}
proxy_url: http://u:p@proxy:3128
no_proxy: a.org
relabel_configs:
- {source_labels: [a, b], separator: '-', regex: (.+), target_label: t, replacement: $1x}
metric_relabel_configs:
- {regex: x, action: labeldrop}
static_configs:
- targets: ['h:1', h2]
  labels: {env: prod, v: 1.10, on: true}
file_sd_configs:
- {files: [t/*.json], refresh_interval: 1m}
http_sd_configs:
- {url: 'http://sd/', refresh_interval: 2m, bearer_token: tok}");
    let text = |s: &str| s.to_owned();
    assert!(
        got.honor_labels
            && !got.honor_timestamps
            && got.track_timestamps_staleness
            && !got.enable_compression
    );
    assert_eq!(
        got.params,
        BTreeMap::from([
            (text("module"), vec![text("http_2xx"), text("x")]),
            (text("n"), vec![text("1.10")])
        ])
    );
    assert_eq!((got.interval, got.timeout), (Duration::from_secs(30), Duration::from_secs(7)));
    assert_eq!(got.protocols, [ScrapeProtocol::OpenMetricsText1_0_0, ScrapeProtocol::PrometheusText0_0_4]);
    assert_eq!(got.fallback_protocol, Some(ScrapeProtocol::PrometheusText0_0_4));
    assert_eq!(
        (got.metrics_path.as_str(), got.scheme.as_str(), got.body_size_limit),
        ("/m", "https", 10 << 20)
    );
    let limits = [
        got.sample_limit,
        got.target_limit,
        got.label_limit,
        got.label_name_length_limit,
        got.label_value_length_limit,
        got.keep_dropped_targets,
    ];
    assert_eq!(limits, [1, 2, 3, 4, 5, 6]);
    assert_eq!((got.name_scheme, got.escaping), (model::relabel::NameScheme::Legacy, Escaping::Dots));
    assert!(got.extra_scrape_metrics);
    let Auth::Basic { username: Source::Inline(user), password: Source::File(file) } = &got.http.auth else {
        panic!("basic")
    };
    assert_eq!((user.expose(), file.to_str()), ("u", Some("/etc/p/pw")));
    assert!(!got.http.follow_redirects && !got.http.enable_http2 && got.http.tls.insecure_skip_verify);
    assert_eq!(got.http.tls.ca, Some(scrape::Pem::File("/etc/p/ca.pem".into())));
    assert_eq!(got.http.headers["X-A"].len(), 3);
    assert_eq!(
        got.http.proxy.as_ref().map(|p| (p.https.as_ref().unwrap().expose(), p.no_proxy.as_str())),
        Some(("http://u:p@proxy:3128", "a.org"))
    );
    assert_eq!((got.relabel.len(), got.metric_relabel.len()), (1, 1));
    assert_eq!(got.relabel[0].config().replacement, "$1x");
    assert_eq!(got.discovery.len(), 3);
    let Discovery::Static(groups) = &got.discovery[2] else { panic!("static") };
    assert_eq!(groups[0].labels["v"], "1.10");
    let Discovery::File { patterns, refresh } = &got.discovery[0] else { panic!("file") };
    assert_eq!((patterns[0].as_str(), refresh.as_secs()), ("/etc/p/t/*.json", 60));
    let Discovery::Http { url, http, .. } = &got.discovery[1] else { panic!("http") };
    assert_eq!(url.expose(), "http://sd/");
    assert!(matches!(&http.auth, Auth::Header { kind, .. } if kind == "Bearer"));
}

#[test]
fn mistakes_have_places() {
    check_problem("globl:\n", "1:1: field globl not found in the configuration");
    check_problem("global:\n  scrape_intervall: 1s\n", "2:3: field scrape_intervall not found in global");
    check_problem("global:\n  scrape_interval: 1.5h\n", "2:20: unknown unit \".\" in duration \"1.5h\"");
    check_problem(
        "global: {scrape_interval: 5s, scrape_timeout: 6s}\n",
        "1:47: global scrape timeout greater than scrape interval",
    );
    check_problem(
        "scrape_configs:\n- job_name: a\n- job_name: a\n",
        "3:13: found multiple scrape configs with job name \"a\" in p.yml",
    );
    check_problem("scrape_configs:\n- honor_labels: true\n", "2:3: job_name is empty");
    check_problem("scrape_configs:\n-\n", "2:2: empty or null scrape config section");
    check_problem(
        "scrape_configs:\n- job_name: a\n  static_configs:\n  - targets: [\"http://a/m\"]\n",
        "4:14: \"http://a/m\" is not a valid hostname",
    );
    check_problem(
        "scrape_configs:\n- job_name: a\n  relabel_configs:\n  - action: nope\n",
        "4:13: unknown relabel action \"nope\"",
    );
    check_problem(
        "scrape_configs:\n- job_name: a\n  relabel_configs:\n  - regex: '('\n    target_label: b\n",
        &format!("4:12: {}", model::regex::Regex::anchored("(").unwrap_err()),
    );
    check_problem(
        "scrape_configs:\n- job_name: a\n  scrape_interval: 5s\n  scrape_timeout: 10s\n",
        "4:19: scrape timeout greater than scrape interval for scrape config with job name \"a\"",
    );
    check_problem(
        "scrape_configs:\n- job_name: a\n  sample_limit: -1\n",
        "3:17: scrape_configs[job_name=\"a\"].sample_limit must be a whole number, 0 or more",
    );
    check_problem(
        "scrape_configs:\n- job_name: a\n  body_size_limit: 10Q\n",
        "3:20: units: unknown unit \"Q\" in \"10Q\"",
    );
    check_problem("scrape_configs: {}\n", "1:17: scrape_configs must be a list");
    check_problem("a: 1\na: 2\n", "2:1: duplicate mapping key: a");
    check_problem("a: [\n", "1:4: unclosed bracket '['");
    check_problem("isobar:\n  regoin: eu\n", "2:3: field regoin not found in isobar");
    check_problem(
        "scrape_configs:\n- job_name: a\n  consul_sd_configs:\n  - sever: x\n",
        "4:5: field sever not found in scrape_configs[job_name=\"a\"].consul_sd_configs[0]",
    );
    check_problem("remote_write:\n- name: x\n", "2:3: url for remote_write is empty");
    let several = load("globl: 1\nscrape_configs:\n- job_name: a\n  nope: 1\n").unwrap_err();
    assert_eq!(several.problems.len(), 2);
    assert!(several.to_string().starts_with("p.yml:1:1: field globl"));
}

#[test]
fn authentication_is_one_of() {
    let with = |keys: &str| format!("scrape_configs:\n- job_name: a\n  {keys}\n");
    check_problem(
        &with("bearer_token: x\n  bearer_token_file: y"),
        "3:17: at most one of bearer_token & bearer_token_file must be configured",
    );
    check_problem(
        &with("authorization: {type: Basic}"),
        "3:25: authorization type cannot be set to \"basic\", use \"basic_auth\" instead",
    );
    check_problem(
        &with("tls_config: {cert_file: x}"),
        "3:15: exactly one of key or key_file must be configured when a client certificate is configured",
    );
    check_problem(
        &with("http_headers: {Host: {values: [x]}}"),
        "3:24: setting header \"Host\" is not allowed",
    );
    check_problem(&with("no_proxy: x"), "3:13: if no_proxy is configured, proxy_url must also be configured");
    let both = load(&with("basic_auth: {username: a}\n  bearer_token: b")).unwrap_err();
    assert_eq!(both.problems.len(), 1, "{both}");
    assert!(load(&with("basic_auth: {username: a}\n  authorization: {credentials: b}")).is_err());
    check_problem(
        "remote_write: [{url: 'http://a/', headers: {Host: x}}]\n",
        "1:51: Host is a reserved header. It must not be changed",
    );
    let Auth::Header { kind, credentials } = job("bearer_token_file: t").http.auth else { panic!("header") };
    assert_eq!((kind.as_str(), credentials), ("Bearer", Source::File("/etc/p/t".into())));
}

#[test]
fn what_has_no_effect_yet_is_listed() {
    let loaded = good(
        "global: {external_labels: {zone: $ZONE}, scrape_protocols: [PrometheusProto, PrometheusText0.0.4]}
rule_files: [r.yml]
alerting: {alertmanagers: [{static_configs: [{targets: [a]}]}]}
remote_write: [{url: 'http://x/'}]
storage: {tsdb: {out_of_order_time_window: 30m, retention: {time: 1d, size: 1GB}}, exemplars: {max_exemplars: 5}}
runtime: {gogc: 50, log_level: warn}
otlp: {promote_resource_attributes: [a]}
tracing: {endpoint: x}
isobar: {region: eu, tenancy: {enabled: true, default: team-a}}
scrape_configs:
- job_name: a
  scrape_native_histograms: true
  convert_classic_histograms_to_nhcb: false
  kubernetes_sd_configs: [{role: pod}]
  oauth2: {client_id: x, token_url: 'http://t/', iss: me}
",
    );
    assert_eq!(
        loaded.not_active,
        [
            "runtime.gogc",
            "runtime.log_level",
            "rule_files",
            "scrape_configs[job_name=\"a\"].oauth2.iss",
            "scrape_configs[job_name=\"a\"].kubernetes_sd_configs",
            "storage.tsdb.out_of_order_time_window",
            "storage.tsdb.retention.size",
            "storage.exemplars",
            "alerting",
            "remote_write",
            "tracing",
            "isobar.region"
        ]
    );
    assert_eq!(loaded.global.external_labels["zone"], "z1");
    assert_eq!(loaded.retention.time_ms, Some(86_400_000));
    assert_eq!((loaded.isobar.tenancy_enabled, loaded.isobar.region.as_deref()), (Some(true), Some("eu")));
    assert_eq!(loaded.isobar.default_tenant.unwrap().as_str(), "team-a");
    assert_eq!(loaded.rule_files, ["/etc/p/r.yml"]);
}

#[test]
fn the_effective_configuration_is_a_configuration() {
    let loaded = good(
        "scrape_configs:\n- job_name: a\n  static_configs: [{targets: ['h:1'], labels: {a: b}}]\n  relabel_configs: [{target_label: x, replacement: 'yes'}]\n",
    );
    let want = "global:
  scrape_interval: 1m
  scrape_timeout: 10s
  evaluation_interval: 1m
scrape_configs:
- job_name: a
  honor_timestamps: true
  track_timestamps_staleness: false
  scrape_interval: 1m
  scrape_timeout: 10s
  scrape_native_histograms: false
  convert_classic_histograms_to_nhcb: false
  always_scrape_classic_histograms: false
  scrape_protocols:
  - OpenMetricsText1.0.0
  - OpenMetricsText0.0.1
  - PrometheusText1.0.0
  - PrometheusText0.0.4
  metrics_path: /metrics
  scheme: http
  enable_compression: true
  metric_name_validation_scheme: utf8
  metric_name_escaping_scheme: allow-utf-8
  extra_scrape_metrics: false
  follow_redirects: true
  enable_http2: true
  relabel_configs:
  - separator: ;
    target_label: x
    replacement: \"yes\"
    action: replace
  static_configs:
  - targets:
    - h:1
    labels:
      a: b
";
    assert_eq!(loaded.to_yaml(), want);
    let again = good(loaded.to_yaml());
    assert_eq!(again.scrape, loaded.scrape);
    assert_eq!(again.to_yaml(), loaded.to_yaml());
}

#[test]
fn secrets_are_never_shown() {
    let text = "
global: {external_labels: {a: b}}
alerting:
  alertmanagers:
  - basic_auth: {username: u, password: CANARY01}
    static_configs: [{targets: [a]}]
remote_write:
- url: http://u:CANARY02@h/x
  headers: {X-Key: CANARY03}
  authorization: {credentials: CANARY04}
- url: http://h/
  name: two
  sigv4: {access_key: a, secret_key: CANARY05}
  azuread: {oauth: {client_secret: CANARY06}}
remote_read:
- url: http://h/
  bearer_token: CANARY07
tracing: {endpoint: x, headers: {k: CANARY08}, tls_config: {cert: c, key: CANARY09}}
scrape_configs:
- job_name: a
  basic_auth: {username: u, password: CANARY10}
  proxy_url: http://u:CANARY11@p:1
  proxy_connect_header: {X: [CANARY12]}
  http_headers: {X-B: {secrets: [CANARY13]}}
  tls_config: {cert: c, key: CANARY14}
- job_name: b
  bearer_token: CANARY15
  http_sd_configs: [{url: 'http://u:CANARY16@h/'}]
- job_name: c
  oauth2: {client_id: x, client_secret: CANARY17, token_url: 'http://u:CANARY18@t/', endpoint_params: {password: CANARY19}}
  consul_sd_configs: [{server: h, token: CANARY20, password: CANARY21}]
  ec2_sd_configs: [{secret_key: CANARY22, access_key: CANARY23}]
  openstack_sd_configs: [{role: r, application_credential_secret: CANARY24}]
  ovhcloud_sd_configs: [{application_secret: CANARY25, consumer_key: CANARY26}]
  marathon_sd_configs: [{servers: [s], auth_token: CANARY27}]
  stackit_sd_configs: [{private_key: CANARY28, service_account_key: CANARY29}]
";
    let loaded = good(text);
    let shown = format!("{}\n{loaded:?}\n{:?}", loaded.to_yaml(), loaded.scrape);
    let leaked: Vec<&str> = shown.match_indices("CANARY").map(|(at, _)| &shown[at..at + 8]).collect();
    assert!(leaked.is_empty(), "{leaked:?}\n{}", loaded.to_yaml());
    assert!(loaded.to_yaml().matches("<secret>").count() >= 20);
    // Nor by an error about the text around one.
    for text in [
        "scrape_configs:\n- job_name: a\n  bearer_token: CANARY01\n  x: [\n",
        "scrape_configs:\n- job_name: a\n  basic_auth: {password: [CANARY01]}\n",
        "scrape_configs:\n- job_name: a\n  basic_auth: CANARY01\n",
    ] {
        let error = load(text).unwrap_err();
        assert!(!format!("{error} {error:?}").contains("CANARY"), "{error}");
    }
}

#[test]
fn further_files_of_jobs() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
    write(
        "p.yml",
        "global: {scrape_interval: 7s}\nscrape_config_files: ['more/*.yml']\nscrape_configs:\n- job_name: a\n",
    );
    std::fs::create_dir(dir.path().join("more")).unwrap();
    write("more/1.yml", "scrape_configs:\n- job_name: b\n  bearer_token_file: tok\n");
    let load = || load_file(&dir.path().join("p.yml"), &|_| None);
    let loaded = load().unwrap();
    assert_eq!(loaded.scrape.jobs[1].interval, Duration::from_secs(7));
    assert_eq!(loaded.files, [("bearer token", dir.path().join("more/tok"))]);
    write("more/2.yml", "scrape_configs:\n- job_name: a\n");
    let error = load().unwrap_err().to_string();
    assert!(error.contains("more/2.yml:2:13: found multiple scrape configs with job name \"a\""), "{error}");
    assert!(
        load_file(&dir.path().join("none.yml"), &|_| None).unwrap_err().to_string().contains("none.yml: ")
    );
}

#[test]
fn the_builtin_configuration() {
    let loaded = builtin("http", 9091).unwrap();
    assert_eq!(loaded.scrape.jobs[0].interval, Duration::from_secs(5));
    assert!(loaded.not_active.is_empty());
    let Discovery::Static(groups) = &loaded.scrape.jobs[0].discovery[0] else { panic!("static") };
    assert_eq!(groups[0].targets, ["localhost:9091"]);
}

#[test]
fn bombs_are_bounded() {
    let mut bomb = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
    for i in 1..12 {
        let before = format!("*a{}", i - 1);
        bomb.push_str(&format!("a{i}: &a{i} [{}]\n", vec![before; 10].join(", ")));
    }
    assert!(load(&bomb).is_err());
    assert!(load(&format!("a: {}{}\n", "[".repeat(10_000), "]".repeat(10_000))).is_err());
}

#[test]
fn oauth2_arrives_and_keeps_its_secrets() {
    let text = "scrape_configs:\n- job_name: j\n  oauth2: {client_id: me, client_secret_file: cs, scopes: [a, b], token_url: 'http://u:p@t/x', \
                endpoint_params: {audience: api, password: canary}, tls_config: {server_name: s}, proxy_url: 'http://proxy:1'}\n";
    let loaded = good(text);
    let Auth::OAuth2(got) = loaded.scrape.jobs[0].http.auth.clone() else { panic!("oauth2") };
    assert_eq!((got.client_id.as_str(), got.client_secret), ("me", Source::File("/etc/p/cs".into())));
    assert_eq!((got.scopes.join(","), got.token_url.expose()), ("a,b".into(), "http://u:p@t/x"));
    assert_eq!((got.endpoint_params["audience"].expose(), got.tls.server_name.as_str()), ("api", "s"));
    assert_eq!(got.proxy.unwrap().http.unwrap().expose(), "http://proxy:1");
    assert!(loaded.not_active.is_empty(), "{:?}", loaded.not_active);
    let yaml = loaded.to_yaml();
    assert!(!yaml.contains("canary") && !yaml.contains("u:p@") && yaml.contains("audience: api"), "{yaml}");
    check_problem(
        "scrape_configs:\n- job_name: j\n  oauth2: {client_id: me}\n",
        "3:11: oauth2 token_url must be configured",
    );
}

#[test]
fn proxies_of_the_environment() {
    let text = "scrape_configs:\n- job_name: j\n  proxy_from_environment: true\n";
    let with = |set: &[(&str, &str)]| {
        let env = |name: &str| set.iter().find(|(n, _)| *n == name).map(|(_, v)| (*v).to_owned());
        let loaded = load_str(text, "p.yml", Path::new("/"), &env).unwrap();
        assert!(loaded.not_active.is_empty());
        loaded.scrape.jobs[0].http.proxy.clone()
    };
    assert_eq!(with(&[]), None);
    let got =
        with(&[("HTTP_PROXY", "proxy:3128"), ("https_proxy", "http://u:p@other"), ("NO_PROXY", "a.org")])
            .unwrap();
    assert_eq!(got.http.unwrap().expose(), "http://proxy:3128");
    assert_eq!((got.https.unwrap().expose(), got.no_proxy.as_str()), ("http://u:p@other", "a.org"));
}

#[test]
fn native_histograms_are_asked_for_in_protobuf() {
    let got = job(
        "scrape_native_histograms: true\nnative_histogram_bucket_limit: 100\nnative_histogram_min_bucket_factor: 1.1",
    );
    assert!(got.scrape_native_histograms);
    assert_eq!(got.protocols, ScrapeProtocol::PROTOBUF_FIRST);
    assert_eq!((got.native_histogram_bucket_limit, got.native_histogram_min_bucket_factor), (100, 1.1));
    let got = job("scrape_native_histograms: true\nscrape_protocols: [PrometheusText1.0.0]");
    assert_eq!(got.protocols, [ScrapeProtocol::PrometheusText1_0_0]);
    let loaded = good(
        "global: {scrape_native_histograms: true, convert_classic_histograms_to_nhcb: true, always_scrape_classic_histograms: true}\nscrape_configs:\n- job_name: a\n- job_name: b\n  scrape_native_histograms: false\n",
    );
    let [a, b] = loaded.scrape.jobs.as_slice() else { panic!("two jobs") };
    assert!(a.scrape_native_histograms && a.convert_classic_histograms && a.always_scrape_classic_histograms);
    assert_eq!((a.protocols.len(), b.protocols.len(), b.scrape_native_histograms), (5, 4, false));
    assert!(loaded.not_active.is_empty());
}

#[test]
fn the_otlp_section_arrives_whole() {
    use api::{OtlpPromote, OtlpSettings, OtlpStrategy};
    assert_eq!(good("").otlp, OtlpSettings::default());
    let otlp = |keys: &str| good(&format!("otlp: {{{keys}}}\n")).otlp;
    let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    let got = otlp(
        "translation_strategy: NoTranslation, promote_resource_attributes: [a.b, ' c '], \
         keep_identifying_resource_attributes: true, convert_histograms_to_nhcb: true, promote_scope_metadata: true, \
         label_name_underscore_sanitization: false, label_name_preserve_multiple_underscores: false",
    );
    let want = OtlpSettings {
        strategy: OtlpStrategy::NoTranslation,
        promote: OtlpPromote::Only(names(&["a.b", "c"])),
        keep_identifying: true,
        convert_histograms: true,
        promote_scope: true,
        sanitize_underscore: false,
        keep_underscores: false,
        ..OtlpSettings::default()
    };
    assert_eq!(got, want);
    let got = otlp("promote_all_resource_attributes: true, ignore_resource_attributes: [x]");
    assert_eq!(got.promote, OtlpPromote::AllExcept(names(&["x"])));
    check_problem(
        "global: {metric_name_validation_scheme: legacy}\notlp: {translation_strategy: NoTranslation}\n",
        "2:30: OTLP translation strategy \"NoTranslation\" is not allowed when UTF8 is disabled",
    );
    check_problem(
        "otlp: {ignore_resource_attributes: [x]}\n",
        "1:36: 'ignore_resource_attributes' cannot be configured unless 'promote_all_resource_attributes' is true",
    );
}
