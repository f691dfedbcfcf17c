//! What the board proves itself by: the files of its enrolment, or what it was given since in their place.
//!
//! The folder of the enrolment is the operator's and is not written to. Keys that are renewed go into one file of the
//! agent's own, so that they are there whole or not at all; they count as long as the folder is the one that they grew
//! from, so a newer folder takes their place.

use std::fs;
use std::path::{Path, PathBuf};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use serde::{Deserialize, Serialize};
use tokio_rustls::rustls;
use twin_shared::wire::codec;
use twin_shared::wire::seal::DeviceKey;
use zeroize::Zeroizing;

use crate::config::{Credentials, Security};
use crate::durable;
use crate::identity::{self, IdentityError};

/// Version of the file of renewed keys.
const VERSION: u8 = 1;

/// The longest such file, bytes: a key, a chain and the authorities.
const LONGEST: usize = 32 << 10;

/// What the board proves itself by.
#[derive(Clone)]
pub struct Keys {
    /// Seals payloads.
    pub sealing: DeviceKey,
    /// For the connection, where it is protected by TLS.
    pub tls: Option<TlsKeys>,
    /// Which enrolment they come from: the hash of its sealing key.
    root: [u8; 32],
}

/// What the connection's TLS needs.
#[derive(Clone)]
pub struct TlsKeys {
    /// The board's certificate, and those that lead to an authority.
    pub chain: Vec<CertificateDer<'static>>,
    /// The private key, PKCS #8, DER.
    pub key: Zeroizing<Vec<u8>>,
    /// Whom to believe that it is the host.
    pub authorities: Vec<CertificateDer<'static>>,
}

/// Secrets stay out of logs.
impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Keys").field("tls", &self.tls.is_some()).finish_non_exhaustive()
    }
}

/// Why there are no keys.
#[derive(Debug, thiserror::Error)]
pub enum KeysError {
    /// The sealing key.
    #[error(transparent)]
    Sealing(#[from] IdentityError),
    /// A file is missing or is not PEM.
    #[error("{}: {error}", file.display())]
    Pem {
        /// The file.
        file: PathBuf,
        /// Why.
        error: rustls::pki_types::pem::Error,
    },
    /// The file of renewed keys.
    #[error("{}: {error}", file.display())]
    Io {
        /// The file.
        file: PathBuf,
        /// Why.
        error: std::io::Error,
    },
}

#[derive(Serialize, Deserialize)]
struct Stored<'a> {
    root: [u8; 32],
    sealing: [u8; 32],
    #[serde(borrow)]
    tls: Option<StoredTls<'a>>,
}

#[derive(Serialize, Deserialize)]
struct StoredTls<'a> {
    /// PKCS #8, DER.
    #[serde(borrow)]
    key: &'a [u8],
    #[serde(borrow)]
    chain: Vec<&'a [u8]>,
    #[serde(borrow)]
    authorities: Vec<&'a [u8]>,
}

/// Where the agent keeps keys that were renewed, in its data folder.
#[must_use]
pub fn file(data_dir: &Path) -> PathBuf {
    data_dir.join("keys")
}

impl Keys {
    /// Reads the enrolment's folder, and what was renewed since from `renewed`.
    ///
    /// # Errors
    /// When a file of the enrolment is missing or broken. A broken file of renewed keys is an error too: the old keys
    /// would not be taken any more.
    pub fn load(credentials: &Credentials, security: Security, renewed: &Path) -> Result<Self, KeysError> {
        warn_of_readers(&credentials.sealing_key);
        let sealing = identity::read_key(&credentials.sealing_key)?;
        let root = *blake3::hash(sealing.expose()).as_bytes();
        if let Some(keys) = read(renewed)?.filter(|keys| keys.root == root && keys.suits(security)) {
            return Ok(keys);
        }
        let tls = match security {
            Security::Plain => None,
            Security::Mutual => {
                warn_of_readers(&credentials.private_key);
                let private = &credentials.private_key;
                let key = PrivatePkcs8KeyDer::from_pem_file(private)
                    .map_err(|error| KeysError::Pem { file: private.clone(), error })?;
                let key = Zeroizing::new(key.secret_pkcs8_der().to_vec());
                let chain = certificates(&credentials.certificate)?;
                Some(TlsKeys { chain, key, authorities: certificates(&credentials.authority)? })
            }
        };
        Ok(Self { sealing, tls, root })
    }

    /// The next keys of the same enrolment.
    #[must_use]
    pub fn renewed(&self, sealing: DeviceKey, tls: Option<TlsKeys>) -> Self {
        Self { sealing, tls, root: self.root }
    }

    const fn suits(&self, security: Security) -> bool {
        match security {
            Security::Plain => true,
            Security::Mutual => self.tls.is_some(),
        }
    }

    /// Puts them into the agent's own file, for good and readable by nobody else.
    ///
    /// # Errors
    /// When the disk refuses; the file is as before then.
    pub fn store(&self, file: &Path) -> Result<(), KeysError> {
        let failed = |error| KeysError::Io { file: file.to_owned(), error };
        let tls = self.tls.as_ref().map(|tls| StoredTls {
            key: &tls.key,
            chain: tls.chain.iter().map(AsRef::as_ref).collect(),
            authorities: tls.authorities.iter().map(AsRef::as_ref).collect(),
        });
        let stored = Stored { root: self.root, sealing: *self.sealing.expose(), tls };
        let mut buffer = Zeroizing::new(vec![0; LONGEST]);
        buffer[0] = VERSION;
        let length =
            codec::encode(&stored, &mut buffer[1..]).map_err(|error| failed(std::io::Error::other(error)))?.len();
        durable::replace_private(file, &buffer[..=length]).map_err(failed)
    }
}

fn read(file: &Path) -> Result<Option<Keys>, KeysError> {
    let failed = |error| KeysError::Io { file: file.to_owned(), error };
    let Some(bytes) = durable::read(file).map_err(failed)?.map(Zeroizing::new) else { return Ok(None) };
    let stored = match bytes.split_first() {
        Some((&VERSION, rest)) => codec::decode::<Stored<'_>>(rest).ok(),
        Some(_) | None => None,
    };
    let damaged = "the renewed keys are damaged: have the host write a new folder by `twin-host enroll --renew`";
    let stored = stored.ok_or_else(|| failed(std::io::Error::other(damaged)))?;
    let owned = |list: Vec<&[u8]>| list.into_iter().map(|der| CertificateDer::from(der.to_vec())).collect();
    let tls = stored.tls.map(|tls| TlsKeys {
        chain: owned(tls.chain),
        key: Zeroizing::new(tls.key.to_vec()),
        authorities: owned(tls.authorities),
    });
    Ok(Some(Keys { sealing: DeviceKey::new(stored.sealing), tls, root: stored.root }))
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, KeysError> {
    let wrong = |error| KeysError::Pem { file: file.to_owned(), error };
    let found: Vec<_> = CertificateDer::pem_file_iter(file).map_err(wrong)?.collect::<Result<_, _>>().map_err(wrong)?;
    if found.is_empty() { Err(wrong(rustls::pki_types::pem::Error::NoItemsFound)) } else { Ok(found) }
}

/// Says so where others on this board can read a secret.
fn warn_of_readers(file: &Path) {
    use std::os::unix::fs::PermissionsExt;
    let mode = fs::metadata(file).map_or(0, |data| data.permissions().mode() & 0o077);
    if mode != 0 {
        tracing::warn!(file = %file.display(), "others can read this secret: chmod 600 it");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn credentials(folder: &Path, digit: char) -> Credentials {
        let file = |name: &str| folder.join(name);
        fs::write(file("sealing.key"), digit.to_string().repeat(64)).expect("written");
        Credentials {
            sealing_key: file("sealing.key"),
            certificate: file("device.crt"),
            private_key: file("device.key"),
            authority: file("ca.crt"),
        }
    }

    fn tls() -> TlsKeys {
        TlsKeys {
            chain: vec![CertificateDer::from(vec![1]), CertificateDer::from(vec![2])],
            key: Zeroizing::new(vec![3; 100]),
            authorities: vec![CertificateDer::from(vec![4])],
        }
    }

    #[test]
    fn renewed_keys_count_until_there_is_another_enrolment() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("keys");
        let enrolled = credentials(folder.path(), 'a');
        let first = Keys::load(&enrolled, Security::Plain, &file).expect("the enrolment's");
        let next = first.renewed(DeviceKey::new([9; 32]), Some(tls()));
        next.store(&file).expect("written");
        assert_eq!(fs::metadata(&file).expect("there").permissions().mode() & 0o777, 0o600);
        for security in [Security::Plain, Security::Mutual] {
            let again = Keys::load(&enrolled, security, &file).expect("the renewed");
            assert_eq!(again.sealing.expose(), &[9; 32]);
            let (read, written) = (again.tls.expect("there"), tls());
            assert_eq!((read.chain, read.authorities), (written.chain, written.authorities));
            assert_eq!(read.key, written.key);
        }
        let replaced = credentials(folder.path(), 'b');
        let newer = Keys::load(&replaced, Security::Plain, &file).expect("the new enrolment's");
        assert_eq!(newer.sealing.expose(), &[0xbb; 32]);
    }

    #[test]
    fn damaged_keys_are_told_and_not_passed_over() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("keys");
        let enrolled = credentials(folder.path(), 'a');
        for damaged in [&b""[..], &[VERSION], &[VERSION, 1, 2, 3], &[9; 200]] {
            fs::write(&file, damaged).expect("written");
            let told = Keys::load(&enrolled, Security::Plain, &file).expect_err("damaged").to_string();
            assert!(told.contains("enroll --renew"), "{told}");
        }
    }
}
