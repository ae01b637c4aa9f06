//! Compares the files of a backup with its manifest: names, sizes, headers, footers, and the
//! contents of small files. Both the gate and a verification use it.

use std::collections::HashMap;

use super::databases::{scavenge_database_fault, secondary_index_fault};
use super::depth::Depth;
use super::fault::BackupFault;
use super::index::{IndexScope, examine_index};
use crate::error::{Kind, Result};
use crate::format::checkpoint::Checkpoint;
use crate::format::chunk::{ChunkState, full_length};
use crate::format::names::{DbFile, IndexFile, ScavengingFile};
use crate::format::{LogPosition, ReadAt, WriterPosition, ptable};
use crate::log::{
    ChunkPlace, ChunkSet, Inspected, LogEndingAt, LogFile, RawCheckpoint, open_listed,
};
use crate::manifest::{
    ChunkRow, FileEntry, FileSet, Manifest, RelativePath, Role, Root, Row, SecondaryIndex,
};
use crate::run::Run;

/// Compares the files of a backup with its manifest, without reading the large ones whole. Returns
/// everything that is wrong.
///
/// # Errors
/// What the storage reports, and an interruption.
pub fn structure(files: &dyn FileSet, manifest: &Manifest, run: &Run) -> Result<Vec<BackupFault>> {
    structure_of(files, manifest, &Inspected::default(), run)
}

/// As [`structure`], for a caller that has read some headers and footers already.
pub(super) fn structure_of(
    files: &dyn FileSet,
    manifest: &Manifest,
    inspected: &Inspected,
    run: &Run,
) -> Result<Vec<BackupFault>> {
    let entries = files.files()?;
    let mut check = StructureCheck {
        files,
        manifest,
        log: LogEndingAt::of(&manifest.log),
        gone: Vec::new(),
        faults: Vec::new(),
    };

    check.rows(&entries);
    check.lineage();
    check.checkpoints()?;
    run.check()?;

    let mut index_entries = entries.clone();
    index_entries.retain(|entry| entry.path.root() == Root::Index);
    match ChunkSet::among(files, entries, inspected) {
        Ok(chunks) => {
            run.check()?;
            check.chunk_set(&chunks);
        }
        Err(error) if matches!(error.kind(), Kind::SourceCorrupt | Kind::Unstable) => {
            if !check.lacks_chunk() {
                check.tell(error.in_words());
            }
        }
        Err(error) => return Err(error),
    }

    check.index(index_entries, run)?;
    check.databases()?;
    check.table_md5s();
    check.contents();
    Ok(check.faults)
}

/// Finds rows whose name, role and identifying fields do not fit each other. From such a row a
/// restore would write a file that no backup holds, or a checkpoint too early.
#[must_use]
pub fn misnamed(manifest: &Manifest) -> Vec<BackupFault> {
    let mut faults = Vec::new();
    for row in &manifest.files {
        if role_of(&row.path) != Some(row.role) {
            let what = "its name does not fit its role";
            faults.push(BackupFault::of_file(&row.path, what));
        }

        let lacks_chunk = (row.role == Role::Chunk) != row.chunk.is_some();
        let lacks_md5 = (row.role == Role::Table) != row.table_md5.is_some();
        if lacks_chunk || lacks_md5 {
            let what = "its row lacks what identifies it";
            faults.push(BackupFault::of_file(&row.path, what));
        }
    }
    faults
}

/// The role of a file in a backup, by its name. Returns `None` for a name that no backup holds.
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

/// The index files of a set, with the list that was read before, so that it is not read twice.
struct ListedIndex<'a> {
    files: &'a dyn FileSet,
    entries: Vec<FileEntry>,
}

impl FileSet for ListedIndex<'_> {
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

/// Compares the files with the manifest, and collects what is wrong.
struct StructureCheck<'a> {
    files: &'a dyn FileSet,
    manifest: &'a Manifest,
    /// The log that the manifest promises.
    log: LogEndingAt,
    /// Rows whose file is missing. Other checks say nothing about what follows from that.
    gone: Vec<&'a Row>,
    faults: Vec<BackupFault>,
}

impl StructureCheck<'_> {
    fn tell(&mut self, what: impl Into<String>) {
        self.faults.push(BackupFault::of_backup(what));
    }

    fn tell_of(&mut self, path: &RelativePath, what: impl Into<String>) {
        self.faults.push(BackupFault::of_file(path, what));
    }

    /// Checks names, sizes and roles: each row has one file, and there is no other file.
    fn rows(&mut self, entries: &[FileEntry]) {
        let mut found: HashMap<&RelativePath, &FileEntry> =
            entries.iter().map(|entry| (&entry.path, entry)).collect();

        for row in &self.manifest.files {
            match found.remove(&row.path) {
                None => {
                    self.gone.push(row);
                    self.tell_of(&row.path, "the file is missing");
                }
                Some(entry) if entry.size != row.size => {
                    let what =
                        format!("it has {} bytes, and its row says {}", entry.size, row.size);
                    self.tell_of(&row.path, what);
                }
                Some(_) => {}
            }
        }
        self.faults.extend(misnamed(self.manifest));

        let mut strangers: Vec<&RelativePath> = found.into_keys().collect();
        strangers.sort();
        for path in strangers {
            self.tell_of(path, "the manifest does not know this file");
        }
    }

    fn is_gone(&self, path: &RelativePath) -> bool {
        self.gone.iter().any(|row| row.path == *path)
    }

    fn lacks_chunk(&self) -> bool {
        self.gone.iter().any(|row| row.role == Role::Chunk)
    }

    /// Checks that the stored epoch and proposal fit the lineage, and that the lineage ends before
    /// P.
    fn lineage(&mut self) {
        let log = &self.manifest.log;
        let end = log.position.position();
        let last = log.lineage.last();

        if last.is_some_and(|last| last.position >= end) {
            self.tell(format!(
                "the lineage has an epoch that is not before the log's end at {end}"
            ));
        }
        if log.stored.epoch != last.map(|last| last.position) {
            self.tell("the stored epoch is not the lineage's last");
        }

        let number = last.map_or(-1, |last| i64::from(last.number));
        if log.stored.proposal.unwrap_or(-1) < number {
            self.tell(format!(
                "the stored proposal is below {number}, the last epoch's number"
            ));
        }
    }

    /// Checks that the stored checkpoints are those of a log that ends at P, with no truncation
    /// pending.
    fn checkpoints(&mut self) -> Result<()> {
        for which in Checkpoint::ALL {
            let path = RelativePath::checkpoint(which);
            if self.is_gone(&path) {
                continue;
            }
            let raw = match RawCheckpoint::of_set(self.files, which) {
                Ok(raw) => raw,
                Err(error) if error.kind() == Kind::StoredCorrupt => {
                    self.tell_of(&path, error.in_words());
                    continue;
                }
                Err(error) => return Err(error),
            };

            let wanted = self.log.checkpoint(which);
            match raw.value() {
                Ok(Some(value)) if value == wanted => {}
                Ok(Some(value)) => {
                    let what = format!("it holds {value}, and should hold {wanted}");
                    self.tell_of(&path, what);
                }
                Ok(None) => self.tell_of(&path, "it is missing"),
                Err(why) => self.tell_of(&path, why.to_string()),
            }
        }
        Ok(())
    }

    /// Checks that the chunks reach from the start of the log to P, and that each is as its row
    /// says.
    fn chunk_set(&mut self, chunks: &ChunkSet) {
        let log = &self.manifest.log;
        let (end, size) = (log.position.position(), log.chunk_size);
        if chunks.chunk_size() != size {
            self.tell(format!(
                "the chunks have {} bytes of log, the manifest says {}",
                chunks.chunk_size().get(),
                size.get()
            ));
            return;
        }

        self.chunks_missing_or_superseded(chunks);
        if size.chunk_of(end).is_none() {
            self.tell(format!("the log's end {end} lies in no chunk"));
            return;
        }
        let covered = match chunks.in_use().last() {
            Some(file) => file.header().end_position(),
            None => LogPosition::ZERO,
        };
        if covered < end && !self.lacks_chunk() {
            self.tell(format!("the chunks end at {covered}, the log at {end}"));
        }

        let row_of: HashMap<&RelativePath, &Row> = self
            .manifest
            .files
            .iter()
            .map(|row| (&row.path, row))
            .collect();
        for file in chunks.in_use() {
            self.chunk(file, row_of.get(&file.path).copied());
        }
    }

    fn chunks_missing_or_superseded(&mut self, chunks: &ChunkSet) {
        for path in chunks.superseded() {
            self.tell_of(path, "another chunk file covers it");
        }

        for missing in chunks.missing() {
            let is_archived = self.manifest.contents.archive && missing.start().0 == 0;
            if !is_archived && !self.lacks_chunk() {
                self.tell(format!("chunk {} is missing", missing.start()));
            }
        }
    }

    /// Checks that a chunk file is as its row says, and is what a log that ends at P needs there.
    fn chunk(&mut self, file: &LogFile, row: Option<&Row>) {
        let place = self.log.place_of(file.start(), file.end());
        if place == ChunkPlace::Beyond {
            let end = self.log.position();
            let what = format!("it lies beyond the log's end at {end} (O16)");
            self.tell_of(&file.path, what);
        }

        let Some(row) = row else { return };
        if row.chunk != Some(ChunkRow::of(&file.chunk, file.name.version)) {
            let what = "header and footer are not what its row says";
            self.tell_of(&file.path, what);
        }

        match place {
            ChunkPlace::Before => {
                if let Err(error) = file.chunk.completed() {
                    self.tell_of(&file.path, error.to_string());
                }
            }
            ChunkPlace::HoldsEnd | ChunkPlace::BeginsAtEnd => self.last_chunk(file, row, place),
            ChunkPlace::Beyond => {}
        }
    }

    /// Checks the chunk that P lies in. The server will append to it.
    fn last_chunk(&mut self, file: &LogFile, row: &Row, place: ChunkPlace) {
        let header = file.header();
        if header.scavenged || header.end > header.start {
            let what = "the log ends in it, and it is scavenged or merged (O33)";
            self.tell_of(&file.path, what);
            return;
        }

        if file.chunk.state != ChunkState::Ongoing {
            let what = "the log ends in it, and it says that it is completed";
            self.tell_of(&file.path, what);
        }

        let length = full_length(header.chunk_size, header.transform);
        if place == ChunkPlace::HoldsEnd && length != Some(file.chunk.length) {
            let what = "the log ends in it, and it does not have its full length";
            self.tell_of(&file.path, what);
        }
        if row.mode & 0o200 == 0 {
            self.tell_of(&file.path, "the log ends in it, and it is not writable");
        }
    }

    /// Checks that there is no index, or a whole one whose tables do not reach beyond P.
    fn index(&mut self, entries: Vec<FileEntry>, run: &Run) -> Result<()> {
        let end = self.log.position();
        let scope = IndexScope {
            chunks: None,
            writer: WriterPosition(end),
            depth: Depth::Quick,
            hash_tables: false,
        };
        let listed = ListedIndex {
            files: self.files,
            entries,
        };
        let proof = examine_index(&listed, &scope, run)?;

        for problem in &proof.problems {
            let is_known = self.is_gone(&problem.path);
            if problem.fault.is_damage() && !is_known {
                self.tell_of(&problem.path, problem.what.clone());
            }
        }
        if self.is_gone(&RelativePath::index_map()) {
            return Ok(());
        }

        for path in &proof.unlisted {
            self.tell_of(path, "indexmap does not name it (O2)");
        }
        if proof.has_map && !self.manifest.contents.index {
            self.tell("there is an index, and the manifest says that there is none");
        }

        let commit = proof.map.as_ref().and_then(|map| map.commit);
        if commit != self.manifest.log.index_commit {
            self.tell("the index reaches to another position than the manifest says");
        }
        if let Some(commit) = commit
            && commit >= end
        {
            self.tell(format!(
                "the index reaches to {commit}, the log only to {end} (O37)"
            ));
        }
        Ok(())
    }

    /// Checks that servers can open the databases beside log and index.
    fn databases(&mut self) -> Result<()> {
        if let Some(why) = secondary_index_fault(self.files)? {
            self.tell_of(&RelativePath::secondary_index(), why);
        }
        if let Some(why) = scavenge_database_fault(self.files)? {
            self.tell_of(&RelativePath::scavenge_state(), why);
        }
        Ok(())
    }

    /// Checks that the MD5 at the end of each table is the one in its row. Other checks report a
    /// table that is missing or damaged.
    fn table_md5s(&mut self) {
        for row in &self.manifest.files {
            if row.role != Role::Table {
                continue;
            }
            let Ok(source) = open_listed(self.files, &row.path) else {
                continue;
            };

            if let Ok(layout) = ptable::inspect(&*source)
                && Some(layout.md5) != row.table_md5
            {
                self.tell_of(&row.path, "its MD5 is not the one in its row");
            }
        }
    }

    /// Checks that the rows are what the manifest says of its contents.
    fn contents(&mut self) {
        let secondary_index = self.manifest.contents.secondary_index;
        let has_secondary_index = self.has(Role::SecondaryIndex);
        if has_secondary_index != (secondary_index == SecondaryIndex::Included) {
            self.tell("the manifest is wrong about whether kurrent.ddb is in the backup");
        }
        if has_secondary_index && self.manifest.source.online {
            self.tell("kurrent.ddb was copied from a running node, which changes it in place");
        }

        if self.has(Role::StreamFilter) != self.has(Role::StreamFilterCheckpoint) {
            self.tell("the stream-existence filter and its checkpoint belong together");
        }
    }

    fn has(&self, role: Role) -> bool {
        self.manifest.files.iter().any(|row| row.role == role)
    }
}
