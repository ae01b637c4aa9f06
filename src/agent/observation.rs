//! What can be seen of the node and of the repository from outside a run. Looking changes nothing.

use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::cluster::Member;
use crate::clock::{self, Timestamp};
use crate::error::{Kind, Result};
use crate::event::{Event, Observer, Silent};
use crate::manifest::{BackupKind, Head, Label};
use crate::node::{
    self as server, Client, Connection, Patience, PlannedRelease, ReleaseRecords, Session,
    TimeLimits,
};
use crate::repository::{Listed, Location, Remembered, Repository, remembered};
use crate::run::Run;
use crate::settings::options::{AgentOptions, GeneralOptions};
use crate::verbs::connection::{connection, node_name};
use crate::verbs::log;

/// A look must not take longer.
const PATIENCE: Duration = Duration::from_secs(10);

/// A look at something, and when it was taken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen<T> {
    /// When.
    pub at: Timestamp,
    /// What was seen; none where nothing could be.
    #[serde(flatten)]
    pub facts: Option<T>,
    /// Why nothing could be seen.
    pub problem: Option<String>,
    /// What helps against that.
    pub hints: Vec<String>,
}

impl<T> Seen<T> {
    pub(super) fn of(result: Result<T>) -> Self {
        let at = clock::now();
        match result {
            Ok(facts) => Self {
                at,
                facts: Some(facts),
                problem: None,
                hints: Vec::new(),
            },
            Err(error) => Self {
                at,
                facts: None,
                problem: Some(error.in_words()),
                hints: error.hints().to_vec(),
            },
        }
    }
}

/// A node, from outside.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeFacts {
    /// Its address, as it was given.
    pub place: String,
    /// The server's version.
    pub version: String,
    /// The part it plays: `leader`, `follower`, `readonlyreplica`, or a passing state.
    pub state: String,
    /// The scavenge that runs now.
    pub scavenge: Option<String>,
    /// The db directory, as the node names it or as it was given.
    pub db: std::path::PathBuf,
    /// Its advertised `host:port`; none where it does not gossip.
    pub endpoint: Option<String>,
    /// The members of its cluster, itself among them; none where it does not gossip.
    pub members: Vec<Member>,
}

/// A repository, from outside.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RepositoryFacts {
    /// Where it is.
    pub place: String,
    /// Its own id.
    pub id: Uuid,
    /// Every backup, oldest first.
    pub points: Vec<Point>,
    /// Bytes that may still be stored; none where no limit is known.
    pub free_bytes: Option<u64>,
}

/// One backup, as far as the status needs to know it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Point {
    /// Its name.
    pub label: Label,
    /// What its manifest says; none where that cannot be read.
    #[serde(flatten)]
    pub made: Option<Made>,
    /// When it was last verified, and with what result.
    pub verified: Option<Remembered>,
}

/// What the manifest of a backup says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Made {
    /// How it came to its bytes.
    pub kind: BackupKind,
    /// Its place in the order of backups.
    pub sequence: u64,
    /// Its branch.
    pub branch: u32,
    /// When it began.
    pub started: Timestamp,
    /// When everything was proven.
    pub finished: Timestamp,
    /// Where a restored log ends, in bytes.
    pub position: u64,
    /// The writer checkpoint as it was read: up to here the log was seen, in bytes.
    pub writer: u64,
    /// When the last event in it was written.
    pub last_event: Option<Timestamp>,
    /// Bytes that a restore writes.
    pub bytes: u64,
    /// Bytes read from the node.
    pub bytes_read: u64,
    /// Bytes newly written to the repository.
    pub bytes_stored: u64,
    /// No chunk of it failed its own checksum at the node.
    pub is_sound: bool,
}

impl Made {
    pub(super) fn of(head: &Head) -> Self {
        Self {
            kind: head.kind,
            sequence: head.sequence,
            branch: head.branch,
            started: head.started,
            finished: head.finished,
            position: head.log.position.position().get(),
            writer: head.log.read.writer.0.get(),
            last_event: head.log.last_event,
            bytes: head.totals.bytes,
            bytes_read: head.cost.bytes_read,
            bytes_stored: head.cost.bytes_new(),
            is_sound: head.is_sound(),
        }
    }
}

impl Point {
    /// What its manifest says, if it can be restored for all that is known.
    #[must_use]
    pub fn good(&self) -> Option<&Made> {
        let is_damaged = self.verified.is_some_and(|verified| verified.is_damaged());
        self.made
            .as_ref()
            .filter(|made| made.is_sound && !is_damaged)
    }
}

impl RepositoryFacts {
    /// The newest backup that can be restored for all that is known.
    #[must_use]
    pub fn newest_good(&self) -> Option<(&Point, &Made)> {
        self.points
            .iter()
            .rev()
            .find_map(|point| point.good().map(|made| (point, made)))
    }
}

/// Looks at a repository.
#[must_use]
pub fn look_at_repository(path: &Path) -> Seen<RepositoryFacts> {
    Seen::of(repository(path))
}

fn repository(path: &Path) -> Result<RepositoryFacts> {
    let repository = Location::parse(path)?.open()?;
    let points = repository
        .list()?
        .into_iter()
        .map(|listed| point(&*repository, listed))
        .collect::<Result<_>>()?;
    Ok(RepositoryFacts {
        place: repository.place(),
        id: repository.id(),
        points,
        free_bytes: repository.free_space()?,
    })
}

fn point(repository: &dyn Repository, Listed { label, head }: Listed) -> Result<Point> {
    let verified = remembered(repository, &label)?;
    Ok(Point {
        label,
        made: head.ok().as_ref().map(Made::of),
        verified,
    })
}

/// Looks at a node; none where the settings name none.
#[must_use]
pub(super) fn look_at_node(options: &AgentOptions) -> Option<Seen<NodeFacts>> {
    match connection(&options.node) {
        Ok(None) => None,
        Ok(Some(connection)) => Some(Seen::of(
            client(connection).and_then(|client| node_facts(client, options)),
        )),
        Err(error) => Some(Seen::of(Err(error))),
    }
}

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

/// Gives back what runs that were killed, or could not reach the node, owe to this node, if it
/// `answers`. Returns what is still owed, in words.
///
/// # Errors
/// As `kbackup release`.
pub(super) fn give_back(
    options: &AgentOptions,
    general: &GeneralOptions,
    answers: bool,
) -> Result<Option<String>> {
    let release_records = ReleaseRecords::open(&general.state_directory()?)?;
    let name = node_name(&options.node);
    let owed = || -> Result<_> {
        let plan = server::plan_release(&release_records, name.as_deref())?;
        let nodes = plan.nodes();
        let of = |node: &PlannedRelease| (!node.in_use).then(|| node.what());
        Ok((plan, nodes.iter().filter_map(of).next()))
    };
    let (plan, what) = owed()?;
    let (Some(_), true) = (&what, answers) else {
        return Ok(what);
    };
    let Some(connection) = connection(&options.node)? else {
        return Ok(what);
    };
    plan.execute(
        &release_records,
        |_| client(connection.clone()),
        &Run::new(Log),
    )?;
    Ok(owed()?.1)
}

/// What happens is told in the log.
struct Log;

impl Observer for Log {
    fn observe(&self, event: &Event) {
        log::tell(event);
    }
}

fn node_facts(client: Client, options: &AgentOptions) -> Result<NodeFacts> {
    let run = Run::new(Silent);
    let patience = Patience::of(&run).within(PATIENCE);
    let session = Session::open(client, &run)?;
    let directories = server::locate(
        &session,
        options.directories.db.as_deref(),
        options.directories.index.as_deref(),
        &run,
    )?;
    let client = session.client();
    let scavenge = match server::look_at_scavenging(client, patience) {
        Ok(scavenging) => match scavenging.current {
            server::CurrentScavenge::Running(scavenge) => Some(scavenge),
            _ => None,
        },
        // What may not be asked is not known; a backup will say so.
        Err(error) if error.kind() == Kind::Denied => None,
        Err(error) => return Err(error),
    };
    let gossip = session.gossip(patience)?;
    let members = gossip.iter().flat_map(|gossip| &gossip.members);
    Ok(NodeFacts {
        place: client.place(),
        version: session.version().as_str().to_owned(),
        state: session.state(patience)?.name(),
        scavenge,
        db: directories.db,
        endpoint: gossip.as_ref().map(server::Gossip::endpoint),
        members: members
            .map(|member| Member {
                endpoint: member.endpoint(),
                state: member.state.name(),
                is_alive: member.is_alive,
            })
            .collect(),
    })
}
