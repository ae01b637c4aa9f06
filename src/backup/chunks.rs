//! Steps D10 and D15–D17: the chunks. What is held already is known by its identity, never by its
//! name (O7); the active chunk costs what was appended.

use std::collections::HashSet;
use std::time::{Duration, SystemTime};

use super::capture::{
    Arrived, Capture, Mode, Records, Take, changed, not_as_stored, of_source, open,
};
use super::counted::Counted;
use crate::error::{Error, Kind, Result};
use crate::format::chunk::{self, ChunkFile};
use crate::format::names::ChunkName;
use crate::format::{ChunkNumber, ChunkSize, InContext, LogPosition, ReadAt, WriterPosition};
use crate::fs;
use crate::log::{ChunkSet, Inspected, LogFile, RecordFollower};
use crate::manifest::{ChunkRow, FileSet, RelativePath, Role, Row};
use crate::parallel;
use crate::repository::Repository;
use crate::transfer::{FILES_AT_ONCE, Follow, Follower};

/// Bytes before the parent's end of the log that have to be the same in the source, before the
/// parent's active chunk is built upon.
pub(super) const PREFIX_PROOF_BYTES: u64 = 64 * 1024;
/// Header and footer: what is read of each chunk that is looked at.
pub(super) const IDENTITY_BYTES: u64 = 256;

/// File systems keep times in ticks of no more than this; FAT's are the longest.
const LONGEST_TICK: Duration = Duration::from_secs(2);

/// What the operator allows.
#[derive(Debug, Clone, Copy)]
pub(super) struct Allowed {
    /// Chunks that fail their own MD5.
    pub(super) damaged: bool,
    /// Whether a server works on the directory: what is wrong may be right a moment later.
    pub(super) running: bool,
}

impl Allowed {
    /// What does not fit together: on a running node it may have been caught in mid-change.
    fn inconsistent(self, what: impl Into<String>) -> Error {
        changed(what).with_kind(if self.running {
            Kind::Unstable
        } else {
            Kind::SourceCorrupt
        })
    }
}

/// A chunk file of the source, open.
struct Chunk<'a> {
    path: &'a RelativePath,
    file: fs::File,
    state: ChunkFile,
    /// What identifies it.
    row: ChunkRow,
}

impl Chunk<'_> {
    fn size(&self) -> ChunkSize {
        self.state.header.chunk_size
    }

    fn start(&self) -> LogPosition {
        self.state.header.start_position()
    }

    /// Bytes of the file before a position of the log in it; the chunk is not scavenged.
    fn length_before(&self, position: LogPosition) -> u64 {
        chunk::HEADER_LENGTH + self.size().local(position)
    }
}

/// Copies every chunk that a server would use for the log up to `writer`, and says how much of the
/// log one number stands for.
///
/// # Errors
/// `Unstable` where the directory changed underfoot, `SourceCorrupt` where a chunk is missing or
/// bad at the source, `Refused` for encrypted chunks.
pub(super) fn copy(
    capture: &mut Capture<'_>,
    repository: &dyn Repository,
    writer: WriterPosition,
    allowed: Allowed,
) -> Result<ChunkSize> {
    let set = seen(capture)?;
    let chunk_size = set.chunk_size();
    let end = chunk_size.chunk_of(writer.0).ok_or_else(|| {
        Error::new(
            Kind::SourceCorrupt,
            format!("writer.chk is beyond every chunk: {writer}"),
        )
    })?;
    let held = held(
        capture,
        set.in_use().iter().filter(|found| found.end() < end),
    )?;
    let (mut next, mut fresh, mut grown) = (ChunkNumber(0), Vec::new(), Vec::new());
    for found in set.in_use() {
        let start = found.file.header.start;
        if start > end {
            // Created after the writer checkpoint was read (O16).
            break;
        }
        capture.run.check()?;
        if start != next {
            return Err(gap(capture, next, start, allowed));
        }
        next = found.end().next().unwrap_or(found.end());
        if held.contains(&found.path) {
            continue;
        }
        // What the parent has the beginning of costs the rest; all else is copied by several
        // threads.
        if found.end() >= end || capture.lent(&found.path).is_some() {
            grown.push(found)
        } else {
            fresh.push(found)
        }
    }
    copy_each(capture, &fresh, writer, allowed)?;
    for found in grown {
        let chunk = inspect(capture, found)?;
        if found.end() >= end {
            active(capture, repository, &chunk, writer, allowed)?;
        } else {
            completed(capture, repository, &chunk, writer, allowed)?;
        }
    }
    // A log that ends where a chunk ends needs no file for what follows.
    if next <= end && chunk_size.start_of(next) < writer.0 {
        return Err(allowed
            .inconsistent(format!(
                "chunk {next} is missing, and the log goes on to {writer}"
            ))
            .at(&capture.source.db));
    }
    Ok(chunk_size)
}

/// Copies completed chunks that nothing is held of, several at once: that fills the lanes of the
/// MD5, and keeps a disk busy that is far away.
fn copy_each(
    capture: &mut Capture<'_>,
    fresh: &[&LogFile],
    writer: WriterPosition,
    allowed: Allowed,
) -> Result<()> {
    for fresh in fresh.chunks(parallel::AT_ONCE) {
        let mut all = Vec::with_capacity(fresh.len());
        let taker = &*capture;
        let copied = parallel::for_each(
            FILES_AT_ONCE,
            fresh,
            |found| {
                taker.run.check()?;
                let chunk = inspect(taker, found)?;
                whole(taker, &chunk, writer, allowed)
            },
            |_, arrived| all.push(arrived),
        );
        // Also after a failure: the next attempt has what this one could copy.
        all.into_iter().for_each(|arrived| capture.enter(arrived));
        copied?;
    }
    Ok(())
}

/// The preflight has seen the first chunks.
fn gap(capture: &Capture<'_>, missing: ChunkNumber, found: ChunkNumber, allowed: Allowed) -> Error {
    allowed
        .inconsistent(format!(
            "chunk {missing} is missing, the next one there is {found}"
        ))
        .at(&capture.source.db)
        .hint("a chunk counts only as a plain file: links to other disks are not followed")
}

/// Opens a chunk, which has to be what the listing has shown.
fn inspect<'a>(capture: &Capture<'_>, found: &'a LogFile) -> Result<Chunk<'a>> {
    let path = &found.path;
    let file = open(capture.source, path)?;
    file.expect_pieces();
    let state = chunk::inspect(&file).in_source(file.path())?;
    if state.header.end != found.end() {
        return Err(changed("a chunk was replaced by another one").at(file.path()));
    }
    if state.header.transform != chunk::Transform::Identity {
        return Err(Error::new(
            Kind::Refused,
            "the chunk is encrypted, and kbackup cannot prove encrypted chunks yet",
        )
        .at(file.path())
        .hint("take volume snapshots of this node"));
    }
    let row = chunk_row(path, &state, &file)?;
    Ok(Chunk {
        path,
        file,
        state,
        row,
    })
}

/// The chunks of the source now. What was read by this run and has not changed since is not read
/// again.
fn seen(capture: &mut Capture<'_>) -> Result<ChunkSet> {
    let (source, known) = (
        Counted::new(capture.source),
        std::mem::take(&mut capture.seen),
    );
    let set = source
        .files()
        .and_then(|entries| ChunkSet::among(&source, entries, &known));
    capture.cost.bytes_read += source.bytes_read();
    set
}

/// What a look at the source that began at `moment` has shown of files that nobody had written to
/// shortly before.
pub(super) fn unchanged_since(set: ChunkSet, moment: SystemTime) -> Inspected {
    Inspected::of(
        set,
        moment
            .checked_sub(LONGEST_TICK)
            .unwrap_or(SystemTime::UNIX_EPOCH),
    )
}

/// Takes the completed chunks over of which the listing has shown that they are held already.
fn held<'s>(
    capture: &mut Capture<'_>,
    found: impl Iterator<Item = &'s LogFile>,
) -> Result<HashSet<RelativePath>> {
    let is_held = |found: &&LogFile| {
        let there = ChunkRow::of(&found.file, found.name.version);
        let same = |row: &Row| {
            there.md5.is_some() && row.chunk == Some(there) && row.size == found.file.length
        };
        capture.held(&found.path).is_some_and(same)
    };
    let paths: Vec<RelativePath> = found
        .filter(is_held)
        .map(|found| found.path.clone())
        .collect();
    let mut held = HashSet::with_capacity(paths.len());
    for paths in paths.chunks(parallel::AT_ONCE) {
        let kept = capture.keep_all(paths)?;
        held.extend(
            paths
                .iter()
                .zip(kept)
                .filter(|(_, kept)| *kept)
                .map(|(path, _)| path.clone()),
        );
    }
    Ok(held)
}

/// A chunk below the end of the log, of which the parent may have the beginning.
fn completed(
    capture: &mut Capture<'_>,
    repository: &dyn Repository,
    chunk: &Chunk<'_>,
    writer: WriterPosition,
    allowed: Allowed,
) -> Result<()> {
    let Chunk {
        path,
        file,
        state,
        row,
    } = chunk;
    if let Some((held, from)) = prefix(capture, repository, chunk)? {
        let take = Take {
            has_md5: true,
            chunk: Some(*row),
            ..Take::whole(Role::Chunk, file)
        };
        match extend(capture, chunk, held, from, &take, writer)? {
            Some(arrived) if arrived.md5 == state.footer().map(|footer| footer.md5) => {
                capture.enter(arrived);
                return Ok(());
            }
            // The stored part may be what is wrong: read it whole before anyone is told.
            Some(_) => capture.run.note(format!(
                "{path} does not fit to what is stored of it; reading it whole"
            )),
            None => {}
        }
    }
    let arrived = whole(capture, chunk, writer, allowed)?;
    capture.enter(arrived);
    Ok(())
}

/// All of a chunk below the end of the log.
fn whole(
    capture: &Capture<'_>,
    chunk: &Chunk<'_>,
    writer: WriterPosition,
    allowed: Allowed,
) -> Result<Arrived> {
    let Chunk {
        path,
        file,
        state,
        row,
    } = chunk;
    let Some(footer) = state.footer() else {
        return Err(Error::new(
            Kind::SourceCorrupt,
            "the chunk should be completed, but is not",
        )
        .at(file.path()));
    };
    let take = Take {
        has_md5: true,
        chunk: Some(*row),
        ..Take::whole(Role::Chunk, file)
    };
    if let Some(arrived) = capture.take_up(path, &take, footer.md5)? {
        let records = Some(Box::new(Records {
            from: chunk.start(),
            told: None,
        }));
        return Ok(Arrived {
            records,
            read: IDENTITY_BYTES,
            ..arrived
        });
    }
    let arrived = followed(capture, chunk, chunk.start(), writer, |follow| {
        capture.read(path, &take, follow)
    })?;
    if arrived.md5 == Some(footer.md5) {
        return Ok(arrived);
    }
    if allowed.damaged {
        capture.run.warn(format!(
            "{path} fails its own MD5; the backup is marked as damaged"
        ));
        return Ok(Arrived {
            records: None,
            damaged: true,
            ..arrived
        });
    }
    capture.incoming.remove(path)?;
    Err(Error::new(Kind::SourceCorrupt, "the chunk fails its own MD5")
        .at(file.path())
        .hint("the node has a damaged chunk: restore this member, or take the backup from another one")
        .hint("`--accept-damaged` keeps a backup all the same, marked as damaged"))
}

/// Looks at the records of a chunk while `copy` copies it.
fn followed(
    capture: &Capture<'_>,
    chunk: &Chunk<'_>,
    from: LogPosition,
    writer: WriterPosition,
    copy: impl FnOnce(Follower<'_>) -> Result<Arrived>,
) -> Result<Arrived> {
    let mut following = RecordFollower::new(&chunk.state, from, writer);
    let arrived = copy(
        following
            .as_mut()
            .map(|following| following as &mut dyn Follow),
    )?;
    let stored = capture.incoming.open(chunk.path)?;
    let told = following
        .zip(stored)
        .and_then(|(following, stored)| following.finish(&*stored));
    Ok(Arrived {
        records: Some(Box::new(Records { from, told })),
        read: arrived.read + IDENTITY_BYTES,
        ..arrived
    })
}

/// The chunk that the log ends in: bytes up to the writer checkpoint, and a hole behind them.
fn active(
    capture: &mut Capture<'_>,
    repository: &dyn Repository,
    chunk: &Chunk<'_>,
    writer: WriterPosition,
    allowed: Allowed,
) -> Result<()> {
    let Chunk {
        path,
        file,
        state,
        row,
    } = chunk;
    if state.header.scavenged || state.header.start != state.header.end {
        return Err(allowed
            .inconsistent("the chunk that the log ends in has been scavenged")
            .at(file.path()));
    }
    let take = Take {
        role: Role::Chunk,
        file,
        length: chunk.length_before(writer.0),
        full_length: full_length(chunk.size())?,
        has_md5: false,
        live: true,
        mode: Mode::Writable,
        chunk: Some(ChunkRow { md5: None, ..*row }),
    };
    let held = prefix(capture, repository, chunk)?.filter(|(_, from)| *from <= writer.0);
    if let Some((held, from)) = held
        && from == writer.0
        && capture
            .parent()
            .is_some_and(|parent| parent.log.read.writer == writer)
        && (held.chunk, held.size) == (take.chunk, take.full_length)
        && capture.keep(path)?
    {
        // Nothing was appended.
        capture.cost.bytes_read += IDENTITY_BYTES;
        return Ok(());
    }
    let extended = match held {
        Some((held, from)) => extend(capture, chunk, held, from, &take, writer)?,
        None => None,
    };
    let arrived = match extended {
        Some(arrived) => arrived,
        None => followed(capture, chunk, chunk.start(), writer, |follow| {
            capture.read(path, &take, follow)
        })?,
    };
    capture.enter(arrived);
    Ok(())
}

/// Builds on the parent's file, which holds the log before `from`; none where that is not what was
/// stored.
fn extend(
    capture: &mut Capture<'_>,
    chunk: &Chunk<'_>,
    held: &Row,
    from: LogPosition,
    take: &Take<'_>,
    writer: WriterPosition,
) -> Result<Option<Arrived>> {
    let (path, prefix) = (chunk.path, chunk.length_before(from));
    match followed(capture, chunk, from, writer, |follow| {
        capture.extend(path, held, prefix, take, follow)
    }) {
        Err(error) if error.kind() == Kind::StoredCorrupt => {
            capture.distrust(path, &error);
            Ok(None)
        }
        result => result.map(Some),
    }
}

/// The parent's active chunk, and where its log ended, if this is the same chunk and has only grown
/// since.
///
/// The branch is the same (the caller knows), so nothing before the parent's end was truncated; the
/// id says that it is the same file, and the last bytes before the end are compared.
fn prefix<'a>(
    capture: &mut Capture<'a>,
    repository: &dyn Repository,
    chunk: &Chunk<'_>,
) -> Result<Option<(&'a Row, LogPosition)>> {
    let Chunk {
        path, file, state, ..
    } = chunk;
    let (Some(parent), Some(held)) = (capture.parent(), capture.lent(path)) else {
        return Ok(None);
    };
    let end = parent.log.position.position();
    let same_file = held
        .chunk
        .is_some_and(|row| row.md5.is_none() && row.id == state.header.id)
        && !state.header.scavenged;
    if !same_file || chunk.size().chunk_of(end) != Some(state.header.start) {
        return Ok(None);
    }
    let length = chunk.length_before(end);
    if length > file.size() || length > held.size {
        return Ok(None);
    }
    let stored = repository.open(&parent.label, held);
    let agrees = match stored.and_then(|stored| same_tail(capture, &*stored, file, length)) {
        Err(error) if error.kind() == Kind::StoredCorrupt => {
            capture.distrust(path, &error);
            return Ok(None);
        }
        result => result?,
    };
    if !agrees && !capture.holds(repository.open(&parent.label, held)?, held)? {
        capture.distrust(path, &not_as_stored(path, "the BLAKE3 differs"));
    } else if !agrees {
        capture.run.note(format!(
            "{path} is not what it was at the last backup; reading it whole"
        ));
    }
    Ok(agrees.then_some((held, end)))
}

/// Whether the last bytes before `length` are the same in both files.
fn same_tail(
    capture: &mut Capture<'_>,
    stored: &dyn ReadAt,
    source: &fs::File,
    length: u64,
) -> Result<bool> {
    let proof = length.min(PREFIX_PROOF_BYTES);
    let size = usize::try_from(proof)
        .map_err(|error| Error::new(Kind::Failed, "a proof too large").because(error))?;
    let (mut ours, mut theirs) = (vec![0; size], vec![0; size]);
    source
        .read_exact_at(length - proof, &mut theirs)
        .map_err(of_source)?;
    capture.cost.bytes_read += proof;
    stored
        .read_exact_at(length - proof, &mut ours)
        .map_err(|error| Error::new(Kind::Failed, "cannot read a stored chunk").because(error))?;
    Ok(ours == theirs)
}

/// What identifies a chunk file.
fn chunk_row(path: &RelativePath, state: &ChunkFile, file: &fs::File) -> Result<ChunkRow> {
    let name: ChunkName = path.file_name().parse().map_err(|why| {
        Error::new(Kind::SourceCorrupt, "not a chunk's name")
            .at(file.path())
            .because(why)
    })?;
    Ok(ChunkRow::of(state, name.version))
}

/// Length of an active chunk's file.
pub(super) fn full_length(chunk_size: ChunkSize) -> Result<u64> {
    chunk::full_length(chunk_size, chunk::Transform::Identity)
        .ok_or_else(|| Error::new(Kind::SourceCorrupt, "the chunk size is beyond any server's"))
}
