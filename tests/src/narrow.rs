//! A narrow link between two network namespaces of the test's own, where this machine allows it.

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

/// Two namespaces, a pair of virtual cables, and a token bucket at either end.
#[derive(Debug)]
pub struct NarrowLink {
    name: String,
}

/// Networks made by this process.
static MADE: AtomicU32 = AtomicU32::new(0);

impl NarrowLink {
    /// The host's address on the link.
    pub const HOST: &'static str = "10.213.7.1";
    const BOARD: &'static str = "10.213.7.2";

    /// A link of so many bits a second, both ways. `None` where namespaces or the token bucket are not to be had.
    #[must_use]
    pub fn new(rate: usize) -> Option<Self> {
        let name = format!("twin{}-{}", std::process::id(), MADE.fetch_add(1, Ordering::Relaxed));
        let link = Self { name };
        let (host, board) = (link.host(), link.board());
        // A bucket of 8 KiB lets nothing by that a queue of 100 ms would not.
        let bucket = ["rate", &format!("{rate}bit"), "burst", "8kb", "latency", "400ms"].map(str::to_owned);
        let bucket: Vec<&str> = bucket.iter().map(String::as_str).collect();
        let made = ip(&["netns", "add", &host])
            && ip(&["netns", "add", &board])
            && ip(&["-n", &host, "link", "add", "twin0", "type", "veth", "peer", "name", "twin0", "netns", &board])
            && [(&host, Self::HOST), (&board, Self::BOARD)].iter().all(|(space, address)| {
                ip(&["-n", space, "addr", "add", &format!("{address}/30"), "dev", "twin0"])
                    && ip(&["-n", space, "link", "set", "twin0", "up"])
                    && ip(&["-n", space, "link", "set", "lo", "up"])
                    && run("tc", &[&["-n", space, "qdisc", "add", "dev", "twin0", "root", "tbf"], &bucket[..]].concat())
            });
        made.then_some(link)
    }

    /// What runs a program on the host's side.
    #[must_use]
    pub fn at_host(&self) -> [String; 4] {
        ["ip".into(), "netns".into(), "exec".into(), self.host()]
    }

    /// What runs a program on the board's side.
    #[must_use]
    pub fn at_board(&self) -> [String; 4] {
        ["ip".into(), "netns".into(), "exec".into(), self.board()]
    }

    /// Bytes that have crossed the link, both ways, with every header down to Ethernet's.
    #[must_use]
    pub fn crossed(&self) -> Option<u64> {
        let count = |name: &str| -> Option<u64> {
            let file = format!("/sys/class/net/twin0/statistics/{name}");
            let read = Command::new("ip").args(["netns", "exec", &self.board(), "cat", &file]).output().ok()?;
            String::from_utf8(read.stdout).ok()?.trim().parse().ok()
        };
        Some(count("rx_bytes")? + count("tx_bytes")?)
    }

    fn host(&self) -> String {
        format!("{}-host", self.name)
    }

    fn board(&self) -> String {
        format!("{}-board", self.name)
    }
}

impl Drop for NarrowLink {
    fn drop(&mut self) {
        for space in [self.host(), self.board()] {
            if Path::new("/run/netns").join(&space).exists() {
                ip(&["netns", "del", &space]);
            }
        }
    }
}

fn ip(arguments: &[&str]) -> bool {
    run("ip", arguments)
}

fn run(program: &str, arguments: &[&str]) -> bool {
    let done = Command::new(program).args(arguments).stdout(Stdio::null()).stderr(Stdio::null()).status();
    done.is_ok_and(|status| status.success())
}
