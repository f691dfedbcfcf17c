//! How to reach an external broker, and how to prove there who one is.

use crate::broker::longest_payload;
use crate::enroll::Certified;
use rumqttc::v5::MqttOptions;
use rumqttc::{TlsConfiguration, Transport};
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;
use tokio_rustls::rustls::pki_types::pem::{self, PemObject};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{self, ClientConfig, RootCertStore, crypto::ring};
use zeroize::Zeroizing;

/// `mqtts://host:port`, or `mqtt://` on loopback.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExternalAddress {
    host: String,
    port: u16,
    encrypted: bool,
}

/// Why a text is no broker's address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// Another scheme, or none, or no host or port.
    #[error("`{0}` is not a broker's address: write mqtts://HOST:PORT")]
    Malformed(String),
    /// Plain TCP over a network.
    #[error("`{0}` would carry passwords over the network in the clear: use mqtts://")]
    PlainBeyondLoopback(String),
}

impl ExternalAddress {
    /// Name or address.
    #[must_use]
    pub fn host(&self) -> &str {
        self.host.trim_start_matches('[').trim_end_matches(']')
    }

    /// TCP port.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// Whether it is reached by TLS.
    #[must_use]
    pub const fn is_encrypted(&self) -> bool {
        self.encrypted
    }
}

impl FromStr for ExternalAddress {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let malformed = || AddressError::Malformed(text.to_owned());
        let (scheme, rest) = text.split_once("://").ok_or_else(malformed)?;
        let (host, port) = rest.rsplit_once(':').ok_or_else(malformed)?;
        let encrypted = match scheme {
            "mqtts" => true,
            "mqtt" => false,
            _ => return Err(malformed()),
        };
        let port = port.parse().map_err(|_| malformed())?;
        if host.is_empty() || host.contains(['/', '@', '?', '#']) {
            return Err(malformed());
        }
        let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
        let loopback = host == "localhost" || address.is_ok_and(|address| address.is_loopback());
        if !encrypted && !loopback {
            return Err(AddressError::PlainBeyondLoopback(text.to_owned()));
        }
        Ok(Self { host: host.to_owned(), port, encrypted })
    }
}

impl fmt::Display for ExternalAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.encrypted { "mqtts" } else { "mqtt" };
        write!(f, "{scheme}://{}:{}", self.host, self.port)
    }
}

/// What shows an external broker who one is.
#[derive(Clone)]
pub enum Proof {
    /// A user name, which is the client id, with this password.
    Password(Zeroizing<String>),
    /// A certificate whose common name is the client id. Only with `mqtts`.
    Certificate(Certified),
}

/// Secrets stay out of logs.
impl fmt::Debug for Proof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Password(_) => "Password",
            Self::Certificate(_) => "Certificate",
        })
    }
}

/// A broker and whom to trust as it.
#[derive(Debug, Clone)]
pub struct Reach {
    /// Where.
    pub address: ExternalAddress,
    /// PEM of the authority that signed the broker's certificate; for `mqtts` only.
    pub authority: Option<String>,
}

/// Why there can be no connection, whatever the broker says.
#[derive(Debug, thiserror::Error)]
pub enum LoginError {
    /// `mqtts` without an authority.
    #[error("{0} needs the certificate of the authority that signed the broker's")]
    NoAuthority(ExternalAddress),
    /// `mqtt` with a certificate.
    #[error("{0} cannot take a certificate: use mqtts://, or a password")]
    CertificateInTheClear(ExternalAddress),
    /// Not PEM.
    #[error("a certificate or key cannot be read: {0}")]
    Unreadable(#[from] pem::Error),
    /// Readable and useless.
    #[error("a certificate or key is refused: {0}")]
    Refused(#[from] rustls::Error),
}

/// Messages of QoS 1 that the broker may send before the first is acknowledged.
pub(super) const RECEIVE_MAXIMUM: u16 = 32;

/// Topic and properties around the longest payload, bytes.
const PACKET_OVERHEAD: usize = 2048;

const SESSION_EXPIRY: u32 = 3600;
const KEEP_ALIVE: Duration = Duration::from_secs(20);

impl Reach {
    /// Everything that the client library must be told; its own defaults refuse packets above 10 KiB.
    pub(super) fn options(&self, name: &str, proof: &Proof) -> Result<MqttOptions, LoginError> {
        let mut options = MqttOptions::new(name, &self.address.host, self.address.port);
        let packet = u32::try_from(longest_payload() + PACKET_OVERHEAD).unwrap_or(u32::MAX);
        options
            .set_keep_alive(KEEP_ALIVE)
            .set_clean_start(false)
            .set_session_expiry_interval(Some(SESSION_EXPIRY))
            .set_receive_maximum(Some(RECEIVE_MAXIMUM))
            .set_outgoing_inflight_upper_limit(RECEIVE_MAXIMUM)
            .set_max_packet_size(Some(packet))
            .set_manual_acks(true);
        match proof {
            Proof::Password(password) => {
                options.set_credentials(name, password.as_str());
            }
            Proof::Certificate(_) if !self.address.encrypted => {
                return Err(LoginError::CertificateInTheClear(self.address.clone()));
            }
            Proof::Certificate(_) => {}
        }
        if self.address.encrypted {
            let tls = TlsConfiguration::Rustls(Arc::new(self.tls(proof)?));
            options.set_transport(Transport::tls_with_config(tls));
        }
        Ok(options)
    }

    fn tls(&self, proof: &Proof) -> Result<ClientConfig, LoginError> {
        let authority = self.authority.as_ref().ok_or_else(|| LoginError::NoAuthority(self.address.clone()))?;
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(authority.as_bytes()) {
            roots.add(certificate?)?;
        }
        let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots);
        Ok(match proof {
            Proof::Password(_) => builder.with_no_client_auth(),
            Proof::Certificate(own) => {
                let chain = CertificateDer::pem_slice_iter(own.certificate.as_bytes()).collect::<Result<_, _>>()?;
                builder.with_client_auth_cert(chain, PrivateKeyDer::from_pem_slice(own.key.as_bytes())?)?
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_reads_what_it_prints() {
        for text in ["mqtts://broker.example:8883", "mqtt://localhost:1883", "mqtt://127.0.0.1:1", "mqtt://[::1]:9"] {
            assert_eq!(text.parse::<ExternalAddress>().unwrap().to_string(), text);
        }
        for text in ["broker:8883", "http://broker:80", "mqtts://broker", "mqtts://:8883", "mqtts://b:99999", ""] {
            assert_eq!(text.parse::<ExternalAddress>(), Err(AddressError::Malformed(text.to_owned())), "{text}");
        }
        let plain = "mqtt://broker.example:1883";
        assert_eq!(plain.parse::<ExternalAddress>(), Err(AddressError::PlainBeyondLoopback(plain.to_owned())));
    }

    #[test]
    fn a_proof_must_fit_its_way() {
        let reach = |text: &str| Reach { address: text.parse().unwrap(), authority: None };
        let password = Proof::Password(Zeroizing::new("secret".to_owned()));
        assert!(reach("mqtt://localhost:1883").options("board1", &password).is_ok());
        assert!(matches!(
            reach("mqtts://localhost:1883").options("board1", &password),
            Err(LoginError::NoAuthority(_))
        ));
        assert!(!format!("{password:?}").contains("secret"));
    }
}
