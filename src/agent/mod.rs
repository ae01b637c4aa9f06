//! A sidecar that keeps a node backed up for months, needs nobody, and shows how it stands.
//!
//! One loop plans, starts one run at a time on a thread of its own, and looks at the node and the
//! repository between; everything else reads the [`Status`].

mod change;
mod cluster;
mod configuration;
mod exposure;
mod hooks;
mod http;
mod journal;
mod looking;
mod metrics;
mod news;
mod observation;
pub mod page;
mod planner;
mod sharing;
mod status;
mod systemd;
mod turn;
mod worker;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::runtime::Handle;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tracing::{error, info, warn};

use self::change::Watch;
pub use self::cluster::{ClusterFacts, Member, Sibling};
use self::cluster::{OwnLog, Standing};
pub use self::configuration::Configuration;
pub use self::exposure::Exposure;
use self::exposure::History;
use self::hooks::Hooks;
pub use self::journal::{Job, Journal, Outcome, Pause, Record, Trigger};
use self::looking::Looking;
use self::metrics::Totals;
use self::news::{Message, News};
pub use self::observation::{Made, NodeFacts, Point, RepositoryFacts, Seen, look_at_repository};
pub use self::planner::Plan;
use self::planner::Situation;
pub use self::status::{
    AgentFacts, Concern, JobStatus, Level, Running, Seeing, Status, Verdict, roughly,
};
use self::systemd::Manager;
use self::worker::{Ending, Order, Worker};
use crate::clock::{self, Timestamp};
use crate::error::{Error, Kind, Result, Signal};
use crate::format::checkpoint::Checkpoint;
use crate::log::RawCheckpoint;
use crate::settings::Settings;
use crate::settings::options::ListenAddress;
use crate::verbs::backup::another_repository;
use crate::verbs::window::closed;

/// The clock on the wall is looked at so often: it may jump, and windows close by it.
const GLANCE: Duration = Duration::from_secs(5);
/// What was seen so long ago may be otherwise by now.
const RECENT: Duration = Duration::from_secs(1);
/// What is due sooner than this may wait for it.
const BREATH: Duration = Duration::from_millis(200);

/// A member that has to wait for its turn asks for it so often.
const ASK: Duration = Duration::from_secs(5);

/// Reads the settings anew, as they were given at the start: for a reload.
pub type Reread = Box<dyn Fn() -> Result<Settings> + Send + Sync>;

/// Runs until it is told to end.
///
/// # Errors
/// What keeps it from beginning; once it runs, what fails is shown and tried again.
pub fn run(settings: &Settings, reread: &Reread) -> Result<()> {
    let configuration = Configuration::of(settings)?;
    let failed =
        |error: std::io::Error| Error::new(Kind::Failed, "cannot start the agent").because(error);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .map_err(failed)?;
    let result = runtime.block_on(keep(configuration, reread));
    // A look at a node that does not answer is not waited for.
    runtime.shutdown_background();
    result
}

async fn keep(configuration: Configuration, reread: &Reread) -> Result<()> {
    let failed = |error: std::io::Error| {
        Error::new(Kind::Failed, "cannot listen for signals").because(error)
    };
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
    let mut hangup = signal(SignalKind::hangup()).map_err(failed)?;
    let agent = Arc::new(Agent::new(configuration)?);
    if let ListenAddress::At(address) = agent.configuration().agent.listen {
        http::serve(address, Arc::clone(&agent)).await?;
    }
    let (endings, mut ended) = mpsc::unbounded_channel();
    let watch = Watch::start()?;
    let (looks, mut looked) = mpsc::unbounded_channel();
    let mut looking = Looking::default();
    let mut manager = Manager::new();
    manager.ready();
    info!(
        "the agent keeps `{}`",
        agent.configuration().agent.repository.display()
    );
    loop {
        agent.pulse();
        agent.glance();
        let nap = agent.begin_what_is_due(&mut looking, &endings);
        let status = agent.status();
        agent.tell(&status, looking.is_current());
        manager.alive(&status.verdict.sentence);
        if looking.begins() {
            agent.look(looks.clone());
        }
        tokio::select! {
            () = tokio::time::sleep(nap.min(manager.beat())) => {}
            () = watch.changed() => {}
            Some(is_well) = looked.recv() => {
                looking.ended(is_well);
                watch.directory(agent.to_be_watched());
            }
            Some(ending) = ended.recv() => {
                agent.has_ended(ending);
                looking.forget();
            }
            _ = hangup.recv() => {
                manager.reloading();
                agent.reload(reread);
                manager.ready();
                looking.forget();
            }
            _ = interrupt.recv() => break,
            _ = terminate.recv() => break,
        }
    }
    info!("told to end");
    manager.stopping();
    if agent.interrupt(Signal::Terminate)
        && let Some(ending) = ended.recv().await
    {
        agent.has_ended(ending);
    }
    agent.tell(&agent.status(), true);
    tokio::task::block_in_place(|| agent.hooks.end());
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
    /// Why the journal cannot be written.
    forgetful: Mutex<Option<String>>,
    worker: Mutex<Option<Worker>>,
    waits: Mutex<Option<Waits>>,
    /// Since when a backup is due.
    left_since: Mutex<Option<Timestamp>>,
    /// Why the members of the cluster cannot take turns.
    no_turns: Mutex<Option<String>>,
    news: Mutex<News>,
    hooks: Hooks,
    /// When the loop went round last.
    pulse: Mutex<Instant>,
}

/// A member that is not backed up as it is not its turn.
#[derive(Debug, Clone)]
struct Waits {
    since: Instant,
    why: String,
}

/// What was seen last.
#[derive(Debug, Clone)]
struct Sight {
    repository: Seen<RepositoryFacts>,
    node: Option<Seen<NodeFacts>>,
    /// Since when both have been there at every look.
    well_since: Option<Timestamp>,
    /// What an earlier run took from the node, and could not give back.
    owed: Option<String>,
    /// Where the node's checkpoints are; also while it does not answer.
    db: Option<PathBuf>,
    /// What the other members have; none where they do not matter.
    cluster: Option<ClusterFacts>,
    /// The node's log, where it has to be compared with theirs.
    log: Option<OwnLog>,
}

impl Agent {
    fn new(configuration: Configuration) -> Result<Self> {
        let repository = &configuration.agent.repository;
        let journal = Journal::open(&configuration.general.state_directory()?, repository)?;
        let repository = Seen {
            at: clock::now(),
            facts: None,
            problem: Some("nobody has looked at it yet".to_owned()),
            hints: Vec::new(),
        };
        let sight = Sight {
            repository,
            node: None,
            well_since: None,
            owed: None,
            db: configuration.agent.directories.db.clone(),
            cluster: None,
            log: None,
        };
        let started = clock::now();
        Ok(Self {
            started,
            configuration: Mutex::new(Arc::new(configuration)),
            refused: Mutex::default(),
            journal: Mutex::new(journal),
            seen: Mutex::new(sight),
            history: Mutex::default(),
            totals: Mutex::default(),
            forgetful: Mutex::default(),
            worker: Mutex::default(),
            waits: Mutex::default(),
            left_since: Mutex::default(),
            no_turns: Mutex::default(),
            news: Mutex::new(News::new(started)),
            hooks: Hooks::new(Handle::current()),
            pulse: Mutex::new(Instant::now()),
        })
    }

    fn pulse(&self) {
        *lock(&self.pulse) = Instant::now();
    }

    /// For how long the loop has not gone round.
    fn stuck_for(&self) -> Duration {
        lock(&self.pulse).elapsed()
    }

    fn configuration(&self) -> Arc<Configuration> {
        Arc::clone(&lock(&self.configuration))
    }

    /// Looks at the repository and the node; each may keep one waiting for as long as it likes, but
    /// neither the page nor a signal.
    fn look(self: &Arc<Self>, ended: mpsc::UnboundedSender<bool>) {
        let agent = Arc::clone(self);
        let look = tokio::task::spawn_blocking(move || agent.look_now());
        tokio::spawn(async move {
            // A thread that panicked has seen nothing; nobody waits any more where the agent has
            // ended.
            let is_well = look.await.unwrap_or(false);
            let _nobody_waits = ended.send(is_well);
        });
    }

    /// Whether both are there.
    fn look_now(&self) -> bool {
        let configuration = self.configuration();
        let repository = self.look_at_repository(&configuration.agent.repository);
        let node = observation::look_at_node(&configuration.agent);
        let owed = self.give_back(&configuration, node.as_ref());
        let is_well =
            repository.facts.is_some() && node.as_ref().is_none_or(|node| node.facts.is_some());
        let mut seen = lock(&self.seen);
        seen.well_since = if is_well {
            seen.well_since.or_else(|| Some(clock::now()))
        } else {
            None
        };
        seen.owed = owed;
        let told = node
            .as_ref()
            .and_then(|node| node.facts.as_ref())
            .map(|node| node.db.clone());
        seen.db = configuration
            .agent
            .directories
            .db
            .clone()
            .or(told)
            .or(seen.db.take());
        (seen.repository, seen.node) = (repository, node);
        drop(seen);
        self.look_at_others(&configuration);
        is_well
    }

    /// A repository that is not the one of before is none: a disk that is not mounted, or another
    /// one in its place.
    fn look_at_repository(&self, path: &Path) -> Seen<RepositoryFacts> {
        let seen = look_at_repository(path);
        let Some(id) = seen.facts.as_ref().map(|facts| facts.id) else {
            return seen;
        };
        let mut journal = lock(&self.journal);
        match journal.repository() {
            Some(known) if known != id => Seen {
                at: seen.at,
                ..Seen::of(Err(another_repository(path)))
            },
            Some(_) => seen,
            None => {
                let result = journal.know(id);
                drop(journal);
                self.note_journal(result);
                seen
            }
        }
    }

    /// Gives back what a run before took and could not: nobody else may come for a long time.
    /// Nothing else is under way meanwhile. Returns what is left.
    fn give_back(
        &self,
        configuration: &Configuration,
        node: Option<&Seen<NodeFacts>>,
    ) -> Option<String> {
        let node = node?;
        if lock(&self.worker).is_some() {
            return None;
        }
        let result = observation::give_back(
            &configuration.agent,
            &configuration.general,
            node.facts.is_some(),
        );
        result.unwrap_or_else(|problem| {
            let problem = problem.in_words();
            if lock(&self.seen).owed.as_ref() != Some(&problem) {
                warn!("what an earlier run took from the node cannot be given back: {problem}");
            }
            Some(problem)
        })
    }

    /// The directory whose changes may ask for a backup.
    fn to_be_watched(&self) -> Option<PathBuf> {
        if self.configuration().agent.on_change.is_off() {
            None
        } else {
            lock(&self.seen).db.clone()
        }
    }

    /// Sees how far the node's log has come.
    fn glance(&self) {
        let Some(db) = lock(&self.seen).db.clone() else {
            return;
        };
        let writer = RawCheckpoint::in_directory(&db, Checkpoint::Writer)
            .ok()
            .and_then(|raw| raw.position().ok().flatten());
        let mut history = lock(&self.history);
        match writer {
            Some(writer) => history.see(clock::now(), writer.get()),
            None => history.lose_sight(),
        }
    }

    /// Begins what is due, and tells when to come again. Nothing begins beside a look, or long
    /// after it: what it saw decides what may be done.
    fn begin_what_is_due(
        self: &Arc<Self>,
        looking: &mut Looking,
        endings: &mpsc::UnboundedSender<Ending>,
    ) -> Duration {
        if lock(&self.worker).is_some() {
            self.close_windows();
            return GLANCE;
        }
        if !looking.is_current() {
            return GLANCE;
        }
        let configuration = self.configuration();
        let (order, nap) = self.due(&configuration);
        match order {
            None => return nap,
            Some((order, true)) => self.ended(Record::nothing_to_do(&order, clock::now())),
            // A scavenge may have begun meanwhile.
            Some(_) if looking.is_older_than(RECENT) => looking.forget(),
            Some((order, false)) => self.begin(order, configuration, endings.clone()),
        }
        BREATH
    }

    /// What is to begin now, and whether it would find nothing to do; and when to come again.
    fn due(&self, configuration: &Configuration) -> (Option<(Order, bool)>, Duration) {
        let waits = lock(&self.waits)
            .clone()
            .filter(|waits| waits.since.elapsed() < ASK);
        self.with_situation(configuration, waits, |situation| {
            let now = situation.now.timestamp();
            let plans = planner::plan(configuration.rules(), situation);
            let is_due = plans
                .iter()
                .any(|plan| plan.job.is_backup() && plan.due.is_some_and(|due| due <= now));
            let mut left_since = lock(&self.left_since);
            *left_since = left_since
                .filter(|_| is_due)
                .or_else(|| is_due.then_some(now));
            let ready = plans.iter().find(|plan| plan.is_ready(now)).map(|plan| {
                let order = Order {
                    job: plan.job,
                    trigger: plan.trigger,
                    repository: situation.journal.repository(),
                };
                (
                    order,
                    plan.job == Job::Diff && planner::is_up_to_date(situation),
                )
            });
            (ready, nap(&plans, now))
        })
    }

    fn begin(
        self: &Arc<Self>,
        order: Order,
        configuration: Arc<Configuration>,
        endings: mpsc::UnboundedSender<Ending>,
    ) {
        let (began, agent, told) = (order.clone(), Arc::clone(self), Arc::clone(&configuration));
        let turn = move |job| agent.turn(job, &told);
        // Nobody waits for it any more where the agent has ended.
        match Worker::start(order, configuration, turn, move |ending| {
            drop(endings.send(ending))
        }) {
            Ok(worker) => *lock(&self.worker) = Some(worker),
            Err(error) => self.ended(Record::not_begun(&began, clock::now(), &error)),
        }
    }

    fn close_windows(&self) {
        let configuration = self.configuration();
        let now = configuration.agent.time_zone.at(clock::now());
        if let Some(worker) = &*lock(&self.worker)
            && let Some(window) = configuration.task(worker.job()).window()
            && let Some(closed) = closed(window, &now)
        {
            worker.interrupt(closed);
        }
    }

    fn has_ended(&self, ending: Ending) {
        let waits = match ending {
            Ending::Ran(record) => {
                self.ended(record);
                None
            }
            Ending::Waits(why) => Some(Waits {
                since: Instant::now(),
                why,
            }),
        };
        *lock(&self.worker) = None;
        *lock(&self.waits) = waits;
    }

    fn ended(&self, record: Record) {
        *lock(&self.worker) = None;
        self.remember(record);
    }

    fn remember(&self, record: Record) {
        match &record.outcome {
            Outcome::Done { .. } => {
                info!(job = record.job.name(), seconds = record.seconds(), "done")
            }
            Outcome::UpToDate => info!(
                job = record.job.name(),
                "nothing was written since the newest backup"
            ),
            Outcome::Skipped { because } => info!(job = record.job.name(), "not needed: {because}"),
            Outcome::Interrupted { why } => warn!(job = record.job.name(), "{why}"),
            Outcome::Failed { message, .. } if record.had_to_wait() => {
                info!(job = record.job.name(), "waits: {message}")
            }
            Outcome::Failed { message, .. } => error!(job = record.job.name(), "{message}"),
        }
        lock(&self.totals).count(&record);
        lock(&self.news).ended(&record, &lock(&self.journal));
        let result = lock(&self.journal).write(record);
        self.note_journal(result);
    }

    /// Without its journal the agent goes on from memory; it is told, once.
    fn note_journal(&self, result: Result<()>) {
        let problem = result.err().map(|problem| problem.in_words());
        let mut forgetful = lock(&self.forgetful);
        if let (Some(problem), None) = (&problem, &*forgetful) {
            error!("the journal cannot be written: {problem}");
        }
        *forgetful = problem;
    }

    /// Tells whoever wants to know what is new.
    fn tell(&self, status: &Status, is_fresh: bool) {
        let options = &self.configuration().agent;
        for piece in lock(&self.news).next(status, is_fresh) {
            let message =
                serde_json::to_vec(&Message::of(&piece, status, options)).unwrap_or_default();
            for hook in piece.hooks(options) {
                self.hooks.tell(hook, message.clone(), options.hook_timeout);
            }
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
                error!(
                    "the configuration cannot be used, the one before goes on: {}",
                    problem.in_words()
                );
                Some(problem.in_words())
            }
        };
        *lock(&self.refused) = refused;
    }

    /// Asks a run to end; whether there is one.
    fn interrupt(&self, signal: Signal) -> bool {
        lock(&self.worker)
            .as_ref()
            .inspect(|worker| worker.interrupt(signal))
            .is_some()
    }

    fn exposure(&self, sight: &Sight) -> Option<Exposure> {
        let own = sight
            .repository
            .facts
            .as_ref()
            .map(RepositoryFacts::newest_good);
        let newest = own.flatten().map(|(_, made)| made);
        match status::best(newest, sight.cluster.as_ref()) {
            (Some(made), Some(_)) => lock(&self.history).exposure_beside(made),
            // Where the repository cannot be seen, nobody knows what is in it.
            (newest, _) => own.and_then(|_| lock(&self.history).exposure(newest)),
        }
    }

    fn with_situation<T>(
        &self,
        configuration: &Configuration,
        waits: Option<Waits>,
        go: impl FnOnce(&Situation<'_>) -> T,
    ) -> T {
        let sight = lock(&self.seen).clone();
        let left_since = *lock(&self.left_since);
        let journal = lock(&self.journal);
        let node = sight.node.as_ref().and_then(|node| node.facts.as_ref());
        go(&Situation {
            now: configuration.agent.time_zone.at(clock::now()),
            started: self.started,
            journal: &journal,
            repository: sight.repository.facts.as_ref(),
            node,
            well_since: sight.well_since,
            exposure: self.exposure(&sight),
            standing: node
                .filter(|_| configuration.agent.takes_turns())
                .and_then(Standing::of),
            left_since,
            turn: waits.map(|waits| waits.why),
            cluster: sight.cluster.as_ref(),
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
        // What is not asked for any more is not waited for.
        let waits = lock(&self.waits)
            .clone()
            .filter(|waits| waits.since.elapsed() < ASK * 3);
        let plans = self.with_situation(&configuration, waits, |situation| {
            planner::plan(configuration.rules(), situation)
        });
        let sight = lock(&self.seen).clone();
        let exposure = self.exposure(&sight);
        let Sight {
            repository,
            node,
            owed,
            cluster,
            ..
        } = sight;
        let cluster = match lock(&self.no_turns).clone() {
            Some(problem) => Some(ClusterFacts {
                problem: Some(problem),
                ..cluster.unwrap_or_default()
            }),
            None => cluster,
        };
        let running = lock(&self.worker).as_ref().map(Worker::running);
        Status::of(Seeing {
            now: clock::now(),
            max_age: configuration.agent.max_age,
            repository,
            node,
            cluster,
            exposure,
            agent: Some(AgentFacts {
                version: concat!("kbackup ", env!("CARGO_PKG_VERSION")).to_owned(),
                started: self.started,
                configuration: lock(&self.refused).clone(),
                journal: lock(&self.forgetful).clone(),
                owed,
                hooks: self.hooks.problems(configuration.hooks()),
            }),
            journal: Some(&lock(&self.journal)),
            plans: plans
                .into_iter()
                .map(|plan| (plan.clone(), configuration.schedule(plan.job).to_string()))
                .collect(),
            running,
        })
    }
}

/// Until something is due, but not for longer than between two glances.
fn nap(plans: &[Plan], now: Timestamp) -> Duration {
    let due = plans
        .iter()
        .filter(|plan| plan.hold.is_none())
        .filter_map(|plan| plan.due)
        .min();
    let wait = due.map(|due| clock::between(now, due));
    wait.map_or(GLANCE, |wait| wait.clamp(BREATH, GLANCE))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
