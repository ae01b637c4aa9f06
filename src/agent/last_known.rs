//! What was last known of the backups. It stays in status and metrics while the repository cannot
//! be read, so that an alert about old backups fires then, too.

use serde::{Deserialize, Serialize};

use super::facts::RepositoryFacts;
use super::journal::Journal;
use super::run_record::{Job, RunOutcome, RunRecord};
use crate::clock::Timestamp;
use crate::manifest::{BackupKind, Label};

/// What was last known of the backups.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastKnown {
    /// When that was.
    pub at: Timestamp,
    /// The label of the newest good backup.
    pub newest: Label,
    /// When that backup began.
    pub started: Timestamp,
    /// Since when something may be in no good backup. If everything was in one, that is `at`:
    /// nobody knows what has happened to the backup since.
    pub exposed_since: Timestamp,
    /// When the newest good backup of each kind began, and when a backup was last verified.
    #[serde(flatten)]
    pub times: BackupTimes,
}

/// The times of the newest backups in a repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct BackupTimes {
    /// When the newest good full began.
    pub newest_full: Option<Timestamp>,
    /// When the newest good diff began.
    pub newest_diff: Option<Timestamp>,
    /// When a backup was last verified, whatever the result.
    pub verified: Option<Timestamp>,
}

impl BackupTimes {
    pub(super) fn of(facts: &RepositoryFacts) -> Self {
        let mut times = Self::default();

        for point in &facts.points {
            if let Some(backup) = point.good() {
                let newest = times.newest(backup.kind);
                *newest = (*newest).max(Some(backup.started));
            }
            if let Some(verified) = point.verified {
                times.verified = times.verified.max(Some(verified.at));
            }
        }

        times
    }

    const fn newest(&mut self, kind: BackupKind) -> &mut Option<Timestamp> {
        match kind {
            BackupKind::Full => &mut self.newest_full,
            BackupKind::Diff => &mut self.newest_diff,
        }
    }
}

impl LastKnown {
    /// What the runs of earlier agents tell. `None` if none of them took a backup.
    #[must_use]
    pub fn of_journal(journal: &Journal) -> Option<Self> {
        let mut known: Option<Self> = None;

        for record in journal.records() {
            match &record.outcome {
                RunOutcome::Done {
                    label: Some(label), ..
                } => known = Some(Self::of_backup(record, label, known.as_ref())),
                RunOutcome::UpToDate => {
                    if let Some(known) = &mut known {
                        (known.at, known.exposed_since) = (record.ended, record.ended);
                    }
                }
                RunOutcome::Done { label: None, .. } if record.job == Job::Verify => {
                    if let Some(known) = &mut known {
                        known.times.verified = Some(record.ended);
                    }
                }
                _ => {}
            }
        }

        known
    }

    fn of_backup(record: &RunRecord, label: &Label, before: Option<&Self>) -> Self {
        let kind = if label.as_str().ends_with("-full") {
            BackupKind::Full
        } else {
            BackupKind::Diff
        };
        let mut times = before.map(|before| before.times).unwrap_or_default();
        // The run began a little earlier than its backup.
        let started = label.time();
        *times.newest(kind) = Some(started);

        Self {
            at: record.ended,
            newest: label.clone(),
            started,
            exposed_since: started,
            times,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::run_record::{JobOrder, Trigger};

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn ran(journal: &mut Journal, job: Job, began: i64, outcome: RunOutcome) {
        let order = JobOrder {
            job,
            trigger: Trigger::Schedule,
            repository: None,
            may_stop_scavenges: false,
        };
        let mut record = RunRecord::of(&order, at(began), outcome);
        record.ended = at(began + 10);
        journal.remember(record).unwrap();
    }

    fn done(label: Option<Label>) -> RunOutcome {
        RunOutcome::Done {
            label,
            warnings: Vec::new(),
        }
    }

    #[test]
    fn the_journal_tells_what_was_known() {
        let mut journal = Journal::default();
        assert_eq!(LastKnown::of_journal(&journal), None);
        ran(&mut journal, Job::Verify, 50, done(None));
        assert_eq!(LastKnown::of_journal(&journal), None);

        let full = Label::new(at(100), BackupKind::Full);
        let diff = Label::new(at(200), BackupKind::Diff);
        ran(&mut journal, Job::Diff, 100, done(Some(full)));
        ran(&mut journal, Job::Diff, 200, done(Some(diff.clone())));
        let failed = RunOutcome::Interrupted {
            why: "a signal".to_owned(),
        };
        ran(&mut journal, Job::Full, 300, failed);
        let mut expected = LastKnown {
            at: at(210),
            newest: diff,
            started: at(200),
            exposed_since: at(200),
            times: BackupTimes {
                newest_full: Some(at(100)),
                newest_diff: Some(at(200)),
                verified: None,
            },
        };
        assert_eq!(LastKnown::of_journal(&journal), Some(expected.clone()));

        ran(&mut journal, Job::Verify, 400, done(None));
        ran(&mut journal, Job::Diff, 500, RunOutcome::UpToDate);
        (expected.at, expected.exposed_since) = (at(510), at(510));
        expected.times.verified = Some(at(410));
        assert_eq!(LastKnown::of_journal(&journal), Some(expected));
    }
}
