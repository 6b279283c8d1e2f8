//! Mutual TLS between nodes: who gets in, who does not and why, and certificates that are renewed under load.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use common::{Echo, Node, plain};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, KeyUsagePurpose, date_time_ymd};
use rpc::{Lane, PeerError, Security, Tls, TlsFiles};
use tempfile::TempDir;

const LIMIT: Duration = Duration::from_secs(10);

/// A CA and its PEM.
struct Ca {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

fn ca() -> Ca {
    let mut params = CertificateParams::new(Vec::default()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
    let key = KeyPair::generate().unwrap();
    let pem = params.self_signed(&key).unwrap().pem();
    Ca { issuer: Issuer::new(params, key), pem }
}

/// Writes a certificate for `name`, its key, and the CA that its owner trusts.
fn write(dir: &Path, signer: &Ca, trusted: &Ca, name: &str, until_year: i32) {
    let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
    params.not_before = date_time_ymd(2020, 1, 1);
    params.not_after = date_time_ymd(until_year, 1, 1);
    let key = KeyPair::generate().unwrap();
    let cert = params.signed_by(&key, &signer.issuer).unwrap();
    for (file, text) in
        [("cert.pem", cert.pem()), ("key.pem", key.serialize_pem()), ("ca.pem", trusted.pem.clone())]
    {
        // In place of the old one at once, as certificate managers do.
        let new = dir.join(format!("{file}.new"));
        std::fs::write(&new, text).unwrap();
        std::fs::rename(&new, dir.join(file)).unwrap();
    }
}

fn files(dir: &TempDir) -> TlsFiles {
    TlsFiles {
        cert: dir.path().join("cert.pem"),
        key: dir.path().join("key.pem"),
        ca: dir.path().join("ca.pem"),
    }
}

fn security(dir: &TempDir) -> Security {
    Security { tls: Some(Tls::load(files(dir), "eu").unwrap()), ..plain() }
}

/// A node with a certificate like this.
async fn node(id: u64, signer: &Ca, trusted: &Ca, name: &str, until_year: i32) -> (Node, TempDir) {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), signer, trusted, name, until_year);
    (Node::start(id, security(&dir), Echo::default()).await, dir)
}

async fn ask(a: &Node, b: &Node) -> Result<Bytes, PeerError> {
    a.knows(b);
    a.peers.meta(b.id(), Bytes::from_static(b"x"), LIMIT).await
}

#[tokio::test(flavor = "multi_thread")]
async fn only_certificates_of_this_cluster_get_in() {
    let (own, foreign) = (ca(), ca());
    let (a, _dir) = node(1, &own, &own, "eu", 4000).await;
    let (b, _dir) = node(2, &own, &own, "eu", 4000).await;
    assert_eq!(ask(&a, &b).await.unwrap(), "1 x");
    for (what, signer, name, until) in [
        ("another CA", &foreign, "eu", 4000),
        ("another cluster of the same CA", &own, "us", 4000),
        ("an expired certificate", &own, "eu", 2021),
    ] {
        // It trusts everybody's CA, so that only the other side's check is left when it calls.
        let (c, _dir) = node(3, signer, &own, name, until).await;
        let called = ask(&a, &c).await;
        assert!(
            matches!(&called, Err(PeerError::Unreachable { reason, .. }) if reason.contains("TLS")),
            "calling {what}: {called:?}"
        );
        let calling = ask(&c, &b).await;
        assert!(matches!(calling, Err(PeerError::Unreachable { .. })), "called by {what}: {calling:?}");
    }
    // Plain text gets no answer from a TLS port, and the other way round.
    let plain = Node::start(4, plain(), Echo::default()).await;
    assert!(ask(&plain, &b).await.is_err());
    assert!(ask(&a, &plain).await.is_err());
    assert_eq!(ask(&a, &b).await.unwrap(), "1 x");
}

#[test]
fn files_that_do_not_fit_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let own = ca();
    let load = |name: &str| Tls::load(files(&dir), name).map(|_| ()).unwrap_err().to_string();
    assert!(load("eu").contains("cert.pem"));
    write(dir.path(), &own, &own, "eu", 4000);
    Tls::load(files(&dir), "eu").unwrap();
    assert!(load("not a DNS name!").contains("must be a DNS name"));
    std::fs::write(dir.path().join("key.pem"), KeyPair::generate().unwrap().serialize_pem()).unwrap();
    assert!(load("eu").contains("cert.pem"), "the key is of another certificate");
    std::fs::write(dir.path().join("ca.pem"), "nothing").unwrap();
    assert!(load("eu").contains("ca.pem: it holds no certificate"));
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_are_renewed_under_load() {
    let (old, new) = (ca(), ca());
    let (a, dir_a) = node(1, &old, &old, "eu", 4000).await;
    let (b, dir_b) = node(2, &old, &old, "eu", 4000).await;
    a.knows(&b);
    let (peers, to) = (Arc::clone(&a.peers), b.id());
    let stop = Arc::new(AtomicBool::new(false));
    let load = {
        let stop = Arc::clone(&stop);
        tokio::spawn(async move {
            let mut calls = 0_u64;
            while !stop.load(Ordering::Relaxed) {
                peers.raft(to, Lane::Data, 1, Bytes::from_static(b"x"), false, LIMIT).await?;
                calls += 1;
            }
            Ok::<_, PeerError>(calls)
        })
    };
    // Half written files keep the old ones in use.
    std::fs::write(dir_a.path().join("cert.pem"), "-----BEGIN CERT").unwrap();
    a.peers.meta_at(&b.address, Bytes::new(), LIMIT).await.expect("the old certificate is still in use");
    // Both move to a new CA; connections that are open stay, new ones use it.
    write(dir_a.path(), &new, &new, "eu", 4000);
    write(dir_b.path(), &new, &new, "eu", 4000);
    a.peers.meta_at(&b.address, Bytes::new(), LIMIT).await.expect("both use the new certificates");
    // Who still has one of the old CA gets in no more.
    let (c, _dir) = node(3, &old, &old, "eu", 4000).await;
    assert!(ask(&c, &b).await.is_err());
    stop.store(true, Ordering::Relaxed);
    let calls = load.await.unwrap().expect("no call failed");
    assert!(calls > 0);
}
