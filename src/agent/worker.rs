//! One run of a job, on a thread of its own. The thread has its own priority, and the loop gets a
//! report even if the run panics.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use tracing::info;

use super::configuration::Configuration;
use super::perform::{JobResult, perform};
use super::run_record::{Job, JobOrder, RunOutcome, RunRecord};
use super::run_recorder::RunRecorder;
use super::status::RunningJob;
use super::turn_lock::TurnLock;
use crate::clock;
use crate::error::{Error, Kind, Result};
use crate::run::{Interruption, Run};
use crate::verbs::priority;

/// How long a run may take after a signal to give back to the node what it stopped. The service
/// manager waits longer.
const GIVE_BACK_AT_END: Duration = Duration::from_secs(30);

/// The result of an order.
pub(super) enum OrderResult {
    /// The run has ended, well or not.
    Ran(Box<RunRecord>),
    /// The job has to wait for its turn. The text says why.
    Waits(String),
}

/// A run that is under way.
#[derive(Clone)]
pub(super) struct Worker {
    run: Arc<Run>,
    recorder: Arc<RunRecorder>,
}

/// What the thread of a run calls.
pub(super) struct WorkerCalls<Turn, Ended> {
    /// Takes the run's turn, or says why the run has to come again later. May block.
    pub turn: Turn,
    /// Reports the end of the run, whatever it is. Must not block.
    pub ended: Ended,
    /// Reports another step of the run. Must not block.
    pub on_step: Box<dyn Fn() + Send + Sync>,
}

impl Worker {
    /// Begins a run.
    ///
    /// # Errors
    /// [`Kind::Failed`] if the system has no thread left.
    pub(super) fn start<Turn, Ended>(
        order: JobOrder,
        configuration: Arc<Configuration>,
        calls: WorkerCalls<Turn, Ended>,
    ) -> Result<Self>
    where
        Turn: FnOnce() -> std::result::Result<Option<TurnLock>, String> + Send + 'static,
        Ended: FnOnce(OrderResult) + Send + 'static,
    {
        let recorder = Arc::new(RunRecorder::new(order.job, order.trigger, calls.on_step));
        let load = configuration.job_settings(order.job).load();
        let run = priority::run(Arc::clone(&recorder), load).with_grace(GIVE_BACK_AT_END);
        let run = Arc::new(run);
        let worker = Self { run, recorder };

        let (on_thread, turn, ended) = (worker.clone(), calls.turn, calls.ended);
        std::thread::Builder::new()
            .name(order.job.name().to_owned())
            .spawn(move || {
                // The threads that this thread starts inherit its priority.
                if let Err(error) = priority::lower(load.priority) {
                    let note = format!("cannot lower the priority as configured: {error}");
                    on_thread.run.note(note);
                }

                let run_order = || on_thread.run_in_turn(&order, &configuration, turn);
                let result = catch_unwind(AssertUnwindSafe(run_order));
                ended(result.unwrap_or_else(|_| on_thread.record_defect(&order)));
            })
            .map_err(|error| Error::new(Kind::Failed, "cannot start a thread").because(error))?;

        Ok(worker)
    }

    /// Asks the run to end soon and cleanly.
    pub(super) fn interrupt(&self, interruption: impl Into<Interruption>) {
        self.run.interrupt(interruption);
    }

    pub(super) fn job(&self) -> Job {
        self.recorder.job
    }

    /// Whether the run did something since this was asked last, or waited on purpose.
    pub(super) fn goes_on(&self) -> bool {
        self.run.goes_on()
    }

    pub(super) fn running(&self) -> RunningJob {
        self.recorder.running()
    }

    /// The record of the run, if the agent ends without it.
    pub(super) fn abandoned(&self, error: &Error) -> RunRecord {
        let order = JobOrder {
            job: self.recorder.job,
            trigger: self.recorder.trigger,
            repository: None,
            may_stop_scavenges: false,
        };

        self.ended(&order, &JobResult::default(), RunOutcome::of_error(error))
    }

    fn run_in_turn(
        &self,
        order: &JobOrder,
        configuration: &Configuration,
        turn: impl FnOnce() -> std::result::Result<Option<TurnLock>, String>,
    ) -> OrderResult {
        let turn = match turn() {
            Ok(turn) => turn,
            Err(reason) => return OrderResult::Waits(reason),
        };

        info!(job = order.job.name(), "begins");
        let result = perform(order, configuration, &self.run);
        drop(turn);
        if configuration.job_settings(order.job).load().timings {
            self.log_timings();
        }

        OrderResult::Ran(Box::new(self.record(order, result)))
    }

    fn log_timings(&self) {
        let timings = self.run.timings();
        for spent in timings.steps().into_iter().chain(timings.activities()) {
            let (job, seconds) = (self.recorder.job.name(), spent.seconds);
            info!(job, seconds, "spent on {}", spent.name);
        }
    }

    fn record_defect(&self, order: &JobOrder) -> OrderResult {
        let what = format!("`{}` ended because of a defect of kbackup", order.job);
        let error = Error::new(Kind::Failed, what).hint("please report it, with the log");

        OrderResult::Ran(Box::new(self.record(order, Err(error))))
    }

    fn record(&self, order: &JobOrder, result: Result<JobResult>) -> RunRecord {
        let (result, outcome) = match result {
            Ok(result) => {
                let outcome = RunOutcome::Done {
                    label: result.label.clone(),
                    warnings: self.run.warnings(),
                };
                (result, outcome)
            }
            Err(error) => {
                let result = JobResult {
                    repository: order.repository,
                    ..JobResult::default()
                };
                (result, RunOutcome::of_error(&error))
            }
        };

        self.ended(order, &result, outcome)
    }

    fn ended(&self, order: &JobOrder, result: &JobResult, outcome: RunOutcome) -> RunRecord {
        let began = self.recorder.began;
        RunRecord {
            // The clock may have gone back during the run.
            ended: clock::now().max(began),
            repository: result.repository,
            bytes_read: result.bytes_read,
            bytes_stored: result.bytes_stored,
            files_copied: result.files_copied,
            files_linked: result.files_linked,
            retries: self.recorder.retries(),
            pauses: self.recorder.pauses(),
            damaged: result.damaged.clone(),
            ..RunRecord::of(order, began, outcome)
        }
    }
}
