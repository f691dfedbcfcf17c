//! The processor's frequencies and load.

use std::time::{Duration, Instant};

use twin_shared::wire::telemetry::quantity::{Fraction, Megahertz};
use twin_shared::wire::telemetry::{CoreFrequencies, Reading, Source};

use super::super::age_of;
use super::tree::Tree;

const CPUS: &str = "sys/devices/system/cpu";

/// Between two readings of a load that means anything: the kernel counts in hundredths of a second.
const SHORTEST_SPAN: Duration = Duration::from_millis(200);

/// Cores that are online, from `0-3` or `0,2-5`.
pub(super) fn online(tree: &Tree) -> Option<Vec<u16>> {
    let mut cores = Vec::new();
    for part in tree.text(&format!("{CPUS}/online"))?.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        cores.extend(first.parse().ok()?..=last.parse::<u16>().ok()?);
    }
    (!cores.is_empty()).then_some(cores)
}

pub(super) fn cores(tree: &Tree) -> Reading<u16> {
    Reading::measured_or_unknown(online(tree).and_then(|cores| u16::try_from(cores.len()).ok()))
}

pub(super) struct Frequencies {
    pub(super) current: Reading<CoreFrequencies>,
    pub(super) maximum: Reading<CoreFrequencies>,
}

/// Each online core's frequency as cpufreq gives it. Without cpufreq they are unknown: BogoMIPS is a delay loop's count
/// and on ARM a timer's, and `cpu MHz` of a virtual machine is its clock's.
pub(super) fn frequencies(tree: &Tree) -> Frequencies {
    let cores = online(tree).unwrap_or_default();
    let read = |file: &str| {
        let known = cores.iter().filter_map(|core| {
            let kilohertz: u32 = tree.number(&format!("{CPUS}/cpu{core}/cpufreq/{file}"))?;
            u16::try_from((kilohertz + 500) / 1_000).ok().filter(|&megahertz| megahertz > 0).map(Megahertz)
        });
        let mut frequencies = CoreFrequencies::new();
        for frequency in known {
            // A sample names the first cores only.
            if frequencies.push(frequency).is_err() {
                break;
            }
        }
        Reading::measured_or_unknown((!frequencies.is_empty()).then_some(frequencies))
    };
    Frequencies { current: read("scaling_cur_freq"), maximum: read("cpuinfo_max_freq") }
}

/// Time that all cores together spent working, and altogether, in the kernel's ticks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Ticks {
    busy: u64,
    total: u64,
}

impl Ticks {
    /// From the first line of /proc/stat: user, nice, system, idle, iowait, irq, softirq, steal. What follows is in
    /// user and nice already.
    fn read(tree: &Tree) -> Option<Self> {
        let stat = tree.text("proc/stat")?;
        let fields = stat.lines().next()?.strip_prefix("cpu ")?.split_ascii_whitespace().take(8);
        let ticks: Vec<u64> = fields.map(str::parse).collect::<Result<_, _>>().ok()?;
        let idle = ticks.get(3)?.checked_add(ticks.get(4).copied().unwrap_or(0))?;
        let total = ticks.iter().try_fold(0_u64, |sum, &part| sum.checked_add(part))?;
        Some(Self { busy: total - idle, total })
    }
}

/// Load between samples; the first reading only starts it.
#[derive(Debug, Default)]
pub(super) struct LoadMeter {
    since: Option<(Instant, Ticks)>,
    last: Option<(Instant, Fraction)>,
}

impl LoadMeter {
    pub(super) fn read(&mut self, tree: &Tree, now: Instant) -> Reading<Fraction> {
        if let Some(ticks) = Ticks::read(tree) {
            self.advance(now, ticks);
        }
        self.last.map_or(Reading::Unknown, |(at, load)| Reading::Known {
            value: load,
            source: Source::Measured,
            age: age_of(now, at),
        })
    }

    #[expect(clippy::cast_precision_loss, reason = "ticks between two samples are far below 2^53")]
    fn advance(&mut self, now: Instant, ticks: Ticks) {
        let Some((at, before)) = self.since else {
            self.since = Some((now, ticks));
            return;
        };
        if now.saturating_duration_since(at) < SHORTEST_SPAN {
            return;
        }
        self.since = Some((now, ticks));
        // The kernel's count of idle time may step back a little.
        let total = ticks.total.saturating_sub(before.total);
        if total > 0 {
            let busy = ticks.busy.saturating_sub(before.busy);
            self.last = Some((now, Fraction::of(busy as f64 / total as f64)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sampler::linux::tests::board;
    use twin_shared::wire::telemetry::Age;

    #[test]
    fn cores_are_counted_from_ranges() {
        for (text, cores) in [("0\n", Some(1)), ("0-3", Some(4)), ("0,2-5,7", Some(6)), ("", None), ("0-x", None)] {
            let (_folder, tree) = board(&[("sys/devices/system/cpu/online", text)]);
            assert_eq!(super::cores(&tree), Reading::measured_or_unknown(cores), "{text}");
        }
    }

    #[test]
    fn load_needs_two_readings_apart() {
        let (folder, tree) = board(&[("proc/stat", "cpu  100 0 100 800 0 0 0 0 0 0\ncpu0 1 1 1 1\n")]);
        let (start, mut meter) = (Instant::now(), LoadMeter::default());
        let after = |ms| start + Duration::from_millis(ms);
        assert_eq!(meter.read(&tree, start), Reading::Unknown, "the first is thrown away");
        let write = |text: &str| std::fs::write(folder.path().join("proc/stat"), text).expect("written");
        write("cpu  130 0 110 850 10 0 0 0 99 99\n");
        assert_eq!(meter.read(&tree, after(199)), Reading::Unknown, "too close");
        assert_eq!(meter.read(&tree, after(200)), Reading::measured(Fraction::of(0.4)));
        write("cpu  130 0 110 840 10 0 0 0 0 0\n");
        let old = Reading::Known { value: Fraction::of(0.4), source: Source::Measured, age: Age::of_seconds(2) };
        assert_eq!(meter.read(&tree, after(2_200)), old, "no time passed in the kernel's count");
        write("nonsense");
        assert_eq!(meter.read(&tree, after(2_200)), old);
    }

    #[test]
    fn a_core_without_a_frequency_is_left_out() {
        let cpu = |core: u8, file: &str| format!("sys/devices/system/cpu/cpu{core}/cpufreq/{file}");
        let (_folder, tree) = board(&[
            ("sys/devices/system/cpu/online", "0-2"),
            (&cpu(0, "scaling_cur_freq"), "600000\n"),
            (&cpu(1, "scaling_cur_freq"), "<unknown>\n"),
            (&cpu(2, "scaling_cur_freq"), "0\n"),
        ]);
        let frequencies = frequencies(&tree);
        assert_eq!(frequencies.current, Reading::measured([Megahertz(600)].into_iter().collect()));
        assert_eq!(frequencies.maximum, Reading::Unknown);
    }
}
