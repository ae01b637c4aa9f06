//! The preflight: whose files are these, where does their log end, and is there room for them?

use std::collections::{HashMap, HashSet};
use std::time::SystemTime;

use super::Request;
use super::branch::{self, Place, Seen};
use super::capture::changed;
use super::checkpoints;
use super::chunks::unchanged_since;
use super::counted::Counted;
use super::source::Source;
use crate::error::{Error, Kind, Result};
use crate::format::names::{ChunkName, DbFile, IndexFile, ScavengingFile};
use crate::format::{ChunkSize, Lineage, LogPosition};
use crate::fs;
use crate::log::{self, ChunkSet, Inspected};
use crate::manifest::{
    FileEntry, FileSet, Head, Identity, Label, Manifest, Owner, RestoreMark, RestoredFrom, Root,
};
use crate::repository::Repository;
use crate::run::Run;
use crate::transfer::Paced;
use crate::users;

/// What the preflight has found.
#[derive(Debug)]
pub(super) struct Ground {
    pub(super) identity: Identity,
    pub(super) lineage: Lineage,
    pub(super) chunk_size: ChunkSize,
    /// End of the log at that time.
    pub(super) end: LogPosition,
    pub(super) owner: Option<Owner>,
    pub(super) restored: Option<RestoredFrom>,
    /// The files that are there, for the estimate.
    pub(super) entries: Vec<FileEntry>,
    /// Its chunks, as they were then.
    pub(super) seen: Inspected,
    /// What looking has cost, in bytes.
    pub(super) bytes_read: u64,
}

impl Ground {
    pub(super) fn seen(&self) -> Seen<'_> {
        Seen {
            identity: &self.identity,
            lineage: &self.lineage,
            end: self.end,
            restored: self.restored.as_ref(),
        }
    }
}

/// Looks at the source without touching the node.
///
/// # Errors
/// `Refused` or `Unstable` while a truncation is pending, `SourceCorrupt` where the directories are
/// no node's.
pub(super) fn look(source: &Source<'_>, run: &Run) -> Result<Ground> {
    let directories = &source.directories;
    let files = Counted::new(directories);
    no_truncation(source)?;
    let read = checkpoints::read(directories)?;
    let now = SystemTime::now();
    let entries = files.files()?;
    let chunks = ChunkSet::among(&files, &entries, &Inspected::default())?;
    has_beginning(source, &chunks)?;
    let end = read.writer.0;
    let epoch = match read.epoch {
        Some(epoch) => Some(epoch),
        // A server without epoch.chk finds it like this, too (O12).
        None => log::last_epoch(&Paced::new(&files, run), &chunks, end, run)?,
    };
    let lineage = epoch.map_or_else(
        || Ok(Lineage::default()),
        |epoch| log::lineage(&files, &chunks, epoch),
    )?;
    let database = lineage.first().map(|epoch| epoch.id).ok_or_else(|| {
        Error::new(
            Kind::Refused,
            "the log has no epoch yet: nothing tells whose it is",
        )
        .at(&directories.db)
        .hint("start the node once, and let it become leader")
    })?;
    let identity = Identity {
        database,
        endpoint: source.endpoint(),
    };
    let bytes_read = files.bytes_read() + checkpoints::BYTES_READ;
    let restored = RestoreMark::read(&directories.db)?.and_then(|mark| mark.restored_from());
    let (chunk_size, seen) = (chunks.chunk_size(), unchanged_since(chunks, now));
    Ok(Ground {
        identity,
        lineage,
        chunk_size,
        end,
        owner: owner(source)?,
        restored,
        entries,
        seen,
        bytes_read,
    })
}

/// The log begins here, or nothing tells whose it is: the first epoch stands at its beginning.
fn has_beginning(source: &Source<'_>, chunks: &ChunkSet) -> Result<()> {
    let Some(gap) = chunks.missing().first().filter(|gap| gap.start().0 == 0) else {
        return Ok(());
    };
    Err(Error::new(Kind::Refused, format!("the log begins in chunk 0, and chunks 0 to {} are not here", gap.end()))
        .at(&source.directories.db)
        .hint("a chunk counts only as a plain file: links to other disks are not followed")
        .hint("a node whose first chunks are in an archive only cannot be backed up yet: raise the archive's retention, or take volume snapshots"))
}

fn no_truncation(source: &Source<'_>) -> Result<()> {
    let Some(position) = checkpoints::pending_truncation(&source.directories)? else {
        return Ok(());
    };
    let error = changed(format!(
        "a truncation to {position} is pending: truncate.chk is set"
    ))
    .at(&source.directories.db);
    if source.is_running() {
        return Err(error.hint("the node restarts to truncate its log; try again when it is back"));
    }
    Err(error
        .with_kind(Kind::Refused)
        .hint("start the node and stop it again: it truncates its log at the start"))
}

fn owner(source: &Source<'_>) -> Result<Option<Owner>> {
    let writer = source
        .directories
        .db
        .join(crate::format::checkpoint::Checkpoint::Writer.file_name());
    let Some(status) = fs::status(&writer)? else {
        return Ok(None);
    };
    Ok(Some(Owner {
        user: status.user,
        group: status.group,
        user_name: users::user_name(status.user),
        group_name: users::group_name(status.group),
    }))
}

/// The backups that are there.
#[derive(Debug, Default)]
pub(super) struct Shelf {
    /// The head of every manifest that can be read, oldest first.
    pub(super) backups: Vec<Head>,
    /// The newest name, also of a backup whose manifest cannot be read.
    pub(super) newest_label: Option<Label>,
    /// Whose rows turned out damaged.
    damaged: HashSet<Label>,
}

impl Shelf {
    /// Whether a diff can build on a backup.
    pub(super) fn is_usable(&self, backup: &Head) -> bool {
        backup.is_sound() && !self.damaged.contains(&backup.label)
    }
}

pub(super) fn shelf(repository: &dyn Repository, run: &Run) -> Result<Shelf> {
    let mut backups = Vec::new();
    let mut newest_label: Option<Label> = None;
    for listed in repository.list()? {
        newest_label = newest_label
            .into_iter()
            .chain([listed.label.clone()])
            .max_by_key(Label::time);
        match listed.head {
            Ok(head) => backups.push(head),
            Err(error) => run.warn(format!("{}: {error}; it is left alone", listed.label)),
        }
    }
    Ok(Shelf {
        backups,
        newest_label,
        damaged: HashSet::new(),
    })
}

/// Where a backup belongs, and the manifest it builds on: none for a full. A parent whose rows are
/// damaged is left alone, and the place is found anew.
pub(super) fn settle(
    mut shelf: Shelf,
    request: &Request,
    ground: &Ground,
    repository: &dyn Repository,
    run: &Run,
) -> Result<(Place, Option<Manifest>)> {
    loop {
        let place = branch::place(&shelf, &ground.seen(), request, run)?;
        let Some(label) = place.parent.clone() else {
            return Ok((place, None));
        };
        match repository.manifest(&label) {
            Err(error) if error.kind() == Kind::StoredCorrupt => {
                run.warn(format!("{label}: {error}; it is left alone"));
                shelf.damaged.insert(label);
            }
            result => return result.map(|parent| (place, Some(parent))),
        }
    }
}

/// An estimate of what a backup would copy, by names and lengths: the files are known for sure only
/// while the node holds still.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub struct Estimate {
    /// Files to copy.
    pub files: u64,
    /// Bytes to copy.
    pub bytes: u64,
    /// Files that are held already.
    pub held: u64,
}

/// What will be copied, of all files and of the chunks alone.
#[derive(Debug, Clone, Copy)]
pub(super) struct Estimates {
    pub(super) all: Estimate,
    pub(super) chunks: Estimate,
}

/// Estimates what will be copied.
pub(super) fn estimate(ground: &Ground, parent: Option<&Manifest>) -> Estimates {
    let held: HashMap<_, _> = parent
        .iter()
        .flat_map(|parent| &parent.files)
        .map(|row| (&row.path, row))
        .collect();
    let none = Estimate {
        files: 0,
        bytes: 0,
        held: 0,
    };
    let mut estimates = Estimates {
        all: none,
        chunks: none,
    };
    for entry in ground.entries.iter().filter(|entry| belongs(entry)) {
        let one = match held.get(&entry.path) {
            Some(row)
                if row.size == entry.size && row.chunk.is_none_or(|chunk| chunk.md5.is_some()) =>
            {
                Estimate { held: 1, ..none }
            }
            Some(row) if row.chunk.is_some() => {
                let known = parent.map_or(0, |parent| parent.log.position.position().get());
                Estimate {
                    files: 1,
                    bytes: ground.end.get().saturating_sub(known).min(entry.size),
                    ..none
                }
            }
            _ => Estimate {
                files: 1,
                bytes: entry.size,
                ..none
            },
        };
        estimates.all.add(one);
        if entry.path.file_name().parse::<ChunkName>().is_ok() {
            estimates.chunks.add(one);
        }
    }
    estimates
}

impl Estimate {
    fn add(&mut self, other: Self) {
        self.files += other.files;
        self.bytes += other.bytes;
        self.held += other.held;
    }
}

/// Whether a backup copies the file, as far as its name tells.
fn belongs(entry: &FileEntry) -> bool {
    match entry.path.root() {
        Root::Db => matches!(DbFile::of(entry.path.below_root()), DbFile::Chunk(_)),
        Root::Index => matches!(
            IndexFile::of(entry.path.below_root()),
            IndexFile::Table(_)
                | IndexFile::BloomFilter(_)
                | IndexFile::StreamFilterData
                | IndexFile::StreamFilterCheckpoint
                | IndexFile::Scavenging(ScavengingFile::Database)
        ),
    }
}

/// Refuses a backup that cannot fit, and warns where the repository would be lost together with the
/// node.
pub(super) fn room_for(
    estimate: Estimate,
    source: &Source<'_>,
    ground: &Ground,
    repository: &dyn Repository,
    run: &Run,
) -> Result<()> {
    // The active chunk is stored anew where it cannot be cloned.
    let needed = estimate.bytes.saturating_add(ground.chunk_size.get());
    // What an interrupted run left is taken up, or makes room.
    let left = repository.interrupted()?.map_or(0, |left| left.bytes);
    if let Some(free) = repository
        .free_space()?
        .map(|free| free.saturating_add(left))
        && free < needed
    {
        return Err(Error::new(
            Kind::Failed,
            format!(
                "the repository has {free} bytes of free space, this backup needs about {needed}"
            ),
        )
        .on(repository.place())
        .hint("free space there, or choose another `--repo`"));
    }
    if repository.shares_device_with(&source.directories.db)? {
        run.note("the repository lies on the node's own disk, and would be lost with it");
    }
    Ok(())
}
