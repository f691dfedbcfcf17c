//! Keeps a serving host in step with the list of devices, whoever changes it: the commands of this program write to the
//! database, and whatever they change takes effect here within [`POLL`].

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::{mpsc, watch};
use tokio::time::{MissedTickBehavior, interval};
use twin_shared::id::DeviceId;
use twin_shared::wire::{Agreement, Channel, Direction, Topic};

use super::ServeError;
use super::links::Links;
use super::listening::{HostBroker, Notary};
use super::roster::Roster;
use crate::broker::external::Link;
use crate::broker::{Broker, KickError, Outbound};
use crate::enroll::{CERTIFICATE_VALIDITY, CertificateRecord};
use crate::link::{Desk, Grant, GrantedKeys, LinkOrder};
use crate::store::{Credential, DeviceRecord, Store};

/// The database is asked this often whether anything changed.
const POLL: Duration = Duration::from_millis(500);

/// Ends of certificates are looked at this often.
const CERTIFICATES: Duration = Duration::from_secs(3600);

/// The registrar's belongings.
pub(crate) struct Registrar {
    pub(crate) store: Store,
    pub(crate) broker: HostBroker,
    pub(crate) links: Arc<Links>,
    pub(crate) roster: Arc<Roster>,
    pub(crate) notary: Option<Notary>,
    known: BTreeMap<DeviceId, DeviceRecord>,
    seen: Option<i64>,
}

impl Registrar {
    pub(crate) fn new(
        store: Store,
        broker: HostBroker,
        links: Arc<Links>,
        roster: Arc<Roster>,
        notary: Option<Notary>,
    ) -> Self {
        Self { store, broker, links, roster, notary, known: BTreeMap::new(), seen: None }
    }

    /// Runs until told to stop.
    pub(crate) async fn run(mut self, mut asks: mpsc::Receiver<Desk>, mut stop: watch::Receiver<bool>) {
        let mut poll = interval(POLL);
        poll.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut certificates = interval(CERTIFICATES);
        let mut meeting = match &self.broker {
            HostBroker::Embedded(_) => None,
            HostBroker::External(broker) => Some(broker.link()),
        };
        // How things stand now is known: what changes counts.
        if let Some(meeting) = &mut meeting {
            meeting.mark_unchanged();
        }
        loop {
            let looked = tokio::select! {
                () = told(&mut stop) => return,
                _ = poll.tick() => self.look().await,
                // Certificates age without anything being changed.
                _ = certificates.tick() => self.read().await,
                Some(ask) = asks.recv() => self.serve(ask).await,
                () = back(&mut meeting) => {
                    self.links.order_all(|| LinkOrder::Announce);
                    Ok(())
                }
            };
            if let Err(error) = looked {
                tracing::error!(%error, "the list of devices cannot be read");
            }
        }
    }

    /// Reads the list of devices if anything has changed since the last look.
    ///
    /// # Errors
    /// When store or authority cannot be read; the next look tries again.
    pub(crate) async fn look(&mut self) -> Result<(), ServeError> {
        // Asked before the list is read, so that a change in between is seen the next time.
        let version = self.store.data_version()?;
        if self.seen == Some(version) {
            return Ok(());
        }
        self.read().await?;
        self.seen = Some(version);
        Ok(())
    }

    /// Reads the list of devices, and brings roster, links and connections in step with it.
    async fn read(&mut self) -> Result<(), ServeError> {
        self.renew_own_certificate()?;
        let mut records = self.store.devices()?;
        if let Some(notary) = &self.notary {
            // What a retired authority signed proves nothing.
            for record in &mut records {
                record.certificate.take_if(|certificate| !notary.authority.trusts(certificate.authority));
            }
        }
        // Nobody who is out can come back in while the others are looked at.
        self.roster.fill(&records);
        let mut leaving = std::mem::take(&mut self.known);
        let present: Vec<_> = records.into_iter().filter(|record| !record.revoked).collect();
        for record in &present {
            let known = leaving.remove(&record.device);
            if known.is_none() && self.seen.is_some() {
                tracing::info!(device = %record.device, "is enrolled");
            }
            if let Some(known) = known.filter(|known| !same_keys(known, record)) {
                tracing::info!(device = %record.device, "has other keys from now on");
                leaving.insert(known.device.clone(), known);
            }
        }
        dismiss(self.broker.any(), Arc::clone(&self.links), leaving.into_keys().collect()).await;
        for record in present {
            if !self.links.contains(&record.device) {
                self.links.open(&record, self.store.blobs(&record.device)?);
            }
            let next = record.next.as_ref().map(|next| next.key.clone());
            self.links.order(&record.device, LinkOrder::Keys { next, due: self.is_due(&record, SystemTime::now()) });
            self.known.insert(record.device.clone(), record);
        }
        Ok(())
    }

    /// Whether a device should ask for new keys: somebody wants it so, its certificate ends before long, or another
    /// authority signs by now.
    fn is_due(&self, record: &DeviceRecord, now: SystemTime) -> bool {
        let outdated = |certificate: &CertificateRecord| {
            let current = self.notary.as_ref().map(|notary| notary.authority.fingerprint());
            certificate.is_due(now, CERTIFICATE_VALIDITY) || current.is_some_and(|it| it != certificate.authority)
        };
        record.renew || record.certificate.as_ref().is_some_and(outdated)
    }

    async fn serve(&mut self, ask: Desk) -> Result<(), ServeError> {
        match ask {
            Desk::Renew { device, share, request } => {
                let keys = match self.grant(&device, share, &request) {
                    Ok(keys) => keys,
                    Err(error) => {
                        tracing::warn!(%device, %error, "new keys are refused");
                        None
                    }
                };
                self.links.order(&device, LinkOrder::Grant(Grant { asked: share, keys }));
                Ok(())
            }
            Desk::ChangedOver { device, key } => {
                if self.store.change_over(&device, &key)?
                    && let Some(known) = self.known.get_mut(&device)
                    && let Some(next) = known.next.take()
                {
                    (known.key, known.certificate) = (next.key, next.certificate);
                }
                self.read().await
            }
        }
    }

    /// The next keys of a device, which the store has before the device gets them.
    fn grant(&mut self, device: &DeviceId, share: [u8; 32], request: &[u8]) -> Result<Option<GrantedKeys>, ServeError> {
        let Some(known) = self.known.get_mut(device) else { return Ok(None) };
        let agreement = Agreement::new(rand::random());
        let Some(next) = agreement.next_key(&known.key, &share, &agreement.share()) else { return Ok(None) };
        let (mut chain, mut authorities, mut certificate) = (Vec::new(), Vec::new(), None);
        if let Some(notary) = self.notary.as_ref().filter(|_| !request.is_empty()) {
            let signed = notary.authority.certify_request(device, request, SystemTime::now())?;
            chain = signed.chain.iter().flat_map(|der| der.iter().copied()).collect();
            authorities = notary.trusted_by_boards()?;
            certificate = Some(signed.record);
        }
        let credential = Credential { key: next.clone(), certificate };
        self.store.offer(device, &credential)?;
        known.next = Some(credential);
        self.roster.fill(self.known.values());
        Ok(Some(GrantedKeys { share: agreement.share(), chain, authorities, next }))
    }

    fn renew_own_certificate(&mut self) -> Result<(), ServeError> {
        let Some(notary) = &mut self.notary else { return Ok(()) };
        if notary.refresh(&self.store, SystemTime::now())? {
            match &self.broker {
                HostBroker::Embedded(broker) => broker.renew_tls(&notary.identity()?)?,
                HostBroker::External(_) => {}
            }
            tracing::info!(authority = notary.authority.number(), "certificates were renewed");
        }
        Ok(())
    }
}

/// Until an external broker was away and is there again.
async fn back(meeting: &mut Option<watch::Receiver<Link>>) {
    let Some(meeting) = meeting else { return std::future::pending().await };
    while meeting.changed().await.is_ok() {
        if *meeting.borrow_and_update() == Link::Up {
            return;
        }
    }
    // It is shut down, and the host with it.
    std::future::pending().await
}

async fn told(stop: &mut watch::Receiver<bool>) {
    // An error means that the host itself is gone.
    let _ = stop.wait_for(|stop| *stop).await;
}

fn same_keys(one: &DeviceRecord, other: &DeviceRecord) -> bool {
    one.key.expose() == other.key.expose() && one.certificate == other.certificate
}

/// Cuts these devices' connections and forgets them.
async fn dismiss(broker: Arc<dyn Broker>, links: Arc<Links>, devices: Vec<DeviceId>) {
    for device in &devices {
        purge(&*broker, device).await;
        tracing::info!(%device, "its connection is cut");
    }
    for device in &devices {
        // The link may have said something meanwhile: whatever the broker retained of it goes too.
        links.close(device).await;
        purge(&*broker, device).await;
    }
}

/// Has the broker cut and forget a device; where it is not ours to command, only what we had it retain goes.
async fn purge(broker: &dyn Broker, device: &DeviceId) {
    let Err(KickError::ExternalBroker) = broker.purge(device).await else { return };
    tracing::warn!(%device, "is locked out here; the external broker serves its certificate until that is revoked there");
    let ours = |channel: &Channel| channel.direction() == Direction::Down && channel.delivery().retained;
    for channel in Channel::ALL.into_iter().filter(ours) {
        let topic = Topic { device: device.clone(), channel };
        if let Err(error) = broker.publish(Outbound { topic, payload: bytes::Bytes::new() }).await {
            tracing::warn!(%device, %error, "what the broker retains for a device stays there");
        }
    }
}
