//! Asks a node whether it is the node of a release record, and looks into the directories that tell.
//! `same_node` compares what was found.

use std::path::{Path, PathBuf};
use std::time::Duration;

use uuid::Uuid;

use super::agreement::is_seen_at_work;
use super::release_record::{NodeFiles, RecordedNode};
use super::same_node::{Comparison, ShownNode, compare, is_same_process};
use super::{Client, Connection, Gossip, GossipMember, Patience, Session, TimeLimits, agree};
use crate::error::{Error, Kind, Result};
use crate::format::LogPosition;
use crate::format::checkpoint::Checkpoint;
use crate::fs;
use crate::log::{self, ChunkSet, Inspected, position_in};
use crate::manifest::{Directories, FileSet};
use crate::run::Run;

/// How long the address of a record has to answer.
const ANSWERS_WITHIN: Duration = Duration::from_secs(3);

/// Compares the node of a session with the node of a record. If it is another server process, this
/// looks into the db directory of the record and into the node's own, if they can be read here.
///
/// # Errors
/// [`Kind::Unreachable`] or [`Kind::Denied`] if the node cannot be asked.
pub(super) fn recognise(
    session: &Session,
    recorded: &RecordedNode,
    run: &Run,
) -> Result<(Comparison, RecordedNode)> {
    let shown = look(session, recorded, run)?;
    let comparison = compare_and_ask(session, recorded, &shown, run);
    Ok((comparison, shown.node))
}

/// Compares the node with the node of a record. A record stays where it is while its own address
/// still answers as the recorded process.
pub(super) fn compare_and_ask(
    session: &Session,
    recorded: &RecordedNode,
    shown: &ShownNode,
    run: &Run,
) -> Comparison {
    let comparison = compare(recorded, shown);
    let is_settled = is_same_process(recorded, &shown.node)
        || recorded.is_reached_as(&shown.node)
        || matches!(comparison, Comparison::Another(_));
    if is_settled || !still_answers(session, recorded, run) {
        return comparison;
    }

    Comparison::Another(format!("its process still answers at {recorded}"))
}

/// What the node of this session shows, whose files are `node`'s.
///
/// # Errors
/// As [`recognise`].
pub(super) fn show(session: &Session, node: RecordedNode, run: &Run) -> Result<ShownNode> {
    let gossip = session.gossip(Patience::of(run))?;
    let mut shown = ShownNode::new(node, gossip.as_ref());
    if let Some(db) = &shown.node.directory {
        let directories = Directories::new(db, None);
        shown.is_seen_at_work = is_seen_at_work(session, &directories, run)?;
    }
    Ok(shown)
}

/// What the node shows that can be compared with a record.
fn look(session: &Session, recorded: &RecordedNode, run: &Run) -> Result<ShownNode> {
    let gossip = session.gossip(Patience::of(run))?;
    let node = RecordedNode::of(session, &NodeFiles::default());
    let mut shown = ShownNode::new(node, gossip.as_ref());
    if is_same_process(recorded, &shown.node) {
        shown.node.database = recorded.database;
        shown.node.directory.clone_from(&recorded.directory);
        return Ok(shown);
    }

    shown.node.database = first_election(gossip.as_ref());
    if recorded.database.is_none() {
        return Ok(shown);
    }

    if let Some(db) = &recorded.directory {
        match evidence(session, db, run)? {
            Evidence::Works(files) => {
                shown.have(files);
                return Ok(shown);
            }
            // The node may have left this directory.
            Evidence::Contradicts(why) => shown.doubt = Some(why),
            Evidence::None => {}
        }
    }
    if let Some(db) = own_directory(session)
        && Some(&db) != recorded.directory.as_ref()
        && let Evidence::Works(files) = evidence(session, &db, run)?
    {
        shown.have(files);
    }
    Ok(shown)
}

impl ShownNode {
    fn have(&mut self, files: ProvenFiles) {
        self.node.database = Some(files.database);
        self.node.directory = Some(files.directory);
        self.is_seen_at_work = files.is_seen_at_work;
    }
}

/// The id of the node's first election, if that is also its last one. The log begins with it
/// (disk-format §4.4).
fn first_election(gossip: Option<&Gossip>) -> Option<Uuid> {
    let me: &GossipMember = gossip?.me()?;
    if me.epoch_position() != Some(LogPosition::ZERO) {
        return None;
    }
    me.epoch_id
}

/// The db directory that the node names, if that exists here.
fn own_directory(session: &Session) -> Option<PathBuf> {
    let told = Path::new(session.options().value("Db")?);
    if !told.is_absolute() {
        return None;
    }
    fs::canonical(told).ok()
}

/// What the files in a directory say.
enum Evidence {
    /// The node works on them.
    Works(ProvenFiles),
    /// They are not the node's.
    Contradicts(String),
    /// They cannot be read here.
    None,
}

struct ProvenFiles {
    directory: PathBuf,
    database: Uuid,
    is_seen_at_work: bool,
}

fn evidence(session: &Session, db: &Path, run: &Run) -> Result<Evidence> {
    let directories = Directories::new(db, None);

    let database = match database_in(&directories, run) {
        Ok(Some(database)) => database,
        Err(error) if is_about_the_run(&error) => return Err(error),
        Ok(None) | Err(_) => return Ok(Evidence::None),
    };
    match agree(session, &directories, run) {
        Ok(_) => Ok(Evidence::Works(ProvenFiles {
            directory: db.to_owned(),
            database,
            is_seen_at_work: is_seen_at_work(session, &directories, run)?,
        })),
        Err(error) if error.kind() == Kind::Refused => Ok(Evidence::Contradicts(error.in_words())),
        Err(error) if is_about_the_run(&error) => Err(error),
        Err(_) => Ok(Evidence::None),
    }
}

/// Whether the run or the node is the trouble, and not the files.
fn is_about_the_run(error: &Error) -> bool {
    matches!(error.kind(), Kind::Interrupted(_) | Kind::Unreachable)
}

/// The id of the first epoch of the log in a directory. `None` if it holds no epoch.
fn database_in(directories: &Directories, run: &Run) -> Result<Option<Uuid>> {
    let entries = directories.files()?;
    let chunks = ChunkSet::among(directories, &entries, &Inspected::default())?;

    let last = match position_in(&directories.db, Checkpoint::Epoch)? {
        Some(epoch) => Some(epoch),
        None => {
            let end = log::writer_position(&directories.db)?;
            log::last_epoch(directories, &chunks, end, run)?
        }
    };
    let Some(last) = last else {
        return Ok(None);
    };

    let lineage = log::lineage(directories, &chunks, last)?;
    Ok(lineage.first().map(|epoch| epoch.id))
}

/// Whether the recorded process answers at the address of the record. Sends no credentials: by now
/// the address may be somebody else's.
fn still_answers(session: &Session, recorded: &RecordedNode, run: &Run) -> bool {
    if recorded.instance.is_none() {
        return false;
    }

    let there = Connection {
        url: recorded.url.clone(),
        unix_socket: recorded.unix_socket.clone(),
        credentials: None,
        limits: TimeLimits {
            connect: ANSWERS_WITHIN,
            answer: ANSWERS_WITHIN,
            patience: ANSWERS_WITHIN,
        },
        ..session.client().connection().clone()
    };
    let Ok(client) = Client::new(&there) else {
        return false;
    };
    let patience = Patience::of(run).within(ANSWERS_WITHIN);
    match client.gossip(patience) {
        Ok(Some(gossip)) => match gossip.me() {
            Some(me) => me.instance_id == recorded.instance,
            None => false,
        },
        _ => false,
    }
}
