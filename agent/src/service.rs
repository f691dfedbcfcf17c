//! Talks to the service manager that started the agent: ready, alive, what it is about.
//!
//! The protocol is systemd's `sd_notify`: datagrams of `KEY=value` to the socket that the environment names. Without
//! one there is nobody to tell, and nothing is told.

use std::env;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

/// Who watches over the agent.
#[derive(Debug)]
pub enum ServiceManager {
    /// Nobody.
    Absent,
    /// A service manager.
    Present {
        /// Our end.
        socket: UnixDatagram,
        /// Its end.
        address: SocketAddr,
        /// How often it wants a sign of life, if at all.
        watchdog: Option<Duration>,
    },
}

impl ServiceManager {
    /// The one that the environment names.
    ///
    /// # Errors
    /// It names one that cannot be reached.
    pub fn from_environment() -> io::Result<Self> {
        let Ok(name) = env::var("NOTIFY_SOCKET") else { return Ok(Self::Absent) };
        let watchdog = env::var("WATCHDOG_USEC").ok();
        Self::at(&name, watchdog.as_deref())
    }

    fn at(name: &str, watchdog_microseconds: Option<&str>) -> io::Result<Self> {
        let address = match name.strip_prefix('@') {
            Some(abstract_name) => SocketAddr::from_abstract_name(abstract_name)?,
            None => SocketAddr::from_pathname(name)?,
        };
        let socket = UnixDatagram::unbound()?;
        // A manager that does not read must not stop the event loop.
        socket.set_nonblocking(true)?;
        let watchdog = watchdog_microseconds.and_then(|text| text.parse().ok()).map(Duration::from_micros);
        Ok(Self::Present { socket, address, watchdog })
    }

    /// How often to call [`Self::alive`]: twice in the time that the manager allows. `None` if it does not watch.
    #[must_use]
    pub fn sign_of_life_every(&self) -> Option<Duration> {
        match self {
            Self::Absent => None,
            Self::Present { watchdog, .. } => watchdog.map(|allowed| allowed / 2),
        }
    }

    /// The agent is at work.
    pub fn ready(&self) {
        self.tell("READY=1");
    }

    /// The event loop still turns; to be called from the loop itself, and from nowhere else.
    pub fn alive(&self) {
        self.tell("WATCHDOG=1");
    }

    /// The agent is about to end.
    pub fn stopping(&self) {
        self.tell("STOPPING=1");
    }

    /// One line for `systemctl status`. It begins with `connected` while the agent is connected to its host: an
    /// upgrade is undone that has not come so far in time.
    pub fn status(&self, line: &str) {
        self.tell(&format!("STATUS={}", line.replace('\n', " ")));
    }

    fn tell(&self, message: &str) {
        match self {
            Self::Absent => {}
            Self::Present { socket, address, .. } => {
                if let Err(error) = socket.send_to_addr(message.as_bytes(), address) {
                    tracing::debug!(%error, "the service manager does not listen");
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn received(manager: &UnixDatagram) -> String {
        let mut buffer = [0; 128];
        let length = manager.recv(&mut buffer).expect("told");
        String::from_utf8_lossy(&buffer[..length]).into_owned()
    }

    #[test]
    fn the_manager_is_told() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("notify");
        let manager = UnixDatagram::bind(&path).expect("bound");
        let service = ServiceManager::at(path.to_str().expect("text"), Some("60000000")).expect("reachable");
        assert_eq!(service.sign_of_life_every(), Some(Duration::from_secs(30)));
        service.ready();
        service.alive();
        service.status("connected to\nhost");
        service.stopping();
        let told: Vec<String> = (0..4).map(|_| received(&manager)).collect();
        assert_eq!(told, ["READY=1", "WATCHDOG=1", "STATUS=connected to host", "STOPPING=1"]);
    }

    #[test]
    fn an_abstract_name_serves_and_silence_does_no_harm() {
        let name = format!("twin-agent-test-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).expect("a name");
        let manager = UnixDatagram::bind_addr(&address).expect("bound");
        let service = ServiceManager::at(&format!("@{name}"), None).expect("reachable");
        assert_eq!(service.sign_of_life_every(), None);
        service.ready();
        assert_eq!(received(&manager), "READY=1");
        drop(manager);
        service.alive();
        ServiceManager::Absent.ready();
    }
}
