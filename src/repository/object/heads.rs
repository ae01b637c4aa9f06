//! The head of a backup: the object that makes it a backup.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::sealed;
use super::sections::Group;
use crate::clock::Timestamp;
use crate::error::{Error, Kind, Result};
use crate::manifest::{Blake3Hash, Head, Label};

/// The format of heads that this program writes, and the newest that it reads.
const FORMAT: u32 = 1;

/// What stands under the key of a head.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum HeadObject {
    /// A backup.
    Backup(Box<BackupHead>),
    /// A backup that was removed. Its key stays taken, so that no number is given twice.
    Removed(Removed),
}

/// The head of a backup.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct BackupHead {
    /// The head of the manifest.
    pub(super) head: Head,
    /// The head before this one. `None` for the first of a repository.
    pub(super) previous: Option<Previous>,
    /// The run that made it. Heads of two runs may be equal otherwise, and each would take the
    /// other's for its own.
    pub(super) run: Option<Uuid>,
    /// The files.
    pub(super) groups: Vec<Group>,
}

/// A removed backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Removed {
    pub(super) label: Label,
    pub(super) at: Timestamp,
}

/// The newest head when another one was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Previous {
    pub(super) sequence: u64,
    /// BLAKE3 of the object.
    pub(super) hash: Blake3Hash,
}

/// The text of a head.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct HeadText {
    format: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    head: Option<Head>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    previous: Option<Previous>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    run: Option<Uuid>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    sections: Vec<Group>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    removed: Option<Removed>,
}

/// The part of the text that every format has.
#[derive(Deserialize)]
struct AnyFormat {
    format: u32,
}

impl HeadObject {
    /// The bytes of the object.
    pub(super) fn to_bytes(&self) -> Result<Vec<u8>> {
        sealed::seal(&HeadText::from(self.clone()))
    }

    /// Reads the bytes of an object.
    ///
    /// # Errors
    /// `StoredCorrupt` if they are no head; `Refused` if a newer kbackup wrote them. The caller adds
    /// the place.
    pub(super) fn from_bytes(object: &[u8]) -> Result<Self> {
        let text = sealed::unsealed(object).map_err(corrupt)?;
        let any: AnyFormat =
            serde_json::from_slice(&text).map_err(|error| corrupt(error.to_string()))?;
        if any.format > FORMAT {
            let format = any.format;
            let what = format!("the manifest has format {format}, this program knows {FORMAT}");
            return Err(Error::new(Kind::Refused, what).hint("use the newer kbackup that wrote it"));
        }

        let text: HeadText =
            serde_json::from_slice(&text).map_err(|error| corrupt(error.to_string()))?;
        text.try_into()
    }
}

impl From<HeadObject> for HeadText {
    fn from(object: HeadObject) -> Self {
        let mut text = Self {
            format: FORMAT,
            head: None,
            previous: None,
            run: None,
            sections: Vec::new(),
            removed: None,
        };
        match object {
            HeadObject::Backup(backup) => {
                text.head = Some(backup.head);
                text.previous = backup.previous;
                text.run = backup.run;
                text.sections = backup.groups;
            }
            HeadObject::Removed(removed) => text.removed = Some(removed),
        }
        text
    }
}

impl TryFrom<HeadText> for HeadObject {
    type Error = Error;

    fn try_from(text: HeadText) -> Result<Self> {
        match (text.head, text.removed) {
            (Some(head), None) => {
                let mut files: u64 = 0;
                for group in &text.sections {
                    files = files.saturating_add(group.files);
                }
                if files != head.totals.files {
                    return Err(corrupt("its sections do not have as many files as it says"));
                }
                Ok(Self::Backup(Box::new(BackupHead {
                    head,
                    previous: text.previous,
                    run: text.run,
                    groups: text.sections,
                })))
            }
            (None, Some(removed)) => Ok(Self::Removed(removed)),
            _ => Err(corrupt("it is neither a backup nor a removed one")),
        }
    }
}

fn corrupt(why: impl Into<String>) -> Error {
    Error::new(Kind::StoredCorrupt, "the manifest is damaged").because(why.into())
}
