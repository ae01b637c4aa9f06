//! A sidecar that keeps a node backed up for months, needs nobody, and shows how it stands.
//!
//! One loop plans, starts one run at a time on a thread of its own, and looks at the node and the repository between; everything else reads the [`Status`].

mod change;
mod configuration;
mod exposure;
mod http;
mod journal;
mod metrics;
mod observation;
pub mod page;
mod planner;
mod status;
mod worker;

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tracing::{error, info, warn};
use uuid::Uuid;

use self::change::Watch;
pub use self::configuration::Configuration;
pub use self::exposure::Exposure;
use self::exposure::History;
pub use self::journal::{Job, Journal, Outcome, Pause, Record, Trigger};
use self::metrics::Totals;
pub use self::observation::{Made, NodeFacts, Point, RepositoryFacts, Seen, look_at_repository};
pub use self::planner::Plan;
use self::planner::Situation;
pub use self::status::{AgentFacts, Concern, JobStatus, Level, Running, Seeing, Status, Verdict, roughly};
use self::worker::{Order, Worker};
use crate::clock::{self, Timestamp};
use crate::error::{Error, Kind, Result, Signal};
use crate::format::checkpoint::{self, Checkpoint};
use crate::fs;
use crate::settings::Settings;
use crate::settings::arguments::Listen;
use crate::verbs::node;
use crate::verbs::window::closed;

/// Node and repository are looked at so often.
const LOOK: Duration = Duration::from_secs(30);
/// The clock on the wall is looked at so often: it may jump, and windows close by it.
const GLANCE: Duration = Duration::from_secs(5);

/// Reads the settings anew, as they were given at the start: for a reload.
pub type Reread = Box<dyn Fn() -> Result<Settings> + Send + Sync>;

/// Runs until it is told to end.
///
/// # Errors
/// What keeps it from beginning; once it runs, what fails is shown and tried again.
pub fn run(settings: &Settings, reread: &Reread) -> Result<()> {
    let configuration = Configuration::of(settings)?;
    let failed = |error: std::io::Error| Error::new(Kind::Failed, "cannot start the agent").because(error);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().map_err(failed)?;
    let result = runtime.block_on(keep(configuration, reread));
    // A look at a node that does not answer is not waited for.
    runtime.shutdown_background();
    result
}

async fn keep(configuration: Configuration, reread: &Reread) -> Result<()> {
    let failed = |error: std::io::Error| Error::new(Kind::Failed, "cannot listen for signals").because(error);
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
    let mut hangup = signal(SignalKind::hangup()).map_err(failed)?;
    let agent = Arc::new(Agent::new(configuration)?);
    if let Listen::At(address) = agent.configuration().agent.listen {
        http::serve(address, Arc::clone(&agent)).await?;
    }
    let (endings, mut ended) = mpsc::unbounded_channel();
    let mut looked_at: Option<Instant> = None;
    let watch = Watch::start()?;
    info!("the agent keeps `{}`", agent.configuration().agent.repository.repo.display());
    loop {
        if looked_at.is_none_or(|at| at.elapsed() >= LOOK) {
            agent.look().await;
            looked_at = Some(Instant::now());
            watch.directory(agent.to_be_watched());
        }
        agent.glance();
        agent.begin_what_is_due(&endings);
        tokio::select! {
            () = tokio::time::sleep(GLANCE) => {}
            () = watch.changed() => {}
            Some(record) = ended.recv() => {
                agent.ended(record);
                looked_at = None;
            }
            _ = hangup.recv() => {
                agent.reload(reread);
                looked_at = None;
            }
            _ = interrupt.recv() => break,
            _ = terminate.recv() => break,
        }
    }
    info!("told to end");
    if agent.interrupt(Signal::Terminate)
        && let Some(record) = ended.recv().await
    {
        agent.ended(record);
    }
    Ok(())
}

/// What the loop and those who ask for the status share.
pub(crate) struct Agent {
    started: Timestamp,
    configuration: Mutex<Arc<Configuration>>,
    /// Why the newest configuration is not in use.
    refused: Mutex<Option<String>>,
    journal: Mutex<Journal>,
    seen: Mutex<Sight>,
    history: Mutex<History>,
    totals: Mutex<Totals>,
    worker: Mutex<Option<Worker>>,
}

/// What was seen last.
#[derive(Debug, Clone)]
struct Sight {
    repository: Seen<RepositoryFacts>,
    node: Option<Seen<NodeFacts>>,
    /// Where the node's checkpoints are; also while it does not answer.
    db: Option<PathBuf>,
}

impl Agent {
    fn new(configuration: Configuration) -> Result<Self> {
        let repository = &configuration.agent.repository.repo;
        let journal = Journal::open(&node::state_directory(&configuration.common.general)?, repository)?;
        let sight = Sight { repository: look_at_repository(repository), node: None, db: configuration.agent.db.clone() };
        Ok(Self {
            started: clock::now(),
            configuration: Mutex::new(Arc::new(configuration)),
            refused: Mutex::default(),
            journal: Mutex::new(journal),
            seen: Mutex::new(sight),
            history: Mutex::default(),
            totals: Mutex::default(),
            worker: Mutex::default(),
        })
    }

    fn configuration(&self) -> Arc<Configuration> {
        Arc::clone(&lock(&self.configuration))
    }

    /// Looks at the repository and the node; each may keep one waiting for as long as it likes, but not the page.
    async fn look(self: &Arc<Self>) {
        let agent = Arc::clone(self);
        // A thread that panicked has seen nothing.
        drop(tokio::task::spawn_blocking(move || agent.look_now()).await);
    }

    fn look_now(&self) {
        let configuration = self.configuration();
        let repository = look_at_repository(&configuration.agent.repository.repo);
        let node = observation::look_at_node(&configuration.agent, &configuration.common);
        let mut seen = lock(&self.seen);
        let told = node.as_ref().and_then(|node| node.facts.as_ref()).map(|node| node.db.clone());
        seen.db = configuration.agent.db.clone().or(told).or(seen.db.take());
        (seen.repository, seen.node) = (repository, node);
    }

    /// The directory whose changes may ask for a backup.
    fn to_be_watched(&self) -> Option<PathBuf> {
        if self.configuration().agent.on_change.is_off() { None } else { lock(&self.seen).db.clone() }
    }

    /// Sees how far the node's log has come.
    fn glance(&self) {
        let Some(db) = lock(&self.seen).db.clone() else { return };
        let writer = fs::read_small(&Checkpoint::Writer.under(&db), 64).ok().and_then(|bytes| checkpoint::position(&bytes).ok().flatten());
        if let Some(writer) = writer {
            lock(&self.history).see(clock::now(), writer.get());
        }
    }

    fn begin_what_is_due(&self, endings: &mpsc::UnboundedSender<Record>) {
        if lock(&self.worker).is_some() {
            self.close_windows();
            return;
        }
        let configuration = self.configuration();
        let order = self.with_situation(&configuration, |situation| {
            let now = situation.now.timestamp();
            let plan = planner::plan(&configuration.rules(), situation).into_iter().find(|plan| plan.is_ready(now))?;
            let order = Order { job: plan.job, trigger: plan.trigger, repository: self.known_repository(situation.journal) };
            Some((order, plan.job == Job::Diff && planner::is_up_to_date(situation)))
        });
        match order {
            None => {}
            Some((order, true)) => self.ended(Record::nothing_to_do(&order, clock::now())),
            Some((order, false)) => self.begin(order, configuration, endings.clone()),
        }
    }

    fn begin(&self, order: Order, configuration: Arc<Configuration>, endings: mpsc::UnboundedSender<Record>) {
        info!(job = order.job.name(), "begins");
        let began = order.clone();
        // Nobody waits for it any more where the agent has ended.
        match Worker::start(order, configuration, move |record| drop(endings.send(record))) {
            Ok(worker) => *lock(&self.worker) = Some(worker),
            Err(error) => self.ended(Record::not_begun(&began, clock::now(), &error)),
        }
    }

    /// The id of the repository that was there before: an empty directory in its place is a disk that is not mounted.
    fn known_repository(&self, journal: &Journal) -> Option<Uuid> {
        let seen = lock(&self.seen).repository.facts.as_ref().map(|facts| facts.id);
        journal.records().iter().rev().find_map(|record| record.repository).or(seen)
    }

    fn close_windows(&self) {
        let configuration = self.configuration();
        let now = configuration.agent.time_zone.at(clock::now());
        if let Some(worker) = &*lock(&self.worker)
            && let Some(window) = configuration.task(worker.job()).load().window
            && let Some(closed) = closed(window, &now)
        {
            worker.interrupt(closed);
        }
    }

    fn ended(&self, record: Record) {
        match &record.outcome {
            Outcome::Done { .. } => info!(job = record.job.name(), seconds = record.seconds(), "done"),
            Outcome::UpToDate => info!(job = record.job.name(), "nothing was written since the newest backup"),
            Outcome::Skipped { because } => info!(job = record.job.name(), "not needed: {because}"),
            Outcome::Interrupted { why } => warn!(job = record.job.name(), "{why}"),
            Outcome::Failed { message, .. } => error!(job = record.job.name(), "{message}"),
        }
        *lock(&self.worker) = None;
        lock(&self.totals).count(&record);
        if let Err(problem) = lock(&self.journal).write(record) {
            error!("the journal cannot be written: {}", problem.in_words());
        }
    }

    fn reload(&self, reread: &Reread) {
        let refused = match reread().and_then(|settings| Configuration::of(&settings)) {
            Ok(configuration) => {
                info!("the configuration was read again");
                *lock(&self.configuration) = Arc::new(configuration);
                None
            }
            Err(problem) => {
                error!("the configuration cannot be used, the one before goes on: {}", problem.in_words());
                Some(problem.in_words())
            }
        };
        *lock(&self.refused) = refused;
    }

    /// Asks a run to end; whether there is one.
    fn interrupt(&self, signal: Signal) -> bool {
        lock(&self.worker).as_ref().inspect(|worker| worker.interrupt(signal)).is_some()
    }

    fn exposure(&self, repository: Option<&RepositoryFacts>) -> Option<Exposure> {
        let repository = repository?;
        lock(&self.history).exposure(repository.newest_good().map(|(_, made)| made))
    }

    fn with_situation<T>(&self, configuration: &Configuration, go: impl FnOnce(&Situation<'_>) -> T) -> T {
        let Sight { repository, node, .. } = lock(&self.seen).clone();
        let journal = lock(&self.journal);
        go(&Situation {
            now: configuration.agent.time_zone.at(clock::now()),
            started: self.started,
            journal: &journal,
            repository: repository.facts.as_ref(),
            node: node.as_ref().and_then(|node| node.facts.as_ref()),
            exposure: self.exposure(repository.facts.as_ref()),
            turn: None,
        })
    }

    /// What Prometheus reads, as `OpenMetrics`.
    fn metrics(&self) -> String {
        let status = self.status();
        metrics::open_metrics(&status, &lock(&self.totals))
    }

    /// How it stands now.
    fn status(&self) -> Status {
        let configuration = self.configuration();
        let plans = self.with_situation(&configuration, |situation| planner::plan(&configuration.rules(), situation));
        let Sight { repository, node, .. } = lock(&self.seen).clone();
        let exposure = self.exposure(repository.facts.as_ref());
        let running = lock(&self.worker).as_ref().map(Worker::running);
        Status::of(Seeing {
            now: clock::now(),
            max_age: configuration.agent.max_age.0,
            repository,
            node,
            exposure,
            agent: Some(AgentFacts {
                version: concat!("kbackup ", env!("CARGO_PKG_VERSION")).to_owned(),
                started: self.started,
                configuration: lock(&self.refused).clone(),
            }),
            journal: Some(&lock(&self.journal)),
            plans: plans.into_iter().map(|plan| (plan.clone(), configuration.schedule(plan.job).to_string())).collect(),
            running,
        })
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
