//! What end-to-end tests stand on: the programs as they are deployed, in a folder of their own, ended with the test.
#![forbid(unsafe_code)]

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use twin_data::{ImageSet, digits};

/// Where the three programs are: `TWIN_PROGRAMS`, as scripts/test sets it.
#[must_use]
pub fn programs() -> Option<PathBuf> {
    let folder = PathBuf::from(std::env::var_os("TWIN_PROGRAMS")?);
    assert!(folder.join("twin-host").is_file(), "{}: no twin-host; run scripts/build", folder.display());
    Some(folder)
}

/// A process that ends with its owner.
#[derive(Debug)]
pub struct Running(Child);

impl Running {
    /// Starts a program; what it says goes to a file.
    ///
    /// # Panics
    /// When it cannot be started.
    #[must_use]
    pub fn start(program: &Path, arguments: &[&str], log: &Path) -> Self {
        let log = fs::File::create(log).expect("a log file");
        let mut command = Command::new(program);
        command
            .args(arguments)
            .env("RUST_LOG", "info,mqtt5=warn")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log);
        Self(command.spawn().expect("the program starts"))
    }

    /// Its process.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.0.id()
    }

    /// Kills it without a word, as a power cut would.
    pub fn kill(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }

    /// Ends it as a service manager would; whether it ended well in ten seconds.
    pub fn terminate(&mut self) -> bool {
        let _ = Command::new("kill").arg(self.0.id().to_string()).status();
        let until = Instant::now() + Duration::from_secs(10);
        while Instant::now() < until {
            if let Ok(Some(status)) = self.0.try_wait() {
                return status.success();
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        false
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A host and its boards in one folder, on a port of their own.
#[derive(Debug)]
pub struct Fleet {
    /// The folder; it goes with the fleet.
    pub folder: tempfile::TempDir,
    programs: PathBuf,
}

impl Fleet {
    /// Enrols boards and writes their datasets: the digits `0` and `1` for one, `1` and `2` for the next, and so on.
    ///
    /// # Panics
    /// When a program or the disk refuses.
    #[must_use]
    pub fn new(programs: PathBuf, boards: &[&str], policy: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("a port").port();
        drop(listener);
        let fleet = Self { folder, programs };
        let trainer = fleet.programs.join("twin-trainer");
        let host = format!(
            "data_dir = {data:?}\n[broker]\nplain = \"127.0.0.1:{port}\"\n\
             [trainer]\nprogram = {trainer:?}\ndevice = \"cpu\"\nthreads = 1\nteacher_threads = 2\n\
             [scheduler]\npolicy = \"{policy}\"\nfrequency_ghz = 4.0\n\
             [[scheduler.models]]\nname = \"vgg8\"\naccuracy_own = 0.9\naccuracy_avg = 0.9\n",
            data = fleet.path("host"),
        );
        fs::write(fleet.path("host.toml"), host).expect("written");
        let all =
            digits::read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../data/digits/digits.csv.gz")).expect("digits");
        for (k, board) in (0u16..).zip(boards) {
            let enrolled =
                fleet.host(&["enroll", board, "--plain", "--port", &port.to_string(), "--out", &fleet.path(board)]);
            assert!(enrolled.0, "{}", enrolled.1);
            let set = digits::split(&all, &[vec![k, k + 1]], 12, 1).expect("enough digits").boards.remove(0);
            fleet.equip(board, &set, &trainer);
        }
        fleet
    }

    fn equip(&self, board: &str, set: &ImageSet, trainer: &Path) {
        let folder = PathBuf::from(self.path(board));
        set.write(&folder.join("dataset.twinset")).expect("written");
        let enrolled = fs::read_to_string(folder.join("agent.toml")).expect("enrolment wrote it");
        let enrolled = enrolled.replace("[device]\n", "[device]\ndata_dir = \"data\"\n");
        let part = format!(
            "\n[dataset]\npath = \"dataset.twinset\"\nformat = \"twinset\"\n\
             [trainer]\nprogram = {trainer:?}\nthreads = 1\n[telemetry]\nperiod_s = 1\n\
             [emulate]\nfrequency_ghz = 2.0\nduty = 1.0\nuplink_bits_per_second = 1e8\ndownlink_bits_per_second = 1e8\n"
        );
        fs::write(folder.join("played.toml"), enrolled + &part).expect("written");
    }

    /// A path in the fleet's folder.
    #[must_use]
    pub fn path(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    /// Runs twin-host to its end: whether it succeeded, and what it said.
    ///
    /// # Panics
    /// When it cannot be started.
    #[must_use]
    pub fn host(&self, arguments: &[&str]) -> (bool, String) {
        let config = self.path("host.toml");
        let done = Command::new(self.programs.join("twin-host"))
            .args(arguments)
            .args(["--config", &config])
            .output()
            .expect("twin-host starts");
        let said = format!("{}{}", String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
        (done.status.success(), said)
    }

    /// Serves, with a job of this many epochs for these boards.
    ///
    /// # Panics
    /// When the disk refuses.
    #[must_use]
    pub fn serve(&self, boards: &[&str], epochs: u32) -> Running {
        let job = format!(
            "devices = {boards:?}\nclasses = 10\ncrop_padding = 2\npatience_s = 60\n\
             [teacher]\narchitecture = \"vgg8\"\nepochs = 1\nbatch = \"8\"\n\
             [student]\nepochs = {epochs}\nbatch = 8\nbatches_per_block = 1\n"
        );
        fs::write(self.path("job.toml"), job).expect("written");
        let arguments = ["serve", "--config", &self.path("host.toml"), "--job", &self.path("job.toml")];
        Running::start(&self.programs.join("twin-host"), &arguments, Path::new(&self.path("host.log")))
    }

    /// Serves with what there is: a job that ran goes on.
    ///
    /// # Panics
    /// When it cannot be started.
    #[must_use]
    pub fn serve_on(&self) -> Running {
        let arguments = ["serve", "--config", &self.path("host.toml")];
        Running::start(&self.programs.join("twin-host"), &arguments, Path::new(&self.path("host.log")))
    }

    /// Runs twin-agent with a board's configuration to its end: its exit status, and what it put out.
    ///
    /// # Panics
    /// When it cannot be started.
    #[must_use]
    pub fn ask_agent(&self, board: &str, arguments: &[&str]) -> (Option<i32>, String) {
        let config = PathBuf::from(self.path(board)).join("played.toml");
        let done = Command::new(self.programs.join("twin-agent"))
            .args(arguments)
            .arg("--config")
            .arg(config)
            .output()
            .expect("twin-agent starts");
        let said = format!("{}{}", String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
        (done.status.code(), said)
    }

    /// Starts a board's agent.
    #[must_use]
    pub fn agent(&self, board: &str) -> Running {
        let folder = PathBuf::from(self.path(board));
        let config = folder.join("played.toml").display().to_string();
        Running::start(&self.programs.join("twin-agent"), &["run", "--config", &config], &folder.join("agent.log"))
    }

    /// What `twin-host show` says of a board.
    ///
    /// # Panics
    /// When it does not answer in JSON.
    #[must_use]
    pub fn show(&self, board: &str) -> serde_json::Value {
        let (done, said) = self.host(&["show", board, "--format", "json"]);
        assert!(done, "{said}");
        serde_json::from_str(&said).expect("JSON")
    }

    /// Waits until a board's student has done so many epochs.
    ///
    /// # Panics
    /// When it has not in four minutes; with the host's log.
    pub fn wait_for(&self, board: &str, epochs: u64) {
        let until = Instant::now() + Duration::from_secs(240);
        while self.show(board)["student"]["epochs"].as_u64() < Some(epochs) {
            let log = || fs::read_to_string(self.path("host.log")).unwrap_or_default();
            assert!(Instant::now() < until, "{board} has not done {epochs} epochs:\n{}", log());
            std::thread::sleep(Duration::from_millis(300));
        }
    }
}
