//! Tries what the broker must forbid: to hear other boards, and to speak as one.

use std::time::Duration;

use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{ConnectProperties, Packet, PubAckReason, SubscribeReasonCode};
use rumqttc::v5::{AsyncClient, Event, EventLoop};
use tokio::time::timeout;
use twin_shared::wire::{Channel, Topic};

use super::{Dialer, MAX_PACKET, QUEUE, explain};

/// The broker has so long for each answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// What is allowed to be heard comes within this time.
const DELIVERED_WITHIN: Duration = Duration::from_secs(2);

/// What the board can do beyond its own topics.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trespass {
    /// Hear what boards say.
    pub hears: TrespassAnswer,
    /// Speak as another board.
    pub speaks: TrespassAnswer,
}

/// What the broker did about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TrespassAnswer {
    /// It refused, in these words.
    Refused(String),
    /// It did not.
    Granted,
}

impl Dialer {
    /// Tries both, on connections of their own: a broker may end one for the attempt.
    ///
    /// # Errors
    /// When the broker does not let the board in at all, or does not answer.
    pub async fn trespass(&self) -> Result<Trespass, String> {
        Ok(Trespass { hears: self.try_to_hear().await?, speaks: self.try_to_speak().await? })
    }

    /// Where a subscription is granted, what counts is whether anything comes of it: the board listens for its own word.
    async fn try_to_hear(&self) -> Result<TrespassAnswer, String> {
        let (client, mut events) = self.enter().await?;
        let all = "twin/v1/+/up/#";
        client.subscribe(all, QoS::AtLeastOnce).await.map_err(|error| error.to_string())?;
        let granted = next(&mut events, |packet| {
            let Packet::SubAck(answer) = packet else { return None };
            Some(answer.return_codes.first().copied())
        });
        match timeout(PATIENCE, granted).await {
            Err(_) => return Err("the broker does not answer a subscription".to_owned()),
            Ok(Err(why)) => return Ok(TrespassAnswer::Refused(why)),
            Ok(Ok(Some(SubscribeReasonCode::Success(_)))) => {}
            Ok(Ok(Some(refusal))) => return Ok(TrespassAnswer::Refused(format!("{refusal:?}"))),
            Ok(Ok(None)) => return Err("the broker's answer is empty".to_owned()),
        }
        let own = Topic { device: self.device.clone(), channel: Channel::UpPing }.to_string();
        client.publish(own, QoS::AtMostOnce, false, "access test").await.map_err(|error| error.to_string())?;
        let heard = next(&mut events, |packet| matches!(packet, Packet::Publish(_)).then_some(()));
        Ok(match timeout(DELIVERED_WITHIN, heard).await {
            Ok(Ok(())) => TrespassAnswer::Granted,
            Ok(Err(why)) => TrespassAnswer::Refused(why),
            Err(_) => TrespassAnswer::Refused("granted, and nothing delivered".to_owned()),
        })
    }

    async fn try_to_speak(&self) -> Result<TrespassAnswer, String> {
        let (client, mut events) = self.enter().await?;
        let name = self.device.as_str();
        let other = if name.starts_with('a') { "b" } else { "a" };
        let topic = format!("twin/v1/{other}{}/up/ping", &name[1..]);
        client.publish(topic, QoS::AtLeastOnce, false, "access test").await.map_err(|error| error.to_string())?;
        let taken = next(&mut events, |packet| {
            let Packet::PubAck(answer) = packet else { return None };
            Some(answer.reason)
        });
        Ok(match timeout(PATIENCE, taken).await {
            Err(_) => return Err("the broker does not answer a message".to_owned()),
            Ok(Err(why)) => TrespassAnswer::Refused(why),
            Ok(Ok(PubAckReason::Success)) => TrespassAnswer::Granted,
            // Nobody hears it, so nobody takes it for another board's.
            Ok(Ok(refusal)) => TrespassAnswer::Refused(format!("{refusal:?}")),
        })
    }

    /// A session that ends with its connection: what it was granted must not last.
    async fn enter(&self) -> Result<(AsyncClient, EventLoop), String> {
        let mut options = self.options.clone();
        options.set_clean_start(true).set_connect_properties(ConnectProperties {
            session_expiry_interval: Some(0),
            max_packet_size: Some(MAX_PACKET),
            ..ConnectProperties::new()
        });
        let (client, mut events) = AsyncClient::new(options, QUEUE);
        let entered = next(&mut events, |packet| matches!(packet, Packet::ConnAck(_)).then_some(()));
        match timeout(PATIENCE, entered).await {
            Ok(Ok(())) => Ok((client, events)),
            Ok(Err(why)) => Err(why),
            Err(_) => Err("the broker does not let the board in".to_owned()),
        }
    }
}

/// The first packet that is wanted; why the connection ended, if it did first.
async fn next<T>(events: &mut EventLoop, wanted: impl Fn(Packet) -> Option<T>) -> Result<T, String> {
    loop {
        match events.poll().await {
            Ok(Event::Incoming(Packet::Disconnect(goodbye))) => {
                return Err(format!("the broker ends the connection: {:?}", goodbye.reason_code));
            }
            Ok(Event::Incoming(packet)) => {
                if let Some(found) = wanted(packet) {
                    return Ok(found);
                }
            }
            Ok(Event::Outgoing(_)) => {}
            Err(error) => return Err(explain(&error)),
        }
    }
}
