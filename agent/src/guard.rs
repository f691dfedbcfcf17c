//! Decides whether training may run, and how fast: the board has another job, and must not overheat or brown out.
//!
//! PURE: conditions and clock come as arguments, the answer is a [`Permit`].

mod window;

use std::fmt;
use std::time::{Duration, Instant};

pub use window::{Window, WindowError, minute_of_day};

/// The least share of time that training gets while it is slowed down for heat.
const SLOWEST: f64 = 0.1;

/// When training must wait.
#[derive(Debug, Clone, PartialEq)]
pub struct GuardRules {
    /// Training waits from this temperature on, °C.
    pub pause_above: f64,
    /// Training slows down from this temperature on, °C; between the other two.
    pub slow_above: f64,
    /// Training goes on once it is no warmer than this, °C.
    pub resume_below: f64,
    /// Training waits for this long after the last sign of too low a supply voltage.
    pub under_voltage_hold: Duration,
    /// The most of the processor's time that training takes, in (0, 1].
    pub quota: f64,
    /// When training is allowed; none: always.
    pub windows: Vec<Window>,
    /// Minutes that the windows' clock is ahead of UTC.
    pub utc_offset_minutes: i16,
}

/// What the guard looks at.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Conditions {
    /// The processor's temperature, °C, if the board can tell.
    pub temperature: Option<f64>,
    /// Whether the supply voltage is too low, if the board can tell.
    pub under_voltage: Option<bool>,
    /// Whether another program asks for the board.
    pub inhibited: bool,
    /// Whether the owner or the host asks for a pause.
    pub paused: bool,
    /// Seconds since 1970 UTC, if the clock is known to be right.
    pub unix_seconds: Option<u64>,
}

/// Whether training may run.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Permit {
    /// It may take this share of the processor's time, in (0, 1].
    Train {
        /// The share.
        duty: f64,
    },
    /// It must wait.
    Wait(Cause),
}

/// Why training must wait.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Cause {
    /// Someone asked for a pause.
    Paused,
    /// Another program asks for the board.
    Inhibited,
    /// The supply voltage is or was too low.
    UnderVoltage,
    /// The processor is too warm, or has not cooled enough.
    Heat {
        /// Its temperature, °C.
        now: f64,
        /// Where it may go on, °C.
        resume_below: f64,
    },
    /// Training is not allowed at this hour, or the hour is not known.
    OutsideWindows,
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Paused => f.write_str("paused on request"),
            Self::Inhibited => f.write_str("the inhibit file is there"),
            Self::UnderVoltage => f.write_str("the supply voltage is too low: check the power supply and its cable"),
            Self::Heat { now, resume_below } => write!(f, "{now:.1} °C; training goes on at {resume_below:.1} °C"),
            Self::OutsideWindows => f.write_str("outside the training windows"),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Heat {
    Bearable,
    Cooling,
}

/// The guard of one board.
#[derive(Debug, Clone)]
pub struct Guard {
    rules: GuardRules,
    heat: Heat,
    voltage_good_from: Option<Instant>,
}

impl Guard {
    /// A guard that has seen nothing yet.
    #[must_use]
    pub fn new(rules: GuardRules) -> Self {
        Self { rules, heat: Heat::Bearable, voltage_good_from: None }
    }

    /// Looks at the board; to be asked again with every sample, also while nothing trains, so that the hysteresis
    /// knows what happened. Of several
    /// causes the one that needs someone to act is named first.
    pub fn assess(&mut self, now: Instant, conditions: &Conditions) -> Permit {
        if conditions.under_voltage == Some(true) {
            self.voltage_good_from = now.checked_add(self.rules.under_voltage_hold);
        }
        self.heat = match (self.heat, conditions.temperature) {
            (_, Some(t)) if t >= self.rules.pause_above => Heat::Cooling,
            (Heat::Cooling, Some(t)) if t > self.rules.resume_below => Heat::Cooling,
            // A sensor that fell silent in the heat is no reason to go on.
            (heat, None) => heat,
            (_, Some(_)) => Heat::Bearable,
        };

        if conditions.paused {
            return Permit::Wait(Cause::Paused);
        }
        if conditions.inhibited {
            return Permit::Wait(Cause::Inhibited);
        }
        if !self.window_open(conditions.unix_seconds) {
            return Permit::Wait(Cause::OutsideWindows);
        }
        if conditions.under_voltage == Some(true) || self.voltage_good_from.is_some_and(|good| now < good) {
            return Permit::Wait(Cause::UnderVoltage);
        }
        match self.heat {
            Heat::Cooling => Permit::Wait(Cause::Heat {
                now: conditions.temperature.unwrap_or(self.rules.pause_above),
                resume_below: self.rules.resume_below,
            }),
            Heat::Bearable => Permit::Train { duty: self.duty(conditions.temperature) },
        }
    }

    /// The quota up to `slow_above`, then evenly down to [`SLOWEST`] of it at `pause_above`.
    fn duty(&self, temperature: Option<f64>) -> f64 {
        let GuardRules { slow_above, pause_above, quota, .. } = self.rules;
        let excess = temperature.map_or(0.0, |t| ((t - slow_above) / (pause_above - slow_above)).clamp(0.0, 1.0));
        quota * (1.0 - excess * (1.0 - SLOWEST))
    }

    fn window_open(&self, unix_seconds: Option<u64>) -> bool {
        let windows = &self.rules.windows;
        let offset = self.rules.utc_offset_minutes;
        windows.is_empty() || unix_seconds.is_some_and(|now| windows.iter().any(|w| w.contains(now, offset)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn rules() -> GuardRules {
        GuardRules {
            pause_above: 80.0,
            slow_above: 75.0,
            resume_below: 70.0,
            under_voltage_hold: Duration::from_secs(60),
            quota: 0.8,
            windows: Vec::new(),
            utc_offset_minutes: 0,
        }
    }

    fn at(celsius: f64) -> Conditions {
        Conditions { temperature: Some(celsius), ..Conditions::default() }
    }

    fn cause(permit: Permit) -> Option<Cause> {
        match permit {
            Permit::Train { .. } => None,
            Permit::Wait(cause) => Some(cause),
        }
    }

    #[test]
    fn heat_pauses_and_only_cooling_resumes() {
        let (now, mut guard) = (Instant::now(), Guard::new(rules()));
        assert_eq!(guard.assess(now, &at(74.9)), Permit::Train { duty: 0.8 });
        let hot = |celsius| Some(Cause::Heat { now: celsius, resume_below: 70.0 });
        assert_eq!(cause(guard.assess(now, &at(80.0))), hot(80.0));
        assert_eq!(cause(guard.assess(now, &at(70.1))), hot(70.1));
        assert_eq!(cause(guard.assess(now, &Conditions::default())), hot(80.0), "a silent sensor does not resume");
        assert_eq!(guard.assess(now, &at(70.0)), Permit::Train { duty: 0.8 });
    }

    #[test]
    fn warmth_slows_down() {
        let Permit::Train { duty } = Guard::new(rules()).assess(Instant::now(), &at(77.5)) else {
            panic!("77.5 is bearable")
        };
        assert!((duty - 0.8 * 0.55).abs() < 1e-12, "half way from 1 to 0.1: {duty}");
    }

    #[test]
    fn too_low_a_voltage_holds_on() {
        let (start, mut guard) = (Instant::now(), Guard::new(rules()));
        let low = Conditions { under_voltage: Some(true), ..Conditions::default() };
        let good = Conditions { under_voltage: Some(false), ..Conditions::default() };
        let later = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(cause(guard.assess(start, &low)), Some(Cause::UnderVoltage));
        assert_eq!(cause(guard.assess(later(30), &low)), Some(Cause::UnderVoltage));
        assert_eq!(cause(guard.assess(later(89), &good)), Some(Cause::UnderVoltage));
        assert_eq!(cause(guard.assess(later(90), &good)), None);
    }

    #[test]
    fn a_window_needs_a_clock() {
        let mut night = rules();
        night.windows = vec![Window::new(&[], "22:00", "06:00").expect("valid")];
        let mut guard = Guard::new(night);
        let now = Instant::now();
        let hour = |h: u64| Conditions { unix_seconds: Some(h * 3600), ..Conditions::default() };
        assert_eq!(cause(guard.assess(now, &hour(23))), None);
        assert_eq!(cause(guard.assess(now, &hour(12))), Some(Cause::OutsideWindows));
        assert_eq!(cause(guard.assess(now, &Conditions::default())), Some(Cause::OutsideWindows));
    }

    #[test]
    fn a_request_comes_first() {
        let mut guard = Guard::new(rules());
        let all = Conditions { paused: true, inhibited: true, under_voltage: Some(true), ..at(90.0) };
        assert_eq!(cause(guard.assess(Instant::now(), &all)), Some(Cause::Paused));
        let rest = Conditions { paused: false, ..all };
        assert_eq!(cause(guard.assess(Instant::now(), &rest)), Some(Cause::Inhibited));
    }

    proptest! {
        /// Against a plain restatement of the rule: hot from the last crossing of 80 until the next 70.
        #[test]
        fn the_hysteresis_follows_its_history(temperatures in proptest::collection::vec(60.0..90.0_f64, 1..50)) {
            let mut guard = Guard::new(rules());
            let mut seen = Vec::new();
            for celsius in temperatures {
                seen.push(celsius);
                let last_hot = seen.iter().rposition(|&t| t >= 80.0);
                let last_cool = seen.iter().rposition(|&t| t <= 70.0);
                let hot = last_hot.is_some() && last_hot >= last_cool;
                match guard.assess(Instant::now(), &at(celsius)) {
                    Permit::Wait(_) => prop_assert!(hot),
                    Permit::Train { duty } => {
                        prop_assert!(!hot);
                        prop_assert!((0.08 - 1e-12..=0.8).contains(&duty), "{}", duty);
                    }
                }
            }
        }
    }
}
