//! Where the node's files are, and whether the files there are this node's (http-api §3.6, §5.4).
//!
//! A path can be wrong in many ways: the node is in a container, the path is relative to its
//! working directory, a mount is missing, or it is another node's. So the directories are believed
//! only when the log in them moves as the node says it does.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::{NodeOptions, Patience, Session};
use crate::error::{Error, Kind, Result};
use crate::format::checkpoint::{self, Checkpoint};
use crate::format::chunk::{self, Transform};
use crate::format::names::ChunkName;
use crate::format::record::Lookup;
use crate::format::{Epoch, EpochRecord, InContext, LogPosition};
use crate::fs;
use crate::manifest::Directories;
use crate::run::Run;

/// The statistics are kept for one second (http-api §3.5), a node's line in its gossip for two
/// (§3.2); both a little longer.
const STATISTICS_AGE: Duration = Duration::from_millis(1200);
const GOSSIP_AGE: Duration = Duration::from_millis(2600);
/// The files reach what the node said within milliseconds; on a network mount it can take a while.
const CATCH_UP: Duration = Duration::from_secs(2);
const POLL: Duration = Duration::from_millis(100);
const ATTEMPTS: u32 = 3;
/// An archive's first local chunk can be any; but no directory has more versions of one chunk at a
/// time than this.
const MAX_LOOKS: usize = 64;

/// What the node's configuration says that matters to a backup.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Traits {
    /// It moves old chunks to an archive (`Archiver`). Other members of such a cluster do not say
    /// so: plugins' options are not told.
    pub archiver: bool,
    /// Its chunks are encrypted or otherwise changed (`Transform`).
    pub transform: Option<String>,
    /// It takes no part in elections (`ReadOnlyReplica`).
    pub read_only_replica: bool,
    /// It keeps nothing on disk (`MemDb`).
    pub in_memory: bool,
    /// How many members its cluster should have.
    pub cluster_size: Option<u32>,
}

impl Traits {
    /// Reads them from `/info/options`.
    #[must_use]
    pub fn of(options: &NodeOptions) -> Self {
        Self {
            archiver: options.is_on("Archiver"),
            transform: options
                .value("Transform")
                .filter(|transform| !transform.eq_ignore_ascii_case("identity"))
                .map(str::to_owned),
            read_only_replica: options.is_on("ReadOnlyReplica"),
            in_memory: options.is_on("MemDb"),
            cluster_size: options.cluster_size(),
        }
    }
}

/// Finds the node's directories: those the operator names, else those the node names.
///
/// # Errors
/// [`Kind::Usage`] where they are not there or no data directories, [`Kind::Refused`] for a node
/// that keeps nothing on disk or encrypts its chunks.
pub fn locate(
    session: &Session,
    db: Option<&Path>,
    index: Option<&Path>,
    run: &Run,
) -> Result<Directories> {
    let options = session.options();
    let traits = Traits::of(options);
    let refused = |what: &str| Error::new(Kind::Refused, what).on(session.client().place());
    if traits.in_memory {
        return Err(refused(
            "the node keeps its data in memory (`MemDb`): there are no files to back up",
        ));
    }
    if let Some(transform) = &traits.transform {
        return Err(
            refused("the node's chunks are encrypted, which is not supported yet")
                .because(format!("`Transform` is `{transform}`")),
        );
    }
    let told_db = options.value("Db").map(Path::new);
    let told_index = options.value("Index").map(Path::new);
    let db = match (db, told_db) {
        (Some(given), _) => given.to_owned(),
        (None, Some(told)) if told.is_absolute() => told.to_owned(),
        (None, Some(told)) => {
            return Err(usage("the node names its db directory by a relative path")
                .at(told)
                .hint("name the directory as it is seen here by `--db`"));
        }
        (None, None) => {
            return Err(usage("the node does not name its db directory").hint("name it by `--db`"));
        }
    };
    let index = match (index, told_index) {
        (Some(given), _) => Some(given.to_owned()),
        // Inside of the db directory it lies at the same place, wherever that is mounted.
        (None, Some(told)) => match told_db.and_then(|told_db| told.strip_prefix(told_db).ok()) {
            Some(below) => Some(db.join(below)),
            None if told.is_absolute() => Some(told.to_owned()),
            None => {
                let error = usage("the node names its index directory by a relative path").at(told);
                return Err(error.hint("name the directory as it is seen here by `--index`"));
            }
        },
        (None, None) => None,
    };
    let directories = plausible(&Directories::new(db, index), run).map_err(|error| match told_db {
        Some(told) if error.kind() == Kind::Usage => error.hint(format!(
            "the node calls its db directory `{}`; where it runs in a container, name both as they are seen here",
            told.display()
        )),
        _ => error,
    })?;
    if let Some(told) = told_db
        && is_another(told, &directories.db)
    {
        run.note(format!(
            "the node calls its db directory `{}`, which is another one here than `{}`",
            told.display(),
            directories.db.display()
        ));
    }
    Ok(directories)
}

/// Both exist here, and they are not the same.
fn is_another(told: &Path, here: &Path) -> bool {
    fs::canonical(told).is_ok_and(|told| fs::canonical(here).is_ok_and(|here| told != here))
}

fn usage(what: &str) -> Error {
    Error::new(Kind::Usage, what)
}

/// Checks that these can be a server's directories, also without a node. The result has no links in
/// it.
///
/// # Errors
/// [`Kind::Usage`] where they are not there or hold no log, [`Kind::SourceCorrupt`] for a
/// checkpoint that is none.
pub fn plausible(directories: &Directories, run: &Run) -> Result<Directories> {
    let missing = |path: &Path, what: &str, option: &str| {
        usage(what).at(path).hint(format!(
            "is everything mounted, and is `{option}` the directory as it is seen here?"
        ))
    };
    let resolve = |path: &Path, what: &str, option: &str| match fs::canonical(path) {
        Err(error) if error.is_not_found() => Err(missing(path, what, option)),
        result => {
            let path = result?;
            let is_directory =
                fs::status(&path)?.is_some_and(|status| status.kind == fs::FileKind::Directory);
            if is_directory {
                Ok(path)
            } else {
                Err(missing(&path, "this is no directory", option))
            }
        }
    };
    let db = resolve(&directories.db, "there is no db directory", "--db")?;
    for checkpoint in Checkpoint::ALL {
        let path = db.join(checkpoint.file_name());
        let needed = matches!(checkpoint, Checkpoint::Writer | Checkpoint::Chaser);
        if read_checkpoint(&path)?.is_none() && needed {
            return Err(missing(
                &path,
                "this is no db directory of a server: a checkpoint is missing",
                "--db",
            ));
        }
    }
    if !fs::has_name(&db, |name| chunk_name(name).is_some())? {
        return Err(missing(
            &db,
            "this is no db directory of a server: there is no chunk",
            "--db",
        ));
    }
    let default = directories.index == directories.db.join("index");
    let index = match resolve(&directories.index, "there is no index directory", "--index") {
        // A server that never wrote a table may have none yet.
        Err(error) if error.kind() == Kind::Usage && default => db.join("index"),
        result => result?,
    };
    let known = ["indexmap", "stream-existence"]
        .iter()
        .map(|name| fs::status(&index.join(name)))
        .collect::<fs::Result<Vec<_>>>()?;
    if known.iter().all(Option::is_none) {
        if !default && !fs::list(&index)?.is_empty() {
            return Err(missing(
                &index,
                "this is no index directory of a server",
                "--index",
            ));
        }
        run.note(format!("`{}` holds no index yet", index.display()));
    }
    Ok(Directories { db, index })
}

/// What is known of the log of a node whose directories were confirmed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Agreement {
    /// The end of the log, as the node said it and the files had it.
    pub writer: LogPosition,
    /// The last election, as the node said it and the files have it; none where the node does not
    /// gossip.
    pub epoch: Option<Epoch>,
}

/// Checks that the node's log is the one in these directories: both end at the same place, while it
/// moves, and both know the same last election.
///
/// Two members of one cluster on one machine, both at rest, say the same; they are told apart by
/// the files that the node's process has open, where that can be seen.
///
/// # Errors
/// [`Kind::Refused`] where they do not agree, [`Kind::SourceCorrupt`] for files that are not what
/// the server writes, and what the node answers.
pub fn agree(session: &Session, directories: &Directories, run: &Run) -> Result<Agreement> {
    let writer = same_end(session, directories, run)?;
    let epoch = same_epoch(session, directories, run)?;
    if let Some(other) = other_files_of_process(session, directories, run)? {
        return Err(disagree(
            session,
            directories,
            &format!("its process {} has `{}` open", other.0, other.1.display()),
        ));
    }
    Ok(Agreement { writer, epoch })
}

fn disagree(session: &Session, directories: &Directories, why: &str) -> Error {
    Error::new(
        Kind::Refused,
        format!(
            "the files in `{}` are not those of this node",
            directories.db.display()
        ),
    )
    .on(session.client().place())
    .because(why.to_owned())
    .hint("name this node's own directories by `--db` and `--index`, as they are seen here")
}

fn writer_of(directories: &Directories) -> Result<LogPosition> {
    let path = directories.db.join(Checkpoint::Writer.file_name());
    let value = read_checkpoint(&path)?.flatten();
    value.ok_or_else(|| {
        Error::new(
            Kind::SourceCorrupt,
            "the writer checkpoint holds no position",
        )
        .at(&path)
    })
}

/// What the node says was true at some time between the two looks at the file: the file cannot have
/// been beyond it before, and must reach it soon.
fn same_end(session: &Session, directories: &Directories, run: &Run) -> Result<LogPosition> {
    let patience = Patience::of(run);
    let mut why = String::new();
    for attempt in 0..ATTEMPTS {
        let before = writer_of(directories)?;
        let statistics = session.client().flushed(patience)?;
        let age = if statistics.is_some() {
            STATISTICS_AGE
        } else {
            GOSSIP_AGE
        };
        let mut said = statistics;
        if attempt > 0 || said.is_none() {
            run.pause(age)?;
            said = match statistics {
                Some(_) => session.client().flushed(patience)?,
                None => session
                    .gossip(patience)?
                    .and_then(|gossip| gossip.me().and_then(super::GossipMember::writer)),
            };
        }
        let Some(said) = said else {
            run.warn("the node tells neither statistics nor gossip: it was not checked that these directories are its own");
            return Ok(before);
        };
        let end = Instant::now() + CATCH_UP;
        let mut after = writer_of(directories)?;
        while after < said && Instant::now() < end {
            run.pause(POLL)?;
            after = writer_of(directories)?;
        }
        if before <= said && said <= after {
            return Ok(said);
        }
        why = format!(
            "the node says its log ends at {said}, `writer.chk` says {before} before and {after} afterwards"
        );
        if after < said {
            break;
        }
    }
    Err(disagree(session, directories, &why))
}

fn same_epoch(session: &Session, directories: &Directories, run: &Run) -> Result<Option<Epoch>> {
    let path = directories.db.join(Checkpoint::Epoch.file_name());
    let mut why = String::new();
    for attempt in 0..2 {
        if attempt > 0 {
            // An election between the two looks: the node's line in its gossip is renewed every two
            // seconds.
            run.pause(GOSSIP_AGE)?;
        }
        let Some(gossip) = session.gossip(Patience::of(run))? else {
            return Ok(None);
        };
        let Some(me) = gossip.me() else {
            return Ok(None);
        };
        let stored = read_checkpoint(&path)?.flatten();
        let (Some(told), Some(position)) = (me.epoch_position(), stored) else {
            if me.epoch_position() == stored {
                return Ok(None);
            }
            let told = |position: Option<LogPosition>| {
                position.map_or_else(|| "nowhere".to_owned(), |position| position.to_string())
            };
            why = format!(
                "the node's last election is at {}, `epoch.chk` says {}",
                told(me.epoch_position()),
                told(stored)
            );
            continue;
        };
        if told != position {
            why = format!("the node's last election is at {told}, `epoch.chk` says {position}");
            continue;
        }
        let epoch = Epoch {
            position,
            number: me.epoch_number,
            id: me.epoch_id,
        };
        why = match epoch_at(directories, position)? {
            Some(found) if found == epoch => return Ok(Some(epoch)),
            Some(found) => format!(
                "the election at {position} has the id {} in the node and {} in the log",
                epoch.id, found.id
            ),
            None => format!("there is no election at {position} in the log"),
        };
        break;
    }
    Err(disagree(session, directories, &why))
}

/// The epoch whose record stands at `position`; none where no chunk has it.
fn epoch_at(directories: &Directories, position: LogPosition) -> Result<Option<Epoch>> {
    let mut names = chunk_names(&directories.db)?;
    names.reverse();
    let mut most = None;
    let mut looks = 0;
    for name in names {
        if most.is_some_and(|most| name.start > most) {
            continue;
        }
        looks += 1;
        if looks > MAX_LOOKS {
            break;
        }
        let path = directories.db.join(name.to_string());
        let file = match fs::open_source(&path) {
            // Replaced by a scavenge between the two looks.
            Err(error) if error.is_not_found() => continue,
            result => result.map_err(of_node)?,
        };
        file.expect_pieces();
        let Ok(found) = chunk::inspect(&file) else {
            continue;
        };
        most = found.header.chunk_size.chunk_of(position);
        if !found.header.covers(position) {
            continue;
        }
        if found.header.transform != Transform::Identity {
            return Err(Error::new(
                Kind::Refused,
                "the chunk is encrypted, which is not supported yet",
            )
            .at(&path));
        }
        let data = match found.footer() {
            Some(_) => found.completed_data(),
            None => found.data_before(writer_of(directories)?),
        }
        .in_source(&path)?;
        let mut lookup = Lookup::new(&file, &found, data).in_source(&path)?;
        let Some(frame) = lookup.read_at_position(position).in_source(&path)? else {
            continue;
        };
        return EpochRecord::parse(&frame)
            .map(|record| Some(record.epoch))
            .in_source(&path);
    }
    Ok(None)
}

/// The node's process and the `writer.chk` that it has open instead of ours. None where it has
/// ours, or where the process cannot be seen from here.
fn other_files_of_process(
    session: &Session,
    directories: &Directories,
    run: &Run,
) -> Result<Option<(i64, PathBuf)>> {
    let Some(process) = session.client().process(Patience::of(run))? else {
        return Ok(None);
    };
    let Some(ours) = fs::status(&directories.db.join(Checkpoint::Writer.file_name()))? else {
        return Ok(None);
    };
    let home = PathBuf::from(format!("/proc/{}/fd", process.id));
    let mut other = None;
    for descriptor in fs::list(&home).unwrap_or_default() {
        let link = home.join(descriptor.name);
        let Ok(target) = fs::link_target(&link) else {
            continue;
        };
        if target
            .file_name()
            .is_none_or(|name| name != Checkpoint::Writer.file_name())
        {
            continue;
        }
        match fs::status_of_target(&link) {
            Ok(Some(status)) if (status.device, status.inode) == (ours.device, ours.inode) => {
                return Ok(None);
            }
            Ok(Some(_)) => other = Some((process.id, target)),
            _ => {}
        }
    }
    Ok(other)
}

/// The position in a checkpoint file, none for −1; none at all where there is no such file.
fn read_checkpoint(path: &Path) -> Result<Option<Option<LogPosition>>> {
    let bytes = match fs::read_small(path, 4096) {
        Err(error) if error.is_not_found() => return Ok(None),
        result => result.map_err(of_node)?,
    };
    checkpoint::position(&bytes).map(Some).in_source(path)
}

/// What is no plain file, or far too long, is no file that a server has written.
fn of_node(error: fs::IoError) -> Error {
    let wrong = error.is_no_plain_file() || error.source.kind() == std::io::ErrorKind::FileTooLarge;
    let error = Error::from(error);
    if wrong {
        error.with_kind(Kind::SourceCorrupt)
    } else {
        error
    }
}

fn chunk_name(name: &OsStr) -> Option<ChunkName> {
    name.to_str()?.parse().ok()
}

fn chunk_names(db: &Path) -> Result<Vec<ChunkName>> {
    let mut names: Vec<ChunkName> = fs::names(db)?
        .iter()
        .filter_map(|name| chunk_name(name))
        .collect();
    names.sort();
    Ok(names)
}
