//! Reads everything in a directory that a start depends on. If something cannot be read, that is a
//! fact too.

mod beside;
mod checkpoints;
mod chunks;
mod index;
mod log;
mod oldest;
mod twins;

use self::chunks::readable_chunks;
use self::log::LogFacts;
use self::oldest::oldest_writer;
use super::examination::{IndexSummary, LogSummary};
use super::facts::DirectoryFacts;
use crate::error::Result;
use crate::format::checkpoint::Checkpoint;
use crate::format::{self, ChunkSize, LogPosition};
use crate::log::ChunkSet;
use crate::manifest::{FileSet, RelativePath};
use crate::proof::depth::Depth;
use crate::proof::finding::{Finding, Severity};
use crate::proof::index::IndexProof;
use crate::proof::judge::judge;
use crate::run::Run;
use crate::server::ServerLine;

/// Everything that was found.
pub(super) struct Gathered {
    pub(super) facts: DirectoryFacts,
    /// Findings that hold for every server version.
    pub(super) findings: Vec<Finding>,
    /// The oldest line that can have written these files.
    pub(super) oldest: ServerLine,
    pub(super) log: Option<LogSummary>,
    pub(super) index: Option<IndexSummary>,
}

/// Reads as much of the directory as `depth` asks for.
pub(super) fn gather(files: &dyn FileSet, depth: Depth, run: &Run) -> Result<Gathered> {
    let entries = files.files()?;
    let mut gathering = Gathering {
        files,
        depth,
        run,
        findings: Vec::new(),
    };

    let checkpoints = gathering.checkpoints()?;
    let value = |which: Checkpoint| checkpoints.get(&which).map_or(0, |fact| fact.value);
    let writer = value(Checkpoint::Writer);

    let mut chunks = gathering.chunks(&entries)?;
    let chunk_size = chunks
        .iter()
        .find_map(|fact| Some(fact.file.as_ref().ok()?.header.chunk_size));
    let set = readable_chunks(&chunks);

    // The start guard of a restore is not a position in any log.
    let is_guard = writer >= i64::MAX - 1;
    let writer_position = LogPosition::from_signed(writer).filter(|_| !is_guard);

    let mut log = LogFacts::default();
    let mut foreign_scavenge = None;
    if let (Some(size), Some(set), Some(writer)) = (chunk_size, &set, writer_position) {
        gathering.note_records(&mut chunks, size, writer)?;

        // A start also depends on whether the log could end at these positions.
        let other_ends = [value(Checkpoint::Chaser), value(Checkpoint::Truncate)];
        log.read(&mut gathering, set, writer, &other_ends)?;

        if depth > Depth::Quick {
            gathering.hash(&mut chunks, set, size, writer)?;
            foreign_scavenge = gathering.foreign_scavenge(&entries, set, writer)?;
        }

        log.read_epochs(&mut gathering, set, writer, value(Checkpoint::Epoch))?;
    }

    let index = gathering.examine_index(set.as_ref(), writer_position)?;
    let bad_secondary_index = gathering.files_beside(&entries)?;
    gathering.twins(&entries);

    Ok(Gathered {
        oldest: oldest_writer(&entries, &chunks),
        log: log_summary(chunk_size, set.as_ref(), writer, &log),
        index: index_summary(&index),
        facts: DirectoryFacts {
            checkpoints,
            chunk_size,
            chunks,
            ends: log.ends,
            damage: log.damage,
            bad_epoch: log.bad_epoch,
            stream_filter: gathering.stream_filter(&index),
            index: gathering.index_fact(index),
            foreign_scavenge,
            bad_secondary_index,
        },
        findings: gathering.findings,
    })
}

fn log_summary(
    size: Option<ChunkSize>,
    set: Option<&ChunkSet>,
    writer: i64,
    log: &LogFacts,
) -> Option<LogSummary> {
    let proof = log.proof.as_ref();
    Some(LogSummary {
        chunk_size: size?.get(),
        chunks: set?.in_use().len() as u64,
        writer,
        position: proof.map(|proof| proof.boundary.position().get()),
        epochs: log.epochs,
        last_event: proof.and_then(|proof| proof.seen.last_event),
    })
}

fn index_summary(index: &IndexProof) -> Option<IndexSummary> {
    let map = index.map.as_ref()?;
    Some(IndexSummary {
        tables: map.tables.len() as u64,
        commit: map.commit.map(LogPosition::get),
        entries_compared: index.entries,
    })
}

/// A directory that is being read, and what was found in it so far.
struct Gathering<'a> {
    files: &'a dyn FileSet,
    depth: Depth,
    run: &'a Run,
    findings: Vec<Finding>,
}

impl Gathering<'_> {
    /// Notes something that concerns every server.
    fn tell(
        &mut self,
        severity: Severity,
        code: &'static str,
        file: Option<String>,
        what: impl Into<String>,
    ) {
        self.findings.push(Finding {
            severity,
            code,
            file,
            what: what.into(),
            consequences: Vec::new(),
            evidence: None,
            hint: None,
        });
    }

    fn has_told(&self, code: &str) -> bool {
        self.findings.iter().any(|finding| finding.code == code)
    }

    /// The file, as an operator would name it.
    fn place(&self, path: &RelativePath) -> String {
        self.files.place_of(path)
    }

    /// Separates damage from errors of the storage. The inner result is the parser's: damage is a
    /// fact.
    fn judge<T>(
        &self,
        path: &RelativePath,
        parsed: format::Result<T>,
    ) -> Result<Result<T, String>> {
        judge(self.files, path, parsed)
    }
}
