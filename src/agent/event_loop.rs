//! The agent's event loop.
//!
//! The loop owns the [`AgentState`]. All work that can block on a disk or a network runs on another
//! thread and ends with a [`Report`]. The loop waits for a report, a signal, a change of the node's
//! files or its own timer. It handles the event, begins what is due, and publishes the new status.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::runtime::Handle;
use tokio::signal::unix::{Signal as SignalStream, SignalKind, signal};
use tokio::sync::{Notify, mpsc, oneshot};
use tracing::{error, info};

use super::Reread;
use super::announcements::HookMessage;
use super::assessment::hanging_look;
use super::change::ChangeWatcher;
use super::configuration::Configuration;
use super::hook_delivery;
use super::hooks::HookQueues;
use super::http;
use super::journal::{Journal, JournalFile};
use super::look_schedule::LookSchedule;
use super::observation::{LookRequest, Observation};
use super::published::{Published, Publisher, Snapshot};
use super::report::{Report, defect, report_result_of};
use super::run_record::{Job, JobOrder, RunRecord};
use super::siblings::Siblings;
use super::state::{AgentState, NextStep, Waiting};
use super::status::Status;
use super::systemd::ServiceManager;
use super::turns::{self, TurnRequest};
use super::worker::{OrderResult, Worker, WorkerCalls};
use super::writer_probe::{WriterProbe, WriterReading};
use crate::clock;
use crate::error::{Error, Kind, Result, Signal};
use crate::settings::options::ListenAddress;
use crate::verbs::window::closed;

/// How long the loop sleeps at most. The clock may jump, and a window may close meanwhile.
const LONGEST_SLEEP: Duration = Duration::from_secs(5);
/// How long the loop sleeps at most while a run is under way, because the page shows its progress.
const SLEEP_BESIDE_RUN: Duration = Duration::from_secs(1);
/// How long the loop sleeps at least.
const SHORTEST_SLEEP: Duration = Duration::from_millis(200);
/// How old a look may be when a run begins. A scavenge may have begun since then.
const RECENT_LOOK: Duration = Duration::from_secs(1);
/// How old the writer position may be when a run begins. An old one costs one needless run at most.
const RECENT_POSITION: Duration = Duration::from_secs(10);
/// The status tells of a write of the journal that takes longer than this.
const SLOW_JOURNAL_WRITE: Duration = Duration::from_secs(30);
/// How long the agent waits for the journal's last write when it ends.
const LAST_JOURNAL_WRITE: Duration = Duration::from_secs(10);

/// Keeps a node backed up until a signal ends it.
///
/// # Errors
/// If the agent cannot begin. Later problems are part of the status.
pub(super) async fn keep(configuration: Configuration, reread: Reread) -> Result<()> {
    let mut signals = Signals::listen()?;
    let (mut agent, published) = EventLoop::new(configuration, reread)?;
    if let ListenAddress::At(address) = agent.state.configuration.agent.listen {
        http::serve(address, published).await?;
    }

    agent.manager.ready();
    let repository = agent.state.configuration.agent.repository.display();
    info!("the agent keeps `{repository}`");

    loop {
        let sleep = agent.begin_what_is_due().min(agent.manager.beat());
        let status = agent.publish();
        agent.tell(&status);
        agent.begin_look_if_due();

        tokio::select! {
            () = tokio::time::sleep(sleep) => agent.read_writer_position(),
            () = agent.watcher.changed() => agent.read_writer_position(),
            () = agent.run_took_step.notified() => {}
            Some(report) = agent.reports.recv() => agent.handle(report),
            _ = signals.hangup.recv(), if !agent.is_rereading => agent.reread_configuration(),
            _ = signals.interrupt.recv() => break,
            _ = signals.terminate.recv() => break,
        }
    }

    agent.end().await;
    Ok(())
}

/// The signals that the agent obeys.
struct Signals {
    interrupt: SignalStream,
    terminate: SignalStream,
    hangup: SignalStream,
}

impl Signals {
    fn listen() -> Result<Self> {
        let listen = |kind| {
            signal(kind).map_err(|error| {
                Error::new(Kind::Failed, "cannot listen for signals").because(error)
            })
        };

        Ok(Self {
            interrupt: listen(SignalKind::interrupt())?,
            terminate: listen(SignalKind::terminate())?,
            hangup: listen(SignalKind::hangup())?,
        })
    }
}

/// The agent's state, and the threads and tasks that work for it.
struct EventLoop {
    state: AgentState,
    /// The run that is under way.
    worker: Option<Worker>,
    look_schedule: LookSchedule,
    writer_probe: WriterProbe,
    watcher: ChangeWatcher,
    run_took_step: Arc<Notify>,
    hooks: HookQueues,
    journal_file: JournalFile,
    /// When the write of the journal began that is under way.
    journal_write_began: Option<Instant>,
    reread: Reread,
    is_rereading: bool,
    manager: ServiceManager,
    publisher: Publisher,
    reports: mpsc::UnboundedReceiver<Report>,
    /// The threads report with clones of this.
    reporter: mpsc::UnboundedSender<Report>,
}

impl EventLoop {
    fn new(configuration: Configuration, reread: Reread) -> Result<(Self, Published)> {
        let state_directory = configuration.general.state_directory()?;
        let repository = &configuration.agent.repository;
        let (journal, journal_file) = Journal::open(&state_directory, repository)?;

        let state = AgentState::new(configuration, journal);
        let (reporter, reports) = mpsc::unbounded_channel();
        let (publisher, published) = Publisher::new(Snapshot {
            at: Instant::now(),
            status: Arc::new(state.status(None, Vec::new())),
            totals: state.totals.clone(),
            configuration: Arc::clone(&state.configuration),
        });

        let agent = Self {
            state,
            worker: None,
            look_schedule: LookSchedule::default(),
            writer_probe: WriterProbe::default(),
            watcher: ChangeWatcher::start()?,
            run_took_step: Arc::new(Notify::new()),
            hooks: HookQueues::new(reporter.clone(), Handle::current()),
            journal_file,
            journal_write_began: None,
            reread,
            is_rereading: false,
            manager: ServiceManager::new(),
            publisher,
            reports,
            reporter,
        };
        Ok((agent, published))
    }

    /// Handles what a thread reports.
    fn handle(&mut self, report: Report) {
        match report {
            Report::Looked(observation) => self.look_ended(observation),
            Report::WriterPosition(position) => self.writer_position_was_read(position),
            Report::TurnTried { turn_error } => self.state.turn_error = turn_error,
            Report::SiblingsSeen {
                job,
                siblings,
                reply,
            } => self.answer_run(job, siblings, reply),
            Report::OrderEnded(result) => self.order_ended(result),
            Report::JournalWritten(result) => self.journal_was_written(result),
            Report::ConfigurationRead(result) => self.configuration_was_read(*result),
            Report::HookTold { hook, result } => self.hooks.told(&hook, result),
        }
    }

    // --- Runs -------------------------------------------------------------------------------

    /// Begins the run that is due. Returns how long the loop may sleep.
    ///
    /// No run begins during a look, or long after it, because the result of the look decides
    /// whether the run may begin.
    fn begin_what_is_due(&mut self) -> Duration {
        if self.worker.is_some() {
            self.interrupt_outside_window();
            return SLEEP_BESIDE_RUN;
        }
        if !self.look_schedule.is_current() {
            return LONGEST_SLEEP;
        }

        let next = self.state.next_step(SHORTEST_SLEEP, LONGEST_SLEEP);
        if !matches!(next, NextStep::Skip(_)) {
            self.writer_probe.stop_asking();
        }

        match next {
            NextStep::Sleep(time) => return time,
            NextStep::Skip(order) if self.knows_current_position() => {
                self.writer_probe.stop_asking();
                self.remember(RunRecord::nothing_to_do(&order, clock::now()));
            }
            NextStep::Begin(order) if self.knows_position(RECENT_POSITION) => {
                if self.look_schedule.is_older_than(RECENT_LOOK) {
                    self.look_schedule.forget();
                } else {
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
    fn answer_run(&mut self, job: Job, siblings: Siblings, reply: oneshot::Sender<bool>) {
        self.state.observe_siblings(siblings);

        let next = self.state.next_step(SHORTEST_SLEEP, LONGEST_SLEEP);
        let is_wanted = matches!(next, NextStep::Begin(order) if order.job == job);
        // The send fails if the run has ended. Then the answer is not needed.
        let _has_ended = reply.send(is_wanted).is_err();
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

    fn order_ended(&mut self, result: OrderResult) {
        self.worker = None;
        self.state.waiting = None;

        match result {
            OrderResult::Ran(record) => self.remember(record),
            OrderResult::Waits(reason) => {
                self.state.waiting = Some(Waiting {
                    since: Instant::now(),
                    reason,
                });
            }
        }
        self.look_schedule.forget();
    }

    // --- Looks ------------------------------------------------------------------------------

    fn begin_look_if_due(&mut self) {
        if !self.look_schedule.begins() {
            return;
        }

        let request = LookRequest {
            configuration: Arc::clone(&self.state.configuration),
            known_repository: self.state.journal.repository(),
            is_running: self.worker.is_some(),
            before: self.state.observation.clone(),
        };
        let look = move || Box::new(request.look());
        report_result_of(look, &self.reporter, Report::Looked);
    }

    fn look_ended(&mut self, observation: Option<Box<Observation>>) {
        let Some(observation) = observation else {
            self.look_schedule.ended(false);
            return;
        };

        self.look_schedule.ended(observation.is_well());
        self.state.observe(*observation);
        self.write_journal();

        if self.worker.is_none()
            && let Some(record) = self.state.newly_covered()
        {
            self.remember(record);
        }
        self.watch_directory();
        self.read_writer_position();
    }

    /// Makes the watcher watch the node's directory, if changes there may make a backup due.
    fn watch_directory(&self) {
        let on_change = &self.state.configuration.agent.on_change;
        let directory = if on_change.is_off() {
            None
        } else {
            self.state.observation.db.clone()
        };

        self.watcher.watch(directory);
    }

    fn read_writer_position(&mut self) {
        if self.writer_probe.is_stuck() {
            self.state.writer_history.lose_sight();
        }
        let Some(db) = &self.state.observation.db else {
            return;
        };

        let (db, notes) = (db.clone(), self.state.notes_to_follow());
        if self.writer_probe.begins() {
            let read = move || WriterReading::of(&db, notes);
            report_result_of(read, &self.reporter, |position| {
                Report::WriterPosition(position.flatten())
            });
        }
    }

    fn writer_position_was_read(&mut self, reading: Option<WriterReading>) {
        self.writer_probe.ended();
        self.state.observe_writer(reading);
    }

    // --- Memory -----------------------------------------------------------------------------

    fn remember(&mut self, record: RunRecord) {
        self.state.remember(record);
        self.write_journal();
    }

    /// Writes what the journal's file lacks, if no write is under way. The end of a write calls
    /// this again, so the lines reach the file in the order in which the runs ended.
    fn write_journal(&mut self) {
        if self.journal_write_began.is_some() {
            return;
        }
        let write = match self.state.journal.next_write() {
            Ok(Some(write)) => write,
            Ok(None) => return,
            Err(error) => return self.state.note_journal(Err(error)),
        };

        self.journal_write_began = Some(Instant::now());
        let file = self.journal_file.clone();
        let perform = move || file.perform(&write);
        report_result_of(perform, &self.reporter, |result| {
            Report::JournalWritten(result.unwrap_or_else(|| Err(defect())))
        });
    }

    fn journal_was_written(&mut self, result: Result<()>) {
        self.journal_write_began = None;
        let has_failed = result.is_err();
        self.state.note_journal(result);

        if has_failed {
            // The next look or run that ends writes again.
            self.state.journal.was_not_written();
        } else {
            self.write_journal();
        }
    }

    // --- Configuration ----------------------------------------------------------------------

    fn reread_configuration(&mut self) {
        self.manager.reloading();
        self.is_rereading = true;

        let reread = Arc::clone(&self.reread);
        let read = move || Configuration::of(&reread()?);
        report_result_of(read, &self.reporter, |result| {
            Report::ConfigurationRead(Box::new(result.unwrap_or_else(|| Err(defect()))))
        });
    }

    /// Uses the new configuration from now on. A run that is under way ends with the old one, but
    /// in the new window.
    fn configuration_was_read(&mut self, result: Result<Configuration>) {
        self.is_rereading = false;

        match result {
            Ok(configuration) => {
                self.state.configuration = Arc::new(configuration);
                self.state.configuration_error = None;
                // A reader of the log line may already rely on the new configuration.
                self.publish();
                info!("the configuration was read again");
            }
            Err(error) => {
                let problem = error.in_words();
                error!("the new configuration cannot be used, the old one stays: {problem}");
                self.state.configuration_error = Some(problem);
            }
        }

        self.manager.ready();
        self.look_schedule.forget();
    }

    // --- Telling others ---------------------------------------------------------------------

    /// Publishes the status to the page and the metrics.
    fn publish(&mut self) -> Arc<Status> {
        self.notice_slow_journal();

        let running = self.worker.as_ref().map(Worker::running);
        let problems = self.hooks.problems(self.state.configuration.hooks());
        let mut status = self.state.status(running, problems);
        if let Some(length) = self.look_schedule.hangs_for() {
            status.verdict.add(hanging_look(length));
        }
        let status = Arc::new(status);

        self.publisher.publish(Snapshot {
            at: Instant::now(),
            status: Arc::clone(&status),
            totals: self.state.totals.clone(),
            configuration: Arc::clone(&self.state.configuration),
        });

        status
    }

    fn notice_slow_journal(&mut self) {
        if let Some(began) = self.journal_write_began
            && began.elapsed() >= SLOW_JOURNAL_WRITE
        {
            let error = Error::new(Kind::Failed, "the disk does not answer");
            self.state.note_journal(Err(error));
        }
    }

    /// Tells the service manager and the hooks what is new.
    fn tell(&mut self, status: &Status) {
        self.manager.alive(&status.verdict.sentence);
        self.announce(status, self.look_schedule.is_current());
    }

    /// Tells the hooks what is new. `is_fresh`: the status contains the backups of all runs that
    /// have ended.
    fn announce(&mut self, status: &Status, is_fresh: bool) {
        let options = &self.state.configuration.agent;

        for announcement in self.state.announcements.next(status, is_fresh) {
            let message = HookMessage::of(&announcement, status, options);
            // Every field of a message can be written as JSON, so this does not fail.
            let bytes = serde_json::to_vec(&message).unwrap_or_default();
            for hook in announcement.hooks(options) {
                self.hooks.add(hook, bytes.clone(), options.hook_timeout);
            }
        }
    }

    // --- The end ----------------------------------------------------------------------------

    /// Ends the run that is under way, and waits until it has given back everything to the node.
    /// Then waits a few seconds for the journal and the hooks.
    async fn end(mut self) {
        info!("told to end");
        self.manager.stopping();

        if let Some(worker) = &self.worker {
            worker.interrupt(Signal::Terminate);
        }
        while self.worker.is_some() {
            // This may take minutes. The page and the service manager see that the loop lives.
            let status = self.publish();
            self.manager.alive(&status.verdict.sentence);

            let sleep = SLEEP_BESIDE_RUN.min(self.manager.beat());
            drop(tokio::time::timeout(sleep, self.handle_next_at_end()).await);
        }

        let journal = async {
            while self.journal_write_began.is_some() {
                self.handle_next_at_end().await;
            }
        };
        if tokio::time::timeout(LAST_JOURNAL_WRITE, journal)
            .await
            .is_err()
        {
            error!("the journal could not be written in time");
        }

        let status = self.publish();
        self.announce(&status, true);

        self.hooks.end();
        let limit = hook_delivery::LAST + Duration::from_secs(1);
        let hooks = async {
            while self.hooks.are_busy() {
                self.handle_next_at_end().await;
            }
        };
        // The agent does not wait for a hook that takes longer.
        drop(tokio::time::timeout(limit, hooks).await);
    }

    async fn handle_next_at_end(&mut self) {
        match self.reports.recv().await {
            // The question is dropped without an answer, so the run that asked ends.
            Some(Report::SiblingsSeen { .. }) | None => {}
            Some(report) => self.handle(report),
        }
    }
}
