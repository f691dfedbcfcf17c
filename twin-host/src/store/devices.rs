//! Who is enrolled, and by which keys and certificates each device is known.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rusqlite::{OptionalExtension, Row, params};
use twin_shared::id::DeviceId;
use twin_shared::wire::seal::DeviceKey;
use zeroize::Zeroizing;

use super::{Store, StoreError};
use crate::enroll::{CertificateRecord, Fingerprint};

/// One enrolled device.
#[derive(Debug, Clone)]
pub struct DeviceRecord {
    /// Its name.
    pub device: DeviceId,
    /// Its sealing key.
    pub key: DeviceKey,
    /// Its certificate, if it uses TLS.
    pub certificate: Option<CertificateRecord>,
    /// What it changes over to: taken from both until the device has used it.
    pub next: Option<Credential>,
    /// Whether it is locked out.
    pub revoked: bool,
    /// Whether the operator wants it to renew its keys.
    pub renew: bool,
}

/// What a device proves itself by.
#[derive(Debug, Clone)]
pub struct Credential {
    /// Its sealing key.
    pub key: DeviceKey,
    /// Its certificate, if it uses TLS.
    pub certificate: Option<CertificateRecord>,
}

/// Without TLS.
impl From<&DeviceKey> for Credential {
    fn from(key: &DeviceKey) -> Self {
        Self { key: key.clone(), certificate: None }
    }
}

const ENROLL: &str = "INSERT INTO device (name, key, certificate, authority, expires) VALUES (?1, ?2, ?3, ?4, ?5)
                      ON CONFLICT (name) DO UPDATE SET key = excluded.key, certificate = excluded.certificate,
                      authority = excluded.authority, expires = excluded.expires, revoked = 0, renew = 0,
                      next_key = NULL, next_certificate = NULL, next_authority = NULL, next_expires = NULL";

const COLUMNS: &str = "name, key, certificate, authority, expires, next_key, next_certificate, next_authority, \
                       next_expires, revoked, renew";

impl Store {
    /// Takes a device in, or gives it new keys: what it had before is worth nothing from now on.
    ///
    /// # Errors
    /// When the database refuses.
    pub fn enroll(&self, device: &DeviceId, credential: impl Into<Credential>) -> Result<(), StoreError> {
        self.put(ENROLL, device, &credential.into()).map(drop)
    }

    /// As [`Self::enroll`], for several: all of them or none.
    ///
    /// # Errors
    /// When the database refuses.
    pub fn enroll_all(&self, devices: &[(&DeviceId, Credential)]) -> Result<(), StoreError> {
        let transaction = self.asked(self.records.unchecked_transaction())?;
        for (device, credential) in devices {
            self.put(ENROLL, device, credential)?;
        }
        self.asked(transaction.commit())
    }

    /// Gives a device keys that it may change over to.
    ///
    /// # Errors
    /// When it is unknown or the database refuses.
    pub fn offer(&self, device: &DeviceId, next: &Credential) -> Result<(), StoreError> {
        let sql = "UPDATE device SET next_key = ?2, next_certificate = ?3, next_authority = ?4, next_expires = ?5
                   WHERE name = ?1";
        match self.put(sql, device, next)? {
            0 => Err(self.unknown(device)),
            _ => Ok(()),
        }
    }

    /// The device has used the keys that it was offered: those before are worth nothing from now on. False if it was
    /// not offered this key.
    ///
    /// # Errors
    /// When the database refuses.
    pub fn change_over(&self, device: &DeviceId, key: &DeviceKey) -> Result<bool, StoreError> {
        let sql = "UPDATE device SET key = next_key, certificate = next_certificate, authority = next_authority,
                   expires = next_expires, renew = 0, next_key = NULL, next_certificate = NULL, next_authority = NULL,
                   next_expires = NULL WHERE name = ?1 AND next_key = ?2";
        self.asked(self.records.execute(sql, params![device.as_str(), key.expose()])).map(|changed| changed > 0)
    }

    /// Asks a device to renew its keys, or all that are not locked out. How many are asked.
    ///
    /// # Errors
    /// When it is unknown or the database refuses.
    pub fn ask_renewal(&self, device: Option<&DeviceId>) -> Result<usize, StoreError> {
        let sql = "UPDATE device SET renew = 1 WHERE name = coalesce(?1, name) AND NOT revoked";
        let asked = self.asked(self.records.execute(sql, [device.map(DeviceId::as_str)]))?;
        match device {
            Some(device) if asked == 0 => Err(self.unknown(device)),
            Some(_) | None => Ok(asked),
        }
    }

    /// Locks a device out.
    ///
    /// # Errors
    /// When it is unknown or the database refuses.
    pub fn revoke(&self, device: &DeviceId) -> Result<(), StoreError> {
        let sql = "UPDATE device SET revoked = 1 WHERE name = ?1";
        match self.asked(self.records.execute(sql, [device.as_str()]))? {
            0 => Err(self.unknown(device)),
            _ => Ok(()),
        }
    }

    /// Every device.
    ///
    /// # Errors
    /// When the database refuses or is damaged.
    pub fn devices(&self) -> Result<Vec<DeviceRecord>, StoreError> {
        let mut statement = self.asked(self.records.prepare(&format!("SELECT {COLUMNS} FROM device ORDER BY name")))?;
        let mut rows = self.asked(statement.query([]))?;
        let mut devices = Vec::new();
        while let Some(row) = self.asked(rows.next())? {
            devices.push(self.device_of(row)?);
        }
        Ok(devices)
    }

    /// One device.
    ///
    /// # Errors
    /// When it is unknown or the database refuses.
    pub fn device(&self, device: &DeviceId) -> Result<DeviceRecord, StoreError> {
        self.known_device(device)?.ok_or_else(|| self.unknown(device))
    }

    /// One device, if it is enrolled.
    ///
    /// # Errors
    /// When the database refuses or is damaged.
    pub fn known_device(&self, device: &DeviceId) -> Result<Option<DeviceRecord>, StoreError> {
        let mut statement =
            self.asked(self.records.prepare(&format!("SELECT {COLUMNS} FROM device WHERE name = ?1")))?;
        let mut rows = self.asked(statement.query([device.as_str()]))?;
        self.asked(rows.next())?.map(|row| self.device_of(row)).transpose()
    }

    /// Changes whenever another connection has changed the database.
    ///
    /// # Errors
    /// When the database refuses.
    pub fn data_version(&self) -> Result<i64, StoreError> {
        self.asked(self.records.pragma_query_value(None, "data_version", |row| row.get(0)))
    }

    /// Remembers that boards reach the broker by this name or address, for its certificate.
    ///
    /// # Errors
    /// When the database refuses.
    pub fn remember_broker_name(&self, name: &str) -> Result<(), StoreError> {
        let sql = "INSERT OR IGNORE INTO broker_name (name) VALUES (?1)";
        self.asked(self.records.execute(sql, [name])).map(drop)
    }

    /// Every name and address by which boards were told to reach the broker.
    ///
    /// # Errors
    /// When the database refuses.
    pub fn broker_names(&self) -> Result<Vec<String>, StoreError> {
        let mut statement = self.asked(self.records.prepare("SELECT name FROM broker_name ORDER BY name"))?;
        let names = self.asked(statement.query_map([], |row| row.get(0)))?;
        self.asked(names.collect())
    }

    /// Counts the authority's changes, so that a serving host sees them as it sees every change of the database.
    ///
    /// # Errors
    /// When the database refuses.
    pub fn authority_changed(&self) -> Result<(), StoreError> {
        let sql = "INSERT INTO counter (name, value) VALUES ('authority', 1)
                   ON CONFLICT (name) DO UPDATE SET value = value + 1";
        self.asked(self.records.execute(sql, [])).map(drop)
    }

    /// Whether any device holds a certificate.
    ///
    /// # Errors
    /// When the database refuses.
    pub fn has_certificates(&self) -> Result<bool, StoreError> {
        let sql = "SELECT 1 FROM device WHERE certificate IS NOT NULL LIMIT 1";
        self.asked(self.records.query_row(sql, [], |_| Ok(())).optional()).map(|found| found.is_some())
    }

    fn put(&self, sql: &str, device: &DeviceId, credential: &Credential) -> Result<usize, StoreError> {
        let certificate = credential.certificate;
        let values = params![
            device.as_str(),
            credential.key.expose(),
            certificate.map(|certificate| certificate.fingerprint.0),
            certificate.map(|certificate| certificate.authority.0),
            certificate.map(|certificate| seconds(certificate.expires)),
        ];
        self.asked(self.records.execute(sql, values))
    }

    fn device_of(&self, row: &Row<'_>) -> Result<DeviceRecord, StoreError> {
        let name: String = self.asked(row.get(0))?;
        let device = name.parse().map_err(|_| self.damaged(format!("the device name {name:?}")))?;
        let read = |row: &Row<'_>| {
            let next_certificate = certificate(row, 6)?;
            Ok(DeviceRecord {
                device,
                key: DeviceKey::new(*Zeroizing::new(row.get(1)?)),
                certificate: certificate(row, 2)?,
                next: key(row, 5)?.map(|key| Credential { key, certificate: next_certificate }),
                revoked: row.get(9)?,
                renew: row.get(10)?,
            })
        };
        self.asked(read(row))
    }
}

fn key(row: &Row<'_>, at: usize) -> rusqlite::Result<Option<DeviceKey>> {
    let bytes = row.get::<_, Option<[u8; 32]>>(at)?.map(Zeroizing::new);
    Ok(bytes.map(|bytes| DeviceKey::new(*bytes)))
}

/// Fingerprint, authority and end from three columns.
fn certificate(row: &Row<'_>, at: usize) -> rusqlite::Result<Option<CertificateRecord>> {
    let (fingerprint, authority): (Option<[u8; 32]>, Option<[u8; 32]>) = (row.get(at)?, row.get(at + 1)?);
    let expires: Option<i64> = row.get(at + 2)?;
    Ok(fingerprint.zip(authority).zip(expires).map(|((fingerprint, authority), expires)| CertificateRecord {
        fingerprint: Fingerprint(fingerprint),
        authority: Fingerprint(authority),
        expires: UNIX_EPOCH + Duration::from_secs(expires.unsigned_abs()),
    }))
}

fn seconds(time: SystemTime) -> i64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device() -> DeviceId {
        "board1".parse().unwrap()
    }

    fn credential(byte: u8) -> Credential {
        let certificate = CertificateRecord {
            fingerprint: Fingerprint([byte; 32]),
            authority: Fingerprint([byte + 1; 32]),
            expires: UNIX_EPOCH + Duration::from_secs(2_000_000_000),
        };
        Credential { key: DeviceKey::new([byte; 32]), certificate: Some(certificate) }
    }

    #[test]
    fn keys_on_offer_count_once_the_device_has_used_them() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path()).unwrap();
        assert!(store.offer(&device(), &credential(2)).is_err(), "nobody of this name");
        store.enroll(&device(), credential(1)).unwrap();
        store.ask_renewal(None).unwrap();
        store.offer(&device(), &credential(2)).unwrap();
        store.offer(&device(), &credential(3)).unwrap();
        assert!(!store.change_over(&device(), &credential(2).key).unwrap(), "no longer on offer");
        let known = store.device(&device()).unwrap();
        assert_eq!((known.key.expose(), known.renew), (&[1; 32], true));
        assert_eq!(known.next.unwrap().certificate, credential(3).certificate);
        assert!(store.change_over(&device(), &credential(3).key).unwrap());
        let known = store.device(&device()).unwrap();
        assert_eq!((known.key.expose(), known.renew, known.next.is_none()), (&[3; 32], false, true));
        assert_eq!(known.certificate, credential(3).certificate);
        assert!(!store.change_over(&device(), &credential(3).key).unwrap(), "once");
    }

    #[test]
    fn another_process_sees_that_something_changed() {
        let directory = tempfile::tempdir().unwrap();
        let (watcher, other) = (Store::open(directory.path()).unwrap(), Store::open(directory.path()).unwrap());
        let before = watcher.data_version().unwrap();
        assert_eq!(watcher.data_version().unwrap(), before);
        other.enroll(&device(), &DeviceKey::new([1; 32])).unwrap();
        assert_ne!(watcher.data_version().unwrap(), before);
    }
}
