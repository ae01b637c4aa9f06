//! Looks at the node, the repository and the other members of the cluster.
//!
//! A look blocks until disks and network answer, so each runs on a thread of its own. It changes one
//! thing only: it gives back to the node what a killed run stopped there.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tracing::warn;
use uuid::Uuid;

use super::configuration::Configuration;
use super::facts::{
    BackupFacts, ClusterMember, LookResult, NodeFacts, RepositoryFacts, RestorePoint,
};
use super::look_schedule::Subject;
use super::retry_pause::RetryPause;
use super::siblings::Siblings;
use super::writer_probe;
use crate::clock::{self, Timestamp};
use crate::error::{Error, Kind, Result};
use crate::event::{Event, Observer, Silent};
use crate::node::{
    self as server, AutoScavenge, Client, Connection, Credentials, CurrentScavenge, Gossip,
    NodeScavenging, Patience, ReleaseMode, ReleasePlan, ReleaseRecords, Session, TimeLimits,
};
use crate::repository::{Listed, Repository, remembered};
use crate::run::Run;
use crate::settings::options::{AgentOptions, GeneralOptions};
use crate::verbs::connection::{connection, node_name};
use crate::verbs::{log, repository};

/// How long a look waits for the node.
const PATIENCE: Duration = Duration::from_secs(10);
/// The hint for a refused login.
const RELOAD_TO_LOG_IN: &str = "the agent logs in again after pauses that grow to 10 minutes, and \
     at once if the password or the token changes; to make it log in now, reload it (SIGHUP)";

/// What the last looks found.
#[derive(Debug, Clone)]
pub(super) struct Observation {
    pub repository: LookResult<RepositoryFacts>,
    /// `None` if the settings name no node.
    pub node: Option<LookResult<NodeFacts>>,
    /// Since when each look has found both node and repository.
    pub well_since: Option<Timestamp>,
    /// What an earlier run stopped at the node and the agent could not give back yet.
    pub to_be_given_back: Option<String>,
    /// The node's db directory. It stays known while the node does not answer.
    pub db: Option<PathBuf>,
    pub siblings: Siblings,
    pauses: NodePauses,
    /// How many runs have logged in to the node.
    logins_of_runs: u64,
}

/// The pauses between attempts that the node refuses.
#[derive(Debug, Clone)]
struct NodePauses {
    login: RetryPause<Circumstances>,
    /// Something else to be given back is another circumstance.
    give_back: RetryPause<(Circumstances, String)>,
}

/// What an attempt at the node depends on. If it changes, the attempt may succeed.
#[derive(Debug, Clone)]
struct Circumstances {
    configuration: Arc<Configuration>,
    credentials: Option<Credentials>,
    /// If a run has logged in, a look can, too.
    logins_of_runs: u64,
}

impl PartialEq for Circumstances {
    /// Each reload makes a configuration of its own, even if the settings are the same. So an
    /// operator who has unlocked an account can end a pause.
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.configuration, &other.configuration)
            && self.credentials == other.credentials
            && self.logins_of_runs == other.logins_of_runs
    }
}

/// What one look found.
pub(super) enum Look {
    Repository(LookResult<RepositoryFacts>),
    Node(Box<NodeLook>),
    Cluster(Siblings),
}

/// What a look at the node found.
pub(super) struct NodeLook {
    /// `None` if the settings name no node.
    node: Option<LookResult<NodeFacts>>,
    to_be_given_back: Option<String>,
    db: Option<PathBuf>,
    /// The writer position. `None` if it cannot be read.
    pub writer_position: Option<u64>,
    pauses: NodePauses,
}

/// What a look needs.
#[derive(Clone)]
pub(super) struct LookRequest {
    pub configuration: Arc<Configuration>,
    /// The repository that the journal names.
    pub known_repository: Option<Uuid>,
    /// Whether a run is under way. Then only the run may give back something to the node.
    pub is_running: bool,
    pub before: Observation,
}

impl Observation {
    /// The observation before the first look.
    pub(super) fn nothing_yet(configuration: &Configuration) -> Self {
        Self {
            repository: LookResult {
                at: clock::now(),
                facts: None,
                problem: Some("the agent has not looked at it yet".to_owned()),
                hints: Vec::new(),
                unknown_since: None,
            },
            node: None,
            well_since: None,
            to_be_given_back: None,
            db: configuration.agent.directories.db.clone(),
            siblings: Siblings::default(),
            pauses: NodePauses::none(),
            logins_of_runs: 0,
        }
    }

    /// Takes over what a look found.
    pub(super) fn note(&mut self, look: Look) {
        match look {
            Look::Repository(repository) => self.repository = repository,
            Look::Node(seen) => {
                self.node = seen.node;
                self.to_be_given_back = seen.to_be_given_back;
                self.db = seen.db;
                self.pauses = seen.pauses;
            }
            Look::Cluster(siblings) => self.siblings = siblings,
        }

        self.well_since = if self.is_well() {
            self.well_since.or_else(|| Some(clock::now()))
        } else {
            None
        };
    }

    /// The last look at a subject ended at `since`, which is so long ago that its result is not
    /// known any more.
    pub(super) fn lose_sight(&mut self, subject: Subject, since: Timestamp) {
        match subject {
            Subject::Repository => self.repository = LookResult::silent(since),
            Subject::Node => self.node = Some(LookResult::silent(since)),
            Subject::Cluster => self.siblings.lose_sight(since),
        }

        if subject != Subject::Cluster {
            self.well_since = None;
        }
    }

    /// A run has logged in to the node. This ends the pauses of the looks.
    pub(super) const fn run_logged_in(&mut self) {
        self.logins_of_runs = self.logins_of_runs.saturating_add(1);
    }

    /// If the node refused the last login of a look: when the next look logs in.
    pub(super) fn next_login(&self) -> Option<Timestamp> {
        if self.node_facts().is_some() {
            return None;
        }

        let left = self.pauses.login.left(Instant::now())?;
        clock::now().checked_add(left).ok()
    }

    /// Whether the last looks found the repository and, if the settings name one, the node.
    fn is_well(&self) -> bool {
        let has_node = match &self.node {
            Some(node) => node.facts.is_some(),
            None => true,
        };

        has_node && self.repository.facts.is_some()
    }

    pub(super) fn node_facts(&self) -> Option<&NodeFacts> {
        self.node.as_ref()?.facts.as_ref()
    }

    /// The newest backup of this node's own repository that can be restored.
    pub(super) fn newest_own(&self) -> Option<&BackupFacts> {
        let (_, backup) = self.repository.facts.as_ref()?.newest_good()?;
        Some(backup)
    }
}

impl NodePauses {
    const fn none() -> Self {
        Self {
            login: RetryPause::none(),
            give_back: RetryPause::none(),
        }
    }
}

impl Look {
    /// Whether the look found its subject. If not, the next one comes soon.
    pub(super) const fn is_well(&self) -> bool {
        match self {
            Self::Repository(repository) => repository.facts.is_some(),
            Self::Node(look) => match &look.node {
                Some(node) => node.facts.is_some(),
                None => true,
            },
            Self::Cluster(_) => true,
        }
    }
}

impl LookRequest {
    /// Looks at a subject. This blocks.
    pub(super) fn look(self, subject: Subject) -> Look {
        match subject {
            Subject::Repository => Look::Repository(self.repository()),
            Subject::Node => Look::Node(Box::new(self.node())),
            Subject::Cluster => {
                let (before, db) = (&self.before.siblings, self.before.db.as_deref());
                Look::Cluster(before.look(&self.configuration, db))
            }
        }
    }

    fn repository(&self) -> LookResult<RepositoryFacts> {
        let Configuration { agent, general, .. } = &*self.configuration;
        let db = agent.directories.db.as_deref();
        look_at_repository(RepositoryLook {
            path: &agent.repository,
            known: self.known_repository,
            node: db.or(self.before.db.as_deref()),
            accept_same_disk: agent.accept_same_disk,
            general,
        })
    }

    fn node(&self) -> NodeLook {
        let options = &self.configuration.agent;
        let mut pauses = self.before.pauses.clone();
        let node = self.node_facts(&mut pauses);
        let to_be_given_back = self.give_back(node.as_ref(), &mut pauses);

        // The directory in the settings wins over the node's own answer. If neither is known, the
        // directory of the last look counts.
        let mut db = options.directories.db.clone();
        if db.is_none()
            && let Some(LookResult {
                facts: Some(facts), ..
            }) = &node
        {
            db = Some(facts.db.clone());
        }
        if db.is_none() {
            db.clone_from(&self.before.db);
        }

        NodeLook {
            node,
            to_be_given_back,
            writer_position: db.as_deref().and_then(writer_probe::read),
            db,
            pauses,
        }
    }

    /// Looks at the node. Returns `None` if the settings name none. After a refused login, the
    /// result of that look counts until the pause is over.
    fn node_facts(&self, pauses: &mut NodePauses) -> Option<LookResult<NodeFacts>> {
        let options = &self.configuration.agent;
        let connection = match connection(&options.node) {
            Ok(Some(connection)) => connection,
            Ok(None) => return None,
            Err(error) => return Some(LookResult::of(Err(error))),
        };

        let circumstances = self.circumstances(&connection);
        if let Some(node) = &self.before.node
            && node.facts.is_none()
            && node.unknown_since.is_none()
            && pauses.login.lasts(&circumstances, Instant::now())
        {
            return Some(node.clone());
        }

        let session = log_in(connection);
        match &session {
            Ok(_) => pauses.login = RetryPause::none(),
            Err(error) if error.kind() == Kind::Denied => {
                pauses.login.refused(circumstances, Instant::now());
            }
            // The node said nothing about the login.
            Err(_) => {}
        }

        Some(LookResult::of(
            session.and_then(|session| node_facts(&session, options)),
        ))
    }

    fn circumstances(&self, connection: &Connection) -> Circumstances {
        Circumstances {
            configuration: Arc::clone(&self.configuration),
            credentials: connection.credentials.clone(),
            logins_of_runs: self.before.logins_of_runs,
        }
    }

    /// Gives back what an earlier run stopped at the node, because the next run may be far away.
    /// Returns what is left.
    fn give_back(
        &self,
        node: Option<&LookResult<NodeFacts>>,
        pauses: &mut NodePauses,
    ) -> Option<String> {
        let node = node?;
        // A run that fails must not make it look as if the node had everything back. What it has not
        // taken over is still to be given back, too.
        if self.is_running {
            let known = self.before.to_be_given_back.clone();
            return known.or_else(|| self.still_pending().unwrap_or_default());
        }

        // A node that is back may take what it refused before.
        if self.before.node_facts().is_none() {
            pauses.give_back = RetryPause::none();
        }

        match self.try_to_give_back(node.facts.is_some(), pauses) {
            Ok(left) => left,
            Err(error) => {
                let problem = error.in_words();
                if self.before.to_be_given_back.as_ref() != Some(&problem) {
                    warn!("cannot give back what an earlier run stopped at the node: {problem}");
                }
                Some(problem)
            }
        }
    }

    /// Gives back what killed runs, and runs that lost the node, stopped at it. Only tries if the
    /// node `answers`, and not during the pause after a failure. Returns what is left, in words.
    /// Fails as `kbackup release` fails.
    fn try_to_give_back(&self, answers: bool, pauses: &mut NodePauses) -> Result<Option<String>> {
        let Configuration { agent, general, .. } = &*self.configuration;
        let records = ReleaseRecords::open(&general.state_directory()?)?;
        let name = node_name(&agent.node);

        let mut plan = server::plan_release(&records, name.as_deref(), ReleaseMode::default())?;
        let Some(left) = self.pending_in(&plan) else {
            pauses.give_back = RetryPause::none();
            return Ok(None);
        };
        let Some(connection) = connection(&agent.node)? else {
            return Ok(Some(left));
        };
        if !answers {
            return Ok(Some(left));
        }

        let attempt = (self.circumstances(&connection), left);
        if pauses.give_back.lasts(&attempt, Instant::now()) {
            let (_, left) = attempt;
            return Ok(self.before.to_be_given_back.clone().or(Some(left)));
        }

        let run = Run::new(LogObserver);
        let given_back = plan
            .compare_with(client(connection.clone())?, &run)
            .and_then(|()| plan.execute(&records, |_| client(connection.clone()), &run));
        if let Err(error) = given_back {
            pauses.give_back.refused(attempt, Instant::now());
            return Err(error);
        }

        let left = self.still_pending()?;
        if left.is_some() {
            pauses.give_back.refused(attempt, Instant::now());
        }
        Ok(left)
    }

    /// What is on record for the node now, in words. What a run holds does not count.
    fn still_pending(&self) -> Result<Option<String>> {
        let Configuration { agent, general, .. } = &*self.configuration;
        let records = ReleaseRecords::open(&general.state_directory()?)?;
        let name = node_name(&agent.node);
        let plan = server::plan_release(&records, name.as_deref(), ReleaseMode::default())?;
        Ok(self.pending_in(&plan))
    }

    /// The records that name the node, and those of its database: the node may have had another
    /// address then.
    fn pending_in(&self, plan: &ReleasePlan) -> Option<String> {
        let repository = self.before.repository.facts.as_ref();
        let database = repository.and_then(|facts| facts.database);
        plan.pending(|node| node.database.is_some() && node.database == database)
    }
}

/// Which repository to look at, and how.
#[derive(Debug, Clone, Copy)]
pub struct RepositoryLook<'a> {
    /// The path of the repository.
    pub path: &'a Path,
    /// The repository's id, if a journal names it.
    pub known: Option<Uuid>,
    /// The node's db directory. If it is not known, that of the newest backup counts.
    pub node: Option<&'a Path>,
    /// Whether the repository may be on the node's own disk.
    pub accept_same_disk: bool,
    /// Where kbackup remembers which repository it saw.
    pub general: &'a GeneralOptions,
}

/// Looks at a repository. Another repository than the one that was seen before is a problem: the
/// right disk is not mounted, or the repository was replaced.
#[must_use]
pub fn look_at_repository(look: RepositoryLook<'_>) -> LookResult<RepositoryFacts> {
    LookResult::of(repository_facts(look))
}

fn repository_facts(look: RepositoryLook<'_>) -> Result<RepositoryFacts> {
    let run = Run::new(Silent);
    let repository = repository::open_the_same(look.path, look.known, look.general, &run)?;

    let mut points = Vec::new();
    let mut node = look.node.map(Path::to_owned);
    let mut database = None;
    for listed in repository.list()?.into_iter().rev() {
        if let (None, Ok(head)) = (&node, &listed.head) {
            node = Some(PathBuf::from(&head.source.db));
        }
        if let (None, Ok(head)) = (database, &listed.head) {
            database = Some(head.source.identity.database);
        }
        points.push(restore_point(&*repository, listed)?);
    }
    points.reverse();

    let on_nodes_disk = match node {
        Some(node) if !look.accept_same_disk => repository.shares_device_with(&node)?,
        _ => false,
    };

    Ok(RepositoryFacts {
        place: repository.place(),
        id: repository.id(),
        database,
        points,
        free_bytes: repository.free_space()?,
        on_nodes_disk,
    })
}

fn restore_point(
    repository: &dyn Repository,
    Listed { label, head }: Listed,
) -> Result<RestorePoint> {
    let verified = remembered(repository, &label)?;

    let problem = match &head {
        Err(error) if error.kind() != Kind::StoredCorrupt => Some(with_hints(error)),
        _ => None,
    };

    Ok(RestorePoint {
        label,
        backup: head.ok().as_ref().map(BackupFacts::of),
        problem,
        verified,
    })
}

/// What failed, why, and what helps, in one line.
fn with_hints(error: &Error) -> String {
    let mut text = error.in_words();
    for hint in error.hints() {
        text.push_str("; ");
        text.push_str(hint);
    }
    text
}

/// Logs in to the node. Fails with [`Kind::Denied`] if the node refuses.
fn log_in(connection: Connection) -> Result<Session> {
    let session = Session::open(client(connection)?, &Run::new(Silent));
    session.map_err(|error| {
        if error.kind() == Kind::Denied {
            error.hint(RELOAD_TO_LOG_IN)
        } else {
            error
        }
    })
}

fn node_facts(session: &Session, options: &AgentOptions) -> Result<NodeFacts> {
    let run = Run::new(Silent);
    let patience = Patience::of(&run).within(PATIENCE);

    let given = &options.directories;
    let directories = server::locate(session, given.db.as_deref(), given.index.as_deref(), &run)?;
    let scavenging = look_at_scavenging(session.client(), patience)?;
    let gossip = session.gossip(patience)?;

    Ok(NodeFacts {
        place: session.client().place(),
        version: session.version().as_str().to_owned(),
        state: state(session, patience)?,
        scavenge: scavenging.as_ref().and_then(running_scavenge),
        auto_scavenge: scavenging.as_ref().and_then(auto_scavenge_state),
        scavenging: scavenging.as_ref().and_then(NodeScavenging::at_work),
        db: directories.db,
        endpoint: gossip.as_ref().map(Gossip::endpoint),
        members: members(gossip.as_ref()),
    })
}

/// The node's role. A look goes on without it.
fn state(session: &Session, patience: Patience<'_>) -> Result<String> {
    let info = session.client().info(patience)?;
    Ok(info.state.unwrap_or_default().name())
}

fn look_at_scavenging(client: &Client, patience: Patience<'_>) -> Result<Option<NodeScavenging>> {
    match server::look_at_scavenging(client, patience) {
        Ok(scavenging) => Ok(Some(scavenging)),
        // The user may not ask for scavenges. A look goes on, because a backup reports the problem.
        Err(error) if error.kind() == Kind::Denied => Ok(None),
        Err(error) => Err(error),
    }
}

fn running_scavenge(scavenging: &NodeScavenging) -> Option<String> {
    match &scavenging.current {
        CurrentScavenge::Running(scavenge) => Some(scavenge.clone()),
        _ => None,
    }
}

fn auto_scavenge_state(scavenging: &NodeScavenging) -> Option<String> {
    match &scavenging.auto {
        None | Some(AutoScavenge::Absent) => None,
        Some(state) => Some(state.to_string()),
    }
}

fn members(gossip: Option<&Gossip>) -> Vec<ClusterMember> {
    let Some(gossip) = gossip else {
        return Vec::new();
    };

    gossip
        .members
        .iter()
        .map(|member| ClusterMember {
            endpoint: member.endpoint(),
            state: member.state.name(),
            is_alive: member.is_alive,
        })
        .collect()
}

/// A client that gives up when a look has taken long enough.
fn client(connection: Connection) -> Result<Client> {
    let limits = TimeLimits {
        patience: PATIENCE.min(connection.limits.patience),
        ..connection.limits
    };

    Client::new(&Connection {
        limits,
        ..connection
    })
}

/// Writes into the log what happens.
struct LogObserver;

impl Observer for LogObserver {
    fn observe(&self, event: &Event) {
        log::tell(event);
    }
}
