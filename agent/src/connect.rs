//! `connect --test`: everything between this board and its host, one thing after another, as the running agent uses it.
//!
//! The board visits its host under its own name, without offering to train or a dataset, and says goodbye again. What
//! it must not be able to do is tried too.

mod throughput;
mod visit;

use std::fmt;
use std::fs;
use std::time::{Duration, Instant};

use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;
use twin_shared::units::BitsPerSecond;

use crate::clock::{self, Clock};
use crate::config::{Broker, Config, Security};
use crate::identity::{self, Births};
use crate::keys::{self, Keys, KeysError};
use crate::lock;
use crate::mailbox::Mailbox;
use crate::transport::{Dialer, Trespass, TrespassAnswer};
use throughput::Throughput;
use visit::Visit;

/// A broker that does not take a TCP connection within this time is not there.
const REACHED_WITHIN: Duration = Duration::from_secs(10);

/// Pings that the round trip is judged by.
const PINGS: usize = 20;

/// What was looked at, in this order.
const CHECKS: [&str; 7] = ["credentials", "address", "broker", "host", "round trip", "throughput", "access rules"];

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// What.
    pub name: &'static str,
    /// How it is.
    pub verdict: Verdict,
}

/// How it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It works; with what was measured.
    Works(String),
    /// It does not.
    Fails {
        /// What happened.
        what: String,
        /// What to look at.
        advice: &'static str,
    },
    /// It stands on something that does not work.
    NotTried,
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.name;
        match &self.verdict {
            Verdict::Works(what) => write!(f, "works      {name:<13} {what}"),
            Verdict::Fails { what, advice } => write!(f, "FAILS      {name:<13} {what}\n{:<24} {advice}", ""),
            Verdict::NotTried => write!(f, "not tried  {name}"),
        }
    }
}

type Finding = Result<String, (String, &'static str)>;

/// Looks at everything, as far as it comes; `told` hears of each as soon as it is known.
///
/// # Errors
/// When the data folder is another agent's now, or cannot be written.
pub async fn test(config: &Config, mut told: impl FnMut(&Check)) -> anyhow::Result<Vec<Check>> {
    let _lock = lock::take(&config.data_dir)?;
    let mut births = Births::open(config.data_dir.join("births"))?;
    let mut checks = Vec::new();
    let mut tell = |finding: Finding| {
        let verdict = match finding {
            Ok(what) => Verdict::Works(what),
            Err((what, advice)) => Verdict::Fails { what, advice },
        };
        let works = matches!(verdict, Verdict::Works(_));
        let check = Check { name: CHECKS[checks.len()], verdict };
        told(&check);
        checks.push(check);
        works
    };
    if let Some(dialer) = credentials(config, &mut tell)
        && tell(address(&config.broker).await)
    {
        visit(config, &dialer, births.take()?, &mut tell).await;
    }
    for name in CHECKS.iter().skip(checks.len()) {
        let check = Check { name, verdict: Verdict::NotTried };
        told(&check);
        checks.push(check);
    }
    Ok(checks)
}

fn load(config: &Config) -> Result<Keys, KeysError> {
    Keys::load(&config.credentials, config.broker.security, &keys::file(&config.data_dir))
}

fn credentials(config: &Config, tell: &mut impl FnMut(Finding) -> bool) -> Option<Dialer> {
    const ADVICE: &str = "copy the folder that `twin-host enroll` wrote for this board, and look at [credentials]";
    let keys = load(config).map_err(|error| error.to_string());
    let clock = Clock::open(clock::file(&config.data_dir));
    let dialer = keys.and_then(|keys| {
        Dialer::new(&config.device, &keys, &config.broker, clock.provider()).map_err(|error| error.to_string())
    });
    let what = match config.broker.security {
        Security::Mutual => "sealing key, certificate, private key and authority are readable",
        Security::Plain => "the sealing key is readable; without TLS no certificate is used",
    };
    match dialer {
        Ok(dialer) => tell(Ok(what.to_owned())).then_some(dialer),
        Err(error) => {
            tell(Err((error, ADVICE)));
            None
        }
    }
}

async fn address(broker: &Broker) -> Finding {
    let place = format!("{}:{}", broker.host, broker.port);
    let began = Instant::now();
    let reached = timeout(REACHED_WITHIN, async {
        let addresses: Vec<_> = lookup_host((broker.host.as_str(), broker.port)).await?.collect();
        TcpStream::connect(addresses.as_slice()).await
    });
    match reached.await {
        Ok(Ok(stream)) => {
            let peer = stream.peer_addr().map_or_else(|_| "unknown".to_owned(), |peer| peer.to_string());
            Ok(format!("{place} answers at {peer} within {} ms", began.elapsed().as_millis()))
        }
        Ok(Err(error)) => Err((format!("{place}: {error}"), "is the host on? [broker] host and port; its firewall")),
        Err(_) => {
            let seconds = REACHED_WITHIN.as_secs();
            Err((format!("{place}: no answer within {seconds} s"), "a firewall drops it, or the address is another's"))
        }
    }
}

async fn visit(config: &Config, dialer: &Dialer, birth: u64, tell: &mut impl FnMut(Finding) -> bool) {
    const REFUSED: &str = "is this board enrolled and not revoked? the board's date; with TLS: the host's own log";
    let Ok(keys) = load(config) else { return };
    let mailbox = Mailbox::new(config.device.clone(), keys.sealing, identity::new_boot());
    let visit = Visit::begin(dialer, mailbox, birth).await;
    let how = match config.broker.security {
        Security::Mutual => "takes this board's certificate, will and subscription",
        Security::Plain => "takes this board's password, will and subscription",
    };
    let mut visit = match visit {
        Ok(visit) => {
            tell(Ok(how.to_owned()));
            visit
        }
        Err(why) => {
            tell(Err((why, REFUSED)));
            return;
        }
    };
    let greeted = visit.greet().await;
    let served =
        tell(greeted.map_err(|why| (why, "does `twin-host serve` run, on the same data as at the enrolment?")));
    if served {
        let advice = "messages get lost on the way: look at the link, and at the broker's log";
        tell(visit.round_trip(PINGS).await.map_err(|why| (why, advice)));
        let folder = config.data_dir.join("connect-test");
        let measured = throughput::measure(&mut visit, &folder).await;
        // What was left of it is of no use to anyone.
        let _ = fs::remove_dir_all(&folder);
        let advice = "the host must be of this version or newer, and its disk writable";
        tell(measured.map(|measured| measured.to_string()).map_err(|why| (why, advice)));
    } else {
        // Access rules are the broker's: they are looked at all the same.
        tell(Err(("no host to answer".to_owned(), "as above")));
        tell(Err(("no host to answer".to_owned(), "as above")));
    }
    visit.leave().await;
    tell(access(dialer.trespass().await));
}

fn access(tried: Result<Trespass, String>) -> Finding {
    const ADVICE: &str = "the broker's access rules are not in force: `twin-host acl` writes them";
    match tried {
        Err(why) => Err((why, "the broker let the board in before: try again")),
        Ok(Trespass { hears: TrespassAnswer::Granted, .. }) => {
            Err(("this board can hear what other boards say".to_owned(), ADVICE))
        }
        Ok(Trespass { speaks: TrespassAnswer::Granted, .. }) => {
            let what = "the broker takes what this board says as another (whether it delivers it, `twin-host serve` \
                        tests at its start)";
            Err((what.to_owned(), ADVICE))
        }
        Ok(Trespass { hears: TrespassAnswer::Refused(hears), speaks: TrespassAnswer::Refused(speaks) }) => {
            Ok(format!("hearing other boards is refused ({hears}), speaking as another too ({speaks})"))
        }
    }
}

impl fmt::Display for Throughput {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rate = |rate: Option<BitsPerSecond>| {
            rate.map_or("too fast to be timed".to_owned(), |rate| format!("{:.2} Mbit/s", rate.0 / 1e6))
        };
        write!(f, "up {}, down {} ({} KiB each way)", rate(self.up), rate(self.down), self.bytes >> 10)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_broker_forbids_is_good_and_what_it_allows_is_not() {
        let refused = || TrespassAnswer::Refused("NotAuthorized".to_owned());
        assert!(access(Ok(Trespass { hears: refused(), speaks: refused() })).is_ok());
        for (hears, speaks) in [(TrespassAnswer::Granted, refused()), (refused(), TrespassAnswer::Granted)] {
            assert!(access(Ok(Trespass { hears, speaks })).is_err());
        }
    }

    #[tokio::test]
    async fn a_port_where_nobody_listens_is_told() {
        let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = free.local_addr().expect("bound").port();
        let broker = Broker { host: "127.0.0.1".to_owned(), port, security: Security::Plain };
        assert!(address(&broker).await.is_ok());
        drop(free);
        let Err((what, _)) = address(&broker).await else { panic!("nobody listens") };
        assert!(what.starts_with(&format!("127.0.0.1:{port}: ")), "{what}");
    }
}
