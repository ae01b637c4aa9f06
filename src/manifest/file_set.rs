use std::ffi::OsString;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use super::path::{RelativePath, Root};
use crate::error::{Error, Kind, Result};
use crate::format::ReadAt;
use crate::format::names::INDEX_DIRECTORY;
use crate::fs::{self, FileKind, FileStatus, Stamp};

/// One file of a set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileEntry {
    /// Its place.
    pub path: RelativePath,
    /// Length in bytes.
    pub size: u64,
    /// Permission bits.
    pub mode: u32,
    /// Its state when it was listed, where the storage tells.
    pub stamp: Option<Stamp>,
}

/// The files of one data directory, wherever they are: on a disk, in a capture in progress, in a
/// repository.
pub trait FileSet: Sync {
    /// All regular files, in the order of their paths.
    ///
    /// # Errors
    /// What the storage reports.
    fn files(&self) -> Result<Vec<FileEntry>>;

    /// Opens one file for reading; none where the set has no such file.
    ///
    /// # Errors
    /// What the storage reports.
    fn open(&self, path: &RelativePath) -> Result<Option<Box<dyn ReadAt>>>;

    /// How to name a file of this set to an operator.
    fn place_of(&self, path: &RelativePath) -> String;
}

/// A data directory on a disk: a node's, or a restored one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Directories {
    /// Holds chunks and checkpoints.
    pub db: PathBuf,
    /// Holds the index; often `db/index`.
    pub index: PathBuf,
}

impl Directories {
    /// The server's default layout: the index inside of the db directory.
    #[must_use]
    pub fn new(db: impl Into<PathBuf>, index: Option<PathBuf>) -> Self {
        let db = db.into();
        let index = index.unwrap_or_else(|| db.join(INDEX_DIRECTORY));
        Self { db, index }
    }

    /// The directory of a root.
    #[must_use]
    pub fn root(&self, root: Root) -> &Path {
        match root {
            Root::Db => &self.db,
            Root::Index => &self.index,
        }
    }

    /// Where a file lies.
    #[must_use]
    pub fn path_of(&self, path: &RelativePath) -> PathBuf {
        self.root(path.root()).join(path.below_root())
    }

    fn walk(&self, root: Root, files: &mut Vec<FileEntry>) -> Result<()> {
        /// Directories below the root's that may hold something of the server's.
        const DEEPEST: usize = 3;
        let top = self.root(root);
        if fs::status(top)?.is_none() {
            return Ok(());
        }
        let mut directories = vec![(top.to_owned(), String::new(), 0)];
        while let Some((directory, below, depth)) = directories.pop() {
            let found = |name: OsString, status: FileStatus| {
                // Names that are not UTF-8, or that no manifest can hold, are not the server's.
                let name = name.to_str()?;
                match status.kind {
                    FileKind::Directory => Some(Found::Directory(name.to_owned())),
                    FileKind::File => {
                        let path = RelativePath::new(root, &format!("{below}{name}")).ok()?;
                        Some(Found::File(FileEntry {
                            path,
                            size: status.size,
                            mode: status.mode,
                            stamp: Some((&status).into()),
                        }))
                    }
                    FileKind::Link | FileKind::Special => None,
                }
            };
            let entries = match fs::list_by(&directory, found) {
                Ok(entries) => entries,
                // A live directory changes while it is walked.
                Err(error)
                    if matches!(
                        error.source.kind(),
                        ErrorKind::NotFound | ErrorKind::NotADirectory
                    ) =>
                {
                    continue;
                }
                Err(error) => {
                    return Err(Error::new(Kind::Failed, "cannot list")
                        .at(top)
                        .because(error.source));
                }
            };
            for entry in entries {
                match entry {
                    // What a file system keeps at its top is root's alone, and no content.
                    Found::Directory(name) if depth == 0 && name == "lost+found" => {}
                    Found::Directory(name) => {
                        let place = directory.join(&name);
                        // The index directory may lie inside the db directory: it is walked on its
                        // own.
                        if depth < DEEPEST && (root != Root::Db || place != self.index) {
                            directories.push((place, format!("{below}{name}/"), depth + 1));
                        }
                    }
                    Found::File(entry) => files.push(entry),
                }
            }
        }
        Ok(())
    }
}

/// What a directory holds, as far as it can be a server's.
enum Found {
    Directory(String),
    File(FileEntry),
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
