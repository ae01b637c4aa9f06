//! What the hooks are told: how runs end, and that something has been in no backup for too long.
//! Pure: [`super::hooks`] delivers the messages.

use std::time::{Duration, Instant};

use serde::Serialize;
use uuid::Uuid;

use super::journal::Journal;
use super::run_record::{Job, RunOutcome, RunRecord};
use super::status::Status;
use super::verdict::Level;
use crate::clock::{Timestamp, between};
use crate::manifest::Label;
use crate::settings::hook::Hook;
use crate::settings::options::AgentOptions;

/// How long an announcement waits for the next look at node and repository.
const WAIT: Duration = Duration::from_secs(30);

/// The kind of an announcement.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum HookEvent {
    /// A run did its work, or found nothing to do.
    Success,
    /// A run failed.
    Failure,
    /// Something has been in no backup for longer than `--max-age`.
    TooOld,
    /// A verification found damage that the one before it had not found.
    Damage,
    /// All is well again, after `TooOld`, `Failure` or `Damage`.
    Recovered,
}

/// Something that happened.
#[derive(Debug)]
pub(super) struct Announcement {
    event: HookEvent,
    /// For `Recovered`: what is over.
    after: Option<HookEvent>,
    run: Option<EndedRun>,
}

/// A run that has ended.
#[derive(Debug, Clone)]
struct EndedRun {
    record: RunRecord,
    /// How often the job had failed in a row before.
    failures_before: u64,
    /// The backups that the verification before this run found damaged.
    damaged_before: Vec<Label>,
}

impl Announcement {
    /// The hooks that get this announcement.
    pub(super) fn hooks<'a>(&self, options: &'a AgentOptions) -> &'a [Hook] {
        match (self.event, self.after) {
            (HookEvent::Success, _) => &options.on_success,
            (HookEvent::Failure | HookEvent::Damage, _)
            | (HookEvent::Recovered, Some(HookEvent::Failure | HookEvent::Damage)) => {
                &options.on_failure
            }
            (HookEvent::TooOld | HookEvent::Recovered, _) => &options.on_too_old,
        }
    }
}

/// Remembers what has been announced.
#[derive(Debug)]
pub(super) struct Announcements {
    /// Runs that are not announced yet.
    ended: Vec<EndedRun>,
    /// When the status was last fresh.
    fresh: Instant,
    /// Since when something has been in no good backup, by the last status that knew. If a later
    /// status does not know, the agent assumes that nothing was backed up since.
    exposed_since: Timestamp,
    is_too_old: bool,
}

impl Announcements {
    pub(super) fn new(started: Timestamp) -> Self {
        Self {
            ended: Vec::new(),
            fresh: Instant::now(),
            exposed_since: started,
            is_too_old: false,
        }
    }

    /// A run has ended. The journal does not hold it yet.
    pub(super) fn ended(&mut self, record: &RunRecord, journal: &Journal) {
        let mut failures_before = 0;
        for run in journal.of(record.job) {
            if matches!(run.outcome, RunOutcome::Interrupted { .. }) {
                continue;
            }
            if !run.is_failure() {
                break;
            }
            failures_before += 1;
        }

        self.ended.push(EndedRun {
            record: record.clone(),
            failures_before,
            damaged_before: damaged_before(journal),
        });
    }

    /// What is to be announced now. `is_fresh`: the status contains the backups of all runs that
    /// have ended. Otherwise the announcements wait for a while.
    pub(super) fn next(&mut self, status: &Status, is_fresh: bool) -> Vec<Announcement> {
        if is_fresh {
            self.fresh = Instant::now();
        } else if self.fresh.elapsed() < WAIT {
            return Vec::new();
        }

        let mut announcements = Vec::new();
        for run in self.ended.drain(..) {
            run.announce(&mut announcements);
        }
        announcements.extend(self.age(status));

        announcements
    }

    /// Announces once that something is too old, and once that this is over.
    fn age(&mut self, status: &Status) -> Option<Announcement> {
        if let Some(age) = status.age()
            && let Ok(since) = status.at.checked_sub(age)
        {
            self.exposed_since = since;
        }

        let age = between(self.exposed_since, status.at);
        let is_too_old = age.as_secs() >= status.max_age_seconds;
        if is_too_old == self.is_too_old {
            return None;
        }
        self.is_too_old = is_too_old;

        let (event, after) = if is_too_old {
            (HookEvent::TooOld, None)
        } else {
            (HookEvent::Recovered, Some(HookEvent::TooOld))
        };
        Some(Announcement {
            event,
            after,
            run: None,
        })
    }
}

impl EndedRun {
    fn announce(self, announcements: &mut Vec<Announcement>) {
        if self.record.is_failure() {
            announcements.push(Announcement {
                event: HookEvent::Failure,
                after: None,
                run: Some(self),
            });
            return;
        }
        // A run that was interrupted, or that another run kept from beginning, is not announced.
        if !self.record.is_success() {
            return;
        }

        let has_recovered = self.failures_before > 0;
        self.announce_success(announcements);
        if has_recovered {
            announcements.push(Announcement {
                event: HookEvent::Recovered,
                after: Some(HookEvent::Failure),
                run: Some(self),
            });
        }
    }
}

impl EndedRun {
    /// A verification that found damage is no success to be told of.
    fn announce_success(&self, announcements: &mut Vec<Announcement>) {
        let damaged = &self.record.damaged;
        let is_new = damaged
            .iter()
            .any(|label| !self.damaged_before.contains(label));
        let is_over =
            self.record.job == Job::Verify && damaged.is_empty() && !self.damaged_before.is_empty();

        if damaged.is_empty() {
            announcements.push(self.announcement(HookEvent::Success, None));
        }
        if is_new {
            announcements.push(self.announcement(HookEvent::Damage, None));
        }
        if is_over {
            let after = Some(HookEvent::Damage);
            announcements.push(self.announcement(HookEvent::Recovered, after));
        }
    }

    fn announcement(&self, event: HookEvent, after: Option<HookEvent>) -> Announcement {
        Announcement {
            event,
            after,
            run: Some(self.clone()),
        }
    }
}

/// The backups that the last verification found damaged.
fn damaged_before(journal: &Journal) -> Vec<Label> {
    let mut verifications = journal.of(Job::Verify);
    let last = verifications.find(|run| matches!(run.outcome, RunOutcome::Done { .. }));

    match last {
        Some(last) => last.damaged.clone(),
        None => Vec::new(),
    }
}

/// One message to a hook: `kbackup.hook/1` of docs/json.md.
#[derive(Debug, Serialize)]
pub(super) struct HookMessage<'a> {
    schema: &'static str,
    /// The id stays the same if the message is sent again.
    id: Uuid,
    event: HookEvent,
    after: Option<HookEvent>,
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
    level: Level,
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
    damaged: &'a [Label],
}

impl<'a> HookMessage<'a> {
    pub(super) fn of(
        announcement: &'a Announcement,
        status: &'a Status,
        options: &'a AgentOptions,
    ) -> Self {
        Self {
            schema: "kbackup.hook/1",
            id: Uuid::now_v7(),
            event: announcement.event,
            after: announcement.after,
            at: status.at,
            repository: options.repository.display().to_string(),
            node: options.node.url.as_ref().map(|url| url.0.as_str()),
            verdict: MessageVerdict {
                level: status.verdict.level,
                sentence: &status.verdict.sentence,
            },
            age_seconds: status.age().map(|age| age.as_secs()),
            max_age_seconds: status.max_age_seconds,
            run: announcement.run.as_ref().map(MessageRun::of),
        }
    }
}

impl<'a> MessageRun<'a> {
    fn of(run: &'a EndedRun) -> Self {
        let record = &run.record;
        let mut message = Self {
            job: record.job.name(),
            outcome: record.outcome.name(),
            began: record.began,
            ended: record.ended,
            label: None,
            warnings: &[],
            error: None,
            exit_code: None,
            hints: &[],
            bytes_read: record.bytes_read,
            bytes_stored: record.bytes_stored,
            failures_before: run.failures_before,
            damaged: &record.damaged,
        };

        match &record.outcome {
            RunOutcome::Done { label, warnings } => {
                message.label = label.as_ref().map(ToString::to_string);
                message.warnings = warnings;
            }
            RunOutcome::Failed {
                message: error,
                exit_code,
                hints,
                ..
            } => {
                message.error = Some(error.as_str());
                message.exit_code = Some(*exit_code);
                message.hints = hints;
            }
            _ => {}
        }

        message
    }
}
