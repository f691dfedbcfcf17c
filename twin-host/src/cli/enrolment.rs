//! `enroll`, `revoke`, `renew`, `authority` and `acl`: who may connect, and by which keys.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use clap::{Args, Subcommand, ValueEnum};
use serde_json::json;
use twin_shared::id::DeviceId;

use super::devices::{DataArguments, DeviceArguments, failed};
use super::{Failure, Format, device_list, print};
use crate::broker::acl::Product;
use crate::config::{BrokerChoice, Config};
use crate::enroll::{self, Authority, Reach};
use crate::store::Store;

/// Arguments of `enroll`.
#[derive(Debug, Args)]
pub(crate) struct EnrollArguments {
    /// The device's name: a-z, 0-9 and, inside, '-'
    #[arg(required_unless_present = "list")]
    device: Option<DeviceId>,
    /// The folder to write; with --list a new one, with a folder in it for each device
    #[arg(long)]
    out: PathBuf,
    /// Give a device that is enrolled new keys and a new certificate: its own ran out while it was away. The old ones
    /// are taken until the new ones are used
    #[arg(long)]
    renew: bool,
    /// Enrol every device of a CSV file with a column `device`, all or none. Where a column `board` says where
    /// scripts/deploy reaches each, an inventory for it is written too
    #[arg(long, value_name = "FILE", conflicts_with_all = ["device", "renew"])]
    list: Option<PathBuf>,
    #[command(flatten)]
    reach: ReachArguments,
    #[command(flatten)]
    data: DataArguments,
}

/// How boards are told to reach the broker.
#[derive(Debug, Args)]
pub(crate) struct ReachArguments {
    /// Name or address by which boards reach the broker; the first of broker.names that is not this machine's own, or
    /// the external broker's
    #[arg(long)]
    host: Option<String>,
    /// The broker's port, instead of the configuration's
    #[arg(long)]
    port: Option<u16>,
    /// No TLS: for boards on the host's own machine, by the listener broker.plain
    #[arg(long)]
    plain: bool,
}

impl ReachArguments {
    /// What boards are told, with the configuration for what is left out.
    pub(crate) fn resolve(&self, config: &Config) -> Result<Reach, Failure> {
        let (host, port, broker_authority) = match &config.broker {
            BrokerChoice::External { address, authority } => {
                if self.plain {
                    return Err(Failure::Usage(format!("--plain: {address} takes certificates only")));
                }
                (Some(address.host().to_owned()), Some(address.port()), authority.clone())
            }
            BrokerChoice::Embedded if self.plain => (None, config.plain.map(|address| address.port()), None),
            BrokerChoice::Embedded => {
                let elsewhere = config.names.iter().find(|name| !is_this_machine(name));
                (elsewhere.cloned(), config.tls.as_ref().map(SocketAddr::port), None)
            }
        };
        let missing = || {
            let key = if self.plain { "broker.plain" } else { "broker.tls" };
            Failure::Usage(format!("{key} of the configuration names no listener: set it, or give --port"))
        };
        Ok(Reach {
            host: self.host.clone().or(host).unwrap_or_else(|| "127.0.0.1".to_owned()),
            port: self.port.or(port).ok_or_else(missing)?,
            tls: !self.plain,
            broker_authority,
        })
    }
}

fn is_this_machine(name: &str) -> bool {
    name == "localhost" || name.parse().is_ok_and(|address: IpAddr| address.is_loopback())
}

/// `authority …`.
#[derive(Debug, Subcommand)]
pub(crate) enum AuthorityCommand {
    /// Show which authorities are trusted, and which boards still depend on which
    Show(ShowArguments),
    /// Begin to sign with a new authority. Boards change over by themselves; the former one stays trusted until `retire`
    Rotate(DataArguments),
    /// Trust the present authority alone: what the former ones signed is worth nothing afterwards
    Retire(RetireArguments),
}

/// Arguments of `authority show`.
#[derive(Debug, Args)]
pub(crate) struct ShowArguments {
    /// How to print
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
    #[command(flatten)]
    data: DataArguments,
}

/// Arguments of `authority retire`.
#[derive(Debug, Args)]
pub(crate) struct RetireArguments {
    /// Even where boards still depend on a former authority; each then needs `enroll --renew`
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    data: DataArguments,
}

/// Arguments of `renew`.
#[derive(Debug, Args)]
pub(crate) struct RenewArguments {
    /// The device's name; with --all, none
    #[arg(required_unless_present = "all", conflicts_with = "all")]
    device: Option<DeviceId>,
    /// Every device
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    data: DataArguments,
}

/// Brokers for which there are rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum ProductName {
    /// Eclipse Mosquitto 2
    Mosquitto,
    /// EMQX 5
    Emqx,
    /// HiveMQ with its file RBAC extension
    Hivemq,
}

impl From<ProductName> for Product {
    fn from(name: ProductName) -> Self {
        match name {
            ProductName::Mosquitto => Self::Mosquitto,
            ProductName::Emqx => Self::Emqx,
            ProductName::Hivemq => Self::HiveMq,
        }
    }
}

/// Arguments of `acl`.
#[derive(Debug, Args)]
pub(crate) struct AclArguments {
    /// The broker
    product: ProductName,
    /// Write a folder with all that the broker needs instead: rules, certificate, key, authority, and for Mosquitto its
    /// configuration
    #[arg(long, requires = "name")]
    out: Option<PathBuf>,
    /// Name or address by which the broker is reached, for its certificate; may be given again
    #[arg(long, requires = "out")]
    name: Vec<String>,
    /// The port on which Mosquitto is to listen
    #[arg(long, default_value_t = 8883)]
    port: u16,
    /// Where the folder will lie on the broker's machine, if not where it is written
    #[arg(long, requires = "out")]
    installed_at: Option<PathBuf>,
    #[command(flatten)]
    data: DataArguments,
}

pub(super) fn refused(error: impl Into<anyhow::Error>) -> Failure {
    Failure::Failed(error.into())
}

/// Enrols a device or a list of them, or gives one new keys.
pub(crate) fn enroll(arguments: &EnrollArguments) -> Result<(), Failure> {
    let config = arguments.data.config()?;
    let store = Store::open(&config.data_dir).map_err(failed)?;
    let reach = arguments.reach.resolve(&config)?;
    let (out, now) = (&arguments.out, SystemTime::now());
    let done = match (&arguments.list, &arguments.device) {
        (Some(list), _) => {
            let devices = device_list::read(list).map_err(Failure::Usage)?;
            let names: Vec<DeviceId> = devices.iter().map(|listed| listed.device.clone()).collect();
            enroll::enroll_all(&store, &names, out, &reach, now).map_err(refused)?;
            let inventory = device_list::inventory(&devices);
            if let Some(text) = &inventory {
                enroll::write_private_folder(out, &[(device_list::INVENTORY, text.as_bytes())]).map_err(refused)?;
            }
            let deploy = match inventory {
                Some(_) => {
                    format!("scripts/deploy --inventory {} does that", out.join(device_list::INVENTORY).display())
                }
                None => "scripts/deploy does that".into(),
            };
            let count = names.len();
            format!(
                "{count} devices are enrolled: copy each folder in {} to its board ({deploy}). They connect",
                out.display()
            )
        }
        (None, Some(device)) if arguments.renew => {
            enroll::reissue(&store, device, out, &reach, now).map_err(refused)?;
            format!("{device} has new keys: copy {} to the board. It connects", out.display())
        }
        (None, Some(device)) => {
            enroll::enroll(&store, device, out, &reach, now).map_err(refused)?;
            format!("{device} is enrolled: copy {} to the board. It connects", out.display())
        }
        (None, None) => return Err(Failure::Usage("which device? Give its name, or --list FILE".into())),
    };
    print(&format!("{done} to {}\n", there(&reach)))
}

/// Where boards are told to connect, and what to do if that is no use to them.
pub(super) fn there(reach: &Reach) -> String {
    let near = if is_this_machine(&reach.host) { ", this machine; --host NAME for a board elsewhere" } else { "" };
    format!("{}:{}{near}", reach.host, reach.port)
}

/// Locks a device out.
pub(crate) fn revoke(arguments: &DeviceArguments) -> Result<(), Failure> {
    arguments.data.store()?.revoke(&arguments.device).map_err(failed)?;
    print(&format!("{} is locked out; a host that serves cuts its connection within five seconds\n", arguments.device))
}

/// Asks boards to renew certificate and sealing key.
pub(crate) fn renew(arguments: &RenewArguments) -> Result<(), Failure> {
    let asked = arguments.data.store()?.ask_renewal(arguments.device.as_ref()).map_err(failed)?;
    let boards = if asked == 1 { "board renews its" } else { "boards renew their" };
    print(&format!("{asked} {boards} keys as soon as connected to a host that serves\n"))
}

/// Boards, and the authority that signed each one's certificate, if it is no longer or not yet the present one.
fn dependants(store: &Store, authority: &Authority) -> Result<Vec<DeviceId>, Failure> {
    let devices = store.devices().map_err(failed)?.into_iter().filter(|record| !record.revoked);
    let depends = devices.filter(|record| {
        record.certificate.is_some_and(|certificate| certificate.authority != authority.fingerprint())
    });
    Ok(depends.map(|record| record.device).collect())
}

fn listed(devices: &[DeviceId]) -> String {
    let names: Vec<&str> = devices.iter().map(DeviceId::as_str).collect();
    names.join(", ")
}

/// Shows, rotates or retires authorities.
pub(crate) fn authority(command: &AuthorityCommand) -> Result<(), Failure> {
    match command {
        AuthorityCommand::Show(arguments) => {
            let store = arguments.data.store()?;
            let found = Authority::open(&store.authority_directory()).map_err(refused)?;
            let Some(found) = found else {
                return Err(Failure::Failed(anyhow::anyhow!(
                    "no authority yet: the first `twin-host enroll` makes it"
                )));
            };
            let waiting = dependants(&store, &found)?;
            match arguments.format {
                Format::Json => {
                    let names: Vec<&str> = waiting.iter().map(DeviceId::as_str).collect();
                    let authority = json!({
                        "number": found.number(),
                        "fingerprint": found.fingerprint().to_string(),
                        "trusted": found.count(),
                        "waiting": names,
                    });
                    print(&format!("{authority}\n"))
                }
                Format::Table => {
                    let (number, trusted) = (found.number(), found.count());
                    let waits = if waiting.is_empty() { "none".to_owned() } else { listed(&waiting) };
                    print(&format!(
                        "authority {number} ({}) signs; {trusted} trusted; boards with a certificate of another: {waits}\n",
                        found.fingerprint()
                    ))
                }
            }
        }
        AuthorityCommand::Rotate(data) => {
            let store = data.store()?;
            let begun = Authority::rotate(&store.authority_directory(), SystemTime::now()).map_err(refused)?;
            store.authority_changed().map_err(failed)?;
            let waiting = dependants(&store, &begun)?.len();
            print(&format!(
                "authority {} signs from now on; {waiting} boards change over when connected. When `twin-host authority \
                 show` names none, retire the former one\n",
                begun.number()
            ))
        }
        AuthorityCommand::Retire(arguments) => {
            let store = arguments.data.store()?;
            let directory = store.authority_directory();
            if let Some(found) = Authority::open(&directory).map_err(refused)? {
                let waiting = dependants(&store, &found)?;
                if !waiting.is_empty() && !arguments.force {
                    let who = listed(&waiting);
                    return Err(Failure::Failed(anyhow::anyhow!(
                        "{who} would be locked out: wait until they have changed over, or say --force and give each a new \
                         folder with `twin-host enroll --renew`"
                    )));
                }
            }
            let left = Authority::retire(&directory).map_err(refused)?;
            store.authority_changed().map_err(failed)?;
            print(&format!("authority {} alone is trusted from now on\n", left.number()))
        }
    }
}

/// Prints access rules for an external broker, or writes all that it needs.
pub(crate) fn acl(arguments: &AclArguments) -> Result<(), Failure> {
    let product = Product::from(arguments.product);
    let Some(out) = &arguments.out else { return print(&product.rules()) };
    let store = arguments.data.store()?;
    let now = SystemTime::now();
    let authority = enroll::authority_of(&store, now).map_err(refused)?;
    let own = authority.certify_broker(&arguments.name, now).map_err(refused)?;
    let folder = match &arguments.installed_at {
        Some(folder) => folder.clone(),
        None => std::path::absolute(out).map_err(refused)?,
    };
    let files = product.files(&folder.display().to_string(), arguments.port, &own, &authority.trusted());
    let files: Vec<_> = files.iter().map(|(name, content)| (*name, content.as_bytes())).collect();
    enroll::write_private_folder(Path::new(out), &files).map_err(refused)?;
    print(&format!(
        "{} is written: let the broker's user alone read it. Then serve with --broker mqtts://{}:{}\n",
        out.display(),
        arguments.name.first().map_or("HOST", String::as_str),
        arguments.port
    ))
}
