//! Which interface leads to the host.

use super::tree::Tree;

const NET: &str = "sys/class/net";

/// `RTF_UP`, in both of the kernel's tables.
const UP: u32 = 1;

/// The interface of the best default route; without one, as on a cable straight to the host, the first real interface
/// with a partner.
pub(super) fn interface_to_host(tree: &Tree) -> Option<String> {
    let default = ipv4_defaults(tree).chain(ipv6_defaults(tree)).min_by_key(|route| route.metric);
    default.map(|route| route.interface).or_else(|| {
        let real = |name: &String| tree.exists(&format!("{NET}/{name}/device"));
        let up = |name: &String| tree.text(&format!("{NET}/{name}/operstate")).as_deref() == Some("up");
        tree.names(NET, "").into_iter().find(|name| real(name) && up(name))
    })
}

struct Route {
    interface: String,
    metric: u32,
}

/// Columns: interface, destination, gateway, flags, two counts, metric, mask.
fn ipv4_defaults(tree: &Tree) -> impl Iterator<Item = Route> {
    let table = tree.text("proc/net/route").unwrap_or_default();
    let routes = table.lines().filter_map(|line| {
        let columns: Vec<&str> = line.split_ascii_whitespace().collect();
        let &[interface, "00000000", _, flags, _, _, metric, "00000000", ..] = columns.as_slice() else {
            return None;
        };
        route(interface, flags, metric.parse().ok()?)
    });
    routes.collect::<Vec<_>>().into_iter()
}

/// Columns: destination, its length, source, its length, next hop, metric, two counts, flags, interface; all in
/// hexadecimal.
fn ipv6_defaults(tree: &Tree) -> impl Iterator<Item = Route> {
    let table = tree.text("proc/net/ipv6_route").unwrap_or_default();
    let routes = table.lines().filter_map(|line| {
        let columns: Vec<&str> = line.split_ascii_whitespace().collect();
        let &[destination, "00", _, _, _, metric, _, _, flags, interface] = columns.as_slice() else {
            return None;
        };
        let everywhere = destination.bytes().all(|digit| digit == b'0') && interface != "lo";
        everywhere.then(|| route(interface, flags, u32::from_str_radix(metric, 16).ok()?)).flatten()
    });
    routes.collect::<Vec<_>>().into_iter()
}

fn route(interface: &str, flags: &str, metric: u32) -> Option<Route> {
    let up = u32::from_str_radix(flags, 16).ok()? & UP != 0;
    up.then(|| Route { interface: interface.to_owned(), metric })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sampler::linux::tests::board;

    const HEAD: &str = "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\tWindow\tIRTT\n";

    #[test]
    fn the_cheapest_default_route_leads_to_the_host() {
        let table = format!(
            "{HEAD}wlan0\t00000000\t0101A8C0\t0003\t0\t0\t600\t00000000\t0\t0\t0\n\
             eth0\t00000000\t0101A8C0\t0003\t0\t0\t100\t00000000\t0\t0\t0\n\
             eth1\t0001A8C0\t00000000\t0001\t0\t0\t1\t00FFFFFF\t0\t0\t0\n\
             usb0\t00000000\t00000000\t0002\t0\t0\t0\t00000000\t0\t0\t0\n"
        );
        assert_eq!(interface_to_host(&board(&[("proc/net/route", &table)]).1).as_deref(), Some("eth0"));
    }

    #[test]
    fn a_default_route_of_ipv6_serves() {
        let zero = "0".repeat(32);
        let table = format!(
            "{zero} 00 {zero} 00 fe80000000000000021a2bfffe3c4d5e 00000258 00000001 00000000 00000003    wlan0\n\
             {zero} 00 {zero} 00 {zero} ffffffff 00000001 00000000 00200200       lo\n"
        );
        assert_eq!(interface_to_host(&board(&[("proc/net/ipv6_route", &table)]).1).as_deref(), Some("wlan0"));
    }

    #[test]
    fn without_a_default_route_a_real_interface_that_is_up_serves() {
        let files = [
            ("proc/net/route", HEAD),
            ("sys/class/net/docker0/operstate", "up\n"),
            ("sys/class/net/eth0/device/uevent", "DRIVER=macb\n"),
            ("sys/class/net/eth0/operstate", "down\n"),
            ("sys/class/net/eth1/device/uevent", "DRIVER=lan78xx\n"),
            ("sys/class/net/eth1/operstate", "up\n"),
        ];
        assert_eq!(interface_to_host(&board(&files).1).as_deref(), Some("eth1"));
        assert_eq!(interface_to_host(&board(&files[..4]).1), None);
    }
}
