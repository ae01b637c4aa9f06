//! The page that people see: is this node safe, what comes next, what was, and how to get it back.
//! Pure: a status goes in, HTML comes out.
//!
//! There is no script in it and nothing comes from outside. It does not renew itself while somebody
//! reads; after two minutes it says that it is old, and `?live` renews it for a screen on a wall.

mod picture;
mod words;

use std::sync::LazyLock;
use std::time::Duration;

use maud::{DOCTYPE, Markup, PreEscaped, html};

use self::picture::Picture;
use self::words::{Words, bytes, length, number, quoted, took};
use super::journal::{Job, Outcome, Record, Trigger};
use super::observation::{Made, Point};
use super::status::{Concern, JobStatus, Level, Running, Status, roughly};
use crate::clock::{Span, Timestamp, Zone, between};
use crate::manifest::BackupKind;
use crate::proof::Depth;

/// The style sheet.
pub const STYLE: &str = include_str!("page.css");
/// So many restore points are listed unless all are asked for.
const POINTS: usize = 50;
/// And so many runs.
const RUNS: usize = 20;
/// A page on a wall renews itself so often, in seconds.
const RENEWED: u32 = 30;

/// The style sheet's name, which changes with what it says.
pub static STYLE_NAME: LazyLock<String> = LazyLock::new(|| {
    let hash = blake3::hash(STYLE.as_bytes()).to_hex();
    format!("style-{}.css", hash.get(..16).unwrap_or_default())
});

/// How the page is wanted.
#[derive(Debug, Clone, Copy)]
pub struct View<'a> {
    /// Whose clock its times are.
    pub zone: &'a Zone,
    /// Every restore point and run, not only the newest.
    pub all: bool,
    /// It renews itself.
    pub live: bool,
    /// What everybody who sees it should know of how it is served.
    pub notice: Option<&'a str>,
}

/// The page, as a whole document.
#[must_use]
pub fn page(status: &Status, view: View<'_>) -> String {
    let words = Words {
        now: status.at,
        zone: view.zone,
    };
    Page {
        status,
        view,
        words,
    }
    .document()
    .into_string()
}

/// The mark of a level, for the tab.
#[must_use]
pub fn icon(level: Level) -> String {
    let (colour, shape) = match level {
        Level::Safe => ("#1a7f4b", "M4.5 8.5 7 11 11.5 5.5"),
        Level::Attention => ("#a35c00", "M8 4v5M8 11.6v.1"),
        Level::Danger => ("#c0262d", "M5 5 11 11M11 5 5 11"),
    };
    html! {
        svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 16 16" {
            circle cx="8" cy="8" r="8" fill=(colour) {}
            path d=(shape) fill="none" stroke="#fff" stroke-width="2" stroke-linecap="round" stroke-linejoin="round" {}
        }
    }
    .into_string()
}

struct Page<'a> {
    status: &'a Status,
    view: View<'a>,
    words: Words<'a>,
}

impl Page<'_> {
    fn document(&self) -> Markup {
        let level = self.status.verdict.level;
        html! {
            (DOCTYPE)
            html lang="en" {
                head {
                    meta charset="utf-8";
                    meta name="viewport" content="width=device-width, initial-scale=1";
                    meta name="color-scheme" content="light dark";
                    meta name="robots" content="noindex";
                    @if self.view.live { meta http-equiv="refresh" content=(RENEWED); }
                    title { (word(level)) " – " (self.name()) }
                    link rel="icon" href=(format!("icon-{level}.svg")) type="image/svg+xml";
                    link rel="stylesheet" href=(STYLE_NAME.as_str());
                }
                body {
                    a.skip href="#main" { "Skip to what is known" } "\n"
                    (self.header())
                    main #main tabindex="-1" {
                        (self.verdict())
                        @if let Some(notice) = self.view.notice { p.notice { (notice) } }
                        (self.figures())
                        (self.concerns())
                        @if let Some(running) = &self.status.running { (self.running(running)) }
                        (self.jobs())
                        (self.picture())
                        (self.points())
                        (self.runs())
                    }
                    (self.footer())
                }
            }
        }
    }

    /// What the page is about: the node, or else where its backups are.
    fn name(&self) -> String {
        let node = self
            .status
            .node
            .as_ref()
            .and_then(|node| node.facts.as_ref());
        match (node, &self.status.repository.facts) {
            (Some(node), _) => node.place.clone(),
            (None, Some(repository)) => repository.place.clone(),
            (None, None) => "kbackup".to_owned(),
        }
    }

    fn header(&self) -> Markup {
        let target = if self.view.all { "./?all" } else { "./" };
        html! {
            header.top {
                span.brand { "kbackup" }
                span.name { (self.name()) }
                span.asof {
                    "as of " (self.time(self.status.at, "%H:%M:%S %Z"))
                    " " a href=(target) { "Refresh" }
                    " " @if self.view.live { a href="./" { "Stop renewing" } } @else { a href="./?live" { "Keep renewing" } }
                }
            }
            p.stale role="status" { "This page is more than two minutes old. " a href=(target) { "Refresh it" } " before you rely on it." }
        }
    }

    fn verdict(&self) -> Markup {
        let verdict = &self.status.verdict;
        html! {
            section.verdict.(verdict.level.to_string()) aria-labelledby="verdict" {
                (sign(verdict.level))
                div {
                    p.word { (word(verdict.level)) }
                    h1 #verdict { (with_code(&verdict.sentence)) "." }
                }
            }
        }
    }

    fn figures(&self) -> Markup {
        let status = self.status;
        html! {
            dl.figures {
                div { dt { "In no backup" } @match status.exposure {
                    None => { dd { "not known" } dd.more { "the node’s files cannot be seen from here" } }
                    Some(exposure) => {
                        dd { (bytes(exposure.bytes)) }
                        dd.more { @match exposure.since {
                            None => "everything written is backed up",
                            Some(since) => { "since " (self.words.when(since)) ", " (self.words.relative(since)) }
                        } }
                    }
                } }
                div { dt { "Newest good backup" } @match status.newest_good() {
                    None => { dd { "none" } }
                    Some((point, made)) => {
                        dd { (self.words.relative(made.finished)) }
                        dd.more { a href=(format!("#{}", point.label)) { (point.label) } }
                    }
                } }
                div { dt { "Repository" } @match &status.repository.facts {
                    None => { dd { "out of reach" } @if let Some(problem) = &status.repository.problem { dd.more { (with_code(problem)) } } }
                    Some(facts) => {
                        dd { (counted(facts.points.len(), "backup")) }
                        dd.more { @if let Some(free) = facts.free_bytes { (bytes(free)) " free in " } (facts.place) }
                    }
                } }
                @if let Some(node) = &status.node {
                    div { dt { "Node" } @match &node.facts {
                        None => { dd { "does not answer" } @if let Some(problem) = &node.problem { dd.more { (with_code(problem)) } } }
                        Some(facts) => {
                            dd { (facts.state) }
                            dd.more { "version " (facts.version) @if facts.scavenge.is_some() { ", scavenging" } }
                        }
                    } }
                }
            }
        }
    }

    fn concerns(&self) -> Markup {
        let concerns = &self.status.verdict.concerns;
        html! {
            @if !concerns.is_empty() {
                section aria-labelledby="concerns" {
                    h2 #concerns { "What to look at" }
                    ul.concerns { @for concern in concerns { (self::concern(concern)) } }
                }
            }
        }
    }

    fn running(&self, running: &Running) -> Markup {
        html! {
            section aria-labelledby="running" {
                h2 #running { "Running now" }
                div.running {
                    p { strong { (running.job) } ", " (running.step) ", for " (took(running.began, self.status.at)) }
                    @if running.expected > 0 {
                        @let done = running.done.min(running.expected);
                        progress max=(running.expected) value=(done) aria-label="Progress of this step" {}
                        p.more { (bytes(done)) " of " (bytes(running.expected)) " in this step" }
                    } @else if running.done > 0 {
                        p.more { (bytes(running.done)) " in this step" }
                    }
                    p.more {
                        @if running.holds.is_empty() { "Nothing is held of the node." }
                        @else { "Held of the node, and given back at the end: " strong { (running.holds.join(", ")) } }
                    }
                }
            }
        }
    }

    fn jobs(&self) -> Markup {
        html! {
            @if !self.status.jobs.is_empty() {
                section aria-labelledby="jobs" {
                    h2 #jobs { "What happens next" }
                    div.jobs { @for job in &self.status.jobs { (self.job(job)) } }
                }
            }
        }
    }

    fn job(&self, job: &JobStatus) -> Markup {
        html! {
            article.job {
                h3 { (job.plan.job) }
                p.next { (self.next(job)) }
                @if let Some(hold) = &job.plan.hold { p.hold { "Waits: " (with_code(hold)) } }
                p.more { "Schedule: " code { (job.schedule) } }
                @if let Some(last) = &job.last { p.more { "Last: " (self.outcome(last)) ", " (self.words.relative(last.ended)) } }
                @if job.failures > 0 {
                    p.more.bad { "Failed " (if job.failures == 1 { "once".to_owned() } else { format!("{} times in a row", job.failures) }) }
                    p.more { @match job.last_success {
                        None => "Never done before",
                        Some(success) => { "Last done " (self.words.relative(success)) }
                    } }
                }
            }
        }
    }

    fn next(&self, job: &JobStatus) -> Markup {
        let is_running = self
            .status
            .running
            .as_ref()
            .is_some_and(|running| running.job == job.plan.job);
        let why = match job.plan.trigger {
            Trigger::Schedule => "",
            Trigger::First => " – the first backup",
            Trigger::Change => " – because of what was written",
            Trigger::Retry => " – again after a failure",
        };
        html! {
            @match job.plan.due {
                _ if is_running => "running",
                None => "never by itself",
                Some(due) if due <= self.status.at => { "due now" (why) }
                Some(due) => { (self.words.relative(due)) span.more { ", at " (self.time(due, "%H:%M")) (why) } }
            }
        }
    }

    fn picture(&self) -> Markup {
        let picture = Picture::of(self.status, self.words);
        let runs_known = self
            .status
            .history
            .first()
            .map(|record| record.began)
            .filter(|began| *began > picture.shown_since());
        html! {
            section aria-labelledby="weeks" {
                h2 #weeks { "The last " (picture.days()) " days" }
                figure {
                    (picture.draw())
                    figcaption {
                        p { (picture.in_words()) "." }
                        ul.legend aria-label="Legend" {
                            li { (key("0 0 10 10", &html! { circle.fill cx="5" cy="5" r="3.5" {} })) "diff" }
                            li { (key("0 0 10 10", &html! { path.fill d="M5 0 10 5 5 10 0 5Z" {} })) "full" }
                            li { (key("0 0 10 10", &html! { circle.hollow cx="5" cy="5" r="3.5" {} })) "removed since" }
                            li { (key("0 0 10 10", &html! { path.stroke.bad d="M1.5 1.5 8.5 8.5M8.5 1.5 1.5 8.5" {} })) "damaged, failed" }
                            li { (key("0 0 10 10", &html! { path.stroke.good d="M1 5.5 4 8.5 9 2" {} })) "verified" }
                            li { (key("0 0 16 10", &html! { rect.hatched width="16" height="10" {} })) "gap: older than " (Span(Duration::from_secs(self.status.max_age_seconds))) }
                        }
                        p.more { "Heights are logarithmic; what lies close together is drawn as one. Times are those of " (self.view.zone) "."
                            @if let Some(since) = runs_known { " Failures and pauses are remembered since " (self.words.when(since)) "." }
                        }
                        @if !picture.gaps().is_empty() {
                            details { summary { (counted(picture.gaps().len(), "gap")) }
                                ul { @for gap in picture.gaps() { li { (picture.describe_gap(gap)) } } }
                            }
                        }
                    }
                }
            }
        }
    }

    fn points(&self) -> Markup {
        let Some(facts) = &self.status.repository.facts else {
            return html! {};
        };
        let shown = self.limit(facts.points.len(), POINTS);
        html! {
            section aria-labelledby="points" {
                h2 #points { "Restore points" }
                @if facts.points.is_empty() { p.empty { "There is none yet." } } @else {
                    (table(&["Backup", "Kind", "Branch", "Position", "Size", "New", "Verified", "Notes"], &html! {
                        @for point in facts.points.iter().rev().take(shown) { (self.point(point, &facts.place)) }
                    }))
                    (self.fold(facts.points.len(), POINTS, "restore points"))
                }
            }
        }
    }

    fn point(&self, point: &Point, place: &str) -> Markup {
        let is_newest = self.status.newest.as_deref() == Some(point.label.to_string().as_str());
        let notes = notes(point, is_newest);
        html! {
            tr role="row" id=(point.label) {
                td.main role="cell" data-label="Backup" {
                    @if let Some(made) = point.made {
                        strong { (self.time(made.finished, "%-d %b %Y %H:%M")) }
                        span.more { " " (self.words.relative(made.finished)) ", took " (took(made.started, made.finished)) }
                    }
                    (restore(point, place))
                }
                @if let Some(made) = point.made { (self.made(&made)) } @else {
                    td role="cell" colspan="5" data-label="Manifest" { "its manifest cannot be read" }
                }
                td role="cell" data-label="Verified" { @match point.verified {
                    None => span.more { "never" },
                    Some(verified) => { (self.words.relative(verified.at)) " " span.more { "(" (depth(verified.depth)) ")" } }
                } }
                td role="cell" data-label="Notes" { @for (class, note) in notes { span class=(format!("badge {class}")) { (note) } " " } }
            }
        }
    }

    fn made(&self, made: &Made) -> Markup {
        html! {
            td role="cell" data-label="Kind" { (made.kind) }
            td.number role="cell" data-label="Branch" { (made.branch) }
            td.number role="cell" data-label="Position" { (number(made.position))
                @if let Some(event) = made.last_event { br; span.more { "last event " (self.words.when(event)) } } }
            td.number role="cell" data-label="Size" { (bytes(made.bytes)) }
            td.number role="cell" data-label="New" { (bytes(made.bytes_stored)) }
        }
    }

    fn runs(&self) -> Markup {
        let history = &self.status.history;
        let shown = self.limit(history.len(), RUNS);
        html! {
            section aria-labelledby="runs" {
                h2 #runs { "What was done" }
                @if history.is_empty() { p.empty { "Nothing yet, as far as is remembered." } } @else {
                    (table(&["When", "What", "Took", "Result", "Read", "Stored", "Took from the node"], &html! {
                        @for record in history.iter().rev().take(shown) { (self.run(record)) }
                    }))
                    (self.fold(history.len(), RUNS, "runs"))
                }
            }
        }
    }

    fn run(&self, record: &Record) -> Markup {
        let (stored, is_expiry) = (record.bytes_stored, record.job == Job::Expire);
        html! {
            tr role="row" {
                td.main role="cell" data-label="When" { (self.time(record.began, "%-d %b %H:%M:%S")) }
                td role="cell" data-label="What" { (record.job) }
                td.number role="cell" data-label="Took" { (took(record.began, record.ended)) }
                td role="cell" data-label="Result" {
                    (self.outcome(record))
                    (details("Warnings", match &record.outcome { Outcome::Done { warnings, .. } => warnings, _ => &[] }))
                    (details("Hints", match &record.outcome { Outcome::Failed { hints, .. } => hints, _ => &[] }))
                    (details("Began over", &record.retries))
                }
                td.number role="cell" data-label="Read" { (amount(record.bytes_read)) }
                td.number role="cell" data-label="Stored" { @if is_expiry && stored > 0 { (bytes(stored)) " freed" } @else { (amount(stored)) } }
                td role="cell" data-label="Took from the node" { @for pause in &record.pauses {
                    span.line { (pause.what) " " @match pause.milliseconds {
                        Some(milliseconds) => (length(Duration::from_millis(milliseconds))),
                        None => span.badge.bad { "not given back" },
                    } }
                } }
            }
        }
    }

    fn outcome(&self, record: &Record) -> Markup {
        html! {
            @match &record.outcome {
                Outcome::Done { warnings, .. } if warnings.is_empty() => span.good { "done" },
                Outcome::Done { warnings, .. } => { span.good { "done" } ", " (counted(warnings.len(), "warning")) }
                Outcome::UpToDate => "nothing new",
                Outcome::Skipped { because } => { "not needed: " (with_code(because)) }
                Outcome::Interrupted { why } => { "ended early: " (with_code(why)) }
                Outcome::Failed { message, kind, .. } => { span.bad { "failed" } " (" (kind) "): " (with_code(message)) }
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

    fn fold(&self, count: usize, most: usize, what: &str) -> Markup {
        html! {
            @if count > most {
                p.fold {
                    @if self.view.all { a href="./" { "Only the newest" } }
                    @else { "The newest " (most) " of " (count) ". " a href="./?all" { "Show all " (what) } }
                }
            }
        }
    }

    fn footer(&self) -> Markup {
        html! {
            footer {
                @if let Some(agent) = &self.status.agent {
                    span { (agent.version) ", running for " (roughly(between(agent.started, self.status.at))) }
                }
                @if let Some(facts) = &self.status.repository.facts { span { "repository " code { (facts.id) } } }
                span { a href="status.json" { "status.json" } " " a href="metrics" { "metrics" } }
            }
        }
    }

    /// A time for people and programs.
    fn time(&self, at: Timestamp, pattern: &str) -> Markup {
        html! { time datetime=(at) { (self.words.at(at).strftime(pattern)) } }
    }
}

const fn word(level: Level) -> &'static str {
    match level {
        Level::Safe => "Safe",
        Level::Attention => "Attention",
        Level::Danger => "Danger",
    }
}

/// The sign of a level, which tells it without its colour.
fn sign(level: Level) -> Markup {
    PreEscaped(icon(level).replace("<svg ", "<svg class=\"sign\" aria-hidden=\"true\" "))
}

fn concern(concern: &Concern) -> Markup {
    html! {
        li.(concern.level.to_string()) {
            (sign(concern.level))
            div {
                span.hidden { (word(concern.level)) ": " }
                p.first { (with_code(&concern.what)) }
                @for hint in &concern.hints { p.more { "Hint: " (with_code(hint)) } }
            }
        }
    }
}

fn key(view: &str, shape: &Markup) -> Markup {
    html! { svg.key viewBox=(view) aria-hidden="true" { (shape) } }
}

fn notes(point: &Point, is_newest: bool) -> Vec<(&'static str, &'static str)> {
    let is_damaged = point.verified.is_some_and(|verified| verified.is_damaged());
    let all = [
        (is_newest, "good", "newest good"),
        (is_damaged, "bad", "damaged in the repository"),
        (
            point.made.is_some_and(|made| !made.is_sound),
            "bad",
            "damaged at the node",
        ),
        (point.made.is_none(), "bad", "unreadable"),
        (
            point.made.is_some_and(|made| made.kind == BackupKind::Full),
            "",
            "every byte read",
        ),
    ];
    all.into_iter()
        .filter(|(holds, ..)| *holds)
        .map(|(_, class, note)| (class, note))
        .collect()
}

const fn depth(of: Depth) -> &'static str {
    match of {
        Depth::Quick => "quick",
        Depth::Normal => "normal",
        Depth::Deep => "deep",
    }
}

/// How to get it back.
fn restore(point: &Point, place: &str) -> Markup {
    let (label, repository) = (&point.label, quoted(place));
    html! {
        details {
            summary { "Restore " span.label { (label) } }
            @if point.good().is_none() { p.bad { "This one is damaged, or may be. Take another if there is one." } }
            p { "See first what would be done, then do it. " code { "DIR" } " is an empty directory." }
            pre tabindex="0" aria-label=(format!("Commands that restore {label}")) { code {
                "kbackup restore " (label) " --repo " (repository) " --to DIR --dry-run\n"
                "kbackup restore " (label) " --repo " (repository) " --to DIR"
            } }
        }
    }
}

fn details(name: &str, lines: &[String]) -> Markup {
    html! { @if !lines.is_empty() { details { summary { (name) } ul { @for line in lines { li { (with_code(line)) } } } } } }
}

/// What stands between backticks is code; a last one that stands alone is left.
fn with_code(text: &str) -> Markup {
    let parts: Vec<&str> = text.split('`').collect();
    let paired = (parts.len() - 1) / 2 * 2;
    html! {
        @for (at, part) in parts.iter().enumerate() {
            @if at % 2 == 1 && at < paired { code { (part) } } @else { @if at > paired { "`" } (part) }
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

fn counted(count: usize, what: &str) -> String {
    if count == 1 {
        format!("1 {what}")
    } else {
        format!("{count} {what}s")
    }
}

/// What stands in these columns is aligned to the right.
const NUMBERS: [&str; 7] = [
    "Branch", "Position", "Size", "New", "Took", "Read", "Stored",
];

/// On a narrow screen its rows become cards, which would take the roles from it.
fn table(heads: &[&str], rows: &Markup) -> Markup {
    html! {
        table role="table" {
            thead role="rowgroup" { tr role="row" { @for head in heads { th.number[NUMBERS.contains(head)] role="columnheader" scope="col" { (head) } } } }
            tbody role="rowgroup" { (rows) }
        }
    }
}
