//! What hostile boards send; the attacker is board1, the victim board0.

pub(crate) const FOREIGN_TOPICS: [&str; 14] = [
    "twin/v1/board0/dn/command",
    "twin/v1/board0/dn/state",
    "twin/v1/board0/up/state",
    "twin/v1/board0/up/telemetry",
    "twin/v1/board1/dn/command",
    "twin/v1/board1/up",
    "twin/v1/board1/up/other",
    "twin/v1/board1/up/state/x",
    "twin/v1/board1",
    "twin/v1/twin-host/up/state",
    "twin/v2/board1/up/state",
    "$SYS/broker/uptime",
    "$share/g/twin/v1/board1/up/state",
    "anything",
];

pub(crate) const FOREIGN_FILTERS: [&str; 18] = [
    "#",
    "+/+/+/+/+",
    "twin/#",
    "twin/v1/#",
    "twin/v1/+/dn/#",
    "twin/v1/+/dn/command",
    "twin/v1/+/up/#",
    "twin/v1/board0/dn/#",
    "twin/v1/board0/dn/command",
    "twin/v1/board0/up/state",
    "twin/v1/board1/#",
    "twin/v1/board1/up/#",
    "twin/v1/board1/+/#",
    "$SYS/#",
    "$share/g/#",
    "$share/g/twin/v1/board0/dn/#",
    "$share/g/twin/v1/board1/dn/#",
    "$share/twin/v1/board1/dn/#",
];
