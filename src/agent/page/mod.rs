//! The page that people see: whether the node is safe, what comes next, what was, and how to
//! restore. Pure: a status goes in, HTML comes out.
//!
//! The page has no script and loads nothing from elsewhere. It does not reload while a person reads
//! it, but after two minutes it says that it is old. `?live` makes it reload, for a screen on a
//! wall.

mod formatting;
mod jobs;
mod picture;
mod tables;

use std::sync::LazyLock;
use std::time::Duration;

use maud::{DOCTYPE, Markup, PreEscaped, html};

use self::formatting::{LocalTimes, bytes, counted};
use self::picture::Picture;
use super::exposure::Exposure;
use super::facts::{LookResult, NodeFacts, RepositoryFacts};
use super::status::Status;
use super::verdict::{Concern, Level, roughly};
use crate::clock::{Span, Timestamp, Zone, between};

/// The style sheet.
pub const STYLE: &str = include_str!("page.css");
/// How often a live page reloads, in seconds.
const RELOAD: u32 = 30;

/// The name of the style sheet's file. It changes with the content.
pub static STYLE_NAME: LazyLock<String> = LazyLock::new(|| {
    let hash = blake3::hash(STYLE.as_bytes()).to_hex();
    format!("style-{}.css", hash.get(..16).unwrap_or_default())
});

/// How the page is to be shown.
#[derive(Debug, Clone, Copy)]
pub struct PageView<'a> {
    /// The zone of all times.
    pub zone: &'a Zone,
    /// Whether all restore points and runs are listed, and not only the newest.
    pub all: bool,
    /// Whether the page reloads.
    pub live: bool,
    /// A warning for every reader about how the page is served.
    pub notice: Option<&'a str>,
}

/// The page, as a whole document.
#[must_use]
pub fn page(status: &Status, view: PageView<'_>) -> String {
    let times = LocalTimes {
        now: status.at,
        zone: view.zone,
    };
    let page = Page {
        status,
        view,
        times,
    };

    page.document().into_string()
}

/// The sign of a level, as the icon of the browser's tab.
#[must_use]
pub fn icon(level: Level) -> String {
    let (colour, shape) = match level {
        Level::Safe => ("#1a7f4b", "M4.5 8.5 7 11 11.5 5.5"),
        Level::Attention => ("#a35c00", "M8 4v5M8 11.6v.1"),
        Level::Danger => ("#c0262d", "M5 5 11 11M11 5 5 11"),
    };

    let icon = html! {
        svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 16 16" {
            circle cx="8" cy="8" r="8" fill=(colour) {}
            path d=(shape) fill="none" stroke="#fff" stroke-width="2"
                stroke-linecap="round" stroke-linejoin="round" {}
        }
    };
    icon.into_string()
}

/// One page. The parts are in this file, in [`jobs`] and in [`tables`].
struct Page<'a> {
    status: &'a Status,
    view: PageView<'a>,
    times: LocalTimes<'a>,
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
                    @if self.view.live { meta http-equiv="refresh" content=(RELOAD); }
                    title { (word(level)) " – " (self.name()) }
                    link rel="icon" href=(format!("icon-{level}.svg")) type="image/svg+xml";
                    link rel="stylesheet" href=(STYLE_NAME.as_str());
                }
                body {
                    a.skip href="#main" { "Skip to the content" } "\n"
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
    fn name(&self) -> &str {
        if let Some(node) = self.node() {
            return &node.place;
        }
        if let Some(repository) = &self.status.repository.facts {
            return &repository.place;
        }

        "kbackup"
    }

    fn node(&self) -> Option<&NodeFacts> {
        self.status.node.as_ref()?.facts.as_ref()
    }

    /// Whether auto-scavenge is paused although kbackup has not paused it.
    fn is_paused_by_others(&self, facts: &NodeFacts) -> bool {
        let is_owed = match &self.status.agent {
            Some(agent) => agent.owed.is_some(),
            None => false,
        };
        let is_held = match &self.status.running {
            Some(running) => !running.holds.is_empty(),
            None => false,
        };

        facts.auto_scavenge.as_deref() == Some("Paused") && !is_owed && !is_held
    }

    fn header(&self) -> Markup {
        let target = if self.view.all { "./?all" } else { "./" };

        html! {
            header.top {
                span.brand { "kbackup" }
                span.name { (self.name()) }
                span.asof {
                    "as of " (self.time(self.status.at, "%H:%M:%S %Z"))
                    " " a href=(target) { "Reload" }
                    " "
                    @if self.view.live { a href="./" { "Stop reloading" } }
                    @else { a href="./?live" { "Keep reloading" } }
                }
            }
            p.stale role="status" {
                "This page is more than two minutes old. "
                a href=(target) { "Reload it" } " before you rely on it."
            }
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
                div { dt { "In no backup" } (self.exposure(status.exposure)) }
                div { dt { "Newest good backup" } (self.newest()) }
                div {
                    dt { "Repository" }
                    @match &status.repository.facts {
                        None => (missing("cannot be read", &status.repository)),
                        Some(facts) => (repository(facts)),
                    }
                }
                @if let Some(node) = &status.node {
                    div {
                        dt { "Node" }
                        @match &node.facts {
                            None => (missing("does not answer", node)),
                            Some(facts) => (self::node(facts, self.is_paused_by_others(facts))),
                        }
                    }
                }
            }
        }
    }

    fn exposure(&self, exposure: Option<Exposure>) -> Markup {
        let Some(exposure) = exposure else {
            let unread = if self.status.repository.facts.is_none() {
                "the repository"
            } else {
                "the node’s files"
            };
            return html! {
                dd { "not known" }
                dd.more { "the agent cannot read " (unread) }
            };
        };

        html! {
            dd { (bytes(exposure.bytes)) }
            dd.more {
                @match exposure.since {
                    None => "everything written is backed up",
                    Some(since) => {
                        "since " (self.times.when(since)) ", " (self.times.relative(since))
                    }
                }
            }
        }
    }

    fn newest(&self) -> Markup {
        let newest = self.status.newest_good();

        html! {
            @match (newest, &self.status.last_known) {
                (Some((point, backup)), _) => {
                    dd { (self.times.relative(backup.finished)) }
                    dd.more { a href=(format!("#{}", point.label)) { (point.label) } }
                }
                (None, Some(known)) => {
                    dd { "not known" }
                    dd.more {
                        (self.times.relative(known.at)) " it was " (known.newest)
                    }
                }
                (None, None) => dd { "none" },
            }
        }
    }

    fn concerns(&self) -> Markup {
        let concerns = &self.status.verdict.concerns;

        html! {
            @if !concerns.is_empty() {
                section aria-labelledby="concerns" {
                    h2 #concerns { "What is wrong" }
                    ul.concerns { @for concern in concerns { (self::concern(concern)) } }
                }
            }
        }
    }

    fn picture(&self) -> Markup {
        let picture = Picture::of(self.status, self.times);

        // The picture cannot show failures and pauses from before the first run in the history.
        let mut runs_known = None;
        if let Some(first) = self.status.history.first()
            && first.began > picture.shown_since()
        {
            runs_known = Some(first.began);
        }

        html! {
            section aria-labelledby="weeks" {
                h2 #weeks { "The last " (picture.days()) " days" }
                figure {
                    (picture.draw())
                    figcaption {
                        p { (picture.in_words()) "." }
                        (self.legend())
                        p.more {
                            "Heights are logarithmic. "
                            "Marks that lie close together are drawn as one. "
                            "Times are in the zone " (self.view.zone) "."
                            @if let Some(since) = runs_known {
                                " Failures and pauses are known since " (self.times.when(since)) "."
                            }
                        }
                        (gaps(&picture))
                    }
                }
            }
        }
    }

    fn legend(&self) -> Markup {
        const SQUARE: &str = "0 0 10 10";
        let limit = Span(Duration::from_secs(self.status.max_age_seconds));
        let cross = "M1.5 1.5 8.5 8.5M8.5 1.5 1.5 8.5";

        html! {
            ul.legend aria-label="Legend" {
                li { (key(SQUARE, &html! { circle.fill cx="5" cy="5" r="3.5" {} })) "diff" }
                li { (key(SQUARE, &html! { path.fill d="M5 0 10 5 5 10 0 5Z" {} })) "full" }
                li {
                    (key(SQUARE, &html! { circle.hollow cx="5" cy="5" r="3.5" {} }))
                    "removed since"
                }
                li { (key(SQUARE, &html! { path.stroke.bad d=(cross) {} })) "damaged, failed" }
                li { (key(SQUARE, &html! { path.stroke.good d="M1 5.5 4 8.5 9 2" {} })) "verified" }
                li {
                    (key("0 0 16 10", &html! { rect.hatched width="16" height="10" {} }))
                    "gap: older than " (limit)
                }
            }
        }
    }

    fn footer(&self) -> Markup {
        html! {
            footer {
                @if let Some(agent) = &self.status.agent {
                    span {
                        (agent.version) ", running for "
                        (roughly(between(agent.started, self.status.at)))
                    }
                }
                @if let Some(facts) = &self.status.repository.facts {
                    span { "repository " code { (facts.id) } }
                }
                span { a href="status.json" { "status.json" } " " a href="metrics" { "metrics" } }
            }
        }
    }

    /// A time for people and programs.
    fn time(&self, at: Timestamp, pattern: &str) -> Markup {
        html! { time datetime=(at) { (self.times.at(at).strftime(pattern)) } }
    }
}

fn repository(facts: &RepositoryFacts) -> Markup {
    html! {
        dd { (counted(facts.points.len(), "backup")) }
        dd.more {
            @if let Some(free) = facts.free_bytes { (bytes(free)) " free in " }
            (facts.place)
        }
    }
}

fn node(facts: &NodeFacts, is_paused_by_others: bool) -> Markup {
    html! {
        dd { (facts.state) }
        dd.more {
            "version " (facts.version)
            @if facts.scavenge.is_some() { ", scavenging" }
            @if is_paused_by_others { ", auto-scavenge is paused, but not by kbackup" }
        }
    }
}

/// A node or a repository that the last look did not find, or that no look has found for long.
fn missing<T>(what: &str, seen: &LookResult<T>) -> Markup {
    let what = if seen.unknown_since.is_some() {
        "not known"
    } else {
        what
    };

    html! {
        dd { (what) }
        @if let Some(problem) = &seen.problem { dd.more { (with_code(problem)) } }
    }
}

const fn word(level: Level) -> &'static str {
    match level {
        Level::Safe => "Safe",
        Level::Attention => "Attention",
        Level::Danger => "Danger",
    }
}

/// The sign of a level. It tells the level without its colour.
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

fn gaps(picture: &Picture<'_>) -> Markup {
    let gaps = picture.gaps();

    html! {
        @if !gaps.is_empty() {
            details {
                summary { (counted(gaps.len(), "gap")) }
                ul { @for gap in gaps { li { (picture.describe_gap(gap)) } } }
            }
        }
    }
}

/// A mark of the legend.
fn key(view: &str, shape: &Markup) -> Markup {
    html! { svg.key viewBox=(view) aria-hidden="true" { (shape) } }
}

/// Text between backticks becomes code. A last backtick without a partner stays as it is.
fn with_code(text: &str) -> Markup {
    let parts: Vec<&str> = text.split('`').collect();
    let paired = (parts.len() - 1) / 2 * 2;

    html! {
        @for (at, part) in parts.iter().enumerate() {
            @if at % 2 == 1 && at < paired { code { (part) } }
            @else { @if at > paired { "`" } (part) }
        }
    }
}
