//! Remembers which repositories were seen at which path: one small file for each path, in the state
//! directory. A link has the path that was typed, and the paths that it leads to. So a disk that is not mounted never looks like a place for a new repository, and a
//! wrong disk never looks like the right one.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::clock::{self, Timestamp};
use crate::error::{Error, Kind, Result};
use crate::fs;
use crate::node::create_state_directory;
use crate::repository::Location;
use crate::settings::options::GeneralOptions;

/// The version of the file that this program writes.
const FORMAT: u32 = 1;
const MAX_BYTES: u64 = 64 * 1024;
const FILE_MODE: u32 = 0o600;

/// What is remembered of a place.
#[derive(Debug)]
pub(super) struct SeenRepositories {
    /// Each path that leads to the place. Empty if there is no state directory.
    paths: Vec<RememberedPath>,
    /// The repositories that were seen at any of them.
    seen: Vec<SeenRepository>,
}

/// What is remembered of one path.
#[derive(Debug)]
struct RememberedPath {
    path: PathBuf,
    file: PathBuf,
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
    /// Reads what is remembered of a path, and of all paths that its links lead to. Without a state
    /// directory nothing is.
    ///
    /// # Errors
    /// If a file is there and cannot be read: then it is not known what was seen.
    pub(super) fn at(path: &Path, general: &GeneralOptions) -> Result<Self> {
        let mut remembered = Self {
            paths: Vec::new(),
            seen: Vec::new(),
        };
        let Ok(directory) = general.state_directory() else {
            return Ok(remembered);
        };

        for path in paths_to(path) {
            let file = directory.join(file_name(&path));
            let seen = read(&file)?;
            for repository in &seen {
                remembered.add(repository);
            }
            remembered.paths.push(RememberedPath { path, file, seen });
        }
        Ok(remembered)
    }

    /// The repositories that were seen, in the order of their first time at a path.
    pub(super) fn all(&self) -> &[SeenRepository] {
        &self.seen
    }

    /// Whether a repository of another id was seen, and this one never, at a path that leads there.
    pub(super) fn is_another(&self, id: Uuid) -> bool {
        let is_new = |path: &RememberedPath| !path.seen.is_empty() && !contains(&path.seen, id);
        let is_new_at_a_path = self.paths.iter().any(is_new);

        is_new_at_a_path || (!self.seen.is_empty() && !contains(&self.seen, id))
    }

    /// Adds what an earlier version of kbackup remembers elsewhere, if nothing is remembered here.
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
        self.add(&SeenRepository {
            id,
            since: Some(clock::now()),
        });

        for path in &mut self.paths {
            for repository in &self.seen {
                if repository.id == id {
                    path.remember(repository)?;
                }
            }
        }
        Ok(())
    }

    fn add(&mut self, repository: &SeenRepository) {
        if !contains(&self.seen, repository.id) {
            self.seen.push(repository.clone());
        }
    }
}

impl RememberedPath {
    fn remember(&mut self, repository: &SeenRepository) -> Result<()> {
        if contains(&self.seen, repository.id) {
            return Ok(());
        }
        self.seen.push(repository.clone());

        let content = SeenFile {
            format: FORMAT,
            place: self.path.display().to_string(),
            repositories: self.seen.clone(),
        };
        let text = serde_json::to_string_pretty(&content).map_err(|error| {
            Error::new(Kind::Failed, "cannot write which repository was seen").because(error)
        })?;

        create_state_directory(fs::parent(&self.file))?;
        Ok(fs::write_durably(
            &self.file,
            (text + "\n").as_bytes(),
            FILE_MODE,
        )?)
    }
}

fn contains(seen: &[SeenRepository], id: Uuid) -> bool {
    seen.iter().any(|seen| seen.id == id)
}

/// The paths under which a place is remembered: as it was typed, absolute and without a slash at its
/// end, and what its links make of it. All of them count, because a disk that is not mounted takes
/// its links away. A URL has no links.
fn paths_to(typed: &Path) -> Vec<PathBuf> {
    if Location::is_url(typed) {
        return vec![typed.to_owned()];
    }
    fs::spellings(typed)
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
