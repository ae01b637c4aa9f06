//! The index: the tables that `indexmap` names, their filters, and whether they fit the log
//! (disk-format §5).

use std::collections::HashSet;

use serde::{Deserialize, Serialize};

use super::stream_filter::StreamFilter;
use crate::error::Result;
use crate::format::bloom;
use crate::format::chunk::Transform;
use crate::format::hash::stream_hash;
use crate::format::indexmap::IndexMap;
use crate::format::names::{IndexFile, TableId};
use crate::format::ptable::{Entry, Table, TableVersion};
use crate::format::record::{Backwards, Flags, Forwards, Prepare, Record};
use crate::format::{self, LogPosition, ReadAt, WriterPosition, checkpoint};
use crate::log::{ChunkSet, LogFile, lookup, open_listed, read_small, with_place};
use crate::manifest::{FileSet, RelativePath, Root};
use crate::run::Run;

/// Entries that are looked up in the log unless all are.
const LATEST: usize = 1000;
/// Entries that are looked up at once, in the order of the log.
const BATCH: usize = 100_000;
/// Events of the log that are looked up in the index.
const SAMPLES: usize = 1000;
/// Events that are taken from the beginning of one chunk.
const SAMPLES_OF_CHUNK: usize = 16;

/// How much is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Depth {
    /// Structure and sizes: headers, footers, checkpoints, `indexmap`.
    Quick,
    /// Also every checksum, the records of the chunk that the log ends in, the order of the tables,
    /// and their last 1 000 entries against the log.
    Normal,
    /// Also every record, and every entry against the log.
    Deep,
}

/// What is wrong with a file of the index.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum IndexFault {
    /// `indexmap` cannot be read.
    Map,
    /// A table that it names is not there.
    TableMissing,
    /// A table is not what the server wrote.
    TableDamaged,
    /// A table has format version 1, which servers from 24.10 on refuse.
    TableOld,
    /// A table says something else than the log.
    EntryWrong,
    /// A table's filter is damaged: the server does without it.
    TableFilter,
    /// The stream-existence filter is damaged: the server builds it anew.
    StreamFilter,
    /// The stream-existence filter lacks streams: a server takes them for new ones.
    StreamFilterIncomplete,
}

/// Something wrong with the index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IndexProblem {
    /// Which file.
    pub path: RelativePath,
    /// What kind of fault.
    pub fault: IndexFault,
    /// What was found.
    pub what: String,
}

/// Events that the log holds and the index does not (O39).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HiddenEvents {
    /// How many of the events looked up are not in the index.
    pub missing: u64,
    /// How many events were looked up.
    pub sampled: u64,
    /// Where the first of them stands.
    pub first: LogPosition,
    /// A scavenge with a threshold came after all of them: it takes events out of the index and
    /// leaves them in their chunks.
    pub explained: bool,
}

/// What was found of an index.
#[derive(Debug, Clone, Default)]
pub struct IndexProof {
    /// The list of tables, where there is one that can be read.
    pub map: Option<IndexMap>,
    /// There is a file `indexmap`.
    pub has_map: bool,
    /// All that is wrong.
    pub problems: Vec<IndexProblem>,
    /// Files named like tables, or like filters of tables, that `indexmap` does not name. A server
    /// deletes them; a copy that holds some was made by name (O2).
    pub unlisted: Vec<RelativePath>,
    /// There is a stream-existence filter.
    pub has_stream_filter: bool,
    /// Entries that were compared with the log.
    pub entries: u64,
    /// Entries whose record a scavenge has removed.
    pub dangling: u64,
    /// Events of the log that the index lacks.
    pub hidden: Option<HiddenEvents>,
}

impl IndexProof {
    /// The problems for which a server sets the whole index aside (disk-format §5.4).
    pub fn fatal(&self) -> impl Iterator<Item = &IndexProblem> {
        self.problems.iter().filter(|problem| {
            matches!(
                problem.fault,
                IndexFault::Map | IndexFault::TableMissing | IndexFault::TableDamaged
            )
        })
    }
}

/// What to look at.
#[derive(Debug, Clone, Copy)]
pub struct IndexScope<'a> {
    /// The log, where it can be read: entries are compared with it.
    pub chunks: Option<&'a ChunkSet>,
    /// Where the log ends.
    pub writer: WriterPosition,
    /// How much is read.
    pub depth: Depth,
    /// Compute the tables' MD5s; false where the caller has done so.
    pub hash_tables: bool,
}

/// Examines the index of a set of files. What is wrong with them is in the result.
///
/// # Errors
/// What the storage reports, and an interruption.
pub fn examine_index(files: &dyn FileSet, scope: &IndexScope<'_>, run: &Run) -> Result<IndexProof> {
    let mut proof = IndexProof::default();
    let map = read_map(files, &mut proof)?;
    let listed: HashSet<TableId> = map
        .iter()
        .flat_map(|map| &map.tables)
        .map(|row| row.table)
        .collect();
    for entry in files
        .files()?
        .into_iter()
        .filter(|entry| entry.path.root() == Root::Index)
    {
        match IndexFile::of(entry.path.below_root()) {
            IndexFile::Table(table) | IndexFile::BloomFilter(table) if !listed.contains(&table) => {
                proof.unlisted.push(entry.path)
            }
            IndexFile::StreamFilterData => proof.has_stream_filter = true,
            _ => {}
        }
    }
    let mut tables = Vec::new();
    if let Some(map) = &map {
        for row in &map.tables {
            run.check()?;
            tables.extend(table(files, row.table, scope, &mut proof)?);
        }
    }
    let stream_filter = stream_filter(files, scope, &mut proof)?;
    if let Some(chunks) = scope.chunks.filter(|_| scope.depth > Depth::Quick) {
        if let Some(filter) = &stream_filter {
            proof
                .problems
                .extend(filter.lacks_any(files, chunks, scope.writer, run)?);
        }
        let ahead = map
            .as_ref()
            .and_then(|map| map.commit)
            .is_some_and(|commit| commit >= scope.writer.0);
        let stream_filter = stream_filter
            .as_ref()
            .filter(|_| scope.depth == Depth::Deep);
        let mut reader = EntryReader {
            files,
            chunks,
            writer: scope.writer,
            ahead,
            stream_filter,
            run,
            proof: &mut proof,
        };
        if scope.depth == Depth::Deep {
            reader.all(&tables)?;
        } else {
            reader.latest(&tables)?;
        }
        // Whether events are missing can be told of a whole index only.
        if proof.fatal().next().is_none()
            && let Some(commit) = map.as_ref().and_then(|map| map.commit)
        {
            proof.hidden = hidden_events(files, chunks, &tables, commit.min(scope.writer.0), run)?;
        }
    }
    proof.map = map;
    Ok(proof)
}

/// Puts a parser's complaint among the problems; what the storage reports stays an error.
fn judge<T>(
    proof: &mut IndexProof,
    files: &dyn FileSet,
    path: &RelativePath,
    fault: IndexFault,
    parsed: format::Result<T>,
) -> Result<Option<T>> {
    match parsed {
        Ok(value) => Ok(Some(value)),
        Err(format::Error::Malformed(why)) => {
            proof.problems.push(IndexProblem {
                path: path.clone(),
                fault,
                what: why.to_string(),
            });
            Ok(None)
        }
        Err(format::Error::Read(error)) if error.kind() == std::io::ErrorKind::UnexpectedEof => {
            proof.problems.push(IndexProblem {
                path: path.clone(),
                fault,
                what: "the file ends too early".to_owned(),
            });
            Ok(None)
        }
        Err(error) => with_place(files, path, Err(error)),
    }
}

fn read_map(files: &dyn FileSet, proof: &mut IndexProof) -> Result<Option<IndexMap>> {
    let path = RelativePath::index_map();
    let Some(source) = files.open(&path)? else {
        return Ok(None);
    };
    proof.has_map = true;
    let parsed =
        read_small(&*source, IndexMap::MAXIMUM_SIZE).and_then(|bytes| IndexMap::parse(&bytes));
    judge(proof, files, &path, IndexFault::Map, parsed)
}

/// A table that is good enough to be asked.
struct Listed {
    path: RelativePath,
    version: TableVersion,
    /// Its entries that lie furthest on in the log; only where nothing deeper is looked at.
    latest: Vec<Entry>,
}

fn table(
    files: &dyn FileSet,
    table: TableId,
    scope: &IndexScope<'_>,
    proof: &mut IndexProof,
) -> Result<Option<Listed>> {
    let path = RelativePath::table(table);
    let Some(source) = files.open(&path)? else {
        let what = "indexmap names this table, and it is missing".to_owned();
        proof.problems.push(IndexProblem {
            path,
            fault: IndexFault::TableMissing,
            what,
        });
        return Ok(None);
    };
    let Some(opened) = judge(
        proof,
        files,
        &path,
        IndexFault::TableDamaged,
        Table::open(&*source),
    )?
    else {
        return Ok(None);
    };
    let version = opened.layout().version;
    if version == TableVersion::V1 {
        let what = "it has format version 1".to_owned();
        proof.problems.push(IndexProblem {
            path: path.clone(),
            fault: IndexFault::TableOld,
            what,
        });
    }
    let mut latest = Vec::new();
    if scope.depth > Depth::Quick {
        if scope.hash_tables
            && judge(
                proof,
                files,
                &path,
                IndexFault::TableDamaged,
                opened.check_md5(),
            )?
            .is_none()
        {
            return Ok(None);
        }
        // One pass over the entries does for both.
        let count = if scope.depth == Depth::Normal && scope.chunks.is_some() {
            LATEST
        } else {
            0
        };
        match judge(
            proof,
            files,
            &path,
            IndexFault::TableDamaged,
            opened.latest(count),
        )? {
            Some(entries) => latest = entries,
            None => return Ok(None),
        }
    }
    table_filter(files, table, scope, proof)?;
    Ok(Some(Listed {
        path,
        version,
        latest,
    }))
}

fn table_filter(
    files: &dyn FileSet,
    table: TableId,
    scope: &IndexScope<'_>,
    proof: &mut IndexProof,
) -> Result<()> {
    let path = RelativePath::table_filter(table);
    // Servers before 21.10 write none.
    let Some(source) = files.open(&path)? else {
        return Ok(());
    };
    check_filter(
        files,
        &path,
        &*source,
        IndexFault::TableFilter,
        scope.depth,
        proof,
    )?;
    Ok(())
}

/// False where the filter is damaged.
fn check_filter(
    files: &dyn FileSet,
    path: &RelativePath,
    source: &dyn ReadAt,
    fault: IndexFault,
    depth: Depth,
    proof: &mut IndexProof,
) -> Result<bool> {
    let Some(filter) = judge(proof, files, path, fault, bloom::inspect(source))? else {
        return Ok(false);
    };
    if depth == Depth::Quick {
        return Ok(true);
    }
    let Some(lines) = judge(proof, files, path, fault, filter.check_lines())? else {
        return Ok(false);
    };
    if !lines.accepted() {
        let what = format!("more than 5 % of its {} lines are damaged", lines.total);
        proof.problems.push(IndexProblem {
            path: path.clone(),
            fault,
            what,
        });
    }
    Ok(lines.accepted())
}

fn stream_filter(
    files: &dyn FileSet,
    scope: &IndexScope<'_>,
    proof: &mut IndexProof,
) -> Result<Option<StreamFilter>> {
    let data = RelativePath::stream_filter();
    let checkpoint = RelativePath::stream_filter_checkpoint();
    let Some(source) = files.open(&data)? else {
        return Ok(None);
    };
    if !check_filter(
        files,
        &data,
        &*source,
        IndexFault::StreamFilter,
        scope.depth,
        proof,
    )? {
        return Ok(None);
    }
    let Some(position) = files.open(&checkpoint)? else {
        return Ok(None);
    };
    let parsed = read_small(&*position, 64).and_then(|bytes| checkpoint::position(&bytes));
    let position = judge(proof, files, &checkpoint, IndexFault::StreamFilter, parsed)?;
    Ok(position.flatten().map(|complete_to| StreamFilter {
        path: data,
        source,
        complete_to,
    }))
}

/// Compares entries with the log.
struct EntryReader<'a> {
    files: &'a dyn FileSet,
    chunks: &'a ChunkSet,
    writer: WriterPosition,
    /// The whole index reaches beyond the log: which of its entries do need not be told.
    ahead: bool,
    /// Asked for the stream of each entry.
    stream_filter: Option<&'a StreamFilter>,
    run: &'a Run,
    proof: &'a mut IndexProof,
}

/// An entry and the table it stands in.
type Sourced<'t> = (Entry, &'t Listed);

impl EntryReader<'_> {
    fn latest(&mut self, tables: &[Listed]) -> Result<()> {
        let mut latest: Vec<Sourced<'_>> = Vec::new();
        for table in tables {
            latest.extend(table.latest.iter().map(|entry| (*entry, table)));
            latest.sort_by_key(|(entry, _)| std::cmp::Reverse(entry.position));
            latest.truncate(LATEST);
        }
        self.compare(latest)
    }

    fn all(&mut self, tables: &[Listed]) -> Result<()> {
        for table in tables {
            let source = open_listed(self.files, &table.path)?;
            let opened = with_place(self.files, &table.path, Table::open(&*source))?;
            let mut entries = opened.entries();
            loop {
                let batch: format::Result<Vec<Entry>> = entries.by_ref().take(BATCH).collect();
                let batch = with_place(self.files, &table.path, batch)?;
                if batch.is_empty() {
                    break;
                }
                self.compare(batch.into_iter().map(|entry| (entry, table)).collect())?;
            }
        }
        Ok(())
    }

    /// Looks entries up in the order of the log, so that each chunk is opened once.
    fn compare(&mut self, mut entries: Vec<Sourced<'_>>) -> Result<()> {
        entries.sort_by_key(|(entry, _)| entry.position);
        let mut rest = entries.as_slice();
        while let Some((first, table)) = rest.first() {
            self.run.check()?;
            let Some(file) = self.chunks.holding(first.position) else {
                let archived = self
                    .chunks
                    .in_use()
                    .first()
                    .is_some_and(|file| first.position < file.file.header.start_position());
                let beyond = self.ahead && first.position >= self.writer.0;
                if !archived && !beyond {
                    self.wrong(table, format!("{first}, which lies in no chunk"));
                }
                rest = rest.get(1..).unwrap_or_default();
                continue;
            };
            let end = file.file.header.end_position();
            let (here, beyond) =
                rest.split_at(rest.partition_point(|(entry, _)| entry.position < end));
            self.compare_in(file, here)?;
            rest = beyond;
        }
        Ok(())
    }

    fn compare_in(&mut self, file: &LogFile, entries: &[Sourced<'_>]) -> Result<()> {
        if file.file.header.transform != Transform::Identity {
            return Ok(());
        }
        let source = file.open(self.files)?;
        let mut lookup = match lookup(file, &*source) {
            Ok(lookup) => lookup,
            // The chunk itself is damaged, and that is told elsewhere.
            Err(format::Error::Malformed(_)) => return Ok(()),
            Err(error) => return with_place(self.files, &file.path, Err(error)),
        };
        for (entry, table) in entries {
            self.proof.entries += 1;
            if entry.position >= self.writer.0 {
                if !self.ahead {
                    self.wrong(
                        table,
                        format!("{entry}, which is beyond the log's end at {}", self.writer),
                    );
                }
                continue;
            }
            let found = match lookup.read_at_position(entry.position) {
                Ok(Some(frame)) => match &frame.record {
                    Record::Prepare(prepare) => self.judge_prepare(entry, table, prepare)?,
                    Record::Commit(_) | Record::System(_) => {
                        Some("no event stands there".to_owned())
                    }
                },
                Ok(None) if file.file.header.scavenged => {
                    self.proof.dangling += 1;
                    None
                }
                Ok(None) => Some("the chunk's records end before".to_owned()),
                Err(format::Error::Malformed(why)) => Some(why.to_string()),
                Err(error) => return with_place(self.files, &file.path, Err(error)),
            };
            if let Some(found) = found {
                self.wrong(table, format!("{entry}: {found}"));
            }
        }
        Ok(())
    }

    /// What contradicts the entry, if anything does.
    fn judge_prepare(
        &mut self,
        entry: &Entry,
        table: &Listed,
        prepare: &Prepare<'_>,
    ) -> Result<Option<String>> {
        let name = prepare.stream_name();
        let hash = stream_hash(&name);
        if table.version.entry_hash(hash) != entry.stream {
            return Ok(Some(format!("an event of stream `{name}` stands there")));
        }
        if let Some(number) = prepare
            .event_number()
            .filter(|number| *number != entry.event_number)
        {
            return Ok(Some(format!("event {number} of its stream stands there")));
        }
        let told = |problem: &IndexProblem| problem.fault == IndexFault::StreamFilterIncomplete;
        if let Some(filter) = self.stream_filter
            && !self.proof.problems.iter().any(told)
        {
            self.proof
                .problems
                .extend(filter.lacks(self.files, &name, entry.position)?);
        }
        Ok(None)
    }

    /// One problem for each table: the first is as good as a million.
    fn wrong(&mut self, table: &Listed, what: String) {
        let known = |problem: &IndexProblem| {
            problem.fault == IndexFault::EntryWrong && problem.path == table.path
        };
        if !self.proof.problems.iter().any(known) {
            self.proof.problems.push(IndexProblem {
                path: table.path.clone(),
                fault: IndexFault::EntryWrong,
                what,
            });
        }
    }
}

/// An event of the log that should be in the index.
struct Sample {
    position: LogPosition,
    stream: u64,
    number: i64,
}

/// Looks events from the beginnings of chunks that no scavenge has rewritten up in the index. A
/// scavenge takes the same events out of both, so what an index lacks there comes from a scavenge
/// that these chunks have not seen (O39).
fn hidden_events(
    files: &dyn FileSet,
    chunks: &ChunkSet,
    tables: &[Listed],
    commit: LogPosition,
    run: &Run,
) -> Result<Option<HiddenEvents>> {
    let candidates: Vec<&LogFile> = chunks
        .in_use()
        .iter()
        .filter(|file| {
            !file.file.header.scavenged
                && file.file.header.transform == Transform::Identity
                && file.file.footer().is_some()
        })
        .filter(|file| file.file.header.start_position() <= commit)
        .collect();
    let every = candidates.len().div_ceil(SAMPLES).max(1);
    let of_each = (SAMPLES / candidates.len().max(1)).clamp(1, SAMPLES_OF_CHUNK);
    let mut samples = Vec::new();
    for file in candidates.into_iter().step_by(every) {
        run.check()?;
        samples.extend(first_events(files, file, of_each, commit)?);
    }
    let sampled = samples.len() as u64;
    // One table after the other: a node may have more of them than a process may open.
    for listed in tables {
        run.check()?;
        if samples.is_empty() {
            break;
        }
        let source = open_listed(files, &listed.path)?;
        let table = with_place(files, &listed.path, Table::open(&*source))?;
        let mut others = Vec::new();
        for sample in samples {
            if !with_place(files, &listed.path, contains(&table, &sample))? {
                others.push(sample);
            }
        }
        samples = others;
    }
    let (Some(first), Some(last)) = (samples.first(), samples.last()) else {
        return Ok(None);
    };
    let explained = threshold_scavenge_after(files, chunks, last.position)?;
    Ok(Some(HiddenEvents {
        missing: samples.len() as u64,
        sampled,
        first: first.position,
        explained,
    }))
}

fn first_events(
    files: &dyn FileSet,
    file: &LogFile,
    count: usize,
    commit: LogPosition,
) -> Result<Vec<Sample>> {
    let source = file.open(files)?;
    let frames = file
        .file
        .completed_data()
        .and_then(|data| Forwards::new(&*source, &file.file.header, data));
    let mut frames = with_place(files, &file.path, frames)?;
    let mut samples = Vec::with_capacity(count);
    while samples.len() < count {
        // Damage in a chunk is told elsewhere.
        let Ok(Some(frame)) = frames.next() else {
            break;
        };
        if frame.position > commit {
            break;
        }
        if let Record::Prepare(prepare) = &frame.record
            && prepare.flags.contains(Flags::DATA)
            && let Some(number) = prepare.event_number()
        {
            samples.push(Sample {
                position: frame.position,
                stream: stream_hash(&prepare.stream_name()),
                number,
            });
        }
    }
    Ok(samples)
}

/// Searches a table, which is sorted in descending order.
fn contains(table: &Table<'_>, sample: &Sample) -> format::Result<bool> {
    let stream = table.layout().version.entry_hash(sample.stream);
    let wanted = Entry {
        stream,
        event_number: sample.number,
        position: sample.position,
    };
    let (mut low, mut high) = (0, table.layout().entries);
    while low < high {
        let middle = low + (high - low) / 2;
        match table.entry(middle)? {
            Some(entry) if entry == wanted => return Ok(true),
            Some(entry) if entry > wanted => low = middle + 1,
            _ => high = middle,
        }
    }
    Ok(false)
}

/// Whether a scavenge that spares chunks with little to remove came after `position`. Its point in
/// the log is the last record of a chunk (disk-format §2.6).
fn threshold_scavenge_after(
    files: &dyn FileSet,
    chunks: &ChunkSet,
    position: LogPosition,
) -> Result<bool> {
    /// What the server writes into a scavenge point.
    #[derive(serde::Deserialize)]
    struct Point {
        #[serde(default)]
        threshold: i64,
    }
    const LONGEST_POINT: u64 = 64 * 1024;
    for file in chunks
        .in_use()
        .iter()
        .filter(|file| file.file.header.end_position() > position && file.file.footer().is_some())
    {
        if file.file.header.transform != Transform::Identity {
            continue;
        }
        let source = file.open(files)?;
        let frames = file
            .file
            .completed_data()
            .and_then(|data| Backwards::new(&*source, &file.file.header, data));
        let Ok(mut frames) = frames else { continue };
        let Ok(Some(frame)) = frames.next() else {
            continue;
        };
        if let Record::Prepare(prepare) = &frame.record
            && prepare.stream == b"$scavengePoints"
            && let Some(length) = usize::try_from(prepare.data.length)
                .ok()
                .filter(|_| prepare.data.length <= LONGEST_POINT)
        {
            let mut bytes = vec![0; length];
            if source
                .read_exact_at(prepare.data.offset, &mut bytes)
                .is_ok()
                && serde_json::from_slice::<Point>(&bytes).is_ok_and(|point| point.threshold > 0)
            {
                return Ok(true);
            }
        }
    }
    Ok(false)
}
