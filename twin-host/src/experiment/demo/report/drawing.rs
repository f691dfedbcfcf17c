//! SVG by hand, to stand inside the page: its colours come from the page's style, light or dark.

use super::figure::NOTHING;

/// Text made safe inside elements and quoted attributes.
pub(super) fn escape(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            // Control characters are not allowed in a document, escaped or not.
            other if other.is_control() && other != '\n' && other != '\t' => safe.push('\u{fffd}'),
            other => safe.push(other),
        }
    }
    safe
}

/// Maps `[from, to]` to `[start, end]`, in pixels.
#[derive(Debug, Clone, Copy)]
pub(super) struct Scale {
    pub(super) from: f64,
    pub(super) to: f64,
    pub(super) start: f64,
    pub(super) end: f64,
}

impl Scale {
    /// A range of no length maps to the middle.
    pub(super) fn at(self, value: f64) -> f64 {
        let length = self.to - self.from;
        let part = if length > 0.0 { (value - self.from) / length } else { 0.5 };
        self.start + part * (self.end - self.start)
    }
}

/// The step, of 1, 2 or 5 times a power of ten, that divides a length into at most `parts`.
pub(super) fn step(length: f64, parts: f64) -> f64 {
    let least = length / parts;
    if !least.is_finite() || least <= 0.0 {
        return 1.0;
    }
    let decade = 10f64.powf(least.log10().floor());
    let factor = [1.0, 2.0, 5.0].into_iter().find(|factor| factor * decade >= least);
    factor.unwrap_or(10.0) * decade
}

/// Where a text stands from its point.
#[derive(Debug, Clone, Copy)]
pub(super) enum Anchor {
    Start,
    Middle,
    End,
}

impl Anchor {
    const fn name(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Middle => "middle",
            Self::End => "end",
        }
    }
}

/// A drawing in the making. Classes are the page's; texts are escaped here.
#[derive(Debug)]
pub(super) struct Drawing {
    text: String,
}

impl Drawing {
    pub(super) fn new(width: f64, height: f64, label: &str) -> Self {
        let label = escape(label);
        Self { text: format!("<svg viewBox=\"0 0 {width:.0} {height:.0}\" role=\"img\" aria-label=\"{label}\">") }
    }

    pub(super) fn line(&mut self, class: &str, from: (f64, f64), to: (f64, f64)) {
        let ((x1, y1), (x2, y2)) = (from, to);
        self.text += &format!("<line class=\"{class}\" x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\"/>");
    }

    pub(super) fn curve(&mut self, class: &str, points: &[(f64, f64)]) {
        let points: Vec<String> = points.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
        self.text += &format!("<polyline class=\"{class}\" points=\"{}\"/>", points.join(" "));
    }

    /// A point that says what it is when pointed at.
    pub(super) fn point(&mut self, class: &str, (x, y): (f64, f64), says: &str) {
        let says = escape(says);
        self.text +=
            &format!("<circle class=\"{class}\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3\"><title>{says}</title></circle>");
    }

    /// A rectangle that says what it is when pointed at.
    pub(super) fn bar(&mut self, class: &str, (x, y): (f64, f64), (width, height): (f64, f64), says: &str) {
        let says = escape(says);
        self.text += &format!(
            "<rect class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{height:.1}\">\
             <title>{says}</title></rect>"
        );
    }

    pub(super) fn write(&mut self, class: &str, anchor: Anchor, (x, y): (f64, f64), content: &str) {
        let (anchor, content) = (anchor.name(), escape(content));
        self.text +=
            &format!("<text class=\"{class}\" text-anchor=\"{anchor}\" x=\"{x:.1}\" y=\"{y:.1}\">{content}</text>");
    }

    pub(super) fn finish(self) -> String {
        self.text + "</svg>"
    }
}

/// A table's cell: a figure to the right, or what stands for none.
pub(super) fn cell(content: &str) -> String {
    let class = if content == NOTHING { "figure none" } else { "figure" };
    format!("<td class=\"{class}\">{}</td>", escape(content))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn steps_are_round() {
        assert_eq!(step(10.0, 5.0), 2.0);
        assert_eq!(step(7.0, 7.0), 1.0);
        assert!((step(0.9, 5.0) - 0.2).abs() < 1e-12);
        assert_eq!(step(0.0, 5.0), 1.0);
        assert_eq!(step(f64::NAN, 5.0), 1.0);
    }

    #[test]
    fn a_range_of_no_length_maps_to_the_middle() {
        assert_eq!(Scale { from: 1.0, to: 1.0, start: 10.0, end: 30.0 }.at(1.0), 20.0);
    }

    proptest! {
        #[test]
        fn nothing_escapes_the_escaping(text in ".*", marks in "[<>&\"'\u{0}\u{1b}]*") {
            let safe = escape(&(text + &marks));
            let left = safe.find(['<', '>', '"', '\'', '\u{0}', '\u{1b}']);
            prop_assert_eq!(left, None);
        }

        #[test]
        fn steps_divide_into_no_more_parts_than_asked(length in 1e-6..1e9f64, parts in 2.0..20.0f64) {
            let step = step(length, parts);
            prop_assert!(length / step <= parts * (1.0 + 1e-9));
            prop_assert!(length / step >= parts / 2.6);
        }
    }
}
