//! Time as kbackup writes it: RFC 3339, UTC, whole seconds. And time as people write it: lengths of
//! time ([`Span`]), hours of a day ([`Window`]) and time zones ([`Zone`]).

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use jiff::ToSpan;
use jiff::civil::Time;
use jiff::tz::TimeZone;
pub use jiff::{Timestamp, Zoned};

/// The time now, cut to whole seconds.
#[must_use]
pub fn now() -> Timestamp {
    let now = Timestamp::now();
    let seconds = now.as_second().saturating_add(faults::jump());
    Timestamp::from_second(seconds).unwrap_or(now)
}

/// A new identifier that begins with the time, so that identifiers sort by age. It also works with
/// a clock before 1970, at which [`uuid::Uuid::now_v7`] panics.
#[must_use]
pub fn identifier() -> uuid::Uuid {
    let seconds = u64::try_from(now().as_second()).unwrap_or(0);
    uuid::Uuid::new_v7(uuid::Timestamp::from_unix(uuid::NoContext, seconds, 0))
}

/// The length of time between two instants; zero if `to` lies before `from`, because a clock went
/// back.
#[must_use]
pub fn between(from: Timestamp, to: Timestamp) -> Duration {
    Duration::try_from(to.duration_since(from)).unwrap_or_default()
}

/// How far an instant lies in the future. Returns `None` if it does not, or only as far as the clocks
/// of two machines differ.
#[must_use]
pub fn ahead(then: Timestamp, now: Timestamp) -> Option<Duration> {
    /// A working clock is not further off.
    const CLOCKS_DIFFER: Duration = Duration::from_secs(60);

    let ahead = between(now, then);
    (ahead > CLOCKS_DIFFER).then_some(ahead)
}

/// A length of time as people write it, to the millisecond: `2h`, `1h 30m`, `500ms`.
#[must_use]
pub fn length(of: Duration) -> String {
    let milliseconds = i64::try_from(of.as_millis()).unwrap_or(i64::MAX);
    format!("{:#}", jiff::SignedDuration::from_millis(milliseconds))
}

/// How long something may take before it counts as hanging. Tests shorten it.
#[must_use]
pub fn patience(limit: Duration) -> Duration {
    limit / faults::hurry()
}

/// A clock that jumps, and shorter patience, for tests.
#[cfg(feature = "faults")]
mod faults {
    use std::sync::atomic::{AtomicU64, Ordering};

    /// The seconds by which the clock is ahead, or behind if negative.
    ///
    /// `KBACKUP_CLOCK=seconds@n`: the clock jumps at its n-th reading. `KBACKUP_CLOCK=/path`: the
    /// file at that path holds the seconds, and the clock follows its changes.
    pub(super) fn jump() -> i64 {
        static READINGS: AtomicU64 = AtomicU64::new(0);
        let reading = READINGS.fetch_add(1, Ordering::SeqCst) + 1;

        let Ok(text) = std::env::var("KBACKUP_CLOCK") else {
            return 0;
        };
        match parse(&text) {
            Some((seconds, from)) if reading >= from => seconds,
            _ => 0,
        }
    }

    /// `KBACKUP_HURRY=n`: patience lasts an n-th of its time.
    pub(super) fn hurry() -> u32 {
        let Ok(text) = std::env::var("KBACKUP_HURRY") else {
            return 1;
        };
        text.parse().unwrap_or(1).max(1)
    }

    /// The seconds, and the first reading that they apply to.
    fn parse(text: &str) -> Option<(i64, u64)> {
        if text.starts_with('/') {
            #[expect(
                clippy::disallowed_methods,
                reason = "the door to the file system lies above the clock"
            )]
            let seconds = std::fs::read_to_string(text).ok()?;
            return Some((seconds.trim().parse().ok()?, 0));
        }

        let (seconds, from) = text.split_once('@')?;
        Some((seconds.parse().ok()?, from.parse().ok()?))
    }
}

#[cfg(not(feature = "faults"))]
mod faults {
    pub(super) const fn jump() -> i64 {
        0
    }

    pub(super) const fn hurry() -> u32 {
        1
    }
}

/// Hours of every day in local time, such as `22:00-05:00`. The first minute belongs to the window,
/// the last minute does not. A window may reach beyond midnight.
///
/// A window follows the local clock. If the clock skips an hour, that hour of the window is
/// missing; if the clock is set back, that hour comes twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    from: Time,
    to: Time,
}

impl Window {
    /// Whether the window is open at a time.
    #[must_use]
    pub fn is_open(&self, at: &Zoned) -> bool {
        let time = at.time();
        if self.from < self.to {
            (self.from..self.to).contains(&time)
        } else {
            time >= self.from || time < self.to
        }
    }

    /// When the window opens next after a time at which it is closed. Returns `None` at the end of
    /// the calendar.
    #[must_use]
    pub fn opens(&self, after: &Zoned) -> Option<Zoned> {
        for days in 0..=2 {
            let date = after.date().checked_add(days.days()).ok()?;
            let opening = date
                .to_datetime(self.from)
                .to_zoned(after.time_zone().clone())
                .ok()?;

            // The opening, or even the whole window, may fall into an hour that the clock skips.
            if opening > *after && self.is_open(&opening) {
                return Some(opening);
            }
        }
        None
    }
}

impl FromStr for Window {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let times = match text.split_once('-') {
            Some((from, to)) => (time_of_day(from), time_of_day(to)),
            None => (None, None),
        };

        match times {
            (Some(from), Some(to)) if from != to => Ok(Self { from, to }),
            _ => Err(format!(
                "{text:?} is not a range of hours of a day such as 22:00-05:00"
            )),
        }
    }
}

/// A time in hours, minutes and perhaps seconds, of two digits each.
fn time_of_day(text: &str) -> Option<Time> {
    if !text.contains(':') || text.split(':').any(|part| part.len() != 2) {
        return None;
    }
    text.parse().ok()
}

impl fmt::Display for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_time(f, self.from)?;
        f.write_str("-")?;
        write_time(f, self.to)
    }
}

fn write_time(f: &mut fmt::Formatter<'_>, time: Time) -> fmt::Result {
    if time.second() == 0 {
        write!(f, "{}", time.strftime("%H:%M"))
    } else {
        write!(f, "{}", time.strftime("%H:%M:%S"))
    }
}

/// A length of time as people write it: `90s`, `15m`, `24h`, `7d`. A number without a unit means
/// seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span(pub Duration);

impl FromStr for Span {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match parse_span(text) {
            Some(seconds) => Ok(Self(Duration::from_secs(seconds))),
            None => Err(format!(
                "{text:?} is not a length of time such as 90s, 15m, 24h or 7d"
            )),
        }
    }
}

/// The seconds of a length of time.
fn parse_span(text: &str) -> Option<u64> {
    let digits = text.trim_end_matches(|character: char| character.is_ascii_alphabetic());
    let number: u64 = digits.trim_end().parse().ok()?;

    let seconds_per_unit = match text.strip_prefix(digits)? {
        "s" | "" => 1,
        "m" | "min" => 60,
        "h" => 3600,
        "d" => 86400,
        _ => return None,
    };
    number.checked_mul(seconds_per_unit)
}

impl fmt::Display for Span {
    /// Writes the length in the largest unit that divides it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.as_secs();

        for (unit, name) in [(86400, "d"), (3600, "h"), (60, "m")] {
            if seconds > 0 && seconds.is_multiple_of(unit) {
                return write!(f, "{}{name}", seconds / unit);
            }
        }
        write!(f, "{seconds}s")
    }
}

/// A time zone: `Europe/Berlin`, `UTC`, or `system`, which is the zone that this machine is set to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Zone {
    /// `None` for the zone of the machine, which may have no name.
    name: Option<String>,
    zone: TimeZone,
}

impl Zone {
    /// The zone that this machine is set to; UTC if it is set to none.
    #[must_use]
    pub fn system() -> Self {
        Self {
            name: None,
            zone: TimeZone::system(),
        }
    }

    /// The local time of an instant.
    #[must_use]
    pub fn at(&self, instant: Timestamp) -> Zoned {
        instant.to_zoned(self.zone.clone())
    }
}

impl FromStr for Zone {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "system" {
            return Ok(Self::system());
        }

        let Ok(zone) = TimeZone::get(text) else {
            return Err(format!(
                "{text:?} is not a time zone such as Europe/Berlin, America/New_York, UTC or system"
            ));
        };
        let name = zone.iana_name().unwrap_or(text).to_owned();
        Ok(Self {
            name: Some(name),
            zone,
        })
    }
}

impl fmt::Display for Zone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name.as_deref().unwrap_or("system"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Zoned {
        text.parse().unwrap()
    }

    fn window(text: &str) -> Window {
        text.parse().unwrap()
    }

    #[test]
    fn a_window_is_open_by_day_or_over_midnight() {
        let (day, night) = (window("09:00-17:30"), window("22:00-05:00"));
        for (time, in_day, at_night) in [
            ("00:00", false, true),
            ("04:59", false, true),
            ("05:00", false, false),
            ("09:00", true, false),
            ("17:29", true, false),
            ("17:30", false, false),
            ("21:59", false, false),
            ("22:00", false, true),
        ] {
            let now = at(&format!("2026-06-01T{time}:00[Europe/Berlin]"));
            assert_eq!(
                (day.is_open(&now), night.is_open(&now)),
                (in_day, at_night),
                "{time}"
            );
        }

        assert_eq!(night.to_string(), "22:00-05:00");
        assert_eq!(window("22:00:30-05:00").to_string(), "22:00:30-05:00");
    }

    #[test]
    fn a_window_opens_today_or_tomorrow() {
        let night = window("22:00-05:00");
        assert_eq!(
            night.opens(&at("2026-06-01T12:00[Europe/Berlin]")),
            Some(at("2026-06-01T22:00[Europe/Berlin]"))
        );
        let day = window("09:00-17:00");
        assert_eq!(
            day.opens(&at("2026-06-30T17:00[Europe/Berlin]")),
            Some(at("2026-07-01T09:00[Europe/Berlin]"))
        );
    }

    /// Berlin sets its clocks forward at 02:00 on 2026-03-29, and back at 03:00 on 2026-10-25.
    #[test]
    fn a_window_follows_clocks_that_are_changed() {
        let missing = window("02:00-03:00");
        assert_eq!(
            missing.opens(&at("2026-03-28T12:00[Europe/Berlin]")),
            Some(at("2026-03-30T02:00[Europe/Berlin]"))
        );
        let cut = window("02:30-04:00");
        let opens = cut.opens(&at("2026-03-29T00:00[Europe/Berlin]")).unwrap();
        assert_eq!(opens, at("2026-03-29T03:30[Europe/Berlin]"));
        for twice in [
            "2026-10-25T02:30+02:00[Europe/Berlin]",
            "2026-10-25T02:30+01:00[Europe/Berlin]",
        ] {
            assert!(missing.is_open(&at(twice)), "{twice}");
        }
        assert!(!missing.is_open(&at("2026-10-25T03:00[Europe/Berlin]")));
    }

    proptest::proptest! {
        #[test]
        fn a_closed_window_opens_within_two_days(
            from in 0..1440_i64,
            length in 60..1439_i64,
            second in 0..31_536_000_i64,
        ) {
            let clock = |minute: i64| format!("{:02}:{:02}", minute / 60 % 24, minute % 60);
            let window = window(&format!("{}-{}", clock(from), clock(from + length)));
            let instant = Timestamp::from_second(1_767_225_600 + second).unwrap();
            let now = instant.in_tz("America/New_York").unwrap();

            if !window.is_open(&now) {
                let opens = window.opens(&now).unwrap();
                let wait = opens.timestamp().as_second() - instant.as_second();
                assert!(window.is_open(&opens) && opens > now && wait <= 49 * 3600);
            }
        }
    }

    #[test]
    fn other_texts_are_no_window() {
        for text in [
            "",
            "22:00",
            "22-05",
            "22:00-22:00",
            "24:00-05:00",
            "22:00-05:00-06:00",
            "2026-01-01T22:00-05:00",
            "22:00 - 05:00",
            "-",
        ] {
            assert!(text.parse::<Window>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_length_of_time_is_a_number_and_a_unit() {
        for (text, seconds, shown) in [
            ("90s", 90, "90s"),
            ("90", 90, "90s"),
            ("15m", 900, "15m"),
            ("5 min", 300, "5m"),
            ("24h", 86400, "1d"),
            ("7d", 604_800, "7d"),
            ("0s", 0, "0s"),
        ] {
            let span: Span = text.parse().unwrap();
            assert_eq!(
                (span.0, span.to_string().as_str()),
                (Duration::from_secs(seconds), shown),
                "{text}"
            );
        }

        for text in [
            "",
            "s",
            "-1s",
            "1w",
            "1.5h",
            "5minutes",
            "99999999999999999999s",
            "9999999999999999999d",
        ] {
            assert!(text.parse::<Span>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_zone_is_named_as_in_the_time_zone_database() {
        let noon: Timestamp = "2026-06-01T12:00:00Z".parse().unwrap();
        for (text, hour) in [
            ("Europe/Berlin", 14),
            ("UTC", 12),
            ("America/New_York", 8),
            ("Asia/Kathmandu", 17),
        ] {
            let zone: Zone = text.parse().unwrap();
            assert_eq!(
                (zone.at(noon).hour(), zone.to_string().as_str()),
                (hour, text)
            );
        }

        let system: Zone = "system".parse().unwrap();
        assert_eq!(
            (system.at(noon).timestamp(), system.to_string().as_str()),
            (noon, "system")
        );

        for text in [
            "",
            "Berlin",
            "Europe/Atlantis",
            "../../etc/passwd",
            "+02:00",
        ] {
            let error = text.parse::<Zone>().unwrap_err();
            assert!(error.contains("such as Europe/Berlin"), "{error}");
        }
    }
}
