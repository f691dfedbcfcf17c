//! Keeps what is there unless a change is worth it: a student is fixed, and its site changes only where that lowers
//! Eq. (6) by more than a part of what the device itself costs. Without it, noise in what boards report would move
//! students to and fro, and every move costs an epoch its momentum and a transfer.

use super::cost::Choice;
use super::decision::Decision;
use super::moves::{Position, terms};
use super::problem::Scenario;
use twin_shared::model::Site;

/// What became of a policy's wish for one device.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Settled {
    /// The device had nothing: it gets what the policy wishes.
    New,
    /// The policy wishes what is there.
    Agreed,
    /// Another site is worth it.
    Moved {
        /// What Eq. (6) gained, relative to what the device cost.
        gain: f64,
    },
    /// What is there is no longer permitted.
    Forced,
    /// Another site was wished and would gain too little.
    Kept {
        /// What Eq. (6) would gain, relative to what the device costs.
        gain: f64,
    },
}

/// A decision after hysteresis: the choices and how each came about, in the scenario's order.
#[derive(Debug, Clone, PartialEq)]
pub struct Steadied {
    /// The choices.
    pub choices: Vec<Choice>,
    /// How each came about.
    pub settled: Vec<Settled>,
}

/// Combines what is there (`present`, `None` for a device without a student) with what a policy wishes. A site
/// changes for a gain above `threshold`, a fraction of the cost terms of Eq. (6) that the device itself causes.
#[must_use]
pub fn steady(scenario: &Scenario, present: &[Option<Choice>], wished: &[Choice], threshold: f64) -> Steadied {
    let mut settled = Vec::with_capacity(wished.len());
    let mut choices = Vec::with_capacity(wished.len());
    for (device, (present, &wish)) in present.iter().zip(wished).enumerate() {
        let (choice, how) = match *present {
            None => (wish, Settled::New),
            Some(present) if scenario.permits(device, present) => (present, Settled::Agreed),
            Some(Choice { model, site }) => {
                let other = match site {
                    Site::Local => Site::Host,
                    Site::Host => Site::Local,
                };
                let moved = Choice { model, site: other };
                (if scenario.permits(device, moved) { moved } else { wish }, Settled::Forced)
            }
        };
        choices.push(choice);
        settled.push(how);
    }
    let costs = terms(scenario, &Decision::of_choices(scenario, "present", &choices));
    let mut position = Position::new(scenario, choices);
    // Devices whose other site is wished: the most worthwhile moves first, for each changes what the others gain.
    let mut open: Vec<(usize, Choice)> = Vec::new();
    for (device, (how, wish)) in settled.iter().zip(wished).enumerate() {
        let to = Choice { model: position.choices()[device].model, site: wish.site };
        if *how == Settled::Agreed && to != position.choices()[device] && scenario.permits(device, to) {
            open.push((device, to));
        }
    }
    let gain_of = |position: &Position<'_>, device: usize, to: Choice| {
        -position.change(device, to) / costs[device].cost().max(f64::MIN_POSITIVE)
    };
    loop {
        let gains = open.iter().enumerate().map(|(index, &(device, to))| (index, gain_of(&position, device, to)));
        let best = gains.max_by(|a, b| a.1.total_cmp(&b.1));
        let Some((index, gain)) = best.filter(|(_, gain)| *gain > threshold) else { break };
        let (device, to) = open.swap_remove(index);
        position.apply(device, to);
        settled[device] = Settled::Moved { gain };
    }
    for (device, to) in open {
        settled[device] = Settled::Kept { gain: gain_of(&position, device, to) };
    }
    Steadied { choices: position.choices().to_vec(), settled }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scheduler::family::{Family, generator, uniform};
    use crate::scheduler::policy::{Exact, Policy};
    use crate::scheduler::problem::Link;
    use twin_shared::units::{BitsPerSecondPerHertz, Gigahertz};

    fn fleet(devices: usize, seed: u64) -> Scenario {
        Family::fleet(devices).and_then(|family| family.draw(&mut generator(seed, 0))).expect("sound")
    }

    fn exact(scenario: &Scenario) -> Vec<Choice> {
        Exact::default().decide(scenario, &mut generator(0, 0)).expect("answers").choices()
    }

    fn present(choices: &[Choice]) -> Vec<Option<Choice>> {
        choices.iter().copied().map(Some).collect()
    }

    /// The scenario with one board's frequency and link multiplied.
    fn changed(scenario: &Scenario, factors: impl Fn(usize) -> (f64, f64)) -> Scenario {
        let boards = scenario.devices().iter().enumerate().map(|(index, device)| {
            let (faster, better) = factors(index);
            let link = Link::Efficiency(BitsPerSecondPerHertz(device.efficiency().0 * better));
            (Gigahertz(device.frequency().0 * faster), link)
        });
        scenario.with_boards(&boards.collect::<Vec<_>>()).expect("sound")
    }

    #[test]
    fn a_device_without_a_student_gets_what_is_wished() {
        let scenario = fleet(5, 1);
        let wished = exact(&scenario);
        let steadied = steady(&scenario, &[None; 5], &wished, 0.05);
        assert_eq!(steadied.choices, wished);
        assert_eq!(steadied.settled, [Settled::New; 5]);
    }

    #[test]
    fn a_student_is_never_changed_and_no_worthwhile_move_is_left() {
        for seed in 0..30 {
            let scenario = fleet(6, seed);
            let before = exact(&fleet(6, seed + 1000));
            let before: Vec<Choice> = before
                .into_iter()
                .enumerate()
                .map(
                    |(device, choice)| if scenario.permits(device, choice) { choice } else { exact(&scenario)[device] },
                )
                .collect();
            let wished = exact(&scenario);
            let steadied = steady(&scenario, &present(&before), &wished, 0.05);
            let position = Position::new(&scenario, steadied.choices.clone());
            for (device, choice) in steadied.choices.iter().enumerate() {
                assert_eq!(choice.model, before[device].model);
                if let Settled::Kept { gain } = steadied.settled[device] {
                    assert!(gain <= 0.05, "{gain}");
                    let to = Choice { model: choice.model, site: wished[device].site };
                    assert!(position.change(device, to) >= -0.05 * 1e6);
                }
            }
        }
    }

    /// Ten per cent of noise on every frequency and link, decision after decision: without hysteresis sites flip, with
    /// it none does.
    #[test]
    fn noise_does_not_flip_sites() {
        let (mut wished_flips, mut flips) = (0, 0);
        for seed in 0..10 {
            let scenario = fleet(8, seed);
            let mut rng = generator(seed, 9);
            let mut now = exact(&scenario);
            let mut wished_before = now.clone();
            for _ in 0..40 {
                let noise: Vec<(f64, f64)> =
                    (0..8).map(|_| (0.9 + 0.2 * uniform(&mut rng), 0.9 + 0.2 * uniform(&mut rng))).collect();
                let noisy = changed(&scenario, |device| noise[device]);
                let wished = exact(&noisy);
                let steadied = steady(&noisy, &present(&now), &wished, 0.05).choices;
                let count = |a: &[Choice], b: &[Choice]| a.iter().zip(b).filter(|(a, b)| a.site != b.site).count();
                wished_flips += count(&wished, &wished_before);
                flips += count(&steadied, &now);
                (now, wished_before) = (steadied, wished);
            }
        }
        assert!(wished_flips > 20, "the noise must matter for the test to say anything: {wished_flips}");
        assert!(flips * 10 <= wished_flips, "{flips} of {wished_flips}");
    }

    /// One board of fifty throttles to a fifth: its move is worth it to itself, whatever share of the whole it is.
    #[test]
    fn a_throttled_board_of_many_moves() {
        let mut tried = 0;
        for seed in 0..20 {
            let scenario = fleet(50, seed);
            let before = exact(&scenario);
            let Some(device) = before.iter().position(|choice| choice.site == Site::Local) else { continue };
            let throttled = changed(&scenario, |index| if index == device { (0.05, 1.0) } else { (1.0, 1.0) });
            let wished = exact(&throttled);
            if wished[device].site == Site::Local {
                continue;
            }
            tried += 1;
            let steadied = steady(&throttled, &present(&before), &wished, 0.05);
            assert!(matches!(steadied.settled[device], Settled::Moved { gain } if gain > 0.05), "{seed}");
            assert_eq!(steadied.choices[device].site, Site::Host);
        }
        assert!(tried > 10, "{tried}");
    }
}
