//! Figures as text: one way to write each quantity, the same on the terminal and on the page.

use super::comparison::Share;
use twin_shared::pipe::Score;

/// In place of what was not measured.
pub(super) const NOTHING: &str = "–";

/// A number with so many decimals; what is not finite is not shown as a number.
pub(super) fn number(value: f64, decimals: usize) -> String {
    if value.is_finite() { format!("{value:.decimals$}") } else { NOTHING.to_owned() }
}

/// `1.24 s`
pub(super) fn seconds(value: f64) -> String {
    format!("{} s", number(value, 2))
}

/// `1.25 GHz`
pub(super) fn gigahertz(value: f64) -> String {
    format!("{} GHz", number(value, 2))
}

/// With the decimal prefix that leaves one to three digits before the point: `2.50 Mbit/s`.
pub(super) fn scaled(value: f64, unit: &str) -> String {
    let (factor, prefix) = match value.abs() {
        size if size >= 1e9 => (1e9, "G"),
        size if size >= 1e6 => (1e6, "M"),
        size if size >= 1e3 => (1e3, "k"),
        _ => return format!("{} {unit}", number(value, 0)),
    };
    format!("{} {prefix}{unit}", number(value / factor, 2))
}

/// `3.41 MB`
#[expect(clippy::cast_precision_loss, reason = "shown with three digits or four")]
pub(super) fn bytes(count: u64) -> String {
    scaled(count as f64, "B")
}

/// `93.1 [90.8, 94.9]`: percent, 95 % interval.
pub(super) fn share(score: Score) -> String {
    Share::of(score).map_or_else(
        || NOTHING.to_owned(),
        |Share { percent, low, high }| format!("{percent:.1} [{low:.1}, {high:.1}]"),
    )
}

/// The classes that a board holds, runs joined: `0-3, 7`.
pub(super) fn classes(held: &[(u16, u32)]) -> String {
    let mut numbers: Vec<u16> = held.iter().filter(|(_, samples)| *samples > 0).map(|(class, _)| *class).collect();
    numbers.sort_unstable();
    numbers.dedup();
    let runs = numbers.chunk_by(|one, next| one.checked_add(1) == Some(*next)).filter_map(|run| match run {
        [] => None,
        [only] => Some(only.to_string()),
        [first, second] => Some(format!("{first}, {second}")),
        [first, .., last] => Some(format!("{first}-{last}")),
    });
    let text = runs.collect::<Vec<_>>().join(", ");
    if text.is_empty() { NOTHING.to_owned() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quantity_takes_the_prefix_that_reads_well() {
        assert_eq!(scaled(2.5e6, "bit/s"), "2.50 Mbit/s");
        assert_eq!(scaled(999.0, "Hz"), "999 Hz");
        assert_eq!(scaled(0.0, "Hz"), "0 Hz");
        assert_eq!(bytes(1_300), "1.30 kB");
        assert_eq!(bytes(20_000_000_000), "20.00 GB");
    }

    #[test]
    fn no_figure_is_ever_nan() {
        for bad in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            assert_eq!(seconds(bad), "– s");
            assert!(scaled(bad, "Hz").starts_with(NOTHING));
        }
        assert_eq!(share(Score::default()), NOTHING);
    }

    #[test]
    fn classes_in_a_row_are_joined() {
        assert_eq!(classes(&[(3, 9), (0, 5), (1, 5), (2, 1), (7, 4), (5, 0)]), "0-3, 7");
        assert_eq!(classes(&[(8, 1), (9, 1)]), "8, 9");
        assert_eq!(classes(&[(u16::MAX, 1)]), "65535");
        assert_eq!(classes(&[]), NOTHING);
    }
}
