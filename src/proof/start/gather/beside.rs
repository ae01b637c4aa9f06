//! Files beside log and index: secondary index, scavenge state, leftovers, and the mark of a
//! restore.

use super::Gathering;
use crate::error::Result;
use crate::format::names::{DbFile, IndexFile, ScavengingFile};
use crate::format::{LogPosition, WriterPosition};
use crate::log::{ChunkSet, open_listed, read_small};
use crate::manifest::{FileEntry, RelativePath, RestoreMark, RestoreState, Root};
use crate::proof::databases::{scavenge_database_fault, secondary_index_fault};
use crate::proof::finding::Severity;
use crate::proof::scavenge::foreign_scavenge;
use crate::proof::start::facts::FileProblem;
use crate::server::facts::KNEW_LOG_V3;

/// Bytes of a restore's mark that are read.
const LONGEST_MARK: u64 = 64 * 1024;

/// What a file beside log and index is.
enum FileBeside {
    SecondaryIndex,
    RestoreMark,
    ScavengeDatabase,
    /// A journal or write-ahead log of the scavenge database that holds something.
    ScavengeJournal,
    /// A file of the experimental log format V3.
    LogV3,
    /// A temporary file that nobody finished.
    Leftover,
    Other,
}

impl FileBeside {
    fn of(entry: &FileEntry) -> Self {
        let name = entry.path.below_root();

        match entry.path.root() {
            Root::Db => match DbFile::of(name) {
                DbFile::SecondaryIndex => Self::SecondaryIndex,
                DbFile::Temporary => Self::Leftover,
                _ if name == RestoreMark::NAME => Self::RestoreMark,
                _ => Self::Other,
            },
            Root::Index => {
                match IndexFile::of(name) {
                    IndexFile::Scavenging(ScavengingFile::Database) => Self::ScavengeDatabase,
                    IndexFile::Scavenging(
                        ScavengingFile::WriteAheadLog | ScavengingFile::Journal,
                    ) if entry.size > 0 => Self::ScavengeJournal,
                    IndexFile::IndexMapTemporary => Self::Leftover,
                    IndexFile::ExperimentalV3 => Self::LogV3,
                    _ => Self::Other,
                }
            }
        }
    }
}

impl Gathering<'_> {
    /// Looks at the files beside log and index. Returns what is wrong with `kurrent.ddb`.
    pub(super) fn files_beside(&mut self, entries: &[FileEntry]) -> Result<Option<FileProblem>> {
        let mut bad_secondary_index = None;
        let mut leftovers = Vec::new();

        for entry in entries {
            let path = &entry.path;
            match FileBeside::of(entry) {
                FileBeside::SecondaryIndex => bad_secondary_index = self.secondary_index(path)?,
                FileBeside::RestoreMark => self.restore_mark(path)?,
                FileBeside::ScavengeDatabase => self.scavenge_database(path, entries)?,
                FileBeside::ScavengeJournal => self.open_scavenge_database(path),
                FileBeside::LogV3 => self.log_v3(path),
                FileBeside::Leftover => leftovers.push(path),
                FileBeside::Other => {}
            }
        }

        if let Some(first) = leftovers.first() {
            let what = format!(
                "{} temporary files, the first of them here; a server deletes them",
                leftovers.len()
            );
            let place = self.place(first);
            self.tell(Severity::Info, "leftovers", Some(place), what);
        }
        Ok(bad_secondary_index)
    }

    fn secondary_index(&self, path: &RelativePath) -> Result<Option<FileProblem>> {
        let fault = secondary_index_fault(self.files)?;
        Ok(fault.map(|why| FileProblem {
            place: self.place(path),
            why,
        }))
    }

    /// Reports what the mark of a restore says.
    fn restore_mark(&mut self, path: &RelativePath) -> Result<()> {
        let source = open_listed(self.files, path)?;
        let read = self.judge(path, read_small(&*source, LONGEST_MARK))?;
        let bytes = read.unwrap_or_default();

        let (severity, what) = match serde_json::from_slice::<RestoreMark>(&bytes) {
            Ok(mark) if mark.state == RestoreState::InProgress => {
                let what = format!("the restore of {} did not finish", mark.label);
                (Severity::Error, what)
            }
            Ok(mark) => {
                let what = format!("kbackup restored {} here", mark.label);
                (Severity::Info, what)
            }
            Err(_) => {
                let what = "kbackup restored this directory".to_owned();
                (Severity::Info, what)
            }
        };
        let place = self.place(path);
        self.tell(severity, "restored", Some(place), what);
        Ok(())
    }

    fn scavenge_database(&mut self, path: &RelativePath, entries: &[FileEntry]) -> Result<()> {
        // A journal may hold what the file lacks.
        let is_open = entries
            .iter()
            .any(|entry| matches!(FileBeside::of(entry), FileBeside::ScavengeJournal));
        if is_open {
            return Ok(());
        }

        if let Some(why) = scavenge_database_fault(self.files)? {
            let what = format!(
                "{why}; remove the files in index/scavenging, and the next scavenge begins from \
                 the start"
            );
            let place = self.place(path);
            self.tell(Severity::Error, "scavenge-state-damaged", Some(place), what);
        }
        Ok(())
    }

    fn open_scavenge_database(&mut self, path: &RelativePath) {
        let place = self.place(path);
        let what = "scavenging.db was not closed: a scavenge ran, or runs";
        self.tell(Severity::Info, "scavenge-state-open", Some(place), what);
    }

    fn log_v3(&mut self, path: &RelativePath) {
        if self.has_told("log-v3") {
            return;
        }
        let place = self.place(path);
        let what = format!(
            "this is a database in the experimental log format V3, which only servers \
             {KNEW_LOG_V3} could be told to read"
        );
        self.tell(Severity::Error, "log-v3", Some(place), what);
    }

    /// Finds a scavenge state that knows more than the log (O34).
    pub(super) fn foreign_scavenge(
        &self,
        entries: &[FileEntry],
        set: &ChunkSet,
        writer: LogPosition,
    ) -> Result<Option<FileProblem>> {
        for entry in entries {
            let path = &entry.path;
            if !holds_scavenge_state(path) {
                continue;
            }
            let writer = WriterPosition(writer);
            if let Some(why) = foreign_scavenge(self.files, path, set, writer, self.run)? {
                let place = self.place(path);
                return Ok(Some(FileProblem { place, why }));
            }
        }
        Ok(None)
    }
}

fn holds_scavenge_state(path: &RelativePath) -> bool {
    if path.root() != Root::Index {
        return false;
    }
    matches!(
        IndexFile::of(path.below_root()),
        IndexFile::Scavenging(ScavengingFile::Database | ScavengingFile::WriteAheadLog)
    )
}
