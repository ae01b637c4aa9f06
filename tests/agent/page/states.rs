//! The states that the page can show. Each is made as the agent makes it: from the repository, the
//! journal, and a look at the node.

use std::collections::BTreeMap;
use std::time::Duration;

use kbackup::agent::{
    AgentFacts, BackupFacts, Exposure, Job, JobPlan, Journal, LastKnown, LookResult, NodeFacts,
    Pause, RepositoryFacts, RestorePoint, RunOutcome, RunRecord, RunningJob, Status, StatusInput,
    Trigger,
};
use kbackup::clock::Timestamp;
use kbackup::manifest::{BackupKind, Label};
use kbackup::proof::Depth;
use kbackup::repository::Remembered;
use uuid::Uuid;

const HOUR: i64 = 3600;
const DAY: i64 = 24 * HOUR;
const MIB: u64 = 1 << 20;

pub(super) fn now() -> Timestamp {
    "2026-11-21T13:05:00Z".parse().unwrap()
}

/// The time this many seconds ago.
fn ago(seconds: i64) -> Timestamp {
    Timestamp::from_second(now().as_second() - seconds).unwrap()
}

/// Everything that makes a status. A test changes what it needs.
pub(crate) struct State {
    points: Option<Vec<RestorePoint>>,
    problem: Option<String>,
    /// Since when a disk has not answered.
    silent_since: Option<Timestamp>,
    place: String,
    records: Vec<RunRecord>,
    exposure: Option<Exposure>,
    node: Option<LookResult<NodeFacts>>,
    running: Option<RunningJob>,
    plans: Vec<(JobPlan, String)>,
    configuration: Option<String>,
    on_nodes_disk: bool,
}

fn point(sequence: u64, seconds_ago: i64, kind: BackupKind, stored: u64) -> RestorePoint {
    let started = ago(seconds_ago);
    let lasted = if kind == BackupKind::Full {
        1400
    } else {
        i64::try_from(4 + stored / (3 * MIB)).unwrap()
    };

    let position = 40_000_000_000 + sequence * 7_301_337;

    RestorePoint {
        label: Label::new(started, kind),
        backup: Some(BackupFacts {
            kind,
            sequence,
            branch: 1,
            started,
            finished: ago(seconds_ago - lasted),
            position,
            writer: position,
            last_event: Some(ago(seconds_ago + 2)),
            bytes: 41 << 30,
            bytes_read: stored,
            bytes_stored: stored,
            is_sound: true,
        }),
        problem: None,
        verified: None,
    }
}

fn intact(seconds_ago: i64) -> Option<Remembered> {
    Some(Remembered {
        at: ago(seconds_ago),
        depth: Depth::Normal,
        findings: 0,
    })
}

fn record(job: Job, seconds_ago: i64, seconds: i64, outcome: RunOutcome) -> RunRecord {
    RunRecord {
        job,
        trigger: Trigger::Schedule,
        began: ago(seconds_ago),
        ended: ago(seconds_ago - seconds),
        outcome,
        repository: None,
        bytes_read: 0,
        bytes_stored: 0,
        files_copied: 0,
        files_linked: 0,
        retries: Vec::new(),
        pauses: Vec::new(),
        damaged: Vec::new(),
    }
}

fn of_point(point: &RestorePoint) -> RunRecord {
    let backup = point.backup.unwrap();

    RunRecord {
        job: if backup.kind == BackupKind::Full {
            Job::Full
        } else {
            Job::Diff
        },
        began: backup.started,
        ended: backup.finished,
        bytes_read: backup.bytes_read,
        bytes_stored: backup.bytes_stored,
        ..record(
            Job::Diff,
            0,
            0,
            RunOutcome::Done {
                label: Some(point.label.clone()),
                warnings: Vec::new(),
            },
        )
    }
}

fn failed(message: &str, hint: &str) -> RunOutcome {
    RunOutcome::Failed {
        kind: "unreachable".to_owned(),
        exit_code: 13,
        message: message.to_owned(),
        hints: vec![hint.to_owned()],
    }
}

fn plan(job: Job, in_seconds: Option<i64>, schedule: &str) -> (JobPlan, String) {
    let due = in_seconds.map(|seconds| ago(-seconds));
    (
        JobPlan {
            job,
            due,
            trigger: Trigger::Schedule,
            hold: None,
        },
        schedule.to_owned(),
    )
}

impl State {
    /// Four weeks of a healthy node, with a backup every six hours.
    pub(crate) fn safe() -> Self {
        let mut points: Vec<RestorePoint> = Vec::new();
        for (sequence, step) in (0..26 * 4).rev().enumerate() {
            let kind = if step % 28 == 27 || sequence == 0 {
                BackupKind::Full
            } else {
                BackupKind::Diff
            };

            let stored = match kind {
                BackupKind::Full => 38_000 * MIB,
                BackupKind::Diff => (30 + (i64::from(step) * 7919 % 97).unsigned_abs() * 3) * MIB,
            };

            points.push(point(
                sequence as u64 + 1,
                i64::from(step) * 6 * HOUR + 1800,
                kind,
                stored,
            ));
        }

        let mut records: Vec<RunRecord> = points.iter().map(of_point).collect();

        for week in [3, 2, 1, 0] {
            let at = week * 7 * DAY + 2 * DAY;
            if let Some(point) = points
                .iter_mut()
                .find(|point| point.backup.unwrap().started >= ago(at + 7 * HOUR))
            {
                point.verified = intact(at);
            }

            records.push(RunRecord {
                bytes_read: 41 << 30,
                ..record(
                    Job::Verify,
                    at + 900,
                    900,
                    RunOutcome::Done {
                        label: None,
                        warnings: Vec::new(),
                    },
                )
            });
        }

        for days in [20_i64, 12, 5] {
            let began = ago(days * DAY + 1700);
            let pauses = vec![Pause {
                what: "scavenge".to_owned(),
                began,
                milliseconds: Some(95_000 * days.unsigned_abs()),
                interrupted: true,
            }];
            records.push(RunRecord {
                pauses,
                ..record(Job::Diff, days * DAY + 1800, 40, RunOutcome::UpToDate)
            });
        }

        records.sort_by_key(|record| record.ended);

        let node = NodeFacts {
            place: "https://node-1.example:2113".to_owned(),
            version: "26.1.0".to_owned(),
            state: "follower".to_owned(),
            scavenge: None,
            auto_scavenge: None,
            scavenging: None,
            db: "/var/lib/kurrentdb".into(),
            endpoint: None,
            members: Vec::new(),
        };

        Self {
            points: Some(points),
            problem: None,
            silent_since: None,
            place: "/backups/node-1".to_owned(),
            records,
            exposure: Some(Exposure {
                writer: 41_000_000_000,
                bytes: 12 * MIB,
                since: Some(ago(1500)),
            }),
            node: Some(LookResult {
                at: now(),
                facts: Some(node),
                problem: None,
                hints: Vec::new(),
                unknown_since: None,
            }),
            running: None,
            plans: vec![
                plan(Job::Full, None, "off"),
                plan(Job::Diff, Some(5 * HOUR + 1800), "6h"),
                plan(Job::Verify, Some(5 * DAY), "0 4 * * 0"),
                plan(Job::Expire, Some(11 * HOUR), "@daily"),
            ],
            configuration: None,
            on_nodes_disk: false,
        }
    }

    /// A repository that would be lost with the node.
    pub(crate) fn on_the_nodes_disk() -> Self {
        Self {
            on_nodes_disk: true,
            ..Self::safe()
        }
    }

    /// The newest backup was taken while the clock was a year ahead. No node is asked, as with
    /// `kbackup status --repo`.
    pub(crate) fn from_the_future() -> Self {
        let mut state = Self::safe();
        let newest = state.points.as_mut().unwrap().last_mut().unwrap();
        let backup = newest.backup.as_mut().unwrap();
        backup.started = ago(-365 * DAY);
        backup.finished = ago(-365 * DAY);
        state.exposure = None;
        state.node = None;
        state
    }

    /// Two backups carry one number.
    pub(crate) fn with_equal_numbers() -> Self {
        let mut state = Self::safe();
        let points = state.points.as_mut().unwrap();
        let count = points.len();
        let number = points[count - 2].backup.unwrap().sequence;
        points[count - 1].backup.as_mut().unwrap().sequence = number;
        state
    }

    /// A manifest belongs to another user.
    pub(crate) fn with_a_foreign_manifest() -> Self {
        let mut state = Self::safe();
        let points = state.points.as_mut().unwrap();
        let count = points.len();
        points[count - 3].backup = None;
        points[count - 3].problem = Some("cannot open `manifest.json`: it is root's".to_owned());
        state
    }

    fn up_to_date() -> Self {
        let mut state = Self::safe();
        state.exposure = Some(Exposure {
            writer: 41_000_000_000,
            bytes: 0,
            since: None,
        });
        state
            .records
            .push(record(Job::Diff, 600, 0, RunOutcome::UpToDate));
        state
    }

    fn attention() -> Self {
        let mut state = Self::safe();

        let points = state.points.as_mut().unwrap();
        let count = points.len();
        points[count - 9].verified = Some(Remembered {
            at: ago(30 * HOUR),
            depth: Depth::Deep,
            findings: 2,
        });
        points[count - 20].backup = None;

        for hours in [4, 3, 2] {
            let outcome = failed(
                "cannot reach https://node-1.example:2113: connection refused",
                "is the node running? `--node` names it",
            );
            let retries = vec!["chunk-000012.000003 changed while it was read".to_owned()];
            state.records.push(RunRecord {
                retries,
                ..record(Job::Diff, hours * HOUR, 31, outcome)
            });
        }

        state.node = Some(LookResult {
            at: now(),
            facts: None,
            problem: Some("connection refused".to_owned()),
            hints: Vec::new(),
            unknown_since: None,
        });

        state.plans[1] = plan(Job::Diff, Some(-60), "6h");
        state.plans[1].0.trigger = Trigger::Retry;
        state.plans[1].0.hold =
            Some("a scavenge is running, and nothing is older than 26h".to_owned());

        state.configuration =
            Some("the configuration file has an unknown key `diff-shedule`".to_owned());

        state
    }

    fn too_old() -> Self {
        let mut state = Self::safe();
        let points = state.points.as_mut().unwrap();
        points.retain(|point| {
            let started = point.backup.unwrap().started;
            started < ago(3 * DAY) && !(ago(16 * DAY)..ago(12 * DAY)).contains(&started)
        });

        let labels: Vec<Label> = points.iter().map(|point| point.label.clone()).collect();
        state.records.retain(|record| match &record.outcome {
            RunOutcome::Done {
                label: Some(label), ..
            } => labels.contains(label),
            outcome => *outcome != RunOutcome::UpToDate,
        });

        for hours in (1..70).rev().step_by(3) {
            state.records.push(record(
                Job::Diff,
                hours * HOUR,
                12,
                failed(
                    "cannot write /backups/node-1: No space left on device",
                    "make room, or `kbackup expire`",
                ),
            ));
        }

        state.exposure = Some(Exposure {
            writer: 41_000_000_000,
            bytes: 2_900 * MIB,
            since: Some(ago(3 * DAY)),
        });

        state
    }

    fn no_repository() -> Self {
        let mut state = Self::safe();
        state.points = None;
        state.exposure = None;
        state.problem =
            Some("/backups/node-1 is no repository: it is empty; is its disk mounted?".to_owned());
        state
    }

    /// No disk answers.
    fn not_known() -> Self {
        let mut state = Self::no_repository();
        let since = ago(400);
        let problem = "not known since 2026-11-21 12:58:20 UTC, because a disk does not answer";
        state.problem = Some(problem.to_owned());
        state.silent_since = Some(since);
        state.node = Some(LookResult {
            at: since,
            facts: None,
            problem: Some(problem.to_owned()),
            hints: Vec::new(),
            unknown_since: Some(since),
        });
        state.plans[1] = plan(Job::Diff, Some(-390), "6h");
        state
    }

    fn no_backup_yet() -> Self {
        let mut state = Self::safe();
        state.points = Some(Vec::new());
        state.records.clear();
        state.exposure = Some(Exposure {
            writer: 41_000_000_000,
            bytes: 41_000_000_000,
            since: Some(ago(40)),
        });
        state.plans = vec![plan(Job::Diff, Some(0), "1h")];
        state.plans[0].0.trigger = Trigger::First;
        state
    }

    fn running() -> Self {
        let mut state = Self::safe();
        state.running = Some(RunningJob {
            job: Job::Diff,
            began: ago(95),
            step: "copy".to_owned(),
            done: 311 * MIB,
            expected: 517 * MIB,
            holds: vec!["scavenge".to_owned(), "auto-scavenge".to_owned()],
            still_since: None,
        });
        state
    }

    fn thousands() -> Self {
        let mut state = Self::safe();
        let every = 20 * 60;

        // There is a backup every 20 minutes.
        let points: Vec<RestorePoint> = (0..2000_i64)
            .rev()
            .map(|step| {
                let kind = if step % 500 == 499 {
                    BackupKind::Full
                } else {
                    BackupKind::Diff
                };
                let stored = if kind == BackupKind::Full {
                    38_000 * MIB
                } else {
                    (1 + (step * 7919 % 61).unsigned_abs()) * MIB
                };
                point(2000 - step.unsigned_abs(), step * every + 300, kind, stored)
            })
            .collect();

        state.records = points.iter().map(of_point).collect();

        // Older backups were removed, as retention does.
        state.points = Some(
            points
                .into_iter()
                .enumerate()
                .filter(|(at, _)| *at > 1500 || at % 24 == 0 || *at < 1)
                .map(|(_, point)| point)
                .collect(),
        );

        state
    }

    pub(crate) fn hostile() -> Self {
        let mut state = Self::safe();

        let evil = "<script>alert(1)</script>\"><img src=x onerror=\"alert(1)\">";
        state
            .records
            .push(record(Job::Diff, 100, 3, failed(evil, evil)));
        state.place = "/back ups/it's <b>".to_owned();
        state.configuration = Some(evil.to_owned());

        state.node = Some(LookResult {
            at: now(),
            facts: None,
            problem: Some(evil.to_owned()),
            hints: Vec::new(),
            unknown_since: None,
        });

        state.running = Some(RunningJob {
            job: Job::Diff,
            began: ago(5),
            step: evil.to_owned(),
            done: 9,
            expected: 3,
            holds: vec![evil.to_owned()],
            still_since: None,
        });

        state.plans[0].0.hold = Some(evil.to_owned());
        state.plans[0].1 = evil.to_owned();

        state
    }

    pub(crate) fn status(self) -> Status {
        let mut journal = Journal::default();
        for record in self.records {
            journal.remember(record).unwrap();
        }

        let facts = self.points.map(|points| RepositoryFacts {
            place: self.place,
            id: Uuid::from_u128(0x0190_0000_0000_7000_8000_0000_0000_0001),
            points,
            free_bytes: Some(900 << 30),
            database: None,
            on_nodes_disk: self.on_nodes_disk,
        });

        Status::of(StatusInput {
            cluster: None,
            now: now(),
            max_age: Duration::from_secs(26 * 3600),
            repository: LookResult {
                at: now(),
                facts,
                problem: self.problem,
                hints: Vec::new(),
                unknown_since: self.silent_since,
            },
            node: self.node,
            exposure: self.exposure,
            position_is_unknown: false,
            last_known: LastKnown::of_journal(&journal).as_ref(),
            agent: Some(AgentFacts {
                version: "kbackup 0.1.0".to_owned(),
                started: ago(19 * DAY),
                configuration: self.configuration,
                journal: None,
                owed: None,
                hooks: Vec::new(),
            }),
            journal: Some(&journal),
            plans: self.plans,
            late: self.silent_since.map(|_| Job::Diff).into_iter().collect(),
            running: self.running,
        })
    }
}

pub(crate) fn all() -> BTreeMap<&'static str, State> {
    BTreeMap::from([
        ("safe", State::safe()),
        ("up-to-date", State::up_to_date()),
        ("attention", State::attention()),
        ("too-old", State::too_old()),
        ("no-repository", State::no_repository()),
        ("not-known", State::not_known()),
        ("no-backup-yet", State::no_backup_yet()),
        ("running", State::running()),
        ("thousands", State::thousands()),
    ])
}
