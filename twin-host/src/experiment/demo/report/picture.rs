//! The picture of what ran: the boards, their links, and the host with their twins.

use super::super::result::{BoardResult, DemoResult};
use super::drawing::escape;
use super::figure::{bytes, classes, gigahertz, scaled};

/// Boards to the left, the host with their twins to the right, each student where it trained last.
pub(super) fn picture(result: &DemoResult) -> String {
    let mut text = String::from(
        "<div class=\"picture\"><div class=\"heads\"><span>boards</span><span>MQTT</span><span>twin host</span></div>",
    );
    text += &format!(
        "<div class=\"host\"><span>teacher <b>{}</b>, trained over the twins</span><span>decisions by <b>{}</b></span></div>",
        escape(&result.teacher.network),
        escape(&result.policy)
    );
    for board in &result.boards {
        text += &lane(board);
    }
    text + "</div>"
}

fn lane(board: &BoardResult) -> String {
    let student = format!("<span class=\"chip\">{} trains here</span>", escape(&board.student));
    let (here, there) = match board.site.as_str() {
        "local" => (student.as_str(), ""),
        _ => ("", student.as_str()),
    };
    let samples: u64 = board.classes.iter().map(|(_, samples)| u64::from(*samples)).sum();
    format!(
        "<div class=\"lane\">\
         <div class=\"box\"><b>{name}</b><small>{compute} · classes {classes} · {samples} images</small>{here}</div>\
         <div class=\"link\"><small>{up} →</small><hr><small>← {down}</small><small class=\"rate\">{rate}</small></div>\
         <div class=\"box twin\"><b>twin of {name}</b><small>f = {f} · b = {b}</small>{there}</div>\
         </div>",
        name = escape(&board.name),
        compute = gigahertz(board.frequency_ghz),
        classes = escape(&classes(&board.classes)),
        up = bytes(board.bytes_up),
        down = bytes(board.bytes_down),
        rate = scaled(board.link_bits_per_second, "bit/s"),
        f = gigahertz(board.frequency_given_ghz),
        b = scaled(board.bandwidth_hz, "Hz"),
    )
}

#[cfg(test)]
mod tests {
    use super::super::example::example;
    use super::*;

    #[test]
    fn a_student_stands_where_it_trained() {
        let result = example();
        let offloaded = lane(&result.boards[0]);
        let (board, twin) = offloaded.split_once("class=\"link\"").unwrap();
        assert!(!board.contains("vgg8 trains here") && twin.contains("vgg8 trains here"));
        let local = lane(&result.boards[1]);
        let (board, twin) = local.split_once("class=\"link\"").unwrap();
        assert!(board.contains("resnet8x4 trains here") && !twin.contains("resnet8x4 trains here"));
    }
}
