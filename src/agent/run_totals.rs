//! What the agent has counted since it was started, for the counters of the metrics.
//!
//! The journal cannot be the source, because it forgets old runs. Prometheus takes a counter that
//! shrinks for a restart.

use std::collections::BTreeMap;
use std::time::Duration;

use super::run_record::{Job, Pause, RunRecord};
use crate::clock::between;

/// What a run can stop at a node, as [`Pause`] names it.
pub(super) const PAUSABLE: [&str; 2] = ["scavenge", "auto-scavenge"];

/// The totals of all jobs.
#[derive(Debug, Clone, Default)]
pub(super) struct RunTotals {
    jobs: BTreeMap<Job, JobTotals>,
    pauses: BTreeMap<&'static str, PauseTotals>,
}

/// The totals of one job.
#[derive(Debug, Clone, Default)]
pub(super) struct JobTotals {
    /// Runs by [outcome](super::RunOutcome::name).
    pub outcomes: BTreeMap<&'static str, u64>,
    pub seconds: u64,
    pub bytes_read: u64,
    pub bytes_stored: u64,
    pub files_copied: u64,
    pub files_linked: u64,
    pub retries: u64,
}

/// How often something was stopped at the node, and for how long in total.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct PauseTotals {
    pub count: u64,
    pub length: Duration,
}

impl RunTotals {
    /// Counts a run that has ended.
    pub(super) fn count(&mut self, record: &RunRecord) {
        let job = self.jobs.entry(record.job).or_default();
        add(job.outcomes.entry(record.outcome.name()).or_default(), 1);
        add(&mut job.seconds, record.seconds());
        add(&mut job.bytes_read, record.bytes_read);
        add(&mut job.bytes_stored, record.bytes_stored);
        add(&mut job.files_copied, record.files_copied);
        add(&mut job.files_linked, record.files_linked);
        add(&mut job.retries, record.retries.len() as u64);

        for pause in &record.pauses {
            self.count_pause(pause, record);
        }
    }

    fn count_pause(&mut self, pause: &Pause, record: &RunRecord) {
        let Some(what) = PAUSABLE.into_iter().find(|what| *what == pause.what) else {
            return;
        };

        let length = match pause.milliseconds {
            Some(milliseconds) => Duration::from_millis(milliseconds),
            // It was not given back. It was stopped until the end of the run at least.
            None => between(pause.began, record.ended),
        };
        let totals = self.pauses.entry(what).or_default();
        add(&mut totals.count, 1);
        totals.length = totals.length.saturating_add(length);
    }

    /// One total of a job. 0 if it has not run.
    pub(super) fn job(&self, job: Job, value: impl Fn(&JobTotals) -> u64) -> u64 {
        match self.jobs.get(&job) {
            Some(totals) => value(totals),
            None => 0,
        }
    }

    pub(super) fn pauses(&self, what: &str) -> PauseTotals {
        self.pauses.get(what).copied().unwrap_or_default()
    }
}

fn add(total: &mut u64, more: u64) {
    *total = total.saturating_add(more);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::run_record::{RunOutcome, Trigger};
    use crate::clock::Timestamp;

    fn record(outcome: RunOutcome, pause: Option<u64>) -> RunRecord {
        let time = |second| Timestamp::from_second(second).unwrap();

        RunRecord {
            job: Job::Diff,
            trigger: Trigger::Schedule,
            began: time(100),
            ended: time(110),
            outcome,
            repository: None,
            bytes_read: 1,
            bytes_stored: 2,
            files_copied: 3,
            files_linked: 4,
            retries: vec!["a file vanished".to_owned()],
            pauses: vec![Pause {
                what: "scavenge".to_owned(),
                began: time(104),
                milliseconds: pause,
                interrupted: true,
            }],
            damaged: Vec::new(),
        }
    }

    #[test]
    fn totals_only_grow() {
        let mut totals = RunTotals::default();
        let mut before = 0;
        // More runs than the journal remembers.
        for _ in 0..12_000 {
            totals.count(&record(RunOutcome::UpToDate, Some(250)));
            let now = totals.job(Job::Diff, |job| {
                job.outcomes.get("up-to-date").copied().unwrap()
            });
            assert_eq!(now, before + 1);
            before = now;
        }

        assert_eq!(totals.job(Job::Diff, |job| job.files_linked), 48_000);
        assert_eq!(
            totals.pauses("scavenge"),
            PauseTotals {
                count: 12_000,
                length: Duration::from_secs(3000)
            }
        );
        assert_eq!(totals.job(Job::Full, |job| job.seconds), 0);
    }

    #[test]
    fn a_pause_that_was_not_ended_lasts_until_the_end_of_the_run() {
        let mut totals = RunTotals::default();
        let outcome = RunOutcome::Interrupted {
            why: "a signal".to_owned(),
        };
        totals.count(&record(outcome, None));
        assert_eq!(
            totals.pauses("scavenge"),
            PauseTotals {
                count: 1,
                length: Duration::from_secs(6)
            }
        );
    }
}
