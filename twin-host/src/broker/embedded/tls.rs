//! TLS with certificates on both sides: whose certificate it is, is who connects.

use std::sync::Arc;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::pki_types::pem::{self, PemObject};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::{NoServerSessionStorage, VerifierBuilderError, WebPkiClientVerifier};
use tokio_rustls::rustls::{self, RootCertStore, ServerConfig, crypto::ring, version};
use twin_shared::id::DeviceId;
use x509_parser::prelude::{FromDer, X509Certificate};
use zeroize::Zeroizing;

/// The broker's own certificate and key, and the authority whose certificates it trusts; all as PEM.
#[derive(Clone)]
pub struct TlsIdentity {
    /// The certificate, and those between it and the authority.
    pub chain: Vec<u8>,
    /// The private key to the first certificate.
    pub key: Zeroizing<Vec<u8>>,
    /// The authorities that sign the boards' certificates.
    pub authority: Vec<u8>,
}

/// The key stays out of logs.
impl std::fmt::Debug for TlsIdentity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TlsIdentity").finish_non_exhaustive()
    }
}

/// Why certificates or keys cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// Not PEM, or of another kind.
    #[error("the {what} cannot be read: {source}")]
    Unreadable {
        /// Which of the three.
        what: &'static str,
        /// What the reader says.
        source: pem::Error,
    },
    /// Readable but refused, or key and certificate do not belong together.
    #[error("the certificate, key or authority is refused: {0}")]
    Refused(#[from] rustls::Error),
    /// The authority cannot verify anybody.
    #[error("the authority cannot be used: {0}")]
    Authority(#[from] VerifierBuilderError),
}

impl TlsIdentity {
    /// A TLS 1.3 acceptor that insists on a certificate of the authority's.
    pub(super) fn acceptor(&self) -> Result<TlsAcceptor, TlsError> {
        let unreadable = |what| move |source| TlsError::Unreadable { what, source };
        let certificates = |pem: &[u8], what| -> Result<Vec<CertificateDer<'static>>, TlsError> {
            CertificateDer::pem_slice_iter(pem).collect::<Result<_, _>>().map_err(unreadable(what))
        };
        let key = PrivateKeyDer::from_pem_slice(&self.key).map_err(unreadable("key"))?;
        let mut roots = RootCertStore::empty();
        for certificate in certificates(&self.authority, "authority")? {
            roots.add(certificate)?;
        }
        let provider = Arc::new(ring::default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider)).build()?;
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&version::TLS13])?
            .with_client_cert_verifier(verifier)
            .with_single_cert(certificates(&self.chain, "certificate")?, key)?;
        config.alpn_protocols = vec![b"mqtt".to_vec()];
        // Every connection shows its certificate anew: one that was replaced or has ended cannot go on by a ticket.
        config.send_tls13_tickets = 0;
        config.session_storage = Arc::new(NoServerSessionStorage {});
        Ok(TlsAcceptor::from(Arc::new(config)))
    }
}

/// The device that a certificate names: its only common name, if that is a device's name.
pub(super) fn named_device(certificate: &CertificateDer<'_>) -> Option<DeviceId> {
    let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
    let mut names = certificate.subject().iter_common_name();
    let name = names.next()?.as_str().ok()?.parse().ok()?;
    names.next().is_none().then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, DnType, KeyPair};

    fn certificate(names: &[&str]) -> CertificateDer<'static> {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name = rcgen::DistinguishedName::new();
        for name in names {
            params.distinguished_name.push(DnType::CommonName, *name);
        }
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().clone()
    }

    #[test]
    fn a_certificate_names_one_device_or_none() {
        assert_eq!(named_device(&certificate(&["board-1"])), Some("board-1".parse().unwrap()));
        for odd in ["", "Board", "a/b", "#", "twin/v1/x", "a b"] {
            assert_eq!(named_device(&certificate(&[odd])), None, "{odd}");
        }
        assert_eq!(named_device(&certificate(&[])), None);
        assert_eq!(named_device(&CertificateDer::from(vec![1, 2, 3])), None);
    }

    #[test]
    fn nonsense_is_refused_by_name() {
        let nonsense = TlsIdentity { chain: Vec::new(), key: b"no key".to_vec().into(), authority: Vec::new() };
        let Err(error) = nonsense.acceptor() else { panic!("nonsense serves nobody") };
        assert!(error.to_string().contains("key"), "{error}");
    }
}
