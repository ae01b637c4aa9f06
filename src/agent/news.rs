//! What is worth telling somebody who does not look: how runs end, and that too much is in no
//! backup. Pure.

use std::time::{Duration, Instant};

use serde::Serialize;
use uuid::Uuid;

use super::journal::{Journal, Outcome, Record};
use super::status::{Status, Verdict};
use crate::clock::{Timestamp, between};
use crate::settings::hook::Hook;
use crate::settings::options::AgentOptions;

/// What is told waits for a look at node and repository, but not for one that does not end.
const WAIT: Duration = Duration::from_secs(30);

/// What happened, in a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Event {
    /// A run did what it should, or found nothing to do.
    Success,
    /// A run failed.
    Failure,
    /// What is in no backup has become older than it may.
    TooOld,
    /// It is well again, after `TooOld` or `Failure`.
    Recovered,
}

/// Something that happened.
#[derive(Debug)]
pub(super) struct Piece {
    pub event: Event,
    /// What it is well again after.
    pub after: Option<Event>,
    pub run: Option<Run>,
}

/// A run that has ended.
#[derive(Debug)]
pub(super) struct Run {
    record: Record,
    /// How often it had failed in a row before.
    failures_before: u64,
}

/// One message, `kbackup.hook/1` of docs/json.md.
#[derive(Debug, Serialize)]
pub(super) struct Message<'a> {
    schema: &'static str,
    /// The same where it is told twice.
    id: Uuid,
    event: Event,
    after: Option<Event>,
    at: Timestamp,
    repository: String,
    node: Option<&'a str>,
    verdict: MessageVerdict<'a>,
    age_seconds: Option<u64>,
    max_age_seconds: u64,
    run: Option<MessageRun<'a>>,
}

#[derive(Debug, Serialize)]
struct MessageVerdict<'a> {
    level: super::status::Level,
    sentence: &'a str,
}

#[derive(Debug, Serialize)]
struct MessageRun<'a> {
    job: &'static str,
    outcome: &'static str,
    began: Timestamp,
    ended: Timestamp,
    label: Option<String>,
    warnings: &'a [String],
    error: Option<&'a str>,
    exit_code: Option<u8>,
    hints: &'a [String],
    bytes_read: u64,
    bytes_stored: u64,
    failures_before: u64,
}

impl<'a> Message<'a> {
    pub(super) fn of(piece: &'a Piece, status: &'a Status, options: &'a AgentOptions) -> Self {
        let Verdict {
            level, sentence, ..
        } = &status.verdict;
        Self {
            schema: "kbackup.hook/1",
            id: Uuid::now_v7(),
            event: piece.event,
            after: piece.after,
            at: status.at,
            repository: options.repository.display().to_string(),
            node: options.node.url.as_ref().map(|url| url.0.as_str()),
            verdict: MessageVerdict {
                level: *level,
                sentence,
            },
            age_seconds: status.age().map(|age| age.as_secs()),
            max_age_seconds: status.max_age_seconds,
            run: piece.run.as_ref().map(MessageRun::of),
        }
    }
}

impl<'a> MessageRun<'a> {
    fn of(run: &'a Run) -> Self {
        let record = &run.record;
        let (label, warnings): (_, &[String]) = match &record.outcome {
            Outcome::Done { label, warnings } => {
                (label.as_ref().map(ToString::to_string), warnings)
            }
            _ => (None, &[]),
        };
        let (error, exit_code, hints): (_, _, &[String]) = match &record.outcome {
            Outcome::Failed {
                message,
                exit_code,
                hints,
                ..
            } => (Some(message.as_str()), Some(*exit_code), hints),
            _ => (None, None, &[]),
        };
        Self {
            job: record.job.name(),
            outcome: record.outcome.name(),
            began: record.began,
            ended: record.ended,
            label,
            warnings,
            error,
            exit_code,
            hints,
            bytes_read: record.bytes_read,
            bytes_stored: record.bytes_stored,
            failures_before: run.failures_before,
        }
    }
}

impl Piece {
    /// Who wants to know.
    pub(super) fn hooks<'a>(&self, options: &'a AgentOptions) -> &'a [Hook] {
        match (self.event, self.after) {
            (Event::Success, _) => &options.on_success,
            (Event::Failure, _) | (Event::Recovered, Some(Event::Failure)) => &options.on_failure,
            (Event::TooOld | Event::Recovered, _) => &options.on_too_old,
        }
    }
}

/// Remembers what has been told.
#[derive(Debug)]
pub(super) struct News {
    untold: Vec<Run>,
    /// When a look was over last.
    fresh: Instant,
    /// Since when something has been in no good backup, for all that was ever seen. Where nothing
    /// can be seen, nothing is backed up.
    since: Timestamp,
    is_too_old: bool,
}

impl News {
    pub(super) fn new(started: Timestamp) -> Self {
        Self {
            untold: Vec::new(),
            fresh: Instant::now(),
            since: started,
            is_too_old: false,
        }
    }

    /// A run has ended, of which the journal does not know yet.
    pub(super) fn ended(&mut self, record: &Record, journal: &Journal) {
        let runs = journal
            .of(record.job)
            .filter(|run| !matches!(run.outcome, Outcome::Interrupted { .. }));
        let failures_before = runs.take_while(|run| run.is_failure()).count() as u64;
        self.untold.push(Run {
            record: record.clone(),
            failures_before,
        });
    }

    /// What is to be told now. `is_fresh`: the status knows what the runs that have ended have
    /// made.
    pub(super) fn next(&mut self, status: &Status, is_fresh: bool) -> Vec<Piece> {
        if is_fresh {
            self.fresh = Instant::now();
        } else if self.fresh.elapsed() < WAIT {
            return Vec::new();
        }
        let age = self.age(status);
        self.untold
            .drain(..)
            .flat_map(Run::pieces)
            .chain(age)
            .collect()
    }

    fn age(&mut self, status: &Status) -> Option<Piece> {
        if let Some(since) = status.age().and_then(|age| status.at.checked_sub(age).ok()) {
            self.since = since;
        }
        let age = between(self.since, status.at);
        let is_too_old = age.as_secs() >= status.max_age_seconds;
        if is_too_old == std::mem::replace(&mut self.is_too_old, is_too_old) {
            return None;
        }
        let (event, after) = if is_too_old {
            (Event::TooOld, None)
        } else {
            (Event::Recovered, Some(Event::TooOld))
        };
        Some(Piece {
            event,
            after,
            run: None,
        })
    }
}

impl Run {
    fn pieces(self) -> Vec<Piece> {
        // Another run was in its way; it is tried again, and nothing is wrong.
        if self.record.had_to_wait() {
            return Vec::new();
        }
        if self.record.is_failure() {
            return vec![Piece {
                event: Event::Failure,
                after: None,
                run: Some(self),
            }];
        }
        if !self.record.is_success() {
            return Vec::new();
        }
        let again = Self {
            record: self.record.clone(),
            failures_before: self.failures_before,
        };
        let recovered = (self.failures_before > 0).then_some(Piece {
            event: Event::Recovered,
            after: Some(Event::Failure),
            run: Some(again),
        });
        [
            Some(Piece {
                event: Event::Success,
                after: None,
                run: Some(self),
            }),
            recovered,
        ]
        .into_iter()
        .flatten()
        .collect()
    }
}
