//! The picture of the last weeks: what was backed up when, how much, how long it took, and when
//! nothing was backed up.
//!
//! Horizontal places are shares of the width. So one picture fits a phone and a wall, and its texts
//! keep their size.

mod shapes;
mod timeline;

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::ToSpan;
use maud::{Markup, html};

use self::shapes::{height_of_bytes, height_of_time, lane, mark, middle, percent, symbol};
use self::timeline::{Column, DrawnBackup, TimeRange, backups, columns, gaps};
use super::formatting::{LocalTimes, bytes, counted, length};
use crate::agent::run_record::{Pause, RunOutcome, RunRecord};
use crate::agent::status::Status;
use crate::agent::verdict::roughly;
use crate::clock::{Span, Timestamp, Zoned, between};
use crate::manifest::BackupKind;

// The lanes, from the top down.
const SIZE_BASE: u32 = 132;
const SIZE_HEIGHT: f64 = 92.0;
const TIME_BASE: u32 = 196;
const TIME_HEIGHT: f64 = 32.0;
const VERIFIED: u32 = 224;
const FAILED: u32 = 252;
const PAUSED: u32 = 280;
const BOTTOM: u32 = 294;
const HEIGHT: u32 = 318;

/// What happened, as far as repository and journal say.
pub(super) struct Picture<'a> {
    status: &'a Status,
    times: LocalTimes<'a>,
    shown: TimeRange,
    days: i64,
    backups: Vec<DrawnBackup>,
    gaps: Vec<TimeRange>,
}

impl<'a> Picture<'a> {
    pub(super) fn of(status: &'a Status, times: LocalTimes<'a>) -> Self {
        let backups = backups(status);
        let (days, shown) = TimeRange::to_show(status, &backups, times);

        let mut gaps = gaps(status, &backups);
        gaps.retain(|gap| gap.to > shown.from);

        Self {
            status,
            times,
            shown,
            days,
            backups,
            gaps,
        }
    }

    /// The times in which the newest good backup was older than the limit.
    pub(super) fn gaps(&self) -> &[TimeRange] {
        &self.gaps
    }

    pub(super) fn days(&self) -> i64 {
        self.days
    }

    pub(super) fn shown_since(&self) -> Timestamp {
        self.shown.from
    }

    /// The picture as SVG.
    pub(super) fn draw(&self) -> Markup {
        html! {
            svg.picture role="img" aria-labelledby="picture-title picture-facts"
                width="100%" height=(HEIGHT) xmlns="http://www.w3.org/2000/svg" {
                title #picture-title { "Backups of the last " (self.days) " days" }
                desc #picture-facts { (self.in_words()) }
                (definitions())
                (self.axis())
                @for gap in &self.gaps { (self.gap(gap)) }
                (self.columns())
                (lane("Verified", VERIFIED - 1, None))
                (self.verifications())
                (lane("Failed", FAILED - 1, None))
                @for (slot, text) in self.failures() {
                    (mark(slot, FAILED, "cross", "bad", &text))
                }
                (lane("Scavenge paused", PAUSED - 1, None))
                (self.pauses())
            }
        }
    }

    /// A line for each midnight. Some lines have the date.
    fn axis(&self) -> Markup {
        let named_every = if self.days > 14 { 7 } else { self.days / 7 };

        html! {
            @for (back, midnight) in self.midnights() {
                @let x = percent(self.shown.share(midnight.timestamp()));
                @let is_named = back % named_every == (self.days - 1) % named_every;
                @if is_named {
                    line class="day named" x1=(x) x2=(x) y1="0" y2=(HEIGHT - 4) {}
                    text.axis x=(x) dx="4" y=(HEIGHT - 6) { (midnight.strftime("%-d %b")) }
                } @else {
                    line class="day" x1=(x) x2=(x) y1="0" y2=(BOTTOM) {}
                }
            }
        }
    }

    /// How many days ago each midnight in the picture was.
    fn midnights(&self) -> Vec<(i64, Zoned)> {
        let now = self.times.at(self.shown.to);

        let mut midnights = Vec::new();
        for back in 0..self.days {
            let Ok(day) = now.date().checked_sub(back.days()) else {
                continue;
            };
            let Ok(midnight) = day.to_zoned(now.time_zone().clone()) else {
                continue;
            };
            if midnight.timestamp() >= self.shown.from {
                midnights.push((back, midnight));
            }
        }

        midnights
    }

    fn gap(&self, gap: &TimeRange) -> Markup {
        let (from, to) = (self.shown.share(gap.from), self.shown.share(gap.to));
        let width = percent((to - from).max(0.002));

        html! {
            rect.gap x=(percent(from)) width=(width) y="0" height=(BOTTOM) fill="url(#hatch)" {
                title { (self.describe_gap(gap)) }
            }
        }
    }

    pub(super) fn describe_gap(&self, gap: &TimeRange) -> String {
        let limit = Span(Duration::from_secs(self.status.max_age_seconds));
        let (from, to) = (self.times.when(gap.from), self.times.when(gap.to));

        format!("{from} to {to}: no backup for longer than {limit}")
    }

    // --- Backups ----------------------------------------------------------------------------

    /// What the backups stored, and how long they took.
    fn columns(&self) -> Markup {
        let columns = columns(&self.backups, self.shown);
        let (mut largest, mut longest) = (0, Duration::ZERO);
        for column in columns.values() {
            largest = largest.max(column.stored);
            longest = longest.max(column.longest);
        }

        let stored = (largest > 0).then(|| format!("up to {}", bytes(largest)));
        let took = (!longest.is_zero()).then(|| format!("up to {}", length(longest)));
        html! {
            (lane("Stored", SIZE_BASE - 110, stored.as_deref()))
            (lane("Took", TIME_BASE - 40, took.as_deref()))
            line.base x1="0" x2="100%" y1=(SIZE_BASE) y2=(SIZE_BASE) {}
            line.base x1="0" x2="100%" y1=(TIME_BASE) y2=(TIME_BASE) {}
            @for (slot, column) in &columns { (self.column(*slot, column, largest, longest)) }
        }
    }

    fn column(&self, slot: u32, column: &Column, largest: u64, longest: Duration) -> Markup {
        let size = SIZE_HEIGHT * height_of_bytes(column.stored, largest);
        let time = TIME_HEIGHT * height_of_time(column.longest, longest);
        let size_top = format!("{:.1}", f64::from(SIZE_BASE) - size);
        let time_top = format!("{:.1}", f64::from(TIME_BASE) - time);

        let class = match column {
            Column { damaged: 1.., .. } => "backup damaged",
            Column { is_gone: true, .. } => "backup gone",
            _ => "backup",
        };
        let shape = match column {
            Column { damaged: 1.., .. } => "#cross",
            Column { fulls: 1.., .. } => "#full",
            _ => "#diff",
        };

        let x = middle(slot);
        html! {
            g class=(class) {
                title { (self.describe(column)) }
                line.stem x1=(x) x2=(x) y1=(SIZE_BASE) y2=(size_top) {}
                use href=(shape) x=(x) y=(size_top) {}
                line.time x1=(x) x2=(x) y1=(TIME_BASE) y2=(time_top) {}
            }
        }
    }

    fn describe(&self, column: &Column) -> String {
        let mut kinds = Vec::new();
        for (count, kind) in [(column.fulls, "full"), (column.diffs, "diff")] {
            if count > 0 {
                kinds.push(counted(count as usize, kind));
            }
        }
        let kinds = kinds.join(" and ");

        let TimeRange { from, to } = column.range;
        let mut when = self.times.when(from);
        let mut took = "took";
        if column.fulls + column.diffs != 1 {
            when = format!("{when} to {}", self.times.when(to));
            took = "took up to";
        }

        let condition = match (column.damaged, column.is_gone) {
            (0, false) => "",
            (0, true) => ", removed since",
            _ => ", DAMAGED",
        };
        let (stored, longest) = (bytes(column.stored), length(column.longest));
        format!("{when}: {kinds}, {stored} stored, {took} {longest}{condition}")
    }

    // --- Marks ------------------------------------------------------------------------------

    /// One mark for each slot with verifications. If one of them found damage, the mark says so.
    fn verifications(&self) -> Markup {
        let mut marks: BTreeMap<u32, (bool, String)> = BTreeMap::new();

        let facts = self.status.repository.facts.iter();
        for point in facts.flat_map(|facts| &facts.points) {
            let Some(verified) = point.verified else {
                continue;
            };
            let Some(slot) = self.shown.slot(verified.at) else {
                continue;
            };

            let is_intact = !verified.is_damaged();
            let result = if is_intact { "intact" } else { "damaged" };
            let when = self.times.when(verified.at);
            let text = format!("{when}: {} verified, {result}", point.label);
            match marks.get(&slot) {
                Some((false, _)) if is_intact => {}
                _ => drop(marks.insert(slot, (is_intact, text))),
            }
        }

        html! {
            @for (slot, (is_intact, text)) in marks {
                @let (shape, class) = if is_intact { ("tick", "good") } else { ("cross", "bad") };
                (mark(slot, VERIFIED, shape, class, &text))
            }
        }
    }

    /// A text for each slot with failures.
    fn failures(&self) -> BTreeMap<u32, String> {
        let mut failures: BTreeMap<u32, (u32, String)> = BTreeMap::new();
        for record in &self.status.history {
            let RunOutcome::Failed { message, .. } = &record.outcome else {
                continue;
            };
            let Some(slot) = self.shown.slot(record.ended) else {
                continue;
            };

            let when = self.times.when(record.ended);
            let (count, last) = failures.entry(slot).or_default();
            *count += 1;
            *last = format!("{when}: {} failed: {message}", record.job);
        }

        let mut texts = BTreeMap::new();
        for (slot, (count, last)) in failures {
            let text = if count > 1 {
                format!("{count} failures, the last {last}")
            } else {
                last
            };
            texts.insert(slot, text);
        }
        texts
    }

    fn pauses(&self) -> Markup {
        html! {
            @for record in &self.status.history {
                @for pause in &record.pauses {
                    @if pause.began >= self.shown.from { (self.pause(record, pause)) }
                }
            }
        }
    }

    fn pause(&self, record: &RunRecord, pause: &Pause) -> Markup {
        let lasted = pause.milliseconds.map(Duration::from_millis);
        let mut until = record.ended;
        if let Some(lasted) = lasted
            && let Ok(end) = pause.began.checked_add(lasted)
        {
            until = end;
        }

        let (from, to) = (self.shown.share(pause.began), self.shown.share(until));
        let width = percent((to - from).max(0.004));

        let (when, what) = (self.times.when(pause.began), &pause.what);
        let (class, text) = match lasted {
            Some(lasted) => {
                let lasted = length(lasted);
                ("pause", format!("{when}: {what} paused for {lasted}"))
            }
            None => (
                "pause bad",
                format!("{when}: {what} paused, and not given back by that run"),
            ),
        };
        html! {
            svg x=(percent(from)) y=(PAUSED - 5) width="100%" height="10" overflow="visible" {
                rect class=(class) width=(width) height="10" rx="2" { title { (text) } }
            }
        }
    }

    // --- The same in words ------------------------------------------------------------------

    /// The facts of the picture, for readers who cannot see it.
    pub(super) fn in_words(&self) -> String {
        let (mut backups, mut fulls, mut stored) = (0, 0, 0_u64);
        for backup in &self.backups {
            if backup.started >= self.shown.from {
                backups += 1;
                fulls += usize::from(backup.kind == BackupKind::Full);
                stored = stored.saturating_add(backup.stored);
            }
        }

        let (mut failures, mut paused) = (0, 0_u64);
        for record in &self.status.history {
            if record.began >= self.shown.from {
                failures += usize::from(record.is_failure());
                let pauses = record.pauses.iter().filter_map(|pause| pause.milliseconds);
                paused = paused.saturating_add(pauses.sum());
            }
        }

        let backups = counted(backups, "backup");
        let stored = bytes(stored);
        let failures = counted(failures, "failure");
        let gaps = self.gaps_in_words();
        let mut text =
            format!("{backups}, {fulls} of them full, {stored} stored; {failures}; {gaps}");
        if paused > 0 {
            let paused = length(Duration::from_millis(paused));
            text += &format!("; scavenging paused for {paused} in total");
        }
        text
    }

    fn gaps_in_words(&self) -> String {
        let mut longest = Duration::ZERO;
        for gap in &self.gaps {
            longest = longest.max(between(gap.from, gap.to));
        }
        if self.gaps.is_empty() {
            return "no gap".to_owned();
        }

        let gaps = counted(self.gaps.len(), "gap");
        format!("{gaps}, the longest {} beyond the limit", roughly(longest))
    }
}

/// The hatching and the shapes that marks use.
fn definitions() -> Markup {
    let cross = "M1.5 1.5 8.5 8.5M8.5 1.5 1.5 8.5";

    html! {
        defs {
            pattern #hatch width="6" height="6" patternUnits="userSpaceOnUse"
                patternTransform="rotate(45)" {
                rect.hatch-ground width="6" height="6" {}
                line.hatch-line x1="0" y1="0" x2="0" y2="6" {}
            }
            (symbol("diff", &html! { circle cx="5" cy="5" r="3.5" {} }))
            (symbol("full", &html! { path d="M5 0 10 5 5 10 0 5Z" {} }))
            (symbol("tick", &html! { path d="M1 5.5 4 8.5 9 2" {} }))
            (symbol("cross", &html! { path d=(cross) {} }))
        }
    }
}
