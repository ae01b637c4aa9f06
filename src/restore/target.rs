use std::collections::HashSet;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::clock::Timestamp;
use crate::error::{Error, Kind, Result};
use crate::fs::{self, FileKind};
use crate::manifest::{Directories, Manifest, Owner, RelativePath, RestoreMark, Role, Root};

use super::guard::{CHASER, EPOCH, GUARD_CHASER, GUARD_WRITER, PROPOSAL, TRUNCATE, WRITER, read_checkpoint, stands_guarded};

/// What a target holds before the restore.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Found {
    /// Nothing is there; the directory will be created.
    Absent,
    /// An empty directory, `lost+found` aside.
    Empty,
    /// What an interrupted restore of the same backup left: it is taken up again.
    Interrupted(Interrupted),
}

/// What an interrupted restore left.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Interrupted {
    /// When it began; unknown where it ended before it left a mark.
    pub since: Option<Timestamp>,
    /// Files of the backup that are there in their full length; each is proven by its hash before it is kept.
    pub files: u64,
    #[serde(skip)]
    pub(super) present: HashSet<RelativePath>,
    /// Files of no backup: our own staging files, and what a server makes before it sees the guard (O15).
    #[serde(skip)]
    pub(super) leftovers: Vec<PathBuf>,
}

/// Who will own the restored files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Ownership {
    /// User id.
    pub user: u32,
    /// Group id.
    pub group: u32,
    /// Whether owner and group have to be set: not where the files belong to them anyway.
    pub set: bool,
}

/// A path the operator named: absolute, without links, whether it exists or not.
pub(super) fn resolve(path: &Path) -> Result<PathBuf> {
    let refused = |what: &str| Error::new(Kind::Refused, what).at(path).hint("name the directory itself");
    let mut missing = Vec::new();
    let mut existing = path.to_owned();
    loop {
        match fs::canonical(&existing) {
            Ok(base) => return Ok(missing.iter().rev().fold(base, |directory, name| directory.join(name))),
            Err(error) if error.is_not_found() => {
                if fs::status(&existing)?.is_some() {
                    return Err(refused("the target is a link that leads nowhere"));
                }
                let Some(name) = existing.file_name() else { return Err(refused("the target is no path of a directory")) };
                missing.push(name.to_owned());
                existing = fs::parent(&existing).to_owned();
            }
            Err(error) => return Err(error.into()),
        }
    }
}

/// The directory itself, or the nearest one above it that exists.
pub(super) fn nearest(path: &Path) -> Result<&Path> {
    let mut directory = path;
    while fs::status(directory)?.is_none() {
        directory = fs::parent(directory);
    }
    Ok(directory)
}

/// Proves that nothing can be lost in a target: it is absent, empty, or left by an interrupted restore of the same backup.
///
/// # Errors
/// [`Kind::Refused`] else.
pub(super) fn find(target: &Directories, manifest: &Manifest, repository: uuid::Uuid) -> Result<Found> {
    let mut content = Content::default();
    let db_is_there = content.list(&target.db, Root::Db, target)?;
    content.list(&target.index, Root::Index, target)?;
    if content.files.is_empty() && content.directories.is_empty() {
        return Ok(if db_is_there { Found::Empty } else { Found::Absent });
    }
    // Unreadable is as good as none: then the content is not known to be ours.
    let mark = RestoreMark::read(&target.db).ok().flatten();
    match mark {
        None if content.is_bare_guard(&target.db)? => {
            let leftovers = content.files.iter().filter(|file| is_staging(&file.path)).map(|file| file.path.clone()).collect();
            Ok(Found::Interrupted(Interrupted { since: None, files: 0, present: HashSet::new(), leftovers }))
        }
        None => Err(not_empty(content.first())),
        Some(_) if !stands_guarded(&target.db)? => Err(Error::new(Kind::Refused, "a restored database stands there already")
            .at(&target.db)
            .hint("restore into an empty directory; to replace this database, stop its server and move the directory away")),
        Some(mark) if mark.repository != repository || mark.label != manifest.label => {
            Err(Error::new(Kind::Refused, format!("an interrupted restore of another backup, {}, stands there", mark.label))
                .at(&target.db)
                .hint(format!("`kbackup restore {}` takes it up again; or restore into an empty directory", mark.label)))
        }
        Some(mark) => content.taken_up(manifest, mark.since).map(Found::Interrupted),
    }
}

#[derive(Default)]
struct Content {
    files: Vec<Item>,
    directories: Vec<PathBuf>,
}

struct Item {
    path: PathBuf,
    /// Its place in a backup; none where no manifest could hold it.
    place: Option<RelativePath>,
    size: u64,
    regular: bool,
}

impl Content {
    /// Lists one of the two directories; false where it does not exist.
    fn list(&mut self, top: &Path, root: Root, target: &Directories) -> Result<bool> {
        match fs::status(top)? {
            None => Ok(false),
            Some(status) if status.kind == FileKind::Directory => {
                self.walk(top, top, root, target)?;
                Ok(true)
            }
            Some(_) => Err(Error::new(Kind::Refused, "the target is not a directory")
                .at(top)
                .hint("name a directory, or a path where none is yet")),
        }
    }

    fn walk(&mut self, top: &Path, directory: &Path, root: Root, target: &Directories) -> Result<()> {
        for entry in fs::list(directory)? {
            let path = directory.join(&entry.name);
            let is_directory = entry.status.kind == FileKind::Directory;
            if is_directory && directory == top && entry.name == "lost+found" {
                continue;
            }
            if root == Root::Db && is_directory && target.index.starts_with(&path) {
                // The index directory is listed on its own; what leads to it is no content.
                if path != target.index {
                    self.walk(top, &path, root, target)?;
                }
                continue;
            }
            if is_directory {
                self.walk(top, &path, root, target)?;
                self.directories.push(path);
            } else {
                let place = path.strip_prefix(top).ok().and_then(Path::to_str).and_then(|rest| RelativePath::new(root, rest).ok());
                self.files.push(Item { path, place, size: entry.status.size, regular: entry.status.kind == FileKind::File });
            }
        }
        Ok(())
    }

    fn first(&self) -> &Path {
        self.files.iter().map(|file| &file.path).chain(&self.directories).next().map_or(Path::new(""), PathBuf::as_path)
    }

    /// Nothing but what a restore writes before its mark: the guard's checkpoints, perhaps not all of them yet.
    fn is_bare_guard(&self, db: &Path) -> Result<bool> {
        if !self.directories.is_empty() {
            return Ok(false);
        }
        for file in &self.files {
            let name = file.path.strip_prefix(db).ok().and_then(Path::to_str);
            let ours = match name {
                _ if !file.regular => false,
                Some(WRITER) => file.size == 0 || read_checkpoint(&file.path)? == Some(GUARD_WRITER),
                Some(CHASER) => read_checkpoint(&file.path)? == Some(GUARD_CHASER),
                Some(TRUNCATE) => read_checkpoint(&file.path)? == Some(-1),
                Some(_) => is_staging(&file.path),
                None => false,
            };
            if !ours {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Every file has to be the backup's, or of a kind that is known to be nobody's.
    fn taken_up(self, manifest: &Manifest, since: Timestamp) -> Result<Interrupted> {
        let rows: std::collections::HashMap<_, _> = manifest.files.iter().map(|row| (&row.path, row)).collect();
        let mut found = Interrupted { since: Some(since), files: 0, present: HashSet::new(), leftovers: Vec::new() };
        for file in self.files {
            let row = file.place.as_ref().and_then(|place| rows.get(place));
            let foreign = || {
                Error::new(Kind::Refused, "an interrupted restore stands there, and a file that is not the backup's")
                    .at(&file.path)
                    .hint("move that file away, or restore into an empty directory")
            };
            if !file.regular {
                return Err(foreign());
            }
            match (row, file.place) {
                (Some(row), Some(place)) if row.role != Role::Checkpoint => {
                    if row.size == file.size {
                        found.files += 1;
                        found.present.insert(place);
                    }
                }
                (_, Some(place)) if place.root() == Root::Db && is_ours(place.below_root()) => {}
                (None, Some(place)) if is_a_refused_servers(&place) => found.leftovers.push(file.path),
                _ if is_staging(&file.path) => found.leftovers.push(file.path),
                _ => return Err(foreign()),
            }
        }
        Ok(found)
    }
}

fn is_ours(name: &str) -> bool {
    matches!(name, RestoreMark::NAME | WRITER | CHASER | TRUNCATE | EPOCH | PROPOSAL)
}

/// Files that a server makes before it sees the guard and exits (O15); it had no log to fill them from.
fn is_a_refused_servers(place: &RelativePath) -> bool {
    match place.root() {
        Root::Db => matches!(place.below_root(), "kurrent.ddb" | "kurrent.ddb.wal"),
        Root::Index => {
            matches!(place.below_root(), "stream-existence/streamExistenceFilter.chk" | "stream-existence/streamExistenceFilter.dat")
        }
    }
}

/// The names of [`fs::write_durably`]'s files before their rename.
fn is_staging(path: &Path) -> bool {
    path.file_name().and_then(std::ffi::OsStr::to_str).is_some_and(|name| name.starts_with('.') && name.ends_with(".tmp"))
}

fn not_empty(content: &Path) -> Error {
    Error::new(Kind::Refused, "the target is not empty")
        .at(fs::parent(content))
        .because(format!("it holds `{}`", content.display()))
        .hint("restore into an empty directory; to replace a database, stop its server and move its files away first")
}

/// Who shall own the files of a target, and what the operator has to know about it.
///
/// # Errors
/// [`Kind::Refused`] where the process cannot give files to the owner that was asked for.
pub(super) fn ownership(wanted: Option<(u32, u32)>, db: &Path, source: Option<&Owner>) -> Result<(Ownership, Option<String>)> {
    const CONSEQUENCE: &str = "a server that does not own its chunks does not start (25.0 and later)";
    let (user, group) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    let existing = fs::status(db)?.map(|status| (status.user, status.group));
    if user == 0 {
        let source_owner = source.map(|owner| (owner.user, owner.group));
        let chosen = wanted.or(existing.filter(|(user, _)| *user != 0)).or(source_owner);
        let (user, group) = chosen.unwrap_or((0, 0));
        let warning = match chosen {
            None => Some(format!(
                "nothing tells who runs the server, so the files of {} will belong to root: {CONSEQUENCE}; see `--owner`",
                db.display()
            )),
            Some(_) => None,
        };
        return Ok((Ownership { user, group, set: true }, warning));
    }
    match wanted {
        Some((wanted_user, _)) if wanted_user != user => {
            Err(Error::new(Kind::Refused, format!("this process runs as user {user} and cannot give files to user {wanted_user}"))
                .at(db)
                .hint("run the restore as root, or as the user that runs the server, without `--owner`"))
        }
        Some((_, wanted_group)) => Ok((Ownership { user, group: wanted_group, set: wanted_group != group }, None)),
        None => {
            let expected = existing.map(|(owner, _)| owner).filter(|owner| *owner != user);
            let expected = expected.or_else(|| source.map(|owner| owner.user).filter(|owner| existing.is_none() && *owner != user));
            let warning = expected.map(|owner| {
                format!(
                    "the files of {} will belong to user {user}, but the server seems to run as user {owner}: {CONSEQUENCE}; run the restore as that user or as root",
                    db.display()
                )
            });
            Ok((Ownership { user, group, set: false }, warning))
        }
    }
}
