//! The certificate authority of one twin host: it signs the boards' certificates and the broker's own, nothing
//! else, and trusts nobody.

use super::private::{self, PrivateFileError};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use std::path::Path;
use std::time::{Duration, SystemTime};
use twin_shared::id::DeviceId;
use zeroize::Zeroizing;

const CERTIFICATE_FILE: &str = "ca.pem";
const KEY_FILE: &str = "ca.key";
const DAY: Duration = Duration::from_secs(86_400);

/// Ten years: renewing the authority means enrolling every board again.
const AUTHORITY_VALIDITY: Duration = Duration::from_secs(3650 * 86_400);

/// A board renews itself well before its year is over.
pub const CERTIFICATE_VALIDITY: Duration = Duration::from_secs(365 * 86_400);

/// A certificate and its key, as PEM. The key is wiped when dropped and never printed.
#[derive(Clone)]
pub struct Certified {
    /// The certificate.
    pub certificate: String,
    /// Its private key.
    pub key: Zeroizing<String>,
}

/// The authority: its certificate, and the key that signs.
pub struct Authority {
    certificate: String,
    issuer: Issuer<'static, KeyPair>,
}

/// Why there is no authority, or no certificate.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// Its files.
    #[error(transparent)]
    File(#[from] PrivateFileError),
    /// One of its two files is there without the other: making a new one would lock out every enrolled board.
    #[error(
        "{missing} is missing beside its counterpart: restore it from a backup, or delete both and enroll all boards again"
    )]
    Half {
        /// The file that is not there.
        missing: std::path::PathBuf,
    },
    /// Signing, or reading what was signed.
    #[error("certificates: {0}")]
    Certificate(#[from] rcgen::Error),
}

impl Authority {
    /// The authority whose files lie in this directory; on first use a new one, whose files are put there.
    ///
    /// # Errors
    /// [`AuthorityError`]; an authority is never overwritten.
    pub fn open_or_create(directory: &Path, now: SystemTime) -> Result<Self, AuthorityError> {
        let (certificate_path, key_path) = (directory.join(CERTIFICATE_FILE), directory.join(KEY_FILE));
        match (private::read(&certificate_path)?, private::read(&key_path)?) {
            (Some(certificate), Some(key)) => {
                let issuer = Issuer::from_ca_cert_pem(&certificate, KeyPair::from_pem(&key)?)?;
                Ok(Self { certificate: certificate.to_string(), issuer })
            }
            (None, None) => {
                let (authority, key) = Self::create(now)?;
                private::create_directory(directory)?;
                private::create(&key_path, key.as_bytes())?;
                private::create(&certificate_path, authority.certificate.as_bytes())?;
                Ok(authority)
            }
            (None, Some(_)) => Err(AuthorityError::Half { missing: certificate_path }),
            (Some(_), None) => Err(AuthorityError::Half { missing: key_path }),
        }
    }

    /// A new authority in memory, and its key as PEM.
    fn create(now: SystemTime) -> Result<(Self, Zeroizing<String>), AuthorityError> {
        let key = KeyPair::generate()?;
        let pem = Zeroizing::new(key.serialize_pem());
        let mut params = parameters("twin host authority", now, AUTHORITY_VALIDITY);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let certificate = params.self_signed(&key)?.pem();
        Ok((Self { certificate, issuer: Issuer::new(params, key) }, pem))
    }

    /// The authority's certificate, PEM: what boards and the broker trust.
    #[must_use]
    pub fn certificate(&self) -> &str {
        &self.certificate
    }

    /// A certificate by which a board proves that it is this device, for [`CERTIFICATE_VALIDITY`].
    ///
    /// # Errors
    /// The system has no random numbers to give.
    pub fn certify_device(&self, device: &DeviceId, now: SystemTime) -> Result<Certified, AuthorityError> {
        let mut params = parameters(device.as_str(), now, CERTIFICATE_VALIDITY);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        self.sign(params)
    }

    /// A certificate by which the broker proves to boards that it is reached under one of these names or addresses.
    ///
    /// # Errors
    /// A name that cannot stand in a certificate.
    pub fn certify_broker(&self, names: &[String], now: SystemTime) -> Result<Certified, AuthorityError> {
        let mut params = parameters("twin host broker", now, CERTIFICATE_VALIDITY);
        params.subject_alt_names = CertificateParams::new(names)?.subject_alt_names;
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        self.sign(params)
    }

    fn sign(&self, mut params: CertificateParams) -> Result<Certified, AuthorityError> {
        let key = KeyPair::generate()?;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.use_authority_key_identifier_extension = true;
        let certificate = params.signed_by(&key, &self.issuer)?.pem();
        Ok(Certified { certificate, key: Zeroizing::new(key.serialize_pem()) })
    }
}

/// A day before now, because a board's clock may be behind.
fn parameters(name: &str, now: SystemTime, validity: Duration) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.not_before = (now - DAY).into();
    params.not_after = (now + validity).into();
    params
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_authority_is_made_once_and_found_again() {
        let home = tempfile::tempdir().unwrap();
        let first = Authority::open_or_create(home.path(), SystemTime::now()).unwrap();
        let again = Authority::open_or_create(home.path(), SystemTime::now()).unwrap();
        assert_eq!(first.certificate(), again.certificate());
        let device: DeviceId = "board1".parse().unwrap();
        again.certify_device(&device, SystemTime::now()).unwrap();
    }

    #[test]
    fn half_an_authority_is_not_replaced() {
        let home = tempfile::tempdir().unwrap();
        Authority::open_or_create(home.path(), SystemTime::now()).unwrap();
        std::fs::remove_file(home.path().join(KEY_FILE)).unwrap();
        let refused = Authority::open_or_create(home.path(), SystemTime::now());
        assert!(matches!(refused, Err(AuthorityError::Half { .. })));
        assert!(!home.path().join(KEY_FILE).exists());
    }

    #[cfg(unix)]
    #[test]
    fn nobody_else_can_read_the_key() {
        use std::os::unix::fs::PermissionsExt;
        let home = tempfile::tempdir().unwrap();
        let directory = home.path().join("authority");
        Authority::open_or_create(&directory, SystemTime::now()).unwrap();
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&directory), 0o700);
        assert_eq!(mode(&directory.join(KEY_FILE)), 0o600);
    }
}
