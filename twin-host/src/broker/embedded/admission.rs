//! Who of those that knock is let in: a table of open connections, by address, with no clock and no socket in it.

use super::limits::Limits;
use std::collections::{BTreeSet, HashMap};
use std::net::{IpAddr, Ipv6Addr};

/// One accepted socket, numbered as they come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct ConnectionId(u64);

/// Open connections from one neighbourhood of the network.
#[derive(Debug, Default)]
struct Neighbourhood {
    pending: BTreeSet<ConnectionId>,
    admitted: usize,
}

/// What becomes of a new connection.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It may try to prove who it is; `evicted` gives way for it.
    Pending {
        /// The new connection's number.
        id: ConnectionId,
        /// A connection to end, the oldest that has proved nothing.
        evicted: Option<ConnectionId>,
    },
    /// Too many already.
    Refused,
}

/// The table.
#[derive(Debug)]
pub(super) struct Admission {
    next: u64,
    open: HashMap<ConnectionId, IpAddr>,
    pending: BTreeSet<ConnectionId>,
    neighbourhoods: HashMap<IpAddr, Neighbourhood>,
    connections: usize,
    connections_per_address: usize,
    pending_total: usize,
    pending_per_address: usize,
}

impl Admission {
    /// An empty table.
    pub(super) fn new(limits: &Limits) -> Self {
        Self {
            next: 0,
            open: HashMap::new(),
            pending: BTreeSet::new(),
            neighbourhoods: HashMap::new(),
            connections: limits.connections,
            connections_per_address: limits.connections_per_address,
            pending_total: limits.pending.max(1),
            pending_per_address: limits.pending_per_address.max(1),
        }
    }

    /// A socket was accepted. An evicted connection still counts until [`Self::gone`], but no longer as pending.
    pub(super) fn arrive(&mut self, address: IpAddr) -> Verdict {
        let key = neighbourhood(address);
        let here = self.neighbourhoods.get(&key);
        let pending_here = here.map_or(0, |n| n.pending.len());
        let evicted = if pending_here >= self.pending_per_address {
            here.and_then(|n| n.pending.first().copied())
        } else if self.pending.len() >= self.pending_total {
            self.pending.first().copied()
        } else {
            None
        };
        let open_here = pending_here + here.map_or(0, |n| n.admitted);
        let leaves_here = evicted.is_some_and(|id| self.open.get(&id) == Some(&key));
        let full_here = open_here - usize::from(leaves_here) >= self.connections_per_address;
        if full_here || self.open.len() - usize::from(evicted.is_some()) >= self.connections {
            return Verdict::Refused;
        }
        if let Some(oldest) = evicted {
            self.gone(oldest);
        }
        let id = ConnectionId(self.next);
        self.next += 1;
        self.open.insert(id, key);
        self.pending.insert(id);
        self.neighbourhoods.entry(key).or_default().pending.insert(id);
        Verdict::Pending { id, evicted }
    }

    /// The connection has proved who it is. False if it was evicted before.
    pub(super) fn admit(&mut self, id: ConnectionId) -> bool {
        let here = self.open.get(&id).and_then(|key| self.neighbourhoods.get_mut(key));
        let Some(here) = here else { return false };
        let was_pending = here.pending.remove(&id);
        if was_pending {
            here.admitted += 1;
            self.pending.remove(&id);
        }
        was_pending
    }

    /// The connection has ended. Saying so twice, or of an evicted one, changes nothing.
    pub(super) fn gone(&mut self, id: ConnectionId) {
        let Some(key) = self.open.remove(&id) else { return };
        self.pending.remove(&id);
        let Some(here) = self.neighbourhoods.get_mut(&key) else {
            return;
        };
        if !here.pending.remove(&id) {
            here.admitted -= 1;
        }
        if here.pending.is_empty() && here.admitted == 0 {
            self.neighbourhoods.remove(&key);
        }
    }
}

/// Whoever has one IPv6 address has its whole /64; an IPv4 address stands for itself, however it is written.
fn neighbourhood(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(v4) => IpAddr::V4(v4),
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & !u128::from(u64::MAX))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn table(connections: usize, per_address: usize, pending: usize, pending_per_address: usize) -> Admission {
        Admission::new(&Limits {
            connections,
            connections_per_address: per_address,
            pending,
            pending_per_address,
            ..Limits::default()
        })
    }

    fn ip(last: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, last])
    }

    #[test]
    fn the_oldest_idle_socket_gives_way() {
        let mut table = table(100, 100, 100, 2);
        let Verdict::Pending { id: first, evicted: None } = table.arrive(ip(1)) else { panic!("room") };
        let Verdict::Pending { id: second, evicted: None } = table.arrive(ip(1)) else { panic!("room") };
        assert!(table.admit(first), "an honest one proves itself and is safe");
        let Verdict::Pending { evicted: None, .. } = table.arrive(ip(1)) else { panic!("room again") };
        let Verdict::Pending { evicted, .. } = table.arrive(ip(1)) else { panic!("the oldest goes") };
        assert_eq!(evicted, Some(second));
        assert!(!table.admit(second), "an evicted connection cannot slip in");
        let Verdict::Pending { evicted: None, .. } = table.arrive(ip(2)) else { panic!("others are not concerned") };
    }

    #[test]
    fn full_is_full() {
        let mut table = table(3, 2, 3, 3);
        for _ in 0..2 {
            let Verdict::Pending { id, .. } = table.arrive(ip(1)) else { panic!("room") };
            assert!(table.admit(id));
        }
        assert_eq!(table.arrive(ip(1)), Verdict::Refused, "this address is full");
        let Verdict::Pending { id, .. } = table.arrive(ip(2)) else { panic!("another address is not") };
        assert_eq!(table.arrive(ip(3)), Verdict::Refused, "now the broker is");
        table.gone(id);
        table.gone(id);
        assert!(matches!(table.arrive(ip(3)), Verdict::Pending { .. }));
    }

    #[test]
    fn one_network_is_one_neighbour() {
        let mut table = table(10, 1, 10, 10);
        let v6 = |text: &str| text.parse::<IpAddr>().expect("an address");
        assert!(matches!(table.arrive(v6("2001:db8::1")), Verdict::Pending { .. }));
        assert_eq!(table.arrive(v6("2001:db8::ffff:2")), Verdict::Refused);
        assert!(matches!(table.arrive(v6("2001:db8:0:1::1")), Verdict::Pending { .. }));
        assert!(matches!(table.arrive(v6("::ffff:10.0.0.1")), Verdict::Pending { .. }));
        assert_eq!(table.arrive(ip(1)), Verdict::Refused);
    }

    #[derive(Debug, Clone)]
    enum Step {
        Arrive(u8),
        Admit(usize),
        Gone(usize),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => (0_u8..4).prop_map(Step::Arrive),
            2 => (0_usize..40).prop_map(Step::Admit),
            1 => (0_usize..40).prop_map(Step::Gone),
        ]
    }

    proptest! {
        /// Against a plain list: no limit is ever exceeded, only pending connections are evicted, and an empty
        /// table is empty.
        #[test]
        fn limits_hold(steps in prop::collection::vec(step(), 1..200)) {
            let mut table = table(12, 6, 8, 3);
            let mut open: Vec<(ConnectionId, u8, bool)> = Vec::new();
            let mut seen = Vec::new();
            for step in steps {
                match step {
                    Step::Arrive(from) => if let Verdict::Pending { id, evicted } = table.arrive(ip(from)) {
                        if let Some(out) = evicted {
                            let at = open.iter().position(|c| c.0 == out).expect("it was open");
                            prop_assert!(!open[at].2, "only a pending one gives way");
                            open.remove(at);
                        }
                        open.push((id, from, false));
                        seen.push(id);
                    },
                    Step::Admit(n) => if let Some(&id) = seen.get(n) {
                        let model = open.iter_mut().find(|c| c.0 == id && !c.2);
                        prop_assert_eq!(table.admit(id), model.is_some());
                        if let Some(entry) = model { entry.2 = true; }
                    },
                    Step::Gone(n) => if let Some(&id) = seen.get(n) {
                        table.gone(id);
                        open.retain(|c| c.0 != id);
                    },
                }
                prop_assert!(open.len() <= 12);
                prop_assert!(open.iter().filter(|c| !c.2).count() <= 8);
                for from in 0..4 {
                    prop_assert!(open.iter().filter(|c| c.1 == from).count() <= 6);
                    prop_assert!(open.iter().filter(|c| c.1 == from && !c.2).count() <= 3);
                }
                prop_assert_eq!(table.open.len(), open.len());
            }
            for (id, ..) in open { table.gone(id); }
            prop_assert!(table.open.is_empty() && table.pending.is_empty() && table.neighbourhoods.is_empty());
        }
    }
}
