//! The tables of restore points and of runs.

use std::time::Duration;

use maud::{Markup, html};

use super::formatting::{bytes, counted, length, number, quoted, took};
use super::{Page, with_code};
use crate::agent::facts::{BackupFacts, RestorePoint};
use crate::agent::run_record::{Job, Pause, RunOutcome, RunRecord};
use crate::manifest::BackupKind;
use crate::proof::Depth;

/// How many restore points are listed, unless all are asked for.
const POINTS: usize = 50;
/// How many runs are listed, unless all are asked for.
const RUNS: usize = 20;

const POINT_COLUMNS: [&str; 8] = [
    "Backup", "Kind", "Branch", "Position", "Size", "New", "Verified", "Notes",
];
const RUN_COLUMNS: [&str; 7] = [
    "When",
    "What",
    "Took",
    "Result",
    "Read",
    "Stored",
    "Stopped at the node",
];
/// The columns that are aligned to the right.
const NUMBERS: [&str; 7] = [
    "Branch", "Position", "Size", "New", "Took", "Read", "Stored",
];

impl Page<'_> {
    pub(super) fn points(&self) -> Markup {
        let Some(facts) = &self.status.repository.facts else {
            return html! {};
        };
        let count = facts.points.len();
        let shown = facts.points.iter().rev().take(self.limit(count, POINTS));

        html! {
            section aria-labelledby="points" {
                h2 #points { "Restore points" }
                @if count == 0 { p.empty { "There is no backup yet." } } @else {
                    (table(&POINT_COLUMNS, &html! {
                        @for point in shown { (self.point(point, &facts.place)) }
                    }))
                    (self.fold(count, POINTS, "restore points"))
                }
            }
        }
    }

    fn point(&self, point: &RestorePoint, place: &str) -> Markup {
        let is_newest = self.status.newest.as_ref() == Some(&point.label.to_string());

        html! {
            tr role="row" id=(point.label) {
                td.main role="cell" data-label="Backup" {
                    @if let Some(backup) = point.backup {
                        strong { (self.time(backup.finished, "%-d %b %Y %H:%M")) }
                        span.more {
                            " " (self.times.relative(backup.finished))
                            ", took " (took(backup.started, backup.finished))
                        }
                    }
                    (restore(point, place))
                }
                @match &point.backup {
                    Some(backup) => (self.backup(backup)),
                    None => {
                        td role="cell" colspan="5" data-label="Manifest" {
                            "its manifest cannot be read"
                        }
                    }
                }
                td role="cell" data-label="Verified" {
                    @match point.verified {
                        None => span.more { "never" },
                        Some(verified) => {
                            (self.times.relative(verified.at)) " "
                            span.more { "(" (depth(verified.depth)) ")" }
                        }
                    }
                }
                td role="cell" data-label="Notes" {
                    @for (class, note) in notes(point, is_newest) {
                        span class=(format!("badge {class}")) { (note) } " "
                    }
                }
            }
        }
    }

    fn backup(&self, backup: &BackupFacts) -> Markup {
        html! {
            td role="cell" data-label="Kind" { (backup.kind) }
            td.number role="cell" data-label="Branch" { (backup.branch) }
            td.number role="cell" data-label="Position" {
                (number(backup.position))
                @if let Some(event) = backup.last_event {
                    br;
                    span.more { "last event " (self.times.when(event)) }
                }
            }
            td.number role="cell" data-label="Size" { (bytes(backup.bytes)) }
            td.number role="cell" data-label="New" { (bytes(backup.bytes_stored)) }
        }
    }

    pub(super) fn runs(&self) -> Markup {
        let history = &self.status.history;
        let shown = history.iter().rev().take(self.limit(history.len(), RUNS));

        html! {
            section aria-labelledby="runs" {
                h2 #runs { "What was done" }
                @if history.is_empty() { p.empty { "The agent remembers no run." } } @else {
                    (table(&RUN_COLUMNS, &html! {
                        @for record in shown { (self.run(record)) }
                    }))
                    (self.fold(history.len(), RUNS, "runs"))
                }
            }
        }
    }

    fn run(&self, record: &RunRecord) -> Markup {
        let (mut warnings, mut hints): (&[String], &[String]) = (&[], &[]);
        match &record.outcome {
            RunOutcome::Done { warnings: all, .. } => warnings = all,
            RunOutcome::Failed { hints: all, .. } => hints = all,
            _ => {}
        }

        html! {
            tr role="row" {
                td.main role="cell" data-label="When" {
                    (self.time(record.began, "%-d %b %H:%M:%S"))
                }
                td role="cell" data-label="What" { (record.job) }
                td.number role="cell" data-label="Took" { (took(record.began, record.ended)) }
                td role="cell" data-label="Result" {
                    (self.outcome(record))
                    (details("Warnings", warnings))
                    (details("Hints", hints))
                    (details("Started over", &record.retries))
                }
                td.number role="cell" data-label="Read" { (amount(record.bytes_read)) }
                td.number role="cell" data-label="Stored" { (stored(record)) }
                td role="cell" data-label="Stopped at the node" {
                    @for pause in &record.pauses { (self::pause(pause)) }
                }
            }
        }
    }

    pub(super) fn outcome(&self, record: &RunRecord) -> Markup {
        html! {
            @match &record.outcome {
                RunOutcome::Done { warnings, .. } => {
                    span.good { "done" }
                    @if !warnings.is_empty() { ", " (counted(warnings.len(), "warning")) }
                }
                RunOutcome::UpToDate => "nothing new",
                RunOutcome::Skipped { because } => { "not needed: " (with_code(because)) }
                RunOutcome::Interrupted { why } => { "ended early: " (with_code(why)) }
                RunOutcome::Failed { message, kind, .. } => {
                    span.bad { "failed" } " (" (kind) "): " (with_code(message))
                }
            }
        }
    }

    fn limit(&self, count: usize, most: usize) -> usize {
        if self.view.all {
            count
        } else {
            count.min(most)
        }
    }

    /// Says how much of a table is shown, if there is more.
    fn fold(&self, count: usize, most: usize, what: &str) -> Markup {
        html! {
            @if count > most {
                p.fold {
                    @if self.view.all { a href="./" { "Only the newest" } }
                    @else {
                        "The newest " (most) " of " (count) ". "
                        a href="./?all" { "Show all " (what) }
                    }
                }
            }
        }
    }
}

fn notes(point: &RestorePoint, is_newest: bool) -> Vec<(&'static str, &'static str)> {
    let mut notes = Vec::new();

    if is_newest {
        notes.push(("good", "newest good"));
    }
    if point.is_damaged() {
        notes.push(("bad", "damaged in the repository"));
    }
    match &point.backup {
        None => notes.push(("bad", "unreadable")),
        Some(backup) => {
            if !backup.is_sound {
                notes.push(("bad", "damaged at the node"));
            }
            if backup.kind == BackupKind::Full {
                notes.push(("", "every byte read"));
            }
        }
    }

    notes
}

const fn depth(depth: Depth) -> &'static str {
    match depth {
        Depth::Quick => "quick",
        Depth::Normal => "normal",
        Depth::Deep => "deep",
    }
}

/// The commands that restore a backup.
fn restore(point: &RestorePoint, place: &str) -> Markup {
    let (label, repository) = (&point.label, quoted(place));
    let command = format!("kbackup restore {label} --repo {repository} --to DIR");
    let title = format!("Commands that restore {label}");

    html! {
        details {
            summary { "Restore " span.label { (label) } }
            @if point.good().is_none() {
                p.bad { "This backup is damaged, or may be. Take another one if there is one." }
            }
            p {
                "First see what the restore would do, then do it. "
                code { "DIR" } " is an empty directory."
            }
            pre tabindex="0" aria-label=(title) {
                code { (command) " --dry-run\n" (command) }
            }
        }
    }
}

fn stored(record: &RunRecord) -> Markup {
    let stored = record.bytes_stored;
    let is_freed = record.job == Job::Expire && stored > 0;

    html! {
        @if is_freed { (bytes(stored)) " freed" } @else { (amount(stored)) }
    }
}

fn pause(pause: &Pause) -> Markup {
    html! {
        span.line {
            (pause.what) " "
            @match pause.milliseconds {
                Some(milliseconds) => (length(Duration::from_millis(milliseconds))),
                None => span.badge.bad { "not given back" },
            }
        }
    }
}

fn details(name: &str, lines: &[String]) -> Markup {
    html! {
        @if !lines.is_empty() {
            details {
                summary { (name) }
                ul { @for line in lines { li { (with_code(line)) } } }
            }
        }
    }
}

fn amount(count: u64) -> String {
    if count == 0 {
        "–".to_owned()
    } else {
        bytes(count)
    }
}

/// On a narrow screen the rows become cards. The roles keep it a table for screen readers.
fn table(heads: &[&str], rows: &Markup) -> Markup {
    html! {
        table role="table" {
            thead role="rowgroup" {
                tr role="row" {
                    @for head in heads {
                        th.number[NUMBERS.contains(head)] role="columnheader" scope="col" { (head) }
                    }
                }
            }
            tbody role="rowgroup" { (rows) }
        }
    }
}
