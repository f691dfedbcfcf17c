//! The folder that a board gets: everything that proves who it is, and a configuration to start with.

use std::path::Path;
use std::time::SystemTime;

use twin_shared::id::DeviceId;
use twin_shared::wire::seal::DeviceKey;

use super::authority::{Authority, AuthorityError};
use super::private::{self, PrivateFileError};
use crate::store::{Store, StoreError};

/// How the board reaches the broker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reach {
    /// Name or address.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// With TLS and certificates on both sides, or without on the same machine.
    pub tls: bool,
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
}

/// Enrols a device: writes its folder (which must not hold an earlier enrolment), then takes it into the store.
///
/// # Errors
/// When a file is there already or cannot be written, or the store refuses.
pub fn enroll(
    store: &Store,
    device: &DeviceId,
    folder: &Path,
    reach: &Reach,
    now: SystemTime,
) -> Result<(), EnrollError> {
    if device.as_str() == crate::broker::HOST {
        return Err(EnrollError::Reserved(device.clone()));
    }
    let key = DeviceKey::new(rand::random());
    private::create_directory(folder)?;
    if reach.tls {
        let authority = Authority::open_or_create(&store.root().join("authority"), now)?;
        let certified = authority.certify_device(device, now)?;
        private::create(&folder.join("device.crt"), certified.certificate.as_bytes())?;
        private::create(&folder.join("device.key"), certified.key.as_bytes())?;
        private::create(&folder.join("ca.crt"), authority.certificate().as_bytes())?;
    }
    let digits = zeroize::Zeroizing::new(key.expose().iter().map(|byte| format!("{byte:02x}")).collect::<String>());
    private::create(&folder.join("sealing.key"), digits.as_bytes())?;
    private::create(&folder.join("agent.toml"), configuration(device, reach).as_bytes())?;
    store.enroll(device, &key)?;
    Ok(())
}

/// What a board needs to be told; everything else has the agent's defaults. Paths are relative to the file.
fn configuration(device: &DeviceId, reach: &Reach) -> String {
    let security = if reach.tls { "mutual" } else { "plain" };
    format!(
        "# Written by twin-host enroll. `twin-agent config default` shows every key.\n\
         [device]\nname = \"{device}\"\n\n\
         [broker]\nhost = {host:?}\nport = {port}\nsecurity = \"{security}\"\n\n\
         [credentials]\nfolder = \".\"\n",
        host = reach.host,
        port = reach.port,
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn reach(tls: bool) -> Reach {
        Reach { host: "twin.local".into(), port: 8883, tls }
    }

    #[test]
    fn an_enrolled_board_is_known_and_its_keys_are_its_own() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path().join("host")).unwrap();
        let device: DeviceId = "board1".parse().unwrap();
        let folder = directory.path().join("board1");
        enroll(&store, &device, &folder, &reach(true), SystemTime::now()).unwrap();
        let text = std::fs::read_to_string(folder.join("sealing.key")).unwrap();
        let known = store.device(&device).unwrap();
        assert_eq!(blake3::Hash::from_hex(text.trim()).unwrap().as_bytes(), known.key.expose());
        for file in ["sealing.key", "device.key", "device.crt", "ca.crt", "agent.toml"] {
            let mode = std::fs::metadata(folder.join(file)).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{file}");
        }
    }

    #[test]
    fn a_folder_is_not_written_over() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path().join("host")).unwrap();
        let device: DeviceId = "board1".parse().unwrap();
        let folder = directory.path().join("board1");
        enroll(&store, &device, &folder, &reach(false), SystemTime::now()).unwrap();
        let before = store.device(&device).unwrap().key.expose().to_owned();
        let error = enroll(&store, &device, &folder, &reach(false), SystemTime::now()).unwrap_err();
        assert!(matches!(error, EnrollError::File(_)), "{error}");
        assert_eq!(store.device(&device).unwrap().key.expose(), &before);
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
