//! One certificate: its bytes, its key, and what the host remembers of it.

use std::fmt;
use std::time::{Duration, SystemTime};

use zeroize::Zeroizing;

/// The BLAKE3 hash of a certificate's DER: which certificate it is, whoever signed whatever else.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fingerprint(pub [u8; 32]);

impl Fingerprint {
    /// Of a certificate's DER.
    #[must_use]
    pub fn of(der: &[u8]) -> Self {
        Self(*blake3::hash(der).as_bytes())
    }
}

/// The first half of its digits.
impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0[..16].iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Fingerprint({self})")
    }
}

/// What the host remembers of a certificate that it signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CertificateRecord {
    /// Which certificate.
    pub fingerprint: Fingerprint,
    /// The authority's certificate whose key signed it.
    pub authority: Fingerprint,
    /// When it ends.
    pub expires: SystemTime,
}

impl CertificateRecord {
    /// Whether it should be renewed: less than a third of a certificate's life is left.
    #[must_use]
    pub fn is_due(&self, now: SystemTime, validity: Duration) -> bool {
        self.expires.duration_since(now).unwrap_or_default() < validity / 3
    }
}

/// A certificate with its key, as PEM. The key is wiped when dropped and never printed.
#[derive(Clone)]
pub struct Certified {
    /// The certificate, and after it those that lead to an authority which was there before.
    pub certificate: String,
    /// Its private key.
    pub key: Zeroizing<String>,
    /// What to remember of it.
    pub record: CertificateRecord,
}

impl fmt::Debug for Certified {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Certified({})", self.record.fingerprint)
    }
}
