//! Times random bytes to the host and back, as blobs of an epoch go.

use std::path::Path;
use std::time::{Duration, Instant};

use rand::RngExt;
use rumqttc::v5::mqttbytes::QoS;
use twin_data::blobs::Blobs;
use twin_shared::units::BitsPerSecond;
use twin_shared::wire::telemetry::Reading;
use twin_shared::wire::{BlobMessage, Channel, Nonce, Purpose};

use super::visit::{Visit, topic};
use crate::courier::{Courier, Delivery, Parcel, Taken};
use crate::mailbox::Letter;
use crate::sampler::PathMeter;
use crate::transport::Outgoing;

/// A first try, and the one that counts where the first was quick.
const SMALL: usize = 256 << 10;
const LARGE: usize = 4 << 20;
const QUICK: Duration = Duration::from_secs(2);

/// Both ways together take no longer than this, or are given up.
const PATIENCE: Duration = Duration::from_secs(120);

/// Chunks are made for a link of this rate, bits a second.
const EXPECTED: u64 = 4_000_000;

/// What the way carries.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Throughput {
    /// To the host; `None` if it was too quick to be timed.
    pub(super) up: Option<BitsPerSecond>,
    /// From the host.
    pub(super) down: Option<BitsPerSecond>,
    /// What was sent each way.
    pub(super) bytes: usize,
}

/// Sends random bytes and has them sent back. `folder` holds them meanwhile.
pub(super) async fn measure(visit: &mut Visit, folder: &Path) -> Result<Throughput, String> {
    let began = Instant::now();
    let small = round(visit, folder, SMALL).await?;
    if began.elapsed() < QUICK { round(visit, folder, LARGE).await } else { Ok(small) }
}

async fn round(visit: &mut Visit, folder: &Path, bytes: usize) -> Result<Throughput, String> {
    let open = |name: &str| Blobs::open(folder.join(name)).map_err(|error| error.to_string());
    // Apart, or the board would hold at once what it is to receive.
    let mut up = Courier::new(open("up")?, visit.started);
    let mut down = Courier::new(open("down")?, visit.started);
    let mut random = vec![0_u8; bytes];
    rand::rng().fill(random.as_mut_slice());
    let blob = up.blobs().put(&random).map_err(|error| error.to_string())?;
    let purpose = Purpose::Probe(Nonce(rand::random()));
    up.send(blob, purpose, EXPECTED).map_err(|error| error.to_string())?;
    let until = Instant::now() + PATIENCE;
    let mut path = PathMeter::default();
    loop {
        while let Some(parcel) = up.next(Instant::now()) {
            let message = match &parcel {
                Parcel::Manifest(manifest) => BlobMessage::Manifest(*manifest),
                Parcel::Chunk { blob, index, bytes } => BlobMessage::Chunk { blob: *blob, index: *index, bytes },
            };
            visit.say(Channel::UpBlob, &message).await?;
        }
        let next = up.wake_at().map_or(until, |at| (visit.started + at).min(until));
        let Some(message) = visit.hear(next).await? else {
            if Instant::now() >= until {
                return Err(format!("not there and back within {} s", PATIENCE.as_secs()));
            }
            continue;
        };
        let mut payload = message.payload.to_vec();
        let now = Instant::now();
        let taken = match visit.mailbox.open(&topic(&message), &mut payload) {
            Ok(Letter::Ack(ack)) => match up.on_ack(&ack, now, &mut path) {
                Some(Delivery::Refused(_, why)) => return Err(format!("the host does not take it: {why:?}")),
                Some(Delivery::Sent(_)) | None => Taken::default(),
            },
            Ok(Letter::Blob(BlobMessage::Manifest(manifest))) if manifest.purpose == purpose => {
                down.on_manifest(manifest, Ok(bytes as u64), now).await
            }
            Ok(Letter::Blob(BlobMessage::Chunk { blob, index, bytes })) => {
                down.on_chunk(blob, index, bytes, &mut path).await
            }
            // The agent's own: it is not acknowledged, and comes to the agent again.
            Ok(
                Letter::Blob(BlobMessage::Manifest(_))
                | Letter::Host(..)
                | Letter::Desired(_)
                | Letter::Command(_)
                | Letter::Pong(_)
                | Letter::Renewal(_),
            )
            | Err(_) => continue,
        };
        if message.qos != QoS::AtMostOnce {
            visit.send(Outgoing::Acknowledge(message)).await?;
        }
        if let Some(ack) = taken.ack {
            visit.say(Channel::UpAck, &ack).await?;
        }
        if taken.whole.is_some() {
            let reading = path.reading(Instant::now());
            let rate = |reading: Reading<_>| reading.value().copied().map(BitsPerSecond::from);
            return Ok(Throughput { up: rate(reading.goodput_up), down: rate(reading.goodput_down), bytes });
        }
    }
}
