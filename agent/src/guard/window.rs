//! A time of the week during which training is allowed.

/// Minutes of a day.
const DAY: u64 = 24 * 60;

/// Days as the configuration names them, Monday first.
const DAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];

/// A window of some days' time; one that crosses midnight belongs to the day on which it opens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    days: [bool; 7],
    from: u16,
    minutes: u16,
}

/// Why a window is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WindowError {
    /// Not a day.
    #[error("\"{0}\" is not a day: mon, tue, wed, thu, fri, sat, sun")]
    Day(String),
    /// Not a time of day.
    #[error("\"{0}\" is not a time from \"00:00\" to \"24:00\"")]
    Time(String),
    /// Nothing between its ends.
    #[error("a window that ends when it opens is never open; all day is \"00:00\" to \"24:00\"")]
    Empty,
}

/// Minutes after midnight of `hh:mm`, at most 24:00.
///
/// # Errors
/// Another form, or a time beyond the day.
pub fn minute_of_day(text: &str) -> Result<u16, WindowError> {
    let refused = || WindowError::Time(text.to_owned());
    let (hours, minutes) = text.split_once(':').ok_or_else(refused)?;
    let number = |part: &str| {
        let digits = part.len() == 2 && part.bytes().all(|byte| byte.is_ascii_digit());
        digits.then(|| part.parse::<u16>().ok()).flatten().ok_or_else(refused)
    };
    let (hours, minutes) = (number(hours)?, number(minutes)?);
    let total = hours * 60 + minutes;
    if minutes < 60 && u64::from(total) <= DAY { Ok(total) } else { Err(refused()) }
}

impl Window {
    /// A window of these days (none: all), from one time to another.
    ///
    /// # Errors
    /// What is not a day or not a time, and a window without length.
    pub fn new(days: &[String], from: &str, to: &str) -> Result<Self, WindowError> {
        let mut chosen = [days.is_empty(); 7];
        for day in days {
            let index = DAYS.iter().position(|known| known == day).ok_or_else(|| WindowError::Day(day.clone()))?;
            chosen[index] = true;
        }
        let (from, to) = (minute_of_day(from)?, minute_of_day(to)?);
        if from == to || u64::from(from) == DAY {
            return Err(WindowError::Empty);
        }
        let day = u16::try_from(DAY).expect("1440");
        let minutes = if to > from { to - from } else { day - from + to };
        Ok(Self { days: chosen, from, minutes })
    }

    /// Whether the window is open, `offset` minutes ahead of UTC.
    #[must_use]
    pub fn contains(&self, unix_seconds: u64, offset: i16) -> bool {
        let minute = (unix_seconds / 60).saturating_add_signed(offset.into());
        let opened = |days_ago: u64| {
            let Some(day) = (minute / DAY).checked_sub(days_ago) else {
                return false;
            };
            let since = minute - day * DAY;
            let open = (u64::from(self.from)..u64::from(self.from + self.minutes)).contains(&since);
            // 1 January 1970 was a Thursday.
            open && self.days[usize::try_from((day + 3) % 7).expect("below 7")]
        };
        opened(0) || opened(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Monday 5 January 1970, 00:00 UTC.
    const MONDAY: u64 = 4 * 86_400;

    fn window(days: &[&str], from: &str, to: &str) -> Window {
        let days: Vec<String> = days.iter().map(|day| (*day).to_owned()).collect();
        Window::new(&days, from, to).expect("valid")
    }

    #[test]
    fn a_window_across_midnight_belongs_to_its_first_day() {
        let friday_night = window(&["fri"], "22:00", "06:00");
        let hour = |day: u64, hour: u64| MONDAY + day * 86_400 + hour * 3_600;
        assert!(!friday_night.contains(hour(4, 21), 0));
        assert!(friday_night.contains(hour(4, 22), 0));
        assert!(friday_night.contains(hour(5, 5), 0), "Saturday morning");
        assert!(!friday_night.contains(hour(5, 6), 0));
        assert!(!friday_night.contains(hour(4, 5), 0), "Friday morning is Thursday's night");
        assert!(friday_night.contains(hour(4, 20), 120), "22:00 two hours ahead of UTC");
        assert!(!friday_night.contains(hour(4, 22), -60), "21:00 an hour behind");
    }

    #[test]
    fn all_day_is_all_day() {
        let sunday = window(&["sun"], "00:00", "24:00");
        let midnight = MONDAY + 6 * 86_400;
        assert!(!sunday.contains(midnight - 1, 0));
        assert!(sunday.contains(midnight, 0));
        assert!(sunday.contains(midnight + 86_399, 0));
        assert!(!sunday.contains(midnight + 86_400, 0));
    }

    #[test]
    fn what_is_no_time_is_refused() {
        for bad in ["", "7:00", "07:60", "24:01", "0700", "07:0a", "-1:00", "07:00:00", "+7:00"] {
            assert_eq!(minute_of_day(bad), Err(WindowError::Time(bad.to_owned())), "{bad}");
        }
        assert_eq!(minute_of_day("24:00"), Ok(1440));
        assert_eq!(Window::new(&[], "24:00", "06:00"), Err(WindowError::Empty));
        assert_eq!(Window::new(&["Monday".to_owned()], "00:00", "06:00"), Err(WindowError::Day("Monday".to_owned())));
    }

    proptest! {
        #[test]
        fn a_window_of_all_days_is_open_for_its_length_every_day(from in 0..1440_u16, to in 0..=1440_u16, day in 1..9000_u64) {
            let text = |minute: u16| format!("{:02}:{:02}", minute / 60, minute % 60);
            prop_assume!(from != to);
            let window = window(&[], &text(from), &text(to));
            let length = if to > from { to - from } else { 1440 - from + to };
            let open = (0..1440).filter(|minute| window.contains((day * 1440 + minute) * 60, 0)).count();
            prop_assert_eq!(open, usize::from(length));
        }
    }
}
