//! TLS settings of a client, and their files, which are read again when they change.

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use parking_lot::Mutex;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, aws_lc_rs};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme, SupportedProtocolVersion};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};

use crate::config::{Pem, TlsConfig, TlsVersion};
use crate::error::ClientError;
use crate::secret::{Secret, Source};

/// How often files are looked at.
const RECHECK: Duration = Duration::from_secs(1);

/// The PEM texts that a configuration names.
#[derive(Clone, Default, PartialEq)]
pub(crate) struct Files {
    ca: Option<String>,
    cert: Option<String>,
    key: Option<Secret>,
}

impl Files {
    /// Reads what `config` names.
    pub(crate) fn read(config: &TlsConfig) -> Result<Self, ClientError> {
        let pem = |pem: &Option<Pem>, what| match pem {
            None => Ok(None),
            Some(Pem::Inline(text)) => Ok(Some(text.clone())),
            Some(Pem::File(path)) => read(path, what).map(Some),
        };
        let key = match &config.key {
            None => None,
            Some(Source::Inline(key)) => Some(key.clone()),
            Some(Source::File(path)) => Some(Secret::new(read(path, "client key")?)),
        };
        Ok(Self { ca: pem(&config.ca, "CA cert")?, cert: pem(&config.cert, "client cert")?, key })
    }
}

fn read(path: &PathBuf, what: &'static str) -> Result<String, ClientError> {
    std::fs::read_to_string(path).map_err(|source| ClientError::File { what, path: path.clone(), source })
}

fn names_files(config: &TlsConfig) -> bool {
    matches!(config.ca, Some(Pem::File(_)))
        || matches!(config.cert, Some(Pem::File(_)))
        || matches!(config.key, Some(Source::File(_)))
}

/// Something built from TLS files, built again when they change.
pub(crate) struct Reloading<T> {
    state: Mutex<State<T>>,
}

struct State<T> {
    files: Files,
    built: T,
    checked: Duration,
}

impl<T: Clone> Reloading<T> {
    /// `built` was made from `files` at `now`.
    pub(crate) fn new(files: Files, built: T, now: Duration) -> Self {
        Self { state: Mutex::new(State { files, built, checked: now }) }
    }

    /// The present value; fails when the files cannot be used any more.
    pub(crate) async fn current(
        &self,
        now: Duration,
        config: &TlsConfig,
        build: impl FnOnce(&Files) -> Result<T, ClientError>,
    ) -> Result<T, ClientError> {
        {
            let mut state = self.state.lock();
            if !names_files(config) || now < state.checked + RECHECK {
                return Ok(state.built.clone());
            }
            state.checked = now;
        }
        let owned = config.clone();
        let read = tokio::task::spawn_blocking(move || Files::read(&owned)).await;
        let result = read.map_err(|e| ClientError::Tls(e.to_string())).and_then(|files| {
            let files = files?;
            let mut state = self.state.lock();
            if files != state.files {
                state.built = build(&files)?;
                state.files = files;
            }
            Ok(state.built.clone())
        });
        if result.is_err() {
            // Ask again at the next use: a failure is never hidden behind the recheck interval.
            self.state.lock().checked = Duration::ZERO;
        }
        result
    }
}

/// The rustls settings for `config`.
pub(crate) fn client_config(config: &TlsConfig, files: &Files) -> Result<ClientConfig, ClientError> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&versions(config)?)
        .map_err(|e| ClientError::Tls(e.to_string()))?;
    let builder = if config.insecure_skip_verify {
        builder.dangerous().with_custom_certificate_verifier(Arc::new(AnyCertificate::new(&provider)))
    } else {
        builder.with_root_certificates(roots(files.ca.as_deref())?)
    };
    match (&files.cert, &files.key) {
        (Some(cert), Some(key)) => {
            let chain = certificates(cert, "client cert")?;
            let key = PrivateKeyDer::from_pem_slice(key.expose().as_bytes())
                .map_err(|e| ClientError::Pem { what: "client key", reason: e.to_string() })?;
            builder
                .with_client_auth_cert(chain, key)
                .map_err(|e| ClientError::Pem { what: "client cert and key", reason: e.to_string() })
        }
        (None, None) => Ok(builder.with_no_client_auth()),
        _ => Err(ClientError::Tls("client certificate and key must be configured together".into())),
    }
}

fn versions(config: &TlsConfig) -> Result<Vec<&'static SupportedProtocolVersion>, ClientError> {
    let min = config.min_version.unwrap_or(TlsVersion::Tls12);
    let max = config.max_version.unwrap_or(TlsVersion::Tls13);
    let spoken = [(TlsVersion::Tls12, &rustls::version::TLS12), (TlsVersion::Tls13, &rustls::version::TLS13)];
    let allowed: Vec<_> =
        spoken.into_iter().filter(|(v, _)| (min..=max).contains(v)).map(|(_, v)| v).collect();
    if allowed.is_empty() {
        return Err(ClientError::Tls(
            "no TLS version of 1.2 and 1.3 lies between min_version and max_version".into(),
        ));
    }
    Ok(allowed)
}

fn certificates(pem: &str, what: &'static str) -> Result<Vec<CertificateDer<'static>>, ClientError> {
    let parsed: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
    match parsed {
        Ok(list) if list.is_empty() => Err(ClientError::Pem { what, reason: "no certificate in it".into() }),
        Ok(list) => Ok(list),
        Err(error) => Err(ClientError::Pem { what, reason: error.to_string() }),
    }
}

fn roots(ca: Option<&str>) -> Result<Arc<RootCertStore>, ClientError> {
    let Some(ca) = ca else { return Ok(system_roots()) };
    let mut store = RootCertStore::empty();
    for certificate in certificates(ca, "CA cert")? {
        store.add(certificate).map_err(|e| ClientError::Pem { what: "CA cert", reason: e.to_string() })?;
    }
    Ok(Arc::new(store))
}

/// The system's certificate authorities, loaded once. A machine without any can still scrape plain HTTP.
fn system_roots() -> Arc<RootCertStore> {
    static ROOTS: OnceLock<Arc<RootCertStore>> = OnceLock::new();
    let load = || {
        let mut store = RootCertStore::empty();
        let found = rustls_native_certs::load_native_certs();
        let (added, _) = store.add_parsable_certificates(found.certs);
        if added == 0 {
            tracing::warn!(
                "no certificate authorities found on this machine: HTTPS targets need tls_config.ca_file"
            );
        }
        Arc::new(store)
    };
    Arc::clone(ROOTS.get_or_init(load))
}

/// `insecure_skip_verify`: any certificate will do, but its key must have signed the handshake.
#[derive(Debug)]
struct AnyCertificate {
    algorithms: WebPkiSupportedAlgorithms,
}

impl AnyCertificate {
    fn new(provider: &CryptoProvider) -> Self {
        Self { algorithms: provider.signature_verification_algorithms }
    }
}

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(message, certificate, signature, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
