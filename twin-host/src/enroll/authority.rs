//! The certificate authority of one twin host: it signs the boards' certificates and the broker's own, nothing
//! else, and trusts nobody.
//!
//! ```text
//! authority/0001.pem   one authority: key, certificate, and where it had a predecessor, its certificate signed by that
//! authority/0002.pem   the next one, after a rotation; the highest number signs, all that are there are trusted
//! authority/ca.pem     the certificates of all of them, for brokers and people
//! ```
//!
//! An authority is one file, so that it is there whole or not at all. A new one is signed by the one before it as
//! well, and that certificate goes out with whatever the new one signs: who knows only the old authority accepts it
//! too, so nothing has to change over at one moment.

use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, PublicKeyData,
};
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use twin_shared::id::DeviceId;
use zeroize::Zeroizing;

use super::certificate::{CertificateRecord, Certified, Fingerprint};
use super::private::{self, PrivateFileError};

const BUNDLE_FILE: &str = "ca.pem";
const DAY: Duration = Duration::from_secs(86_400);

/// Ten years. Rotate it earlier if you like: `twin-host authority rotate`.
const AUTHORITY_VALIDITY: Duration = Duration::from_secs(3650 * 86_400);

/// A board renews itself well before its year is over.
pub const CERTIFICATE_VALIDITY: Duration = Duration::from_secs(365 * 86_400);

/// The authorities of a host: one that signs, and those before it that are still trusted.
pub struct Authority {
    number: u32,
    issuer: Issuer<'static, KeyPair>,
    /// PEM of the signing authority's certificate by its predecessor, while that is trusted.
    bridge: Option<String>,
    /// PEM and fingerprint of every trusted authority; the one that signs is the last.
    trusted: Vec<(String, Fingerprint)>,
}

/// A certificate for a key that its holder has not given away.
#[derive(Debug)]
pub struct Signed {
    /// DER of the certificate and of those that lead to an authority which was there before.
    pub chain: Vec<CertificateDer<'static>>,
    /// What to remember of it.
    pub record: CertificateRecord,
}

/// Why there is no authority, or no certificate.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// Its files.
    #[error(transparent)]
    File(#[from] PrivateFileError),
    /// Boards hold certificates, and the authority that signed them is gone: a new one would lock them all out.
    #[error(
        "{} holds no authority, yet boards were enrolled by one: restore it from a backup, or begin a new one with \
         `twin-host authority rotate` and give every board a new folder with `twin-host enroll --renew`",
        directory.display()
    )]
    Lost {
        /// Where it should be.
        directory: PathBuf,
    },
    /// Something else than what was written there.
    #[error("{} is damaged: {what}; restore it from a backup", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// Signing, or reading what was signed.
    #[error("certificates: {0}")]
    Certificate(#[from] rcgen::Error),
    /// The predecessor that was to be retired is not there.
    #[error("no authority before the present one is trusted: nothing to retire")]
    NothingToRetire,
}

impl Authority {
    /// The authority whose files lie in this directory; on first use a new one, whose files are put there.
    ///
    /// # Errors
    /// [`AuthorityError`]; an authority is never overwritten.
    pub fn open_or_create(directory: &Path, now: SystemTime) -> Result<Self, AuthorityError> {
        if let Some(found) = Self::open(directory)? {
            return Ok(found);
        }
        private::create_directory(directory)?;
        let _lock = lock(directory)?;
        // Another process may have been faster.
        match Self::open(directory)? {
            Some(found) => Ok(found),
            None => Self::begin(directory, 1, None, now),
        }
    }

    /// The authority whose files lie in this directory, if there is one.
    ///
    /// # Errors
    /// Its files cannot be read, or are damaged.
    pub fn open(directory: &Path) -> Result<Option<Self>, AuthorityError> {
        let mut files = Vec::new();
        for number in numbers(directory)? {
            let path = file(directory, number);
            // Gone: retired this very moment.
            if let Some(text) = private::read(&path)? {
                files.push((number, path, text));
            }
        }
        let Some((number, path, text)) = files.last() else { return Ok(None) };
        let damaged = |path: &Path, what: &dyn std::fmt::Display| AuthorityError::Damaged {
            path: path.to_owned(),
            what: what.to_string(),
        };
        let mut trusted = Vec::new();
        for (_, path, text) in &files {
            let certificate = sections(text, "CERTIFICATE").next().ok_or_else(|| damaged(path, &"no certificate"))?;
            let der = CertificateDer::from_pem_slice(certificate.as_bytes()).map_err(|error| damaged(path, &error))?;
            trusted.push((certificate.to_owned(), Fingerprint::of(&der)));
        }
        let key = PrivateKeyDer::from_pem_slice(text.as_bytes()).map_err(|error| damaged(path, &error))?;
        let key = KeyPair::try_from(&key)?;
        let (certificate, _) = trusted.last().expect("one for each file");
        let issuer = Issuer::from_ca_cert_pem(certificate, key)?;
        let bridge = sections(text, "CERTIFICATE").nth(1).filter(|_| files.len() > 1).map(str::to_owned);
        Ok(Some(Self { number: *number, issuer, bridge, trusted }))
    }

    /// Begins to sign with a new authority; the former ones stay trusted until they are retired.
    ///
    /// # Errors
    /// [`AuthorityError`]; everything is as before then.
    pub fn rotate(directory: &Path, now: SystemTime) -> Result<Self, AuthorityError> {
        private::create_directory(directory)?;
        let _lock = lock(directory)?;
        let before = Self::open(directory)?;
        let number = before.as_ref().map_or(1, |before| before.number + 1);
        Self::begin(directory, number, before.as_ref(), now)
    }

    /// Trusts the signing authority alone from now on. What the former ones signed is worth nothing afterwards.
    ///
    /// # Errors
    /// [`AuthorityError`], among them that there is none but the one that signs.
    pub fn retire(directory: &Path) -> Result<Self, AuthorityError> {
        let _lock = lock(directory)?;
        let numbers = numbers(directory)?;
        let Some((_, [_, ..])) = numbers.split_last() else { return Err(AuthorityError::NothingToRetire) };
        for number in &numbers[..numbers.len() - 1] {
            let path = file(directory, *number);
            std::fs::remove_file(&path).map_err(private::at(&path))?;
        }
        private::flush_directory_of(&file(directory, 0))?;
        let left = Self::open(directory)?.ok_or(AuthorityError::NothingToRetire)?;
        left.write_bundle(directory)?;
        Ok(left)
    }

    fn begin(directory: &Path, number: u32, before: Option<&Self>, now: SystemTime) -> Result<Self, AuthorityError> {
        let key = KeyPair::generate()?;
        let mut text = Zeroizing::new(key.serialize_pem());
        let name = if number == 1 { "twin host authority".to_owned() } else { format!("twin host authority {number}") };
        let mut params = parameters(&name, now, AUTHORITY_VALIDITY);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        // One step further than the bridge, so that a successor can be signed.
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(1));
        text.push_str(&params.self_signed(&key)?.pem());
        if let Some(before) = before {
            params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
            params.use_authority_key_identifier_extension = true;
            text.push_str(&params.signed_by(&key, &before.issuer)?.pem());
        }
        let path = file(directory, number);
        private::replace(&path, text.as_bytes())?;
        let begun = Self::open(directory)?
            .ok_or_else(|| AuthorityError::Damaged { path, what: "it cannot be read back".to_owned() })?;
        begun.write_bundle(directory)?;
        Ok(begun)
    }

    fn write_bundle(&self, directory: &Path) -> Result<(), AuthorityError> {
        Ok(private::replace(&directory.join(BUNDLE_FILE), self.trusted().as_bytes())?)
    }

    /// Which authority signs: counts rotations from 1.
    #[must_use]
    pub const fn number(&self) -> u32 {
        self.number
    }

    /// How many authorities are trusted.
    #[must_use]
    pub fn count(&self) -> usize {
        self.trusted.len()
    }

    /// The certificate of the authority that signs, PEM.
    #[must_use]
    pub fn certificate(&self) -> &str {
        self.trusted.last().map_or("", |(pem, _)| pem)
    }

    /// The certificates of all trusted authorities, PEM: what boards and the broker trust.
    #[must_use]
    pub fn trusted(&self) -> String {
        self.trusted.iter().map(|(pem, _)| pem.as_str()).collect()
    }

    /// Whether what this authority signed is still worth something.
    #[must_use]
    pub fn trusts(&self, authority: Fingerprint) -> bool {
        self.trusted.iter().any(|(_, known)| *known == authority)
    }

    /// The authority that signs.
    #[must_use]
    pub fn fingerprint(&self) -> Fingerprint {
        self.trusted.last().map_or(Fingerprint([0; 32]), |(_, known)| *known)
    }

    /// A certificate by which a board proves that it is this device, for [`CERTIFICATE_VALIDITY`].
    ///
    /// # Errors
    /// The system has no random numbers to give.
    pub fn certify_device(&self, device: &DeviceId, now: SystemTime) -> Result<Certified, AuthorityError> {
        self.certify(device_parameters(device, now, CERTIFICATE_VALIDITY))
    }

    /// A certificate by which this host proves at an external broker that it is one of these clients. Made at each
    /// start and kept in memory alone, so it holds as long as its authority.
    ///
    /// # Errors
    /// The system has no random numbers to give.
    pub fn certify_client(&self, name: &DeviceId, now: SystemTime) -> Result<Certified, AuthorityError> {
        self.certify(device_parameters(name, now, AUTHORITY_VALIDITY))
    }

    /// The same for the key of a signing request, DER, that the board has made itself. Nothing but the key is taken
    /// from the request: whose certificate it becomes is the caller's knowledge.
    ///
    /// # Errors
    /// It is no request, or not signed by its own key.
    pub fn certify_request(
        &self,
        device: &DeviceId,
        request: &[u8],
        now: SystemTime,
    ) -> Result<Signed, AuthorityError> {
        let request = CertificateSigningRequestParams::from_der(&request.into())?;
        self.sign(device_parameters(device, now, CERTIFICATE_VALIDITY), &request.public_key)
    }

    /// A certificate by which the broker proves to boards that it is reached under one of these names or addresses.
    ///
    /// # Errors
    /// A name that cannot stand in a certificate.
    pub fn certify_broker(&self, names: &[String], now: SystemTime) -> Result<Certified, AuthorityError> {
        let mut params = parameters("twin host broker", now, CERTIFICATE_VALIDITY);
        params.subject_alt_names = CertificateParams::new(names)?.subject_alt_names;
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        self.certify(params)
    }

    fn certify(&self, params: CertificateParams) -> Result<Certified, AuthorityError> {
        let key = KeyPair::generate()?;
        let (certificate, record) = self.sign_pem(params, &key)?;
        let certificate = certificate + self.bridge.as_deref().unwrap_or_default();
        Ok(Certified { certificate, key: Zeroizing::new(key.serialize_pem()), record })
    }

    fn sign(&self, params: CertificateParams, key: &impl PublicKeyData) -> Result<Signed, AuthorityError> {
        let (certificate, record) = self.sign_pem(params, key)?;
        let pems = [Some(certificate.as_str()), self.bridge.as_deref()];
        let chain = pems.into_iter().flatten().map(|pem| CertificateDer::from_pem_slice(pem.as_bytes()));
        let chain = chain.collect::<Result<_, _>>().map_err(|_| rcgen::Error::CouldNotParseCertificate)?;
        Ok(Signed { chain, record })
    }

    fn sign_pem(
        &self,
        mut params: CertificateParams,
        key: &impl PublicKeyData,
    ) -> Result<(String, CertificateRecord), AuthorityError> {
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.use_authority_key_identifier_extension = true;
        let certificate = params.signed_by(key, &self.issuer)?;
        let record = CertificateRecord {
            fingerprint: Fingerprint::of(certificate.der()),
            authority: self.fingerprint(),
            expires: params.not_after.into(),
        };
        Ok((certificate.pem(), record))
    }
}

/// The PEM sections of this kind, each with its lines around.
fn sections<'t>(text: &'t str, kind: &str) -> impl Iterator<Item = &'t str> {
    let (begin, end) = (format!("-----BEGIN {kind}-----"), format!("-----END {kind}-----"));
    let mut rest = text;
    std::iter::from_fn(move || {
        let start = rest.find(&begin)?;
        let length = rest[start..].find(&end)? + end.len();
        // With the line's end, where there is one.
        let length = length + usize::from(rest[start + length..].starts_with('\n'));
        let section = &rest[start..start + length];
        rest = &rest[start + length..];
        Some(section)
    })
}

fn file(directory: &Path, number: u32) -> PathBuf {
    directory.join(format!("{number:04}.pem"))
}

/// The numbers of the authorities that are there, ascending.
fn numbers(directory: &Path) -> Result<Vec<u32>, PrivateFileError> {
    let entries = match std::fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(private::at(directory)(error)),
    };
    let mut numbers = Vec::new();
    for entry in entries {
        let name = entry.map_err(private::at(directory))?.file_name();
        let number = name.to_str().and_then(|name| name.strip_suffix(".pem")).and_then(|stem| stem.parse::<u32>().ok());
        numbers.extend(number);
    }
    numbers.sort_unstable();
    Ok(numbers)
}

/// Two processes must not begin two authorities. Held until the file is dropped.
fn lock(directory: &Path) -> Result<File, PrivateFileError> {
    let path = directory.join("lock");
    let lock = File::create(&path).map_err(private::at(&path))?;
    match lock.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => lock.lock().map_err(private::at(&path))?,
        Err(TryLockError::Error(error)) => return Err(private::at(&path)(error)),
    }
    Ok(lock)
}

fn device_parameters(device: &DeviceId, now: SystemTime, validity: Duration) -> CertificateParams {
    let mut params = parameters(device.as_str(), now, validity);
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    params
}

/// Valid from a day before now, because a board's clock may be behind.
fn parameters(name: &str, now: SystemTime, validity: Duration) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.not_before = (now - DAY).into();
    params.not_after = (now + validity).into();
    params
}

#[cfg(test)]
mod tests;
