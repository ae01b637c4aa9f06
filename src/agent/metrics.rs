//! What Prometheus reads. What stands now comes from the [`Status`], what is counted from the
//! [`Totals`]; nothing is remembered anywhere else.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::TypedMetric;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Metric, Registry, Unit};

use super::journal::{Job, Record};
use super::observation::{Point, RepositoryFacts};
use super::status::{JobStatus, Level, Status};
use crate::clock::{Timestamp, between};
use crate::manifest::BackupKind;

/// What may be taken from a node, as [`super::Pause`] names it.
const TAKEN: [&str; 2] = ["scavenge", "auto-scavenge"];
const OUTCOMES: [&str; 5] = ["done", "up-to-date", "skipped", "interrupted", "failed"];
const LEVELS: [(Level, &str); 3] = [
    (Level::Safe, "safe"),
    (Level::Attention, "attention"),
    (Level::Danger, "danger"),
];

/// `OpenMetrics`, as Prometheus asks for it.
pub(super) const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
/// The older format, for everybody else.
pub(super) const PLAIN_TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Each value of each label is one of a few: no text that somebody else wrote becomes one.
type Labels = Vec<(&'static str, &'static str)>;

/// What was counted since the agent was started. Not since its journal began: that forgets, and a
/// counter that goes back would be taken for a restart.
#[derive(Debug, Default)]
pub(super) struct Totals {
    jobs: BTreeMap<Job, JobTotals>,
    /// By what was taken: how often, and for how long.
    pauses: BTreeMap<&'static str, (u64, Duration)>,
}

#[derive(Debug, Default)]
struct JobTotals {
    outcomes: BTreeMap<&'static str, u64>,
    seconds: u64,
    bytes_read: u64,
    bytes_stored: u64,
    files_copied: u64,
    files_linked: u64,
    retries: u64,
}

impl Totals {
    /// Counts a run that has ended.
    pub(super) fn count(&mut self, record: &Record) {
        let job = self.jobs.entry(record.job).or_default();
        add(job.outcomes.entry(record.outcome.name()).or_default(), 1);
        add(&mut job.seconds, record.seconds());
        add(&mut job.bytes_read, record.bytes_read);
        add(&mut job.bytes_stored, record.bytes_stored);
        add(&mut job.files_copied, record.files_copied);
        add(&mut job.files_linked, record.files_linked);
        add(&mut job.retries, record.retries.len() as u64);
        for pause in &record.pauses {
            let Some(what) = TAKEN.into_iter().find(|what| *what == pause.what) else {
                continue;
            };
            // What was not given back was away until the end, and longer.
            let until_the_end = || between(pause.began, record.ended);
            let (count, away) = self.pauses.entry(what).or_default();
            add(count, 1);
            *away = away.saturating_add(
                pause
                    .milliseconds
                    .map_or_else(until_the_end, Duration::from_millis),
            );
        }
    }

    fn job(&self, job: Job, value: impl Fn(&JobTotals) -> u64) -> u64 {
        self.jobs.get(&job).map_or(0, value)
    }
}

fn add(total: &mut u64, more: u64) {
    *total = total.saturating_add(more);
}

/// Everything in the `OpenMetrics` text format.
pub(super) fn open_metrics(status: &Status, totals: &Totals) -> String {
    let mut sheet = Sheet(Registry::with_prefix("kbackup"));
    sheet.verdict(status);
    sheet.exposure(status);
    sheet.repository(status);
    sheet.jobs(&status.jobs);
    sheet.running(status);
    sheet.runs(totals);
    sheet.pauses(totals);
    let mut text = String::new();
    // Writing into a text cannot fail.
    encode(&mut text, &sheet.0).unwrap_or_default();
    text
}

/// The same in the older text format: there a counter's description has its full name, and neither
/// units nor an end are told.
pub(super) fn plain_text(open_metrics: &str) -> String {
    let mut text = String::with_capacity(open_metrics.len());
    let types: BTreeMap<&str, &str> = open_metrics
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '))
        .collect();
    for line in open_metrics.lines() {
        let described = ["# HELP ", "# TYPE "]
            .into_iter()
            .find_map(|mark| Some((mark, line.strip_prefix(mark)?.split_once(' ')?)));
        match described {
            None if line.starts_with('#') => continue,
            None => text.push_str(line),
            Some((mark, (name, rest))) => {
                let (suffix, rest) = match (types.get(name), mark) {
                    (Some(&"counter"), _) => ("_total", rest),
                    (Some(&"info"), "# TYPE ") => ("_info", "gauge"),
                    (Some(&"info"), _) => ("_info", rest),
                    _ => ("", rest),
                };
                text.extend([mark, name, suffix, " ", rest]);
            }
        }
        text.push('\n');
    }
    text
}

/// The metrics of one answer.
struct Sheet(Registry);

impl Sheet {
    fn gauge(
        &mut self,
        name: &str,
        unit: Option<Unit>,
        help: &str,
        values: impl IntoIterator<Item = (Labels, u64)>,
    ) {
        self.metric(
            name,
            unit,
            help,
            values,
            |gauge: &Gauge<u64, AtomicU64>, value| {
                gauge.set(value);
            },
        );
    }

    fn counter(
        &mut self,
        name: &str,
        unit: Option<Unit>,
        help: &str,
        values: impl IntoIterator<Item = (Labels, u64)>,
    ) {
        self.metric(name, unit, help, values, |counter: &Counter, value| {
            counter.inc_by(value);
        });
    }

    fn metric<M: Metric + TypedMetric + Clone + Default, V>(
        &mut self,
        name: &str,
        unit: Option<Unit>,
        help: &str,
        values: impl IntoIterator<Item = (Labels, V)>,
        set: impl Fn(&M, V),
    ) {
        let family = Family::<Labels, M>::default();
        for (labels, value) in values {
            if labels.is_empty() {
                let alone = M::default();
                set(&alone, value);
                return self.register(name, unit, help, alone);
            }
            set(&family.get_or_create_owned(&labels), value);
        }
        self.register(name, unit, help, family);
    }

    fn register(&mut self, name: &str, unit: Option<Unit>, help: &str, metric: impl Metric) {
        match unit {
            Some(unit) => self.0.register_with_unit(name, help, unit, metric),
            None => self.0.register(name, help, metric),
        }
    }

    fn verdict(&mut self, status: &Status) {
        let version = status
            .agent
            .as_ref()
            .map_or("", |agent| agent.version.trim_start_matches("kbackup "));
        self.0.register(
            "build",
            "The program that answers",
            Info::new(vec![("version", version.to_owned())]),
        );
        let levels = LEVELS.map(|(level, name)| {
            (
                vec![("level", name)],
                u64::from(status.verdict.level == level),
            )
        });
        self.gauge(
            "verdict",
            None,
            "Is the node safe? 1 for the level that holds, 0 for the others",
            levels,
        );
        let concerns = LEVELS
            .into_iter()
            .filter(|(level, _)| *level != Level::Safe)
            .map(|(level, name)| {
                let count = status
                    .verdict
                    .concerns
                    .iter()
                    .filter(|concern| concern.level == level)
                    .count();
                (vec![("level", name)], count as u64)
            });
        self.gauge(
            "concerns",
            None,
            "How much is not as it should be",
            concerns,
        );
        if let Some(agent) = &status.agent {
            self.gauge(
                "agent_start_time",
                Some(Unit::Seconds),
                "When the agent was started",
                at(agent.started),
            );
            let in_use = u64::from(agent.configuration.is_none());
            self.gauge(
                "configuration_in_use",
                None,
                "0 where the configuration was changed and cannot be used",
                one(in_use),
            );
        }
        if let Some(node) = &status.node {
            self.gauge(
                "node_reachable",
                None,
                "1 where the node answered when it was asked last",
                one(u64::from(node.facts.is_some())),
            );
        }
        if let Some(node) = status.node.as_ref().and_then(|node| node.facts.as_ref()) {
            self.gauge(
                "node_scavenging",
                None,
                "1 while the node scavenges",
                one(u64::from(node.scavenge.is_some())),
            );
        }
    }

    fn exposure(&mut self, status: &Status) {
        let help = "For how long something that the node has written has been in no good backup";
        self.gauge(
            "recovery_point_lag",
            Some(Unit::Seconds),
            help,
            status.age().map(|age| (Labels::new(), age.as_secs())),
        );
        let help = "Bytes of log that are in no good backup";
        self.gauge(
            "recovery_point_lag",
            Some(Unit::Bytes),
            help,
            status
                .exposure
                .map(|exposure| (Labels::new(), exposure.bytes)),
        );
        self.gauge(
            "recovery_point_lag_limit",
            Some(Unit::Seconds),
            "The limit of it (--max-age)",
            one(status.max_age_seconds),
        );
        if let Some((_, made)) = status.newest_good() {
            let age = between(made.started, status.at);
            self.gauge(
                "newest_backup_age",
                Some(Unit::Seconds),
                "Age of the newest good backup",
                one(age.as_secs()),
            );
            self.gauge(
                "newest_backup_timestamp",
                Some(Unit::Seconds),
                "When the newest good backup began",
                at(made.started),
            );
            self.gauge(
                "newest_backup_size",
                Some(Unit::Bytes),
                "What a restore of it writes",
                one(made.bytes),
            );
        }
    }

    fn repository(&mut self, status: &Status) {
        let reachable = u64::from(status.repository.facts.is_some());
        self.gauge(
            "repository_readable",
            None,
            "1 where the repository could be read when it was looked at last",
            one(reachable),
        );
        let Some(facts) = &status.repository.facts else {
            return;
        };
        let help = "Bytes that may still be stored in the repository";
        self.gauge(
            "repository_free",
            Some(Unit::Bytes),
            help,
            facts.free_bytes.map(|bytes| (Labels::new(), bytes)),
        );
        let stored = facts
            .points
            .iter()
            .filter_map(|point| point.made)
            .fold(0_u64, |sum, made| sum.saturating_add(made.bytes_stored));
        self.gauge(
            "repository_stored",
            Some(Unit::Bytes),
            "Bytes that its backups have stored, all together",
            one(stored),
        );
        let points = ["good", "damaged", "unreadable"].map(|state| {
            (
                vec![("state", state)],
                facts
                    .points
                    .iter()
                    .filter(|point| condition(point) == state)
                    .count() as u64,
            )
        });
        self.gauge(
            "restore_points",
            None,
            "Backups in the repository, by what is known of them",
            points,
        );
        let kinds = [(BackupKind::Full, "full"), (BackupKind::Diff, "diff")];
        let newest = kinds
            .into_iter()
            .filter_map(|(kind, name)| Some((vec![("verb", name)], newest_of(facts, kind)?)));
        self.gauge(
            "newest_backup_of_kind_timestamp",
            Some(Unit::Seconds),
            "When the newest good backup of each kind began",
            newest,
        );
        let verified = facts
            .points
            .iter()
            .filter_map(|point| point.verified)
            .map(|verified| verified.at)
            .max();
        let help = "When a backup was last verified, with whatever result";
        self.gauge(
            "newest_verification_timestamp",
            Some(Unit::Seconds),
            help,
            verified.into_iter().flat_map(at),
        );
    }

    fn jobs(&mut self, jobs: &[JobStatus]) {
        let mut each = |name: &str,
                        unit: Option<Unit>,
                        help: &str,
                        value: &dyn Fn(&JobStatus) -> Option<u64>| {
            self.gauge(
                name,
                unit,
                help,
                jobs.iter()
                    .filter_map(|job| Some((verb(job.plan.job), value(job)?))),
            );
        };
        let last = |of: fn(&Record) -> u64| move |job: &JobStatus| job.last.as_ref().map(of);
        let backup = |of: fn(&Record) -> u64| {
            move |job: &JobStatus| {
                job.last
                    .as_ref()
                    .filter(|last| last.job.is_backup())
                    .map(of)
            }
        };
        let seconds = Some(Unit::Seconds);
        let help = "When it last did what it should, or found nothing to do";
        each("last_success_timestamp", seconds.clone(), help, &|job| {
            job.last_success.map(second)
        });
        each(
            "last_run_timestamp",
            seconds.clone(),
            "When its last run ended, however",
            &last(|run| second(run.ended)),
        );
        each(
            "last_run_duration",
            seconds.clone(),
            "How long its last run took",
            &last(Record::seconds),
        );
        let help = "Bytes that its last run read from the node, or hashed";
        each("last_run_read", Some(Unit::Bytes), help, &|job| {
            last_read(job)
        });
        each(
            "last_run_stored",
            Some(Unit::Bytes),
            "Bytes that its last run stored",
            &backup(|run| run.bytes_stored),
        );
        each(
            "last_run_copied_files",
            None,
            "Files that its last run copied",
            &backup(|run| run.files_copied),
        );
        each(
            "last_run_linked_files",
            None,
            "Files that its last run took over from an earlier backup",
            &backup(|run| run.files_linked),
        );
        each(
            "failures_in_a_row",
            None,
            "How often it failed since it last did what it should",
            &|job| Some(job.failures),
        );
        each(
            "next_run_timestamp",
            seconds,
            "When it is due next; past while something holds it back",
            &|job| job.plan.due.map(second),
        );
        each(
            "run_held_back",
            None,
            "1 while it is due and something holds it back",
            &|job| Some(u64::from(job.plan.hold.is_some())),
        );
    }

    fn running(&mut self, status: &Status) {
        let running = status.running.as_ref();
        let jobs = Job::ALL.map(|job| {
            (
                verb(job),
                u64::from(running.is_some_and(|running| running.job == job)),
            )
        });
        self.gauge("running", None, "1 while a run of it is under way", jobs);
        let holds = |what: &str| {
            running.is_some_and(|running| running.holds.iter().any(|held| held == what))
        };
        let held = TAKEN.map(|what| (vec![("what", what)], u64::from(holds(what))));
        self.gauge(
            "held",
            None,
            "1 while it is kept from the node by a run",
            held,
        );
    }

    fn runs(&mut self, totals: &Totals) {
        let runs = Job::ALL.into_iter().flat_map(|job| {
            OUTCOMES.map(|outcome| {
                let count = totals.job(job, |totals| {
                    totals.outcomes.get(outcome).copied().unwrap_or(0)
                });
                (vec![("verb", job.name()), ("outcome", outcome)], count)
            })
        });
        self.counter("runs", None, "Runs that ended, by how they ended", runs);
        let all =
            |value: fn(&JobTotals) -> u64| Job::ALL.map(|job| (verb(job), totals.job(job, value)));
        let backups = |value: fn(&JobTotals) -> u64| {
            [Job::Full, Job::Diff].map(|job| (verb(job), totals.job(job, value)))
        };
        self.counter(
            "runs_duration",
            Some(Unit::Seconds),
            "How long they took",
            all(|totals| totals.seconds),
        );
        let read = [Job::Full, Job::Diff, Job::Verify]
            .map(|job| (verb(job), totals.job(job, |totals| totals.bytes_read)));
        self.counter(
            "read",
            Some(Unit::Bytes),
            "Bytes read from the node, or hashed by a verification",
            read,
        );
        self.counter(
            "stored",
            Some(Unit::Bytes),
            "Bytes stored in the repository",
            backups(|totals| totals.bytes_stored),
        );
        self.counter(
            "copied_files",
            None,
            "Files copied, in whole or in part",
            backups(|totals| totals.files_copied),
        );
        self.counter(
            "linked_files",
            None,
            "Files taken over from an earlier backup",
            backups(|totals| totals.files_linked),
        );
        let retries = backups(|totals| totals.retries);
        self.counter("retries", None, "How often a backup started over, as the node's files changed meanwhile; the log tells why", retries);
        let freed = one(totals.job(Job::Expire, |totals| totals.bytes_stored));
        self.counter(
            "freed",
            Some(Unit::Bytes),
            "Bytes that came free as backups were removed",
            freed,
        );
        let removed = one(totals.job(Job::Expire, |totals| totals.files_copied));
        self.counter(
            "removed_backups",
            None,
            "Backups that were removed",
            removed,
        );
    }

    fn pauses(&mut self, totals: &Totals) {
        let of = |what| totals.pauses.get(what).copied().unwrap_or_default();
        let counts = TAKEN.map(|what| (vec![("what", what)], of(what).0));
        self.counter(
            "pauses",
            None,
            "How often it was kept from the node",
            counts,
        );
        let lengths = TAKEN.map(|what| (vec![("what", what)], of(what).1.as_secs_f64()));
        let help = "For how long it was kept from the node, all together";
        self.metric(
            "pauses_duration",
            Some(Unit::Seconds),
            help,
            lengths,
            |counter: &Counter<f64, AtomicU64>, seconds| {
                counter.inc_by(seconds);
            },
        );
    }
}

fn one(value: u64) -> [(Labels, u64); 1] {
    [(Labels::new(), value)]
}

fn at(moment: Timestamp) -> [(Labels, u64); 1] {
    one(second(moment))
}

/// Seconds since 1970; nothing here was before.
fn second(moment: Timestamp) -> u64 {
    u64::try_from(moment.as_second()).unwrap_or(0)
}

fn verb(job: Job) -> Labels {
    vec![("verb", job.name())]
}

fn last_read(job: &JobStatus) -> Option<u64> {
    job.last
        .as_ref()
        .filter(|last| last.job != Job::Expire)
        .map(|last| last.bytes_read)
}

fn condition(point: &Point) -> &'static str {
    match (point.made, point.good()) {
        (None, _) => "unreadable",
        (Some(_), None) => "damaged",
        (Some(_), Some(_)) => "good",
    }
}

fn newest_of(facts: &RepositoryFacts, kind: BackupKind) -> Option<u64> {
    let good = facts.points.iter().rev().filter_map(Point::good);
    good.filter(|made| made.kind == kind)
        .map(|made| second(made.started))
        .next()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::journal::{Outcome, Pause, Trigger};

    fn record(outcome: Outcome, pause: Option<u64>) -> Record {
        let time = |second| Timestamp::from_second(second).unwrap();
        Record {
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
            }],
        }
    }

    #[test]
    fn what_is_counted_only_grows() {
        let mut totals = Totals::default();
        let mut before = 0;
        // More than the journal remembers.
        for _ in 0..12_000 {
            totals.count(&record(Outcome::UpToDate, Some(250)));
            let now = totals.job(Job::Diff, |job| {
                job.outcomes.get("up-to-date").copied().unwrap()
            });
            assert_eq!(now, before + 1);
            before = now;
        }
        assert_eq!(totals.job(Job::Diff, |job| job.files_linked), 48_000);
        assert_eq!(
            totals.pauses.get("scavenge"),
            Some(&(12_000, Duration::from_secs(3000)))
        );
        assert_eq!(totals.job(Job::Full, |job| job.seconds), 0);
    }

    #[test]
    fn what_was_not_given_back_was_away_until_the_end() {
        let mut totals = Totals::default();
        totals.count(&record(
            Outcome::Interrupted {
                why: "a signal".to_owned(),
            },
            None,
        ));
        assert_eq!(
            totals.pauses.get("scavenge"),
            Some(&(1, Duration::from_secs(6)))
        );
    }

    #[test]
    fn the_older_format_describes_what_it_has() {
        let mut sheet = Sheet(Registry::with_prefix("kbackup"));
        sheet.runs(&Totals::default());
        sheet
            .0
            .register("build", "Program", Info::new(vec![("version", "1")]));
        sheet.gauge("lag", Some(Unit::Seconds), "Lag", one(3));
        let mut text = String::new();
        encode(&mut text, &sheet.0).unwrap();
        let plain = plain_text(&text);
        for line in [
            "# TYPE kbackup_runs_total counter",
            "# HELP kbackup_build_info Program.",
            "# TYPE kbackup_build_info gauge",
            "kbackup_build_info{version=\"1\"} 1",
            "# TYPE kbackup_lag_seconds gauge",
            "kbackup_lag_seconds 3",
            "kbackup_removed_backups_total 0",
        ] {
            assert!(
                plain.lines().any(|found| found == line),
                "{line} in {plain}"
            );
        }
        assert!(
            !plain.contains("# UNIT") && !plain.contains("# EOF"),
            "{plain}"
        );
    }
}
