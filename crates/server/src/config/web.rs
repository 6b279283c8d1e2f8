//! The web configuration file (`--web.config.file`) in exporter-toolkit's format, and the files that it names.
//!
//! Source: exporter-toolkit's `web/tls_config.go` and `docs/web-configuration.md`. What the values become is `api::web`'s
//! matter. The texts of certificates and keys are read here, so that two loads can be compared.

use std::path::{Path, PathBuf};
use std::time::Duration;

use api::web::{
    ClientAuth, TlsServerSettings, TlsVersion, Web, WebSettings, check_hash, check_header, suite_is_known,
};

use super::section::{Reader, Section};
use super::{ConfigError, node, read};

const CLIENT_AUTH: [&str; 6] = [
    "NoClientCert",
    "RequestClientCert",
    "RequireAnyClientCert",
    "RequireClientCert",
    "VerifyClientCertIfGiven",
    "RequireAndVerifyClientCert",
];

const VERSIONS: [&str; 4] = ["TLS10", "TLS11", "TLS12", "TLS13"];

/// Loads the web configuration file `path`. Fails on what cannot be used, also when it is a certificate.
pub fn load_web(path: &Path) -> Result<Web, ConfigError> {
    let file = path.to_string_lossy().into_owned();
    let text = read(path).map_err(|message| ConfigError::whole(&file, message))?;
    let dir = path.parent().unwrap_or(Path::new(""));
    let settings = web_settings(&text, &file, dir)?;
    Web::new(settings).map_err(|message| ConfigError::whole(&file, message))
}

/// The settings in `text`; relative paths in it are relative to `dir`.
fn web_settings(text: &str, file: &str, dir: &Path) -> Result<WebSettings, ConfigError> {
    let error = |problems| ConfigError { file: file.to_owned(), problems };
    let tree = node::parse(text).map_err(|problem| error(vec![problem]))?;
    let reader = Reader::new(text, dir, &|_| None);
    let mut top = Section::new(&reader, &tree, "");
    let mut settings = WebSettings { tls: tls(&mut top), ..WebSettings::default() };
    http(&mut top, &mut settings);
    if let Some(mut users) = top.section("basic_auth_users") {
        for user in users.keys(|_| true) {
            let hash = users.secret(user).map(|hash| hash.expose().to_owned()).unwrap_or_default();
            if let Err(why) = check_hash(&hash) {
                users.problem(user, format!("basic_auth_users: user {user:?}: {why}"));
            }
            settings.users.insert(user.to_owned(), hash);
        }
        users.finish();
    }
    if let Some(mut limit) = top.section("rate_limit") {
        let interval = limit.raw_duration("interval").unwrap_or(0);
        let burst = limit.raw_number("burst").unwrap_or(0);
        if interval > 0 && burst == 0 {
            limit.problem("burst", "rate_limit: a burst of at least 1 is needed, or no request would pass");
        }
        if interval > 0 {
            settings.rate_limit = Some((Duration::from_millis(interval.unsigned_abs()), burst));
        }
        limit.finish();
    }
    top.finish();
    let (mut problems, ..) = reader.finish();
    if !problems.is_empty() {
        problems.sort_by_key(|p| (p.line, p.column));
        return Err(error(problems));
    }
    Ok(settings)
}

/// Reads `tls_server_config`; absent, or without any of the keys that switch TLS on, it is plain HTTP.
fn tls(top: &mut Section<'_>) -> Option<TlsServerSettings> {
    let mut section = top.section("tls_server_config")?;
    let mut settings = TlsServerSettings::default();
    let on = ["cert", "cert_file", "key", "key_file", "client_ca", "client_ca_file", "client_auth_type"]
        .iter()
        .any(|key| section.has(key));
    settings.cert = pem(&mut section, "cert", "cert_file", "certificate");
    settings.key = pem(&mut section, "key", "key_file", "key");
    settings.client_ca = pem(&mut section, "client_ca", "client_ca_file", "client CA");
    if on && settings.cert.is_empty() && !section.has("cert_file") {
        section.problem("", "missing one of cert or cert_file");
    }
    if on && settings.key.is_empty() && !section.has("key_file") {
        section.problem("", "missing one of key or key_file");
    }
    settings.client_auth = match section.one_of("client_auth_type", &CLIENT_AUTH).as_deref() {
        Some("RequestClientCert") => ClientAuth::RequestClientCert,
        Some("RequireAnyClientCert" | "RequireClientCert") => ClientAuth::RequireAnyClientCert,
        Some("VerifyClientCertIfGiven") => ClientAuth::VerifyClientCertIfGiven,
        Some("RequireAndVerifyClientCert") => ClientAuth::RequireAndVerifyClientCert,
        _ => ClientAuth::NoClientCert,
    };
    if section.has("client_allowed_sans") {
        settings.client_allowed_sans = Some(section.texts("client_allowed_sans"));
    }
    settings.min_version = version(&mut section, "min_version").unwrap_or(settings.min_version);
    settings.max_version = version(&mut section, "max_version").unwrap_or(settings.max_version);
    settings.cipher_suites = section.texts("cipher_suites");
    if let Some(unknown) = settings.cipher_suites.iter().find(|name| !suite_is_known(name)) {
        section.problem("cipher_suites", format!("unknown cipher: {unknown}"));
    }
    settings.curve_preferences = section.texts("curve_preferences");
    settings.prefer_server_cipher_suites = section.bool_or("prefer_server_cipher_suites", true);
    section.finish();
    on.then_some(settings)
}

fn version(section: &mut Section<'_>, key: &str) -> Option<TlsVersion> {
    Some(match section.one_of(key, &VERSIONS)?.as_str() {
        "TLS10" => TlsVersion::Tls10,
        "TLS11" => TlsVersion::Tls11,
        "TLS12" => TlsVersion::Tls12,
        _ => TlsVersion::Tls13,
    })
}

/// The PEM text under `key`, or in the file that `file_key` names.
fn pem(section: &mut Section<'_>, key: &str, file_key: &str, what: &'static str) -> String {
    let inline = section.secret(key).map(|text| text.expose().to_owned());
    let file = section.file(file_key, what);
    match (inline, file) {
        (Some(_), Some(_)) => {
            section.problem(file_key, format!("at most one of {key} and {file_key} may be there"));
            String::new()
        }
        (Some(text), None) => text,
        (None, Some(path)) => match read(&path) {
            Ok(text) => text,
            Err(why) => {
                section.problem(file_key, format!("failed to read {file_key} ({}): {why}", path.display()));
                String::new()
            }
        },
        (None, None) => String::new(),
    }
}

fn http(top: &mut Section<'_>, settings: &mut WebSettings) {
    let Some(mut section) = top.section("http_server_config") else { return };
    settings.no_http2 = !section.bool_or("http2", true);
    if let Some(mut headers) = section.section("headers") {
        for name in headers.keys(|_| true) {
            let value = headers.raw(name).unwrap_or_default();
            if value.is_empty() {
                continue;
            }
            if let Err(why) = check_header(name, &value) {
                headers.problem(name, why);
            }
            settings.headers.push((name.to_owned(), value));
        }
        headers.finish();
    }
    section.finish();
}

/// Files that a change of which is noticed: the web configuration file and what it names.
pub fn web_files(path: &Path) -> Vec<PathBuf> {
    let mut all = vec![path.to_owned()];
    let Ok(text) = read(path) else { return all };
    let Ok(tree) = node::parse(&text) else { return all };
    let reader = Reader::new(&text, path.parent().unwrap_or(Path::new("")), &|_| None);
    let mut top = Section::new(&reader, &tree, "");
    if let Some(mut section) = top.section("tls_server_config") {
        all.extend(
            ["cert_file", "key_file", "client_ca_file"].iter().filter_map(|key| section.file(key, "file")),
        );
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(text: &str) -> Result<WebSettings, String> {
        web_settings(text, "web.yml", Path::new("/nowhere")).map_err(|error| error.to_string())
    }

    const HASH: &str = "$2y$10$QOauhQNbBCuQDKes6eFzPeMqBSjb7Mr5DUmpZ/VcEd00UAV/LDeSi";

    #[test]
    fn everything_that_the_format_has() {
        let text = format!(
            "tls_server_config:\n  cert: CERT\n  key: KEY\n  client_ca: CA\n  client_auth_type: RequireAndVerifyClientCert\n  \
             client_allowed_sans: [a.b]\n  min_version: TLS13\n  max_version: TLS13\n  \
             cipher_suites: [TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256]\n  prefer_server_cipher_suites: false\n  \
             curve_preferences: [X25519]\nhttp_server_config:\n  http2: false\n  headers:\n    X-Frame-Options: deny\n\
             basic_auth_users:\n  alice: {HASH}\nrate_limit: {{interval: 10ms, burst: 5}}\n"
        );
        let found = settings(&text).unwrap();
        let tls = found.tls.as_ref().unwrap();
        assert_eq!((tls.cert.as_str(), tls.key.as_str(), tls.client_ca.as_str()), ("CERT", "KEY", "CA"));
        assert_eq!(tls.client_auth, ClientAuth::RequireAndVerifyClientCert);
        assert_eq!(tls.client_allowed_sans.as_deref(), Some(["a.b".to_owned()].as_slice()));
        assert_eq!((tls.min_version, tls.max_version), (TlsVersion::Tls13, TlsVersion::Tls13));
        assert!(!tls.prefer_server_cipher_suites && found.no_http2);
        assert_eq!(found.headers, [("X-Frame-Options".to_owned(), "deny".to_owned())]);
        assert_eq!(found.users["alice"], HASH);
        assert_eq!(found.rate_limit, Some((Duration::from_millis(10), 5)));
        assert_eq!(settings("").unwrap(), WebSettings::default());
        assert!(settings("tls_server_config: {min_version: TLS12}").unwrap().tls.is_none());
        let debug = format!("{found:?}");
        assert!(!debug.contains("KEY") && !debug.contains(HASH), "{debug}");
    }

    #[test]
    fn mistakes_name_their_place_and_show_no_secret() {
        for (text, expected) in [
            ("tls_server_config: {cert: x}", "web.yml:1:20: missing one of key or key_file"),
            ("tls_server_config: {cert_file: no.pem, key: k}", "failed to read cert_file (/nowhere/no.pem)"),
            ("tls_server_config: {client_auth_type: Maybe}", "client_auth_type"),
            ("tls_server_config: {cipher_suites: [RC4]}", "unknown cipher: RC4"),
            ("basic_auth_users: {bob: hunter2}", "user \"bob\": not a bcrypt hash"),
            ("http_server_config: {headers: {Server: x}}", "HTTP header \"Server\" can not be configured"),
            ("rate_limit: {interval: 1s}", "a burst of at least 1"),
            ("basic_auth: {}", "field basic_auth not found"),
        ] {
            let found = settings(text).unwrap_err();
            assert!(found.contains(expected), "{text}: {found}");
            assert!(!found.contains("hunter2"), "{found}");
        }
        let refused = Web::new(settings("tls_server_config: {cert: x, key: hunter2}").unwrap()).unwrap_err();
        assert!(refused.contains("no certificate in PEM") && !refused.contains("hunter2"), "{refused}");
    }
}
