//! The keys of an HTTP client, which upstream allows in scrape configs, discovery, remote write and alerting alike.
//!
//! Source: `common/config/http_config.go` (`HTTPClientConfig.Validate`).

use std::collections::BTreeMap;

use scrape::{Auth, HttpConfig, OAuth2, Pem, ProxyConfig, Secret, Source, TlsConfig, TlsVersion};

use super::out::Out;
use super::section::Section;

/// Headers that may not be set, as upstream's `ReservedHeaders`.
pub(super) const RESERVED: [&str; 18] = [
    "accept-encoding",
    "authorization",
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "host",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "user-agent",
    "www-authenticate",
    "x-amz-content-sha256",
    "x-amz-date",
    "x-amz-security-token",
    "x-prometheus-remote-read-version",
    "x-prometheus-remote-write-version",
    "x-prometheus-scrape-timeout-seconds",
];

/// Reads the keys of an HTTP client from `section`.
pub(super) fn client(section: &mut Section<'_>, http2_by_default: bool) -> HttpConfig {
    let auth = auth(section);
    let tls = tls(section);
    let follow_redirects = section.bool_or("follow_redirects", true);
    let enable_http2 = section.bool_or("enable_http2", http2_by_default);
    let proxy = proxy(section);
    let headers = headers(section);
    HttpConfig { auth, tls, follow_redirects, enable_http2, headers, proxy }
}

fn auth(section: &mut Section<'_>) -> Auth {
    let given = |key: &str| section.has(key);
    let bearer = given("bearer_token") || given("bearer_token_file");
    let kinds = [given("basic_auth"), given("authorization"), given("oauth2"), bearer];
    if given("bearer_token") && given("bearer_token_file") {
        section.problem("bearer_token", "at most one of bearer_token & bearer_token_file must be configured");
    }
    if kinds.iter().filter(|given| **given).count() > 1 {
        let key = if bearer { "bearer_token" } else { "authorization" };
        let message = "at most one of basic_auth, oauth2, authorization, bearer_token & bearer_token_file must be configured";
        section.problem(key, message);
    }
    let oauth2 = oauth2(section);
    let token = section.raw("bearer_token").filter(|token| !token.is_empty()).map(Secret::new);
    let file = section.raw("bearer_token_file").filter(|file| !file.is_empty());
    if let Some(basic) = section.section("basic_auth") {
        return basic_auth(section, basic);
    }
    if let Some(authorization) = section.section("authorization") {
        return authorization_header(section, authorization);
    }
    if let Some(oauth2) = oauth2 {
        return Auth::OAuth2(Box::new(oauth2));
    }
    let (key, credentials, shown) = match (token, file) {
        (Some(token), _) => ("credentials", Source::Inline(token), scrape::REDACTED.to_owned()),
        (None, Some(file)) => {
            let path = section.reader.join(&file);
            section.reader.names_file("bearer token", &path);
            ("credentials_file", Source::File(path.clone()), path.to_string_lossy().into_owned())
        }
        (None, None) => return Auth::None,
    };
    let pairs = vec![("type".to_owned(), Out::Text("Bearer".into())), (key.to_owned(), Out::Text(shown))];
    section.put("authorization", Out::Map(pairs));
    Auth::Header { kind: "Bearer".into(), credentials }
}

fn basic_auth(section: &mut Section<'_>, mut basic: Section<'_>) -> Auth {
    at_most_one(&basic, &["username", "username_file", "username_ref"]);
    at_most_one(&basic, &["password", "password_file", "password_ref"]);
    let name = basic.text("username").map(|name| Source::Inline(Secret::new(name)));
    let username = name.or(basic.file("username_file", "basic auth username").map(Source::File));
    let password = secret_or_file(&mut basic, "password", "password_file", "basic auth password");
    no_references(&mut basic, &["username_ref", "password_ref"]);
    section.put("basic_auth", basic.finish());
    let empty = || Source::Inline(Secret::default());
    Auth::Basic { username: username.unwrap_or_else(empty), password: password.unwrap_or_else(empty) }
}

fn authorization_header(section: &mut Section<'_>, mut authorization: Section<'_>) -> Auth {
    at_most_one(&authorization, &["credentials", "credentials_file", "credentials_ref"]);
    let kind = authorization.raw("type").map(|kind| kind.trim().to_owned()).filter(|kind| !kind.is_empty());
    let kind = kind.unwrap_or_else(|| "Bearer".into());
    if kind.eq_ignore_ascii_case("basic") {
        authorization
            .problem("type", "authorization type cannot be set to \"basic\", use \"basic_auth\" instead");
    }
    authorization.put("type", Out::Text(kind.clone()));
    let credentials =
        secret_or_file(&mut authorization, "credentials", "credentials_file", "authorization credentials");
    no_references(&mut authorization, &["credentials_ref"]);
    section.put("authorization", authorization.finish());
    Auth::Header { kind, credentials: credentials.unwrap_or_else(|| Source::Inline(Secret::default())) }
}

/// Keys of the grant by a signed assertion, which is not there yet.
const ASSERTION_KEYS: [&str; 9] = [
    "client_certificate_key_id",
    "client_certificate_key",
    "client_certificate_key_file",
    "client_certificate_key_ref",
    "grant_type",
    "signature_algorithm",
    "iss",
    "audience",
    "claims",
];

fn oauth2(section: &mut Section<'_>) -> Option<OAuth2> {
    let mut oauth2 = section.section("oauth2")?;
    at_most_one(&oauth2, &["client_secret", "client_secret_file", "client_secret_ref"]);
    for key in ["client_id", "token_url"] {
        if !oauth2.has(key) {
            oauth2.problem("", format!("oauth2 {key} must be configured"));
        }
    }
    let client_id = oauth2.text("client_id").unwrap_or_default();
    let secret = secret_or_file(&mut oauth2, "client_secret", "client_secret_file", "oauth2 client secret");
    for key in ASSERTION_KEYS.iter().filter(|key| **key != "grant_type") {
        oauth2.not_active(key);
    }
    if oauth2.text("grant_type").is_some_and(|kind| kind != "client_credentials") {
        oauth2.not_active("grant_type");
    }
    oauth2.text("client_certificate_key_id");
    oauth2.secret("client_certificate_key");
    oauth2.file("client_certificate_key_file", "oauth2 client certificate key");
    for key in ["signature_algorithm", "iss", "audience"] {
        oauth2.text(key);
    }
    oauth2.opaque("claims");
    let scopes = oauth2.texts("scopes");
    let token_url = oauth2.url("token_url").unwrap_or_default();
    let endpoint_params = endpoint_params(&mut oauth2);
    no_references(&mut oauth2, &["client_secret_ref", "client_certificate_key_ref"]);
    let tls = tls(&mut oauth2);
    let proxy = proxy(&mut oauth2);
    section.put("oauth2", oauth2.finish());
    let client_secret = secret.unwrap_or_else(|| Source::Inline(Secret::default()));
    Some(OAuth2 { client_id, client_secret, scopes, token_url, endpoint_params, tls, proxy })
}

fn endpoint_params(oauth2: &mut Section<'_>) -> BTreeMap<String, Secret> {
    let mut params = BTreeMap::new();
    if let Some(mut section) = oauth2.section("endpoint_params") {
        for name in section.keys(|_| true) {
            params.insert(name.to_owned(), Secret::new(section.raw(name).unwrap_or_default()));
        }
    }
    // Some servers want a password among them.
    oauth2.opaque("endpoint_params");
    params
}

/// Reads `tls_config`.
pub(super) fn tls(section: &mut Section<'_>) -> TlsConfig {
    let Some(mut tls) = section.open_section("tls_config") else { return TlsConfig::default() };
    at_most_one(&tls, &["ca", "ca_file", "ca_ref"]);
    at_most_one(&tls, &["cert", "cert_file", "cert_ref"]);
    at_most_one(&tls, &["key", "key_file", "key_ref"]);
    let ca = tls.text("ca").map(Pem::Inline).or(tls.file("ca_file", "CA cert").map(Pem::File));
    let cert = tls.text("cert").map(Pem::Inline).or(tls.file("cert_file", "client cert").map(Pem::File));
    let key = secret_or_file(&mut tls, "key", "key_file", "client key");
    if cert.is_some() && key.is_none() {
        tls.problem(
            "",
            "exactly one of key or key_file must be configured when a client certificate is configured",
        );
    }
    if key.is_some() && cert.is_none() {
        tls.problem(
            "",
            "exactly one of cert or cert_file must be configured when a client key is configured",
        );
    }
    let server_name = tls.text("server_name").unwrap_or_default();
    let insecure_skip_verify = tls.bool_or("insecure_skip_verify", false);
    let min_version = tls_version(&mut tls, "min_version");
    let max_version = tls_version(&mut tls, "max_version");
    no_references(&mut tls, &["ca_ref", "cert_ref", "key_ref"]);
    section.put("tls_config", tls.finish());
    TlsConfig { ca, cert, key, server_name, insecure_skip_verify, min_version, max_version }
}

fn tls_version(tls: &mut Section<'_>, key: &str) -> Option<TlsVersion> {
    let text = tls.text(key)?;
    let version = match text.as_str() {
        "TLS10" => TlsVersion::Tls10,
        "TLS11" => TlsVersion::Tls11,
        "TLS12" => TlsVersion::Tls12,
        "TLS13" => TlsVersion::Tls13,
        _ => {
            tls.problem(key, format!("unknown TLS version: {text}"));
            return None;
        }
    };
    Some(version)
}

fn proxy(section: &mut Section<'_>) -> Option<ProxyConfig> {
    let url = section.url("proxy_url");
    let no_proxy = section.text("no_proxy").unwrap_or_default();
    let from_environment = section.flag("proxy_from_environment");
    let mut connect_headers = BTreeMap::new();
    if let Some(mut headers) = section.section("proxy_connect_header") {
        for name in headers.keys(|_| true) {
            let values: Vec<Secret> = headers.raw_texts(name).into_iter().map(Secret::new).collect();
            headers.put(name, Out::texts(values.iter().map(|_| scrape::REDACTED)));
            connect_headers.insert(name.to_owned(), values);
        }
        section.put("proxy_connect_header", headers.finish());
    }
    let problem = match (&url, from_environment) {
        (None, false) if !connect_headers.is_empty() => {
            "if proxy_connect_header is configured, proxy_url or proxy_from_environment must also be configured"
        }
        (Some(_), true) => "if proxy_from_environment is configured, proxy_url must not be configured",
        (_, true) if !no_proxy.is_empty() => {
            "if proxy_from_environment is configured, no_proxy must not be configured"
        }
        (None, false) if !no_proxy.is_empty() => {
            "if no_proxy is configured, proxy_url must also be configured"
        }
        _ => "",
    };
    if !problem.is_empty() {
        section.problem("no_proxy", problem);
    }
    if from_environment {
        return proxy_of_environment(section, connect_headers);
    }
    url.map(|url| ProxyConfig { http: Some(url.clone()), https: Some(url), no_proxy, connect_headers })
}

/// The proxies that `HTTP_PROXY`, `HTTPS_PROXY` and `NO_PROXY` name, in upper or lower case.
fn proxy_of_environment(
    section: &Section<'_>,
    connect_headers: BTreeMap<String, Vec<Secret>>,
) -> Option<ProxyConfig> {
    let look_up = |name: &str| {
        let env = section.reader.env;
        let value = env(name).filter(|value| !value.is_empty());
        value.or_else(|| env(&name.to_ascii_lowercase())).filter(|value| !value.is_empty())
    };
    let url = |name: &str| {
        let url = look_up(name)?;
        Some(Secret::new(if url.contains("://") { url } else { format!("http://{url}") }))
    };
    let (http, https) = (url("HTTP_PROXY"), url("HTTPS_PROXY"));
    let any = http.is_some() || https.is_some();
    let no_proxy = look_up("NO_PROXY").unwrap_or_default();
    any.then_some(ProxyConfig { http, https, no_proxy, connect_headers })
}

fn headers(section: &mut Section<'_>) -> BTreeMap<String, Vec<Source>> {
    let mut all = BTreeMap::new();
    let Some(mut headers) = section.section("http_headers") else { return all };
    for name in headers.keys(|_| true) {
        if RESERVED.contains(&name.to_ascii_lowercase().as_str()) {
            headers.problem(name, format!("setting header {name:?} is not allowed"));
        }
        let Some(mut header) = headers.section(name) else { continue };
        let mut sources: Vec<Source> =
            header.texts("values").into_iter().map(|value| Source::Inline(Secret::new(value))).collect();
        let secrets = header.raw_texts("secrets");
        if !secrets.is_empty() {
            header.put("secrets", Out::texts(secrets.iter().map(|_| scrape::REDACTED)));
            sources.extend(secrets.into_iter().map(|value| Source::Inline(Secret::new(value))));
        }
        let files: Vec<_> = header.raw_texts("files").iter().map(|file| header.reader.join(file)).collect();
        if !files.is_empty() {
            header.put("files", Out::texts(files.iter().map(|f| f.to_string_lossy())));
            for file in files {
                header.reader.names_file("http header", &file);
                sources.push(Source::File(file));
            }
        }
        headers.put(name, header.finish());
        all.insert(name.to_owned(), sources);
    }
    section.put("http_headers", headers.finish());
    all
}

fn secret_or_file(
    section: &mut Section<'_>,
    key: &str,
    file_key: &str,
    what: &'static str,
) -> Option<Source> {
    let inline = section.secret(key).map(Source::Inline);
    let file = section.file(file_key, what).map(Source::File);
    inline.or(file)
}

fn at_most_one(section: &Section<'_>, keys: &[&str]) {
    let given: Vec<&&str> = keys.iter().filter(|key| section.has(key)).collect();
    if let [_, second, ..] = given.as_slice() {
        let names = keys.join(", ");
        section.problem(second, format!("{}: at most one of {names} must be configured", section.path));
    }
}

fn no_references(section: &mut Section<'_>, keys: &[&str]) {
    for key in keys {
        if section.raw(key).is_some() {
            section.problem(key, format!("{key}: there is no secret manager to refer to"));
        }
    }
}
