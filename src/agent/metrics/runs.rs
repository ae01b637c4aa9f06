//! What the jobs did and will do.

use std::sync::atomic::AtomicU64;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::registry::Unit;

use super::{Labels, MetricSheet, flag, one, second};
use crate::agent::run_record::{Job, RunRecord};
use crate::agent::run_totals::{JobTotals, PAUSABLE, RunTotals};
use crate::agent::status::{JobStatus, Status};

const OUTCOMES: [&str; 5] = ["done", "up-to-date", "skipped", "interrupted", "failed"];
/// The jobs that make a backup.
const BACKUPS: [Job; 2] = [Job::Full, Job::Diff];
/// The jobs that read the node or the repository.
const READERS: [Job; 3] = [Job::Full, Job::Diff, Job::Verify];

impl MetricSheet {
    pub(super) fn jobs(&mut self, jobs: &[JobStatus]) {
        self.gauge(
            "last_success_timestamp",
            Some(Unit::Seconds),
            "When the job last did its work, or found nothing to do",
            of_each(jobs, |job| job.last_success.map(second)),
        );
        self.last_runs(jobs);

        self.gauge(
            "failures_in_a_row",
            None,
            "How often the job has failed since it last did its work",
            of_each(jobs, |job| Some(job.failures)),
        );
        self.gauge(
            "next_run_timestamp",
            Some(Unit::Seconds),
            "When the job is due next; in the past while something holds it back",
            of_each(jobs, |job| job.plan.due.map(second)),
        );
        self.gauge(
            "run_held_back",
            None,
            "1 while the job is due and something holds it back, else 0",
            of_each(jobs, |job| Some(flag(job.plan.hold.is_some()))),
        );
    }

    fn last_runs(&mut self, jobs: &[JobStatus]) {
        self.gauge(
            "last_run_timestamp",
            Some(Unit::Seconds),
            "When the last run of the job ended, whatever the outcome",
            of_last_run(jobs, &Job::ALL, |run| second(run.ended)),
        );
        self.gauge(
            "last_run_duration",
            Some(Unit::Seconds),
            "How long the last run of the job took",
            of_last_run(jobs, &Job::ALL, RunRecord::seconds),
        );

        self.gauge(
            "last_run_read",
            Some(Unit::Bytes),
            "Bytes that the last run of the job read from the node, or hashed (verify)",
            of_last_run(jobs, &READERS, |run| run.bytes_read),
        );
        self.gauge(
            "last_run_stored",
            Some(Unit::Bytes),
            "Bytes that the last run of the job stored",
            of_last_run(jobs, &BACKUPS, |run| run.bytes_stored),
        );
        self.gauge(
            "last_run_copied_files",
            None,
            "Files that the last run of the job copied",
            of_last_run(jobs, &BACKUPS, |run| run.files_copied),
        );
        self.gauge(
            "last_run_linked_files",
            None,
            "Files that the last run of the job reused from an earlier backup",
            of_last_run(jobs, &BACKUPS, |run| run.files_linked),
        );
    }

    pub(super) fn running(&mut self, status: &Status) {
        let (mut running_job, mut held): (Option<Job>, &[String]) = (None, &[]);
        if let Some(running) = &status.running {
            (running_job, held) = (Some(running.job), &running.holds);
        }

        self.gauge(
            "running",
            None,
            "1 while the job runs, else 0",
            Job::ALL.map(|job| (verb(job), flag(running_job == Some(job)))),
        );
        self.gauge(
            "held",
            None,
            "1 while a run has stopped it at the node, else 0",
            PAUSABLE.map(|what| {
                let is_held = held.iter().any(|held| held == what);
                (vec![("what", what)], flag(is_held))
            }),
        );
    }

    pub(super) fn runs(&mut self, totals: &RunTotals) {
        self.counter(
            "runs",
            None,
            "Runs that ended, by outcome",
            runs_by_outcome(totals),
        );
        self.counter(
            "runs_duration",
            Some(Unit::Seconds),
            "How long all runs took",
            totals_of(&Job::ALL, totals, |job| job.seconds),
        );
        self.counter(
            "read",
            Some(Unit::Bytes),
            "Bytes read from the node, or hashed (verify)",
            totals_of(&READERS, totals, |job| job.bytes_read),
        );
        self.counter(
            "stored",
            Some(Unit::Bytes),
            "Bytes stored in the repository",
            totals_of(&BACKUPS, totals, |job| job.bytes_stored),
        );
        self.counter(
            "copied_files",
            None,
            "Files copied, in whole or in part",
            totals_of(&BACKUPS, totals, |job| job.files_copied),
        );
        self.counter(
            "linked_files",
            None,
            "Files reused from an earlier backup",
            totals_of(&BACKUPS, totals, |job| job.files_linked),
        );
        self.counter(
            "retries",
            None,
            "How often a backup started over because the node's files changed; the log says why",
            totals_of(&BACKUPS, totals, |job| job.retries),
        );

        // For `expire`, the totals mean something else.
        self.counter(
            "freed",
            Some(Unit::Bytes),
            "Bytes freed by removing backups",
            one(totals.job(Job::Expire, |job| job.bytes_stored)),
        );
        self.counter(
            "removed_backups",
            None,
            "Backups removed",
            one(totals.job(Job::Expire, |job| job.files_copied)),
        );
    }

    pub(super) fn pauses(&mut self, totals: &RunTotals) {
        self.counter(
            "pauses",
            None,
            "How often a run stopped it at the node",
            PAUSABLE.map(|what| (vec![("what", what)], totals.pauses(what).count)),
        );

        self.metric(
            "pauses_duration",
            Some(Unit::Seconds),
            "For how long runs had stopped it at the node, in total",
            PAUSABLE.map(|what| {
                (
                    vec![("what", what)],
                    totals.pauses(what).length.as_secs_f64(),
                )
            }),
            add_seconds,
        );
    }
}

fn add_seconds(counter: &Counter<f64, AtomicU64>, seconds: f64) {
    counter.inc_by(seconds);
}

fn of_each(jobs: &[JobStatus], value: impl Fn(&JobStatus) -> Option<u64>) -> Vec<(Labels, u64)> {
    let mut values = Vec::new();
    for job in jobs {
        if let Some(value) = value(job) {
            values.push((verb(job.plan.job), value));
        }
    }

    values
}

/// One value of the last run of each of `which`.
fn of_last_run(
    jobs: &[JobStatus],
    which: &[Job],
    value: impl Fn(&RunRecord) -> u64,
) -> Vec<(Labels, u64)> {
    of_each(jobs, |job| {
        let last = job.last.as_ref()?;
        which.contains(&last.job).then(|| value(last))
    })
}

fn totals_of(
    which: &[Job],
    totals: &RunTotals,
    value: impl Fn(&JobTotals) -> u64,
) -> Vec<(Labels, u64)> {
    which
        .iter()
        .map(|job| (verb(*job), totals.job(*job, &value)))
        .collect()
}

fn runs_by_outcome(totals: &RunTotals) -> Vec<(Labels, u64)> {
    let mut counts = Vec::new();
    for job in Job::ALL {
        for outcome in OUTCOMES {
            let labels = vec![("verb", job.name()), ("outcome", outcome)];
            let count = totals.job(job, |totals| {
                totals.outcomes.get(outcome).copied().unwrap_or(0)
            });
            counts.push((labels, count));
        }
    }

    counts
}

fn verb(job: Job) -> Labels {
    vec![("verb", job.name())]
}
