use std::path::Path;

use uuid::Uuid;

use super::layout::{MANIFEST, expired_label, has_directories};
use super::stored::Files;
use crate::error::{Error, Kind, Result};
use crate::format::Md5Hash;
use crate::format::names::{DbFile, IndexFile};
use crate::fs::{self, FileKind, ReadAt};
use crate::manifest::RelativePath;
use crate::repository::Interrupted;
use crate::run::Run;
use crate::transfer::{self, Digest};

/// What interrupted runs left in `incoming/`, the newest first.
#[derive(Debug, Default)]
pub(super) struct Leftovers {
    runs: Vec<Files>,
}

impl Leftovers {
    /// Finds them, and touches nothing.
    ///
    /// # Errors
    /// What the file system reports.
    pub(super) fn found(incoming: &Path) -> Result<Self> {
        let entries = fs::list(incoming)?;
        // Ids begin with the time.
        Ok(Self {
            runs: entries
                .iter()
                .rev()
                .filter(|entry| is_run(entry))
                .map(|entry| Files::new(incoming.join(&entry.name)))
                .collect(),
        })
    }

    /// Finds them, and removes whatever else is there. Only for whom holds the lock.
    ///
    /// # Errors
    /// What the file system reports.
    pub(super) fn sort_out(incoming: &Path, run: &Run) -> Result<Self> {
        let mut runs = Vec::new();
        // The rest of a backup that was removed is swept elsewhere, or cannot be: then it waits.
        for entry in fs::list(incoming)?
            .into_iter()
            .rev()
            .filter(|entry| expired_label(entry).is_none())
        {
            let files = Files::new(incoming.join(&entry.name));
            let is_run = is_run(&entry);
            // What another run has taken all from, and what holds nothing but links to a backup's
            // files, is of no use.
            if is_run && weed_out(files.top())?.files > 0 {
                runs.push(files);
                continue;
            }
            if !is_run {
                run.note(format!(
                    "removing what an earlier run left: `{}`",
                    files.top().display()
                ));
            }
            if entry.status.kind == FileKind::Directory {
                fs::remove_tree(files.top())?
            } else {
                fs::remove_file(files.top())?
            }
        }
        Ok(Self { runs })
    }

    pub(super) fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    /// The files of this path and length that belong to no backup, the newest first. What is no
    /// plain file, lies behind a link or cannot be opened is passed over: it can be had from the
    /// node.
    pub(super) fn candidates<'a>(
        &'a self,
        path: &'a RelativePath,
        size: u64,
    ) -> impl Iterator<Item = fs::File> + 'a {
        let open = move |files: &Files| {
            let file = has_directories(files.top(), path)
                .ok()?
                .then(|| fs::open(&files.path_of(path)).ok())??;
            let status = file.status().ok()?;
            (status.size == size && status.links == 1).then_some(file)
        };
        self.runs.iter().filter_map(open)
    }

    /// What they hold.
    ///
    /// # Errors
    /// What the file system reports.
    pub(super) fn measure(&self) -> Result<Interrupted> {
        let mut all = Interrupted { files: 0, bytes: 0 };
        for files in &self.runs {
            let one = measure(files.top())?;
            all = Interrupted {
                files: all.files + one.files,
                bytes: all.bytes.saturating_add(one.bytes),
            };
        }
        Ok(all)
    }

    /// Removes them; what cannot be removed is said, and left to a later run.
    pub(super) fn remove(&self, run: &Run) {
        for files in &self.runs {
            if let Err(error) = fs::remove_tree(files.top()) {
                run.note(format!(
                    "{error}: what an interrupted run left stays there until the next one"
                ));
            }
        }
    }
}

/// Proves a file by the MD5 that the server wrote into the source's: it covers all but the last 16
/// bytes, and those hold it.
///
/// # Errors
/// `StoredCorrupt` where the bytes are others, or cannot be read; an interruption.
pub(super) fn prove(file: &fs::File, md5: Md5Hash, run: &Run) -> Result<Digest> {
    let wrong = |why: &str| Error::new(Kind::StoredCorrupt, why);
    let mut last = [0; 16];
    let tail = file
        .size()
        .checked_sub(16)
        .map(|offset| file.read_exact_at(offset, &mut last));
    if !matches!(tail, Some(Ok(()))) || Md5Hash(last) != md5 {
        return Err(wrong("it is another file than the node's"));
    }
    match transfer::hash_file(file, true, run) {
        Ok(digest) if digest.md5 == Some(md5) => Ok(digest),
        Ok(_) => Err(wrong("it fails the server's MD5")),
        Err(error) if matches!(error.kind(), Kind::Interrupted(_)) => Err(error),
        Err(error) => Err(wrong(&error.in_words())),
    }
}

/// A backup in the making has an id for a name; all else in `incoming/` is not ours to take up.
fn is_run(entry: &fs::DirectoryEntry) -> bool {
    entry.status.kind == FileKind::Directory
        && entry
            .name
            .to_str()
            .is_some_and(|name| Uuid::parse_str(name).is_ok())
}

/// Removes what no run can take up, as it would pile up with each run that is killed: half-written
/// files, and those without an MD5 of the server's. The rest is measured.
fn weed_out(top: &Path) -> Result<Interrupted> {
    let mut left = Interrupted { files: 0, bytes: 0 };
    each_own_file(top, |path, status| {
        if is_of_no_use(top, path, status.size) {
            return Ok(fs::remove_file(path)?);
        }
        left.add(status);
        Ok(())
    })?;
    Ok(left)
}

fn is_of_no_use(top: &Path, path: &Path, size: u64) -> bool {
    let Some(below) = path.strip_prefix(top).ok().and_then(Path::to_str) else {
        return false;
    };
    let name = below.rsplit('/').next().unwrap_or(below);
    if name.starts_with('.') && (name.ends_with(".part") || name.ends_with(".tmp")) {
        return true;
    }
    match below.split_once('/') {
        None => name == MANIFEST,
        Some(("db", file)) => match DbFile::of(file) {
            DbFile::Checkpoint(_) | DbFile::SecondaryIndex => true,
            DbFile::Chunk(_) => !ends_with_md5(path, size),
            _ => false,
        },
        Some(("index", file)) => matches!(
            IndexFile::of(file),
            IndexFile::IndexMap
                | IndexFile::BloomFilter(_)
                | IndexFile::StreamFilterCheckpoint
                | IndexFile::StreamFilterData
                | IndexFile::Scavenging(_)
        ),
        Some(_) => false,
    }
}

/// A chunk that is not completed ends with zeros, where its MD5 will be. What cannot be read is
/// left alone.
fn ends_with_md5(path: &Path, size: u64) -> bool {
    let mut last = [0; 16];
    let Some(offset) = size.checked_sub(16) else {
        return false;
    };
    fs::open(path)
        .and_then(|file| file.read_exact_at(offset, &mut last))
        .is_err()
        || last != [0; 16]
}

/// What the files below a directory take that are no backup's as well.
fn measure(top: &Path) -> Result<Interrupted> {
    let mut found = Interrupted { files: 0, bytes: 0 };
    each_own_file(top, |_, status| {
        found.add(status);
        Ok(())
    })?;
    Ok(found)
}

impl Interrupted {
    fn add(&mut self, status: &fs::FileStatus) {
        self.files += 1;
        self.bytes = self.bytes.saturating_add(status.allocated);
    }
}

/// Visits the files below a directory that are no backup's as well.
fn each_own_file(
    top: &Path,
    mut visit: impl FnMut(&Path, &fs::FileStatus) -> Result<()>,
) -> Result<()> {
    let mut directories = vec![top.to_owned()];
    while let Some(directory) = directories.pop() {
        let entries = match fs::list(&directory) {
            Ok(entries) => entries,
            // A run that began meanwhile has made something of it.
            Err(error) if error.is_not_found() => continue,
            Err(error) => return Err(error.into()),
        };
        for entry in entries {
            let path = directory.join(entry.name);
            match entry.status.kind {
                FileKind::Directory => directories.push(path),
                FileKind::File if entry.status.links == 1 => visit(&path, &entry.status)?,
                _ => {}
            }
        }
    }
    Ok(())
}
