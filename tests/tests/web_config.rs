//! `--web.config.file` on a running node: users, TLS, certificates of clients, all of them changed while it serves; and
//! the node's scrape of itself, which none of that stands in the way of.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use serde_json::Value;
use tests::node::{Node, binary};

const PATIENCE: Duration = Duration::from_secs(60);

/// `alice` with the passwords `first` and `second`.
const FIRST: &str = "Basic YWxpY2U6Zmlyc3Q=";
const SECOND: &str = "Basic YWxpY2U6c2Vjb25k";

/// The line of the file for the user `alice`.
fn users(password: &str) -> String {
    let hash = bcrypt::hash(password, 4).expect("a cost within bounds");
    format!("basic_auth_users:\n  alice: {hash}\n")
}

fn with_users(folder: &Path, password: &str) -> Result<PathBuf> {
    let file = folder.join("web.yml");
    std::fs::write(&file, users(password))?;
    Ok(file)
}

#[test]
fn passwords_are_asked_for_and_follow_their_file() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let file = with_users(folder.path(), "first")?;
    let flag = format!("--web.config.file={}", file.display());
    let mut node = Node::start(&folder.path().join("data"), &[&flag])?;
    let ask = |node: &Node, authorization: &str| -> Result<u16> {
        let headers = [("Authorization", authorization)];
        Ok(node.client().request("GET", "/api/v1/query?query=1", &headers, &[])?.0)
    };
    for path in ["/-/ready", "/-/healthy", "/metrics", "/api/v1/query?query=1", "/graph"] {
        ensure!(node.get(path)?.0 == 401, "{path}");
    }
    let (status, _) = node.client().request("POST", "/api/v1/write", &[], &[])?;
    ensure!(status == 401, "{status}");
    ensure!(ask(&node, FIRST)? == 200 && ask(&node, SECOND)? == 401);
    node.eventually(PATIENCE, "the node's scrape of itself", |n| {
        let headers = [("Authorization", FIRST)];
        let (_, body) =
            n.client().request("GET", "/api/v1/query?query=up%7Bjob%3D%22isobar%22%7D", &headers, &[])?;
        let answer: Value = serde_json::from_slice(&body)?;
        let value = &answer["data"]["result"][0]["value"][1];
        ensure!(*value != "0", "{answer}");
        Ok((*value == "1").then_some(()))
    })?;

    with_users(folder.path(), "second")?;
    node.eventually(PATIENCE, "the new password", |n| Ok((ask(n, SECOND)? == 200).then_some(())))?;
    ensure!(ask(&node, FIRST)? == 401);
    // A broken file changes nothing.
    std::fs::write(&file, "basic_auth_users: {alice: plain-text-canary}\n")?;
    node.wait_for("the web configuration was not loaded")?;
    ensure!(ask(&node, SECOND)? == 200);
    let check = |file: &Path| Command::new(binary()).args(["check", "web-config"]).arg(file).output();
    let bad = check(&file)?;
    let text = String::from_utf8_lossy(&bad.stderr).into_owned();
    ensure!(bad.status.code() == Some(1) && text.contains("not a bcrypt hash"), "{text}");
    ensure!(!text.contains("canary"), "{text}");
    with_users(folder.path(), "third")?;
    ensure!(check(&file)?.status.success());
    let (_, log) = node.stop()?;
    let log = log.join("\n");
    ensure!(!log.contains("canary") && !log.contains("$2"), "{log}");
    Ok(())
}

/// An authority with its certificate, PEM.
struct Authority(Issuer<'static, KeyPair>, String);

/// A certificate with its key, PEM.
struct Pair {
    cert: String,
    key: String,
}

impl Authority {
    fn new() -> Result<Self> {
        let mut params = CertificateParams::new(Vec::<String>::new())?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate()?;
        let pem = params.self_signed(&key)?.pem();
        Ok(Self(Issuer::new(params, key), pem))
    }

    fn issue(&self, name: &str) -> Result<Pair> {
        let key = KeyPair::generate()?;
        let cert = CertificateParams::new(vec![name.to_owned()])?.signed_by(&key, &self.0)?.pem();
        Ok(Pair { cert, key: key.serialize_pem() })
    }
}

/// The answer to a GET over TLS: its code and body. Fails when the handshake does.
fn ask(
    node: &Node,
    ca: &Authority,
    client: Option<&Pair>,
    authorization: &str,
    path: &str,
) -> Result<(u16, String)> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(ca.1.as_bytes())?)?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots);
    let config = match client {
        None => builder.with_no_client_auth(),
        Some(pair) => builder.with_client_auth_cert(
            vec![CertificateDer::from_pem_slice(pair.cert.as_bytes())?],
            PrivateKeyDer::from_pem_slice(pair.key.as_bytes())?,
        )?,
    };
    let connection = ClientConnection::new(Arc::new(config), ServerName::try_from("localhost")?)?;
    let socket = TcpStream::connect(&node.address)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    let mut stream = StreamOwned::new(connection, socket);
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nhost: localhost\r\nauthorization: {authorization}\r\nconnection: close\r\n\r\n"
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let code = answer.split(' ').nth(1).context("a status line")?.parse()?;
    let body = answer.split_once("\r\n\r\n").context("a head")?.1.to_owned();
    Ok((code, body))
}

#[test]
fn tls_with_certificates_of_clients_and_users_changes_while_it_serves() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text);
    let (first, second, clients) = (Authority::new()?, Authority::new()?, Authority::new()?);
    let put = |authority: &Authority| -> Result<()> {
        let pair = authority.issue("localhost")?;
        // The key first: a pair that does not fit is not taken, and the files are looked at again.
        write("server.key", &pair.key)?;
        write("server.crt", &pair.cert)?;
        Ok(())
    };
    put(&first)?;
    write("clients.crt", &clients.1)?;
    let tls = "tls_server_config:\n  cert_file: server.crt\n  key_file: server.key\n  client_ca_file: clients.crt\n  \
               client_auth_type: RequireAndVerifyClientCert\n";
    write("web.yml", &format!("{tls}{}", users("first")))?;
    let flag = format!("--web.config.file={}", folder.path().join("web.yml").display());
    let mut node = Node::start(&folder.path().join("data"), &[&flag, "--web.enable-lifecycle"])?;
    let good = clients.issue("grafana")?;
    let stranger = second.issue("grafana")?;
    let path = "/api/v1/query?query=1";

    ensure!(ask(&node, &first, Some(&good), FIRST, path)?.0 == 200);
    ensure!(ask(&node, &first, Some(&good), SECOND, path)?.0 == 401, "a certificate is no password");
    for (who, pair) in [("nobody", None), ("a stranger", Some(&stranger))] {
        ensure!(ask(&node, &first, pair, FIRST, path).is_err(), "{who} got in");
    }
    ensure!(ask(&node, &second, Some(&good), FIRST, path).is_err(), "another authority's name was taken");
    // What speaks no TLS gets no answer of the API.
    let plain = node.client().request("GET", path, &[], &[]);
    ensure!(plain.is_err() || plain.is_ok_and(|(status, _)| status != 200));

    // The node scrapes itself all the same, and its page says by which scheme.
    let value = node.eventually(PATIENCE, "the node's scrape of itself", |n| {
        let (_, body) = ask(n, &first, Some(&good), FIRST, "/api/v1/query?query=up")?;
        let answer: Value = serde_json::from_str(&body)?;
        Ok(answer["data"]["result"][0]["value"][1].as_str().map(str::to_owned))
    })?;
    ensure!(value == "1", "{value}");
    let (_, targets) = ask(&node, &first, Some(&good), FIRST, "/api/v1/targets")?;
    let targets: Value = serde_json::from_str(&targets)?;
    let target = &targets["data"]["activeTargets"][0];
    ensure!(target["health"] == "up" && target["lastError"] == "", "{target}");
    let url = target["scrapeUrl"].as_str().context("a URL")?;
    ensure!(url.starts_with("https://localhost:"), "{url}");

    // Another certificate and other users, while it serves.
    put(&second)?;
    node.eventually(PATIENCE, "the new certificate", |n| {
        Ok(ask(n, &second, Some(&good), FIRST, path).is_ok_and(|(code, _)| code == 200).then_some(()))
    })?;
    ensure!(ask(&node, &first, Some(&good), FIRST, path).is_err(), "the old certificate is still shown");
    write("web.yml", &format!("{tls}{}", users("second")))?;
    node.eventually(PATIENCE, "the new password", |n| {
        Ok((ask(n, &second, Some(&good), SECOND, path)?.0 == 200).then_some(()))
    })?;
    ensure!(ask(&node, &second, Some(&good), FIRST, path)?.0 == 401);
    // Clients' certificates are no longer asked for.
    write(
        "web.yml",
        &format!("tls_server_config: {{cert_file: server.crt, key_file: server.key}}\n{}", users("second")),
    )?;
    node.eventually(PATIENCE, "clients without a certificate", |n| {
        Ok(ask(n, &second, None, SECOND, path).is_ok_and(|(code, _)| code == 200).then_some(()))
    })?;
    // Without TLS in the file: that needs a restart, and what was there stays.
    write("web.yml", &users("first"))?;
    node.wait_for("TLS can be switched on or off only by a restart")?;
    ensure!(ask(&node, &second, None, SECOND, path)?.0 == 200);
    let (status, log) = node.stop()?;
    ensure!(status.success(), "{}", log.join("\n"));
    ensure!(!log.join("\n").contains("PRIVATE KEY"));
    Ok(())
}
