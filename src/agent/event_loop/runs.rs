//! When a run begins, and what happens when it ends.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::{EventLoop, LONGEST_SLEEP, SHORTEST_SLEEP, SLEEP_BESIDE_RUN};
use crate::agent::report::Report;
use crate::agent::run_record::{Job, JobOrder, RunRecord};
use crate::agent::siblings::Siblings;
use crate::agent::state::{NextStep, Waiting};
use crate::agent::turns::{self, TurnRequest};
use crate::agent::worker::{OrderResult, Worker, WorkerCalls};
use crate::clock::{self, patience};
use crate::run::Interruption;
use crate::verbs::window::closed;

/// How old the writer position may be when a run begins. An old one costs one needless run at most.
const RECENT_POSITION: Duration = Duration::from_secs(10);
/// A verification does not end for a backup that had to wait for its turn within this time.
const TURN_PAUSE: Duration = Duration::from_mins(1);

impl EventLoop {
    /// Begins the run that is due. Returns how long the loop may sleep.
    ///
    /// No run begins during a look, or long after it, because the result of the look decides
    /// whether the run may begin.
    pub(super) fn begin_what_is_due(&mut self) -> Duration {
        if self.worker.is_some() {
            self.interrupt_outside_window();
            self.let_backup_go_first();
            return SLEEP_BESIDE_RUN;
        }
        if !self.look_schedules.are_current() {
            return LONGEST_SLEEP;
        }

        let next = self.state.next_step(SHORTEST_SLEEP, LONGEST_SLEEP);
        if !matches!(next, NextStep::Skip(_)) {
            self.writer_probe.stop_asking();
        }
        if !matches!(next, NextStep::Begin(_)) {
            self.look_schedules.stop_asking();
        }

        match next {
            NextStep::Sleep(time) => return time,
            NextStep::Skip(order) if self.knows_current_position() => {
                self.writer_probe.stop_asking();
                self.remember(RunRecord::nothing_to_do(&order, clock::now()));
            }
            NextStep::Begin(order) if self.knows_position(RECENT_POSITION) => {
                if self.look_schedules.are_recent() {
                    self.begin_run(&order);
                }
            }
            // A newer position may change the next step.
            NextStep::Skip(_) | NextStep::Begin(_) => {
                self.read_writer_position();
                return LONGEST_SLEEP;
            }
        }

        SHORTEST_SLEEP
    }

    /// Whether a due run may be skipped: the position was read after the skip was first wanted, so
    /// that the node's last append counts.
    fn knows_current_position(&mut self) -> bool {
        self.state.observation.db.is_none() || self.writer_probe.is_current()
    }

    /// Whether the last writer position is young enough and says what follows the newest backup, or
    /// cannot be read at all.
    fn knows_position(&self, age: Duration) -> bool {
        let knows = self.writer_probe.is_recent(age) && self.state.knows_scavenge_notes();
        self.state.observation.db.is_none() || knows
    }

    fn begin_run(&mut self, order: &JobOrder) {
        self.look_schedules.stop_asking();
        if let Some(reason) = self.must_yield(order.job) {
            self.state.waiting = Some(Waiting {
                since: Instant::now(),
                reason,
            });
            return;
        }

        let turn_request = self.turn_request(order.job);
        let reporter = self.reporter.clone();
        let run_took_step = Arc::clone(&self.run_took_step);
        let calls = WorkerCalls {
            turn: || turn_request.take(),
            // If the loop has ended, no reader is left.
            ended: move |result| drop(reporter.send(Report::OrderEnded(result))),
            on_step: Box::new(move || run_took_step.notify_one()),
        };

        let configuration = Arc::clone(&self.state.configuration);
        match Worker::start(order.clone(), configuration, calls) {
            Ok(worker) => self.worker = Some(worker),
            Err(error) => self.remember(RunRecord::not_begun(order, clock::now(), &error)),
        }
    }

    fn must_yield(&self, job: Job) -> Option<String> {
        let options = &self.state.configuration.agent;
        if !job.is_backup() || !options.takes_turns() || options.cluster_dir.is_none() {
            return None;
        }

        turns::must_yield(&self.state.journal, clock::now())
    }

    fn turn_request(&self, job: Job) -> TurnRequest {
        let configuration = &self.state.configuration;
        let repository = &configuration.agent.repository;
        let node = self.state.observation.node_facts();

        let member = match node.and_then(|node| node.endpoint.clone()) {
            Some(endpoint) => endpoint,
            None => repository
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned(),
        };

        TurnRequest {
            job,
            configuration: Arc::clone(configuration),
            member,
            db: self.state.observation.db.clone(),
            siblings: self.state.observation.siblings.clone(),
            reports: self.reporter.clone(),
        }
    }

    /// Tells a run that has its turn whether it is still due.
    pub(super) fn answer_run(
        &mut self,
        job: Job,
        siblings: Siblings,
        reply: oneshot::Sender<bool>,
    ) {
        self.state.observe_siblings(siblings);

        let next = self.state.next_step(SHORTEST_SLEEP, LONGEST_SLEEP);
        let is_wanted = matches!(next, NextStep::Begin(order) if order.job == job);
        // The send fails if the run has ended. Then the answer is not needed.
        let _has_ended = reply.send(is_wanted).is_err();
    }

    /// A verification may take days. It ends for a backup that is due, and continues after it.
    fn let_backup_go_first(&mut self) {
        let is_verifying = self
            .worker
            .as_ref()
            .is_some_and(|it| it.job() == Job::Verify);
        let has_waited = self
            .waited
            .is_some_and(|at| at.elapsed() < patience(TURN_PAUSE));
        if !is_verifying || has_waited || !self.look_schedules.are_current() {
            return;
        }

        match self.state.next_step(SHORTEST_SLEEP, LONGEST_SLEEP) {
            NextStep::Begin(order) if order.job.is_backup() => {
                self.writer_probe.stop_asking();
                if let Some(worker) = &self.worker {
                    worker.interrupt(Interruption::BackupDue);
                }
            }
            NextStep::Skip(order) if self.knows_current_position() => {
                self.writer_probe.stop_asking();
                self.remember(RunRecord::nothing_to_do(&order, clock::now()));
            }
            NextStep::Skip(_) => self.read_writer_position(),
            NextStep::Begin(_) | NextStep::Sleep(_) => self.writer_probe.stop_asking(),
        }
    }

    fn interrupt_outside_window(&self) {
        let configuration = &self.state.configuration;
        let now = configuration.agent.time_zone.at(clock::now());

        if let Some(worker) = &self.worker
            && let Some(window) = configuration.job_settings(worker.job()).window()
            && let Some(closed) = closed(window, &now)
        {
            worker.interrupt(closed);
        }
    }

    pub(super) fn order_ended(&mut self, result: OrderResult) {
        self.worker = None;
        self.stillness.forget();
        self.state.waiting = None;

        match result {
            OrderResult::Ran(record) => self.remember(*record),
            OrderResult::Waits(reason) => {
                self.waited = Some(Instant::now());
                self.state.waiting = Some(Waiting {
                    since: Instant::now(),
                    reason,
                });
            }
        }
        self.look_schedules.forget();
    }
}
