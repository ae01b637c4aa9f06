//! Whether the files in the directories are this node's (http-api §3.6, §5.4).
//!
//! A path can be wrong in many ways: the node is in a container, the path is relative to its
//! working directory, a mount is missing, or the files are another node's. So kbackup believes the
//! directories only if the log in them moves as the node says it does.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::{GossipMember, Patience, Session};
use crate::error::{Error, Kind, Result};
use crate::format::checkpoint::Checkpoint;
use crate::format::{Epoch, LogPosition};
use crate::fs;
use crate::log::{find_epoch, position_in, writer_position};
use crate::manifest::Directories;
use crate::run::Run;

/// The node keeps its statistics for one second (http-api §3.5). This is a little longer.
const STATISTICS_AGE: Duration = Duration::from_millis(1200);
/// The node renews its own line in the gossip every two seconds (http-api §3.2). This is a little
/// longer.
const GOSSIP_AGE: Duration = Duration::from_millis(2600);
/// The files reach what the node said within milliseconds. On a network mount it can take a while.
const CATCH_UP: Duration = Duration::from_secs(2);
const POLL: Duration = Duration::from_millis(100);
const END_ATTEMPTS: u32 = 3;
const EPOCH_ATTEMPTS: u32 = 2;

/// What the node and its files agree on, once the directories are confirmed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Agreement {
    /// The end of the log.
    pub writer: LogPosition,
    /// The last election; `None` if the node does not gossip.
    pub epoch: Option<Epoch>,
}

/// Checks that the node's log is the one in these directories: both end at the same place, while it
/// moves, and both know the same last election.
///
/// Two idle members of one cluster on one machine give the same answers. kbackup tells them apart
/// by the files that the node's process has open, if it can see them.
///
/// # Errors
/// [`Kind::Refused`] if they do not agree, [`Kind::SourceCorrupt`] for files that are not what the
/// server writes.
pub fn agree(session: &Session, directories: &Directories, run: &Run) -> Result<Agreement> {
    let writer = same_end(session, directories, run)?;
    let epoch = same_epoch(session, directories, run)?;

    if let OpenWriter::Other { process, path } = open_writer(session, directories, run)? {
        let why = format!("its process {process} has `{}` open", path.display());
        return Err(disagree(session, directories, &why));
    }
    Ok(Agreement { writer, epoch })
}

fn disagree(session: &Session, directories: &Directories, why: &str) -> Error {
    let db = directories.db.display();
    let what = format!("the files in `{db}` are not those of this node");
    Error::new(Kind::Refused, what)
        .on(session.client().place())
        .because(why.to_owned())
        .hint("name this node's own directories with `--db` and `--index`, by their paths here")
}

/// Compares the node's end of the log with the file's.
///
/// kbackup reads the file, asks the node, and reads the file again. If both are of one node, the
/// first position in the file is at most the node's, and the second one is at least the node's.
fn same_end(session: &Session, directories: &Directories, run: &Run) -> Result<LogPosition> {
    let mut why = String::new();

    for attempt in 0..END_ATTEMPTS {
        let before = writer_position(&directories.db)?;
        let Some(said) = end_by_node(session, attempt, run)? else {
            run.warn(
                "the node reports neither statistics nor gossip, \
                 so kbackup could not check that these directories are its own",
            );
            return Ok(before);
        };

        let after = wait_for_writer(&directories.db, said, run)?;
        if before <= said && said <= after {
            return Ok(said);
        }

        why = format!(
            "the node says its log ends at {said}, \
             `writer.chk` says {before} before and {after} afterwards"
        );
        if after < said {
            break;
        }
    }

    Err(disagree(session, directories, &why))
}

/// The end of the log by the node's statistics or, without them, by its gossip. Returns `None` if
/// the node reports neither.
///
/// The first attempt uses the statistics at once. Gossip, and the statistics of later attempts,
/// must be newer than the position from the file, so this waits until the node has renewed them.
fn end_by_node(session: &Session, attempt: u32, run: &Run) -> Result<Option<LogPosition>> {
    let patience = Patience::of(run);

    let statistics = session.client().flushed(patience)?;
    if statistics.is_some() {
        if attempt == 0 {
            return Ok(statistics);
        }
        run.pause(STATISTICS_AGE)?;
        return session.client().flushed(patience);
    }

    run.pause(GOSSIP_AGE)?;
    let Some(gossip) = session.gossip(patience)? else {
        return Ok(None);
    };
    Ok(gossip.me().and_then(GossipMember::writer))
}

/// Waits until the writer checkpoint reaches a position, for a limited time. Returns its last
/// position.
fn wait_for_writer(db: &Path, position: LogPosition, run: &Run) -> Result<LogPosition> {
    let end = Instant::now() + CATCH_UP;
    loop {
        let writer = writer_position(db)?;
        if writer >= position || Instant::now() >= end {
            return Ok(writer);
        }
        run.pause(POLL)?;
    }
}

/// The result of one comparison of the last elections.
enum EpochComparison {
    Same(Option<Epoch>),
    /// The node and `epoch.chk` name different positions: an election may have happened between the
    /// two reads.
    OtherPosition(String),
    /// Both name one position, but the log holds another election there.
    OtherLog(String),
}

/// Compares the node's last election with the one in the files. Returns `None` if there is none, or
/// if the node does not gossip.
fn same_epoch(session: &Session, directories: &Directories, run: &Run) -> Result<Option<Epoch>> {
    let mut why = String::new();

    for attempt in 0..EPOCH_ATTEMPTS {
        if attempt > 0 {
            run.pause(GOSSIP_AGE)?;
        }

        let Some(gossip) = session.gossip(Patience::of(run))? else {
            return Ok(None);
        };
        let Some(me) = gossip.me() else {
            return Ok(None);
        };
        if !me.tells_epoch() {
            run.warn(
                "the node's gossip does not tell its last election, \
                 so kbackup could not compare it with the files",
            );
            return Ok(None);
        }
        match compare_epoch(me, &directories.db)? {
            EpochComparison::Same(epoch) => return Ok(epoch),
            EpochComparison::OtherPosition(found) => why = found,
            EpochComparison::OtherLog(found) => {
                why = found;
                break;
            }
        }
    }

    Err(disagree(session, directories, &why))
}

fn compare_epoch(me: &GossipMember, db: &Path) -> Result<EpochComparison> {
    let told = me.epoch_position();
    let stored = position_in(db, Checkpoint::Epoch)?;
    if told != stored {
        return Ok(EpochComparison::OtherPosition(format!(
            "the node's last election is at {}, `epoch.chk` says {}",
            in_words(told),
            in_words(stored)
        )));
    }
    let (Some(position), Some(number), Some(id)) = (told, me.epoch_number, me.epoch_id) else {
        return Ok(EpochComparison::Same(None));
    };

    let epoch = Epoch {
        position,
        number,
        id,
    };
    Ok(match find_epoch(db, position)? {
        Some(found) if found == epoch => EpochComparison::Same(Some(epoch)),
        Some(found) => EpochComparison::OtherLog(format!(
            "the election at {position} has the id {} in the node and {} in the log",
            epoch.id, found.id
        )),
        None => EpochComparison::OtherLog(format!("there is no election at {position} in the log")),
    })
}

fn in_words(position: Option<LogPosition>) -> String {
    match position {
        Some(position) => position.to_string(),
        None => "nowhere".to_owned(),
    }
}

/// Whether the node's process is seen to work in these directories. False if kbackup cannot see the
/// process.
///
/// # Errors
/// [`Kind::Unreachable`] or [`Kind::Denied`] if the node cannot be asked.
pub(super) fn is_seen_at_work(
    session: &Session,
    directories: &Directories,
    run: &Run,
) -> Result<bool> {
    let writer = open_writer(session, directories, run)?;
    Ok(matches!(writer, OpenWriter::Ours))
}

/// The `writer.chk` that the node's process has open.
enum OpenWriter {
    /// The file in these directories.
    Ours,
    /// Another file.
    Other { process: i64, path: PathBuf },
    /// kbackup cannot see the process.
    Unknown,
}

fn open_writer(session: &Session, directories: &Directories, run: &Run) -> Result<OpenWriter> {
    let process = session.client().process(Patience::of(run))?;
    let Some(process) = process.and_then(|process| process.id) else {
        return Ok(OpenWriter::Unknown);
    };
    let Some(ours) = fs::status(&Checkpoint::Writer.under(&directories.db))? else {
        return Ok(OpenWriter::Unknown);
    };

    let home = PathBuf::from(format!("/proc/{process}/fd"));
    let mut found = OpenWriter::Unknown;
    for descriptor in fs::list(&home).unwrap_or_default() {
        let link = home.join(descriptor.name);
        let Ok(path) = fs::link_target(&link) else {
            continue;
        };
        let name = path.file_name().and_then(|name| name.to_str());
        if name != Some(Checkpoint::Writer.file_name()) {
            continue;
        }

        let Ok(Some(status)) = fs::status_of_target(&link) else {
            continue;
        };
        if (status.device, status.inode) == (ours.device, ours.inode) {
            return Ok(OpenWriter::Ours);
        }
        found = OpenWriter::Other { process, path };
    }

    Ok(found)
}
