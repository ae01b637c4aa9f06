//! When a run is due: by the clock ([`Schedule`]), by what was written ([`OnChange`]), and again
//! after a failure ([`back_off`]). Everything here is pure: callers pass the time.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use bytesize::ByteSize;
use croner::Cron;
use croner::parser::{CronParser, Seconds, Year};
use jiff::civil::DateTime;
use jiff::tz::AmbiguousOffset;

use crate::clock::{Span, Timestamp, Zoned};

/// The last run may seem to have begun this far in the future, because the clock may have been
/// corrected since.
const CORRECTION: Duration = Duration::from_mins(5);

/// The pause after the first failure. It doubles with each further failure.
const FIRST_PAUSE: Duration = Duration::from_mins(1);

/// The longest pause after failures.
const LONGEST_PAUSE: Duration = Duration::from_hours(1);

/// When runs of one kind take place: `off`, at an interval (`1h`, or `every 1h`), or by a cron
/// expression of five fields (`30 2 * * *`, `@daily`).
///
/// An interval counts from the beginning of the last run. A cron expression names local times:
///
/// * If its hour field begins with `*`, it means each such hour that really passes. When clocks are
///   changed, an hour that the clock skips is missing, and an hour that comes twice counts twice.
/// * Otherwise each time that it names takes place exactly once a day. A time in an hour that the
///   clock skips is due at the end of the gap. A time that comes twice is due the first time.
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
    /// The expression as it was written, with single spaces.
    text: String,
    cron: Cron,
    /// The expression means hours that pass, not times of a day.
    each_hour: bool,
}

impl Schedule {
    /// No run takes place by this schedule.
    pub const OFF: Self = Self(Rule::Off);

    /// Whether the schedule is `off`.
    #[must_use]
    pub fn is_off(&self) -> bool {
        self.0 == Rule::Off
    }

    /// The first occurrence strictly after a time, in that time's zone. For an interval, this is
    /// the end of the interval that begins there. Returns `None` if the schedule is off, and at the
    /// end of the calendar.
    #[must_use]
    pub fn next(&self, after: &Zoned) -> Option<Zoned> {
        match &self.0 {
            Rule::Off => None,
            Rule::Every(Span(interval)) => after.checked_add(*interval).ok(),
            Rule::Cron(expression) if expression.each_hour => expression.next_passing_hour(after),
            Rule::Cron(expression) => expression.next_local_time(after),
        }
    }

    /// When the next run is due: a time up to `now` if it is due already. Returns `None` if the
    /// schedule is off.
    ///
    /// `last` is when the last run of this kind began, whatever its outcome. Without a last run,
    /// the schedule counts from `started`, when the agent began to follow it: an interval is then
    /// due at once, and a cron expression at its next occurrence.
    ///
    /// However many runs were missed, one run is due, and the ordinary times follow after it began.
    /// A beginning in the future means that the clock was wrong then or is wrong now, so a run is
    /// due at once; only a correction of up to 5 minutes is ignored.
    #[must_use]
    pub fn due(&self, last: Option<&Zoned>, started: &Zoned, now: &Zoned) -> Option<Zoned> {
        let begin = match (&self.0, last) {
            (Rule::Off, _) => return None,
            (_, Some(last)) => last,
            (Rule::Cron(_), None) => started,
            (Rule::Every(_), None) => return Some(now.clone()),
        };

        if is_in_the_future(begin, now) {
            return Some(now.clone());
        }
        self.next(&begin.with_time_zone(now.time_zone().clone()))
    }

    /// When to repeat what has failed this many times in a row, the last time at `ended`: after
    /// [`back_off`], or at the next ordinary occurrence if that is earlier.
    ///
    /// A schedule that is off is repeated too, because something else had asked for the run.
    #[must_use]
    pub fn retry(&self, ended: &Zoned, failures: u32) -> Option<Zoned> {
        let after_pause = ended.checked_add(back_off(failures)).ok();
        let ordinary = self.next(ended);

        match (after_pause, ordinary) {
            (Some(after_pause), Some(ordinary)) => Some(after_pause.min(ordinary)),
            (after_pause, ordinary) => after_pause.or(ordinary),
        }
    }
}

/// Whether the beginning of a run lies further in the future than a correction of the clock can
/// explain.
fn is_in_the_future(begin: &Zoned, now: &Zoned) -> bool {
    let correction = jiff::SignedDuration::try_from(CORRECTION).unwrap_or_default();
    begin.duration_until(now) < -correction
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

        // Leap days and weekdays together repeat within 400 years. The search itself ends where
        // croner's calendar does.
        let begin = DateTime::constant(2000, 1, 1, 0, 0, 0, 0);
        if cron.find_next_occurrence(&begin, true).is_err() {
            return Err(refused(text, "there is no such day"));
        }

        let hours = text.split(' ').nth(1).unwrap_or_default();
        Ok(Self {
            text: text.to_owned(),
            cron,
            each_hour: text == "@hourly" || hours.starts_with('*'),
        })
    }

    /// The next time of a day that the expression names, each once.
    ///
    /// A later local time is never an earlier instant, so the first due instant after `after` is
    /// the answer.
    fn next_local_time(&self, after: &Zoned) -> Option<Zoned> {
        let zone = after.time_zone();
        let mut civil = after.datetime();

        loop {
            civil = self.cron.find_next_occurrence(&civil, false).ok()?;

            let ambiguous = zone.to_ambiguous_zoned(civil);
            let earlier = ambiguous.clone().earlier().ok()?;
            let due = match ambiguous.offset() {
                AmbiguousOffset::Unambiguous { .. } | AmbiguousOffset::Fold { .. } => earlier,
                AmbiguousOffset::Gap { .. } => {
                    let change = zone.following(earlier.timestamp()).next()?;
                    change.timestamp().to_zoned(zone.clone())
                }
            };

            // In an hour that comes twice, the first instant can be before `after`.
            if due > *after {
                return Some(due);
            }
        }
    }

    /// The next instant at which the local clock shows a time that the expression names. The search
    /// goes from one change of the clocks to the next.
    fn next_passing_hour(&self, after: &Zoned) -> Option<Zoned> {
        let zone = after.time_zone();
        let (mut from, mut inclusive) = (after.timestamp(), false);

        loop {
            let offset = zone.to_offset(from);
            let civil = self
                .cron
                .find_next_occurrence(&offset.to_datetime(from), inclusive)
                .ok()?;
            let due = offset.to_timestamp(civil).ok()?;

            match zone.following(from).next() {
                Some(change) if change.timestamp() <= due => {
                    (from, inclusive) = (change.timestamp(), true);
                }
                _ => return Some(due.to_zoned(zone.clone())),
            }
        }
    }
}

fn refused(text: &str, why: &str) -> String {
    format!(
        "{text:?} is not a schedule such as `1h`, `30 2 * * *` (each day at 02:30), \
         `0 */6 * * *`, `0 3 * * sun`, `@daily` or `off`: {why}"
    )
}

impl FromStr for Schedule {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let words: Vec<&str> = text.split_whitespace().collect();
        let text = words.join(" ");
        if text == "off" {
            return Ok(Self::OFF);
        }

        let is_name = text.starts_with('@');
        if let Some(interval) = text.strip_prefix("every ") {
            return every(&text, interval);
        }
        if words.len() <= 1 && !is_name {
            return every(&text, &text);
        }

        if is_name {
            if !["@hourly", "@daily", "@weekly", "@monthly"].contains(&text.as_str()) {
                let why = "the names are @hourly, @daily, @weekly and @monthly";
                return Err(refused(&text, why));
            }
        } else if words.len() != 5 {
            let why = format!(
                "it has {} fields instead of five: minute, hour, day of the month, month, day of \
                 the week",
                words.len()
            );
            return Err(refused(&text, &why));
        }
        Ok(Self(Rule::Cron(Box::new(Expression::parse(&text)?))))
    }
}

/// A schedule with an interval.
fn every(text: &str, interval: &str) -> Result<Schedule, String> {
    let span = span_with_unit(interval).map_err(|why| refused(text, &why))?;
    if span.0 < Duration::from_secs(1) {
        return Err(refused(text, "an interval lasts at least a second"));
    }
    Ok(Schedule(Rule::Every(span)))
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

/// A length of time. Its unit must not be missing.
fn span_with_unit(text: &str) -> Result<Span, String> {
    if text.ends_with(|last: char| last.is_ascii_digit()) {
        return Err(format!("{text:?} has no unit: s, m, h or d"));
    }
    text.parse()
}

/// How much later than its occurrence a run begins, from 0 to below `limit`. The same seed (such as
/// the agent's id) and occurrence always give the same length; the lengths are spread evenly.
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

/// The pause after this many failures in a row: none without failures, 1 minute after the first,
/// doubled by each further failure, at most 1 hour.
#[must_use]
pub fn back_off(failures: u32) -> Duration {
    doubled(FIRST_PAUSE, LONGEST_PAUSE, failures)
}

/// The pause after this many failures in a row: none without failures, `first` after the first,
/// doubled by each further failure, at most `longest`.
#[must_use]
pub fn doubled(first: Duration, longest: Duration, failures: u32) -> Duration {
    let Some(doublings) = failures.checked_sub(1) else {
        return Duration::ZERO;
    };
    let factor = 1_u32.checked_shl(doublings).unwrap_or(u32::MAX);
    first.saturating_mul(factor).min(longest)
}

/// When a backup is due because of what was written since the last one: `64MiB or 5m`, either of
/// the two alone, or `off`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OnChange {
    /// Bytes of log.
    bytes: Option<u64>,
    /// Age of the oldest byte that is in no backup.
    age: Option<Span>,
}

impl OnChange {
    /// Writes never make a backup due.
    pub const OFF: Self = Self {
        bytes: None,
        age: None,
    };

    /// Whether writes never make a backup due.
    #[must_use]
    pub fn is_off(&self) -> bool {
        *self == Self::OFF
    }

    /// The age of the oldest write that makes a backup due, if age does.
    #[must_use]
    pub fn age(&self) -> Option<Duration> {
        self.age.map(|Span(age)| age)
    }

    /// Whether a backup is due: this many bytes were appended to the log since the last backup, or
    /// the oldest of them is this old. If nothing was written, no backup is due.
    #[must_use]
    pub fn is_due(&self, bytes_since: u64, oldest_change: Option<Duration>) -> bool {
        if bytes_since == 0 {
            return false;
        }

        let is_much = self.bytes.is_some_and(|limit| bytes_since >= limit);
        let is_old = match (self.age, oldest_change) {
            (Some(Span(limit)), Some(age)) => age >= limit,
            _ => false,
        };
        is_much || is_old
    }

    /// How long until a backup is due if nothing more is written; zero if it is due now. Returns
    /// `None` if age alone makes no backup due.
    #[must_use]
    pub fn due_in(&self, bytes_since: u64, oldest_change: Option<Duration>) -> Option<Duration> {
        if self.is_due(bytes_since, oldest_change) {
            return Some(Duration::ZERO);
        }

        match (self.age, oldest_change) {
            (Some(Span(limit)), Some(age)) if bytes_since > 0 => Some(limit.saturating_sub(age)),
            _ => None,
        }
    }
}

impl FromStr for OnChange {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        parse_limits(text).map_err(|why| {
            format!(
                "{text:?} is not a limit of changes such as `64MiB or 5m`, `64MiB`, `5m` or \
                 `off`: {why}"
            )
        })
    }
}

fn parse_limits(text: &str) -> Result<OnChange, String> {
    let mut limits = OnChange::OFF;
    if text.trim() == "off" {
        return Ok(limits);
    }

    for part in text.split(" or ").map(str::trim) {
        let is_size = part.ends_with(['B', 'b']);
        if is_size && limits.bytes.is_none() {
            let Ok(size) = ByteSize::from_str(part) else {
                return Err(format!("{part:?} is not a number of bytes"));
            };
            limits.bytes = Some(size.as_u64());
        } else if !is_size && limits.age.is_none() {
            limits.age = Some(span_with_unit(part)?);
        } else {
            return Err("it sets the same limit twice".to_owned());
        }
    }

    if limits.bytes == Some(0) {
        return Err("the number of bytes is zero".to_owned());
    }
    if limits.age == Some(Span(Duration::ZERO)) {
        return Err("the length of time is zero".to_owned());
    }
    Ok(limits)
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

/// Writes the exact number of bytes in the largest unit that divides it.
fn write_bytes(f: &mut fmt::Formatter<'_>, bytes: u64) -> fmt::Result {
    for (shift, name) in [(40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")] {
        if bytes.trailing_zeros() >= shift {
            return write!(f, "{}{name}", bytes >> shift);
        }
    }
    write!(f, "{bytes}B")
}

#[cfg(test)]
mod tests;
