//! A cable.

use twin_shared::wire::telemetry::quantity::KilobitsPerSecond;
use twin_shared::wire::telemetry::{Reading, Wired};

use super::tree::Tree;

/// `ARPHRD_ETHER`.
const ETHERNET: u16 = 1;

/// An Ethernet interface, real or virtual; none if it is of another kind, as a tunnel's.
pub(super) fn read(tree: &Tree, interface: &str) -> Option<Wired> {
    let file = |name: &str| format!("sys/class/net/{interface}/{name}");
    if tree.number(&file("type")) != Some(ETHERNET) {
        return None;
    }
    // A pair of virtual interfaces claims 10 Gbit/s whatever it can do; a port that is down says -1, or refuses.
    let real = tree.exists(&file("device"));
    let megabits = tree.number::<i64>(&file("speed")).filter(|&speed| real && (1..=1_000_000).contains(&speed));
    let kilobits = megabits.and_then(|speed| u32::try_from(speed * 1_000).ok());
    Some(Wired {
        speed: Reading::measured_or_unknown(kilobits.map(KilobitsPerSecond)),
        carrier: Reading::measured_or_unknown(tree.number::<u8>(&file("carrier")).map(|carrier| carrier != 0)),
        sent_bytes: Reading::measured_or_unknown(tree.number(&file("statistics/tx_bytes"))),
        received_bytes: Reading::measured_or_unknown(tree.number(&file("statistics/rx_bytes"))),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sampler::linux::tests::board;

    #[test]
    fn a_speed_that_nobody_negotiated_is_unknown() {
        let speed = |text: &str, real: bool| {
            let mut files = vec![("sys/class/net/e/type", "1\n"), ("sys/class/net/e/speed", text)];
            if real {
                files.push(("sys/class/net/e/device/uevent", "DRIVER=bcmgenet\n"));
            }
            read(&board(&files).1, "e").expect("Ethernet").speed
        };
        assert_eq!(speed("1000\n", true), Reading::measured(KilobitsPerSecond(1_000_000)));
        assert_eq!(speed("10000\n", false), Reading::Unknown, "a virtual pair");
        assert_eq!(speed("-1\n", true), Reading::Unknown, "down");
        assert_eq!(speed("4294967295\n", true), Reading::Unknown, "down, on older kernels");
    }

    #[test]
    fn a_tunnel_is_not_a_cable() {
        assert_eq!(read(&board(&[("sys/class/net/wg0/type", "65534\n")]).1, "wg0"), None);
    }
}
