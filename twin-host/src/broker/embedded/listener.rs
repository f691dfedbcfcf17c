//! The accept loops, in front of the broker crate's own connection handler.
//!
//! Nothing here waits for a peer in the loop itself: a handshake runs in its connection's task, within the limit,
//! and a socket that says nothing is closed.

use super::connections::{Connections, Guest};
use super::counts::count;
use super::gate::{Gate, Proof, Surroundings};
use super::limits::Limits;
use super::tls::named_device;
use crate::enroll::Fingerprint;
use mqtt5::broker::client_handler::ClientHandler;
use mqtt5::broker::config::BrokerConfig;
use mqtt5::broker::events::BrokerEventHandler;
use mqtt5::broker::resource_monitor::ResourceMonitor;
use mqtt5::broker::router::MessageRouter;
use mqtt5::broker::storage::DynamicStorage;
use mqtt5::broker::sys_topics::BrokerStats;
use mqtt5::broker::tls_acceptor::TlsStreamWrapper;
use mqtt5::broker::transport::BrokerTransport;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, sleep_until, timeout_at};
use tokio_rustls::TlsAcceptor;

/// After a failed accept, most likely for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// What a listener speaks.
#[derive(Clone)]
pub(super) enum Speech {
    /// MQTT straight on TCP.
    Plain,
    /// MQTT in TLS; with other certificates and authorities after a change.
    Tls(watch::Receiver<TlsAcceptor>),
}

/// All that a connection needs, shared by the listeners.
pub(super) struct House {
    pub(super) limits: Limits,
    pub(super) config: BrokerConfig,
    pub(super) router: Arc<MessageRouter>,
    pub(super) storage: Arc<DynamicStorage>,
    pub(super) stats: Arc<BrokerStats>,
    pub(super) monitor: Arc<ResourceMonitor>,
    pub(super) surroundings: Arc<Surroundings>,
}

impl House {
    fn connections(&self) -> &Arc<Connections> {
        &self.surroundings.connections
    }
}

/// Accepts until the broker closes. Every task started holds a clone of `running`: when all are dropped, all have
/// ended.
pub(super) async fn accept_all(listener: TcpListener, speech: Speech, house: Arc<House>, running: mpsc::Sender<()>) {
    let mut closing = house.surroundings.closing.clone();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = closing.wait_for(|closing| *closing) => return,
        };
        match accepted.and_then(|(stream, address)| Ok((place(&stream, address, &house)?, stream, address))) {
            Ok((Some(guest), stream, address)) => {
                let (speech, house, running) = (speech.clone(), Arc::clone(&house), running.clone());
                tokio::spawn(async move {
                    serve(guest, stream, address, speech, &house).await;
                    drop(running);
                });
            }
            Ok((None, ..)) => count(&house.surroundings.counters.connections_refused),
            Err(error) => {
                tracing::warn!(%error, "no connection accepted");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

fn place(stream: &TcpStream, address: SocketAddr, house: &House) -> std::io::Result<Option<Guest>> {
    stream.set_nodelay(true)?;
    house.connections().arrive(stream, address.ip())
}

/// One connection from its first byte to its last.
async fn serve(guest: Guest, stream: TcpStream, address: SocketAddr, speech: Speech, house: &House) {
    let deadline = Instant::now() + house.limits.handshake;
    let secured = match speech {
        Speech::Plain => Some((BrokerTransport::tcp(stream), Proof::Password)),
        Speech::Tls(acceptor) => {
            let accept = acceptor.borrow().accept(stream);
            match timeout_at(deadline, accept).await {
                Ok(Ok(stream)) => {
                    let certificate = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
                    let proof = certificate.and_then(|certificate| {
                        Some(Proof::Certificate(named_device(certificate)?, Fingerprint::of(certificate)))
                    });
                    proof.map(|proof| (BrokerTransport::tls(TlsStreamWrapper::new(stream)), proof))
                }
                Ok(Err(_)) | Err(_) => None,
            }
        }
    };
    let Some((transport, proof)) = secured else {
        tracing::debug!(%address, "TLS handshake failed");
        count(&house.surroundings.counters.handshakes_failed);
        return;
    };
    let gate = Arc::new(Gate::new(proof, Arc::clone(&guest.hook), &house.limits, Arc::clone(&house.surroundings)));
    let mut config = house.config.clone();
    config.event_handler = Some(Arc::clone(&gate) as Arc<dyn BrokerEventHandler>);
    let handler = ClientHandler::new(
        transport,
        address,
        Arc::new(config),
        Arc::clone(&house.router),
        gate,
        Some(Arc::clone(&house.storage)),
        Arc::clone(&house.stats),
        Arc::clone(&house.monitor),
        guest.hook.stop_signal(),
    );
    // Never dropped before its end: the messages in its lanes would go with it. Who must leave is cut instead.
    let mut run = std::pin::pin!(handler.run());
    let ended = tokio::select! {
        ended = &mut run => ended,
        () = sleep_until(deadline) => {
            if !guest.hook.is_admitted() {
                guest.hook.cut();
            }
            run.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%address, device = ?guest.hook.owner(), %error, "connection ended");
    }
}
