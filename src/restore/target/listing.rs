//! Lists the files and directories of a restore target.

use std::path::{Path, PathBuf};

use crate::error::{Error, Kind, Result};
use crate::fs::{self, FileKind};
use crate::manifest::{Directories, RelativePath, Root};

/// Everything below the two directories of a target, `lost+found` aside.
pub(super) struct TargetListing {
    pub(super) db_exists: bool,
    pub(super) files: Vec<ListedFile>,
    /// Directories, without the ones that lead to the index directory.
    pub(super) directories: Vec<PathBuf>,
}

pub(super) struct ListedFile {
    pub(super) path: PathBuf,
    /// The path as a manifest would hold it. `None` if no manifest can hold it.
    pub(super) place: Option<RelativePath>,
    pub(super) size: u64,
    pub(super) is_regular: bool,
}

impl TargetListing {
    /// # Errors
    /// `Refused` if one of the two paths is not a directory.
    pub(super) fn read(target: &Directories) -> Result<Self> {
        let mut listing = Self {
            db_exists: is_existing_directory(&target.db)?,
            files: Vec::new(),
            directories: Vec::new(),
        };
        let index_exists = is_existing_directory(&target.index)?;

        if listing.db_exists {
            let walk = Walk::new(Root::Db, target);
            walk.directory(&target.db, &mut listing)?;
        }
        if index_exists {
            let walk = Walk::new(Root::Index, target);
            walk.directory(&target.index, &mut listing)?;
        }
        Ok(listing)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.files.is_empty() && self.directories.is_empty()
    }

    /// One path of the content, for a message.
    pub(super) fn first(&self) -> &Path {
        if let Some(file) = self.files.first() {
            return &file.path;
        }
        match self.directories.first() {
            Some(directory) => directory,
            None => Path::new(""),
        }
    }

    /// Whether a directory has a file in it, at any depth.
    pub(super) fn holds_a_file(&self, directory: &Path) -> bool {
        self.files
            .iter()
            .any(|file| file.path.starts_with(directory))
    }
}

fn is_existing_directory(path: &Path) -> Result<bool> {
    match fs::status(path)? {
        None => Ok(false),
        Some(status) if status.kind == FileKind::Directory => Ok(true),
        Some(_) => Err(Error::new(Kind::Refused, "the target is not a directory")
            .at(path)
            .hint("name a directory, or a path where there is nothing yet")),
    }
}

/// A walk through one of the two directories.
struct Walk<'a> {
    root: Root,
    top: &'a Path,
    index: &'a Path,
}

impl<'a> Walk<'a> {
    fn new(root: Root, target: &'a Directories) -> Self {
        let top = match root {
            Root::Db => &target.db,
            Root::Index => &target.index,
        };
        Self {
            root,
            top,
            index: &target.index,
        }
    }

    fn directory(&self, directory: &Path, found: &mut TargetListing) -> Result<()> {
        for entry in fs::list(directory)? {
            let path = directory.join(&entry.name);
            if entry.status.kind != FileKind::Directory {
                found.files.push(ListedFile {
                    place: self.place_of(&path),
                    path,
                    size: entry.status.size,
                    is_regular: entry.status.kind == FileKind::File,
                });
                continue;
            }

            if directory == self.top && entry.name == "lost+found" {
                continue;
            }
            // The index directory is listed on its own. The directories that lead to it do not
            // count as content.
            if self.root == Root::Db && self.index.starts_with(&path) {
                if path != self.index {
                    self.directory(&path, found)?;
                }
                continue;
            }
            self.directory(&path, found)?;
            found.directories.push(path);
        }
        Ok(())
    }

    fn place_of(&self, path: &Path) -> Option<RelativePath> {
        let below = path.strip_prefix(self.top).ok()?.to_str()?;
        RelativePath::new(self.root, below).ok()
    }
}
