//! `diag`: one archive for a bug report, with what helps and without what is secret.
//!
//! What goes in is listed here; the contents of keys, certificates, images and student states are not on the list. To
//! be sure of it, every entry is searched for the board's secrets before it goes in.

use std::fmt::Write as _;
use std::fs;
use std::io::{self, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Instant, SystemTime};

use flate2::Compression;
use flate2::write::GzEncoder;
use twin_shared::wire::WIRE_VERSIONS;

use crate::config::{Config, Credentials};
use crate::keys::{self, Keys};
use crate::sampler::{LinuxSampler, Root, Sampler};
use crate::{calibration, durable, identity};

/// Most bytes of one entry; of a longer one the end is kept.
const MOST: usize = 4 << 20;

/// Lines of the journal.
const LINES: &str = "5000";

/// Files of the system that say what board this is and how it is.
const SYSTEM: [&str; 14] = [
    "/etc/os-release",
    "/proc/sys/kernel/osrelease",
    "/proc/device-tree/model",
    "/proc/cpuinfo",
    "/proc/meminfo",
    "/proc/loadavg",
    "/proc/uptime",
    "/proc/vmstat",
    "/proc/self/cgroup",
    "/proc/self/mountinfo",
    "/proc/net/dev",
    "/proc/net/route",
    "/proc/net/wireless",
    "/proc/pressure/memory",
];

/// What was put into an archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Collected {
    /// Names of the entries.
    pub entries: Vec<String>,
    /// Places where a secret was found and left out.
    pub left_out: usize,
}

/// Collects everything into `out`, a gzipped tar archive that its owner alone can read.
///
/// # Errors
/// When the archive cannot be written. What cannot be collected is told in its place.
pub fn collect(config_file: &Path, config: &Config, out: &Path) -> io::Result<Collected> {
    let secrets = Secrets::of(config);
    let mut archive = tar::Builder::new(GzEncoder::new(Vec::new(), Compression::default()));
    let mut collected = Collected { entries: Vec::new(), left_out: 0 };
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let mut add = |name: &str, content: Vec<u8>| {
        let (content, left_out) = secrets.leave_out(tail(content));
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o600);
        header.set_mtime(now);
        archive.append_data(&mut header, format!("twin-agent-diag/{name}"), content.as_slice())?;
        collected.entries.push(name.to_owned());
        collected.left_out += left_out;
        io::Result::Ok(())
    };
    add("versions.txt", versions(config).into_bytes())?;
    add("agent.toml", file(config_file))?;
    add("sample.txt", sample(config).into_bytes())?;
    add("data-dir.txt", listing(&config.data_dir).into_bytes())?;
    add("calibration.json", file(&calibration::file(&config.data_dir)))?;
    add("births.txt", file(&config.data_dir.join("births")))?;
    add("credentials.txt", credentials(&config.credentials).into_bytes())?;
    for path in SYSTEM {
        add(&format!("system{path}"), file(Path::new(path)))?;
    }
    let journal =
        ["journalctl", "--no-pager", "--lines", LINES, "--unit", "twin-agent", "--output", "short-iso-precise"];
    add("journal.txt", output(&journal))?;
    add("unit.txt", output(&["systemctl", "show", "twin-agent"]))?;
    let bytes = archive.into_inner()?.finish()?;
    write_private(out, &bytes)?;
    Ok(collected)
}

/// An archive is whole or not there.
fn write_private(out: &Path, bytes: &[u8]) -> io::Result<()> {
    use std::os::unix::fs::OpenOptionsExt;
    let temporary = out.with_added_extension("new");
    match fs::remove_file(&temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let mut writer = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
    writer.write_all(bytes)?;
    writer.sync_all()?;
    fs::rename(&temporary, out)
}

fn versions(config: &Config) -> String {
    let trainer = config.trainer.program.display().to_string();
    format!(
        "twin-agent {}\nwire versions {} to {}\n{}",
        env!("CARGO_PKG_VERSION"),
        WIRE_VERSIONS.oldest,
        WIRE_VERSIONS.newest,
        String::from_utf8_lossy(&output(&[&trainer, "--version"])),
    )
}

fn sample(config: &Config) -> String {
    let root = Root::Live { data_dir: config.data_dir.clone() };
    let mut sampler = LinuxSampler::new(root, config.telemetry.interface.clone());
    format!("{:#?}\n", sampler.sample(Instant::now()))
}

/// Names, sizes and ages of what lies in a folder; no contents.
fn listing(folder: &Path) -> String {
    let mut text = String::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        let entries = match fs::read_dir(&folder) {
            Ok(entries) => entries,
            Err(error) => {
                writeln!(text, "{}: {error}", folder.display()).expect("a string takes all");
                continue;
            }
        };
        for entry in entries.flatten() {
            let path = entry.path();
            match entry.metadata() {
                Ok(data) if data.is_dir() => folders.push(path),
                Ok(data) => {
                    let age = data.modified().ok().and_then(|at| at.elapsed().ok()).map_or(0, |age| age.as_secs());
                    writeln!(text, "{:>12} bytes {age:>10} s ago  {}", data.len(), path.display())
                        .expect("a string takes all");
                }
                Err(error) => writeln!(text, "{}: {error}", path.display()).expect("a string takes all"),
            }
        }
    }
    text
}

/// Which of the board's files of identity are there, and whether they can be read; no contents.
fn credentials(credentials: &Credentials) -> String {
    let files = [&credentials.sealing_key, &credentials.certificate, &credentials.private_key, &credentials.authority];
    files.into_iter().fold(String::new(), |mut text, file| {
        let state = fs::read(file).map_or_else(|error| error.to_string(), |bytes| format!("{} bytes", bytes.len()));
        writeln!(text, "{}: {state}", file.display()).expect("a string takes all");
        text
    })
}

fn file(path: &Path) -> Vec<u8> {
    match durable::read(path) {
        Ok(Some(content)) => content,
        Ok(None) => b"not there\n".to_vec(),
        Err(error) => format!("{error}\n").into_bytes(),
    }
}

/// What a command says on both its outputs.
fn output(command: &[&str]) -> Vec<u8> {
    let [program, arguments @ ..] = command else { return Vec::new() };
    match Command::new(program).args(arguments).stdin(Stdio::null()).output() {
        Ok(done) => [done.stdout, done.stderr].concat(),
        Err(error) => format!("{program}: {error}\n").into_bytes(),
    }
}

fn tail(mut content: Vec<u8>) -> Vec<u8> {
    content.drain(..content.len().saturating_sub(MOST));
    content
}

/// What must not get into an archive, in every form in which it could.
struct Secrets(Vec<Vec<u8>>);

impl Secrets {
    /// Shorter pieces are no secrets, and would be found everywhere.
    const SHORTEST: usize = 16;

    /// Stands where one was.
    const MARK: &'static [u8] = b"[left out]";

    fn of(config: &Config) -> Self {
        let credentials = &config.credentials;
        let mut secrets = Vec::new();
        let renewed = Keys::load(credentials, config.broker.security, &keys::file(&config.data_dir));
        let sealing = [identity::read_key(&credentials.sealing_key).ok(), renewed.ok().map(|keys| keys.sealing)];
        for key in sealing.into_iter().flatten() {
            for bytes in [*key.expose(), key.broker_password()] {
                let hex = blake3::Hash::from_bytes(bytes).to_hex();
                secrets.extend([bytes.to_vec(), hex.as_bytes().to_vec(), hex.to_uppercase().into_bytes()]);
            }
        }
        if let Ok(pem) = fs::read_to_string(&credentials.private_key) {
            let lines = pem.lines().filter(|line| !line.starts_with("-----")).map(str::trim);
            secrets.extend(lines.map(|line| line.as_bytes().to_vec()));
        }
        secrets.retain(|secret| secret.len() >= Self::SHORTEST);
        Self(secrets)
    }

    /// The content without them, and how many there were.
    fn leave_out(&self, content: Vec<u8>) -> (Vec<u8>, usize) {
        let mut found = 0;
        let content = self.0.iter().fold(content, |content, secret| {
            let mut clean = Vec::with_capacity(content.len());
            let mut rest = content.as_slice();
            while let Some(at) = rest.windows(secret.len()).position(|window| window == secret.as_slice()) {
                clean.extend_from_slice(&rest[..at]);
                clean.extend_from_slice(Self::MARK);
                rest = &rest[at + secret.len()..];
                found += 1;
            }
            clean.extend_from_slice(rest);
            clean
        });
        (content, found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::read::GzDecoder;
    use std::io::Read;

    const PRIVATE: &str = "MC4CAQAwBQYDK2VwBCIEIDq3vHqs0jvZ8Vb1pQeYkqk3";

    struct Board {
        folder: tempfile::TempDir,
        key: [u8; 32],
        config: Config,
    }

    impl Board {
        fn new() -> Self {
            let folder = tempfile::tempdir().expect("a folder");
            let key = std::array::from_fn(|index| (index as u8).wrapping_mul(37) ^ 0x5a);
            let file = |name: &str| folder.path().join(name);
            fs::write(file("sealing.key"), blake3::Hash::from_bytes(key).to_hex().as_str()).expect("written");
            let pem = format!("-----BEGIN PRIVATE KEY-----\n{PRIVATE}\n-----END PRIVATE KEY-----\n");
            fs::write(file("device.key"), pem).expect("written");
            fs::create_dir_all(file("data/blobs")).expect("made");
            fs::write(file("data/blobs/state"), b"weights of a student").expect("written");
            // A careless owner wrote secrets where they do not belong.
            let hex = blake3::Hash::from_bytes(key).to_hex();
            let text = format!(
                "# key {hex}, in capitals {}\n# {PRIVATE}\n[device]\nname = \"kitchen\"\ndata_dir = \"data\"\n\
                 [credentials]\nfolder = \".\"\n",
                hex.to_uppercase()
            );
            fs::write(file("agent.toml"), text).expect("written");
            let config = Config::load(&file("agent.toml")).expect("valid");
            Self { folder, key, config }
        }

        /// Every entry, by name.
        fn collected(&self) -> (Vec<(String, Vec<u8>)>, Collected) {
            let out = self.folder.path().join("diag.tar.gz");
            let collected = collect(&self.folder.path().join("agent.toml"), &self.config, &out).expect("written");
            let mut archive = tar::Archive::new(GzDecoder::new(fs::File::open(&out).expect("there")));
            let entries = archive.entries().expect("an archive").map(|entry| {
                let mut entry = entry.expect("whole");
                let name = entry.path().expect("a name").display().to_string();
                let mut content = Vec::new();
                entry.read_to_end(&mut content).expect("whole");
                (name, content)
            });
            (entries.collect(), collected)
        }
    }

    #[test]
    fn no_byte_of_a_key_is_in_the_archive() {
        let board = Board::new();
        let key = twin_shared::wire::seal::DeviceKey::new(board.key);
        let (entries, collected) = board.collected();
        assert_eq!(collected.left_out, 3, "hexadecimal twice, and the private key");
        let mut secrets = vec![PRIVATE.as_bytes().to_vec(), b"weights of a student".to_vec()];
        for bytes in [board.key, key.broker_password()] {
            let hex = blake3::Hash::from_bytes(bytes).to_hex().to_string();
            // Not even a part.
            secrets.extend([
                bytes[..8].to_vec(),
                hex[..16].into(),
                hex[16..32].into(),
                hex.to_uppercase()[..16].into(),
            ]);
        }
        for (name, content) in &entries {
            for secret in &secrets {
                assert!(!content.windows(secret.len()).any(|window| window == secret.as_slice()), "{name}");
            }
        }
        let text = |wanted: &str| {
            let (_, content) = entries.iter().find(|(name, _)| name.ends_with(wanted)).expect(wanted);
            String::from_utf8_lossy(content).into_owned()
        };
        assert!(text("agent.toml").contains("name = \"kitchen\""));
        assert!(text("data-dir.txt").contains("blobs/state"));
        assert!(text("meminfo").contains("MemTotal"));
        assert!(text("credentials.txt").contains("sealing.key: 64 bytes"));
        assert!(text("versions.txt").contains(env!("CARGO_PKG_VERSION")));
    }

    #[test]
    fn others_cannot_read_it_and_it_takes_the_place_of_an_older_one() {
        use std::os::unix::fs::PermissionsExt;
        let board = Board::new();
        board.collected();
        board.collected();
        let mode = fs::metadata(board.folder.path().join("diag.tar.gz")).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
}
