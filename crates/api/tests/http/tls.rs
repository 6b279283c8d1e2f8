//! Handshakes over real sockets: certificates of clients, names, versions, and new certificates while serving.

use std::net::SocketAddr;
use std::sync::Arc;

use api::listen::TlsSource;
use api::web::{ClientAuth, TlsServerSettings, TlsVersion, Web, WebSettings, WebSource};
use api::{ListenLimits, serve};
use arc_swap::ArcSwap;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion, version};
use tokio_util::sync::CancellationToken;

use crate::support::server;

/// An authority.
struct Authority(Issuer<'static, KeyPair>, String);

/// A certificate with its key, PEM.
#[derive(Clone)]
struct Pair {
    cert: String,
    key: String,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Self(Issuer::new(params, key), pem)
    }

    fn issue(&self, name: &str) -> Pair {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        let cert = params.signed_by(&key, &self.0).unwrap().pem();
        Pair { cert, key: key.serialize_pem() }
    }
}

struct Listening {
    address: SocketAddr,
    web: WebSource,
    stop: CancellationToken,
}

impl Drop for Listening {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

fn web(tls: TlsServerSettings) -> Web {
    Web::new(WebSettings { tls: Some(tls), ..WebSettings::default() }).unwrap()
}

async fn listen(tls: TlsServerSettings) -> Listening {
    let behind = server();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let source: WebSource = Arc::new(ArcSwap::from_pointee(web(tls)));
    let shown = Arc::clone(&source);
    let tls: TlsSource = Arc::new(move || shown.load().tls().unwrap());
    let stop = CancellationToken::new();
    let limits = ListenLimits::default();
    tokio::spawn(serve(
        vec![listener],
        behind.router.clone(),
        Some(tls),
        limits,
        behind.metrics.clone(),
        stop.clone(),
    ));
    Listening { address, web: source, stop }
}

/// The head of the answer to a request over TLS, and the protocol that was agreed; an error when there is none.
async fn ask(
    to: &Listening,
    ca: &Authority,
    client: Option<&Pair>,
    versions: &[&'static SupportedProtocolVersion],
) -> Result<(String, Option<Vec<u8>>), String> {
    let provider = Arc::new(tokio_rustls::rustls::crypto::aws_lc_rs::default_provider());
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(ca.1.as_bytes()).unwrap()).unwrap();
    let builder = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .unwrap()
        .with_root_certificates(roots);
    let mut config = match client {
        None => builder.with_no_client_auth(),
        Some(pair) => {
            let chain = vec![CertificateDer::from_pem_slice(pair.cert.as_bytes()).unwrap()];
            let key = PrivateKeyDer::from_pem_slice(pair.key.as_bytes()).unwrap();
            builder.with_client_auth_cert(chain, key).unwrap()
        }
    };
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    let stream = TcpStream::connect(to.address).await.unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    let fail = |error: std::io::Error| error.to_string();
    let mut stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await.map_err(fail)?;
    stream
        .write_all(b"GET /-/healthy HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        .await
        .map_err(fail)?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.map_err(fail)?;
    let protocol = stream.get_ref().1.alpn_protocol().map(<[u8]>::to_vec);
    Ok((answer.lines().next().unwrap_or("").to_owned(), protocol))
}

const BOTH: &[&SupportedProtocolVersion] = &[&version::TLS12, &version::TLS13];

fn settings(pair: &Pair) -> TlsServerSettings {
    TlsServerSettings { cert: pair.cert.clone(), key: pair.key.clone(), ..TlsServerSettings::default() }
}

#[tokio::test]
async fn plain_requests_are_not_answered_and_new_certificates_count_at_once() {
    let (ca, other) = (Authority::new(), Authority::new());
    let listening = listen(settings(&ca.issue("localhost"))).await;
    let (head, protocol) = ask(&listening, &ca, None, BOTH).await.unwrap();
    assert_eq!((head.as_str(), protocol.as_deref()), ("HTTP/1.1 200 OK", Some(b"http/1.1".as_slice())));
    let mut plain = TcpStream::connect(listening.address).await.unwrap();
    plain.write_all(b"GET /-/healthy HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    let _ = plain.read_to_end(&mut answer).await;
    assert!(!answer.starts_with(b"HTTP"), "{:?}", String::from_utf8_lossy(&answer));

    assert!(ask(&listening, &other, None, BOTH).await.is_err());
    listening.web.store(Arc::new(web(settings(&other.issue("localhost")))));
    assert!(ask(&listening, &other, None, BOTH).await.is_ok());
    assert!(ask(&listening, &ca, None, BOTH).await.is_err());
}

#[tokio::test]
async fn clients_must_show_a_certificate_of_the_authority_with_an_allowed_name() {
    let (ca, other) = (Authority::new(), Authority::new());
    let base = TlsServerSettings { client_ca: ca.1.clone(), ..settings(&ca.issue("localhost")) };
    let (good, wrong_name, foreign) =
        (ca.issue("client.example"), ca.issue("other.example"), other.issue("client.example"));
    let both = &[None, Some(&good), Some(&wrong_name), Some(&foreign)];
    let names = Some(vec!["client.example".to_owned()]);
    for (client_auth, client_allowed_sans, expected) in [
        (ClientAuth::RequireAndVerifyClientCert, None, [false, true, true, false]),
        (ClientAuth::RequireAndVerifyClientCert, names.clone(), [false, true, false, false]),
        (ClientAuth::VerifyClientCertIfGiven, None, [true, true, true, false]),
        (ClientAuth::RequireAnyClientCert, None, [false, true, true, true]),
        (ClientAuth::RequestClientCert, None, [true, true, true, true]),
    ] {
        let listening = listen(TlsServerSettings { client_auth, client_allowed_sans, ..base.clone() }).await;
        for (client, expected) in both.iter().zip(expected) {
            let result = ask(&listening, &ca, *client, BOTH).await;
            assert_eq!(result.is_ok_and(|(head, _)| head == "HTTP/1.1 200 OK"), expected, "{client_auth:?}");
        }
    }
}

#[tokio::test]
async fn versions_suites_and_bad_settings() {
    let ca = Authority::new();
    let base = settings(&ca.issue("localhost"));
    let only13 = listen(TlsServerSettings { min_version: TlsVersion::Tls13, ..base.clone() }).await;
    assert!(ask(&only13, &ca, None, &[&version::TLS12]).await.is_err());
    assert!(ask(&only13, &ca, None, &[&version::TLS13]).await.is_ok());
    let suites = vec![
        "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384".to_owned(),
        "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA".to_owned(),
    ];
    let old = TlsServerSettings { max_version: TlsVersion::Tls12, cipher_suites: suites, ..base.clone() };
    let only12 = listen(old.clone()).await;
    assert!(ask(&only12, &ca, None, &[&version::TLS12]).await.is_ok());
    assert!(ask(&only12, &ca, None, &[&version::TLS13]).await.is_err());

    let refused = |tls: TlsServerSettings| {
        Web::new(WebSettings { tls: Some(tls), ..WebSettings::default() }).unwrap_err()
    };
    let cbc = vec!["TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA".to_owned()];
    assert!(refused(TlsServerSettings { cipher_suites: cbc, ..old }).contains("none of them is spoken here"));
    let none =
        TlsServerSettings { max_version: TlsVersion::Tls11, min_version: TlsVersion::Tls10, ..base.clone() };
    assert!(refused(none).contains("leave no version of TLS"));
    let ca_without_policy = TlsServerSettings { client_ca: ca.1.clone(), ..base.clone() };
    assert!(refused(ca_without_policy).contains("without a Client Auth Policy"));
    let foreign_key = TlsServerSettings { key: ca.issue("localhost").key, ..base.clone() };
    assert!(refused(foreign_key).contains("certificate and key do not go together"));
    let curve = TlsServerSettings { curve_preferences: vec!["P1".to_owned()], ..base };
    assert!(refused(curve).contains("unknown curve: P1"));
}
