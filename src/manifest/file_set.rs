use std::path::{Path, PathBuf};

use super::path::{RelativePath, Root};
use crate::error::{Error, Kind, Result};
use crate::format::ReadAt;
use crate::fs;

/// One file of a set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileEntry {
    /// Its place.
    pub path: RelativePath,
    /// Length in bytes.
    pub size: u64,
    /// Permission bits.
    pub mode: u32,
}

/// The files of one data directory, wherever they are: on a disk, in a capture in progress, in a repository.
pub trait FileSet {
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
        let index = index.unwrap_or_else(|| db.join("index"));
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
        let top = self.root(root);
        if fs::status(top)?.is_none() {
            return Ok(());
        }
        // The index directory may lie inside the db directory: it is walked on its own.
        let walker = walkdir::WalkDir::new(top).follow_links(false).min_depth(1).max_depth(4).into_iter();
        // What a file system keeps at its top is root's alone, and no content.
        let is_content = |entry: &walkdir::DirEntry| entry.depth() != 1 || entry.file_name() != "lost+found";
        for entry in walker.filter_entry(|entry| is_content(entry) && (root != Root::Db || entry.path() != self.index)) {
            let entry = match entry {
                Ok(entry) => entry,
                // A live directory changes while it is walked.
                Err(error) if error.io_error().is_some_and(|error| error.kind() == std::io::ErrorKind::NotFound) => continue,
                Err(error) => return Err(Error::new(Kind::Failed, "cannot list").at(top).because(error)),
            };
            let Some(status) = fs::status(entry.path())?.filter(|status| status.kind == fs::FileKind::File) else { continue };
            // Names that are not UTF-8, or that no manifest can hold, are not the server's.
            let path = entry.path().strip_prefix(top).ok().and_then(Path::to_str).and_then(|rest| RelativePath::new(root, rest).ok());
            if let Some(path) = path {
                files.push(FileEntry { path, size: status.size, mode: status.mode });
            }
        }
        Ok(())
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
