//! Steps D10 and D15–D17: the chunks. What is held already is known by its identity, never by its name (O7); the active chunk costs what was appended.

use super::capture::{Capture, Mode, Take, changed, of_source, open};
use super::counted::Counted;
use crate::error::{Error, Kind, Result};
use crate::format::chunk::{self, ChunkFile};
use crate::format::names::ChunkName;
use crate::format::{ChunkNumber, ChunkSize, InContext, LogPosition, ReadAt, WriterPosition};
use crate::fs;
use crate::manifest::{ChunkRow, RelativePath, Role, Row};
use crate::proof::{ChunkSet, LogFile};
use crate::repository::{Repository, Stored};

/// Bytes before the parent's end of the log that have to be the same in the source, before the parent's active chunk is built upon.
pub(super) const PREFIX_PROOF_BYTES: u64 = 64 * 1024;
/// Header and footer: what is read of each chunk that is looked at.
pub(super) const IDENTITY_BYTES: u64 = 256;

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
        changed(what).with_kind(if self.running { Kind::Unstable } else { Kind::SourceCorrupt })
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

/// Copies every chunk that a server would use for the log up to `writer`, and says how much of the log one number stands for.
///
/// # Errors
/// `Unstable` where the directory changed underfoot, `SourceCorrupt` where a chunk is missing or bad at the source, `Refused` for encrypted chunks.
pub(super) fn copy(capture: &mut Capture<'_>, repository: &dyn Repository, writer: WriterPosition, allowed: Allowed) -> Result<ChunkSize> {
    let source = Counted::new(capture.source);
    let set = ChunkSet::read(&source);
    capture.cost.bytes_read += source.bytes_read();
    let set = set?;
    let chunk_size = set.chunk_size();
    let end = chunk_size
        .chunk_of(writer.0)
        .ok_or_else(|| Error::new(Kind::SourceCorrupt, format!("writer.chk is beyond every chunk: {writer}")))?;
    let mut next = ChunkNumber(0);
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
        if found.end() < end && held(capture, found)? {
            next = found.end().next().unwrap_or(found.end());
            continue;
        }
        let chunk = inspect(capture, &found.path)?;
        let last = chunk.state.header.end;
        next = last.next().unwrap_or(last);
        if last >= end { active(capture, repository, &chunk, writer, allowed)? } else { completed(capture, repository, &chunk, allowed)? }
    }
    // A log that ends where a chunk ends needs no file for what follows.
    if next <= end && chunk_size.start_of(next) < writer.0 {
        return Err(allowed.inconsistent(format!("chunk {next} is missing, and the log goes on to {writer}")).at(&capture.source.db));
    }
    Ok(chunk_size)
}

/// The preflight has seen the first chunks.
fn gap(capture: &Capture<'_>, missing: ChunkNumber, found: ChunkNumber, allowed: Allowed) -> Error {
    allowed
        .inconsistent(format!("chunk {missing} is missing, the next one there is {found}"))
        .at(&capture.source.db)
        .hint("a chunk counts only as a plain file: links to other disks are not followed")
}

fn inspect<'a>(capture: &mut Capture<'_>, path: &'a RelativePath) -> Result<Chunk<'a>> {
    let file = open(capture.source, path)?;
    let state = chunk::inspect(&file).in_source(file.path())?;
    capture.cost.bytes_read += IDENTITY_BYTES;
    if state.header.transform != chunk::Transform::Identity {
        return Err(Error::new(Kind::Refused, "the chunk is encrypted, and kbackup cannot prove encrypted chunks yet")
            .at(file.path())
            .hint("take volume snapshots of this node"));
    }
    let row = chunk_row(path, &state, &file)?;
    Ok(Chunk { path, file, state, row })
}

/// Takes a completed chunk over where the listing has shown that it is held already.
fn held(capture: &mut Capture<'_>, found: &LogFile) -> Result<bool> {
    let there = ChunkRow::of(&found.file, found.name.version);
    let same = |row: &Row| there.md5.is_some() && row.chunk == Some(there) && row.size == found.file.length;
    let held = capture.held(&found.path).is_some_and(same);
    Ok(held && capture.keep(&found.path)?)
}

/// A chunk below the end of the log.
fn completed(capture: &mut Capture<'_>, repository: &dyn Repository, chunk: &Chunk<'_>, allowed: Allowed) -> Result<()> {
    let Chunk { path, file, state, row } = chunk;
    let Some(footer) = state.footer() else {
        return Err(Error::new(Kind::SourceCorrupt, "the chunk should be completed, but is not").at(file.path()));
    };
    let take = Take { has_md5: true, chunk: Some(*row), ..Take::whole(Role::Chunk, file) };
    if capture.take_up(path, &take, footer.md5)? {
        capture.parse_from(path, chunk.start());
        return Ok(());
    }
    if let Some((held, from)) = prefix(capture, repository, chunk)? {
        match extend(capture, path, held, chunk.length_before(from), &take)? {
            Some(stored) if stored.md5 == Some(footer.md5) => {
                capture.parse_from(path, from);
                return Ok(());
            }
            // The stored part may be what is wrong: read it whole before anyone is told.
            Some(_) => capture.run.note(format!("{path} does not fit to what is stored of it; reading it whole")),
            None => {}
        }
    }
    let stored = capture.take(path, &take)?;
    if stored.md5 == Some(footer.md5) {
        capture.parse_from(path, chunk.start());
        return Ok(());
    }
    if allowed.damaged {
        capture.run.warn(format!("{path} fails its own MD5; the backup is marked as damaged"));
        capture.mark_damaged(path);
        return Ok(());
    }
    capture.forget(path)?;
    Err(Error::new(Kind::SourceCorrupt, "the chunk fails its own MD5")
        .at(file.path())
        .hint("the node has a damaged chunk: restore this member, or take the backup from another one")
        .hint("`--accept-damaged` keeps a backup all the same, marked as damaged"))
}

/// The chunk that the log ends in: bytes up to the writer checkpoint, and a hole behind them.
fn active(
    capture: &mut Capture<'_>,
    repository: &dyn Repository,
    chunk: &Chunk<'_>,
    writer: WriterPosition,
    allowed: Allowed,
) -> Result<()> {
    let Chunk { path, file, state, row } = chunk;
    if state.header.scavenged || state.header.start != state.header.end {
        return Err(allowed.inconsistent("the chunk that the log ends in has been scavenged").at(file.path()));
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
        && extend(capture, path, held, chunk.length_before(from), &take)?.is_some()
    {
        capture.parse_from(path, from);
        return Ok(());
    }
    capture.take(path, &take)?;
    capture.parse_from(path, chunk.start());
    Ok(())
}

/// Builds on the parent's file; none where that is not what was stored.
fn extend(capture: &mut Capture<'_>, path: &RelativePath, held: &Row, prefix: u64, take: &Take<'_>) -> Result<Option<Stored>> {
    match capture.extend(path, held, prefix, take) {
        Err(error) if error.kind() == Kind::StoredCorrupt => {
            capture.distrust(path, &error);
            Ok(None)
        }
        result => result.map(Some),
    }
}

/// The parent's active chunk, and where its log ended, if this is the same chunk and has only grown since.
///
/// The branch is the same (the caller knows), so nothing before the parent's end was truncated; the id says that it is the same file, and the last
/// bytes before the end are compared.
fn prefix<'a>(capture: &mut Capture<'a>, repository: &dyn Repository, chunk: &Chunk<'_>) -> Result<Option<(&'a Row, LogPosition)>> {
    let Chunk { path, file, state, .. } = chunk;
    let (Some(parent), Some(held)) = (capture.parent(), capture.lent(path)) else { return Ok(None) };
    let end = parent.log.position.position();
    let same_file = held.chunk.is_some_and(|row| row.md5.is_none() && row.id == state.header.id) && !state.header.scavenged;
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
    if !agrees {
        capture.run.note(format!("{path} is not what it was at the last backup; reading it whole"));
    }
    Ok(agrees.then_some((held, end)))
}

/// Whether the last bytes before `length` are the same in both files.
fn same_tail(capture: &mut Capture<'_>, stored: &dyn ReadAt, source: &fs::File, length: u64) -> Result<bool> {
    let proof = length.min(PREFIX_PROOF_BYTES);
    let size = usize::try_from(proof).map_err(|error| Error::new(Kind::Failed, "a proof too large").because(error))?;
    let (mut ours, mut theirs) = (vec![0; size], vec![0; size]);
    source.read_exact_at(length - proof, &mut theirs).map_err(of_source)?;
    capture.cost.bytes_read += proof;
    stored
        .read_exact_at(length - proof, &mut ours)
        .map_err(|error| Error::new(Kind::Failed, "cannot read a stored chunk").because(error))?;
    Ok(ours == theirs)
}

/// What identifies a chunk file.
fn chunk_row(path: &RelativePath, state: &ChunkFile, file: &fs::File) -> Result<ChunkRow> {
    let name: ChunkName =
        path.file_name().parse().map_err(|why| Error::new(Kind::SourceCorrupt, "not a chunk's name").at(file.path()).because(why))?;
    Ok(ChunkRow::of(state, name.version))
}

/// Length of an active chunk's file.
pub(super) fn full_length(chunk_size: ChunkSize) -> Result<u64> {
    chunk::full_length(chunk_size, chunk::Transform::Identity)
        .ok_or_else(|| Error::new(Kind::SourceCorrupt, "the chunk size is beyond any server's"))
}
