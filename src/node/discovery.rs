//! Finds the node's directories, and checks that they hold a server's files. `agreement` checks
//! that they are this node's.

use std::path::{Path, PathBuf};

use super::{ServerOptions, Session};
use crate::error::{Error, Kind, Result};
use crate::format::InContext;
use crate::format::checkpoint::Checkpoint;
use crate::format::names::{self, DbFile};
use crate::fs;
use crate::log::{RawCheckpoint, of_source};
use crate::manifest::{Directories, Root};
use crate::run::Run;

/// What the node's configuration says that matters to a backup.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NodeTraits {
    /// The node moves old chunks to an archive (`Archiver`). Other members of such a cluster do not
    /// say so, because the node does not report options of plugins.
    pub archiver: bool,
    /// What encrypts or otherwise changes the chunks (`Transform`); `None` if nothing does.
    pub transform: Option<String>,
    /// The node takes no part in elections (`ReadOnlyReplica`).
    pub read_only_replica: bool,
    /// The node keeps nothing on disk (`MemDb`).
    pub in_memory: bool,
    /// How many members the cluster should have.
    pub cluster_size: Option<u32>,
}

impl NodeTraits {
    /// Reads them from `/info/options`.
    #[must_use]
    pub fn of(options: &ServerOptions) -> Self {
        let transform = match options.value("Transform") {
            Some(transform) if transform.eq_ignore_ascii_case("identity") => None,
            transform => transform.map(str::to_owned),
        };

        Self {
            archiver: options.is_on("Archiver"),
            transform,
            read_only_replica: options.is_on("ReadOnlyReplica"),
            in_memory: options.is_on("MemDb"),
            cluster_size: options.cluster_size(),
        }
    }
}

/// Finds the node's directories: those that the operator names, else those that the node names.
///
/// # Errors
/// [`Kind::Usage`] if they do not exist or are not data directories, [`Kind::Refused`] for a node
/// that keeps nothing on disk or encrypts its chunks.
pub fn locate(
    session: &Session,
    db: Option<&Path>,
    index: Option<&Path>,
    run: &Run,
) -> Result<Directories> {
    let options = session.options();
    refuse_unsupported(session, &NodeTraits::of(options))?;

    // The paths that the node reports. They may exist only inside its container.
    let told_db = options.value("Db").map(Path::new);
    let told_index = options.value("Index").map(Path::new);
    let db = db_directory(db, told_db)?;
    let index = index_directory(index, told_index, told_db, &db)?;

    let directories = match check_directories(&Directories::new(db, index), run) {
        Ok(directories) => directories,
        Err(error) => return Err(with_told_directory(error, told_db)),
    };
    note_other_directory(told_db, &directories.db, run);
    Ok(directories)
}

fn refuse_unsupported(session: &Session, traits: &NodeTraits) -> Result<()> {
    let place = session.client().place();
    if traits.in_memory {
        let what = "the node keeps its data in memory (`MemDb`): there are no files to back up";
        return Err(Error::new(Kind::Refused, what).on(place));
    }

    if let Some(transform) = &traits.transform {
        let what = "the node's chunks are encrypted, which is not supported yet";
        return Err(Error::new(Kind::Refused, what)
            .on(place)
            .because(format!("`Transform` is `{transform}`")));
    }
    Ok(())
}

fn db_directory(given: Option<&Path>, told: Option<&Path>) -> Result<PathBuf> {
    if let Some(given) = given {
        return Ok(given.to_owned());
    }

    match told {
        Some(told) if told.is_absolute() => Ok(told.to_owned()),
        Some(told) => Err(usage("the node names its db directory by a relative path")
            .at(told)
            .hint("name the directory by its path on this machine with `--db`")),
        None => {
            let error = usage("the node does not name its db directory");
            Err(error.hint("name it with `--db`"))
        }
    }
}

/// Returns `None` if neither the operator nor the node names the index directory. Then it is at its
/// default place.
fn index_directory(
    given: Option<&Path>,
    told: Option<&Path>,
    told_db: Option<&Path>,
    db: &Path,
) -> Result<Option<PathBuf>> {
    if let Some(given) = given {
        return Ok(Some(given.to_owned()));
    }
    let Some(told) = told else {
        return Ok(None);
    };

    // An index directory below the db directory has the same relative path here, wherever the db
    // directory is mounted.
    if let Some(told_db) = told_db
        && let Ok(below) = told.strip_prefix(told_db)
    {
        return Ok(Some(db.join(below)));
    }

    if told.is_absolute() {
        return Ok(Some(told.to_owned()));
    }
    Err(
        usage("the node names its index directory by a relative path")
            .at(told)
            .hint("name the directory by its path on this machine with `--index`"),
    )
}

/// Adds the path that the node reports to an error about the operator's directories.
fn with_told_directory(error: Error, told_db: Option<&Path>) -> Error {
    match told_db {
        Some(told) if error.kind() == Kind::Usage => error.hint(format!(
            "the node calls its db directory `{}`; \
             if it runs in a container, name both directories by their paths on this machine",
            told.display()
        )),
        _ => error,
    }
}

/// Logs it if the path that the node reports exists on this machine too, but is another directory.
fn note_other_directory(told: Option<&Path>, db: &Path, run: &Run) {
    let Some(told) = told else { return };
    let (Ok(there), Ok(here)) = (fs::canonical(told), fs::canonical(db)) else {
        return;
    };

    if there != here {
        run.note(format!(
            "the node calls its db directory `{}`, which is another directory here than `{}`",
            told.display(),
            db.display()
        ));
    }
}

fn usage(what: &str) -> Error {
    Error::new(Kind::Usage, what)
}

/// Checks that the directories hold a server's files. This needs no node. The returned paths hold
/// no symbolic links.
///
/// # Errors
/// [`Kind::Usage`] if they do not exist or hold no log, [`Kind::SourceCorrupt`] if a checkpoint
/// file is not what a server writes.
pub fn check_directories(directories: &Directories, run: &Run) -> Result<Directories> {
    let db = resolve(Root::Db, &directories.db)?;
    check_db(&db)?;

    let is_default = directories.index == directories.db.join(names::INDEX_DIRECTORY);
    let index = match resolve(Root::Index, &directories.index) {
        Ok(index) => index,
        // A server that never wrote a table may have none yet.
        Err(error) if error.kind() == Kind::Usage && is_default => db.join(names::INDEX_DIRECTORY),
        Err(error) => return Err(error),
    };
    check_index(&index, is_default, run)?;

    Ok(Directories { db, index })
}

/// Checks an index directory whose db directory is not known, because only the node names it. The
/// returned path holds no symbolic links.
///
/// # Errors
/// [`Kind::Usage`] if it does not exist, is empty, or is not a server's.
pub fn check_index_directory(index: &Path, run: &Run) -> Result<PathBuf> {
    let index = resolve(Root::Index, index)?;
    refuse_empty(&index)?;
    check_index(&index, false, run)?;
    Ok(index)
}

/// The directory without links in its path.
fn resolve(root: Root, path: &Path) -> Result<PathBuf> {
    let resolved = match fs::canonical(path) {
        Ok(resolved) => resolved,
        Err(error) if error.is_not_found() => {
            let what = format!("there is no {} directory", root.name());
            return Err(wrong_directory(root, path, &what));
        }
        Err(error) => return Err(error.into()),
    };

    match fs::status(&resolved)? {
        Some(status) if status.kind == fs::FileKind::Directory => Ok(resolved),
        _ => Err(wrong_directory(root, &resolved, "this is not a directory")),
    }
}

fn wrong_directory(root: Root, path: &Path, what: &str) -> Error {
    usage(what).at(path).hint(format!(
        "check that everything is mounted, and that `--{}` is the directory's path on this machine",
        root.name()
    ))
}

/// A db directory holds at least the writer's and the chaser's checkpoint, and a chunk.
fn check_db(db: &Path) -> Result<()> {
    for which in Checkpoint::ALL {
        let path = which.under(db);
        let raw = RawCheckpoint::in_directory(db, which).map_err(of_source)?;
        raw.position().in_source(&path)?;

        let is_needed = matches!(which, Checkpoint::Writer | Checkpoint::Chaser);
        if is_needed && raw == RawCheckpoint::Missing {
            let what = "this is not a server's db directory: a checkpoint is missing";
            return Err(wrong_directory(Root::Db, &path, what));
        }
    }

    let has_chunk = fs::has_name(db, |name| {
        let class = name.to_str().map(DbFile::of);
        matches!(class, Some(DbFile::Chunk(_)))
    })?;
    if !has_chunk {
        let what = "this is not a server's db directory: there is no chunk";
        return Err(wrong_directory(Root::Db, db, what));
    }
    Ok(())
}

/// Refuses an empty index directory that the operator has named. The mount point of a volume that is
/// not mounted is empty.
///
/// # Errors
/// [`Kind::Usage`] if the directory is empty.
pub fn refuse_empty_index(directories: &Directories) -> Result<()> {
    refuse_empty(&directories.index)
}

fn refuse_empty(index: &Path) -> Result<()> {
    if fs::status(index)?.is_some() && !fs::list(index)?.is_empty() {
        return Ok(());
    }

    let what = "the index directory that `--index` names is empty";
    Err(wrong_directory(Root::Index, index, what)
        .hint("if the node has written no index yet, leave `--index` out"))
}

/// An index directory holds what a server keeps there, or nothing yet.
fn check_index(index: &Path, is_default: bool, run: &Run) -> Result<()> {
    for known in [names::INDEX_MAP, names::STREAM_FILTER_DIRECTORY] {
        if fs::status(&index.join(known))?.is_some() {
            return Ok(());
        }
    }

    if !is_default && !fs::list(index)?.is_empty() {
        let what = "this is not a server's index directory";
        return Err(wrong_directory(Root::Index, index, what));
    }
    run.note(format!("`{}` holds no index yet", index.display()));
    Ok(())
}
