//! What protects connections between nodes: the shared secret always, mutual TLS unless the cluster runs without.
//!
//! Certificates are read from files again when those change, for connections made from then on; open connections stay.
//! Both sides check: signed by the cluster's CA, in its time of validity, the cluster's name among the DNS names of
//! the SAN. A certificate of another cluster of the same CA does not pass.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use arc_swap::ArcSwap;
use aws_lc_rs::hmac;
use parking_lot::Mutex;
use rustls::client::Resumption;
use rustls::server::{NoServerSessionStorage, ParsedCertificate, WebPkiClientVerifier};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};

use crate::SetupError;

/// What both ends say they speak inside TLS.
const ALPN: &[u8] = b"isobar-peer";

/// The cluster's shared secret, which never shows in messages or logs.
#[derive(Clone)]
pub struct Secret(Arc<hmac::Key>);

impl Secret {
    /// The shortest secret, bytes.
    pub const MIN_LEN: usize = 16;

    /// The secret of `text`, without white space around it (a file's last newline). Fails when it is too short.
    pub fn new(text: &[u8]) -> Result<Self, SetupError> {
        let text = text.trim_ascii();
        if text.len() < Self::MIN_LEN {
            let reason = format!("it has {} bytes, at least {} are needed", text.len(), Self::MIN_LEN);
            return Err(SetupError::new("cluster secret", &reason));
        }
        Ok(Self(Arc::new(hmac::Key::new(hmac::HMAC_SHA256, text))))
    }

    /// No secret: the handshake then proves nothing. For nodes that listen on loopback alone.
    pub fn none() -> Self {
        Self(Arc::new(hmac::Key::new(hmac::HMAC_SHA256, b"")))
    }

    pub(crate) fn key(&self) -> &hmac::Key {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<secret>")
    }
}

/// What connections are protected by.
#[derive(Clone, Debug)]
pub struct Security {
    /// The cluster's secret.
    pub secret: Secret,
    /// `None` = plain text on the wire.
    pub tls: Option<Arc<Tls>>,
}

/// Where the certificates are; PEM files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// This node's certificate, and those between it and the CA.
    pub cert: PathBuf,
    /// Its key.
    pub key: PathBuf,
    /// The CAs that sign the cluster's certificates.
    pub ca: PathBuf,
}

/// Mutual TLS, kept current with its files.
pub struct Tls {
    files: TlsFiles,
    cluster: ServerName<'static>,
    current: ArcSwap<Loaded>,
    seen: Mutex<Option<[Stamp; 3]>>,
}

/// One reading of the files.
pub(crate) struct Loaded {
    pub(crate) server: Arc<ServerConfig>,
    pub(crate) client: Arc<ClientConfig>,
}

/// What tells that a file changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    modified: Option<SystemTime>,
    len: u64,
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tls({:?})", self.files)
    }
}

impl Tls {
    /// Reads the files. Fails when one is missing or does not fit the others, or when `cluster_name` cannot stand in a
    /// certificate.
    pub fn load(files: TlsFiles, cluster_name: &str) -> Result<Arc<Self>, SetupError> {
        let cluster = ServerName::try_from(cluster_name.to_owned()).ok();
        let cluster = cluster.filter(|name| matches!(name, ServerName::DnsName(_))).ok_or_else(|| {
            SetupError::new(
                format!("cluster name {cluster_name:?}"),
                "with TLS it must be a DNS name (letters, digits, hyphens, dots), since it stands in certificates",
            )
        })?;
        let seen = stamps(&files).ok();
        let current = ArcSwap::from_pointee(read(&files)?);
        Ok(Arc::new(Self { files, cluster, current, seen: Mutex::new(seen) }))
    }

    /// Reads the files again if they changed; whether they did. On an error what was read before stays in use, and the
    /// next call tries again. Blocks on the file system.
    pub fn refresh(&self) -> Result<bool, SetupError> {
        let mut seen = self.seen.lock();
        let now = stamps(&self.files)?;
        if *seen == Some(now) {
            return Ok(false);
        }
        self.current.store(Arc::new(read(&self.files)?));
        *seen = Some(now);
        Ok(true)
    }

    pub(crate) fn current(&self) -> Arc<Loaded> {
        self.current.load_full()
    }

    /// The name that servers' certificates must have.
    pub(crate) fn name(&self) -> ServerName<'static> {
        self.cluster.clone()
    }

    /// Whether a caller's certificate names the cluster.
    pub(crate) fn check_caller(&self, chain: Option<&[CertificateDer<'_>]>) -> Result<(), String> {
        let first = chain.and_then(<[_]>::first).ok_or("it showed no certificate")?;
        let parsed = ParsedCertificate::try_from(first).map_err(|error| error.to_string())?;
        rustls::client::verify_server_name(&parsed, &self.cluster)
            .map_err(|error| format!("its certificate does not name this cluster: {error}"))
    }
}

fn stamps(files: &TlsFiles) -> Result<[Stamp; 3], SetupError> {
    let stamp = |path: &PathBuf| {
        let data =
            std::fs::metadata(path).map_err(|error| SetupError::new(path.display().to_string(), &error))?;
        Ok(Stamp { modified: data.modified().ok(), len: data.len() })
    };
    Ok([stamp(&files.cert)?, stamp(&files.key)?, stamp(&files.ca)?])
}

fn read(files: &TlsFiles) -> Result<Loaded, SetupError> {
    let at = |path: &PathBuf| path.display().to_string();
    let certificates = |path: &PathBuf| {
        let read: Result<Vec<_>, _> = CertificateDer::pem_file_iter(path).and_then(|found| found.collect());
        match read {
            Ok(certificates) if certificates.is_empty() => {
                Err(SetupError::new(at(path), "it holds no certificate"))
            }
            Ok(certificates) => Ok(certificates),
            Err(error) => Err(SetupError::new(at(path), &error)),
        }
    };
    let chain = certificates(&files.cert)?;
    let key =
        PrivateKeyDer::from_pem_file(&files.key).map_err(|error| SetupError::new(at(&files.key), &error))?;
    let mut roots = RootCertStore::empty();
    for ca in certificates(&files.ca)? {
        roots.add(ca).map_err(|error| SetupError::new(at(&files.ca), &error))?;
    }
    let roots = Arc::new(roots);
    let provider = || Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::clone(&roots), provider())
        .build()
        .map_err(|error| SetupError::new(at(&files.ca), &error))?;
    let mut server = versions(ServerConfig::builder_with_provider(provider()))?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain.clone(), key.clone_key())
        .map_err(|error| SetupError::new(at(&files.cert), &error))?;
    server.alpn_protocols = vec![ALPN.to_vec()];
    // A resumed session would skip the look at certificates.
    server.session_storage = Arc::new(NoServerSessionStorage {});
    server.send_tls13_tickets = 0;
    let mut client = versions(ClientConfig::builder_with_provider(provider()))?
        .with_root_certificates(roots)
        .with_client_auth_cert(chain, key)
        .map_err(|error| SetupError::new(at(&files.cert), &error))?;
    client.alpn_protocols = vec![ALPN.to_vec()];
    client.resumption = Resumption::disabled();
    Ok(Loaded { server: Arc::new(server), client: Arc::new(client) })
}

fn versions<S: rustls::ConfigSide>(
    builder: rustls::ConfigBuilder<S, rustls::WantsVersions>,
) -> Result<rustls::ConfigBuilder<S, rustls::WantsVerifier>, SetupError> {
    builder.with_protocol_versions(&[&rustls::version::TLS13]).map_err(|error| SetupError::new("TLS", &error))
}
