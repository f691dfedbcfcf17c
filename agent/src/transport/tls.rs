//! TLS with certificates on both sides.

use std::sync::Arc;

use rumqttc::{TlsConfiguration, Transport};
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::time_provider::TimeProvider;
use rustls::{ClientConfig, RootCertStore};
use tokio_rustls::rustls;

use crate::keys::TlsKeys;

/// Why TLS cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The connection is to be protected, and there is nothing to protect it with.
    #[error("there is no certificate")]
    NoCertificate,
    /// An authority's certificate is none.
    #[error("the authority: {0}")]
    Authority(rustls::Error),
    /// The board's own certificate or key is none, or they do not belong together.
    #[error("the board's certificate: {0}")]
    Own(rustls::Error),
}

/// The transport of a board that shows its certificate, to a broker that its authorities alone vouch for.
pub(super) fn transport(keys: &TlsKeys, clock: Arc<dyn TimeProvider>) -> Result<Transport, TlsError> {
    let mut roots = RootCertStore::empty();
    for authority in &keys.authorities {
        roots.add(authority.clone()).map_err(TlsError::Authority)?;
    }
    let key = PrivatePkcs8KeyDer::from(keys.key.to_vec()).into();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_details(provider, clock)
        .with_safe_default_protocol_versions()
        .map_err(TlsError::Own)?
        .with_root_certificates(roots)
        .with_client_auth_cert(keys.chain.clone(), key)
        .map_err(TlsError::Own)?;
    Ok(Transport::Tls(TlsConfiguration::Rustls(Arc::new(config))))
}
