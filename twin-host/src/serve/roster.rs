//! Who may connect, as the broker asks at every connection: a table in memory of what the store says.

use std::collections::BTreeMap;
use std::sync::{PoisonError, RwLock};

use twin_shared::id::DeviceId;
use twin_shared::wire::seal::DeviceKey;

use crate::broker::Boxed;
use crate::broker::credentials::Credentials;
use crate::enroll::Fingerprint;
use crate::store::DeviceRecord;

/// The table.
#[derive(Debug, Default)]
pub(crate) struct Roster(RwLock<BTreeMap<DeviceId, Entry>>);

/// What one device proves itself by: its present keys, and those that it may change over to.
#[derive(Debug, PartialEq, Eq)]
struct Entry {
    /// Hashes of passwords: their comparison takes the same time whatever was said.
    passwords: Vec<blake3::Hash>,
    certificates: Vec<Fingerprint>,
}

impl Entry {
    fn of(record: &DeviceRecord) -> Self {
        let keys = [Some(&record.key), record.next.as_ref().map(|next| &next.key)];
        let certificates = [record.certificate, record.next.as_ref().and_then(|next| next.certificate)];
        Self {
            passwords: keys.into_iter().flatten().map(password_hash).collect(),
            certificates: certificates.into_iter().flatten().map(|certificate| certificate.fingerprint).collect(),
        }
    }
}

/// Of the hexadecimal digits that a device shows as its password.
fn password_hash(key: &DeviceKey) -> blake3::Hash {
    blake3::hash(blake3::Hash::from_bytes(key.broker_password()).to_hex().as_bytes())
}

impl Roster {
    /// Takes these devices in, and nobody else. Those that are locked out are not in it.
    pub(crate) fn fill<'r>(&self, records: impl IntoIterator<Item = &'r DeviceRecord>) {
        let welcome = records.into_iter().filter(|record| !record.revoked);
        let table = welcome.map(|record| (record.device.clone(), Entry::of(record))).collect();
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = table;
    }

    fn ask(&self, device: &DeviceId, question: impl FnOnce(&Entry) -> bool) -> bool {
        self.0.read().unwrap_or_else(PoisonError::into_inner).get(device).is_some_and(question)
    }
}

impl Credentials for Roster {
    fn verify<'a>(&'a self, device: &'a DeviceId, password: &'a [u8]) -> Boxed<'a, bool> {
        let said = blake3::hash(password);
        let right = self.ask(device, |entry| entry.passwords.contains(&said));
        Box::pin(async move { right })
    }

    fn holds<'a>(&'a self, device: &'a DeviceId, certificate: Fingerprint) -> Boxed<'a, bool> {
        let held = self.ask(device, |entry| entry.certificates.contains(&certificate));
        Box::pin(async move { held })
    }

    fn is_revoked<'a>(&'a self, device: &'a DeviceId) -> Boxed<'a, bool> {
        let known = self.ask(device, |_| true);
        Box::pin(async move { !known })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::enroll::CertificateRecord;
    use crate::store::Credential;
    use std::time::SystemTime;

    fn credential(byte: u8) -> Credential {
        let certificate = CertificateRecord {
            fingerprint: Fingerprint([byte; 32]),
            authority: Fingerprint([0; 32]),
            expires: SystemTime::now(),
        };
        Credential { key: DeviceKey::new([byte; 32]), certificate: Some(certificate) }
    }

    #[tokio::test]
    async fn present_and_offered_keys_open_and_no_others() {
        let device: DeviceId = "board1".parse().unwrap();
        let record = |revoked| DeviceRecord {
            device: device.clone(),
            key: credential(1).key,
            certificate: credential(1).certificate,
            next: Some(credential(2)),
            revoked,
            renew: false,
        };
        let roster = Roster::default();
        roster.fill([&record(false)]);
        for byte in [1, 2, 3] {
            let password = blake3::Hash::from_bytes(credential(byte).key.broker_password()).to_hex();
            assert_eq!(roster.verify(&device, password.as_bytes()).await, byte < 3);
            assert_eq!(roster.holds(&device, Fingerprint([byte; 32])).await, byte < 3);
        }
        assert!(!roster.verify(&device, credential(1).key.expose()).await, "the key itself is no password");
        assert!(!roster.is_revoked(&device).await);
        roster.fill([&record(true)]);
        assert!(roster.is_revoked(&device).await && !roster.holds(&device, Fingerprint([1; 32])).await);
    }
}
