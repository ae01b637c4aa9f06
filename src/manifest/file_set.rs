//! Sets of files: the files of one data directory, wherever they are kept.
//!
//! The rooms `log` and `proof` read every data directory through [`FileSet`]. [`Directories`] is a
//! data directory on a disk. A capture in progress and a stored backup bring sets of their own.

use std::path::{Path, PathBuf};

use super::path::{RelativePath, Root};
use crate::error::{Error, Kind, Result};
use crate::format::ReadAt;
use crate::format::names::INDEX_DIRECTORY;
use crate::fs::{self, Stamp};

/// One file of a set, as it was listed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileEntry {
    /// The file's path in the data directory.
    pub path: RelativePath,
    /// Length in bytes.
    pub size: u64,
    /// Permission bits.
    pub mode: u32,
    /// The state of the file when it was listed. `None` if the storage does not tell it.
    pub stamp: Option<Stamp>,
}

/// The files of one data directory: on a disk, in a capture in progress, or in a repository.
pub trait FileSet: Sync {
    /// All regular files, in the order of their paths.
    fn files(&self) -> Result<Vec<FileEntry>>;

    /// Opens one file for reading. Returns `None` if the set has no such file.
    fn open(&self, path: &RelativePath) -> Result<Option<Box<dyn ReadAt>>>;

    /// The name of a file of this set for an operator: a path or a URL.
    fn place_of(&self, path: &RelativePath) -> String;
}

/// A data directory on a disk: a node's, or a restored one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Directories {
    /// The db directory: chunks and checkpoints.
    pub db: PathBuf,
    /// The index directory, often `db/index`.
    pub index: PathBuf,
}

impl Directories {
    /// The directories of a node. Without `index`, the index directory is the server's default:
    /// `index` in the db directory.
    #[must_use]
    pub fn new(db: impl Into<PathBuf>, index: Option<PathBuf>) -> Self {
        let db = db.into();
        let index = index.unwrap_or_else(|| db.join(INDEX_DIRECTORY));
        Self { db, index }
    }

    /// The directory on the disk that a root stands for.
    #[must_use]
    pub fn root(&self, root: Root) -> &Path {
        match root {
            Root::Db => &self.db,
            Root::Index => &self.index,
        }
    }

    /// The path of a file on the disk.
    #[must_use]
    pub fn path_of(&self, path: &RelativePath) -> PathBuf {
        self.root(path.root()).join(path.below_root())
    }

    /// Adds the files of one root that a manifest can hold.
    fn walk(&self, root: Root, files: &mut Vec<FileEntry>) -> Result<()> {
        /// How deep below a root the server keeps files, in directories.
        const DEEPEST: usize = 3;

        let top = self.root(root);
        if fs::status(top)?.is_none() {
            return Ok(());
        }

        let found = fs::files_below(top, DEEPEST, |directory| self.is_walked(root, directory))
            .map_err(|error| {
                Error::new(Kind::Failed, "cannot list")
                    .at(top)
                    .because(error.source)
            })?;
        for (path, status) in found {
            let below = path.strip_prefix(top).ok().and_then(Path::to_str);
            // A name that no manifest can hold is not the server's.
            let Some(Ok(path)) = below.map(|below| RelativePath::new(root, below)) else {
                continue;
            };
            files.push(FileEntry {
                path,
                size: status.size,
                mode: status.mode,
                stamp: Some(Stamp::from(&status)),
            });
        }
        Ok(())
    }

    /// Whether the server may keep files in a directory below a root.
    fn is_walked(&self, root: Root, directory: &Path) -> bool {
        // The file system keeps this directory at its top, for root alone. It is not content.
        let is_lost_and_found = directory == self.root(root).join("lost+found");
        // The index directory may lie inside the db directory. It has a walk of its own.
        let is_index = root == Root::Db && directory == self.index;
        !is_lost_and_found && !is_index
    }
}

impl FileSet for Directories {
    fn files(&self) -> Result<Vec<FileEntry>> {
        let mut files = Vec::new();
        self.walk(Root::Db, &mut files)?;
        self.walk(Root::Index, &mut files)?;
        files.sort_by(|one, other| one.path.cmp(&other.path));
        Ok(files)
    }

    fn open(&self, path: &RelativePath) -> Result<Option<Box<dyn ReadAt>>> {
        match fs::open_source(&self.path_of(path)) {
            Ok(file) => Ok(Some(Box::new(file))),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    fn place_of(&self, path: &RelativePath) -> String {
        self.path_of(path).display().to_string()
    }
}
