//! The picture of the last weeks: what was backed up when, how much and how long it took, and when
//! nothing was.
//!
//! Horizontal places are shares of the width, so that one picture fits a phone and a wall, and its
//! words keep their size.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::{SignedDuration, ToSpan};
use maud::{Markup, html};

use super::words::{Words, bytes, length};
use crate::agent::journal::{Outcome, Record};
use crate::agent::status::{Status, roughly};
use crate::clock::{Span, Timestamp, between};
use crate::manifest::BackupKind;

/// The picture goes back so many days at least: the smallest that holds everything, or the last.
const DAYS: [i64; 3] = [7, 14, 28];
/// What falls into the same of so many slots is drawn as one.
const SLOTS: u32 = 168;

const SIZE_BASE: u32 = 132;
const SIZE_HEIGHT: f64 = 92.0;
const TIME_BASE: u32 = 196;
const TIME_HEIGHT: f64 = 32.0;
const VERIFIED: u32 = 224;
const FAILED: u32 = 252;
const PAUSED: u32 = 280;
const BOTTOM: u32 = 294;
const HEIGHT: u32 = 318;

/// A stretch of time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stretch {
    pub from: Timestamp,
    pub to: Timestamp,
}

/// A backup as it is drawn.
#[derive(Debug, Clone, Copy)]
struct Backup {
    kind: BackupKind,
    started: Timestamp,
    finished: Timestamp,
    stored: u64,
    is_good: bool,
    /// It has been removed since.
    is_gone: bool,
}

/// What is drawn as one.
#[derive(Debug)]
struct Column {
    fulls: u32,
    diffs: u32,
    damaged: u32,
    is_gone: bool,
    stored: u64,
    longest: Duration,
    seen: Stretch,
}

/// What happened, as far as repository and journal tell.
pub(super) struct Picture<'a> {
    status: &'a Status,
    words: Words<'a>,
    shown: Stretch,
    days: i64,
    backups: Vec<Backup>,
    gaps: Vec<Stretch>,
}

impl<'a> Picture<'a> {
    pub(super) fn of(status: &'a Status, words: Words<'a>) -> Self {
        let backups = backups(status);
        let firsts = [
            backups.iter().map(|backup| backup.started).min(),
            status.history.first().map(|record| record.began),
        ];
        let first = firsts.into_iter().flatten().min().unwrap_or(status.at);
        let begin = |days: i64| {
            let midnight = words
                .at(status.at)
                .start_of_day()
                .ok()
                .and_then(|today| today.checked_sub((days - 1).days()).ok());
            midnight.map_or(status.at, |midnight| midnight.timestamp())
        };
        let days = DAYS
            .into_iter()
            .find(|days| begin(*days) <= first)
            .unwrap_or(28);
        let shown = Stretch {
            from: begin(days),
            to: status.at,
        };
        let gaps = gaps(status, &backups)
            .into_iter()
            .filter(|gap| gap.to > shown.from)
            .collect();
        Self {
            status,
            words,
            shown,
            days,
            backups,
            gaps,
        }
    }

    /// The stretches of time for which more was at stake than allowed.
    pub(super) fn gaps(&self) -> &[Stretch] {
        &self.gaps
    }

    pub(super) fn days(&self) -> i64 {
        self.days
    }

    pub(super) fn shown_since(&self) -> Timestamp {
        self.shown.from
    }

    pub(super) fn draw(&self) -> Markup {
        let columns = self.columns();
        let largest = columns
            .values()
            .map(|column| column.stored)
            .max()
            .unwrap_or(0);
        let longest = columns
            .values()
            .map(|column| column.longest)
            .max()
            .unwrap_or_default();
        html! {
            svg.picture role="img" aria-labelledby="picture-title picture-facts" width="100%" height=(HEIGHT) xmlns="http://www.w3.org/2000/svg" {
                title #picture-title { "Backups of the last " (self.days) " days" }
                desc #picture-facts { (self.in_words()) }
                defs {
                    pattern #hatch width="6" height="6" patternUnits="userSpaceOnUse" patternTransform="rotate(45)" {
                        rect.hatch-ground width="6" height="6" {}
                        line.hatch-line x1="0" y1="0" x2="0" y2="6" {}
                    }
                    (symbol("diff", &html! { circle cx="5" cy="5" r="3.5" {} }))
                    (symbol("full", &html! { path d="M5 0 10 5 5 10 0 5Z" {} }))
                    (symbol("tick", &html! { path d="M1 5.5 4 8.5 9 2" {} }))
                    (symbol("cross", &html! { path d="M1.5 1.5 8.5 8.5M8.5 1.5 1.5 8.5" {} }))
                }
                (self.axis())
                @for gap in &self.gaps { (self.gap(gap)) }
                (lane("Stored", SIZE_BASE - 110, &scale(largest > 0, || format!("up to {}", bytes(largest)))))
                (lane("Took", TIME_BASE - 40, &scale(!longest.is_zero(), || format!("up to {}", length(longest)))))
                line.base x1="0" x2="100%" y1=(SIZE_BASE) y2=(SIZE_BASE) {}
                line.base x1="0" x2="100%" y1=(TIME_BASE) y2=(TIME_BASE) {}
                @for (slot, column) in &columns { (self.column(*slot, column, largest, longest)) }
                (lane("Verified", VERIFIED - 1, ""))
                @for (slot, (good, text)) in self.verified() { (mark(slot, VERIFIED, if good { "tick" } else { "cross" }, if good { "good" } else { "bad" }, &text)) }
                (lane("Failed", FAILED - 1, ""))
                @for (slot, text) in self.failed() { (mark(slot, FAILED, "cross", "bad", &text)) }
                (lane("Scavenge paused", PAUSED - 1, ""))
                @for pause in self.paused() { (pause) }
            }
        }
    }

    /// How far from the left edge a moment stands, of 1.
    fn share(&self, at: Timestamp) -> f64 {
        let seconds =
            |length: SignedDuration| f64::from(u32::try_from(length.as_secs()).unwrap_or(0));
        let whole = seconds(self.shown.to.duration_since(self.shown.from));
        if whole > 0.0 {
            (seconds(at.duration_since(self.shown.from)) / whole).min(1.0)
        } else {
            1.0
        }
    }

    fn slot(&self, at: Timestamp) -> Option<u32> {
        let seconds = |length: SignedDuration| u64::try_from(length.as_secs()).ok();
        let (past, whole) = (
            seconds(at.duration_since(self.shown.from))?,
            seconds(self.shown.to.duration_since(self.shown.from))?,
        );
        u32::try_from(
            past.saturating_mul(u64::from(SLOTS))
                .checked_div(whole)?
                .min(u64::from(SLOTS) - 1),
        )
        .ok()
    }

    fn columns(&self) -> BTreeMap<u32, Column> {
        let mut columns: BTreeMap<u32, Column> = BTreeMap::new();
        for backup in &self.backups {
            let Some(slot) = self.slot(backup.started) else {
                continue;
            };
            let seen = Stretch {
                from: backup.started,
                to: backup.finished,
            };
            let column = columns.entry(slot).or_insert(Column {
                fulls: 0,
                diffs: 0,
                damaged: 0,
                is_gone: true,
                stored: 0,
                longest: Duration::ZERO,
                seen,
            });
            match backup.kind {
                BackupKind::Full => column.fulls += 1,
                BackupKind::Diff => column.diffs += 1,
            }
            column.damaged += u32::from(!backup.is_good);
            column.is_gone &= backup.is_gone;
            column.stored = column.stored.saturating_add(backup.stored);
            column.longest = column.longest.max(between(backup.started, backup.finished));
            column.seen = Stretch {
                from: column.seen.from.min(backup.started),
                to: column.seen.to.max(backup.finished),
            };
        }
        columns
    }

    fn column(&self, slot: u32, column: &Column, largest: u64, longest: Duration) -> Markup {
        let top =
            f64::from(SIZE_BASE) - SIZE_HEIGHT * magnitude(column.stored >> 10, largest >> 10);
        let seconds = SECOND_HALVES;
        let time_top = f64::from(TIME_BASE)
            - TIME_HEIGHT * magnitude(millis(column.longest) / seconds, millis(longest) / seconds);
        let x = place(slot);
        let class = match column {
            Column { damaged: 1.., .. } => "backup damaged",
            Column { is_gone: true, .. } => "backup gone",
            _ => "backup",
        };
        let shape = if column.damaged > 0 {
            "#cross"
        } else if column.fulls > 0 {
            "#full"
        } else {
            "#diff"
        };
        html! {
            g class=(class) {
                title { (self.describe(column)) }
                line.stem x1=(x) x2=(x) y1=(SIZE_BASE) y2=(format!("{top:.1}")) {}
                use href=(shape) x=(x) y=(format!("{top:.1}")) {}
                line.time x1=(x) x2=(x) y1=(TIME_BASE) y2=(format!("{time_top:.1}")) {}
            }
        }
    }

    fn describe(&self, column: &Column) -> String {
        let count = |count: u32, what: &str| match count {
            0 => None,
            1 => Some(format!("1 {what}")),
            many => Some(format!("{many} {what}s")),
        };
        let kinds: Vec<String> = [count(column.fulls, "full"), count(column.diffs, "diff")]
            .into_iter()
            .flatten()
            .collect();
        let Stretch { from, to } = column.seen;
        let (when, took) = match column.fulls + column.diffs {
            1 => (self.words.when(from), "took"),
            _ => (
                format!("{} to {}", self.words.when(from), self.words.when(to)),
                "took up to",
            ),
        };
        let condition = match (column.damaged, column.is_gone) {
            (0, false) => "",
            (0, true) => ", removed since",
            _ => ", DAMAGED",
        };
        format!(
            "{when}: {}, {} stored, {took} {}{condition}",
            kinds.join(" and "),
            bytes(column.stored),
            length(column.longest)
        )
    }

    fn axis(&self) -> Markup {
        let every = if self.days > 14 { 7 } else { self.days / 7 };
        let today = self.words.at(self.shown.to).date();
        let days = (0..self.days).filter_map(|back| {
            let midnight = today
                .checked_sub(back.days())
                .ok()?
                .to_zoned(self.words.at(self.shown.to).time_zone().clone())
                .ok()?;
            Some((back, midnight))
        });
        html! {
            @for (back, midnight) in days.filter(|(_, midnight)| midnight.timestamp() >= self.shown.from) {
                @let x = percent(self.share(midnight.timestamp()));
                @let is_named = back % every == (self.days - 1) % every;
                line class=(if is_named { "day named" } else { "day" }) x1=(x) x2=(x) y1="0" y2=(if is_named { HEIGHT - 4 } else { BOTTOM }) {}
                @if is_named { text.axis x=(x) dx="4" y=(HEIGHT - 6) { (midnight.strftime("%-d %b")) } }
            }
        }
    }

    fn gap(&self, gap: &Stretch) -> Markup {
        let (from, to) = (self.share(gap.from), self.share(gap.to));
        html! {
            rect.gap x=(percent(from)) width=(percent((to - from).max(0.002))) y="0" height=(BOTTOM) fill="url(#hatch)" {
                title { (self.describe_gap(gap)) }
            }
        }
    }

    pub(super) fn describe_gap(&self, gap: &Stretch) -> String {
        let limit = Span(Duration::from_secs(self.status.max_age_seconds));
        format!(
            "{} to {}: no backup for longer than {limit}",
            self.words.when(gap.from),
            self.words.when(gap.to)
        )
    }

    /// The last verification in each slot, a bad one before good ones.
    fn verified(&self) -> BTreeMap<u32, (bool, String)> {
        let points = self
            .status
            .repository
            .facts
            .iter()
            .flat_map(|facts| &facts.points);
        let remembered = points.filter_map(|point| Some((point.verified?, point)));
        let mut marks = BTreeMap::new();
        for (verified, point) in remembered {
            let Some(slot) = self.slot(verified.at) else {
                continue;
            };
            let result = if verified.is_damaged() {
                "damaged"
            } else {
                "intact"
            };
            let mark = (
                !verified.is_damaged(),
                format!(
                    "{}: {} verified, {result}",
                    self.words.when(verified.at),
                    point.label
                ),
            );
            let is_worse = |known: &(bool, String)| known.0 || !mark.0;
            if marks.get(&slot).is_none_or(is_worse) {
                marks.insert(slot, mark);
            }
        }
        marks
    }

    fn failed(&self) -> BTreeMap<u32, String> {
        let mut marks: BTreeMap<u32, (u32, String)> = BTreeMap::new();
        for record in &self.status.history {
            let (Outcome::Failed { message, .. }, Some(slot)) =
                (&record.outcome, self.slot(record.ended))
            else {
                continue;
            };
            let times = marks.get(&slot).map_or(0, |(times, _)| *times);
            marks.insert(
                slot,
                (
                    times + 1,
                    format!(
                        "{}: {} failed: {message}",
                        self.words.when(record.ended),
                        record.job
                    ),
                ),
            );
        }
        marks
            .into_iter()
            .map(|(slot, (times, text))| {
                (
                    slot,
                    if times > 1 {
                        format!("{times} failures, the last {text}")
                    } else {
                        text
                    },
                )
            })
            .collect()
    }

    fn paused(&self) -> impl Iterator<Item = Markup> {
        let pauses = self
            .status
            .history
            .iter()
            .flat_map(|record| record.pauses.iter().map(move |pause| (record, pause)));
        pauses.filter(|(_, pause)| pause.began >= self.shown.from).map(|(record, pause)| {
            let lasted = pause.milliseconds.map(Duration::from_millis);
            let to = lasted.and_then(|lasted| pause.began.checked_add(lasted).ok()).unwrap_or(record.ended);
            let (from, to) = (self.share(pause.began), self.share(to));
            let text = match lasted {
                Some(lasted) => format!("{}: {} paused for {}", self.words.when(pause.began), pause.what, length(lasted)),
                None => format!("{}: {} paused, and not given back by that run", self.words.when(pause.began), pause.what),
            };
            html! {
                svg x=(percent(from)) y=(PAUSED - 5) width="100%" height="10" overflow="visible" {
                    rect class=(if lasted.is_some() { "pause" } else { "pause bad" }) width=(percent((to - from).max(0.004))) height="10" rx="2" { title { (text) } }
                }
            }
        })
    }

    /// The picture's facts for those who do not see it.
    pub(super) fn in_words(&self) -> String {
        let in_view: Vec<&Backup> = self
            .backups
            .iter()
            .filter(|backup| backup.started >= self.shown.from)
            .collect();
        let fulls = in_view
            .iter()
            .filter(|backup| backup.kind == BackupKind::Full)
            .count();
        let stored = in_view
            .iter()
            .fold(0_u64, |sum, backup| sum.saturating_add(backup.stored));
        let recent: Vec<&Record> = self
            .status
            .history
            .iter()
            .filter(|record| record.began >= self.shown.from)
            .collect();
        let failures = recent.iter().filter(|record| record.is_failure()).count();
        let paused: u64 = recent
            .iter()
            .flat_map(|record| &record.pauses)
            .filter_map(|pause| pause.milliseconds)
            .sum();
        let mut text = format!(
            "{}, {} of them full, {} stored; {failures} {}; ",
            counted(in_view.len(), "backup"),
            fulls,
            bytes(stored),
            if failures == 1 { "failure" } else { "failures" }
        );
        text += &match self
            .gaps
            .iter()
            .max_by_key(|gap| gap.to.duration_since(gap.from))
        {
            None => "no gap".to_owned(),
            Some(longest) => {
                let length = between(longest.from, longest.to);
                format!(
                    "{}, the longest {} beyond the limit",
                    counted(self.gaps.len(), "gap"),
                    roughly(length)
                )
            }
        };
        if paused > 0 {
            text += &format!(
                "; scavenging paused for {} in all",
                length(Duration::from_millis(paused))
            );
        }
        text
    }
}

/// Half a second is the shortest time that can be told from none.
const SECOND_HALVES: u64 = 500;

fn counted(count: usize, what: &str) -> String {
    if count == 1 {
        format!("1 {what}")
    } else {
        format!("{count} {what}s")
    }
}

fn millis(of: Duration) -> u64 {
    u64::try_from(of.as_millis()).unwrap_or(u64::MAX)
}

/// How large something is beside the largest, of 1; what is a thousand times larger looks larger by
/// the same step anywhere.
fn magnitude(of: u64, largest: u64) -> f64 {
    let logarithm = |of: u64| (1.0 + f64::from(u32::try_from(of).unwrap_or(u32::MAX))).ln();
    let whole = logarithm(largest);
    if whole > 0.0 {
        logarithm(of) / whole
    } else {
        0.0
    }
}

fn percent(share: f64) -> String {
    format!("{:.2}%", share * 100.0)
}

/// The middle of a slot.
fn place(slot: u32) -> String {
    percent((f64::from(slot) + 0.5) / f64::from(SLOTS))
}

fn scale(is_any: bool, text: impl FnOnce() -> String) -> String {
    if is_any { text() } else { String::new() }
}

fn lane(name: &str, y: u32, scale: &str) -> Markup {
    html! {
        text.lane x="0" y=(y) { (name) @if !scale.is_empty() { tspan.scale dx="6" { (scale) } } }
    }
}

/// A shape of ten by ten around its place.
fn symbol(name: &str, shape: &Markup) -> Markup {
    html! { g id=(name) { g transform="translate(-5 -5)" { (shape) } } }
}

fn mark(slot: u32, y: u32, shape: &str, class: &str, text: &str) -> Markup {
    html! { g class=(format!("mark {class}")) { title { (text) } use href=(format!("#{shape}")) x=(place(slot)) y=(y) {} } }
}

/// Those of the repository, and those that were made and are gone; oldest first.
fn backups(status: &Status) -> Vec<Backup> {
    let points = status
        .repository
        .facts
        .as_ref()
        .map(|facts| facts.points.as_slice())
        .unwrap_or_default();
    let mut backups: BTreeMap<_, Backup> = BTreeMap::new();
    for record in &status.history {
        if let Outcome::Done {
            label: Some(label), ..
        } = &record.outcome
        {
            let kind = if label.to_string().ends_with("full") {
                BackupKind::Full
            } else {
                BackupKind::Diff
            };
            let (started, finished, stored) = (record.began, record.ended, record.bytes_stored);
            backups.insert(
                label,
                Backup {
                    kind,
                    started,
                    finished,
                    stored,
                    is_good: true,
                    is_gone: true,
                },
            );
        }
    }
    for point in points {
        if let Some(made) = point.made {
            let (started, finished, stored) = (made.started, made.finished, made.bytes_stored);
            backups.insert(
                &point.label,
                Backup {
                    kind: made.kind,
                    started,
                    finished,
                    stored,
                    is_good: point.good().is_some(),
                    is_gone: false,
                },
            );
        }
    }
    let mut backups: Vec<Backup> = backups.into_values().collect();
    backups.sort_by_key(|backup| backup.finished);
    backups
}

/// The times in which the newest good backup was older than allowed. A look that found nothing new
/// is as good as a backup.
fn gaps(status: &Status, backups: &[Backup]) -> Vec<Stretch> {
    let made = backups
        .iter()
        .filter(|backup| backup.is_good)
        .map(|backup| (backup.started, backup.finished));
    let looked = status
        .history
        .iter()
        .filter(|record| record.outcome == Outcome::UpToDate)
        .map(|record| (record.began, record.ended));
    let mut covered: Vec<(Timestamp, Timestamp)> = made.chain(looked).collect();
    covered.sort_by_key(|(_, until)| *until);
    let everything_is_backed_up = status
        .exposure
        .is_some_and(|exposure| exposure.since.is_none());
    let now = if everything_is_backed_up {
        None
    } else {
        Some((status.at, status.at))
    };
    let limit =
        SignedDuration::from_secs(i64::try_from(status.max_age_seconds).unwrap_or(i64::MAX));
    let following = covered.iter().skip(1).copied().chain(now);
    covered
        .iter()
        .zip(following)
        .filter_map(|((started, _), (_, until))| {
            let from = started.checked_add(limit).ok()?;
            (from < until).then_some(Stretch { from, to: until })
        })
        .collect()
}
