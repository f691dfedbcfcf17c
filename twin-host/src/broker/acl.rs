//! Access rules for external brokers, generated from the same list of channels that everything else uses.

use super::embedded::Limits;
use super::{HOST, filter, longest_payload};
use crate::enroll::Certified;
use std::fmt::Write as _;
use std::str::FromStr;
use twin_shared::wire::{Channel, Direction};
use zeroize::Zeroizing;

/// Brokers for which rules can be generated. Those for Mosquitto are tested against it; those for EMQX and HiveMQ
/// follow their documentation, and the host's own check at its start has the last word on all three.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Product {
    /// Eclipse Mosquitto 2.
    Mosquitto,
    /// EMQX 5.
    Emqx,
    /// HiveMQ with its file RBAC extension.
    HiveMq,
}

/// No such product.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no access rules for `{0}`: choose mosquitto, emqx or hivemq")]
pub struct UnknownProduct(String);

impl FromStr for Product {
    type Err = UnknownProduct;

    fn from_str(text: &str) -> Result<Self, UnknownProduct> {
        match text {
            "mosquitto" => Ok(Self::Mosquitto),
            "emqx" => Ok(Self::Emqx),
            "hivemq" => Ok(Self::HiveMq),
            _ => Err(UnknownProduct(text.to_owned())),
        }
    }
}

impl Product {
    /// All that the broker needs, by file name: the rules, its configuration where that is a file of its own, and the
    /// certificates. The files will lie in `folder`, and Mosquitto will listen on `port`.
    #[must_use]
    pub fn files(
        self,
        folder: &str,
        port: u16,
        own: &Certified,
        trusted: &str,
    ) -> Vec<(&'static str, Zeroizing<String>)> {
        let rules = match self {
            Self::Mosquitto => "twin.acl",
            Self::Emqx => "acl.conf",
            Self::HiveMq => "credentials.xml",
        };
        let mut files = vec![
            (rules, Zeroizing::new(self.rules())),
            ("ca.pem", Zeroizing::new(trusted.to_owned())),
            ("broker.pem", Zeroizing::new(own.certificate.clone())),
            ("broker.key", own.key.clone()),
        ];
        if self == Self::Mosquitto {
            files.push(("twin.conf", Zeroizing::new(mosquitto_configuration(folder, port))));
        }
        files
    }

    /// The file of rules, with what else the broker must be told in its comments.
    #[must_use]
    pub fn rules(self) -> String {
        match self {
            Self::Mosquitto => mosquitto(),
            Self::Emqx => emqx(),
            Self::HiveMq => hivemq(),
        }
    }
}

/// What a device may publish to, with `segment` for its name. Each channel by itself, so that a device can leave no
/// more retained messages than there are channels.
fn up(segment: &str) -> impl Iterator<Item = String> {
    let ups = Channel::ALL.into_iter().filter(|channel| channel.direction() == Direction::Up);
    ups.map(move |channel| filter::with_segment(segment, channel))
}

/// What a device may subscribe to.
fn down(segment: &str) -> String {
    filter::subtree(&filter::with_segment(segment, Channel::DnState))
}

/// All topics of all devices.
fn everything() -> String {
    let state = filter::with_segment("+", Channel::UpState);
    let (root, _) = state.split_once('+').unwrap_or_default();
    format!("{root}#")
}

/// Where the files of [`Product::files`] lie at the broker, unless it is said otherwise.
const MOSQUITTO_FOLDER: &str = "/etc/mosquitto/twin";

/// Mosquitto's configuration, for files in this folder. What is said after `listener` is about that listener.
fn mosquitto_configuration(folder: &str, port: u16) -> String {
    let limits = Limits::default();
    format!(
        "acl_file {folder}/twin.acl
allow_anonymous false
persistent_client_expiration 1d
max_packet_size {packet}
max_queued_messages {messages}
max_queued_bytes {bytes}
max_keepalive 60
listener {port}
cafile {folder}/ca.pem
certfile {folder}/broker.pem
keyfile {folder}/broker.key
require_certificate true
use_identity_as_username true
# Without this one device could take another's session by connecting under its client id.
use_username_as_clientid true
",
        packet = longest_payload() + 2048,
        messages = limits.queue_messages,
        bytes = limits.queue_bytes,
    )
}

fn mosquitto() -> String {
    let mut rules =
        format!("# Access rules for Mosquitto 2: save as {MOSQUITTO_FOLDER}/twin.acl and configure it so:\n#\n");
    for line in mosquitto_configuration(MOSQUITTO_FOLDER, 8883).lines() {
        // Writing to a String cannot fail.
        let _ = writeln!(rules, "#   {line}");
    }
    let _ = write!(rules, "\nuser {HOST}\ntopic readwrite {}\n\n", everything());
    for topic in up("%u") {
        let _ = writeln!(rules, "pattern write {topic}");
    }
    let _ = writeln!(rules, "pattern read {}", down("%u"));
    rules
}

fn emqx() -> String {
    let topics: Vec<_> = up("${username}").map(|topic| format!("\"{topic}\"")).collect();
    format!(
        "%% Access rules for EMQX 5: save as etc/acl.conf. In emqx.conf:
%%
%%   authorization {{ no_match = deny, deny_action = ignore, sources = [{{ type = file, path = \"etc/acl.conf\" }}] }}
%%   mqtt {{ peer_cert_as_username = cn, peer_cert_as_clientid = cn, shared_subscription = false, max_qos_allowed = 1 }}
%%   mqtt {{ max_packet_size = {packet}B, max_mqueue_len = {messages} }}
%%   listeners.ssl.default.ssl_options {{ verify = verify_peer, fail_if_no_peer_cert = true }}

{{allow, {{username, \"{HOST}\"}}, all, [\"{all}\"]}}.
{{allow, all, publish, [{topics}]}}.
{{allow, all, subscribe, [\"{down}\"]}}.
{{deny, all}}.
",
        packet = longest_payload() + 2048,
        messages = Limits::default().queue_messages,
        all = everything(),
        topics = topics.join(", "),
        down = down("${username}"),
    )
}

fn hivemq() -> String {
    let mut permissions = String::new();
    for topic in up("${{username}}") {
        // Writing to a String cannot fail.
        let _ = writeln!(
            permissions,
            "        <permission><topic>{topic}</topic><activity>PUBLISH</activity><qos>ZERO_ONE</qos></permission>"
        );
    }
    format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>
<!-- Access rules for HiveMQ with its file RBAC extension: save as conf/credentials.xml of the extension and add a
     user with the role `device` for each board. In config.xml allow shared subscriptions to nobody, and take client
     ids from certificates: two boards must not be able to use one client id. -->
<file-rbac>
  <users>
    <user><name>{HOST}</name><password>CHOOSE ONE</password><roles><id>host</id></roles></user>
  </users>
  <roles>
    <role>
      <id>host</id>
      <permissions>
        <permission><topic>{all}</topic><activity>ALL</activity></permission>
      </permissions>
    </role>
    <role>
      <id>device</id>
      <permissions>
{permissions}        <permission><topic>{down}</topic><activity>SUBSCRIBE</activity><shared-subscription>NOT_SHARED</shared-subscription></permission>
      </permissions>
    </role>
  </roles>
</file-rbac>
",
        all = everything(),
        down = down("${{username}}"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_product_names_every_channel_upwards_and_no_wildcard_there() {
        for (product, name) in [("mosquitto", "%u"), ("emqx", "${username}"), ("hivemq", "${{username}}")] {
            let rules = product.parse::<Product>().unwrap().rules();
            for channel in Channel::ALL.into_iter().filter(|channel| channel.direction() == Direction::Up) {
                assert!(rules.contains(&filter::with_segment(name, channel)), "{product}: {channel:?}");
            }
            assert!(rules.contains(&format!("twin/v1/{name}/dn/#")), "{product}");
            assert!(!rules.contains("up/#") && rules.contains(HOST), "{product}");
        }
        assert_eq!("rabbitmq".parse::<Product>(), Err(UnknownProduct("rabbitmq".to_owned())));
    }

    #[test]
    fn mosquittos_rules_are_these() {
        let rules = Product::Mosquitto.rules();
        let active: Vec<_> = rules.lines().filter(|line| !line.starts_with('#') && !line.is_empty()).collect();
        assert_eq!(
            active,
            [
                "user twin-host",
                "topic readwrite twin/v1/#",
                "pattern write twin/v1/%u/up/state",
                "pattern write twin/v1/%u/up/reported",
                "pattern write twin/v1/%u/up/telemetry",
                "pattern write twin/v1/%u/up/ping",
                "pattern write twin/v1/%u/up/command",
                "pattern write twin/v1/%u/up/blob",
                "pattern write twin/v1/%u/up/ack",
                "pattern write twin/v1/%u/up/log",
                "pattern write twin/v1/%u/up/renewal",
                "pattern read twin/v1/%u/dn/#",
            ]
        );
    }
}
