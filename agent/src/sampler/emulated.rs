//! A board that this machine plays: compute and link are set by configuration and say `emulated`; load, memory,
//! storage, heat and power are this machine's own and stay `measured`.

use std::time::Instant;

use twin_shared::wire::telemetry::quantity::{KilobitsPerSecond, Megahertz};
use twin_shared::wire::telemetry::{Cpu, EmulatedLink, Link, Reading, Source, Telemetry};

use super::Sampler;
use crate::config::Emulate;

/// Samples this machine, and puts the played board's compute and link in place of its own.
#[derive(Debug)]
pub struct EmulatedSampler<S> {
    machine: S,
    board: Emulate,
}

impl<S: Sampler> EmulatedSampler<S> {
    /// Plays this board on this machine.
    pub const fn new(machine: S, board: Emulate) -> Self {
        Self { machine, board }
    }
}

impl<S: Sampler> Sampler for EmulatedSampler<S> {
    fn sample(&mut self, now: Instant) -> Telemetry {
        let machine = self.machine.sample(now);
        let frequency = Megahertz::from(self.board.frequency);
        let one_core = || emulated([frequency].into_iter().collect());
        Telemetry {
            cpu: Cpu { cores: emulated(1), current: one_core(), maximum: one_core(), load: machine.cpu.load },
            link: Link::Emulated(EmulatedLink {
                up: emulated(KilobitsPerSecond::from(self.board.uplink)),
                down: emulated(KilobitsPerSecond::from(self.board.downlink)),
            }),
            ..machine
        }
    }
}

fn emulated<T>(value: T) -> Reading<T> {
    Reading::fresh(value, Source::Emulated)
}

#[cfg(test)]
mod tests {
    use super::*;
    use twin_shared::units::{BitsPerSecond, Gigahertz};
    use twin_shared::wire::telemetry::quantity::{Fraction, Kibibytes};
    use twin_shared::wire::telemetry::{Room, Wired};

    struct Machine(Telemetry);

    impl Sampler for Machine {
        fn sample(&mut self, _now: Instant) -> Telemetry {
            self.0.clone()
        }
    }

    #[test]
    fn only_compute_and_link_are_played() {
        let machine = Telemetry {
            cpu: Cpu { cores: Reading::measured(64), load: Reading::measured(Fraction::of(0.5)), ..Cpu::default() },
            room: Room { memory_total: Reading::measured(Kibibytes(1)), ..Room::default() },
            link: Link::Wired(Wired::default()),
            ..Telemetry::default()
        };
        let board =
            Emulate { frequency: Gigahertz(0.7), duty: 0.5, uplink: BitsPerSecond(2e6), downlink: BitsPerSecond(8e6) };
        let sample = EmulatedSampler::new(Machine(machine.clone()), board).sample(Instant::now());
        assert_eq!(sample.cpu.current_mean(), emulated(Gigahertz(0.7)));
        assert_eq!(sample.cpu.maximum_mean(), emulated(Gigahertz(0.7)));
        assert_eq!(sample.cpu.cores, emulated(1));
        assert_eq!(sample.cpu.load, machine.cpu.load);
        assert_eq!(sample.room, machine.room);
        let rate = |kbps| emulated(KilobitsPerSecond(kbps));
        assert_eq!(sample.link, Link::Emulated(EmulatedLink { up: rate(2_000), down: rate(8_000) }));
    }
}
