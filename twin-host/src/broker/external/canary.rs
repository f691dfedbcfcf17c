//! Before the host serves over a broker that it does not control, two throw-away identities try to reach each other
//! there. What is delivered counts, not what is acknowledged: a broker may acknowledge and drop, or grant a filter
//! and deliver nothing on it.

use super::login::{Proof, Reach};
use super::probe::{Probe, ProbeError, Words};
use crate::broker::{HOST, filter};
use bytes::Bytes;
use rumqttc::v5::mqttbytes::QoS;
use twin_shared::id::DeviceId;
use twin_shared::wire::{Channel, Topic};

const FIRST_FENCE: Bytes = Bytes::from_static(b"the first fence");
const PRIVATE: Bytes = Bytes::from_static(b"a private word");
const SECOND_FENCE: Bytes = Bytes::from_static(b"the second fence");

/// Two devices that exist for this check alone, admitted by the broker like any board.
#[derive(Debug, Clone)]
pub struct CanaryPair {
    /// The one that is attacked.
    pub victim: (DeviceId, Proof),
    /// The one that attacks.
    pub intruder: (DeviceId, Proof),
}

/// What got through.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leak {
    /// Who heard what was not for it.
    pub heard_by: String,
    /// On which topic.
    pub topic: String,
    /// What the message says of its way.
    pub way: String,
}

/// Why the broker is not to be trusted, or was not examined.
#[derive(Debug, thiserror::Error)]
pub enum CanaryError {
    /// One identity reached the other.
    #[error("the broker does not keep devices apart: {}. Give it the rules of `twin-host acl`", list(.0))]
    Leaks(Vec<Leak>),
    /// One identity can push the other out by taking its client id.
    #[error(
        "the broker lets `{intruder}` connect under the client id of `{victim}`: have it take the client id from \
         the user name (`twin-host acl` says how)"
    )]
    ClientIdTakeover {
        /// Who connected.
        intruder: DeviceId,
        /// Under whose name.
        victim: DeviceId,
    },
    /// Not examined.
    #[error("the broker could not be examined: {0}")]
    Probe(#[from] ProbeError),
}

fn list(leaks: &[Leak]) -> String {
    let lines: Vec<_> =
        leaks.iter().map(|leak| format!("`{}` heard `{}` on {}", leak.heard_by, leak.way, leak.topic)).collect();
    lines.join("; ")
}

/// Attacks of the intruder's on the victim, over this broker; Ok if none reaches it.
///
/// `host` proves that the caller is the twin host, which must not be connected at the same time.
///
/// # Errors
/// [`CanaryError`]: in every case the host must not serve over this broker.
pub async fn examine(reach: &Reach, host: &Proof, pair: &CanaryPair) -> Result<(), CanaryError> {
    let (victim, intruder) = (&pair.victim.0, &pair.intruder.0);
    let mut host = Probe::connect(reach, HOST, HOST, host, None).await?;
    host.subscribe(&filter::subtree(&filter::with_segment("+", Channel::UpState))).await?;
    let mut watcher = Probe::connect(reach, victim.as_str(), victim.as_str(), &pair.victim.1, None).await?;
    watcher.subscribe(&filter::all_down(victim)).await?;

    let mut attacker = attack_by_will(reach, pair).await?;
    for filter in eavesdropping_filters(victim) {
        attacker.subscribe(&filter).await?;
    }
    for qos in [QoS::AtMostOnce, QoS::AtLeastOnce] {
        for retain in [false, true] {
            for channel in [Channel::DnState, Channel::DnCommand, Channel::UpState, Channel::UpCommand] {
                let topic = Topic { device: victim.clone(), channel }.to_string();
                let payload = Bytes::from(format!("a publication at {qos:?}, retain {retain}"));
                attacker.say(&Words { topic: &topic, payload: &payload, qos, retain }).await?;
            }
        }
    }
    // Private words in both directions, for the eavesdropper, between two fences: once the second has passed from
    // each device to the host and back, all that was said before has arrived or never will.
    exchange(&mut attacker, &mut host, intruder, &FIRST_FENCE).await?;
    exchange(&mut watcher, &mut host, victim, &PRIVATE).await?;
    exchange(&mut attacker, &mut host, intruder, &SECOND_FENCE).await?;
    exchange(&mut watcher, &mut host, victim, &SECOND_FENCE).await?;

    let leaks = leaks(&host, &watcher, &attacker, pair);
    if !leaks.is_empty() {
        return Err(CanaryError::Leaks(leaks));
    }
    refuse_takeover(reach, pair, watcher, &mut host).await
}

/// The intruder's first connections die and leave wills to the victim; the last stays.
async fn attack_by_will(reach: &Reach, pair: &CanaryPair) -> Result<Probe, CanaryError> {
    let (intruder, proof) = &pair.intruder;
    let victim = &pair.victim.0;
    let payload = Bytes::from_static(b"a last will");
    for channel in [Channel::DnCommand, Channel::UpState] {
        let topic = Topic { device: victim.clone(), channel }.to_string();
        let will = Words { topic: &topic, payload: &payload, qos: QoS::AtLeastOnce, retain: false };
        // A broker that refuses the will at once is in the right.
        if let Ok(probe) = Probe::connect(reach, intruder.as_str(), intruder.as_str(), proof, Some(will)).await {
            probe.die();
        }
    }
    Ok(Probe::connect(reach, intruder.as_str(), intruder.as_str(), proof, None).await?)
}

fn eavesdropping_filters(victim: &DeviceId) -> Vec<String> {
    let root = filter::subtree(&filter::with_segment("+", Channel::DnState));
    let mut filters: Vec<String> = ["#", "+/+/+/+/+", "twin/#", "$share/canary/#"].map(str::to_owned).into();
    filters.extend([
        filter::all_down(victim),
        filter::all_up(victim),
        root.clone(),
        filter::subtree(&filter::with_segment("+", Channel::UpState)),
        format!("$share/canary/{}", filter::all_down(victim)),
        format!("$share/canary/{root}"),
    ]);
    filters
}

/// Up to the host, and down again.
async fn exchange(board: &mut Probe, host: &mut Probe, device: &DeviceId, payload: &Bytes) -> Result<(), ProbeError> {
    let up = Topic { device: device.clone(), channel: Channel::UpCommand }.to_string();
    let down = Topic { device: device.clone(), channel: Channel::DnCommand }.to_string();
    board.subscribe(&filter::all_down(device)).await?;
    board.say(&Words { topic: &up, payload, qos: QoS::AtLeastOnce, retain: false }).await?;
    host.hear(&up, payload).await?;
    host.say(&Words { topic: &down, payload, qos: QoS::AtLeastOnce, retain: false }).await?;
    board.hear(&down, payload).await
}

/// Everything heard that was not said to its hearer by the host, or to the host by the device in its topic.
fn leaks(host: &Probe, watcher: &Probe, attacker: &Probe, pair: &CanaryPair) -> Vec<Leak> {
    let honest = |payload: &Bytes| [&FIRST_FENCE, &PRIVATE, &SECOND_FENCE].contains(&payload);
    let (victim, intruder) = (&pair.victim.0, &pair.intruder.0);
    let mut leaks = Vec::new();
    for (name, probe, own) in
        [(victim.as_str(), watcher, Some(victim)), (intruder.as_str(), attacker, Some(intruder)), (HOST, host, None)]
    {
        for heard in probe.heard() {
            let topic = String::from_utf8_lossy(&heard.topic).into_owned();
            let device = Topic::parse(&topic).map(|topic| topic.device);
            // The host hears every device; nobody else hears any but itself, nor anything from a canary's attack.
            let meant_for_it = own.is_none_or(|own| device.as_ref() == Some(own));
            let from_attack = !honest(&heard.payload) && device.as_ref() == Some(victim);
            if !meant_for_it || from_attack {
                let way = String::from_utf8_lossy(&heard.payload).into_owned();
                leaks.push(Leak { heard_by: name.to_owned(), topic, way });
            }
        }
    }
    leaks
}

/// With its own proof but the victim's client id, the intruder must not end the victim's connection.
async fn refuse_takeover(
    reach: &Reach,
    pair: &CanaryPair,
    mut watcher: Probe,
    host: &mut Probe,
) -> Result<(), CanaryError> {
    let (victim, intruder) = (&pair.victim.0, &pair.intruder.0);
    let thief = Probe::connect(reach, intruder.as_str(), victim.as_str(), &pair.intruder.1, None).await;
    let alive = exchange(&mut watcher, host, victim, &Bytes::from_static(b"still here")).await;
    drop(thief);
    alive.map_err(|_| CanaryError::ClientIdTakeover { intruder: intruder.clone(), victim: victim.clone() })
}
