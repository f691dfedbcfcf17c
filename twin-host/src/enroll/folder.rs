//! The folder that a board gets: everything that proves who it is, and a configuration to start with.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use twin_shared::id::DeviceId;
use twin_shared::wire::seal::DeviceKey;
use zeroize::Zeroizing;

use super::authority::{Authority, AuthorityError};
use super::private::{self, PrivateFileError};
use crate::store::{Credential, Store, StoreError};

/// How the board reaches the broker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reach {
    /// Name or address.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// With TLS and certificates on both sides, or without on the same machine.
    pub tls: bool,
    /// PEM of the authority that signed the broker's own certificate, where that is not the host's.
    pub broker_authority: Option<String>,
}

/// Why a board was not enrolled. Nothing is half done then but the folder itself.
#[derive(Debug, thiserror::Error)]
pub enum EnrollError {
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The authority.
    #[error(transparent)]
    Authority(#[from] AuthorityError),
    /// The folder.
    #[error(transparent)]
    File(#[from] PrivateFileError),
    /// The name is the host's own.
    #[error("{0} is the host's own name at the broker: choose another")]
    Reserved(DeviceId),
    /// The images of the twin.
    #[error("{}: the twin's images cannot be copied: {source}", path.display())]
    Images {
        /// What was to be written.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// It would lock out a board that works.
    #[error(
        "{0} is enrolled already: `twin-host enroll {0} --renew --out DIR` gives it new keys, \
         `twin-host replace {0} --out DIR` is for another card in its place"
    )]
    Enrolled(DeviceId),
}

/// The authority of this data directory; a new one on first use.
///
/// # Errors
/// When it cannot be read or made, or is lost while boards hold its certificates.
pub fn authority_of(store: &Store, now: SystemTime) -> Result<Authority, EnrollError> {
    let directory = store.authority_directory();
    if store.has_certificates()? && Authority::open(&directory)?.is_none() {
        return Err(AuthorityError::Lost { directory }.into());
    }
    Ok(Authority::open_or_create(&directory, now)?)
}

/// Enrols a device: writes its folder (which must not hold an earlier enrolment), then takes it into the store.
///
/// # Errors
/// When the device is enrolled and not locked out, when a file is there already or cannot be written, or when the
/// store refuses.
pub fn enroll(
    store: &Store,
    device: &DeviceId,
    folder: &Path,
    reach: &Reach,
    now: SystemTime,
) -> Result<(), EnrollError> {
    require_new(store, device)?;
    let credential = write(store, device, folder, reach, None, now)?;
    Ok(store.enroll(device, credential)?)
}

/// Enrols many devices, each with a folder of its name below this one, which must be new: all of them or none.
///
/// # Errors
/// As [`enroll`]; neither a folder nor a device is left then.
pub fn enroll_all(
    store: &Store,
    devices: &[DeviceId],
    folder: &Path,
    reach: &Reach,
    now: SystemTime,
) -> Result<(), EnrollError> {
    devices.iter().try_for_each(|device| require_new(store, device))?;
    private::create_new_directory(folder)?;
    let written = devices
        .iter()
        .map(|device| Ok((device, write(store, device, &folder.join(device.as_str()), reach, None, now)?)))
        .collect::<Result<Vec<_>, EnrollError>>()
        .and_then(|credentials| Ok(store.enroll_all(&credentials)?));
    if written.is_err() {
        // It was made above, and holds keys that nobody knows.
        let _ = std::fs::remove_dir_all(folder);
    }
    written
}

/// Writes a new folder, with new keys and a new certificate, for a device that is enrolled: its certificate has run
/// out while it was away. The old ones are taken until the new ones are used.
///
/// # Errors
/// As [`enroll`], or when the device is not enrolled.
pub fn reissue(
    store: &Store,
    device: &DeviceId,
    folder: &Path,
    reach: &Reach,
    now: SystemTime,
) -> Result<(), EnrollError> {
    store.device(device)?;
    let credential = write(store, device, folder, reach, None, now)?;
    Ok(store.offer(device, &credential)?)
}

/// Writes a new folder for another card in a device's place, with what its twin holds of the dataset. Whoever has the
/// old keys is out from now on, locked out before or not; twin, student and models stay. Whether the twin had a dataset to
/// give.
///
/// # Errors
/// As [`enroll`], or when the device is not enrolled. The old keys count on then.
pub fn replace(
    store: &Store,
    device: &DeviceId,
    folder: &Path,
    reach: &Reach,
    now: SystemTime,
) -> Result<bool, EnrollError> {
    store.device(device)?;
    let dataset = match store.twin(device)?.dataset() {
        Some(dataset) => Some(store.blobs(device)?.path(&dataset.blob)),
        None => None,
    };
    let credential = write(store, device, folder, reach, dataset.as_deref(), now)?;
    store.enroll(device, credential)?;
    Ok(dataset.is_some())
}

fn require_new(store: &Store, device: &DeviceId) -> Result<(), EnrollError> {
    if device.as_str() == crate::broker::HOST {
        return Err(EnrollError::Reserved(device.clone()));
    }
    if store.known_device(device)?.is_some_and(|known| !known.revoked) {
        return Err(EnrollError::Enrolled(device.clone()));
    }
    Ok(())
}

/// Writes a folder of new files, none of which anybody else can read.
///
/// # Errors
/// When one is there already, or cannot be written.
pub fn write_private_folder(folder: &Path, files: &[(&str, &[u8])]) -> Result<(), PrivateFileError> {
    private::create_directory(folder)?;
    files.iter().try_for_each(|(name, content)| private::create(&folder.join(name), content))
}

/// The twin's images in the folder of another card.
const DATASET: &str = "dataset.twinset";

fn write(
    store: &Store,
    device: &DeviceId,
    folder: &Path,
    reach: &Reach,
    dataset: Option<&Path>,
    now: SystemTime,
) -> Result<Credential, EnrollError> {
    let key = DeviceKey::new(rand::random());
    let digits = Zeroizing::new(key.expose().iter().map(|byte| format!("{byte:02x}")).collect::<String>());
    let configuration = configuration(device, reach, dataset.is_some());
    let mut files = vec![("sealing.key", digits.as_bytes()), ("agent.toml", configuration.as_bytes())];
    let (certified, trusted);
    let mut record = None;
    if reach.tls {
        let authority = authority_of(store, now)?;
        // A name that no certificate can bear would keep the broker from getting one.
        authority.certify_broker(std::slice::from_ref(&reach.host), now)?;
        store.remember_broker_name(&reach.host)?;
        certified = authority.certify_device(device, now)?;
        trusted = authority.trusted() + reach.broker_authority.as_deref().unwrap_or_default();
        record = Some(certified.record);
        files.extend([
            ("device.crt", certified.certificate.as_bytes()),
            ("device.key", certified.key.as_bytes()),
            ("ca.crt", trusted.as_bytes()),
        ]);
    }
    write_private_folder(folder, &files)?;
    if let Some(dataset) = dataset {
        let path = folder.join(DATASET);
        private::copy(dataset, &path).map_err(|source| EnrollError::Images { path, source })?;
    }
    Ok(Credential { key, certificate: record })
}

/// What a board needs to be told; everything else has the agent's defaults. Paths are relative to the file.
fn configuration(device: &DeviceId, reach: &Reach, with_dataset: bool) -> String {
    let security = if reach.tls { "mutual" } else { "plain" };
    let dataset = if with_dataset {
        format!(
            "\n# What the twin holds, for training to go on. To bring more pictures, name a folder that holds yours.\n\
             [dataset]\npath = \"{DATASET}\"\nformat = \"twinset\"\n"
        )
    } else {
        String::new()
    };
    format!(
        "# Written by twin-host enroll. `twin-agent config default` shows every key.\n\
         [device]\nname = \"{device}\"\n\n\
         [broker]\nhost = {host:?}\nport = {port}\nsecurity = \"{security}\"\n\n\
         [credentials]\nfolder = \".\"\n{dataset}",
        host = reach.host,
        port = reach.port,
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;
    use twin_shared::id::DatasetVersion;

    fn reach(tls: bool) -> Reach {
        Reach { host: "twin.local".into(), port: 8883, tls, broker_authority: None }
    }

    fn device() -> DeviceId {
        "board1".parse().unwrap()
    }

    #[test]
    fn an_enrolled_board_is_known_and_its_keys_are_its_own() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path().join("host")).unwrap();
        let folder = directory.path().join("board1");
        enroll(&store, &device(), &folder, &reach(true), SystemTime::now()).unwrap();
        let text = std::fs::read_to_string(folder.join("sealing.key")).unwrap();
        let known = store.device(&device()).unwrap();
        assert_eq!(blake3::Hash::from_hex(text.trim()).unwrap().as_bytes(), known.key.expose());
        assert!(known.certificate.is_some() && known.next.is_none());
        assert_eq!(store.broker_names().unwrap(), ["twin.local"]);
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&folder), 0o700);
        for file in ["sealing.key", "device.key", "device.crt", "ca.crt", "agent.toml"] {
            assert_eq!(mode(&folder.join(file)), 0o600, "{file}");
        }
    }

    #[test]
    fn neither_a_folder_nor_an_enrolment_is_written_over() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path().join("host")).unwrap();
        let folder = directory.path().join("board1");
        enroll(&store, &device(), &folder, &reach(false), SystemTime::now()).unwrap();
        let before = store.device(&device()).unwrap().key.expose().to_owned();
        let again = enroll(&store, &device(), &directory.path().join("2"), &reach(false), SystemTime::now());
        assert!(matches!(again, Err(EnrollError::Enrolled(_))));
        let error = replace(&store, &device(), &folder, &reach(false), SystemTime::now()).unwrap_err();
        assert!(matches!(error, EnrollError::File(_)), "{error}");
        assert_eq!(store.device(&device()).unwrap().key.expose(), &before);
    }

    #[test]
    fn a_new_folder_counts_when_it_is_used_or_at_once() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path().join("host")).unwrap();
        let folder = |name: &str| directory.path().join(name);
        let now = SystemTime::now();
        assert!(reissue(&store, &device(), &folder("0"), &reach(true), now).is_err());
        enroll(&store, &device(), &folder("1"), &reach(true), now).unwrap();
        let first = store.device(&device()).unwrap();
        reissue(&store, &device(), &folder("2"), &reach(true), now).unwrap();
        let both = store.device(&device()).unwrap();
        assert_eq!(both.certificate, first.certificate);
        assert_ne!(both.next.unwrap().certificate, first.certificate);
        assert!(!replace(&store, &device(), &folder("3"), &reach(true), now).unwrap(), "no images yet");
        let last = store.device(&device()).unwrap();
        assert!(last.next.is_none() && last.certificate != first.certificate);
    }

    #[test]
    fn another_card_gets_what_the_twin_holds_and_is_let_in_again() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path().join("host")).unwrap();
        let folder = |name: &str| directory.path().join(name);
        let now = SystemTime::now();
        assert!(replace(&store, &device(), &folder("0"), &reach(false), now).is_err(), "nobody of this name");
        enroll(&store, &device(), &folder("1"), &reach(false), now).unwrap();
        let blob = store.blobs(&device()).unwrap().put(b"images").unwrap();
        store.hold_dataset(&device(), DatasetVersion(blob.0), blob).unwrap();
        store.revoke(&device()).unwrap();
        assert!(replace(&store, &device(), &folder("2"), &reach(false), now).unwrap());
        assert_eq!(std::fs::read(folder("2").join(DATASET)).unwrap(), b"images");
        let mode = std::fs::metadata(folder("2").join(DATASET)).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o600);
        let configuration = std::fs::read_to_string(folder("2").join("agent.toml")).unwrap();
        assert!(configuration.contains("path = \"dataset.twinset\"\nformat = \"twinset\""), "{configuration}");
        assert!(!store.device(&device()).unwrap().revoked);
        // Without its images a card would be half a replacement: the one before counts on.
        let before = store.device(&device()).unwrap().key.expose().to_owned();
        std::fs::remove_file(store.blobs(&device()).unwrap().path(&blob)).unwrap();
        let error = replace(&store, &device(), &folder("3"), &reach(false), now).unwrap_err();
        assert!(matches!(error, EnrollError::Images { .. }), "{error}");
        assert_eq!(store.device(&device()).unwrap().key.expose(), &before);
    }

    #[test]
    fn a_list_is_enrolled_whole_or_not_at_all() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path().join("host")).unwrap();
        let folder = |name: &str| directory.path().join(name);
        let devices: Vec<DeviceId> = ["a", "b", "c"].map(|name| name.parse().unwrap()).to_vec();
        let now = SystemTime::now();
        enroll(&store, &devices[2], &folder("alone"), &reach(true), now).unwrap();
        let refused = enroll_all(&store, &devices, &folder("all"), &reach(true), now);
        assert!(matches!(refused, Err(EnrollError::Enrolled(_))));
        assert!(!folder("all").exists());
        enroll_all(&store, &devices[..2], &folder("all"), &reach(true), now).unwrap();
        for device in &devices[..2] {
            let text = std::fs::read_to_string(folder("all").join(device.as_str()).join("sealing.key")).unwrap();
            let known = store.device(device).unwrap();
            assert_eq!(blake3::Hash::from_hex(text.trim()).unwrap().as_bytes(), known.key.expose());
        }
        // A folder that is there already is left alone.
        let more: Vec<DeviceId> = vec!["d".parse().unwrap()];
        assert!(matches!(enroll_all(&store, &more, &folder("all"), &reach(true), now), Err(EnrollError::File(_))));
        assert!(folder("all").join("a/agent.toml").exists() && store.known_device(&more[0]).unwrap().is_none());
    }

    #[test]
    fn a_host_that_no_certificate_can_name_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path()).unwrap();
        let odd = Reach { host: "zw\u{f6}lf".into(), ..reach(true) };
        let error = enroll(&store, &device(), &directory.path().join("1"), &odd, SystemTime::now()).unwrap_err();
        assert!(matches!(error, EnrollError::Authority(AuthorityError::Certificate(_))), "{error}");
        assert!(store.broker_names().unwrap().is_empty() && store.known_device(&device()).unwrap().is_none());
    }

    #[test]
    fn a_lost_authority_is_not_replaced_unasked() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path().join("host")).unwrap();
        enroll(&store, &device(), &directory.path().join("1"), &reach(true), SystemTime::now()).unwrap();
        std::fs::remove_dir_all(store.authority_directory()).unwrap();
        let refused = authority_of(&store, SystemTime::now());
        assert!(matches!(refused, Err(EnrollError::Authority(AuthorityError::Lost { .. }))));
        Authority::rotate(&store.authority_directory(), SystemTime::now()).unwrap();
        authority_of(&store, SystemTime::now()).unwrap();
    }

    #[test]
    fn the_hosts_own_name_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path()).unwrap();
        let device: DeviceId = "twin-host".parse().unwrap();
        let error = enroll(&store, &device, directory.path(), &reach(false), SystemTime::now()).unwrap_err();
        assert!(matches!(error, EnrollError::Reserved(_)));
    }
}
