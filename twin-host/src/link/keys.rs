//! The keys that a board changes over to.

use std::time::{Duration, Instant};

use twin_shared::wire::seal::{DeviceKey, Opener, SealError, Sealer};
use twin_shared::wire::{Channel, Direction, RenewalAnswer, Topic};

use super::{Desk, Grant, GrantedKeys, Link};

/// A board gets new keys this often at most.
const RENEWAL_EVERY: Duration = Duration::from_secs(5);

impl Link {
    /// A birth under the key on offer is the board's word that it has changed over.
    pub(super) async fn on_any_key(&mut self, topic: &Topic, payload: &mut [u8]) -> Result<(), SealError> {
        let Some(next) = self.next.clone() else { return self.on_state(topic, payload).await };
        let offered = Opener::new(next.clone(), Direction::Up);
        if offered.open_document(topic, &mut payload.to_vec()).is_ok() {
            self.change_over(next).await;
        }
        self.on_state(topic, payload).await
    }

    /// A board asks for the next keys, not too often: each is a write to the disk.
    pub(super) fn on_renewal(&mut self, share: [u8; 32], request: &[u8]) {
        let now = Instant::now();
        if self.asked.is_some_and(|asked| now.saturating_duration_since(asked) < RENEWAL_EVERY) {
            return;
        }
        self.asked = Some(now);
        let ask = Desk::Renew { device: self.parts.device.clone(), share, request: request.to_vec() };
        // A desk with a queue: the board asks again when it is told again that keys are due.
        if self.parts.desk.try_send(ask).is_err() {
            tracing::warn!(device = %self.parts.device, "a request for keys has to wait");
        }
    }

    pub(super) async fn grant(&mut self, grant: Grant) {
        let Grant { asked, keys } = grant;
        match keys {
            None => self.publish(Channel::DnRenewal, &RenewalAnswer::Refused { asked }).await,
            Some(GrantedKeys { share, chain, authorities, next }) => {
                self.next = Some(next);
                let (chain, authorities) = (chain.as_slice(), authorities.as_slice());
                self.publish(Channel::DnRenewal, &RenewalAnswer::Keys { asked, share, chain, authorities }).await;
            }
        }
    }

    /// Seals with this key from now on, and says again what the broker retains.
    async fn change_over(&mut self, key: DeviceKey) {
        tracing::info!(device = %self.parts.device, "has changed over to its new keys");
        self.sealer = Sealer::new(&key, Direction::Down, self.parts.boot);
        self.opener = Opener::new(key.clone(), Direction::Up);
        (self.next, self.due) = (None, false);
        let changed = Desk::ChangedOver { device: self.parts.device.clone(), key };
        // The registrar is gone only when the host stops; the key stays on offer then, and this happens again.
        let _ = self.parts.desk.send(changed).await;
        self.say_retained().await;
    }
}
