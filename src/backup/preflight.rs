//! The preflight finds out whose files these are, and where their log ends. It changes nothing on
//! the node.

use std::time::SystemTime;

use super::checkpoints;
use super::chunks::unchanged_since;
use super::counted_source::CountedSource;
use super::parentage::SourceLog;
use super::quiesced::truncation_is_pending;
use super::retry::retry;
use super::source::Source;
use crate::error::{Error, Kind, Result};
use crate::format::checkpoint::Checkpoint;
use crate::format::{ChunkSize, Lineage, LogPosition};
use crate::fs;
use crate::log::{self, ChunkSet, Inspected};
use crate::manifest::{
    FileEntry, FileSet, Identity, Owner, ReadCheckpoints, RestoreMark, RestoredFrom,
};
use crate::run::Run;
use crate::transfer::Paced;
use crate::users;

/// What the preflight has found.
#[derive(Debug)]
pub(super) struct Preflight {
    pub(super) identity: Identity,
    pub(super) lineage: Lineage,
    pub(super) chunk_size: ChunkSize,
    /// Where the log ended at that time.
    pub(super) end: LogPosition,
    pub(super) owner: Option<Owner>,
    pub(super) restored: Option<RestoredFrom>,
    /// The source's files, for the estimate.
    pub(super) entries: Vec<FileEntry>,
    /// Headers and footers of the source's chunks, as they were at that time.
    pub(super) inspected: Inspected,
    /// Bytes that the preflight has read.
    pub(super) bytes_read: u64,
}

impl Preflight {
    /// Looks at the source, and retries while it changes. Epochs in `known`, the lineages of
    /// existing backups, are not read again.
    ///
    /// # Errors
    /// `Refused` or `Unstable` while a truncation is pending; `SourceCorrupt` if the directories
    /// are not those of a node.
    pub(super) fn run(
        source: &Source<'_>,
        known: &[Lineage],
        attempts: u32,
        run: &Run,
    ) -> Result<Self> {
        retry(attempts, run, |_| Self::look(source, known, run))
    }

    fn look(source: &Source<'_>, known: &[Lineage], run: &Run) -> Result<Self> {
        let directories = &source.directories;
        let files = CountedSource::new(directories);
        refuse_pending_truncation(source)?;
        let read = checkpoints::read(directories)?;

        let listed_at = SystemTime::now();
        let entries = files.files()?;
        let chunks = ChunkSet::among(&files, &entries, &Inspected::default())?;
        refuse_missing_beginning(source, &chunks)?;

        let lineage = lineage(&files, &chunks, &read, known, run)?;
        let identity = identity(source, &lineage)?;
        let restored = match RestoreMark::read(&directories.db)? {
            Some(mark) => mark.restored_from(),
            None => None,
        };

        Ok(Self {
            identity,
            lineage,
            chunk_size: chunks.chunk_size(),
            end: read.writer.0,
            owner: owner(source)?,
            restored,
            entries,
            inspected: unchanged_since(chunks, listed_at),
            bytes_read: files.bytes_read() + checkpoints::BYTES_READ,
        })
    }

    pub(super) fn source_log(&self) -> SourceLog<'_> {
        SourceLog {
            identity: &self.identity,
            lineage: &self.lineage,
            end: self.end,
            restored: self.restored.as_ref(),
        }
    }
}

fn refuse_pending_truncation(source: &Source<'_>) -> Result<()> {
    let Some(position) = checkpoints::pending_truncation(&source.directories)? else {
        return Ok(());
    };

    let error = truncation_is_pending(position).at(&source.directories.db);
    if source.is_running() {
        return Err(error.hint("the node restarts to truncate its log; try again when it is back"));
    }
    Err(error
        .with_kind(Kind::Refused)
        .hint("start the node and stop it again: it truncates its log at the start"))
}

/// Refuses a source without its first chunks. They hold the first epoch, which tells whose log this
/// is.
fn refuse_missing_beginning(source: &Source<'_>, chunks: &ChunkSet) -> Result<()> {
    let missing = chunks.missing();
    let Some(gap) = missing.first().filter(|gap| gap.start().0 == 0) else {
        return Ok(());
    };

    let what = format!(
        "the log begins in chunk 0, and chunks 0 to {} are not here",
        gap.end()
    );
    Err(Error::new(Kind::Refused, what)
        .at(&source.directories.db)
        .hint("keep each chunk as a plain file there: kbackup does not follow links to other disks")
        .hint(
            "if the first chunks are only in an archive, take volume snapshots, or keep them on \
             the node for longer: kbackup cannot back up such a node yet",
        ))
}

fn lineage(
    files: &CountedSource<'_>,
    chunks: &ChunkSet,
    read: &ReadCheckpoints,
    known: &[Lineage],
    run: &Run,
) -> Result<Lineage> {
    let epoch = match read.epoch {
        Some(epoch) => Some(epoch),
        // A server without epoch.chk finds its last epoch like this, too (O12).
        None => log::last_epoch(&Paced::new(files, run), chunks, read.writer.0, run)?,
    };
    match epoch {
        Some(epoch) => log::lineage_after(files, chunks, epoch, known),
        None => Ok(Lineage::default()),
    }
}

fn identity(source: &Source<'_>, lineage: &Lineage) -> Result<Identity> {
    let Some(first) = lineage.first() else {
        let what = "the log has no epoch yet, so nothing tells whose log it is";
        return Err(Error::new(Kind::Refused, what)
            .at(&source.directories.db)
            .hint("start the node once, and let it become leader"));
    };
    Ok(Identity {
        database: first.id,
        endpoint: source.endpoint(),
    })
}

fn owner(source: &Source<'_>) -> Result<Option<Owner>> {
    let writer = Checkpoint::Writer.under(&source.directories.db);
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
