//! Last wills reach the host by the router alone: the crate publishes them without asking the gate's handler.

use super::limits::Limits;
use crate::broker::{HOST, Inbound, filter};
use mqtt5::QoS;
use mqtt5::broker::router::{DeliveryLanes, LaneReceivers, MessageRouter, SubscriptionRequest, TakeoverNotice};
use mqtt5::broker::storage::QueueHandle;
use mqtt5::packet::publish::PublishPacket;
use tokio::sync::{mpsc, oneshot};
use twin_shared::wire::{Channel, Topic};

/// Wills taken from the queue at once.
const BATCH: usize = 32;

/// The host as a client of the router, without a socket.
pub(super) struct Wills {
    lanes: LaneReceivers,
    /// What did not fit into the lanes.
    queue: QueueHandle,
    /// Keeps the router's registration alive; nobody else can take over the host's name.
    _registration: oneshot::Receiver<TakeoverNotice>,
}

impl Wills {
    /// Subscribes to every device's state.
    pub(super) async fn subscribe(router: &MessageRouter, limits: &Limits) -> mqtt5::Result<Self> {
        let (senders, lanes) = DeliveryLanes::channel(limits.lane);
        let queue = router.queue_handle(HOST);
        let (notice, registration) = oneshot::channel();
        router.register_client(HOST.to_owned(), senders, QueueHandle::clone(&queue), notice).await;
        let states = filter::with_segment("+", Channel::UpState);
        router.subscribe(SubscriptionRequest::new(HOST, states, QoS::AtLeastOnce)).await?;
        Ok(Self { lanes, queue, _registration: registration })
    }

    /// Passes wills on until the inbox is gone; the caller ends it by dropping the future.
    pub(super) async fn forward(mut self, inbox: mpsc::Sender<Inbound>) {
        loop {
            let passed = tokio::select! {
                lane = self.lanes.recv() => match lane {
                    Some(routable) => pass(&inbox, routable.publish).await,
                    None => return,
                },
                () = self.queue.notified() => self.drain(&inbox).await,
            };
            if passed.is_err() {
                return;
            }
        }
    }

    async fn drain(&self, inbox: &mpsc::Sender<Inbound>) -> Result<(), InboxGone> {
        loop {
            let batch = self.queue.take(BATCH).await;
            if batch.is_empty() {
                return Ok(());
            }
            for queued in batch {
                pass(inbox, queued.to_publish_packet()).await?;
            }
            self.queue.finish_drain();
        }
    }
}

struct InboxGone;

async fn pass(inbox: &mpsc::Sender<Inbound>, will: PublishPacket) -> Result<(), InboxGone> {
    let Some(topic) = Topic::parse(&will.topic_name) else {
        return Ok(());
    };
    if will.payload.is_empty() {
        // No envelope is empty: this clears a retained state.
        return Ok(());
    }
    inbox.send(Inbound { topic, payload: will.payload, receipt: None }).await.map_err(|_| InboxGone)
}
