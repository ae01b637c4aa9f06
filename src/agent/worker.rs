//! One run of a job, on a thread of its own: its priority is the thread's, and what goes wrong in
//! it stays in it.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tracing::info;
use uuid::Uuid;

use super::configuration::Configuration;
use super::journal::{Job, Outcome, Pause, Record, Trigger};
use super::lock;
use super::status::Running;
use super::turn::Turn;
use crate::backup::BackupSummary;
use crate::clock::{self, Timestamp};
use crate::error::{Cause, Error, Kind, Result};
use crate::event::{Event, Observer, Step};
use crate::manifest::BackupKind;
use crate::run::{Interruption, Run};
use crate::settings::options::Verb;
use crate::verbs::{self, log, priority};

/// What is to be done.
#[derive(Debug, Clone)]
pub(super) struct Order {
    /// The job.
    pub job: Job,
    /// Why now.
    pub trigger: Trigger,
    /// The repository that has to be there; none: a new one may be made.
    pub repository: Option<Uuid>,
}

/// What became of an order.
pub(super) enum Ending {
    /// It was run, or tried.
    Ran(Record),
    /// It has to wait; why.
    Waits(String),
}

/// A run under way.
#[derive(Clone)]
pub(super) struct Worker {
    run: Arc<Run>,
    witness: Arc<Witness>,
}

impl Worker {
    /// Begins a run, which asks for its turn first, and keeps it to its end. `ended` is told of its
    /// end, whatever it is, and must not block.
    ///
    /// # Errors
    /// [`Kind::Failed`] where there is no thread to be had.
    pub(super) fn start(
        order: Order,
        configuration: Arc<Configuration>,
        turn: impl FnOnce(Job) -> std::result::Result<Option<Turn>, String> + Send + 'static,
        ended: impl FnOnce(Ending) + Send + 'static,
    ) -> Result<Self> {
        let witness = Arc::new(Witness::new(order.job));
        let load = configuration.task(order.job).load();
        let run = Arc::new(priority::run(Arc::clone(&witness), load));
        let worker = Self { run, witness };
        let here = worker.clone();
        std::thread::Builder::new()
            .name(order.job.name().to_owned())
            .spawn(move || {
                // Threads that this one starts inherit it.
                if let Err(error) = priority::lower(load.priority) {
                    here.run
                        .note(format!("the priority cannot be lowered as wanted: {error}"));
                }
                let result = catch_unwind(AssertUnwindSafe(|| {
                    let turn = turn(order.job)?;
                    info!(job = order.job.name(), "begins");
                    let result = work(&order, &configuration, &here.run);
                    drop(turn);
                    Ok(result)
                }));
                let defect = || {
                    Err(Error::new(
                        Kind::Failed,
                        format!("`{}` broke off by a defect of kbackup", order.job),
                    )
                    .hint("please report it, with the log"))
                };
                ended(match result {
                    Ok(Ok(result)) => Ending::Ran(here.record(&order, result)),
                    Ok(Err(why)) => Ending::Waits(why),
                    Err(_) => Ending::Ran(here.record(&order, defect())),
                });
            })
            .map_err(|error| Error::new(Kind::Failed, "cannot start a thread").because(error))?;
        Ok(worker)
    }

    /// Asks it to end soon and cleanly.
    pub(super) fn interrupt(&self, interruption: impl Into<Interruption>) {
        self.run.interrupt(interruption);
    }

    /// Which job it does.
    pub(super) fn job(&self) -> Job {
        self.witness.job
    }

    /// What it does now.
    #[must_use]
    pub(super) fn running(&self) -> Running {
        self.witness.running()
    }

    fn record(&self, order: &Order, result: Result<Done>) -> Record {
        let (done, outcome) = match result {
            Ok(done) => {
                let outcome = Outcome::Done {
                    label: done.label.clone(),
                    warnings: self.run.warnings(),
                };
                (done, outcome)
            }
            Err(error) => (
                Done {
                    repository: order.repository,
                    ..Done::default()
                },
                failure(&error),
            ),
        };
        let (retries, pauses) = self.witness.told();
        Record {
            // The clock may have gone back meanwhile.
            ended: clock::now().max(self.witness.began),
            repository: done.repository,
            bytes_read: done.bytes_read,
            bytes_stored: done.bytes_stored,
            files_copied: done.files_copied,
            files_linked: done.files_linked,
            retries,
            pauses,
            ..Record::of(order, self.witness.began, outcome)
        }
    }
}

impl Record {
    /// A diff that would find nothing.
    pub(super) fn nothing_to_do(order: &Order, now: Timestamp) -> Self {
        Self::of(order, now, Outcome::UpToDate)
    }

    /// A backup that another member has just taken for all.
    pub(super) fn left_to_another(now: Timestamp, because: String) -> Self {
        let order = Order {
            job: Job::Diff,
            trigger: Trigger::Schedule,
            repository: None,
        };
        Self::of(&order, now, Outcome::Skipped { because })
    }

    /// A run that could not even begin.
    pub(super) fn not_begun(order: &Order, now: Timestamp, why: &Error) -> Self {
        Self::of(order, now, failure(why))
    }

    /// A run that took no time and moved no bytes.
    pub(super) fn of(order: &Order, began: Timestamp, outcome: Outcome) -> Self {
        Self {
            job: order.job,
            trigger: order.trigger,
            began,
            ended: began,
            outcome,
            repository: order.repository,
            bytes_read: 0,
            bytes_stored: 0,
            files_copied: 0,
            files_linked: 0,
            retries: Vec::new(),
            pauses: Vec::new(),
        }
    }
}

fn failure(error: &Error) -> Outcome {
    match error.kind() {
        // That scavenging was away for too long is no reason to take it away again at once.
        Kind::Interrupted(Cause::Signal(_) | Cause::WindowClosed) => Outcome::Interrupted {
            why: error.in_words(),
        },
        kind => Outcome::Failed {
            kind: kind.name().to_owned(),
            exit_code: kind.exit_code(),
            message: error.in_words(),
            hints: error.hints().to_vec(),
        },
    }
}

/// What came of a run that did what it should.
#[derive(Debug, Default)]
struct Done {
    repository: Option<Uuid>,
    label: Option<crate::manifest::Label>,
    bytes_read: u64,
    bytes_stored: u64,
    files_copied: u64,
    files_linked: u64,
}

fn work(order: &Order, configuration: &Configuration, run: &Run) -> Result<Done> {
    let task = configuration.task(order.job);
    match &task.verb {
        Verb::Full(options) => verbs::backup::take(
            BackupKind::Full,
            options,
            order.repository,
            &task.general,
            run,
        )
        .map(Done::from),
        Verb::Diff(options) => verbs::backup::take(
            BackupKind::Diff,
            options,
            order.repository,
            &task.general,
            run,
        )
        .map(Done::from),
        Verb::Verify(options) => {
            let report = verbs::verify::verify(options, run)?;
            match report.backups.iter().find_map(|backup| Some((backup, backup.findings.first()?))) {
                None => Ok(Done { bytes_read: report.bytes_hashed, ..Done::default() }),
                Some((backup, finding)) => Err(Error::new(Kind::StoredCorrupt, "a backup is damaged")
                    .on(&backup.label)
                    .because(finding.to_string())
                    .hint("`kbackup verify --repair` mends what a sound copy is left of; else the next diff reads it from the node again")),
            }
        }
        Verb::Expire(options) => {
            let report = verbs::expire::plan(options, run)?.execute(run)?;
            Ok(Done {
                bytes_stored: report.freed,
                files_copied: report.removed.len() as u64,
                ..Done::default()
            })
        }
        _ => Err(Error::new(
            Kind::Failed,
            format!("`{}` is no job of an agent", order.job),
        )),
    }
}

impl From<BackupSummary> for Done {
    fn from(summary: BackupSummary) -> Self {
        Self {
            repository: Some(summary.repository),
            bytes_read: summary.bytes_read,
            bytes_stored: summary.bytes_stored,
            files_copied: summary.files_copied,
            files_linked: summary.files_linked,
            label: Some(summary.label),
        }
    }
}

/// Remembers what happened in a run, and writes it into the log.
struct Witness {
    job: Job,
    began: Timestamp,
    told: Mutex<Told>,
}

#[derive(Debug)]
struct Told {
    step: Step,
    done: u64,
    expected: u64,
    retries: Vec<String>,
    pauses: Vec<Pause>,
    /// What is away from the node now, and since when.
    away: BTreeMap<&'static str, Timestamp>,
}

impl Witness {
    fn new(job: Job) -> Self {
        let told = Told {
            step: Step::Preflight,
            done: 0,
            expected: 0,
            retries: Vec::new(),
            pauses: Vec::new(),
            away: BTreeMap::new(),
        };
        Self {
            job,
            began: clock::now(),
            told: Mutex::new(told),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Told> {
        lock(&self.told)
    }

    fn running(&self) -> Running {
        let told = self.lock();
        Running {
            job: self.job,
            began: self.began,
            step: told.step.name().to_owned(),
            done: told.done,
            expected: told.expected,
            holds: told.away.keys().map(|what| (*what).to_owned()).collect(),
        }
    }

    fn told(&self) -> (Vec<String>, Vec<Pause>) {
        let told = self.lock();
        (told.retries.clone(), told.pauses())
    }
}

impl Told {
    fn gave_back(&mut self, what: &'static str, after: Duration) {
        // What `release` of an earlier run's debt gives back was never told to be taken.
        let began = self.away.remove(what).unwrap_or_else(clock::now);
        let milliseconds = u64::try_from(after.as_millis()).unwrap_or(u64::MAX);
        self.pauses.push(Pause {
            what: what.to_owned(),
            began,
            milliseconds: Some(milliseconds),
        });
    }

    /// What was given back, and what still is not.
    fn pauses(&self) -> Vec<Pause> {
        let away = self.away.iter().map(|(what, began)| Pause {
            what: (*what).to_owned(),
            began: *began,
            milliseconds: None,
        });
        self.pauses.iter().cloned().chain(away).collect()
    }
}

impl Observer for Witness {
    fn observe(&self, event: &Event) {
        let mut told = self.lock();
        match event {
            Event::Step(step) => (told.step, told.done, told.expected) = (*step, 0, 0),
            Event::Expected { bytes, .. } => told.expected = *bytes,
            Event::Progress { bytes } => told.done = told.done.saturating_add(*bytes),
            Event::Retry { reason, .. } => told.retries.push(reason.clone()),
            Event::Taken { what, since } => drop(told.away.insert(what, *since)),
            Event::GivenBack { what, after } => told.gave_back(what, *after),
            Event::NothingToGiveBack { what, .. } => drop(told.away.remove(what)),
            _ => {}
        }
        drop(told);
        log::tell(event);
    }
}
