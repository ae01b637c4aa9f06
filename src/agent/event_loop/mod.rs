//! The agent's event loop.
//!
//! The loop owns the [`AgentState`]. All work that can block on a disk or a network runs on another
//! thread and ends with a [`Report`]. The loop waits for a report, a signal, a change of the node's
//! files or its own timer. It handles the event, begins what is due, and publishes the new status.
//!
//! `looks.rs` looks at the node and the repository, `runs.rs` begins runs, and `ending.rs` ends the
//! agent.

mod ending;
mod looks;
mod runs;

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::runtime::Handle;
use tokio::signal::unix::{Signal as SignalStream, SignalKind, signal};
use tokio::sync::{Notify, mpsc};
use tracing::{error, info};

use super::Reread;
use super::announcements::HookMessage;
use super::assessment::hanging_look;
use super::change::ChangeWatcher;
use super::configuration::Configuration;
use super::hooks::HookQueues;
use super::http;
use super::journal::{Journal, JournalFile};
use super::look_schedule::LookSchedules;
use super::published::{Published, Publisher, Snapshot};
use super::report::{Report, defect, report_result_of};
use super::run_record::RunRecord;
use super::state::AgentState;
use super::status::{RunningJob, Status};
use super::stillness::Stillness;
use super::systemd::ServiceManager;
use super::worker::Worker;
use super::writer_probe::WriterProbe;
use crate::clock;
use crate::error::{Error, Kind, Result, Signal};
use crate::settings::options::ListenAddress;

/// How long the loop sleeps at most. The clock may jump, and a window may close meanwhile.
const LONGEST_SLEEP: Duration = Duration::from_secs(5);
/// How long the loop sleeps at most while a run is under way, because the page shows its progress.
const SLEEP_BESIDE_RUN: Duration = Duration::from_secs(1);
/// How long the loop sleeps at least.
const SHORTEST_SLEEP: Duration = Duration::from_millis(200);
/// The status tells of a write of the journal that takes longer than this.
const SLOW_JOURNAL_WRITE: Duration = Duration::from_secs(30);

/// Keeps a node backed up until a signal ends it.
///
/// # Errors
/// If the agent cannot begin. Later problems are part of the status.
pub(super) async fn keep(configuration: Configuration, reread: Reread) -> Result<()> {
    let mut signals = EndSignals::listen()?;
    let mut hangup = listen(SignalKind::hangup())?;
    // The disk of the state directory may not answer. A signal ends the agent nevertheless.
    let mut agent = tokio::select! {
        begun = begin(configuration, reread) => begun?,
        _ = signals.next() => return Ok(()),
    };

    agent.manager.ready();
    let repository = agent.state.configuration.agent.repository.display();
    info!("the agent keeps `{repository}`");

    loop {
        let sleep = agent.begin_what_is_due().min(agent.manager.beat());
        agent.notice_silence();
        let status = agent.publish();
        agent.tell(&status);
        agent.begin_looks_that_are_due();

        tokio::select! {
            () = tokio::time::sleep(sleep) => agent.read_writer_position(),
            () = agent.watcher.changed() => agent.read_writer_position(),
            () = agent.run_took_step.notified() => {}
            Some(report) = agent.reports.recv() => agent.handle(report),
            _ = hangup.recv(), if !agent.is_rereading => agent.reread_configuration(),
            signal = signals.next() => return agent.end(signal, &mut signals).await,
        }
    }
}

/// Opens the journal, and begins to serve the page.
async fn begin(configuration: Configuration, reread: Reread) -> Result<EventLoop> {
    let state_directory = configuration.general.state_directory()?;
    let repository = configuration.agent.repository.clone();
    let open = move || Journal::open(&state_directory, &repository);
    let opened = tokio::task::spawn_blocking(open).await;
    let (journal, journal_file) = opened.unwrap_or_else(|_| Err(defect()))?;

    let (agent, published) = EventLoop::new(configuration, reread, journal, journal_file)?;
    if let ListenAddress::At(address) = agent.state.configuration.agent.listen {
        http::serve(address, published).await?;
    }
    Ok(agent)
}

/// The signals that end the agent.
struct EndSignals {
    interrupt: SignalStream,
    terminate: SignalStream,
}

impl EndSignals {
    fn listen() -> Result<Self> {
        Ok(Self {
            interrupt: listen(SignalKind::interrupt())?,
            terminate: listen(SignalKind::terminate())?,
        })
    }

    async fn next(&mut self) -> Signal {
        tokio::select! {
            _ = self.interrupt.recv() => Signal::Interrupt,
            _ = self.terminate.recv() => Signal::Terminate,
        }
    }
}

fn listen(kind: SignalKind) -> Result<SignalStream> {
    signal(kind)
        .map_err(|error| Error::new(Kind::Failed, "cannot listen for signals").because(error))
}

/// The agent's state, and the threads and tasks that work for it.
struct EventLoop {
    state: AgentState,
    /// The run that is under way.
    worker: Option<Worker>,
    stillness: Stillness,
    /// When a backup last had to wait for its turn.
    waited: Option<Instant>,
    look_schedules: LookSchedules,
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
    fn new(
        configuration: Configuration,
        reread: Reread,
        journal: Journal,
        journal_file: JournalFile,
    ) -> Result<(Self, Published)> {
        let mut state = AgentState::new(configuration, journal);
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
            stillness: Stillness::default(),
            waited: None,
            look_schedules: LookSchedules::new(),
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
            Report::Looked { subject, look } => self.look_ended(subject, look),
            Report::WriterPosition(position) => self.writer_position_was_read(position),
            Report::TurnTried { turn_error } => self.state.turn_error = turn_error,
            Report::SiblingsSeen {
                job,
                siblings,
                reply,
            } => self.answer_run(job, *siblings, reply),
            Report::OrderEnded(result) => self.order_ended(result),
            Report::JournalWritten(result) => self.journal_was_written(result),
            Report::ConfigurationRead(result) => self.configuration_was_read(*result),
            Report::HookTold { hook, result } => self.hooks.told(&hook, result),
        }
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

        let result = match result {
            Ok(new) => new.can_replace(&self.state.configuration).map(|()| new),
            Err(error) => Err(error),
        };
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
        self.look_schedules.forget();
    }

    // --- Telling others ---------------------------------------------------------------------

    /// Publishes the status to the page and the metrics.
    fn publish(&mut self) -> Arc<Status> {
        self.notice_slow_journal();

        let running = self.running();
        let problems = self.hooks.problems(self.state.configuration.hooks());
        let mut status = self.state.status(running, problems);
        for (subject, length) in self.look_schedules.hanging() {
            status.verdict.add(hanging_look(subject.name(), length));
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

    /// The run that is under way.
    fn running(&mut self) -> Option<RunningJob> {
        let worker = self.worker.as_ref()?;
        let still = self.stillness.look(worker.goes_on(), Instant::now());

        let still_since = still.and_then(|still| clock::now().checked_sub(still).ok());
        Some(RunningJob {
            still_since,
            ..worker.running()
        })
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
        self.announce(status, self.look_schedules.are_current());
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
}
