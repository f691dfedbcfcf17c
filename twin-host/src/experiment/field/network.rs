//! The links of boards that this machine plays: a network namespace for the host and one for each board, a pair of
//! virtual cables between, and a token bucket at either end.

use std::net::Ipv4Addr;
use std::path::Path;
use std::process::Stdio;

use anyhow::{Context, bail};
use tokio::process::Command;
use twin_shared::id::DeviceId;
use twin_shared::units::BitsPerSecond;

/// The board's end of its cable.
pub(super) const INTERFACE: &str = "twin0";

/// The namespaces of one test; they go with it.
#[derive(Debug)]
pub(super) struct Network {
    name: String,
    boards: Vec<DeviceId>,
}

impl Network {
    /// Cables for these boards.
    pub(super) async fn new(boards: &[(DeviceId, BitsPerSecond)]) -> anyhow::Result<Self> {
        let mut network = Self { name: format!("twin-field-{}", std::process::id()), boards: Vec::new() };
        network
            .make(boards)
            .await
            .context("network namespaces are not to be had here: this needs root, `ip` and `tc` (Debian: iproute2)")?;
        Ok(network)
    }

    async fn make(&mut self, boards: &[(DeviceId, BitsPerSecond)]) -> anyhow::Result<()> {
        let host = self.host();
        run("ip", &["netns", "add", &host]).await?;
        run("ip", &["-n", &host, "link", "set", "lo", "up"]).await?;
        for (k, (board, rate)) in boards.iter().enumerate() {
            self.boards.push(board.clone());
            let (space, cable) = (self.space(k), format!("twin{k}"));
            run("ip", &["netns", "add", &space]).await?;
            let peer = ["type", "veth", "peer", "name", INTERFACE, "netns", &space];
            run("ip", &[&["-n", &host, "link", "add", &cable][..], &peer].concat()).await?;
            let ends = [(&host, cable.as_str(), Self::host_address(k)), (&space, INTERFACE, board_address(k))];
            for (space, interface, address) in ends {
                run("ip", &["-n", space, "addr", "add", &format!("{address}/30"), "dev", interface]).await?;
                run("ip", &["-n", space, "link", "set", interface, "up"]).await?;
            }
            run("ip", &["-n", &space, "link", "set", "lo", "up"]).await?;
            self.set_rate(board, *rate).await?;
        }
        Ok(())
    }

    /// Where the board of this number finds the host.
    pub(super) fn host_address(k: usize) -> Ipv4Addr {
        Ipv4Addr::new(10, 213, third(k), 1)
    }

    /// What the board's link carries from now on, either way.
    pub(super) async fn set_rate(&self, board: &DeviceId, rate: BitsPerSecond) -> anyhow::Result<()> {
        let k = self.number(board)?;
        // The bucket must hold what a tick of a slow kernel clock lets by, and not much more.
        let bytes = (rate.0 / 8.0 / 100.0).max(8192.0);
        let (rate, burst) = (format!("{:.0}bit", rate.0), format!("{bytes:.0}"));
        for (space, interface) in [(self.host(), format!("twin{k}")), (self.space(k), INTERFACE.to_owned())] {
            let place = ["-n", &space, "qdisc", "replace", "dev", &interface, "root"];
            run("tc", &[&place[..], &["tbf", "rate", &rate, "burst", &burst, "latency", "400ms"]].concat()).await?;
        }
        Ok(())
    }

    /// Pulls the board's cable, or puts it back.
    pub(super) async fn set_joined(&self, board: &DeviceId, joined: bool) -> anyhow::Result<()> {
        let space = self.space(self.number(board)?);
        run("ip", &["-n", &space, "link", "set", INTERFACE, if joined { "up" } else { "down" }]).await
    }

    /// What runs a program on the host's side.
    pub(super) fn at_host(&self) -> Vec<String> {
        at(self.host())
    }

    /// What runs a program on a board's side.
    pub(super) fn at_board(&self, board: &DeviceId) -> anyhow::Result<Vec<String>> {
        Ok(at(self.space(self.number(board)?)))
    }

    fn number(&self, board: &DeviceId) -> anyhow::Result<usize> {
        self.boards.iter().position(|known| known == board).with_context(|| format!("{board} has no cable"))
    }

    fn host(&self) -> String {
        format!("{}-host", self.name)
    }

    fn space(&self, k: usize) -> String {
        format!("{}-{k}", self.name)
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        let spaces = (0..self.boards.len()).map(|k| self.space(k)).chain([self.host()]);
        for space in spaces.filter(|space| Path::new("/run/netns").join(space).exists()) {
            // The kernel ends the cables with the namespace; what cannot be removed is seen by `ip netns`.
            let _ = std::process::Command::new("ip").args(["netns", "del", &space]).status();
        }
    }
}

fn at(space: String) -> Vec<String> {
    vec!["ip".into(), "netns".into(), "exec".into(), space]
}

fn board_address(k: usize) -> Ipv4Addr {
    Ipv4Addr::new(10, 213, third(k), 2)
}

/// A plan has at most 250 boards.
fn third(k: usize) -> u8 {
    u8::try_from(k + 1).unwrap_or(u8::MAX)
}

/// Runs a command to its end.
pub(super) async fn run(program: &str, arguments: &[&str]) -> anyhow::Result<()> {
    let said = || format!("{program} {}", arguments.join(" "));
    let done = Command::new(program).args(arguments).stdin(Stdio::null()).output().await.with_context(said)?;
    if done.status.success() {
        return Ok(());
    }
    let errors = String::from_utf8_lossy(&done.stderr);
    bail!("{}: {}", said(), errors.lines().next().map_or_else(|| done.status.to_string(), str::to_owned))
}
