//! Asks the kernel's nl80211 about a Wi-Fi station.
//!
//! The crate `wl-nl80211` writes and reads the messages; the exchange itself is a plain synchronous one on a netlink
//! socket, because the kernel answers within the call that asks, and an executor for it would only take memory.

use std::io;
use std::path::PathBuf;

use netlink_packet_core::{
    NLM_F_DUMP, NLM_F_REQUEST, NetlinkDeserializable, NetlinkMessage, NetlinkPayload, NetlinkSerializable,
};
use netlink_packet_generic::ctrl::nlas::GenlCtrlAttrs;
use netlink_packet_generic::ctrl::{GenlCtrl, GenlCtrlCmd};
use netlink_packet_generic::{GenlFamily, GenlMessage};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_GENERIC};
use wl_nl80211::{
    Nl80211Attr, Nl80211ChannelWidth, Nl80211Command, Nl80211Message, Nl80211RateInfo, Nl80211StationInfo,
    Nl80211SurveyInfo,
};

use super::wifi::Station;

/// The Raspberry Pi's driver: it knows no noise, and asking it for a survey can throw errors in its firmware.
const NO_SURVEY: &str = "brcmfmac";

/// Larger than any answer that the kernel sends in one piece.
const RECEIVE: usize = 32 << 10;

/// Whom to ask about a station.
#[derive(Debug)]
pub(super) enum Radio {
    /// The kernel, over a socket once one was opened.
    Kernel(Option<Exchange>),
    /// A recording below this folder, `nl80211/INTERFACE.json`.
    Recorded(PathBuf),
}

impl Radio {
    pub(super) const fn kernel() -> Self {
        Self::Kernel(None)
    }

    /// What is known of this interface's station; nothing of it if the kernel does not answer.
    pub(super) fn station(&mut self, interface: &str, index: Option<u32>, driver: Option<&str>) -> Station {
        match self {
            Self::Recorded(root) => std::fs::read(root.join(format!("nl80211/{interface}.json")))
                .ok()
                .and_then(|bytes| serde_json::from_slice(&bytes).ok())
                .unwrap_or_default(),
            Self::Kernel(exchange) => {
                let Some(index) = index else { return Station::default() };
                let asked = exchange.take().map_or_else(Exchange::open, Ok).and_then(|mut open| {
                    let station = open.station(index, driver)?;
                    // One that failed is left behind: late answers on it would be taken for others.
                    *exchange = Some(open);
                    Ok(station)
                });
                asked.unwrap_or_else(|error| {
                    tracing::debug!(interface, %error, "nl80211 does not answer");
                    Station::default()
                })
            }
        }
    }
}

/// An open socket to nl80211.
#[derive(Debug)]
pub(super) struct Exchange {
    socket: Socket,
    family: u16,
    sequence: u32,
}

impl Exchange {
    fn open() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_GENERIC)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        // The kernel has answered when the call that asks returns, so there is never anything to wait for.
        socket.set_non_blocking(true)?;
        let mut exchange = Self { socket, family: 0, sequence: 0 };
        let question = GenlCtrl {
            cmd: GenlCtrlCmd::GetFamily,
            nlas: vec![GenlCtrlAttrs::FamilyName(Nl80211Message::family_name().to_owned())],
        };
        let answers = exchange.ask(question, NLM_F_REQUEST)?;
        let id = answers
            .iter()
            .flat_map(|answer| &answer.nlas)
            .find_map(|attribute| if let GenlCtrlAttrs::FamilyId(id) = attribute { Some(*id) } else { None });
        exchange.family = id.ok_or_else(|| io::Error::other("the kernel has no nl80211"))?;
        Ok(exchange)
    }

    fn station(&mut self, index: u32, driver: Option<&str>) -> io::Result<Station> {
        let mut station = Station::default();
        let interface = self.nl80211(Nl80211Command::GetInterface, index, NLM_F_REQUEST)?;
        interface.iter().for_each(|message| of_interface(&message.attributes, &mut station));
        let stations = self.nl80211(Nl80211Command::GetStation, index, NLM_F_REQUEST | NLM_F_DUMP)?;
        stations.iter().for_each(|message| of_station(&message.attributes, &mut station));
        // A driver that is not known might be as easily upset.
        if driver.is_some_and(|driver| driver != NO_SURVEY) {
            let frequency = interface.iter().find_map(|message| frequency_of(&message.attributes));
            let survey = self.nl80211(Nl80211Command::GetSurvey, index, NLM_F_REQUEST | NLM_F_DUMP);
            // Many drivers have none, and say so.
            station.noise_dbm = survey.ok().zip(frequency).and_then(|(survey, frequency)| {
                survey.iter().find_map(|message| noise_at(&message.attributes, frequency))
            });
        }
        Ok(station)
    }

    fn nl80211(&mut self, cmd: Nl80211Command, index: u32, flags: u16) -> io::Result<Vec<Nl80211Message>> {
        self.ask(Nl80211Message { cmd, attributes: vec![Nl80211Attr::IfIndex(index)] }, flags)
    }

    /// Sends a question and collects its answers.
    fn ask<F>(&mut self, question: F, flags: u16) -> io::Result<Vec<F>>
    where
        F: GenlFamily + std::fmt::Debug,
        GenlMessage<F>: NetlinkSerializable + NetlinkDeserializable,
    {
        self.sequence = self.sequence.wrapping_add(1);
        let mut inner = GenlMessage::from_payload(question);
        inner.set_resolved_family_id(self.family);
        inner.finalize();
        let mut message = NetlinkMessage::from(inner);
        message.header.flags = flags;
        message.header.sequence_number = self.sequence;
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        self.socket.send(&bytes, 0)?;

        let mut answers = Vec::new();
        loop {
            let mut received = Vec::with_capacity(RECEIVE);
            self.socket.recv(&mut received, 0)?;
            let mut rest = received.as_slice();
            while !rest.is_empty() {
                let message = NetlinkMessage::<GenlMessage<F>>::deserialize(rest).map_err(io::Error::other)?;
                // Messages are padded to four bytes.
                let length = usize::try_from(message.header.length).map_err(io::Error::other)?.next_multiple_of(4);
                rest = rest.get(length.max(16)..).unwrap_or_default();
                if message.header.sequence_number != self.sequence {
                    continue;
                }
                if let NetlinkPayload::InnerMessage(answer) = message.payload {
                    answers.push(answer.payload);
                    if flags & NLM_F_DUMP == 0 {
                        return Ok(answers);
                    }
                } else if let NetlinkPayload::Error(error) = message.payload {
                    return Err(error.to_io());
                } else if matches!(message.payload, NetlinkPayload::Done(_)) {
                    return Ok(answers);
                }
            }
        }
    }
}

fn of_interface(attributes: &[Nl80211Attr], station: &mut Station) {
    for attribute in attributes {
        if let Nl80211Attr::ChannelWidth(width) = attribute {
            station.channel_width_mhz = match width {
                Nl80211ChannelWidth::NoHt20 => Some(20),
                Nl80211ChannelWidth::Mhz80Plus80 => Some(160),
                Nl80211ChannelWidth::Mhz(width) => u16::try_from(*width).ok(),
                Nl80211ChannelWidth::Other(_) => None,
            };
        }
    }
}

fn of_station(attributes: &[Nl80211Attr], station: &mut Station) {
    let facts = attributes
        .iter()
        .filter_map(|attribute| if let Nl80211Attr::StationInfo(facts) = attribute { Some(facts) } else { None });
    let mut momentary = None;
    for fact in facts.flatten() {
        // If-let chains and not a match: the kernel tells some fifty facts, and more with every year.
        if let Nl80211StationInfo::Signal(signal) = fact {
            momentary = Some(*signal);
        } else if let Nl80211StationInfo::SignalAvg(signal) = fact {
            station.signal_dbm = Some(*signal);
        } else if let Nl80211StationInfo::TxBitrate(rate) = fact {
            station.sent_kbit_per_s = kilobits(rate);
        } else if let Nl80211StationInfo::RxBitrate(rate) = fact {
            station.received_kbit_per_s = kilobits(rate);
        } else if let Nl80211StationInfo::TxPackets(frames) = fact {
            station.sent_frames = Some(*frames);
        } else if let Nl80211StationInfo::TxRetries(frames) = fact {
            station.retries = Some(*frames);
        } else if let Nl80211StationInfo::TxFailed(frames) = fact {
            station.failures = Some(*frames);
        }
    }
    // Drivers without an average say 0 for it, or nothing.
    station.signal_dbm = station.signal_dbm.filter(|&signal| signal < 0).or(momentary.filter(|&signal| signal < 0));
}

/// The newer 32-bit rate if it is there, since the older one overflows; both are in 100 kbit/s.
fn kilobits(rate: &[Nl80211RateInfo]) -> Option<u32> {
    let wide = rate.iter().find_map(|part| if let Nl80211RateInfo::Bitrate32(r) = part { Some(*r) } else { None });
    let narrow =
        rate.iter().find_map(|part| if let Nl80211RateInfo::Bitrate(r) = part { Some(u32::from(*r)) } else { None });
    wide.or(narrow).filter(|&rate| rate > 0)?.checked_mul(100)
}

fn frequency_of(attributes: &[Nl80211Attr]) -> Option<u32> {
    attributes.iter().find_map(|attribute| if let Nl80211Attr::WiphyFreq(f) = attribute { Some(*f) } else { None })
}

/// The noise of a survey's channel, if it is this one.
fn noise_at(attributes: &[Nl80211Attr], frequency: u32) -> Option<i8> {
    attributes.iter().find_map(|attribute| {
        let Nl80211Attr::SurveyInfo(facts) = attribute else {
            return None;
        };
        let here = facts.iter().any(|fact| matches!(fact, Nl80211SurveyInfo::Frequency(f) if *f == frequency));
        let noise = facts.iter().find_map(|fact| if let Nl80211SurveyInfo::Noise(n) = fact { Some(*n) } else { None });
        noise.filter(|&noise| here && noise < 0)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_station_is_read_from_its_attributes() {
        let facts = vec![
            Nl80211StationInfo::Signal(-57),
            Nl80211StationInfo::SignalAvg(-59),
            Nl80211StationInfo::TxBitrate(vec![Nl80211RateInfo::Bitrate(650), Nl80211RateInfo::Bitrate32(4_333)]),
            Nl80211StationInfo::RxBitrate(vec![Nl80211RateInfo::Bitrate(60), Nl80211RateInfo::ShortGi]),
            Nl80211StationInfo::TxPackets(1_000),
            Nl80211StationInfo::TxRetries(50),
            Nl80211StationInfo::TxFailed(2),
            Nl80211StationInfo::ConnectedTime(9),
        ];
        let mut station = Station::default();
        of_interface(&[Nl80211Attr::ChannelWidth(Nl80211ChannelWidth::Mhz(80))], &mut station);
        of_station(&[Nl80211Attr::IfIndex(3), Nl80211Attr::StationInfo(facts)], &mut station);
        let expected = Station {
            signal_dbm: Some(-59),
            noise_dbm: None,
            sent_kbit_per_s: Some(433_300),
            received_kbit_per_s: Some(6_000),
            sent_frames: Some(1_000),
            retries: Some(50),
            failures: Some(2),
            channel_width_mhz: Some(80),
        };
        assert_eq!(station, expected);
    }

    #[test]
    fn a_signal_of_zero_is_none() {
        let mut station = Station::default();
        let facts = vec![Nl80211StationInfo::SignalAvg(0), Nl80211StationInfo::Signal(-70)];
        of_station(&[Nl80211Attr::StationInfo(facts)], &mut station);
        assert_eq!(station.signal_dbm, Some(-70));
    }

    #[test]
    fn noise_is_of_the_channel_in_use() {
        let survey =
            |f, n| vec![Nl80211Attr::SurveyInfo(vec![Nl80211SurveyInfo::Frequency(f), Nl80211SurveyInfo::Noise(n)])];
        assert_eq!(noise_at(&survey(5_180, -95), 5_180), Some(-95));
        assert_eq!(noise_at(&survey(5_200, -95), 5_180), None);
        assert_eq!(noise_at(&survey(5_180, 0), 5_180), None);
    }

    #[test]
    fn a_kernel_without_the_interface_leaves_all_unknown() {
        // On a machine with a radio this index is none of it; on one without, there is no nl80211 at all.
        let mut radio = Radio::kernel();
        assert_eq!(radio.station("none", Some(u32::MAX - 1), None), Station::default());
        assert_eq!(radio.station("none", None, None), Station::default());
    }
}
