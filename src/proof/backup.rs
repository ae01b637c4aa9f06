//! The gate: no manifest becomes a backup before its files were shown to be what a server starts
//! from.

use std::collections::{HashMap, HashSet};

use super::Proven;
use super::index::{Depth, IndexScope, examine_index};
use super::log::LogProof;
use crate::error::{Error, Kind, Result};
use crate::format::checkpoint::Checkpoint;
use crate::format::chunk::{State, full_length};
use crate::format::names::{DbFile, IndexFile, ScavengingFile};
use crate::format::{LogPosition, ReadAt, WriterPosition, ptable};
use crate::log::{ChunkSet, Inspected, LogEndingAt, LogFile, RawCheckpoint, open_listed};
use crate::manifest::{
    ChunkRow, FileEntry, FileSet, Manifest, RelativePath, Role, Root, Row, SecondaryIndex,
};
use crate::run::Run;

/// What the capture has to show besides the files themselves, which are not read again.
#[derive(Debug, Clone, Copy)]
pub struct Evidence<'a> {
    /// The proven backup that files were taken over from.
    pub parent: Option<&'a Manifest>,
    /// Chunks and tables that were read by this run, and whose MD5 over the stored bytes is the one
    /// the server wrote.
    pub md5_compared: &'a HashSet<RelativePath>,
    /// The scan of the records that were read by this run.
    pub log: &'a LogProof,
    /// Headers and footers that were read by this run, in the files that are to be proven.
    pub inspected: &'a Inspected,
}

/// Something that a stored backup is not, and its manifest says it is, or a server needs it to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// The file, where it is one file's.
    pub path: Option<RelativePath>,
    /// What is wrong.
    pub what: String,
}

impl Fault {
    fn new(path: &RelativePath, what: impl Into<String>) -> Self {
        Self {
            path: Some(path.clone()),
            what: what.into(),
        }
    }

    fn of_backup(what: impl Into<String>) -> Self {
        Self {
            path: None,
            what: what.into(),
        }
    }
}

/// Proves that `files` are those of `manifest` and that a server starts from them with the log up
/// to `manifest.log.position`.
///
/// Reads all small files, and header and footer of each chunk and table, unless this run has read
/// them and the file has not changed since; the rest is the evidence's. So the cost is in
/// proportion to the number of files, never to their size.
///
/// # Errors
/// [`Kind::Failed`] with everything that is wrong; what the storage reports.
pub fn prove_backup(
    files: &dyn FileSet,
    manifest: Manifest,
    evidence: &Evidence<'_>,
    run: &Run,
) -> Result<Proven<Manifest>> {
    let mut faults = structure_of(files, &manifest, evidence.inspected, run)?;
    faults.extend(unproven(&manifest, evidence));
    if faults.is_empty() {
        return Ok(Proven(manifest));
    }
    let list: Vec<String> = faults
        .iter()
        .map(|fault| match &fault.path {
            Some(path) => format!("{path}: {}", fault.what),
            None => fault.what.clone(),
        })
        .collect();
    Err(Error::new(
        Kind::Failed,
        "what was captured is not proven to be a backup",
    )
    .on(manifest.head.label)
    .because(list.join("; ")))
}

/// What the run has not shown of the bytes it read.
fn unproven(manifest: &Manifest, evidence: &Evidence<'_>) -> Vec<Fault> {
    let held: HashMap<&RelativePath, &Row> = evidence
        .parent
        .iter()
        .flat_map(|parent| &parent.files)
        .map(|row| (&row.path, row))
        .collect();
    let mut faults = Vec::new();
    for row in &manifest.files {
        let has_md5 = row.table_md5.is_some() || row.chunk.is_some_and(|chunk| chunk.md5.is_some());
        let taken_over = held.get(&row.path).is_some_and(|held| {
            held.blake3 == row.blake3
                && held.size == row.size
                && held.chunk == row.chunk
                && held.table_md5 == row.table_md5
        });
        let accepted = manifest.contents.damaged.contains(&row.path);
        if has_md5 && !taken_over && !accepted && !evidence.md5_compared.contains(&row.path) {
            faults.push(Fault::new(&row.path, "its MD5 was not compared"));
        }
    }
    let end = manifest.log.position;
    if end != evidence.log.boundary {
        faults.push(Fault::of_backup(format!(
            "the log ends at {end}, and the last boundary found is {}",
            evidence.log.boundary
        )));
    }
    for epoch in evidence
        .log
        .seen
        .epochs
        .iter()
        .filter(|epoch| epoch.position < end.position())
    {
        if !manifest.log.lineage.epochs().contains(epoch) {
            faults.push(Fault::of_backup(format!(
                "the epoch at {} is in the log and not in the lineage",
                epoch.position
            )));
        }
    }
    faults
}

/// What is wrong with the files of a backup, as far as names, sizes, headers, footers and small
/// files tell.
///
/// # Errors
/// What the storage reports, and an interruption.
pub fn structure(files: &dyn FileSet, manifest: &Manifest, run: &Run) -> Result<Vec<Fault>> {
    structure_of(files, manifest, &Inspected::default(), run)
}

fn structure_of(
    files: &dyn FileSet,
    manifest: &Manifest,
    inspected: &Inspected,
    run: &Run,
) -> Result<Vec<Fault>> {
    let entries = files.files()?;
    let mut faults = Vec::new();
    rows(&entries, manifest, &mut faults);
    checkpoints(files, manifest, &mut faults)?;
    run.check()?;
    let of_index = entries
        .iter()
        .filter(|entry| entry.path.root() == Root::Index)
        .cloned()
        .collect();
    match ChunkSet::among(files, entries, inspected) {
        Ok(chunks) => {
            run.check()?;
            chunk_set(&chunks, manifest, &mut faults);
        }
        Err(error) if matches!(error.kind(), Kind::SourceCorrupt | Kind::Unstable) => {
            faults.push(Fault::of_backup(error.in_words()))
        }
        Err(error) => return Err(error),
    }
    index(
        &IndexListedOnce {
            files,
            entries: of_index,
        },
        manifest,
        run,
        &mut faults,
    )?;
    contents(manifest, &mut faults);
    Ok(faults)
}

/// The files of the index among those that were listed: nothing is listed again to look at it.
struct IndexListedOnce<'a> {
    files: &'a dyn FileSet,
    entries: Vec<FileEntry>,
}

impl FileSet for IndexListedOnce<'_> {
    fn files(&self) -> Result<Vec<FileEntry>> {
        Ok(self.entries.clone())
    }

    fn open(&self, path: &RelativePath) -> Result<Option<Box<dyn ReadAt>>> {
        self.files.open(path)
    }

    fn place_of(&self, path: &RelativePath) -> String {
        self.files.place_of(path)
    }
}

/// Names, sizes and roles.
fn rows(entries: &[FileEntry], manifest: &Manifest, faults: &mut Vec<Fault>) {
    let mut there: HashMap<&RelativePath, &FileEntry> =
        entries.iter().map(|entry| (&entry.path, entry)).collect();
    for row in &manifest.files {
        match there.remove(&row.path) {
            None => faults.push(Fault::new(
                &row.path,
                "the file is missing, or has two rows",
            )),
            Some(entry) if entry.size != row.size => {
                faults.push(Fault::new(
                    &row.path,
                    format!("it has {} bytes, and its row says {}", entry.size, row.size),
                ));
            }
            Some(_) => {}
        }
    }
    faults.extend(misnamed(manifest));
    let mut strangers: Vec<&RelativePath> = there.into_keys().collect();
    strangers.sort();
    faults.extend(
        strangers
            .into_iter()
            .map(|path| Fault::new(path, "the manifest does not know this file")),
    );
}

/// Rows that are not what their names say: a restore would write files that no backup holds, or a
/// checkpoint before its time.
#[must_use]
pub fn misnamed(manifest: &Manifest) -> Vec<Fault> {
    let mut faults = Vec::new();
    for row in &manifest.files {
        if role_of(&row.path) != Some(row.role) {
            faults.push(Fault::new(&row.path, "its name does not fit its role"));
        }
        if (row.role == Role::Chunk) != row.chunk.is_some()
            || (row.role == Role::Table) != row.table_md5.is_some()
        {
            faults.push(Fault::new(&row.path, "its row lacks what identifies it"));
        }
    }
    faults
}

/// What a file of a backup is for, by its name; none for names that no backup holds.
fn role_of(path: &RelativePath) -> Option<Role> {
    match path.root() {
        Root::Db => match DbFile::of(path.below_root()) {
            DbFile::Chunk(_) => Some(Role::Chunk),
            DbFile::Checkpoint(_) => Some(Role::Checkpoint),
            DbFile::SecondaryIndex | DbFile::SecondaryIndexLog => Some(Role::SecondaryIndex),
            _ => None,
        },
        Root::Index => match IndexFile::of(path.below_root()) {
            IndexFile::IndexMap => Some(Role::IndexMap),
            IndexFile::Table(_) => Some(Role::Table),
            IndexFile::BloomFilter(_) => Some(Role::TableFilter),
            IndexFile::StreamFilterCheckpoint => Some(Role::StreamFilterCheckpoint),
            IndexFile::StreamFilterData => Some(Role::StreamFilter),
            IndexFile::Scavenging(ScavengingFile::Database) => Some(Role::ScavengeState),
            _ => None,
        },
    }
}

/// The stored checkpoints are those of a log that ends at P, with nothing left to cut off.
fn checkpoints(files: &dyn FileSet, manifest: &Manifest, faults: &mut Vec<Fault>) -> Result<()> {
    let log = &manifest.log;
    let end = log.position.position();
    let last = log.lineage.last();
    if last.is_some_and(|last| last.position >= end) {
        faults.push(Fault::of_backup(format!(
            "the lineage has an epoch that is not before the log's end at {end}"
        )));
    }
    if log.stored.epoch != last.map(|last| last.position) {
        faults.push(Fault::of_backup(
            "the stored epoch is not the lineage's last",
        ));
    }
    let number = last.map_or(-1, |last| i64::from(last.number));
    if log.stored.proposal.unwrap_or(-1) < number {
        faults.push(Fault::of_backup(format!(
            "the stored proposal is below {number}, the last epoch's number"
        )));
    }

    let wanted = LogEndingAt::of(log);
    for which in Checkpoint::ALL {
        let path = RelativePath::checkpoint(which);
        let raw = match RawCheckpoint::of_set(files, which) {
            Ok(raw) => raw,
            Err(error) if error.kind() == Kind::StoredCorrupt => {
                faults.push(Fault::new(&path, error.in_words()));
                continue;
            }
            Err(error) => return Err(error),
        };

        let wanted = wanted.checkpoint(which);
        match raw.value() {
            Ok(Some(value)) if value == wanted => {}
            Ok(Some(value)) => {
                let what = format!("it holds {value}, and should hold {wanted}");
                faults.push(Fault::new(&path, what));
            }
            Ok(None) => faults.push(Fault::new(&path, "it is missing")),
            Err(why) => faults.push(Fault::new(&path, why.to_string())),
        }
    }

    Ok(())
}

/// The chunks lead from the start of the log to P, each as its row says.
fn chunk_set(chunks: &ChunkSet, manifest: &Manifest, faults: &mut Vec<Fault>) {
    let log = &manifest.log;
    let (end, size) = (log.position.position(), log.chunk_size);
    if chunks.chunk_size() != size {
        faults.push(Fault::of_backup(format!(
            "the chunks have {} bytes of log, the manifest says {}",
            chunks.chunk_size().get(),
            size.get()
        )));
        return;
    }
    faults.extend(
        chunks
            .superseded()
            .iter()
            .map(|path| Fault::new(path, "another chunk file covers it")),
    );
    for missing in chunks.missing() {
        let archived = manifest.contents.archive && missing.start().0 == 0;
        if !archived {
            faults.push(Fault::of_backup(format!(
                "chunk {} is missing",
                missing.start()
            )));
        }
    }
    let Some(last_number) = size.chunk_of(end) else {
        faults.push(Fault::of_backup(format!(
            "the log's end {end} lies in no chunk"
        )));
        return;
    };
    let inside = size.local(end) > 0;
    let covered = chunks
        .in_use()
        .last()
        .map_or(LogPosition::ZERO, |file| file.file.header.end_position());
    if covered < end {
        faults.push(Fault::of_backup(format!(
            "the chunks end at {covered}, the log at {end}"
        )));
    }
    let row_of: HashMap<&RelativePath, &Row> =
        manifest.files.iter().map(|row| (&row.path, row)).collect();
    for file in chunks.in_use() {
        if file.start() > last_number {
            faults.push(Fault::new(
                &file.path,
                format!("it lies beyond the log's end at {end} (O16)"),
            ));
        }
        let Some(row) = row_of.get(&file.path) else {
            continue;
        };
        if row.chunk != Some(ChunkRow::of(&file.file, file.name.version)) {
            faults.push(Fault::new(
                &file.path,
                "header and footer are not what its row says",
            ));
        }
        if file.end() < last_number {
            if let Err(error) = file.file.completed() {
                faults.push(Fault::new(&file.path, error.to_string()));
            }
        } else if file.start() <= last_number {
            last_chunk(file, row, inside, faults);
        }
    }
}

/// The chunk that P lies in: the server appends to it.
fn last_chunk(file: &LogFile, row: &Row, inside: bool, faults: &mut Vec<Fault>) {
    let header = &file.file.header;
    if header.scavenged || header.end > header.start {
        faults.push(Fault::new(
            &file.path,
            "the log ends in it, and it is scavenged or merged (O33)",
        ));
        return;
    }
    if file.file.state != State::Ongoing {
        faults.push(Fault::new(
            &file.path,
            "the log ends in it, and it says that it is completed",
        ));
    }
    if inside && full_length(header.chunk_size, header.transform) != Some(file.file.length) {
        faults.push(Fault::new(
            &file.path,
            "the log ends in it, and it has not its full length",
        ));
    }
    if row.mode & 0o200 == 0 {
        faults.push(Fault::new(
            &file.path,
            "the log ends in it, and it is not writable",
        ));
    }
}

/// Either a whole index whose tables reach no further than P, or none.
fn index(
    files: &dyn FileSet,
    manifest: &Manifest,
    run: &Run,
    faults: &mut Vec<Fault>,
) -> Result<()> {
    let end = manifest.log.position.position();
    let scope = IndexScope {
        chunks: None,
        writer: WriterPosition(end),
        depth: Depth::Quick,
        hash_tables: false,
    };
    let proof = examine_index(files, &scope, run)?;
    faults.extend(
        proof
            .problems
            .iter()
            .map(|problem| Fault::new(&problem.path, problem.what.clone())),
    );
    faults.extend(
        proof
            .unlisted
            .iter()
            .map(|path| Fault::new(path, "indexmap does not name it (O2)")),
    );
    if proof.has_map && !manifest.contents.index {
        faults.push(Fault::of_backup(
            "there is an index, and the manifest says that there is none",
        ));
    }
    let commit = proof.map.as_ref().and_then(|map| map.commit);
    if commit != manifest.log.index_commit {
        faults.push(Fault::of_backup(
            "the index reaches to another position than the manifest says",
        ));
    }
    if let Some(commit) = commit.filter(|commit| *commit >= end) {
        faults.push(Fault::of_backup(format!(
            "the index reaches to {commit}, the log only to {end} (O37)"
        )));
    }
    for row in manifest.files.iter().filter(|row| row.role == Role::Table) {
        let Ok(source) = open_listed(files, &row.path) else {
            continue;
        };
        if let Ok(layout) = ptable::inspect(&*source)
            && Some(layout.md5) != row.table_md5
        {
            faults.push(Fault::new(&row.path, "its MD5 is not the one in its row"));
        }
    }
    Ok(())
}

fn contents(manifest: &Manifest, faults: &mut Vec<Fault>) {
    let has = |role| manifest.files.iter().any(|row| row.role == role);
    if has(Role::SecondaryIndex) != (manifest.contents.secondary_index == SecondaryIndex::Included)
    {
        faults.push(Fault::of_backup(
            "whether kurrent.ddb is inside is not what the manifest says",
        ));
    }
    if has(Role::SecondaryIndex) && manifest.source.online {
        faults.push(Fault::of_backup(
            "kurrent.ddb was copied from a running node, which changes it in place",
        ));
    }
    if has(Role::StreamFilter) != has(Role::StreamFilterCheckpoint) {
        faults.push(Fault::of_backup(
            "the stream-existence filter and its checkpoint belong together",
        ));
    }
}
