//! The agent's memory of its runs, and the file that keeps it.
//!
//! The [`Journal`] is in memory. The [`JournalFile`] in the state directory holds one line of JSON
//! for each run. The journal says what the file lacks ([`JournalWrite`]), and the file writes it.
//! So the agent's loop can leave the write to another thread. The loss of the file does no harm,
//! because the repository holds everything that matters about backups.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::run_record::{Job, RunRecord};
use crate::error::{Error, Kind, Result};
use crate::fs;
use crate::node::create_state_directory;
use crate::repository::absolute_place;

/// How many runs the agent remembers: five weeks with one run every five minutes.
const MOST: usize = 10_000;
/// How many lines of forgotten runs the file may hold before the agent writes it anew.
const SLACK: usize = 2_000;
const MAX_BYTES: u64 = 256 * 1024 * 1024;
const FILE_MODE: u32 = 0o600;

/// The runs that the agent remembers, oldest first.
#[derive(Debug, Default)]
pub struct Journal {
    records: Vec<RunRecord>,
    /// The repository that the agent saw first.
    repository: Option<Uuid>,
    /// Lines of runs that the file does not hold yet.
    unwritten: String,
    /// How many lines of the file the journal does not remember any more.
    slack: usize,
    /// Whether the file has to be written anew, because its last line may be cut, or because lines
    /// are missing.
    needs_rewrite: bool,
}

/// The first line of the file, which names the repository that the agent keeps.
#[derive(Serialize, Deserialize)]
struct RepositoryLine {
    knows: Uuid,
}

/// The file of a journal.
#[derive(Debug, Clone)]
pub(super) struct JournalFile {
    path: PathBuf,
}

/// What the file of a journal does not hold yet.
#[derive(Debug)]
pub(super) enum JournalWrite {
    /// Lines that belong at the end.
    Append(String),
    /// The whole content.
    Replace(String),
}

impl Journal {
    /// Opens the journal of the agent that keeps backups in `repository`.
    ///
    /// Skips lines that cannot be read, because a crash may have cut the last one. Then it writes
    /// the file anew, so that no later line is appended to a cut one.
    ///
    /// # Errors
    /// [`Kind::Failed`] if the state directory cannot be created, or the file cannot be read or
    /// written anew.
    pub(super) fn open(state_directory: &Path, repository: &Path) -> Result<(Self, JournalFile)> {
        let file = JournalFile::of(state_directory, repository)?;
        let mut journal = Self::parse(&file.read()?);

        journal.forget_the_oldest();
        if journal.slack > 0 {
            let text = journal.text()?;
            file.perform(&JournalWrite::Replace(text))?;
            journal.slack = 0;
        }

        Ok((journal, file))
    }

    fn parse(bytes: &[u8]) -> Self {
        let mut records = Vec::new();
        let mut repository = None;
        let mut lines = 0;

        for line in bytes.split(|byte| *byte == b'\n') {
            if line.is_empty() {
                continue;
            }

            if repository.is_none()
                && let Ok(line) = serde_json::from_slice::<RepositoryLine>(line)
            {
                repository = Some(line.knows);
                continue;
            }

            lines += 1;
            records.extend(serde_json::from_slice::<RunRecord>(line).ok());
        }

        // Old journals do not have that line. Their first backup names the repository.
        if repository.is_none() {
            repository = records
                .iter()
                .find_map(|record: &RunRecord| record.repository);
        }

        Self {
            slack: lines - records.len(),
            records,
            repository,
            unwritten: String::new(),
            needs_rewrite: false,
        }
    }

    /// The runs, oldest first.
    #[must_use]
    pub fn records(&self) -> &[RunRecord] {
        &self.records
    }

    /// The repository that the agent keeps. An empty directory or another repository in its place
    /// means that a disk is not mounted.
    #[must_use]
    pub const fn repository(&self) -> Option<Uuid> {
        self.repository
    }

    /// The runs of a job, newest first.
    pub fn of(&self, job: Job) -> impl Iterator<Item = &RunRecord> {
        self.records
            .iter()
            .rev()
            .filter(move |record| record.job == job)
    }

    /// Remembers the repository that the agent keeps.
    pub(super) fn know(&mut self, repository: Uuid) {
        self.repository = Some(repository);
        self.needs_rewrite = true;
    }

    /// Remembers a run.
    ///
    /// # Errors
    /// [`Kind::Failed`] if the run cannot be written as JSON. It is remembered nevertheless.
    pub fn remember(&mut self, record: RunRecord) -> Result<()> {
        let line = line(&record);

        // The line about the repository belongs at the beginning of the file.
        if self.repository.is_none() && record.repository.is_some() {
            self.repository = record.repository;
            self.needs_rewrite = true;
        }
        self.records.push(record);
        self.forget_the_oldest();

        self.unwritten.push_str(&line?);
        Ok(())
    }

    /// What the file lacks. `None` if it holds everything.
    ///
    /// Call [`Self::was_not_written`] if the write then fails.
    ///
    /// # Errors
    /// [`Kind::Failed`] if a run cannot be written as JSON.
    pub(super) fn next_write(&mut self) -> Result<Option<JournalWrite>> {
        if self.needs_rewrite || self.slack >= SLACK {
            let text = self.text()?;
            (self.needs_rewrite, self.slack) = (false, 0);
            self.unwritten.clear();
            return Ok(Some(JournalWrite::Replace(text)));
        }
        if self.unwritten.is_empty() {
            return Ok(None);
        }

        Ok(Some(JournalWrite::Append(std::mem::take(
            &mut self.unwritten,
        ))))
    }

    /// The last write failed. The file may end with a cut line, and lines may be missing.
    pub(super) const fn was_not_written(&mut self) {
        self.needs_rewrite = true;
    }

    fn forget_the_oldest(&mut self) {
        let excess = self.records.len().saturating_sub(MOST);
        self.records.drain(..excess);
        self.slack += excess;
    }

    /// The whole content of the file.
    fn text(&self) -> Result<String> {
        let mut text = match self.repository {
            Some(knows) => line(&RepositoryLine { knows })?,
            None => String::new(),
        };
        for record in &self.records {
            text.push_str(&line(record)?);
        }

        Ok(text)
    }
}

impl JournalFile {
    fn of(state_directory: &Path, repository: &Path) -> Result<Self> {
        create_state_directory(state_directory)?;

        // Several agents may share a state directory.
        let place = absolute_place(repository);
        let hash = blake3::hash(place.as_os_str().as_encoded_bytes()).to_hex();
        let name = format!("agent-{}.jsonl", hash.get(..16).unwrap_or_default());

        Ok(Self {
            path: state_directory.join(name),
        })
    }

    fn read(&self) -> Result<Vec<u8>> {
        match fs::read_small(&self.path, MAX_BYTES) {
            Ok(bytes) => Ok(bytes),
            Err(error) if error.is_not_found() => Ok(Vec::new()),
            Err(error) => Err(error.into()),
        }
    }

    /// Writes durably. Blocks until the disk answers. After an error the file may end with a cut
    /// line.
    pub(super) fn perform(&self, write: &JournalWrite) -> Result<()> {
        match write {
            JournalWrite::Replace(text) => {
                fs::write_durably(&self.path, text.as_bytes(), FILE_MODE)?;
            }
            JournalWrite::Append(lines) => {
                let file = fs::open_or_create(&self.path, FILE_MODE)?;
                let end = file.status()?.size;
                file.write_all_at(end, lines.as_bytes())?;
                file.sync()?;
            }
        }

        Ok(())
    }
}

fn line(record: &impl Serialize) -> Result<String> {
    let text = serde_json::to_string(record)
        .map_err(|error| Error::new(Kind::Failed, "cannot write the journal").because(error))?;

    Ok(text + "\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::run_record::{Pause, RunOutcome, Trigger};
    use crate::clock::Timestamp;

    fn record(second: i64) -> RunRecord {
        RunRecord {
            job: Job::Diff,
            trigger: Trigger::Schedule,
            began: Timestamp::from_second(second).unwrap(),
            ended: Timestamp::from_second(second + 5).unwrap(),
            outcome: RunOutcome::Done {
                label: None,
                warnings: vec!["a \"quoted\"\nwarning".to_owned()],
            },
            repository: Some(Uuid::from_u128(7)),
            bytes_read: 1,
            bytes_stored: 2,
            files_copied: 3,
            files_linked: 4,
            retries: vec!["the index changed".to_owned()],
            pauses: vec![Pause {
                what: "scavenge".to_owned(),
                began: Timestamp::from_second(second).unwrap(),
                milliseconds: None,
                interrupted: true,
            }],
            damaged: Vec::new(),
        }
    }

    fn open(place: &Path) -> (Journal, JournalFile) {
        Journal::open(place, Path::new("/repo")).unwrap()
    }

    /// Remembers and writes a run as the agent's loop does, on one thread.
    fn write(journal: &mut Journal, file: &JournalFile, record: RunRecord) -> Result<()> {
        journal.remember(record).unwrap();
        let write = journal.next_write().unwrap().unwrap();
        let result = file.perform(&write);
        if result.is_err() {
            journal.was_not_written();
        }
        result
    }

    #[test]
    fn what_was_written_is_remembered() {
        let place = tempfile::tempdir().unwrap();
        let (mut journal, file) = open(place.path());
        for second in 0..3 {
            write(&mut journal, &file, record(second)).unwrap();
        }
        assert!(journal.next_write().unwrap().is_none(), "nothing is left");

        let (again, _) = open(place.path());
        assert_eq!(again.records(), journal.records());
        assert_eq!(again.of(Job::Diff).next(), Some(&record(2)));

        let (other, _) = Journal::open(place.path(), Path::new("/other")).unwrap();
        assert!(other.records().is_empty());
    }

    #[test]
    fn runs_that_ended_during_a_write_are_written_with_the_next() {
        let place = tempfile::tempdir().unwrap();
        let (mut journal, file) = open(place.path());
        write(&mut journal, &file, record(1)).unwrap();

        journal.remember(record(2)).unwrap();
        let under_way = journal.next_write().unwrap().unwrap();
        journal.remember(record(3)).unwrap();
        journal.remember(record(4)).unwrap();
        file.perform(&under_way).unwrap();
        let next = journal.next_write().unwrap().unwrap();
        file.perform(&next).unwrap();

        assert!(matches!(under_way, JournalWrite::Append(_)));
        let (again, _) = open(place.path());
        assert_eq!(
            again.records(),
            [record(1), record(2), record(3), record(4)]
        );
    }

    #[test]
    fn the_repository_is_known_for_ever() {
        let place = tempfile::tempdir().unwrap();
        let (mut journal, file) = open(place.path());
        assert_eq!(journal.repository(), None);

        journal.know(Uuid::from_u128(3));
        let other = RunRecord {
            repository: Some(Uuid::from_u128(4)),
            ..record(1)
        };
        write(&mut journal, &file, other).unwrap();

        let (again, _) = open(place.path());
        assert_eq!(
            (again.repository(), again.records().len()),
            (Some(Uuid::from_u128(3)), 1)
        );
    }

    #[test]
    fn a_line_that_could_not_be_written_is_written_with_the_next() {
        let place = tempfile::tempdir().unwrap();
        let (mut journal, file) = open(place.path());
        write(&mut journal, &file, record(1)).unwrap();

        let directory = JournalFile {
            path: place.path().to_owned(),
        };
        write(&mut journal, &directory, record(2)).unwrap_err();
        write(&mut journal, &file, record(3)).unwrap();

        let (again, _) = open(place.path());
        assert_eq!(again.records(), [record(1), record(2), record(3)]);
    }

    #[test]
    fn a_line_that_was_cut_costs_itself_only() {
        let place = tempfile::tempdir().unwrap();
        let (mut journal, file) = open(place.path());
        write(&mut journal, &file, record(1)).unwrap();
        write(&mut journal, &file, record(2)).unwrap();
        let opened = fs::open_for_writing(&file.path).unwrap();
        opened.set_size(opened.status().unwrap().size - 10).unwrap();

        let (mut again, file) = open(place.path());
        write(&mut again, &file, record(3)).unwrap();

        let (last, _) = open(place.path());
        let seen: Vec<i64> = last
            .records()
            .iter()
            .map(|record| record.began.as_second())
            .collect();
        assert_eq!(seen, [1, 3]);
    }

    #[test]
    fn the_journal_does_not_grow_for_ever() {
        let place = tempfile::tempdir().unwrap();
        let (_, file) = open(place.path());
        let lines = i64::try_from(MOST + 5).unwrap();
        let text: String = (0..lines)
            .map(|second| line(&record(second)).unwrap())
            .collect();
        fs::write_durably(&file.path, text.as_bytes(), FILE_MODE).unwrap();

        let (journal, file) = open(place.path());
        assert_eq!(journal.records().len(), MOST);
        assert_eq!(journal.records().first(), Some(&record(5)));

        let bytes = fs::read_small(&file.path, MAX_BYTES).unwrap();
        let lines = bytes.split(|byte| *byte == b'\n').count() - 2;
        assert_eq!(lines, MOST, "and the repository");
    }
}
