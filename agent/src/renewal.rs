//! Asks the host for the next keys when it says that they are due, and checks what it is given.

use std::time::{Duration, Instant};

use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair};
use rustls::pki_types::CertificateDer;
use tokio_rustls::rustls;
use twin_shared::id::DeviceId;
use twin_shared::wire::{Agreement, RenewalAnswer};
use x509_parser::prelude::{FromDer, X509Certificate};
use zeroize::Zeroizing;

use crate::keys::{Keys, TlsKeys};

/// A request that nobody answers is repeated when the host says again that keys are due, not before this time.
const PATIENCE: Duration = Duration::from_secs(20);

/// Certificates of authorities that a board keeps at most.
const AUTHORITIES: usize = 16;

/// The board's end of a renewal.
#[derive(Default)]
pub struct Renewal {
    pending: Option<Pending>,
}

struct Pending {
    agreement: Agreement,
    /// For the next certificate, where there is TLS.
    key: Option<Zeroizing<KeyPair>>,
    since: Instant,
}

/// A request on its way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// The board's share.
    pub share: [u8; 32],
    /// The signing request, DER; empty without TLS.
    pub request: Vec<u8>,
}

/// Why keys that the host gave are not taken, or none can be asked for.
#[derive(Debug, thiserror::Error)]
pub enum RenewalError {
    /// No key, or no signing request, can be made.
    #[error("no new key can be made: {0}")]
    Key(#[from] rcgen::Error),
    /// Not the answer to the request that is under way.
    #[error("an answer that was not asked for")]
    Unasked,
    /// The host did not want to.
    #[error("the host refuses new keys for now")]
    Refused,
    /// What came is unusable.
    #[error("the new keys cannot be used: {0}")]
    Unusable(&'static str),
}

impl Renewal {
    /// The host says that keys are due: a request, unless one is under way. `random` is fresh.
    ///
    /// # Errors
    /// When no key can be made.
    pub fn ask(
        &mut self,
        device: &DeviceId,
        keys: &Keys,
        now: Instant,
        random: [u8; 32],
    ) -> Result<Option<Request>, RenewalError> {
        if self.pending.as_ref().is_some_and(|pending| now.saturating_duration_since(pending.since) < PATIENCE) {
            return Ok(None);
        }
        let agreement = Agreement::new(random);
        let share = agreement.share();
        let key = keys.tls.is_some().then(KeyPair::generate).transpose()?.map(Zeroizing::new);
        let request = match &key {
            None => Vec::new(),
            Some(key) => {
                let mut params = CertificateParams::default();
                params.distinguished_name = DistinguishedName::new();
                params.distinguished_name.push(DnType::CommonName, device.as_str());
                params.serialize_request(&**key)?.der().to_vec()
            }
        };
        self.pending = Some(Pending { agreement, key, since: now });
        Ok(Some(Request { share, request }))
    }

    /// The host's answer: the next keys, once.
    ///
    /// # Errors
    /// When it is none to the request under way, or cannot be used; the present keys go on then.
    pub fn take(&mut self, answer: &RenewalAnswer<'_>, device: &DeviceId, keys: &Keys) -> Result<Keys, RenewalError> {
        let (asked, given) = match answer {
            RenewalAnswer::Due => return Err(RenewalError::Unasked),
            RenewalAnswer::Refused { asked } => (asked, None),
            RenewalAnswer::Keys { asked, share, chain, authorities } => (asked, Some((share, chain, authorities))),
        };
        let pending = self.pending.take_if(|pending| pending.agreement.share() == *asked);
        let pending = pending.ok_or(RenewalError::Unasked)?;
        let (share, chain, authorities) = given.ok_or(RenewalError::Refused)?;
        let sealing = pending
            .agreement
            .next_key(&keys.sealing, asked, share)
            .ok_or(RenewalError::Unusable("the host's share decides the key alone"))?;
        let tls = pending.key.map(|key| tls_keys(&key, chain, authorities, device)).transpose()?;
        Ok(keys.renewed(sealing, tls))
    }
}

/// Certificate and authorities for a key of this board's.
fn tls_keys(key: &KeyPair, chain: &[u8], authorities: &[u8], device: &DeviceId) -> Result<TlsKeys, RenewalError> {
    let (chain, authorities) = (certificates(chain)?, certificates(authorities)?);
    let own = chain.first().ok_or(RenewalError::Unusable("there is no certificate"))?.clone();
    let (_, own) = X509Certificate::from_der(&own).map_err(|_| RenewalError::Unusable("the certificate is none"))?;
    if own.public_key().subject_public_key.data.as_ref() != key.public_key_raw() {
        return Err(RenewalError::Unusable("the certificate is for another key"));
    }
    let mut names = own.subject().iter_common_name().map(|name| name.as_str());
    if !matches!((names.next(), names.next()), (Some(Ok(name)), None) if name == device.as_str()) {
        return Err(RenewalError::Unusable("the certificate names another device"));
    }
    let signs = |authority: &CertificateDer<'_>| {
        X509Certificate::from_der(authority)
            .is_ok_and(|(_, authority)| own.verify_signature(Some(authority.public_key())).is_ok())
    };
    if !authorities.iter().any(signs) {
        return Err(RenewalError::Unusable("none of the authorities has signed the certificate"));
    }
    Ok(TlsKeys { key: Zeroizing::new(key.serialize_der()), chain, authorities })
}

/// Certificates that lie one after the other.
fn certificates(mut der: &[u8]) -> Result<Vec<CertificateDer<'static>>, RenewalError> {
    let mut found = Vec::new();
    while !der.is_empty() {
        let (rest, _) = X509Certificate::from_der(der).map_err(|_| RenewalError::Unusable("a certificate is none"))?;
        found.push(CertificateDer::from(der[..der.len() - rest.len()].to_vec()));
        if found.len() > AUTHORITIES {
            return Err(RenewalError::Unusable("there are too many certificates"));
        }
        der = rest;
    }
    Ok(found)
}

#[cfg(test)]
mod tests;
