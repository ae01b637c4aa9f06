//! What the agent has done, one line of JSON a run: its only memory. Losing it does no harm: what
//! there is to know of backups stands in the repository.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::clock::Timestamp;
use crate::error::{Error, Kind, Result};
use crate::fs;
use crate::manifest::Label;

/// So many runs are remembered: with one every five minutes, five weeks.
const MOST: usize = 10_000;
/// The file is written anew when it has grown by so many lines.
const SLACK: usize = 2_000;
const MAX_BYTES: u64 = 256 * 1024 * 1024;
const FILE_MODE: u32 = 0o600;

/// What the agent does by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Job {
    /// `kbackup full`.
    Full,
    /// `kbackup diff`.
    Diff,
    /// `kbackup verify`.
    Verify,
    /// `kbackup expire`.
    Expire,
}

impl Job {
    /// All, in the order in which they go when several are due at once.
    pub const ALL: [Self; 4] = [Self::Full, Self::Diff, Self::Verify, Self::Expire];

    /// The verb that does it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Diff => "diff",
            Self::Verify => "verify",
            Self::Expire => "expire",
        }
    }

    /// Whether it makes a backup.
    #[must_use]
    pub const fn is_backup(self) -> bool {
        matches!(self, Self::Full | Self::Diff)
    }
}

impl std::fmt::Display for Job {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// Why a job was started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Trigger {
    /// The repository held no backup.
    First,
    /// Its time had come.
    Schedule,
    /// So much was written, or so long ago, that it was due.
    Change,
    /// The one before had failed.
    Retry,
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "outcome")]
pub enum Outcome {
    /// It did what it should.
    Done {
        /// The backup that was made.
        label: Option<Label>,
        /// What the operator should know of it.
        warnings: Vec<String>,
    },
    /// Nothing had been written since the newest backup: none was made.
    UpToDate,
    /// Another agent of the cluster had just made one.
    Skipped {
        /// Whose backup stands for this one.
        because: String,
    },
    /// It was told to end: by a signal, or because its hours were over.
    Interrupted {
        /// By whom.
        why: String,
    },
    /// It failed.
    Failed {
        /// The word for the kind of failure, as in JSON errors.
        kind: String,
        /// The exit code that the command would have had.
        exit_code: u8,
        /// What failed, on what, and why.
        message: String,
        /// What helps.
        hints: Vec<String>,
    },
}

impl Outcome {
    /// How it ended, in a word.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Done { .. } => "done",
            Self::UpToDate => "up-to-date",
            Self::Skipped { .. } => "skipped",
            Self::Interrupted { .. } => "interrupted",
            Self::Failed { .. } => "failed",
        }
    }
}

/// A time during which something was taken from the node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pause {
    /// `scavenge`, `auto-scavenge`.
    pub what: String,
    /// When it was taken.
    pub began: Timestamp,
    /// How long it was away, in milliseconds; none where it was not given back by this run.
    pub milliseconds: Option<u64>,
}

/// One run of a job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// What was done.
    pub job: Job,
    /// Why then.
    pub trigger: Trigger,
    /// When it began.
    pub began: Timestamp,
    /// When it ended.
    pub ended: Timestamp,
    /// How it ended.
    #[serde(flatten)]
    pub outcome: Outcome,
    /// The repository it worked on, as far as it got there.
    pub repository: Option<Uuid>,
    /// Bytes read from the node's files; for a verification, bytes hashed.
    pub bytes_read: u64,
    /// Bytes newly written to the repository; for an expiry, bytes that came free.
    pub bytes_stored: u64,
    /// Files copied, in whole or in part; for an expiry, backups removed.
    pub files_copied: u64,
    /// Files taken over from an earlier backup.
    pub files_linked: u64,
    /// Why the procedure started over, each time.
    pub retries: Vec<String>,
    /// What was taken from the node meanwhile.
    pub pauses: Vec<Pause>,
}

impl Record {
    /// Whether it did what it should, or found nothing to do.
    #[must_use]
    pub const fn is_success(&self) -> bool {
        matches!(
            self.outcome,
            Outcome::Done { .. } | Outcome::UpToDate | Outcome::Skipped { .. }
        )
    }

    /// Whether it failed, and not only was told to end, or had to wait.
    #[must_use]
    pub fn is_failure(&self) -> bool {
        matches!(self.outcome, Outcome::Failed { .. }) && !self.had_to_wait()
    }

    /// Whether another run held the repository or the node: it comes later, and nothing is wrong.
    #[must_use]
    pub fn had_to_wait(&self) -> bool {
        matches!(&self.outcome, Outcome::Failed { kind, .. } if kind == Kind::Locked.name())
    }

    /// Whole seconds from its beginning to its end; a clock that went back makes it 0.
    #[must_use]
    pub fn seconds(&self) -> u64 {
        u64::try_from(
            self.ended
                .as_second()
                .saturating_sub(self.began.as_second()),
        )
        .unwrap_or(0)
    }
}

/// The runs that are remembered, oldest first.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    records: Vec<Record>,
    /// The repository that was seen first.
    repository: Option<Uuid>,
    /// Lines in the file that are not remembered any more.
    slack: usize,
}

/// A line that is no run: the repository that was seen at this place.
#[derive(Serialize, Deserialize)]
struct Known {
    knows: Uuid,
}

impl Journal {
    /// Opens the journal of the agent that keeps backups at a place. Lines that cannot be read are
    /// passed over: a crash may have cut the last.
    ///
    /// # Errors
    /// What the file system reports.
    pub fn open(state_directory: &Path, repository: &Path) -> Result<Self> {
        fs::create_directories_durably(state_directory, 0o700, 0o700)?;
        let place = std::path::absolute(repository).unwrap_or_else(|_| repository.to_owned());
        let name = blake3::hash(place.as_os_str().as_encoded_bytes()).to_hex();
        let path = state_directory.join(format!(
            "agent-{}.jsonl",
            name.get(..16).unwrap_or_default()
        ));
        let bytes = match fs::read_small(&path, MAX_BYTES) {
            Ok(bytes) => bytes,
            Err(error) if error.is_not_found() => Vec::new(),
            Err(error) => return Err(error.into()),
        };
        let mut lines = 0;
        let mut records = Vec::new();
        let mut known: Option<Uuid> = None;
        for line in bytes
            .split(|byte| *byte == b'\n')
            .filter(|line| !line.is_empty())
        {
            match serde_json::from_slice::<Known>(line) {
                Ok(line) if known.is_none() => known = Some(line.knows),
                _ => {
                    lines += 1;
                    records.extend(serde_json::from_slice::<Record>(line).ok());
                }
            }
        }
        let repository = known.or_else(|| records.iter().find_map(|record| record.repository));
        let mut journal = Self {
            path,
            slack: lines - records.len(),
            records,
            repository,
        };
        journal.forget_the_oldest();
        // Also after a crash in the middle of a line: the next one must not be joined to it.
        if journal.slack > 0 {
            journal.rewrite()?;
        }
        Ok(journal)
    }

    /// The runs, oldest first.
    #[must_use]
    pub fn records(&self) -> &[Record] {
        &self.records
    }

    /// The repository that is kept: an empty directory, or another repository, in its place is a
    /// disk that is not mounted.
    #[must_use]
    pub const fn repository(&self) -> Option<Uuid> {
        self.repository
    }

    /// Remembers the repository that is kept, durably.
    ///
    /// # Errors
    /// As [`Self::write`].
    pub fn know(&mut self, repository: Uuid) -> Result<()> {
        self.repository = Some(repository);
        self.rewrite()
    }

    /// The runs of a job, newest first.
    pub fn of(&self, job: Job) -> impl Iterator<Item = &Record> {
        self.records
            .iter()
            .rev()
            .filter(move |record| record.job == job)
    }

    /// Remembers a run, durably.
    ///
    /// # Errors
    /// What the file system reports; the run is remembered in memory nevertheless.
    pub fn write(&mut self, record: Record) -> Result<()> {
        let line = line(&record)?;
        let is_first_of_its_repository = self.repository.is_none() && record.repository.is_some();
        self.repository = self.repository.or(record.repository);
        self.records.push(record);
        self.forget_the_oldest();
        if self.slack >= SLACK || is_first_of_its_repository {
            return self.rewrite();
        }
        let appended = self.append(&line);
        if appended.is_err() {
            // Half a line may be there: the next one must not be joined to it, and this one is
            // missing.
            self.slack = SLACK;
        }
        appended
    }

    #[cfg(test)]
    pub(super) fn remember(&mut self, record: Record) {
        self.records.push(record);
    }

    fn append(&self, line: &str) -> Result<()> {
        let file = fs::open_or_create(&self.path, FILE_MODE)?;
        let end = file.status()?.size;
        file.write_all_at(end, line.as_bytes())?;
        file.sync()?;
        Ok(())
    }

    fn forget_the_oldest(&mut self) {
        let excess = self.records.len().saturating_sub(MOST);
        self.records.drain(..excess);
        self.slack += excess;
    }

    fn rewrite(&mut self) -> Result<()> {
        // Until it is done.
        self.slack = SLACK;
        let known = self
            .repository
            .map(|knows| line(&Known { knows }))
            .transpose()?
            .unwrap_or_default();
        let text = self.records.iter().map(line).collect::<Result<String>>()?;
        fs::write_durably(&self.path, (known + &text).as_bytes(), FILE_MODE)?;
        self.slack = 0;
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

    fn record(second: i64) -> Record {
        Record {
            job: Job::Diff,
            trigger: Trigger::Schedule,
            began: Timestamp::from_second(second).unwrap(),
            ended: Timestamp::from_second(second + 5).unwrap(),
            outcome: Outcome::Done {
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
            }],
        }
    }

    #[test]
    fn what_was_written_is_remembered() {
        let place = tempfile::tempdir().unwrap();
        let mut journal = Journal::open(place.path(), Path::new("/repo")).unwrap();
        for second in 0..3 {
            journal.write(record(second)).unwrap();
        }
        let again = Journal::open(place.path(), Path::new("/repo")).unwrap();
        assert_eq!(again.records(), journal.records());
        assert_eq!(again.of(Job::Diff).next(), Some(&record(2)));
        assert!(
            Journal::open(place.path(), Path::new("/other"))
                .unwrap()
                .records()
                .is_empty()
        );
    }

    #[test]
    fn the_repository_is_known_for_ever() {
        let place = tempfile::tempdir().unwrap();
        let mut journal = Journal::open(place.path(), Path::new("/repo")).unwrap();
        assert_eq!(journal.repository(), None);
        journal.know(Uuid::from_u128(3)).unwrap();
        journal
            .write(Record {
                repository: Some(Uuid::from_u128(4)),
                ..record(1)
            })
            .unwrap();
        let again = Journal::open(place.path(), Path::new("/repo")).unwrap();
        assert_eq!(
            (again.repository(), again.records().len()),
            (Some(Uuid::from_u128(3)), 1)
        );
    }

    #[test]
    fn a_line_that_could_not_be_written_is_written_with_the_next() {
        let place = tempfile::tempdir().unwrap();
        let mut journal = Journal::open(place.path(), Path::new("/repo")).unwrap();
        journal.write(record(1)).unwrap();
        let path = std::mem::replace(&mut journal.path, place.path().to_owned());
        journal.write(record(2)).unwrap_err();
        journal.path = path;
        journal.write(record(3)).unwrap();
        assert_eq!(
            Journal::open(place.path(), Path::new("/repo"))
                .unwrap()
                .records(),
            [record(1), record(2), record(3)]
        );
    }

    #[test]
    fn a_line_that_was_cut_costs_itself_only() {
        let place = tempfile::tempdir().unwrap();
        let mut journal = Journal::open(place.path(), Path::new("/repo")).unwrap();
        journal.write(record(1)).unwrap();
        journal.write(record(2)).unwrap();
        let file = fs::open_for_writing(&journal.path).unwrap();
        file.set_size(file.status().unwrap().size - 10).unwrap();
        let mut again = Journal::open(place.path(), Path::new("/repo")).unwrap();
        again.write(record(3)).unwrap();
        let seen: Vec<i64> = Journal::open(place.path(), Path::new("/repo"))
            .unwrap()
            .records()
            .iter()
            .map(|record| record.began.as_second())
            .collect();
        assert_eq!(seen, [1, 3]);
    }

    #[test]
    fn it_does_not_grow_for_ever() {
        let place = tempfile::tempdir().unwrap();
        let path = Journal::open(place.path(), Path::new("/repo"))
            .unwrap()
            .path;
        let lines = i64::try_from(MOST + 5).unwrap();
        let text: String = (0..lines)
            .map(|second| line(&record(second)).unwrap())
            .collect();
        fs::write_durably(&path, text.as_bytes(), FILE_MODE).unwrap();
        let journal = Journal::open(place.path(), Path::new("/repo")).unwrap();
        assert_eq!(journal.records().len(), MOST);
        assert_eq!(journal.records().first(), Some(&record(5)));
        assert_eq!(
            fs::read_small(&path, MAX_BYTES)
                .unwrap()
                .split(|byte| *byte == b'\n')
                .count()
                - 2,
            MOST,
            "and the repository"
        );
    }
}
