//! When something is due: by the clock, by what was written, again after a failure. Pure: nothing
//! here looks at a clock.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use bytesize::ByteSize;
use croner::Cron;
use croner::parser::{CronParser, Seconds, Year};
use jiff::civil::DateTime;
use jiff::tz::AmbiguousOffset;

use crate::clock::{Span, Timestamp, Zoned};

/// How far in the future the last run may seem to lie, because a clock was corrected, and still be
/// believed.
const CORRECTION: Duration = Duration::from_mins(5);

/// Pause after the first failure; it doubles with each further one.
const FIRST_PAUSE: Duration = Duration::from_mins(1);

/// The longest pause after failures.
const LONGEST_PAUSE: Duration = Duration::from_hours(1);

/// When a kind of run takes place: `off`, every so often (`1h`, or `every 1h`), or by a cron
/// expression of five fields (`30 2 * * *`, `@daily`).
///
/// An interval counts from the beginning of the last run. A cron expression names times of the
/// clock on the wall. Where the hour field begins with `*` it means each such hour that really
/// passes: one that is left out when clocks are changed is missing, one that comes twice counts
/// twice. Otherwise each time it names takes place exactly once a day: what falls into an hour that
/// is left out is due at the end of the gap, what comes twice is due the first time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Schedule(Rule);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Rule {
    Off,
    Every(Span),
    Cron(Box<Expression>),
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Expression {
    /// As it was written, apart from white space.
    text: String,
    cron: Cron,
    /// It means hours that pass, not times of a day.
    each_hour: bool,
}

impl Schedule {
    /// It never takes place by itself.
    pub const OFF: Self = Self(Rule::Off);

    /// Whether it never takes place by itself.
    #[must_use]
    pub fn is_off(&self) -> bool {
        self.0 == Rule::Off
    }

    /// The first occurrence strictly after a time, in that time's zone; for an interval, the end of
    /// the one that begins there. None: off, or the end of the calendar.
    #[must_use]
    pub fn next(&self, after: &Zoned) -> Option<Zoned> {
        match &self.0 {
            Rule::Off => None,
            Rule::Every(Span(interval)) => after.checked_add(*interval).ok(),
            Rule::Cron(expression) if expression.each_hour => expression.next_that_passes(after),
            Rule::Cron(expression) => expression.next_on_the_wall(after),
        }
    }

    /// When the next run is due: now, if that is not after `now`. None: never by itself.
    ///
    /// `last` is when the last run of this kind began, whatever became of it; without one it counts
    /// from `started`, when somebody began to look: an interval is then due at once, a cron
    /// expression when it says so next. However many runs were missed, one is due, and the ordinary
    /// times follow once it began. A beginning that lies in the future says nothing, as the clock
    /// was wrong then or is now: a run is due at once. Only a correction of up to 5 minutes is
    /// passed over.
    #[must_use]
    pub fn due(&self, last: Option<&Zoned>, started: &Zoned, now: &Zoned) -> Option<Zoned> {
        let is_believed = |begin: &Zoned| {
            begin.duration_until(now)
                >= -jiff::SignedDuration::try_from(CORRECTION).unwrap_or_default()
        };
        match (&self.0, last) {
            (Rule::Off, _) => None,
            (_, Some(last)) if is_believed(last) => {
                self.next(&last.with_time_zone(now.time_zone().clone()))
            }
            (Rule::Cron(_), None) if is_believed(started) => {
                self.next(&started.with_time_zone(now.time_zone().clone()))
            }
            _ => Some(now.clone()),
        }
    }

    /// When to try again what has failed so many times in a row, the last time at `ended`: after
    /// [`back_off`], or at the next ordinary occurrence where that is earlier.
    ///
    /// What is off is tried again too: something else had asked for it.
    #[must_use]
    pub fn retry(&self, ended: &Zoned, failures: u32) -> Option<Zoned> {
        let paused = ended.checked_add(back_off(failures)).ok();
        [paused, self.next(ended)].into_iter().flatten().min()
    }
}

impl Expression {
    fn parse(text: &str) -> Result<Self, String> {
        let parser = CronParser::builder()
            .seconds(Seconds::Disallowed)
            .year(Year::Disallowed)
            .build();
        let cron = parser
            .parse(text)
            .map_err(|why| refused(text, &why.to_string()))?;
        // Leap days and weekdays together repeat within 400 years; the search itself ends where
        // croner's calendar does.
        let begin = DateTime::constant(2000, 1, 1, 0, 0, 0, 0);
        if cron.find_next_occurrence(&begin, true).is_err() {
            return Err(refused(text, "no day is like that"));
        }
        let each_hour = text == "@hourly"
            || text
                .split(' ')
                .nth(1)
                .is_some_and(|hours| hours.starts_with('*'));
        Ok(Self {
            text: text.to_owned(),
            cron,
            each_hour,
        })
    }

    /// Each time of a day once. Later times of the wall never stand for earlier instants, so that
    /// the first one that lies after `after` is the answer.
    fn next_on_the_wall(&self, after: &Zoned) -> Option<Zoned> {
        let zone = after.time_zone();
        let mut civil = after.datetime();
        loop {
            civil = self.cron.find_next_occurrence(&civil, false).ok()?;
            let ambiguous = zone.to_ambiguous_zoned(civil);
            let due = match ambiguous.offset() {
                AmbiguousOffset::Gap { .. } => {
                    let before = ambiguous.earlier().ok()?;
                    let change = zone.following(before.timestamp()).next()?;
                    change.timestamp().to_zoned(zone.clone())
                }
                AmbiguousOffset::Unambiguous { .. } | AmbiguousOffset::Fold { .. } => {
                    ambiguous.earlier().ok()?
                }
            };
            // Only within hours that come twice is this not so at once.
            if due > *after {
                return Some(due);
            }
        }
    }

    /// Every time the clock on the wall shows it, from one change of the clocks to the next.
    fn next_that_passes(&self, after: &Zoned) -> Option<Zoned> {
        let zone = after.time_zone();
        let (mut from, mut inclusive) = (after.timestamp(), false);
        loop {
            let offset = zone.to_offset(from);
            let civil = self
                .cron
                .find_next_occurrence(&offset.to_datetime(from), inclusive)
                .ok()?;
            let due = offset.to_timestamp(civil).ok()?;
            match zone.following(from).next().map(|change| change.timestamp()) {
                Some(change) if change <= due => (from, inclusive) = (change, true),
                _ => return Some(due.to_zoned(zone.clone())),
            }
        }
    }
}

fn refused(text: &str, why: &str) -> String {
    format!(
        "{text:?} is no schedule such as `1h`, `30 2 * * *` (each day at 02:30), `0 */6 * * *`, `0 3 * * sun`, `@daily` or `off`: {why}"
    )
}

impl FromStr for Schedule {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
        let fields = text.split(' ').count();
        let interval = text.strip_prefix("every ");
        if text == "off" {
            Ok(Self::OFF)
        } else if let Some(span) =
            interval.or_else(|| (fields == 1 && !text.starts_with('@')).then_some(text.as_str()))
        {
            let span: Span = with_unit(span).map_err(|why| refused(&text, &why))?;
            let is_long_enough = span.0 >= Duration::from_secs(1);
            is_long_enough
                .then_some(Self(Rule::Every(span)))
                .ok_or_else(|| refused(&text, "an interval lasts at least a second"))
        } else if text.starts_with('@')
            && !["@hourly", "@daily", "@weekly", "@monthly"].contains(&text.as_str())
        {
            Err(refused(
                &text,
                "the names are @hourly, @daily, @weekly and @monthly",
            ))
        } else if fields != 5 && !text.starts_with('@') {
            let plural = if fields == 1 { "" } else { "s" };
            Err(refused(
                &text,
                &format!(
                    "it has {fields} field{plural} and not five: minute, hour, day of the month, month, day of the week"
                ),
            ))
        } else {
            Expression::parse(&text).map(|expression| Self(Rule::Cron(Box::new(expression))))
        }
    }
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Rule::Off => f.write_str("off"),
            Rule::Every(span) => span.fmt(f),
            Rule::Cron(expression) => f.write_str(&expression.text),
        }
    }
}

/// A length of time whose unit has to be said.
fn with_unit(text: &str) -> Result<Span, String> {
    if text.ends_with(|last: char| last.is_ascii_digit()) {
        return Err(format!("{text:?} has no unit: s, m, h or d"));
    }
    text.parse()
}

/// How much later than its occurrence a run begins: always the same for the same seed (say, the
/// agent's id) and occurrence, spread evenly from 0 to below `limit`.
#[must_use]
pub fn jitter(limit: Duration, seed: &str, occurrence: Timestamp) -> Duration {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&occurrence.as_nanosecond().to_le_bytes());
    hasher.update(seed.as_bytes());
    let mut share = [0; 8];
    hasher.finalize_xof().fill(&mut share);
    let limit = u64::try_from(limit.as_nanos()).unwrap_or(u64::MAX);
    let nanoseconds = (u128::from(limit) * u128::from(u64::from_le_bytes(share))) >> 64;
    Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(u64::MAX))
}

/// The pause after so many failures in a row: 1 minute, doubled by each further one, at most 1
/// hour; none without failures.
#[must_use]
pub fn back_off(failures: u32) -> Duration {
    let Some(doublings) = failures.checked_sub(1) else {
        return Duration::ZERO;
    };
    let factor = 1_u32.checked_shl(doublings).unwrap_or(u32::MAX);
    FIRST_PAUSE.saturating_mul(factor).min(LONGEST_PAUSE)
}

/// How much, or how old, what was written since the last backup may become: `64MiB or 5m`, either
/// of them alone, or `off`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OnChange {
    /// Bytes of log.
    bytes: Option<u64>,
    /// Age of the oldest byte that is in no backup.
    age: Option<Span>,
}

impl OnChange {
    /// Nothing that is written asks for a backup.
    pub const OFF: Self = Self {
        bytes: None,
        age: None,
    };

    /// Whether nothing that is written asks for a backup.
    #[must_use]
    pub fn is_off(&self) -> bool {
        *self == Self::OFF
    }

    /// Whether a backup is due: that many bytes were appended to the log since the last one, or the
    /// oldest of them is that old. Where nothing was written it never is.
    #[must_use]
    pub fn is_due(&self, bytes_since: u64, oldest_change: Option<Duration>) -> bool {
        let much = self.bytes.is_some_and(|limit| bytes_since >= limit);
        let old = self
            .age
            .zip(oldest_change)
            .is_some_and(|(Span(limit), age)| age >= limit);
        bytes_since > 0 && (much || old)
    }

    /// In how long a backup is due if nothing more is written; zero: now. None: not because of the
    /// age of what was written.
    #[must_use]
    pub fn due_in(&self, bytes_since: u64, oldest_change: Option<Duration>) -> Option<Duration> {
        if self.is_due(bytes_since, oldest_change) {
            return Some(Duration::ZERO);
        }
        let (Span(limit), age) = self.age.zip(oldest_change.filter(|_| bytes_since > 0))?;
        Some(limit.saturating_sub(age))
    }
}

impl FromStr for OnChange {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = |why: &str| {
            format!(
                "{text:?} is no limit of changes such as `64MiB or 5m`, `64MiB`, `5m` or `off`: {why}"
            )
        };
        let mut limits = Self::OFF;
        if text.trim() == "off" {
            return Ok(limits);
        }
        for part in text.split(" or ").map(str::trim) {
            let is_size = part.ends_with(['B', 'b']);
            if is_size && limits.bytes.is_none() {
                let size = ByteSize::from_str(part)
                    .map_err(|_| wrong(&format!("{part:?} is no number of bytes")))?;
                limits.bytes = Some(size.as_u64());
            } else if !is_size && limits.age.is_none() {
                limits.age = Some(with_unit(part).map_err(|why| wrong(&why))?);
            } else {
                return Err(wrong("it says the same thing twice"));
            }
        }
        match limits {
            Self { bytes: Some(0), .. } => Err(wrong("nothing is no limit")),
            Self {
                age: Some(Span(Duration::ZERO)),
                ..
            } => Err(wrong("no time is no limit")),
            limits => Ok(limits),
        }
    }
}

impl fmt::Display for OnChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.bytes, self.age) {
            (None, None) => f.write_str("off"),
            (Some(bytes), None) => write_bytes(f, bytes),
            (None, Some(age)) => age.fmt(f),
            (Some(bytes), Some(age)) => {
                write_bytes(f, bytes)?;
                write!(f, " or {age}")
            }
        }
    }
}

/// Exactly, in the largest unit that divides it.
fn write_bytes(f: &mut fmt::Formatter<'_>, bytes: u64) -> fmt::Result {
    let units = [(40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")];
    let (shift, name) = units
        .into_iter()
        .find(|(shift, _)| bytes.trailing_zeros() >= *shift)
        .unwrap_or((0, "B"));
    write!(f, "{}{name}", bytes >> shift)
}

#[cfg(test)]
mod tests;
