//! A Mosquitto of Debian's as the broker of a fleet, where it is installed.

use std::fs;
use std::net::TcpStream;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::{Fleet, Running};

/// Debian keeps it where only administrators look.
const PLACES: [&str; 3] = ["/usr/sbin/mosquitto", "/usr/local/sbin/mosquitto", "/usr/bin/mosquitto"];

/// Longer than it takes to listen on the slowest machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// Where it is installed.
#[must_use]
pub fn mosquitto() -> Option<&'static Path> {
    PLACES.into_iter().map(Path::new).find(|place| place.exists())
}

/// Where Mosquitto is installed; without it the test says that it was skipped, and returns.
#[macro_export]
macro_rules! mosquitto_or_skip {
    () => {
        match $crate::mosquitto() {
            Some(program) => program,
            None => {
                eprintln!("skipped: mosquitto is not installed (Debian: apt-get install mosquitto)");
                return;
            }
        }
    };
}

impl Fleet {
    /// Starts this Mosquitto with a configuration, which has it listen on this port of loopback.
    ///
    /// # Panics
    /// When the disk refuses, or it does not listen.
    #[must_use]
    pub fn mosquitto(&self, program: &Path, config: &str, port: u16) -> Running {
        let file = self.path("mosquitto.conf");
        // Started by root it would give up root, and with it the right to read the folder.
        fs::write(&file, format!("user root\n{config}")).expect("written");
        let broker = Running::start(program, &["-c", &file], Path::new(&self.path("mosquitto.log")));
        let until = Instant::now() + PATIENCE;
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(Instant::now() < until, "mosquitto listens: {}", self.log("mosquitto.log"));
            std::thread::sleep(Duration::from_millis(50));
        }
        broker
    }

    /// Puts this Mosquitto where the boards expect the host, and has the host go by way of it. Access rules and
    /// certificates are as `twin-host acl` writes them; queues are Mosquitto's own, but for these lines.
    ///
    /// # Panics
    /// When a program or the disk refuses.
    #[must_use]
    pub fn behind_mosquitto(&self, program: &Path, lines: &str) -> Running {
        let folder = self.path("broker");
        let port = self.port.to_string();
        let (done, said) = self.host(&["acl", "mosquitto", "--out", &folder, "--name", "127.0.0.1", "--port", &port]);
        assert!(done, "{said}");
        let config = fs::read_to_string(Path::new(&folder).join("twin.conf")).expect("it was written");
        let stock: Vec<&str> = config.lines().filter(|line| !line.starts_with("max_queued")).collect();
        let broker = self.mosquitto(program, &format!("{lines}{}\n", stock.join("\n")), self.port);
        let file = self.path("host.toml");
        let host = fs::read_to_string(&file).expect("the fleet wrote it");
        let at = format!("[broker]\nat = \"mqtts://127.0.0.1:{port}\"\n");
        assert!(host.contains("[broker]\n"), "{host}");
        fs::write(&file, host.replace("[broker]\n", &at)).expect("written");
        broker
    }
}
