//! The mark that a restore leaves in a db directory.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{Label, RestoredFrom};
use crate::clock::Timestamp;
use crate::error::{Error, Kind, Result};
use crate::fs;

/// The content of `kbackup-restore.json`. It says that a restore is under way, and later what the
/// restore brought back.
///
/// People, the next restore and the next backup read it. It does not keep a server from starting
/// from half a restore: the start guard does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestoreMark {
    /// Version of this format.
    pub format: u32,
    /// How far the restore came.
    pub state: RestoreState,
    /// The repository's id.
    pub repository: Uuid,
    /// The backup.
    pub label: Label,
    /// The program that restores, such as "kbackup 0.1.0".
    pub tool: String,
    /// When the restore began.
    pub since: Timestamp,
    /// When the restore ended. `None` while it is under way.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub finished: Option<Timestamp>,
}

/// How far a restore came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RestoreState {
    /// Files are being placed.
    InProgress,
    /// All files are placed and proven. Only the checkpoints may still be those of the start guard.
    Finished,
}

impl RestoreMark {
    /// The name of the file in the db directory. No server reads it.
    pub const NAME: &'static str = "kbackup-restore.json";

    const FORMAT: u32 = 1;
    const MAX_BYTES: u64 = 64 * 1024;

    /// The mark of a restore that begins.
    #[must_use]
    pub fn begin(repository: Uuid, label: Label, since: Timestamp) -> Self {
        let tool = concat!("kbackup ", env!("CARGO_PKG_VERSION")).to_owned();
        Self {
            format: Self::FORMAT,
            state: RestoreState::InProgress,
            repository,
            label,
            tool,
            since,
            finished: None,
        }
    }

    /// The same mark once everything is in place.
    #[must_use]
    pub fn finish(self, at: Timestamp) -> Self {
        Self {
            state: RestoreState::Finished,
            finished: Some(at),
            ..self
        }
    }

    /// The path of the file in a db directory.
    #[must_use]
    pub fn path(db: &Path) -> PathBuf {
        db.join(Self::NAME)
    }

    /// Reads the mark of a db directory. Returns `None` if no restore left one.
    ///
    /// # Errors
    /// [`Kind::Failed`] if the file cannot be read, or is not such a mark.
    pub fn read(db: &Path) -> Result<Option<Self>> {
        let path = Self::path(db);
        let bytes = match fs::read_small(&path, Self::MAX_BYTES) {
            Ok(bytes) => bytes,
            Err(error) if error.is_not_found() => return Ok(None),
            Err(error) => return Err(error.into()),
        };

        match serde_json::from_slice(&bytes) {
            Ok(mark) => Ok(Some(mark)),
            Err(error) => {
                let what = "the mark of a restore is damaged";
                Err(Error::new(Kind::Failed, what).at(&path).because(error))
            }
        }
    }

    /// Writes the mark into a db directory, durably.
    ///
    /// # Errors
    /// What the file system reports.
    pub fn write(&self, db: &Path) -> Result<()> {
        let mut text = serde_json::to_string_pretty(self).map_err(|error| {
            Error::new(Kind::Failed, "cannot write the mark of a restore").because(error)
        })?;
        text.push('\n');

        fs::write_durably(&Self::path(db), text.as_bytes(), 0o644)?;
        Ok(())
    }

    /// What a later backup of the directory says of its origin. Returns `None` while the restore is
    /// under way.
    #[must_use]
    pub fn restored_from(&self) -> Option<RestoredFrom> {
        if self.state != RestoreState::Finished {
            return None;
        }
        Some(RestoredFrom {
            repository: self.repository,
            label: self.label.clone(),
            at: self.finished?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_finished_restore_is_an_origin() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(RestoreMark::read(directory.path()).unwrap(), None);
        let at = "2026-11-21T07:00:00Z".parse().unwrap();
        let mark = RestoreMark::begin(Uuid::nil(), "20261121T060000Z-full".parse().unwrap(), at);
        mark.write(directory.path()).unwrap();
        let read = RestoreMark::read(directory.path()).unwrap().unwrap();
        assert_eq!(read, mark);
        assert_eq!(read.restored_from(), None);
        mark.finish(at).write(directory.path()).unwrap();
        let read = RestoreMark::read(directory.path()).unwrap().unwrap();
        assert_eq!(read.restored_from().unwrap().at, at);
    }

    #[test]
    fn a_damaged_mark_is_an_error() {
        let directory = tempfile::tempdir().unwrap();
        fs::write_durably(&RestoreMark::path(directory.path()), b"{", 0o644).unwrap();
        assert!(RestoreMark::read(directory.path()).is_err());
    }
}
