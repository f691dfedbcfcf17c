//! A Wi-Fi station: what nl80211 says of it, else what /proc/net/wireless does.

use serde::{Deserialize, Serialize};
use twin_shared::wire::telemetry::quantity::{Dbm, KilobitsPerSecond};
use twin_shared::wire::telemetry::{Reading, Source, Wifi};

use super::nl80211::Radio;
use super::tree::Tree;

/// What a driver tells of its access point; also the form of a recording.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Station {
    pub(super) signal_dbm: Option<i8>,
    pub(super) noise_dbm: Option<i8>,
    pub(super) sent_kbit_per_s: Option<u32>,
    pub(super) received_kbit_per_s: Option<u32>,
    pub(super) sent_frames: Option<u32>,
    pub(super) retries: Option<u32>,
    pub(super) failures: Option<u32>,
    pub(super) channel_width_mhz: Option<u16>,
}

pub(super) fn is_wifi(tree: &Tree, interface: &str) -> bool {
    // The second one is there where the kernel still has the older interface.
    tree.exists(&format!("sys/class/net/{interface}/phy80211"))
        || tree.exists(&format!("sys/class/net/{interface}/wireless"))
}

pub(super) fn read(tree: &Tree, radio: &mut Radio, interface: &str) -> Wifi {
    let index = tree.number(&format!("sys/class/net/{interface}/ifindex"));
    let driver = tree.setting(&format!("sys/class/net/{interface}/device/uevent"), "DRIVER");
    let asked = radio.station(interface, index, driver.as_deref());
    let listed = listed(tree, interface);
    let station = Station {
        signal_dbm: asked.signal_dbm.or(listed.signal_dbm),
        noise_dbm: asked.noise_dbm.or(listed.noise_dbm),
        ..asked
    };
    let rate = |kilobits: Option<u32>| Reading::measured_or_unknown(kilobits.map(KilobitsPerSecond));
    Wifi {
        signal: Reading::measured_or_unknown(station.signal_dbm.map(Dbm)),
        noise: station
            .noise_dbm
            .map_or_else(|| assumed_noise(station.channel_width_mhz), |n| Reading::measured(Dbm(n))),
        sent_rate: rate(station.sent_kbit_per_s),
        received_rate: rate(station.received_kbit_per_s),
        sent: Reading::measured_or_unknown(station.sent_frames),
        retries: Reading::measured_or_unknown(station.retries),
        failures: Reading::measured_or_unknown(station.failures),
        channel_width: Reading::measured_or_unknown(station.channel_width_mhz),
    }
}

/// Thermal noise of the channel in a receiver of the usual quality: -174 dBm/Hz + 10 log10(width) + 7 dB. A width that
/// the driver does not tell is taken as the narrowest, 20 MHz.
#[expect(clippy::cast_possible_truncation, reason = "between -101 and -82 for widths of 5 to 320 MHz; casts saturate")]
fn assumed_noise(channel_width_mhz: Option<u16>) -> Reading<Dbm> {
    let hertz = f64::from(channel_width_mhz.unwrap_or(20)) * 1e6;
    let noise = -174.0 + 10.0 * hertz.log10() + 7.0;
    Reading::fresh(Dbm(noise.round() as i8), Source::Assumed)
}

/// Columns: interface, status, link quality, level, noise, and counts. Levels are in dBm and end in a point if the
/// driver updated them. -256 stands for none, and positive ones are on a scale of the driver's own.
fn listed(tree: &Tree, interface: &str) -> Station {
    let table = tree.text("proc/net/wireless").unwrap_or_default();
    let levels = table.lines().find_map(|line| {
        let (name, columns) = line.trim_start().split_once(':')?;
        let mut columns = columns.split_ascii_whitespace().skip(2);
        (name == interface).then(|| (columns.next(), columns.next()))
    });
    let dbm = |column: Option<&str>| {
        column?.trim_end_matches('.').parse::<i8>().ok().filter(|level| (-120..0).contains(level))
    };
    let (level, noise) = levels.unwrap_or_default();
    Station { signal_dbm: dbm(level), noise_dbm: dbm(noise), ..Station::default() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sampler::linux::tests::board;

    const HEAD: &str = "Inter-| sta-|   Quality        |   Discarded packets               | Missed | WE\n \
                        face | tus | link level noise |  nwid  crypt   frag  retry   misc | beacon | 22\n";

    fn silent() -> Radio {
        Radio::Recorded("/nowhere".into())
    }

    #[test]
    fn the_older_list_gives_a_signal() {
        let table = format!("{HEAD} wlan0: 0000   58.  -52.  -256        0      0      0      3      0        0\n");
        let (_folder, tree) = board(&[("proc/net/wireless", &table)]);
        let wifi = read(&tree, &mut silent(), "wlan0");
        assert_eq!(wifi.signal, Reading::measured(Dbm(-52)));
        assert_eq!(wifi.noise, Reading::fresh(Dbm(-94), Source::Assumed), "-256 is no noise");
        assert_eq!(wifi.retries, Reading::Unknown, "its count of retries has another meaning");
        assert_eq!(read(&tree, &mut silent(), "wlan1").signal, Reading::Unknown);
    }

    #[test]
    fn a_level_on_a_driver_s_own_scale_is_none() {
        let table = format!("{HEAD} wlan0: 0000   100  70  0        0      0      0      3      0        0\n");
        let wifi = read(&board(&[("proc/net/wireless", &table)]).1, &mut silent(), "wlan0");
        assert_eq!(wifi.signal, Reading::Unknown);
    }

    #[test]
    fn a_wider_channel_has_more_noise() {
        for (width, noise) in [(None, -94), (Some(20), -94), (Some(40), -91), (Some(80), -88), (Some(160), -85)] {
            assert_eq!(assumed_noise(width), Reading::fresh(Dbm(noise), Source::Assumed), "{width:?}");
        }
    }
}
