//! What interrupted runs left in `incoming/`: finds the files that a later run can resume, measures
//! them, and removes the others.
//!
//! kbackup resumes only a file that ends with the server's own MD5 of its bytes, because nothing
//! else proves that the file has the source's bytes. Either the run that stored it has kept that
//! proof ([`super::proofs`]), or this run reads the file.
//!
//! The beginning of such a file is kept, too, under a name that holds the MD5
//! ([`super::draft::begun_path`]). Nothing proves it before the rest is there.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::OnceLock;

use uuid::Uuid;

use super::draft::{begun_path, parse_begun};
use super::layout::{MANIFEST, expired_label};
use super::proofs::{KeptProofs, PROOFS};
use super::stored::{Files, below_top};
use crate::error::{Error, Kind, Result};
use crate::format::Md5Hash;
use crate::format::names::{DbFile, IndexFile};
use crate::fs::{self, DirectoryEntry, FileKind, FileStatus, ReadAt, Stamp};
use crate::manifest::RelativePath;
use crate::repository::{Begun, Interrupted, ProvenCopy};
use crate::run::Run;
use crate::transfer::{self, Digest, Follower};

/// What interrupted runs left, the newest run first.
#[derive(Debug, Default)]
pub(super) struct Leftovers {
    runs: Vec<InterruptedRun>,
}

/// What one run left.
#[derive(Debug)]
struct InterruptedRun {
    files: Files,
    /// The proofs that the run kept, read with the first file that is resumed.
    proofs: OnceLock<KeptProofs>,
}

impl InterruptedRun {
    fn new(files: Files) -> Self {
        Self {
            files,
            proofs: OnceLock::new(),
        }
    }

    fn proofs(&self) -> &KeptProofs {
        self.proofs
            .get_or_init(|| KeptProofs::read(self.files.top()))
    }
}

/// A file that may be resumed.
pub(super) struct Candidate<'a> {
    pub(super) file: fs::File,
    /// What an earlier run has proven of the file as it is now.
    pub(super) proof: Option<&'a ProvenCopy>,
}

impl Leftovers {
    /// Finds what interrupted runs left, and changes nothing.
    pub(super) fn find(incoming: &Path) -> Result<Self> {
        let mut runs = Vec::new();
        // The names are ids, which begin with the time.
        for entry in fs::list(incoming)?.iter().rev() {
            let top = incoming.join(&entry.name);
            if is_run(entry) && why_left_alone(entry, &top)?.is_none() {
                runs.push(InterruptedRun::new(Files::new(top)));
            }
        }
        Ok(Self { runs })
    }

    /// Finds what a run can resume, and removes what no run can. Only the writer may call it.
    ///
    /// Touches only what kbackup made: whoever uses `incoming/` for something else, or mounts
    /// something there, must not lose it.
    pub(super) fn sort_out(incoming: &Path, run: &Run) -> Result<Self> {
        let mut runs = Vec::new();
        for entry in fs::list(incoming)?.iter().rev() {
            // This is the rest of a removed backup, which the writer could not remove yet.
            if expired_label(entry).is_some() {
                continue;
            }

            let files = Files::new(incoming.join(&entry.name));
            if let Some(why) = why_left_alone(entry, files.top())? {
                run.note(format!(
                    "kbackup leaves `{}` alone: {why}",
                    files.top().display()
                ));
                continue;
            }
            if !is_run(entry) {
                fs::remove_file(files.top())?;
                continue;
            }

            // A later run may have resumed all of it, or it may hold links to a backup's files
            // only.
            if remove_useless(files.top())?.files > 0 {
                runs.push(InterruptedRun::new(files));
            } else {
                fs::remove_tree(files.top())?;
            }
        }
        Ok(Self { runs })
    }

    pub(super) fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    /// The paths and lengths of the files that belong to no backup. If several runs left a file of
    /// one path, the newest counts.
    pub(super) fn list(&self) -> Result<Vec<(RelativePath, u64)>> {
        let mut left = BTreeMap::new();
        for run in &self.runs {
            let top = run.files.top();
            each_own_file(top, |path, status| {
                let below = path.strip_prefix(top).ok().and_then(Path::to_str);
                if let Some(Ok(path)) = below.map(str::parse::<RelativePath>)
                    && parse_begun(path.file_name()).is_none()
                {
                    left.entry(path).or_insert(status.size);
                }
                Ok(())
            })?;
        }
        Ok(left.into_iter().collect())
    }

    /// The files that were begun and not finished. If several runs have begun the same file, the
    /// newest counts.
    pub(super) fn begun(&self) -> Result<Vec<Begun>> {
        let mut all: Vec<Begun> = Vec::new();
        for run in &self.runs {
            let top = run.files.top();
            each_own_file(top, |path, status| {
                let Some(begun) = begun_of(top, path, status.size) else {
                    return Ok(());
                };
                let is_known = |known: &Begun| known.path == begun.path && known.md5 == begun.md5;
                if !all.iter().any(is_known) {
                    all.push(begun);
                }
                Ok(())
            })?;
        }
        Ok(all)
    }

    /// Opens the beginning of a file of this path that ends with this MD5. Skips what is not kbackup's
    /// own, as [`Self::candidates`] does.
    pub(super) fn open_begun(&self, path: &RelativePath, md5: Md5Hash) -> Option<fs::File> {
        let below = begun_path(&below_top(path), md5);
        for run in &self.runs {
            if let Ok(file) = run.files.open_below(&below)
                && file.found().links == 1
            {
                return Some(file);
            }
        }
        None
    }

    /// The files of this path and length that belong to no backup, the newest first. Skips a file
    /// that cannot be opened, or is reached through a link, because the node has it, too.
    pub(super) fn candidates(&self, path: &RelativePath, size: u64) -> Vec<Candidate<'_>> {
        let mut candidates = Vec::new();
        for run in &self.runs {
            let Ok(file) = run.files.open_below(&below_top(path)) else {
                continue;
            };
            let status = file.found();
            if status.size != size || status.links != 1 {
                continue;
            }

            let stamp = Stamp::from(status);
            let proof = run.proofs().find(path, stamp);
            candidates.push(Candidate { file, proof });
        }
        candidates
    }

    /// How much interrupted runs left.
    pub(super) fn measure(&self) -> Result<Interrupted> {
        let mut all = Interrupted::default();
        for run in &self.runs {
            each_own_file(run.files.top(), |_, status| {
                all.add(status);
                Ok(())
            })?;
        }
        Ok(all)
    }

    /// Removes everything. If something cannot be removed, a note says so, and a later run removes
    /// it.
    pub(super) fn remove(&self, run: &Run) {
        for left in &self.runs {
            if let Err(error) = fs::remove_tree(left.files.top()) {
                run.note(format!(
                    "{error}: what an interrupted run left stays there until the next run"
                ));
            }
        }
    }
}

impl Interrupted {
    fn add(&mut self, status: &FileStatus) {
        self.files += 1;
        self.bytes = self.bytes.saturating_add(status.allocated);
    }
}

/// The file that a kept beginning belongs to. Returns `None` if `path` is another file of the run.
fn begun_of(top: &Path, path: &Path, bytes: u64) -> Option<Begun> {
    let (name, md5) = parse_begun(path.file_name()?.to_str()?)?;
    let below = path.with_file_name(name);
    let below = below.strip_prefix(top).ok()?.to_str()?;
    Some(Begun {
        path: below.parse().ok()?,
        md5,
        bytes,
    })
}

/// Proves a file by the MD5 that the server wrote into the source's file. It covers all but the
/// last 16 bytes, and those hold it. Reads the file at the run's pace.
///
/// # Errors
/// `StoredCorrupt` if the file has other bytes, or cannot be read; an interruption.
pub(super) fn prove(
    file: &fs::File,
    md5: Md5Hash,
    follow: Follower<'_>,
    run: &Run,
) -> Result<Digest> {
    if !ends_with(file, md5) {
        return Err(Error::new(
            Kind::StoredCorrupt,
            "the node's file has another MD5",
        ));
    }

    let paced = transfer::paced(Box::new(file.clone()), run);
    match transfer::hash_followed(&*paced, true, follow, run) {
        Ok(digest) if digest.md5 == Some(md5) => Ok(digest),
        Ok(_) => Err(Error::new(Kind::StoredCorrupt, "it fails the server's MD5")),
        Err(error) if matches!(error.kind(), Kind::Interrupted(_)) => Err(error),
        Err(error) => Err(Error::new(Kind::StoredCorrupt, error.in_words())),
    }
}

fn ends_with(file: &fs::File, md5: Md5Hash) -> bool {
    let Some(offset) = file.size().checked_sub(16) else {
        return false;
    };
    let mut last = [0; 16];
    file.read_exact_at(offset, &mut last).is_ok() && Md5Hash(last) == md5
}

/// Why an entry of `incoming/` is not for kbackup to remove. Returns `None` if kbackup made it.
fn why_left_alone(entry: &DirectoryEntry, place: &Path) -> Result<Option<&'static str>> {
    let is_made = match entry.status.kind {
        FileKind::Directory => is_run(entry) && holds_a_run(place)?,
        // A repair makes its copy under such a name.
        FileKind::File => has_id(entry),
        FileKind::Link | FileKind::Special => false,
    };
    if !is_made {
        return Ok(Some("kbackup did not make it"));
    }

    match fs::mount_inside(place)? {
        Some(_) => Ok(Some("another file system is mounted there")),
        None => Ok(None),
    }
}

/// Whether an entry of `incoming/` has the name of a backup in the making.
fn is_run(entry: &DirectoryEntry) -> bool {
    entry.status.kind == FileKind::Directory && has_id(entry)
}

/// Whether the name of an entry is an id, written as kbackup writes it.
fn has_id(entry: &DirectoryEntry) -> bool {
    let Some(name) = entry.name.to_str() else {
        return false;
    };
    Uuid::parse_str(name).is_ok_and(|id| id.to_string() == name)
}

/// Whether a directory holds only what a backup in the making holds.
fn holds_a_run(top: &Path) -> Result<bool> {
    let names = match fs::names(top) {
        Ok(names) => names,
        // Another run has begun meanwhile and has moved or removed it.
        Err(error) if error.is_not_found() => return Ok(false),
        Err(error) => return Err(error.into()),
    };

    let is_known =
        |name: &str| ["db", "index", MANIFEST, PROOFS].contains(&name) || is_staged(name);
    Ok(names.iter().all(|name| name.to_str().is_some_and(is_known)))
}

/// Whether a file of this name is only half written.
fn is_staged(name: &str) -> bool {
    name.starts_with('.') && (name.ends_with(".part") || name.ends_with(".tmp"))
}

/// Removes what no run can resume: half-written files, and files without an MD5 of the server's.
/// Otherwise each killed run would add to them. Returns how much is left.
fn remove_useless(top: &Path) -> Result<Interrupted> {
    let mut left = Interrupted::default();
    each_own_file(top, |path, status| {
        if is_useless(top, path, status.size) {
            return Ok(fs::remove_file(path)?);
        }
        left.add(status);
        Ok(())
    })?;
    Ok(left)
}

fn is_useless(top: &Path, path: &Path, size: u64) -> bool {
    let Some(below) = path.strip_prefix(top).ok().and_then(Path::to_str) else {
        return false;
    };
    let name = below.rsplit('/').next().unwrap_or(below);
    if is_staged(name) {
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

/// Whether a chunk file may end with an MD5. The file of a chunk that is not completed ends with
/// zeros. An unreadable file is left alone.
fn ends_with_md5(path: &Path, size: u64) -> bool {
    let Some(offset) = size.checked_sub(16) else {
        return false;
    };
    let mut last = [0; 16];
    let read = fs::open(path).and_then(|file| file.read_exact_at(offset, &mut last));
    read.is_err() || last != [0; 16]
}

/// Visits the files of a run that belong to no backup. Its proofs are not one of them.
fn each_own_file(
    top: &Path,
    mut visit: impl FnMut(&Path, &FileStatus) -> Result<()>,
) -> Result<()> {
    let mut directories = vec![top.to_owned()];
    while let Some(directory) = directories.pop() {
        let entries = match fs::list(&directory) {
            Ok(entries) => entries,
            // Another run has begun meanwhile and has moved or removed it.
            Err(error) if error.is_not_found() => continue,
            Err(error) => return Err(error.into()),
        };

        for entry in entries {
            let path = directory.join(&entry.name);
            if directory == top && entry.name == PROOFS {
                continue;
            }
            match entry.status.kind {
                FileKind::Directory => directories.push(path),
                FileKind::File if entry.status.links == 1 => visit(&path, &entry.status)?,
                _ => {}
            }
        }
    }
    Ok(())
}
