//! Handshakes of the server: from the settings of the file to those of rustls.

use std::fmt;
use std::sync::Arc;

use tokio_rustls::rustls::client::danger::HandshakeSignatureValid;
use tokio_rustls::rustls::crypto::{CryptoProvider, aws_lc_rs};
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use tokio_rustls::rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, RootCertStore, ServerConfig,
    SignatureScheme, SupportedProtocolVersion, version,
};

use super::names::alternative_names;

/// A version of TLS as the file names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TlsVersion {
    /// `TLS10`; not spoken here.
    Tls10,
    /// `TLS11`; not spoken here.
    Tls11,
    /// `TLS12`.
    Tls12,
    /// `TLS13`.
    Tls13,
}

/// What is asked of a client's certificate, as the file names it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ClientAuth {
    /// None is asked for.
    #[default]
    NoClientCert,
    /// One is asked for and not verified.
    RequestClientCert,
    /// One must be given and is not verified.
    RequireAnyClientCert,
    /// One may be given and is verified then.
    VerifyClientCertIfGiven,
    /// One must be given and is verified.
    RequireAndVerifyClientCert,
}

/// TLS as the file states it, with the texts of the files that it names.
#[derive(Clone, PartialEq)]
pub struct TlsServerSettings {
    /// The certificate chain, PEM.
    pub cert: String,
    /// The key, PEM. Secret.
    pub key: String,
    /// Authorities of clients' certificates, PEM; empty = none.
    pub client_ca: String,
    /// What is asked of clients.
    pub client_auth: ClientAuth,
    /// Names of which a client's certificate must have one; any when absent.
    pub client_allowed_sans: Option<Vec<String>>,
    /// The oldest version spoken; at least 1.2 whatever it says.
    pub min_version: TlsVersion,
    /// The newest version spoken.
    pub max_version: TlsVersion,
    /// Cipher suites of TLS 1.2 by Go's names, in order; all that are safe when empty.
    pub cipher_suites: Vec<String>,
    /// The server's order of suites counts, not the client's.
    pub prefer_server_cipher_suites: bool,
    /// Groups of the key exchange by Go's names, in order; the library's when empty.
    pub curve_preferences: Vec<String>,
}

impl Default for TlsServerSettings {
    fn default() -> Self {
        Self {
            cert: String::new(),
            key: String::new(),
            client_ca: String::new(),
            client_auth: ClientAuth::NoClientCert,
            client_allowed_sans: None,
            min_version: TlsVersion::Tls12,
            max_version: TlsVersion::Tls13,
            cipher_suites: Vec::new(),
            prefer_server_cipher_suites: true,
            curve_preferences: Vec::new(),
        }
    }
}

impl fmt::Debug for TlsServerSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsServerSettings").field("client_auth", &self.client_auth).finish_non_exhaustive()
    }
}

/// Go's names of the suites of TLS 1.2 that are spoken here, with the library's.
const SUITES: [(&str, &str); 8] = [
    ("TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256", "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256"),
    ("TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384", "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384"),
    ("TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256", "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256"),
    ("TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305", "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256"),
    ("TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256", "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256"),
    ("TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384", "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384"),
    ("TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256", "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256"),
    ("TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305", "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256"),
];

/// Suites that Go knows and that are not spoken here: those of TLS 1.3 are always on, the others are left out.
const OTHER_SUITES: [&str; 8] = [
    "TLS_AES_128_GCM_SHA256",
    "TLS_AES_256_GCM_SHA384",
    "TLS_CHACHA20_POLY1305_SHA256",
    "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA",
    "TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA",
    "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA",
    "TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA",
    "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA256",
];

/// Whether the file may name the cipher suite `name`.
pub fn suite_is_known(name: &str) -> bool {
    SUITES.iter().any(|(known, _)| *known == name) || OTHER_SUITES.contains(&name)
}

/// The provider with the suites and groups that the settings leave.
fn provider(settings: &TlsServerSettings) -> Result<CryptoProvider, String> {
    let mut provider = aws_lc_rs::default_provider();
    if !settings.cipher_suites.is_empty() {
        let all = std::mem::take(&mut provider.cipher_suites);
        let names: Vec<String> = all.iter().map(|suite| format!("{:?}", suite.suite())).collect();
        let is_tls13 = |name: &str| name.starts_with("TLS13_");
        let mut kept: Vec<usize> = (0..all.len()).filter(|at| is_tls13(&names[*at])).collect();
        let before = kept.len();
        for wanted in &settings.cipher_suites {
            let Some((_, ours)) = SUITES.iter().find(|(known, _)| known == wanted) else {
                if suite_is_known(wanted) {
                    continue;
                }
                return Err(format!("unknown cipher: {wanted}"));
            };
            kept.extend(names.iter().position(|name| name == ours));
        }
        if kept.len() == before && settings.max_version < TlsVersion::Tls13 {
            return Err("cipher_suites: none of them is spoken here".into());
        }
        provider.cipher_suites = kept.into_iter().map(|at| all[at]).collect();
    }
    if !settings.curve_preferences.is_empty() {
        let mut kept = Vec::new();
        for wanted in &settings.curve_preferences {
            kept.push(match wanted.as_str() {
                "CurveP256" => aws_lc_rs::kx_group::SECP256R1,
                "CurveP384" => aws_lc_rs::kx_group::SECP384R1,
                "X25519" => aws_lc_rs::kx_group::X25519,
                "X25519MLKEM768" => aws_lc_rs::kx_group::X25519MLKEM768,
                // Known to Go, not to the library: the others of the list are left.
                "CurveP521" => continue,
                _ => return Err(format!("unknown curve: {wanted}")),
            });
        }
        if kept.is_empty() {
            return Err("curve_preferences: none of them is spoken here".into());
        }
        provider.kx_groups = kept;
    }
    Ok(provider)
}

/// The library's settings for `settings`.
pub(super) fn server_config(settings: &TlsServerSettings, http2: bool) -> Result<ServerConfig, String> {
    let provider = Arc::new(provider(settings)?);
    let mut versions: Vec<&'static SupportedProtocolVersion> = Vec::new();
    for (name, spoken) in [(TlsVersion::Tls12, &version::TLS12), (TlsVersion::Tls13, &version::TLS13)] {
        if settings.min_version <= name && name <= settings.max_version {
            versions.push(spoken);
        }
    }
    if versions.is_empty() {
        return Err(
            "min_version and max_version leave no version of TLS that is spoken here (1.2 and 1.3)".into()
        );
    }
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&versions)
        .map_err(|error| format!("TLS versions and cipher suites: {error}"))?;
    let builder = match client_verifier(settings, &provider)? {
        None => builder.with_no_client_auth(),
        Some(verifier) => builder.with_client_cert_verifier(verifier),
    };
    let chain = certificates(&settings.cert, "cert")?;
    let key = PrivateKeyDer::from_pem_slice(settings.key.as_bytes())
        .map_err(|_| "key: not a private key in PEM".to_owned())?;
    let mut config = builder
        .with_single_cert(chain, key)
        .map_err(|error| format!("certificate and key do not go together: {error}"))?;
    config.ignore_client_order = settings.prefer_server_cipher_suites;
    let protocols: &[&[u8]] = if http2 { &[b"h2", b"http/1.1"] } else { &[b"http/1.1"] };
    config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
    Ok(config)
}

fn certificates(pem: &str, what: &str) -> Result<Vec<CertificateDer<'static>>, String> {
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
    match all {
        Ok(chain) if !chain.is_empty() => Ok(chain),
        _ => Err(format!("{what}: no certificate in PEM")),
    }
}

fn client_verifier(
    settings: &TlsServerSettings,
    provider: &Arc<CryptoProvider>,
) -> Result<Option<Arc<dyn ClientCertVerifier>>, String> {
    let has_ca = !settings.client_ca.is_empty();
    let verified = |mandatory: bool| -> Result<Arc<dyn ClientCertVerifier>, String> {
        if !has_ca {
            return Err("client_ca_file is needed to verify client certificates".into());
        }
        let mut roots = RootCertStore::empty();
        for certificate in certificates(&settings.client_ca, "client_ca")? {
            roots.add(certificate).map_err(|error| format!("client_ca: {error}"))?;
        }
        let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider));
        let builder = if mandatory { builder } else { builder.allow_unauthenticated() };
        let built = builder.build().map_err(|error| format!("client_ca: {error}"))?;
        Ok(built)
    };
    let any = |mandatory: bool| -> Arc<dyn ClientCertVerifier> {
        Arc::new(AnyCertificate { mandatory, provider: Arc::clone(provider) })
    };
    let verifier = match settings.client_auth {
        ClientAuth::NoClientCert if has_ca => {
            return Err("client CA's have been configured without a Client Auth Policy".into());
        }
        ClientAuth::NoClientCert => return Ok(None),
        ClientAuth::RequestClientCert => any(false),
        ClientAuth::RequireAnyClientCert => any(true),
        ClientAuth::VerifyClientCertIfGiven => verified(false)?,
        ClientAuth::RequireAndVerifyClientCert => verified(true)?,
    };
    Ok(Some(match &settings.client_allowed_sans {
        None => verifier,
        Some(allowed) => Arc::new(WithNames { inner: verifier, allowed: allowed.clone() }),
    }))
}

/// Takes any certificate; still checks that the client has its key.
#[derive(Debug)]
struct AnyCertificate {
    mandatory: bool,
    provider: Arc<CryptoProvider>,
}

impl ClientCertVerifier for AnyCertificate {
    fn client_auth_mandatory(&self) -> bool {
        self.mandatory
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        tokio_rustls::rustls::crypto::verify_tls12_signature(message, cert, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        tokio_rustls::rustls::crypto::verify_tls13_signature(message, cert, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// Wants one of the allowed names in the certificate besides.
#[derive(Debug)]
struct WithNames {
    inner: Arc<dyn ClientCertVerifier>,
    allowed: Vec<String>,
}

impl ClientCertVerifier for WithNames {
    fn client_auth_mandatory(&self) -> bool {
        self.inner.client_auth_mandatory()
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.inner.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        cert: &CertificateDer<'_>,
        chain: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verified = self.inner.verify_client_cert(cert, chain, now)?;
        if alternative_names(cert).iter().any(|name| self.allowed.contains(name)) {
            return Ok(verified);
        }
        Err(Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure))
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls12_signature(message, cert, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls13_signature(message, cert, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}
