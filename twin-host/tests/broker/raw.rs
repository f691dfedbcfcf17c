//! A client that speaks MQTT 5 byte by byte, so that it can also misspeak.

use crate::stage::{Connect, PATIENCE};
use bytes::Bytes;
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore, crypto::ring};
use twin_host::enroll::Certified;

trait Socket: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Socket for T {}

/// The reason codes of an acknowledgement, or that the connection was closed instead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Reply {
    Codes(Vec<u8>),
    Closed,
}

impl Reply {
    pub(crate) fn is_success(&self) -> bool {
        matches!(self, Self::Codes(codes) if codes.iter().all(|code| *code < 0x80))
    }

    pub(crate) fn is_refusal(&self) -> bool {
        match self {
            Self::Codes(codes) => codes.iter().all(|code| *code >= 0x80),
            Self::Closed => true,
        }
    }
}

/// A message from the broker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Heard {
    pub(crate) topic: String,
    pub(crate) payload: Bytes,
    pub(crate) retained: bool,
    packet_id: Option<u16>,
}

pub(crate) struct Raw {
    socket: Box<dyn Socket>,
    heard: VecDeque<Heard>,
    next_id: u16,
    /// Whether messages of QoS 1 are acknowledged as they are read.
    pub(crate) acknowledges: bool,
    /// Body of the answer to CONNECT.
    pub(crate) connack: Bytes,
}

fn text(out: &mut Vec<u8>, text: &[u8]) {
    out.extend(u16::try_from(text.len()).unwrap().to_be_bytes());
    out.extend(text);
}

/// A control packet: first byte, length, body.
pub(crate) fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    let mut out = vec![first];
    let mut rest = body.len();
    loop {
        let byte = u8::try_from(rest % 128).unwrap();
        rest /= 128;
        out.push(if rest > 0 { byte | 0x80 } else { byte });
        if rest == 0 {
            break;
        }
    }
    out.extend(body);
    out
}

pub(crate) fn connect_packet(connect: &Connect) -> Vec<u8> {
    let mut flags = u8::from(connect.clean) << 1;
    let mut body = Vec::new();
    text(&mut body, b"MQTT");
    body.push(connect.version);
    if let Some((_, _, qos, retain)) = &connect.will {
        flags |= 0x04 | qos << 3 | u8::from(*retain) << 5;
    }
    flags |= u8::from(connect.password.is_some()) << 6 | u8::from(connect.user.is_some()) << 7;
    body.push(flags);
    body.extend(connect.keep_alive.to_be_bytes());
    if connect.version == 5 {
        body.extend([5, 0x11]);
        body.extend(connect.session_expiry.to_be_bytes());
    }
    text(&mut body, connect.client_id.as_bytes());
    if let Some((topic, payload, ..)) = &connect.will {
        if connect.version == 5 {
            body.push(0);
        }
        text(&mut body, topic.as_bytes());
        text(&mut body, payload);
    }
    for field in [&connect.user, &connect.password].into_iter().flatten() {
        text(&mut body, field.as_bytes());
    }
    packet(0x10, &body)
}

pub(crate) fn publish_packet(topic: &str, payload: &[u8], qos: u8, retain: bool, packet_id: u16) -> Vec<u8> {
    let mut body = Vec::new();
    text(&mut body, topic.as_bytes());
    if qos > 0 {
        body.extend(packet_id.to_be_bytes());
    }
    body.push(0);
    body.extend(payload);
    packet(0x30 | qos << 1 | u8::from(retain), &body)
}

fn number(bytes: &[u8], at: usize) -> usize {
    usize::from(u16::from_be_bytes([bytes[at], bytes[at + 1]]))
}

fn heard(first: u8, body: &Bytes) -> Heard {
    let mut at = 2 + number(body, 0);
    let topic = String::from_utf8(body[2..at].to_vec()).unwrap();
    let packet_id = (first & 0x06 != 0).then(|| {
        at += 2;
        u16::from_be_bytes([body[at - 2], body[at - 1]])
    });
    // The properties that this broker sends are shorter than 128 bytes.
    at += 1 + usize::from(body[at]);
    Heard { topic, payload: body.slice(at..), retained: first & 1 == 1, packet_id }
}

impl Raw {
    pub(crate) async fn tcp(address: SocketAddr) -> Self {
        Self::over(TcpStream::connect(address).await.unwrap())
    }

    /// To a broker that is certified by its address. None: the handshake was refused.
    pub(crate) async fn tls(address: SocketAddr, authority: &str, own: Option<&Certified>) -> Option<Self> {
        Self::tls_to(address, &address.ip().to_string(), authority, own).await
    }

    /// To a broker that is certified by this name.
    pub(crate) async fn tls_to(
        address: SocketAddr,
        name: &str,
        authority: &str,
        own: Option<&Certified>,
    ) -> Option<Self> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(authority.as_bytes()).unwrap()).unwrap();
        let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots);
        let config = match own {
            Some(own) => {
                let certificate = CertificateDer::from_pem_slice(own.certificate.as_bytes()).unwrap();
                let key = PrivateKeyDer::from_pem_slice(own.key.as_bytes()).unwrap();
                builder.with_client_auth_cert(vec![certificate], key).unwrap()
            }
            None => builder.with_no_client_auth(),
        };
        let stream = TcpStream::connect(address).await.unwrap();
        let name = ServerName::try_from(name.to_owned()).unwrap();
        TlsConnector::from(Arc::new(config)).connect(name, stream).await.ok().map(Self::over)
    }

    fn over(socket: impl Socket + 'static) -> Self {
        Self { socket: Box::new(socket), heard: VecDeque::new(), next_id: 0, acknowledges: true, connack: Bytes::new() }
    }

    /// False: the other side has closed.
    pub(crate) async fn send(&mut self, bytes: &[u8]) -> bool {
        self.socket.write_all(bytes).await.is_ok() && self.socket.flush().await.is_ok()
    }

    /// The next packet's first byte and body; None once closed.
    async fn read(&mut self) -> Option<(u8, Bytes)> {
        let read = async {
            let first = self.socket.read_u8().await.ok()?;
            let mut length = 0;
            for shift in (0..).step_by(7) {
                let byte = self.socket.read_u8().await.ok()?;
                length |= usize::from(byte & 0x7f) << shift;
                if byte & 0x80 == 0 {
                    break;
                }
            }
            let mut body = vec![0; length];
            self.socket.read_exact(&mut body).await.ok()?;
            Some((first, Bytes::from(body)))
        };
        timeout(PATIENCE, read).await.expect("the broker answers or closes")
    }

    /// The next packet of this kind; messages on the way are kept for [`Self::hear`].
    async fn await_kind(&mut self, kind: u8) -> Option<Bytes> {
        loop {
            let (first, body) = self.read().await?;
            match first >> 4 {
                3 => self.take_in(first, &body).await,
                14 => return None,
                other if other == kind => return Some(body),
                other => panic!("packet of kind {other} instead of {kind}"),
            }
        }
    }

    async fn take_in(&mut self, first: u8, body: &Bytes) {
        let heard = heard(first, body);
        if let Some(id) = heard.packet_id.filter(|_| self.acknowledges) {
            self.send(&packet(0x40, &id.to_be_bytes())).await;
        }
        self.heard.push_back(heard);
    }

    pub(crate) async fn connect(&mut self, connect: &Connect) -> Reply {
        if !self.send(&connect_packet(connect)).await {
            return Reply::Closed;
        }
        let Some(body) = self.await_kind(2).await else {
            return Reply::Closed;
        };
        self.connack = body.clone();
        // MQTT 3 counts its refusals from 1.
        let code = if connect.version < 5 && body[1] > 0 { 0x80 | body[1] } else { body[1] };
        Reply::Codes(vec![code])
    }

    /// The acknowledgement; None at QoS 0.
    pub(crate) async fn publish(&mut self, topic: &str, payload: &[u8], qos: u8, retain: bool) -> Option<Reply> {
        self.next_id += 1;
        let id = self.next_id;
        self.send(&publish_packet(topic, payload, qos, retain, id)).await;
        let kind = match qos {
            0 => return None,
            1 => 4,
            _ => 5,
        };
        Some(self.await_kind(kind).await.map_or(Reply::Closed, |body| {
            assert_eq!(number(&body, 0), usize::from(id), "acknowledgements come in order");
            Reply::Codes(vec![body.get(2).copied().unwrap_or(0)])
        }))
    }

    pub(crate) async fn subscribe(&mut self, filter: &str, qos: u8) -> Reply {
        self.next_id += 1;
        let mut body = self.next_id.to_be_bytes().to_vec();
        body.push(0);
        text(&mut body, filter.as_bytes());
        body.push(qos);
        if !self.send(&packet(0x82, &body)).await {
            return Reply::Closed;
        }
        self.await_kind(9).await.map_or(Reply::Closed, |body| {
            let properties = usize::from(body[2]);
            Reply::Codes(body[3 + properties..].to_vec())
        })
    }

    /// The next message.
    pub(crate) async fn hear(&mut self) -> Heard {
        self.try_hear().await.expect("a message before the connection closes")
    }

    /// The next message; None once closed.
    pub(crate) async fn try_hear(&mut self) -> Option<Heard> {
        while self.heard.is_empty() {
            let (first, body) = self.read().await?;
            match first >> 4 {
                3 => self.take_in(first, &body).await,
                14 => return None,
                other => panic!("packet of kind {other} instead of a message"),
            }
        }
        self.heard.pop_front()
    }

    pub(crate) async fn ping(&mut self) -> bool {
        self.send(&packet(0xc0, &[])).await && self.await_kind(13).await.is_some()
    }

    /// Waits until the broker closes.
    pub(crate) async fn closed(&mut self) {
        while self.read().await.is_some() {}
    }

    pub(crate) async fn disconnect(mut self) {
        self.send(&packet(0xe0, &[])).await;
        self.closed().await;
    }
}
