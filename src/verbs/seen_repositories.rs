//! Remembers which repositories were seen at which path: one small file for each path, in the state
//! directory. So a disk that is not mounted never looks like a place for a new repository, and a
//! wrong disk never looks like the right one.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::clock::{self, Timestamp};
use crate::error::{Error, Kind, Result};
use crate::fs;
use crate::node::create_state_directory;
use crate::repository::{Location, absolute_place};
use crate::settings::options::GeneralOptions;

/// The version of the file that this program writes.
const FORMAT: u32 = 1;
const MAX_BYTES: u64 = 64 * 1024;
const FILE_MODE: u32 = 0o600;

/// What is remembered of one path.
#[derive(Debug)]
pub(super) struct SeenRepositories {
    /// The file; `None` if there is no state directory.
    file: Option<PathBuf>,
    place: PathBuf,
    seen: Vec<SeenRepository>,
}

/// A repository that was at the path once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct SeenRepository {
    pub(super) id: Uuid,
    /// When it was seen for the first time; `None` if only the agent's journal names it.
    pub(super) since: Option<Timestamp>,
}

/// The content of the file.
#[derive(Serialize, Deserialize)]
struct SeenFile {
    format: u32,
    /// The path, for an operator who reads the file.
    place: String,
    repositories: Vec<SeenRepository>,
}

impl SeenRepositories {
    /// Reads what is remembered of a path. Without a state directory nothing is.
    ///
    /// # Errors
    /// If the file is there and cannot be read: then it is not known what was seen.
    pub(super) fn at(path: &Path, general: &GeneralOptions) -> Result<Self> {
        let place = absolute(path);
        let mut remembered = Self {
            file: None,
            place,
            seen: Vec::new(),
        };
        let Ok(directory) = general.state_directory() else {
            return Ok(remembered);
        };

        let file = directory.join(file_name(&remembered.place));
        remembered.seen = read(&file)?;
        remembered.file = Some(file);
        Ok(remembered)
    }

    /// The repositories that were seen, in the order of their first time.
    pub(super) fn all(&self) -> &[SeenRepository] {
        &self.seen
    }

    /// Whether a repository of another id was seen, and this one never.
    pub(super) fn is_another(&self, id: Uuid) -> bool {
        !self.seen.is_empty() && self.seen.iter().all(|seen| seen.id != id)
    }

    /// Adds what an earlier version of kbackup remembers elsewhere, if this file knows nothing.
    pub(super) fn or_known(mut self, id: Option<Uuid>) -> Self {
        if self.seen.is_empty()
            && let Some(id) = id
        {
            self.seen.push(SeenRepository { id, since: None });
        }
        self
    }

    /// Remembers that a repository was seen, durably.
    ///
    /// # Errors
    /// If the state directory cannot be made or written.
    pub(super) fn remember(&mut self, id: Uuid) -> Result<()> {
        let Some(file) = &self.file else {
            return Ok(());
        };
        if self.seen.iter().any(|seen| seen.id == id) && fs::status(file)?.is_some() {
            return Ok(());
        }

        if self.seen.iter().all(|seen| seen.id != id) {
            self.seen.push(SeenRepository {
                id,
                since: Some(clock::now()),
            });
        }
        let content = SeenFile {
            format: FORMAT,
            place: self.place.display().to_string(),
            repositories: self.seen.clone(),
        };
        let text = serde_json::to_string_pretty(&content).map_err(|error| {
            Error::new(Kind::Failed, "cannot write which repository was seen").because(error)
        })?;

        create_state_directory(fs::parent(file))?;
        Ok(fs::write_durably(
            file,
            (text + "\n").as_bytes(),
            FILE_MODE,
        )?)
    }
}

/// The path as it is remembered: absolute, and without a slash at its end. Links stay, because
/// their targets vanish with an unmounted disk.
fn absolute(path: &Path) -> PathBuf {
    let absolute = absolute_place(path);
    if Location::is_url(path) {
        return absolute;
    }
    absolute.components().collect()
}

/// The name does not end with `.json`, because release records do.
fn file_name(place: &Path) -> String {
    let hash = blake3::hash(place.as_os_str().as_encoded_bytes()).to_hex();
    format!("repository-{}.seen", hash.get(..16).unwrap_or_default())
}

fn read(file: &Path) -> Result<Vec<SeenRepository>> {
    let bytes = match fs::read_small(file, MAX_BYTES) {
        Ok(bytes) => bytes,
        Err(error) if error.is_not_found() => return Ok(Vec::new()),
        Err(error) => {
            return Err(
                Error::from(error).with_what("cannot read which repository was seen here before")
            );
        }
    };

    let parsed = serde_json::from_slice::<SeenFile>(&bytes);
    match parsed {
        Ok(parsed) => Ok(parsed.repositories),
        Err(error) => Err(Error::new(
            Kind::StoredCorrupt,
            "the file that says which repository was seen is damaged",
        )
        .at(file)
        .because(error)
        .hint("check that the right disk is mounted, and then remove this file")),
    }
}
