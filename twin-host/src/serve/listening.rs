//! The broker that the host serves over, as its configuration says: its own, or somebody else's.

use std::sync::Arc;
use std::time::SystemTime;

use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use twin_shared::id::DeviceId;

use super::ServeError;
use super::roster::Roster;
use crate::broker::credentials::Credentials;
use crate::broker::embedded::{
    EmbeddedBroker, EmbeddedConfig, Limits, PlainListener, TlsError, TlsIdentity, TlsListener,
};
use crate::broker::external::{CanaryPair, ExternalAddress, ExternalBroker, ExternalConfig, Proof, Reach, examine};
use crate::broker::{Broker, HOST, Inbox};
use crate::config::{BrokerChoice, Config};
use crate::enroll::{Authority, CERTIFICATE_VALIDITY, authority_of};
use crate::store::Store;

/// The broker in use.
#[derive(Clone)]
pub(crate) enum HostBroker {
    /// In this process.
    Embedded(Arc<EmbeddedBroker>),
    /// Somebody else's.
    External(Arc<ExternalBroker>),
}

impl HostBroker {
    /// The broker, whichever it is.
    pub(crate) fn any(&self) -> Arc<dyn Broker> {
        match self {
            Self::Embedded(broker) => Arc::clone(broker) as Arc<dyn Broker>,
            Self::External(broker) => Arc::clone(broker) as Arc<dyn Broker>,
        }
    }
}

/// The authority, and the certificate that the embedded broker shows for it.
pub(crate) struct Notary {
    pub(crate) authority: Authority,
    /// Names and addresses in the broker's certificate.
    names: Vec<String>,
    /// Those of the configuration.
    configured: Vec<String>,
    /// PEM of the authority behind an external broker's certificate, if it is not ours.
    broker_authority: Option<String>,
    made: SystemTime,
}

impl Notary {
    /// Reads the authority, making it on first use.
    ///
    /// # Errors
    /// When it cannot be read or made.
    pub(crate) fn open(store: &Store, config: &Config, now: SystemTime) -> Result<Self, ServeError> {
        let authority = authority_of(store, now)?;
        let names = all_names(store, &config.names)?;
        let broker_authority = match &config.broker {
            BrokerChoice::Embedded => None,
            BrokerChoice::External { authority, .. } => authority.clone(),
        };
        Ok(Self { authority, names, configured: config.names.clone(), broker_authority, made: now })
    }

    /// Reads authority and names again; whether the broker must show another certificate, or trust others.
    ///
    /// # Errors
    /// When the authority cannot be read.
    pub(crate) fn refresh(&mut self, store: &Store, now: SystemTime) -> Result<bool, ServeError> {
        let authority = authority_of(store, now)?;
        let names = all_names(store, &self.configured)?;
        let aged = now.duration_since(self.made).is_ok_and(|age| age > CERTIFICATE_VALIDITY / 3 * 2);
        let changed = aged || names != self.names || authority.trusted() != self.authority.trusted();
        if changed {
            (self.authority, self.names, self.made) = (authority, names, now);
        }
        Ok(changed)
    }

    /// DER of the authorities that boards trust, one after the other: ours, and an external broker's.
    ///
    /// # Errors
    /// When one of them is none.
    pub(crate) fn trusted_by_boards(&self) -> Result<Vec<u8>, ServeError> {
        let pem = self.authority.trusted() + self.broker_authority.as_deref().unwrap_or_default();
        let mut trusted = Vec::new();
        for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
            let certificate = certificate.map_err(|source| TlsError::Unreadable { what: "authority", source })?;
            trusted.extend_from_slice(&certificate);
        }
        Ok(trusted)
    }

    /// A certificate for the broker, made now and kept in memory alone.
    ///
    /// # Errors
    /// A name that cannot stand in a certificate.
    pub(crate) fn identity(&self) -> Result<TlsIdentity, ServeError> {
        let own = self.authority.certify_broker(&self.names, self.made)?;
        Ok(TlsIdentity {
            chain: own.certificate.into_bytes(),
            key: own.key.as_bytes().to_vec().into(),
            authority: self.authority.trusted().into_bytes(),
        })
    }
}

/// The configured names and those by which boards were told to reach the broker.
fn all_names(store: &Store, configured: &[String]) -> Result<Vec<String>, ServeError> {
    let mut names = configured.to_vec();
    for name in store.broker_names()? {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    Ok(names)
}

/// Starts the broker, or connects to it after it has been examined.
pub(crate) async fn start(
    config: &Config,
    notary: Option<&Notary>,
    roster: Arc<Roster>,
) -> Result<(HostBroker, Inbox), ServeError> {
    match &config.broker {
        BrokerChoice::Embedded => {
            let plain = config
                .plain
                .map(|address| PlainListener { address, insecure_plain_beyond_loopback: config.plain_beyond_loopback });
            let tls = match (config.tls, notary) {
                (Some(address), Some(notary)) => Some(TlsListener { address, identity: notary.identity()? }),
                (None, _) | (_, None) => None,
            };
            let listening = EmbeddedConfig { plain, tls, limits: Limits::default(), durable: Vec::new() };
            let (broker, inbox) = EmbeddedBroker::start(listening, roster as Arc<dyn Credentials>).await?;
            Ok((HostBroker::Embedded(Arc::new(broker)), inbox))
        }
        BrokerChoice::External { address, authority } => {
            let notary = notary.ok_or(ServeError::NoAuthority)?;
            let (broker, inbox) = connect(address, authority.as_deref(), &notary.authority).await?;
            Ok((HostBroker::External(Arc::new(broker)), inbox))
        }
    }
}

/// An external broker that is shown certificates of our authority, and by its own a certificate of `broker_authority`,
/// or of ours.
async fn connect(
    address: &ExternalAddress,
    broker_authority: Option<&str>,
    ours: &Authority,
) -> Result<(ExternalBroker, Inbox), ServeError> {
    let authority = broker_authority.map_or_else(|| ours.trusted(), str::to_owned);
    let reach = Reach { address: address.clone(), authority: Some(authority) };
    let now = SystemTime::now();
    let identity = |name: &str| -> Result<(DeviceId, Proof), ServeError> {
        let name: DeviceId = name.parse().expect("a name made here is one");
        let proof = Proof::Certificate(ours.certify_client(&name, now)?);
        Ok((name, proof))
    };
    // Names that no board can have had: what an earlier examination left there cannot spoil this one.
    let canary = |number: u8| format!("canary-{number}-{:016x}", rand::random::<u64>());
    let pair = CanaryPair { victim: identity(&canary(1))?, intruder: identity(&canary(2))? };
    let (_, proof) = identity(HOST)?;
    examine(&reach, &proof, &pair).await?;
    tracing::info!(broker = %address, "the broker keeps devices apart");
    Ok(ExternalBroker::start(ExternalConfig { reach, proof, durable: Vec::new() }).await?)
}
