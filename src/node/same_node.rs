//! Is this the node of a release record? kbackup gives back to that node alone, whatever its
//! address is now.
//!
//! The server process is certain. Otherwise the database and the directory tell: they stay when the
//! node gets another address, and they differ if two nodes advertise the same one. An address alone
//! is believed only if nothing better is known. What stays open is for the operator to say.

use std::path::Path;

use uuid::Uuid;

use super::release_record::{NodeFiles, RecordedNode};
use super::{Gossip, Patience, Session, agree};
use crate::error::{Error, Kind, Result};
use crate::format::checkpoint::Checkpoint;
use crate::log::{self, ChunkSet, Inspected, position_in};
use crate::manifest::{Directories, FileSet};
use crate::run::Run;

/// How a node compares with the node of a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Comparison {
    /// It is the same node, at the same address.
    Same,
    /// It is the same node, at another address.
    Moved,
    /// It may be the same node. The text says what differs.
    Unproven(String),
    /// It is another node. The text says why.
    Another(String),
}

/// Compares a running node with the node of a record. `neighbours` are the addresses of the other
/// living members of its cluster.
pub(super) fn compare(
    recorded: &RecordedNode,
    here: &RecordedNode,
    neighbours: &[String],
) -> Comparison {
    if recorded.instance.is_some() && recorded.instance == here.instance {
        let has_moved = recorded.endpoint != here.endpoint;
        return if has_moved {
            Comparison::Moved
        } else {
            Comparison::Same
        };
    }
    if let (Some(recorded), Some(here)) = (recorded.database, here.database)
        && recorded != here
    {
        return Comparison::Another(format!(
            "the database of the release record is {recorded}, that of the node {here}"
        ));
    }
    if let Some(difference) = difference_of_directories(recorded, here) {
        return Comparison::Unproven(difference);
    }

    let has_same_files = recorded.database.is_some()
        && recorded.database == here.database
        && recorded.directory.is_some()
        && recorded.directory == here.directory;
    match (&recorded.endpoint, &here.endpoint) {
        (Some(recorded), Some(here)) if recorded != here => {
            if neighbours.contains(recorded) {
                Comparison::Another(format!("{recorded} is another member of its cluster"))
            } else if has_same_files {
                Comparison::Moved
            } else {
                Comparison::Unproven(format!(
                    "the release record is for {recorded}, {here} answers"
                ))
            }
        }

        _ if has_same_files || recorded.is_reached_as(here) => Comparison::Same,
        _ => Comparison::Unproven(format!("the release record is for {recorded}, not {here}")),
    }
}

/// In what the directories of the two nodes differ. `None` if they do not, as far as is known.
fn difference_of_directories(recorded: &RecordedNode, here: &RecordedNode) -> Option<String> {
    if let (Some(recorded), Some(here)) = (&recorded.directory, &here.directory)
        && recorded != here
    {
        let (recorded, here) = (recorded.display(), here.display());
        return Some(format!(
            "the db directory of the release record is `{recorded}`, that of the node `{here}`"
        ));
    }
    if let (Some(recorded), Some(here)) = (&recorded.own_directory, &here.own_directory)
        && recorded != here
    {
        return Some(format!(
            "the node of the release record calls its db directory `{recorded}`, \
             this node calls it `{here}`"
        ));
    }

    None
}

/// The addresses of the other members that are alive.
pub(super) fn living_neighbours(gossip: Option<&Gossip>) -> Vec<String> {
    let Some(gossip) = gossip else {
        return Vec::new();
    };

    let own = gossip.endpoint();
    let mut neighbours = Vec::new();
    for member in &gossip.members {
        let endpoint = member.endpoint();
        if member.is_alive && endpoint != own {
            neighbours.push(endpoint);
        }
    }
    neighbours
}

/// Compares the node of a session with the node of a record. If it is another server process, this
/// looks into the db directory of the record, if that can be read here.
///
/// # Errors
/// [`Kind::Unreachable`] or [`Kind::Denied`] if the node cannot be asked.
pub(super) fn recognise(
    session: &Session,
    recorded: &RecordedNode,
    run: &Run,
) -> Result<(Comparison, RecordedNode)> {
    let gossip = session.gossip(Patience::of(run))?;
    let neighbours = living_neighbours(gossip.as_ref());

    let here = RecordedNode::of(session, &NodeFiles::default());
    let comparison = compare(recorded, &here, &neighbours);
    let is_certain = recorded.instance.is_some() && recorded.instance == here.instance;
    let (Some(database), Some(directory)) = (recorded.database, &recorded.directory) else {
        return Ok((comparison, here));
    };
    if matches!(comparison, Comparison::Another(_)) {
        return Ok((comparison, here));
    }

    let with_files = RecordedNode {
        database: Some(database),
        directory: Some(directory.clone()),
        ..here.clone()
    };
    if is_certain {
        return Ok((comparison, with_files));
    }
    Ok(match evidence(session, database, directory, run)? {
        Evidence::Agrees => (compare(recorded, &with_files, &neighbours), with_files),
        // The node may have left this directory.
        Evidence::Contradicts(why) => (Comparison::Unproven(why), here),
        Evidence::None => (comparison, here),
    })
}

/// What the files in the directory of a record say.
enum Evidence {
    /// They are of the recorded database, and the node works on them.
    Agrees,
    /// They are not the node's, or of another database.
    Contradicts(String),
    /// They cannot be read here.
    None,
}

fn evidence(session: &Session, database: Uuid, db: &Path, run: &Run) -> Result<Evidence> {
    let directories = Directories::new(db, None);

    match database_in(&directories, run) {
        Ok(Some(found)) if found != database => {
            let db = db.display();
            return Ok(Evidence::Contradicts(format!(
                "`{db}` holds the database {found}, and the release record is for {database}"
            )));
        }
        Ok(Some(_)) => {}
        Err(error) if is_about_the_run(&error) => return Err(error),
        Ok(None) | Err(_) => return Ok(Evidence::None),
    }

    match agree(session, &directories, run) {
        Ok(_) => Ok(Evidence::Agrees),
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

#[cfg(test)]
mod tests {
    use super::*;

    fn node(endpoint: &str, database: u128, directory: &str) -> RecordedNode {
        RecordedNode {
            url: format!("http://{endpoint}"),
            unix_socket: None,
            endpoint: Some(endpoint.to_owned()),
            instance: None,
            database: Some(Uuid::from_u128(database)),
            directory: Some(directory.into()),
            own_directory: None,
        }
    }

    fn without_files(node: RecordedNode) -> RecordedNode {
        RecordedNode {
            database: None,
            directory: None,
            ..node
        }
    }

    #[test]
    fn files_tell_nodes_apart_that_advertise_one_address() {
        let ours = node("127.0.0.1:2113", 1, "/one");
        assert_eq!(compare(&ours, &ours, &[]), Comparison::Same);

        let compared = compare(&ours, &node("127.0.0.1:2113", 2, "/one"), &[]);
        assert!(matches!(compared, Comparison::Another(_)), "{compared:?}");
        let compared = compare(&ours, &node("127.0.0.1:2113", 1, "/two"), &[]);
        assert!(matches!(compared, Comparison::Unproven(_)), "{compared:?}");
    }

    #[test]
    fn a_new_address_is_the_same_node_unless_a_neighbour_has_the_old_one() {
        let (before, now) = (node("10.0.0.1:1", 1, "/db"), node("10.0.0.2:1", 1, "/db"));
        assert_eq!(compare(&before, &now, &[]), Comparison::Moved);

        let neighbours = ["10.0.0.1:1".to_owned()];
        let compared = compare(&before, &now, &neighbours);
        assert!(matches!(compared, Comparison::Another(_)), "{compared:?}");
    }

    #[test]
    fn a_record_without_files_needs_the_same_address_and_url() {
        let old = without_files(node("10.0.0.1:1", 1, "/db"));
        let now = node("10.0.0.1:1", 1, "/db");
        assert_eq!(compare(&old, &now, &[]), Comparison::Same);

        let moved = RecordedNode {
            url: old.url.clone(),
            ..node("10.0.0.2:1", 1, "/db")
        };
        let elsewhere = RecordedNode {
            url: "http://other".to_owned(),
            ..now
        };
        for other in [moved, elsewhere] {
            let compared = compare(&old, &other, &[]);
            assert!(matches!(compared, Comparison::Unproven(_)), "{compared:?}");
        }
    }

    #[test]
    fn a_server_process_is_certain() {
        let instance = Some(Uuid::from_u128(7));
        let before = RecordedNode {
            instance,
            ..without_files(node("10.0.0.1:1", 1, "/db"))
        };
        let now = RecordedNode {
            instance,
            ..node("10.0.0.2:1", 2, "/other")
        };
        assert_eq!(compare(&before, &now, &[]), Comparison::Moved);
        assert_eq!(compare(&before, &before, &[]), Comparison::Same);
    }
}
