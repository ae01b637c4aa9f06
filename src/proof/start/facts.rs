//! Reads a directory for what a start depends on. What cannot be read is a fact too.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::simulate::{
    CheckpointFact, ChunkFact, Damage, End, Facts, Hidden, IndexFact, MapFact, StreamFilterFact,
    TableFact, TableProblem,
};
use super::{IndexSummary, LogSummary};
use crate::error::{Kind, Result};
use crate::format::checkpoint::{self, Checkpoint};
use crate::format::chunk::{self, HEADER_LENGTH, Transform};
use crate::format::names::{DbFile, IndexFile, ScavengingFile};
use crate::format::record::Forwards;
use crate::format::{self, Boundary, ChunkSize, LogPosition, WriterPosition, duckdb, sqlite};
use crate::log::{
    ChunkSet, ListedChunk, LogFile, RawCheckpoint, lineage, listed_chunks, open_listed, read_small,
    with_place,
};
use crate::manifest::{FileEntry, FileSet, RelativePath, RestoreMark, RestoreState, Root};
use crate::proof::depth::Depth;
use crate::proof::finding::{Finding, Severity};
use crate::proof::index::{IndexFault, IndexProof, IndexScope, examine_index};
use crate::proof::log::{LogEnd, LogProof, LogStretch, ScanFailure, scan_or_damage};
use crate::proof::scavenge::foreign_scavenge;
use crate::run::Run;
use crate::server::{ServerLine, VersionFact, facts};
use crate::transfer::hash_file;

/// Bytes of a restore's mark that are read.
const LONGEST_MARK: u64 = 64 * 1024;

/// Everything that was found.
pub(super) struct Gathered {
    pub(super) facts: Facts,
    /// What concerns the files whichever server starts from them.
    pub(super) findings: Vec<Finding>,
    /// The oldest line that can have written these files.
    pub(super) oldest: ServerLine,
    pub(super) log: Option<LogSummary>,
    pub(super) index: Option<IndexSummary>,
}

pub(super) fn gather(files: &dyn FileSet, depth: Depth, run: &Run) -> Result<Gathered> {
    let entries = files.files()?;
    let mut gathering = Gathering {
        files,
        depth,
        run,
        findings: Vec::new(),
    };
    let checkpoints = gathering.checkpoints()?;
    let value = |which| {
        checkpoints
            .get(&which)
            .map_or(0, |fact: &CheckpointFact| fact.value)
    };
    let (writer, chaser, truncate) = (
        value(Checkpoint::Writer),
        value(Checkpoint::Chaser),
        value(Checkpoint::Truncate),
    );
    let mut chunks = gathering.chunks(&entries)?;
    let chunk_size = chunks
        .iter()
        .find_map(|fact| fact.file.as_ref().ok())
        .map(|file| file.header.chunk_size);
    if chunks.is_empty() {
        gathering.tell(
            Severity::Warning,
            "no-log",
            None,
            "there is no chunk: is this a server's db directory?",
        );
    }
    let set = readable(&chunks);
    let mut facts_log = Log::default();
    // A guard is no position in any log.
    let writer_position = LogPosition::from_signed(writer).filter(|_| writer < i64::MAX - 1);
    if let (Some(size), Some(set), Some(writer)) = (chunk_size, &set, writer_position) {
        gathering.note_records(&mut chunks, size, writer)?;
        facts_log.read(&mut gathering, set, writer, &[chaser, truncate])?;
        if depth > Depth::Quick {
            gathering.hash(&mut chunks, set, size, writer)?;
        }
        facts_log.bad_epoch =
            gathering.epoch(set, writer, value(Checkpoint::Epoch), &mut facts_log.epochs)?;
    }
    let index = gathering.index(set.as_ref(), writer_position.unwrap_or(LogPosition::ZERO))?;
    let bad_secondary_index = gathering.others(&entries)?;
    let foreign_scavenge = match (&set, writer_position) {
        (Some(set), Some(writer)) if depth > Depth::Quick => {
            gathering.scavenge_state(&entries, set, writer)?
        }
        _ => None,
    };
    let oldest = oldest(&entries, &chunks);
    let log = chunk_size.zip(set.as_ref()).map(|(size, set)| LogSummary {
        chunk_size: size.get(),
        chunks: set.in_use().len() as u64,
        writer,
        position: facts_log
            .proof
            .as_ref()
            .map(|proof| proof.boundary.position().get()),
        epochs: facts_log.epochs,
        last_event: facts_log
            .proof
            .as_ref()
            .and_then(|proof| proof.seen.last_event),
    });
    let summary = index.map.as_ref().map(|map| IndexSummary {
        tables: map.tables.len() as u64,
        commit: map.commit.map(LogPosition::get),
        entries_compared: index.entries,
    });
    let stream_filter = gathering.stream_filter(&index);
    let facts = Facts {
        checkpoints,
        chunk_size,
        chunks,
        ends: facts_log.ends,
        damage: facts_log.damage,
        bad_epoch: facts_log.bad_epoch,
        index: gathering.index_fact(index)?,
        stream_filter,
        foreign_scavenge,
        bad_secondary_index,
    };
    Ok(Gathered {
        facts,
        findings: gathering.findings,
        oldest,
        log,
        index: summary,
    })
}

/// The files of the log that can be read, as the newest servers use them.
fn readable(chunks: &[ChunkFact]) -> Option<ChunkSet> {
    let good = chunks.iter().filter_map(|fact| {
        let file = fact
            .file
            .as_ref()
            .ok()
            .filter(|file| file.header.start == fact.listed.name.start)?;
        let ListedChunk {
            path,
            name,
            mode,
            stamp,
        } = fact.listed.clone();
        Some(LogFile {
            path,
            name,
            mode,
            file: Arc::new(file.clone()),
            stamp,
        })
    });
    ChunkSet::of_readable(good.collect())
}

/// What the records of the log tell.
#[derive(Default)]
struct Log {
    ends: BTreeMap<LogPosition, End>,
    damage: Vec<Damage>,
    proof: Option<LogProof>,
    bad_epoch: Option<Damage>,
    epochs: Option<u64>,
}

impl Log {
    fn read(
        &mut self,
        gathering: &mut Gathering<'_>,
        set: &ChunkSet,
        writer: LogPosition,
        others: &[i64],
    ) -> Result<()> {
        if gathering.depth == Depth::Quick {
            return Ok(());
        }
        if let Some((end, proof)) = gathering.end_at(set, writer)? {
            self.ends.insert(writer, end);
            self.proof = proof;
        }
        for position in others
            .iter()
            .copied()
            .filter_map(LogPosition::from_signed)
            .filter(|position| *position < writer)
        {
            if !self.ends.contains_key(&position)
                && let Some((end, _)) = gathering.end_at(set, position)?
            {
                self.ends.insert(position, end);
            }
        }
        if gathering.depth == Depth::Deep {
            self.damage = gathering.all_records(set, writer)?;
        }
        Ok(())
    }
}

struct Gathering<'a> {
    files: &'a dyn FileSet,
    depth: Depth,
    run: &'a Run,
    findings: Vec<Finding>,
}

impl Gathering<'_> {
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

    fn place(&self, path: &RelativePath) -> String {
        self.files.place_of(path)
    }

    /// What a parser says; none for damage, which is the caller's to tell. What the storage reports
    /// is an error.
    fn judge<T>(
        &self,
        path: &RelativePath,
        parsed: format::Result<T>,
    ) -> Result<Result<T, String>> {
        match parsed {
            Ok(value) => Ok(Ok(value)),
            Err(format::Error::Malformed(why)) => Ok(Err(why.to_string())),
            Err(format::Error::Read(error))
                if error.kind() == std::io::ErrorKind::UnexpectedEof =>
            {
                Ok(Err("the file ends too early".to_owned()))
            }
            Err(error) => with_place(self.files, path, Err(error)),
        }
    }

    fn checkpoints(&mut self) -> Result<BTreeMap<Checkpoint, CheckpointFact>> {
        let mut facts = BTreeMap::new();
        for which in Checkpoint::ALL {
            let place = self.place(&RelativePath::checkpoint(which));
            let raw = RawCheckpoint::of_set(self.files, which)?;
            let (length, value) = (raw.length(), raw.as_read_by_server(which));
            if let Some(length) = length.filter(|length| *length != checkpoint::LENGTH as u64) {
                self.tell(
                    Severity::Error,
                    "checkpoint-length",
                    Some(place.clone()),
                    format!("it has {length} bytes instead of 8; a server takes it for {value}"),
                );
            }
            facts.insert(
                which,
                CheckpointFact {
                    place,
                    length,
                    value,
                },
            );
        }
        Ok(facts)
    }

    fn chunks(&mut self, entries: &[FileEntry]) -> Result<Vec<ChunkFact>> {
        let mut facts = Vec::new();
        let mut size: Option<ChunkSize> = None;
        for listed in listed_chunks(entries) {
            self.run.check()?;
            let place = self.place(&listed.path);
            let source = open_listed(self.files, &listed.path)?;
            let file = self.judge(&listed.path, chunk::inspect(&*source))?;
            if let Ok(file) = &file {
                self.header(&listed, &file.header, &place, &mut size);
            }
            facts.push(ChunkFact {
                listed,
                place,
                file,
                has_records: false,
                fails_md5: false,
            });
        }
        Ok(facts)
    }

    fn header(
        &mut self,
        listed: &ListedChunk,
        header: &chunk::Header,
        place: &str,
        size: &mut Option<ChunkSize>,
    ) {
        let first = *size.get_or_insert(header.chunk_size);
        if header.chunk_size != first {
            let what = format!(
                "its chunk size is {}, that of the first chunk {}",
                header.chunk_size.get(),
                first.get()
            );
            self.tell(
                Severity::Error,
                "chunk-size-differs",
                Some(place.to_owned()),
                what,
            );
        }
        if header.start != listed.name.start {
            let what = format!("its header says that it begins with chunk {}", header.start);
            self.tell(Severity::Error, "chunk-name", Some(place.to_owned()), what);
        }
        if header.transform != Transform::Identity
            && !self
                .findings
                .iter()
                .any(|finding| finding.code == "chunk-encrypted")
        {
            let what = "it is encrypted: its records cannot be proven, and the server needs the master key that it names";
            self.tell(
                Severity::Warning,
                "chunk-encrypted",
                Some(place.to_owned()),
                what,
            );
        }
    }

    /// Whether files beyond the writer's position hold anything.
    fn note_records(
        &mut self,
        chunks: &mut [ChunkFact],
        size: ChunkSize,
        writer: LogPosition,
    ) -> Result<()> {
        let last = size.chunk_of(writer);
        for fact in chunks
            .iter_mut()
            .filter(|fact| writer == LogPosition::ZERO || Some(fact.listed.name.start) > last)
        {
            let Ok(file) = &fact.file else { continue };
            let source = open_listed(self.files, &fact.listed.path)?;
            let capacity = file
                .header
                .end_position()
                .since(file.header.start_position());
            let data = HEADER_LENGTH..file.length.min(HEADER_LENGTH + capacity);
            let first = Forwards::new(&*source, &file.header, data)
                .and_then(|mut frames| frames.next().map(|frame| frame.is_some()));
            fact.has_records = matches!(first, Ok(true));
        }
        Ok(())
    }

    /// What a log that ended at `position` would end with; none where that cannot be read.
    fn end_at(
        &mut self,
        set: &ChunkSet,
        position: LogPosition,
    ) -> Result<Option<(End, Option<LogProof>)>> {
        let size = set.chunk_size();
        let inside = size.local(position) > 0;
        let current = if inside { set.holding(position) } else { None };
        let before = current.map_or(position, |file| file.file.header.start_position());
        let previous = before
            .get()
            .checked_sub(1)
            .and_then(LogPosition::new)
            .and_then(|before| set.holding(before));
        if (inside && current.is_none())
            || current
                .or(previous)
                .is_none_or(|file| file.file.header.transform != Transform::Identity)
        {
            return Ok(None);
        }
        // Only where the append that the chunk begins with began in the one before, that one is
        // needed.
        let attempts = [[current, None], [previous, current]];
        for attempt in attempts {
            let stretches: Vec<LogStretch> = attempt
                .into_iter()
                .flatten()
                .map(|file| LogStretch::new(file.path.clone(), file.file.header.start_position()))
                .collect();
            let Some(first) = attempt.into_iter().flatten().next() else {
                continue;
            };
            let begins = first.file.header.start_position();
            match scan_or_damage(
                self.files,
                set,
                &stretches,
                Boundary::ZERO,
                WriterPosition(position),
                self.run,
            ) {
                Ok(proof) => match proof.end {
                    LogEnd::Whole | LogEnd::Epoch => return Ok(Some((End::Whole, Some(proof)))),
                    LogEnd::HalfAppend(begin)
                        if begin >= begins || first.start().0 == 0 || attempt[0] == previous =>
                    {
                        return Ok(Some((End::HalfAppend(begin), Some(proof))));
                    }
                    LogEnd::HalfAppend(_) => {}
                },
                Err(ScanFailure::Torn(torn)) => {
                    let why = match torn.why {
                        format::Error::Malformed(why) => why.to_string(),
                        format::Error::Read(error) => {
                            return with_place(self.files, &torn.path, Err(error.into()));
                        }
                    };
                    return Ok(Some((
                        End::Damaged(Damage {
                            position: torn.position,
                            place: self.place(&torn.path),
                            why,
                        }),
                        None,
                    )));
                }
                Err(ScanFailure::Failed(error)) if error.kind() == Kind::Failed => return Ok(None),
                Err(ScanFailure::Failed(error)) => return Err(error),
            }
        }
        Ok(None)
    }

    /// Reads every record of the completed chunks before `writer`, and says where they are damaged.
    fn all_records(&mut self, set: &ChunkSet, writer: LogPosition) -> Result<Vec<Damage>> {
        let mut damage = Vec::new();
        for file in set.in_use() {
            let header = &file.file.header;
            if header.end_position() > writer
                || file.file.footer().is_none()
                || header.transform != Transform::Identity
            {
                continue;
            }
            let stretch = LogStretch::new(file.path.clone(), header.start_position());
            let end = WriterPosition(header.end_position());
            match scan_or_damage(self.files, set, &[stretch], Boundary::ZERO, end, self.run) {
                Ok(_) => {}
                Err(ScanFailure::Torn(torn)) => {
                    let why = torn.why.to_string();
                    damage.push(Damage {
                        position: torn.position,
                        place: self.place(&torn.path),
                        why,
                    });
                }
                Err(ScanFailure::Failed(error)) => return Err(error),
            }
        }
        Ok(damage)
    }

    /// The MD5s of the chunks that a server hashes: all completed ones before the writer's.
    fn hash(
        &mut self,
        chunks: &mut [ChunkFact],
        set: &ChunkSet,
        size: ChunkSize,
        writer: LogPosition,
    ) -> Result<()> {
        let last = size.chunk_of(writer);
        for fact in chunks.iter_mut() {
            self.run.check()?;
            let Some(footer) = fact.file.as_ref().ok().and_then(|file| file.footer()) else {
                continue;
            };
            let used = set
                .file(&fact.listed.path)
                .is_some_and(|file| Some(file.end()) < last);
            if used {
                let source = open_listed(self.files, &fact.listed.path)?;
                fact.fails_md5 = hash_file(&*source, true, self.run)?.md5 != Some(footer.md5);
            }
        }
        Ok(())
    }

    fn epoch(
        &mut self,
        set: &ChunkSet,
        writer: LogPosition,
        epoch: i64,
        count: &mut Option<u64>,
    ) -> Result<Option<Damage>> {
        let Some(position) = LogPosition::from_signed(epoch).filter(|position| *position <= writer)
        else {
            return Ok(None);
        };
        // That its chunk is missing, or encrypted, is told elsewhere.
        let Some(file) = set
            .holding(position)
            .filter(|file| file.file.header.transform == Transform::Identity)
        else {
            return Ok(None);
        };
        match lineage(self.files, set, position) {
            Ok(lineage) => {
                *count = Some(lineage.epochs().len() as u64);
                Ok(None)
            }
            Err(error) if error.kind() == Kind::SourceCorrupt => Ok(Some(Damage {
                position,
                place: self.place(&file.path),
                why: error.in_words(),
            })),
            Err(error) if error.kind() == Kind::Refused => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn index(&mut self, set: Option<&ChunkSet>, writer: LogPosition) -> Result<IndexProof> {
        let scope = IndexScope {
            chunks: set,
            writer: WriterPosition(writer),
            depth: self.depth,
            hash_tables: true,
        };
        examine_index(self.files, &scope, self.run)
    }

    fn index_fact(&mut self, proof: IndexProof) -> Result<IndexFact> {
        let place = self.place(&RelativePath::index_map());
        let mut fact = IndexFact {
            map: match proof.map {
                Some(map) => MapFact::Read {
                    place,
                    commit: map.commit,
                    merge_level: map.max_merge_level.filter(|level| *level < i32::MAX),
                },
                None => MapFact::Absent,
            },
            bad_tables: Vec::new(),
            hidden: proof.hidden.map(|hidden| Hidden {
                missing: hidden.missing,
                sampled: hidden.sampled,
                first: hidden.first,
                explained: hidden.explained,
            }),
        };
        for problem in proof.problems {
            let place = self.place(&problem.path);
            match problem.fault {
                IndexFault::Map => {
                    fact.map = MapFact::Damaged {
                        place,
                        why: problem.what,
                    }
                }
                IndexFault::TableMissing => fact.bad_tables.push(TableFact {
                    place,
                    why: TableProblem::Missing,
                }),
                IndexFault::TableDamaged => fact.bad_tables.push(TableFact {
                    place,
                    why: TableProblem::Damaged(problem.what),
                }),
                IndexFault::TableOld => fact.bad_tables.push(TableFact {
                    place,
                    why: TableProblem::Old,
                }),
                IndexFault::EntryWrong => self.tell(
                    Severity::Error,
                    "index-entry-wrong",
                    Some(place),
                    problem.what,
                ),
                IndexFault::TableFilter => {
                    let what = format!(
                        "{}; the server does without the filter, and is slower",
                        problem.what
                    );
                    self.tell(Severity::Warning, "table-filter-damaged", Some(place), what);
                }
                // Told as facts of their own.
                IndexFault::StreamFilter | IndexFault::StreamFilterIncomplete => {}
            }
        }
        if let Some(first) = proof.unlisted.first() {
            let what = format!(
                "{} files that indexmap does not name, from this one on; a server deletes them",
                proof.unlisted.len()
            );
            self.tell(
                Severity::Info,
                "index-unlisted",
                Some(self.place(first)),
                what,
            );
        }
        Ok(fact)
    }

    fn stream_filter(&self, proof: &IndexProof) -> StreamFilterFact {
        let problem = |fault| proof.problems.iter().find(|problem| problem.fault == fault);
        if let Some(problem) = problem(IndexFault::StreamFilterIncomplete) {
            return StreamFilterFact::Incomplete {
                place: self.place(&problem.path),
                why: problem.what.clone(),
            };
        }
        if let Some(problem) = problem(IndexFault::StreamFilter) {
            return StreamFilterFact::Damaged {
                place: self.place(&problem.path),
                why: problem.what.clone(),
            };
        }
        if proof.has_stream_filter {
            StreamFilterFact::Whole
        } else {
            StreamFilterFact::Absent
        }
    }

    /// A scavenge state that knows more than the log.
    fn scavenge_state(
        &self,
        entries: &[FileEntry],
        set: &ChunkSet,
        writer: LogPosition,
    ) -> Result<Option<(String, String)>> {
        for entry in entries
            .iter()
            .filter(|entry| entry.path.root() == Root::Index)
        {
            let file = IndexFile::of(entry.path.below_root());
            if matches!(
                file,
                IndexFile::Scavenging(ScavengingFile::Database | ScavengingFile::WriteAheadLog)
            ) && let Some(why) = foreign_scavenge(
                self.files,
                &entry.path,
                set,
                WriterPosition(writer),
                self.run,
            )? {
                return Ok(Some((self.place(&entry.path), why)));
            }
        }
        Ok(None)
    }

    /// What a restore by this program says of itself.
    fn restore_mark(&mut self, path: &RelativePath) -> Result<()> {
        let source = open_listed(self.files, path)?;
        let bytes = self
            .judge(path, read_small(&*source, LONGEST_MARK))?
            .unwrap_or_default();
        let (severity, what) = match serde_json::from_slice::<RestoreMark>(&bytes) {
            Ok(mark) if mark.state == RestoreState::InProgress => (
                Severity::Error,
                format!("the restore of {} did not come to its end", mark.label),
            ),
            Ok(mark) => (
                Severity::Info,
                format!("kbackup restored {} here", mark.label),
            ),
            Err(_) => (Severity::Info, "kbackup restored this directory".to_owned()),
        };
        let place = self.place(path);
        self.tell(severity, "restored", Some(place), what);
        Ok(())
    }

    /// Files beside log and index. Returns what is wrong with `kurrent.ddb`.
    fn others(&mut self, entries: &[FileEntry]) -> Result<Option<(String, String)>> {
        let mut bad = None;
        let mut leftovers: Vec<&RelativePath> = Vec::new();
        for entry in entries {
            let place = || self.files.place_of(&entry.path);
            match entry.path.root() {
                Root::Db => match DbFile::of(entry.path.below_root()) {
                    DbFile::SecondaryIndex => {
                        let source = open_listed(self.files, &entry.path)?;
                        let inspected = self.judge(&entry.path, duckdb::inspect(&*source))?;
                        bad = inspected.err().map(|why| (place(), why));
                    }
                    DbFile::Temporary => leftovers.push(&entry.path),
                    _ if entry.path.below_root() == RestoreMark::NAME => {
                        self.restore_mark(&entry.path)?
                    }
                    _ => {}
                },
                Root::Index => match IndexFile::of(entry.path.below_root()) {
                    IndexFile::Scavenging(ScavengingFile::Database) => {
                        let source = open_listed(self.files, &entry.path)?;
                        if let Err(why) = self.judge(&entry.path, sqlite::inspect(&*source))? {
                            let place = place();
                            self.tell(
                                Severity::Warning,
                                "scavenge-state-damaged",
                                Some(place),
                                why,
                            );
                        }
                    }
                    IndexFile::Scavenging(
                        ScavengingFile::WriteAheadLog | ScavengingFile::Journal,
                    ) if entry.size > 0 => {
                        let place = place();
                        self.tell(
                            Severity::Info,
                            "scavenge-state-open",
                            Some(place),
                            "scavenging.db was not closed: a scavenge ran, or runs",
                        );
                    }
                    IndexFile::IndexMapTemporary => leftovers.push(&entry.path),
                    IndexFile::ExperimentalV3
                        if !self.findings.iter().any(|finding| finding.code == "log-v3") =>
                    {
                        let place = place();
                        let what = format!(
                            "this is a database in the experimental log format V3, which only servers {} could be told to read",
                            facts::KNEW_LOG_V3
                        );
                        self.tell(Severity::Error, "log-v3", Some(place), what);
                    }
                    _ => {}
                },
            }
        }
        if let Some(first) = leftovers.first() {
            let what = format!(
                "{} temporary files, from this one on; a server deletes them",
                leftovers.len()
            );
            self.tell(Severity::Info, "leftovers", Some(self.place(first)), what);
        }
        Ok(bad)
    }
}

/// The oldest line that can have written these files (disk-format §8).
fn oldest(entries: &[FileEntry], chunks: &[ChunkFact]) -> ServerLine {
    let mut oldest = ServerLine::OLDEST;

    for entry in entries {
        if let Some(fact) = fact_shown_by(&entry.path) {
            oldest = oldest.max(ServerLine::first_with(fact));
        }
    }
    for chunk in chunks {
        let Ok(file) = &chunk.file else { continue };
        // A version-4 chunk that is not encrypted can be read by older servers, but not be written.
        if file.header.version > 3 {
            oldest = oldest.max(ServerLine::first_with(facts::READS_TRANSFORMED_CHUNKS));
        }
    }

    oldest
}

/// The fact that holds for every server which can have written the file of this name. Returns
/// `None` if every server writes such files.
fn fact_shown_by(path: &RelativePath) -> Option<VersionFact> {
    match path.root() {
        Root::Db => match DbFile::of(path.below_root()) {
            DbFile::SecondaryIndex => Some(facts::HAS_SECONDARY_INDEX),
            _ => None,
        },
        Root::Index => match IndexFile::of(path.below_root()) {
            IndexFile::BloomFilter(_)
            | IndexFile::StreamFilterCheckpoint
            | IndexFile::StreamFilterData => Some(facts::HAS_FILTERS),
            IndexFile::Scavenging(_) => Some(facts::HAS_SCAVENGE_STATE),
            _ => None,
        },
    }
}
