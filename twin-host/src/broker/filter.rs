//! Topic filters: which of them a board may use, and those that the host uses.

use twin_shared::id::DeviceId;
use twin_shared::wire::{Channel, Direction, Topic};

/// Everything that goes down to one device: `…/{device}/dn/#`.
///
/// ```
/// use twin_host::broker::filter::all_down;
/// assert_eq!(all_down(&"board1".parse()?), "twin/v1/board1/dn/#");
/// # Ok::<(), twin_shared::id::InvalidDeviceId>(())
/// ```
#[must_use]
pub fn all_down(device: &DeviceId) -> String {
    subtree(&device_topic(device, Channel::DnState))
}

/// Everything that comes up from one device: `…/{device}/up/#`.
#[must_use]
pub fn all_up(device: &DeviceId) -> String {
    subtree(&device_topic(device, Channel::UpState))
}

/// One channel with `segment` in the device's place: `+` in a filter, or what a broker's access rules write for
/// the user's name.
///
/// ```
/// use twin_host::broker::filter::with_segment;
/// use twin_shared::wire::Channel;
/// assert_eq!(with_segment("+", Channel::UpState), "twin/v1/+/up/state");
/// ```
#[must_use]
pub fn with_segment(segment: &str, channel: Channel) -> String {
    let stand_in: DeviceId = "x".parse().expect("one lower-case letter is a device's name");
    device_topic(&stand_in, channel).replacen("/x/", &format!("/{segment}/"), 1)
}

/// The last segment of a topic replaced by `#`.
///
/// ```
/// use twin_host::broker::filter::subtree;
/// assert_eq!(subtree("twin/v1/+/up/state"), "twin/v1/+/up/#");
/// ```
#[must_use]
pub fn subtree(topic: &str) -> String {
    let parent = topic.rsplit_once('/').map_or("", |(parent, _)| parent);
    format!("{parent}/#")
}

/// Whether this device may subscribe to this filter: one of its own channels downwards, or all of them. Anything
/// else, `$share` and `$SYS` among it, is no.
#[must_use]
pub fn may_subscribe(device: &DeviceId, filter: &str) -> bool {
    filter == all_down(device) || is_own(device, filter, Direction::Down).is_some()
}

/// The channel, if this device may publish to this topic: one of its own, upwards.
#[must_use]
pub fn may_publish(device: &DeviceId, topic: &str) -> Option<Channel> {
    is_own(device, topic, Direction::Up)
}

fn is_own(device: &DeviceId, topic: &str, direction: Direction) -> Option<Channel> {
    let topic = Topic::parse(topic)?;
    (topic.device == *device && topic.channel.direction() == direction).then_some(topic.channel)
}

fn device_topic(device: &DeviceId, channel: Channel) -> String {
    Topic { device: device.clone(), channel }.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn device(name: &str) -> DeviceId {
        name.parse().unwrap()
    }

    #[test]
    fn a_board_may_use_its_own_names_only() {
        let board = device("board1");
        for channel in Channel::ALL {
            let own = device_topic(&board, channel);
            let down = channel.direction() == Direction::Down;
            assert_eq!(may_subscribe(&board, &own), down, "{own}");
            assert_eq!(may_publish(&board, &own), (!down).then_some(channel), "{own}");
            let foreign = device_topic(&device("board2"), channel);
            assert!(!may_subscribe(&board, &foreign) && may_publish(&board, &foreign).is_none(), "{foreign}");
        }
        assert!(may_subscribe(&board, "twin/v1/board1/dn/#"));
    }

    #[test]
    fn no_other_filter_will_do() {
        let board = device("board1");
        for filter in [
            "#",
            "+/+/+/+/+",
            "twin/#",
            "twin/v1/#",
            "twin/v1/board1/#",
            "twin/v1/board1/up/#",
            "twin/v1/board1/dn/+",
            "twin/v1/+/dn/#",
            "twin/v1/+/dn/state",
            "twin/v1/board2/dn/#",
            "twin/v1/board1/dn",
            "twin/v1/board1/dn/#/",
            "twin/v1/board1/dn/state/#",
            "$share/g/twin/v1/board1/dn/#",
            "$share/g/#",
            "$SYS/#",
            "$SYS/broker/clients",
            "",
            "/",
            "twin/v1//dn/#",
            "TWIN/v1/board1/dn/#",
        ] {
            assert!(!may_subscribe(&board, filter), "{filter}");
            assert_eq!(may_publish(&board, filter), None, "{filter}");
        }
    }

    proptest! {
        /// Whatever text is let through can match topics of this device only.
        #[test]
        fn nothing_foreign_passes(text in "(\\$share/[a-z]/)?[twinv1/board+#$.a-z0-9-]{0,40}|twin/v1/[a-z+#/]{1,6}/(dn|up)/[a-z#+]{1,6}") {
            let board = device("a");
            if may_subscribe(&board, &text) || may_publish(&board, &text).is_some() {
                prop_assert!(text.starts_with("twin/v1/a/"));
            }
        }
    }
}
