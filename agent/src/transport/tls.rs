//! TLS with certificates on both sides, on a board whose clock may be years behind.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rumqttc::{TlsConfiguration, Transport};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::time_provider::TimeProvider;
use rustls::{ClientConfig, RootCertStore};
use tokio_rustls::rustls;

use crate::config::Credentials;

/// Why TLS cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file is missing or is not PEM.
    #[error("{}: {error}", file.display())]
    Pem {
        /// The file.
        file: PathBuf,
        /// Why.
        error: rustls::pki_types::pem::Error,
    },
    /// The certificates do not fit.
    #[error("{}: {error}", file.display())]
    Certificate {
        /// The file.
        file: PathBuf,
        /// Why.
        error: rustls::Error,
    },
}

/// The transport of a board that shows its certificate, to a broker that one authority alone vouches for.
pub(super) fn transport(credentials: &Credentials) -> Result<Transport, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(&credentials.authority)? {
        roots.add(certificate).map_err(|error| TlsError::Certificate { file: credentials.authority.clone(), error })?;
    }
    let chain = certificates(&credentials.certificate)?;
    let private = &credentials.private_key;
    let key = PrivateKeyDer::from_pem_file(private).map_err(|error| TlsError::Pem { file: private.clone(), error })?;
    let wrong = |error| TlsError::Certificate { file: credentials.certificate.clone(), error };
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let clock = Arc::new(NoEarlierThan(latest_trace(&credentials.certificate)));
    let config = ClientConfig::builder_with_details(provider, clock)
        .with_safe_default_protocol_versions()
        .map_err(wrong)?
        .with_root_certificates(roots)
        .with_client_auth_cert(chain, key)
        .map_err(wrong)?;
    Ok(Transport::Tls(TlsConfiguration::Rustls(Arc::new(config))))
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let wrong = |error| TlsError::Pem { file: file.to_owned(), error };
    let found: Vec<_> = CertificateDer::pem_file_iter(file).map_err(wrong)?.collect::<Result<_, _>>().map_err(wrong)?;
    if found.is_empty() { Err(wrong(rustls::pki_types::pem::Error::NoItemsFound)) } else { Ok(found) }
}

/// The latest time that this board's files bear witness to: many boards have no clock of their own, and wake up in
/// 1970.
fn latest_trace(certificate: &Path) -> SystemTime {
    let program = std::env::current_exe().ok();
    let traces = program.iter().map(PathBuf::as_path).chain([certificate]);
    let written = traces.filter_map(|file| fs::metadata(file).and_then(|data| data.modified()).ok());
    written.max().unwrap_or(SystemTime::UNIX_EPOCH)
}

/// The system's clock, unless it is behind this time.
#[derive(Debug)]
struct NoEarlierThan(SystemTime);

impl TimeProvider for NoEarlierThan {
    fn current_time(&self) -> Option<UnixTime> {
        let now = SystemTime::now().max(self.0);
        Some(UnixTime::since_unix_epoch(now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO)))
    }
}
