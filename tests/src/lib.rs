//! What end-to-end tests stand on: the programs as they are deployed, in a folder of their own, ended with the test.
#![forbid(unsafe_code)]

mod mosquitto;
mod narrow;
mod play;
mod proxy;
mod story;

pub use mosquitto::mosquitto;
pub use narrow::NarrowLink;
pub use play::Play;
pub use proxy::{Fault, Proxy};
pub use story::Story;
pub mod fill;

use std::fs;
use std::io::Write;
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

/// The folder of [`programs`]; without one the test says that it was skipped, and returns.
#[macro_export]
macro_rules! programs_or_skip {
    () => {
        match $crate::programs() {
            Some(folder) => folder,
            None => {
                eprintln!("skipped: TWIN_PROGRAMS is not set; scripts/test sets it");
                return;
            }
        }
    };
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
        Self::start_with(program, arguments, log, &[])
    }

    /// As [`Self::start`], with variables of the environment.
    ///
    /// # Panics
    /// When it cannot be started.
    #[must_use]
    pub fn start_with(program: &Path, arguments: &[&str], log: &Path, variables: &[(&str, String)]) -> Self {
        let log = fs::File::create(log).expect("a log file");
        let mut command = Command::new(program);
        command
            .args(arguments)
            .env("RUST_LOG", "info,mqtt5=warn")
            .envs(variables.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log);
        Self(command.spawn().expect("the program starts"))
    }

    /// The most memory that it has held, bytes, as the kernel says.
    #[must_use]
    pub fn peak_memory(&self) -> Option<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.0.id())).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
        line.trim().strip_suffix(" kB")?.parse::<u64>().ok().map(|kib| kib << 10)
    }

    /// The processor's time that it has used, seconds, its threads' included.
    #[must_use]
    pub fn processor_seconds(&self) -> Option<f64> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.0.id())).ok()?;
        // After the name, which may hold anything: state is field 3, user and system time are 14 and 15.
        let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
        let ticks = fields.get(11)?.parse::<u32>().ok()? + fields.get(12)?.parse::<u32>().ok()?;
        // The kernel counts in hundredths for programs, whatever its own clock is.
        Some(f64::from(ticks) / 100.0)
    }

    /// Its process.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.0.id()
    }

    /// As [`Self::start`], with this much in the log.
    ///
    /// # Panics
    /// When it cannot be started.
    #[must_use]
    pub fn start_logging(level: &str, program: &Path, arguments: &[&str], log: &Path) -> Self {
        Self::start_with(program, arguments, log, &[("RUST_LOG", level.to_owned())])
    }

    /// Whether it has not ended.
    pub fn is_running(&mut self) -> bool {
        matches!(self.0.try_wait(), Ok(None))
    }

    /// Kills it without a word, as a power cut would.
    pub fn kill(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }

    /// Has it stand still for so long, as a machine does that is out of memory: its connections stay.
    ///
    /// # Panics
    /// When it cannot be told.
    pub fn stand_still(&self, time: Duration) {
        for signal in ["-STOP", "-CONT"] {
            let told = Command::new("kill").args([signal, &self.0.id().to_string()]).status();
            assert!(told.is_ok_and(|status| status.success()), "kill {signal}");
            if signal == "-STOP" {
                std::thread::sleep(time);
            }
        }
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
    play: Play,
    port: u16,
}

/// A port of loopback that nobody uses at the moment.
///
/// # Panics
/// When there is none.
#[must_use]
pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port").port()
}

impl Fleet {
    /// Enrols boards and writes their datasets: the digits `0` and `1` for one, `1` and `2` for the next, and so on.
    /// Boards connect by TLS.
    ///
    /// # Panics
    /// When a program or the disk refuses.
    #[must_use]
    pub fn new(programs: PathBuf, boards: &[&str], policy: &str) -> Self {
        let play = Play { tls: true, ..Play::trained(programs.join("twin-trainer")) };
        Self::played(programs, boards, policy, play)
    }

    /// As [`Self::new`], without TLS.
    ///
    /// # Panics
    /// When a program or the disk refuses.
    #[must_use]
    pub fn plain(programs: PathBuf, boards: &[&str], policy: &str) -> Self {
        let play = Play::trained(programs.join("twin-trainer"));
        Self::played(programs, boards, policy, play)
    }

    /// As [`Self::new`], with what the boards play.
    ///
    /// # Panics
    /// When a program or the disk refuses.
    #[must_use]
    pub fn played(programs: PathBuf, boards: &[&str], policy: &str, play: Play) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let fleet = Self { folder, programs, play, port: free_port() };
        let (port, trainer) = (fleet.port, &fleet.play.trainer);
        let host = format!(
            "data_dir = {data:?}\n[broker]\n{listener}\
             [trainer]\nprogram = {trainer:?}\ndevice = \"cpu\"\nthreads = 1\nteacher_threads = 2\nprecision = \"f32\"\n\
             [scheduler]\npolicy = \"{policy}\"\nfrequency_ghz = 4.0\n{scheduler}\
             [[scheduler.models]]\nname = \"vgg8\"\naccuracy_own = 0.9\naccuracy_avg = 0.9\n",
            data = fleet.path("host"),
            listener = fleet.play.listener(port),
            scheduler = fleet.play.scheduler(),
        );
        fs::write(fleet.path("host.toml"), host).expect("written");
        for (k, board) in (0u16..).zip(boards) {
            let plain: &[&str] = if fleet.play.tls { &[] } else { &["--plain"] };
            fleet.enroll(board, plain);
            fleet.equip(board, board, k);
        }
        fleet
    }

    /// Enrols a board, with these further arguments, into a folder of its name.
    ///
    /// # Panics
    /// When that is refused.
    pub fn enroll(&self, board: &str, further: &[&str]) {
        let folder = self.path(board);
        let enrolled = self.host(&[&["enroll", board, "--out", &folder], further].concat());
        assert!(enrolled.0, "{}", enrolled.1);
    }

    /// Gives the enrolment in a folder what makes a board of it: data of its own from this digit on, a trainer, and the
    /// data directory of `card`.
    ///
    /// # Panics
    /// When the disk refuses.
    pub fn equip(&self, folder: &str, card: &str, digit: u16) {
        let set = match self.play.images {
            0 => {
                let digits = Path::new(env!("CARGO_MANIFEST_DIR")).join("../data/digits/digits.csv.gz");
                let all = digits::read(&digits).expect("digits");
                digits::split(&all, &[vec![digit, digit + 1]], 12, 1).expect("enough digits").boards.remove(0)
            }
            images => play::noise(images, digit),
        };
        self.write_board(folder, card, &set);
    }

    /// The log of a board's agent, so far.
    #[must_use]
    pub fn agent_log(&self, board: &str) -> String {
        self.log(&format!("{board}/agent.log"))
    }

    /// The host's log, so far.
    #[must_use]
    pub fn host_log(&self) -> String {
        self.log("host.log")
    }

    /// Serves without a job, with these further arguments.
    #[must_use]
    pub fn serve_idle(&self, further: &[&str]) -> Running {
        let config = self.path("host.toml");
        let arguments = [&["serve", "--config", &config], further].concat();
        Running::start(&self.programs.join("twin-host"), &arguments, Path::new(&self.path("host.log")))
    }

    fn write_board(&self, folder: &str, card: &str, set: &ImageSet) {
        set.write(&PathBuf::from(self.path(folder)).join("dataset.twinset")).expect("written");
        self.configure_board(folder, card, "[dataset]\npath = \"dataset.twinset\"\nformat = \"twinset\"\n");
    }

    /// Gives the enrolment in a folder what makes a board of it, with these lines for its dataset, and the data
    /// directory of `card`.
    ///
    /// # Panics
    /// When the disk refuses.
    pub fn configure_board(&self, folder: &str, card: &str, dataset: &str) {
        let folder = PathBuf::from(self.path(folder));
        let (data, trainer) = (self.path(&format!("{card}/data")), &self.play.trainer);
        let enrolled = fs::read_to_string(folder.join("agent.toml")).expect("enrolment wrote it");
        let enrolled = enrolled.replace("[device]\n", &format!("[device]\ndata_dir = {data:?}\n"));
        let part = format!(
            "\n{dataset}[trainer]\nprogram = {trainer:?}\nthreads = 1\n[telemetry]\nperiod_s = {period}\n\
             [emulate]\nfrequency_ghz = 2.0\nduty = 1.0\n\
             uplink_bits_per_second = {rate:e}\ndownlink_bits_per_second = {rate:e}\n",
            rate = self.play.rate,
            period = self.play.period_s,
        );
        fs::write(folder.join("played.toml"), enrolled + &part).expect("written");
    }

    /// As [`Self::serve`] and [`Self::agent`] of the first board, each on its side of a narrow link.
    ///
    /// # Panics
    /// When the disk refuses.
    #[must_use]
    pub fn across(&self, link: &NarrowLink, boards: &[&str], epochs: u32) -> (Running, Running) {
        let rewrite = |file: &Path, pairs: &[(String, String)]| {
            let mut text = fs::read_to_string(file).expect("the fleet wrote it");
            for (from, to) in pairs {
                assert!(text.contains(from), "{from:?} is not in {text}");
                text = text.replace(from, to);
            }
            fs::write(file, text).expect("written");
        };
        let at = |address: &str| format!("\"{address}:{}\"", self.port);
        let beyond = if self.play.tls { "" } else { "\ndangerously_plain_beyond_loopback = true" };
        let names = format!("\nnames = [\"localhost\", \"127.0.0.1\", \"{}\"]", NarrowLink::HOST);
        let listen = format!("{}{beyond}{names}", at(NarrowLink::HOST));
        rewrite(Path::new(&self.path("host.toml")), &[(at("127.0.0.1"), listen)]);
        let board = PathBuf::from(self.path(boards[0])).join("played.toml");
        let host = ("host = \"127.0.0.1\"".to_owned(), format!("host = \"{}\"{beyond}", NarrowLink::HOST));
        rewrite(&board, &[host]);
        let host = self.serve_by(&link.at_host(), boards, epochs);
        (host, self.agent_by(&link.at_board(), boards[0]))
    }

    /// Adds lines to the host's configuration.
    ///
    /// # Panics
    /// When the disk refuses.
    pub fn configure_host(&self, lines: &str) {
        let file = self.path("host.toml");
        let config = fs::read_to_string(&file).expect("the fleet wrote it");
        fs::write(&file, config + lines).expect("written");
    }

    /// Lets a board reach the host by way of a proxy.
    ///
    /// # Panics
    /// When the disk refuses.
    #[must_use]
    pub fn proxy(&self, board: &str) -> Proxy {
        let proxy = Proxy::to(([127, 0, 0, 1], self.port).into());
        let file = PathBuf::from(self.path(board)).join("played.toml");
        let config = fs::read_to_string(&file).expect("the fleet wrote it");
        let direct = format!("port = {}", self.port);
        assert!(config.contains(&direct), "{config}");
        fs::write(&file, config.replace(&direct, &format!("port = {}", proxy.address().port()))).expect("written");
        proxy
    }

    /// What a program of the fleet has said: `host.log`, or `BOARD/agent.log`.
    #[must_use]
    pub fn log(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap_or_default()
    }

    /// One of the programs.
    #[must_use]
    pub fn program(&self, name: &str) -> PathBuf {
        self.programs.join(name)
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
        self.host_asked(arguments, "")
    }

    /// As [`Self::host`], with answers to what it asks.
    ///
    /// # Panics
    /// When it cannot be started.
    #[must_use]
    pub fn host_asked(&self, arguments: &[&str], answers: &str) -> (bool, String) {
        let config = self.path("host.toml");
        let mut asked = Command::new(self.programs.join("twin-host"))
            .current_dir(self.folder.path())
            .args(arguments)
            .args(["--config", &config])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("twin-host starts");
        // One that wants no answers may have ended.
        let _ = asked.stdin.take().expect("a pipe").write_all(answers.as_bytes());
        let done = asked.wait_with_output().expect("twin-host ends");
        let said = format!("{}{}", String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
        (done.status.success(), said)
    }

    /// A job file of this many epochs for these boards.
    #[must_use]
    pub fn job_text(&self, boards: &[&str], epochs: u32) -> String {
        format!(
            "devices = {boards:?}\nclasses = 10\ncrop_padding = 2\npatience_s = 60\n\
             [teacher]\narchitecture = \"vgg8\"\nepochs = 1\nbatch = \"8\"\n\
             [student]\nepochs = {epochs}\nbatch = {batch}\nbatches_per_block = 1\n{student}",
            batch = self.play.batch,
            student = self.play.student,
        )
    }

    /// Writes that job file.
    ///
    /// # Panics
    /// When the disk refuses.
    pub fn write_job(&self, boards: &[&str], epochs: u32) {
        fs::write(self.path("job.toml"), self.job_text(boards, epochs)).expect("written");
    }

    /// Serves, with a job of this many epochs for these boards.
    ///
    /// # Panics
    /// When the disk refuses.
    #[must_use]
    pub fn serve(&self, boards: &[&str], epochs: u32) -> Running {
        self.serve_by(&[], boards, epochs)
    }

    fn serve_by(&self, runner: &[String], boards: &[&str], epochs: u32) -> Running {
        self.write_job(boards, epochs);
        let arguments = ["serve", "--config", &self.path("host.toml"), "--job", &self.path("job.toml")];
        self.start(runner, "twin-host", &arguments, Path::new(&self.path("host.log")))
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
        let folder = PathBuf::from(self.path(board));
        let config = folder.join("played.toml");
        let done = Command::new(self.programs.join("twin-agent"))
            .current_dir(folder)
            .args(arguments)
            .arg("--config")
            .arg(config)
            .output()
            .expect("twin-agent starts");
        let said = format!("{}{}", String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
        (done.status.code(), said)
    }

    /// Serves without a job, and says everything that it can say.
    #[must_use]
    pub fn serve_idle_loudly(&self) -> Running {
        let arguments = ["serve", "--config", &self.path("host.toml")];
        Running::start_logging("trace", &self.programs.join("twin-host"), &arguments, Path::new(&self.path("host.log")))
    }

    /// Starts a board's agent, which says everything that it can say.
    #[must_use]
    pub fn agent_loudly(&self, board: &str) -> Running {
        let folder = PathBuf::from(self.path(board));
        let config = folder.join("played.toml").display().to_string();
        let (program, arguments) = (self.programs.join("twin-agent"), ["run", "--config", &config]);
        Running::start_logging("trace", &program, &arguments, &folder.join("agent.log"))
    }

    /// Copies what enrolment wrote for a board to another card, whose agent has done nothing yet.
    ///
    /// # Panics
    /// When the disk refuses.
    pub fn copy_enrolment(&self, board: &str, card: &str) {
        fs::create_dir(self.path(card)).expect("a folder");
        for file in ["agent.toml", "sealing.key", "device.key", "device.crt", "ca.crt"] {
            fs::copy(self.path(&format!("{board}/{file}")), self.path(&format!("{card}/{file}"))).expect("copied");
        }
        self.equip(card, card, 0);
    }

    /// Starts a board's agent.
    #[must_use]
    pub fn agent(&self, board: &str) -> Running {
        self.agent_by(&[], board)
    }

    fn agent_by(&self, runner: &[String], board: &str) -> Running {
        let folder = PathBuf::from(self.path(board));
        let config = folder.join("played.toml").display().to_string();
        self.start(runner, "twin-agent", &["run", "--config", &config], &folder.join("agent.log"))
    }

    /// Starts a program of the fleet, by way of another that runs it somewhere.
    fn start(&self, runner: &[String], program: &str, arguments: &[&str], log: &Path) -> Running {
        let program = self.programs.join(program);
        let variables = self.play.variables();
        match runner {
            [] => Running::start_with(&program, arguments, log, &variables),
            [first, rest @ ..] => {
                let program = program.display().to_string();
                let rest: Vec<&str> = rest.iter().map(String::as_str).collect();
                Running::start_with(
                    Path::new(first),
                    &[&rest[..], &[program.as_str()], arguments].concat(),
                    log,
                    &variables,
                )
            }
        }
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
            let log = || self.log("host.log");
            assert!(Instant::now() < until, "{board} has not done {epochs} epochs:\n{}", log());
            std::thread::sleep(Duration::from_millis(300));
        }
    }
}
