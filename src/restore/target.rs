use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::clock::Timestamp;
use crate::error::{Error, Kind, Result};
use crate::format::checkpoint::{Checkpoint, START_GUARD};
use crate::format::names;
use crate::fs::{self, FileKind};
use crate::manifest::{
    Directories, Manifest, Owner, RelativePath, RestoreMark, RestoreState, Role, Root,
};
use crate::server::facts::MUST_OWN_CHUNKS;

use super::guard::{read_checkpoint, stands};
use super::plan::placed;

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
    /// What a finished restore of the same backup wrote, and nothing else; only where several
    /// targets are named, of which another one was interrupted.
    Finished,
}

/// What an interrupted restore left.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Interrupted {
    /// When it began; unknown where it ended before it left a mark.
    pub since: Option<Timestamp>,
    /// Files of the backup that are there in their full length; each is proven by its hash before
    /// it is kept.
    pub files: u64,
    #[serde(skip)]
    pub(super) present: HashSet<RelativePath>,
    /// Files of no backup: our own staging files, and what a server makes before it sees the guard
    /// (O15).
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
    let refused = |what: &str| {
        Error::new(Kind::Refused, what)
            .at(path)
            .hint("name the directory itself")
    };
    let mut missing = Vec::new();
    let mut existing = path.to_owned();
    loop {
        match fs::canonical(&existing) {
            Ok(base) => {
                return Ok(missing
                    .iter()
                    .rev()
                    .fold(base, |directory, name| directory.join(name)));
            }
            Err(error) if error.is_not_found() => {
                if fs::status(&existing)?.is_some() {
                    return Err(refused("the target is a link that leads nowhere"));
                }
                let Some(name) = existing.file_name() else {
                    return Err(refused("the target is no path of a directory"));
                };
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

/// Proves that nothing can be lost in a target: it is absent, empty, or left by an interrupted
/// restore of the same backup.
///
/// `finished`: the checkpoints of a finished restore of the same backup, which then is no reason to
/// refuse, as long as no server has started from it.
///
/// # Errors
/// [`Kind::Refused`] else.
pub(super) fn find(
    target: &Directories,
    manifest: &Manifest,
    repository: uuid::Uuid,
    finished: Option<&[(Checkpoint, i64)]>,
) -> Result<Found> {
    let mut content = Content::default();
    let db_is_there = content.list(&target.db, Root::Db, target)?;
    content.list(&target.index, Root::Index, target)?;
    if content.files.is_empty() && content.directories.is_empty() {
        return Ok(if db_is_there {
            Found::Empty
        } else {
            Found::Absent
        });
    }
    // Unreadable is as good as none: then the content is not known to be ours.
    let mark = RestoreMark::read(&target.db).ok().flatten();
    match mark {
        None if content.is_bare_guard(&target.db)? => {
            let leftovers = content
                .files
                .iter()
                .filter(|file| is_staging(&file.path))
                .map(|file| file.path.clone())
                .collect();
            Ok(Found::Interrupted(Interrupted {
                since: None,
                files: 0,
                present: HashSet::new(),
                leftovers,
            }))
        }
        None => Err(not_empty(content.first())),
        Some(mark) if !stands(&target.db)? => {
            let same = mark.repository == repository && mark.label == manifest.label;
            if let Some(finished) =
                finished.filter(|_| same && mark.state == RestoreState::Finished)
                && content.is_as_restored(&target.db, manifest, finished)?
            {
                return Ok(Found::Finished);
            }
            let error = Error::new(Kind::Refused, "a restored database stands there already")
                .at(&target.db);
            // A restore to several targets that was interrupted after this one.
            let error = if same {
                error
                    .hint("it is this backup, restored: leave this target out to go on with others")
            } else {
                error
            };
            Err(error.hint("restore into an empty directory; to replace this database, stop its server and move the directory away"))
        }
        Some(mark) if mark.repository != repository || mark.label != manifest.label => {
            Err(Error::new(
                Kind::Refused,
                format!(
                    "an interrupted restore of another backup, {}, stands there",
                    mark.label
                ),
            )
            .at(&target.db)
            .hint(format!(
                "`kbackup restore {}` takes it up again; or restore into an empty directory",
                mark.label
            )))
        }
        Some(mark) => content
            .taken_up(manifest, mark.since)
            .map(Found::Interrupted),
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

    fn walk(
        &mut self,
        top: &Path,
        directory: &Path,
        root: Root,
        target: &Directories,
    ) -> Result<()> {
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
                let place = path
                    .strip_prefix(top)
                    .ok()
                    .and_then(Path::to_str)
                    .and_then(|rest| RelativePath::new(root, rest).ok());
                self.files.push(Item {
                    path,
                    place,
                    size: entry.status.size,
                    regular: entry.status.kind == FileKind::File,
                });
            }
        }
        Ok(())
    }

    fn first(&self) -> &Path {
        self.files
            .iter()
            .map(|file| &file.path)
            .chain(&self.directories)
            .next()
            .map_or(Path::new(""), PathBuf::as_path)
    }

    /// Nothing but what a restore writes before its mark: the guard's checkpoints, perhaps not all
    /// of them yet.
    fn is_bare_guard(&self, db: &Path) -> Result<bool> {
        if !self.directories.is_empty() {
            return Ok(false);
        }
        for file in &self.files {
            let checkpoint = file
                .path
                .strip_prefix(db)
                .ok()
                .and_then(Path::to_str)
                .and_then(Checkpoint::of_file);
            let guard = START_GUARD
                .iter()
                .find(|(guarding, _)| Some(*guarding) == checkpoint);
            let ours = match guard {
                _ if !file.regular => false,
                // Created empty, to be locked, before the others.
                Some((Checkpoint::Writer, _)) if file.size == 0 => true,
                // Its length can reach a disk before its bytes do; behind the guard's chaser, or
                // alone, zeros are nobody's loss.
                Some((Checkpoint::Writer, value)) => {
                    read_checkpoint(&file.path)?.is_some_and(|found| found == *value || found == 0)
                }
                Some((_, value)) => read_checkpoint(&file.path)? == Some(*value),
                None => is_staging(&file.path),
            };
            if !ours {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Every file that a restore places, the checkpoints at its end, its mark, and nothing else: a
    /// server would have left something.
    fn is_as_restored(
        &self,
        db: &Path,
        manifest: &Manifest,
        finished: &[(Checkpoint, i64)],
    ) -> Result<bool> {
        let mut rows: HashMap<_, _> = placed(manifest).map(|row| (&row.path, row.size)).collect();
        for file in &self.files {
            let Some(place) = file.place.as_ref().filter(|_| file.regular) else {
                return Ok(false);
            };
            match rows.remove(place) {
                Some(size) if size == file.size => {}
                None if place.root() == Root::Db && is_ours(place.below_root()) => {}
                Some(_) | None => return Ok(false),
            }
        }
        for (checkpoint, value) in finished {
            if read_checkpoint(&checkpoint.under(db))? != Some(*value) {
                return Ok(false);
            }
        }
        let holds_some = |directory: &PathBuf| {
            self.files
                .iter()
                .any(|file| file.path.starts_with(directory))
        };
        Ok(rows.is_empty() && self.directories.iter().all(holds_some))
    }

    /// Every file has to be the backup's, or of a kind that is known to be nobody's.
    fn taken_up(self, manifest: &Manifest, since: Timestamp) -> Result<Interrupted> {
        let rows: HashMap<_, _> = manifest.files.iter().map(|row| (&row.path, row)).collect();
        let mut found = Interrupted {
            since: Some(since),
            files: 0,
            present: HashSet::new(),
            leftovers: Vec::new(),
        };
        for file in self.files {
            let row = file.place.as_ref().and_then(|place| rows.get(place));
            let foreign = || {
                Error::new(
                    Kind::Refused,
                    "an interrupted restore stands there, and a file that is not the backup's",
                )
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
                (None, Some(place)) if is_a_refused_servers(&place) => {
                    found.leftovers.push(file.path)
                }
                _ if is_staging(&file.path) => found.leftovers.push(file.path),
                _ => return Err(foreign()),
            }
        }
        Ok(found)
    }
}

fn is_ours(name: &str) -> bool {
    name == RestoreMark::NAME || Checkpoint::of_file(name).is_some()
}

/// Files that a server makes before it sees the guard and exits (O15); it had no log to fill them
/// from.
fn is_a_refused_servers(place: &RelativePath) -> bool {
    match place.root() {
        Root::Db => matches!(
            place.below_root(),
            names::SECONDARY_INDEX | names::SECONDARY_INDEX_LOG
        ),
        Root::Index => {
            matches!(
                place.below_root(),
                names::STREAM_FILTER_CHECKPOINT | names::STREAM_FILTER
            )
        }
    }
}

/// The names of [`fs::write_durably`]'s files before their rename.
fn is_staging(path: &Path) -> bool {
    path.file_name()
        .and_then(std::ffi::OsStr::to_str)
        .is_some_and(|name| name.starts_with('.') && name.ends_with(".tmp"))
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
pub(super) fn ownership(
    wanted: Option<(u32, u32)>,
    db: &Path,
    source: Option<&Owner>,
) -> Result<(Ownership, Option<String>)> {
    let process = (
        rustix::process::geteuid().as_raw(),
        rustix::process::getegid().as_raw(),
    );
    let existing = fs::status(db)?.map(|status| (status.user, status.group));
    let source = source.map(|owner| (owner.user, owner.group));
    let (owner, warning) =
        decide(process, wanted, existing, source).map_err(|error| error.at(db))?;
    Ok((
        owner,
        warning.map(|warning| format!("{}: {warning}", db.display())),
    ))
}

type Ids = (u32, u32);

fn decide(
    process: Ids,
    wanted: Option<Ids>,
    existing: Option<Ids>,
    source: Option<Ids>,
) -> Result<(Ownership, Option<String>)> {
    const ROOT: u32 = 0;
    let consequence =
        format!("a server {MUST_OWN_CHUNKS} that does not own its chunks does not start");
    let set = |(user, group)| Ownership {
        user,
        group,
        set: true,
    };
    if process.0 == ROOT {
        // A directory that somebody prepared for the server tells more than where the backup came
        // from.
        return Ok(
            match wanted
                .or(existing.filter(|(user, _)| *user != ROOT))
                .or(source)
            {
                Some(owner) => (set(owner), None),
                None => (
                    set(process),
                    Some(format!(
                        "nothing tells who runs the server, so the files will belong to root: {consequence}; see `--owner`"
                    )),
                ),
            },
        );
    }
    match wanted {
        Some((user, _)) if user != process.0 => Err(Error::new(
            Kind::Refused,
            format!(
                "this process runs as user {} and cannot give files to user {user}",
                process.0
            ),
        )
        .hint("run the restore as root, or without `--owner` as the user that runs the server")),
        Some(owner) => Ok((
            Ownership {
                set: owner != process,
                ..set(owner)
            },
            None,
        )),
        None => {
            let server = existing
                .or(source)
                .map(|(user, _)| user)
                .filter(|user| *user != process.0);
            let warning = server.map(|server| {
                format!(
                    "the files will belong to user {}, but the server seems to run as user {server}: {consequence}; run the restore as that user, or as root",
                    process.0
                )
            });
            Ok((
                Ownership {
                    set: false,
                    ..set(process)
                },
                warning,
            ))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOT: Ids = (0, 0);
    const SERVER: Ids = (1001, 1001);
    const OTHER: Ids = (1000, 1000);

    fn owner(
        process: Ids,
        wanted: Option<Ids>,
        existing: Option<Ids>,
        source: Option<Ids>,
    ) -> (Ids, bool, bool) {
        let (owner, warning) = decide(process, wanted, existing, source).unwrap();
        ((owner.user, owner.group), owner.set, warning.is_some())
    }

    #[test]
    fn root_gives_the_files_to_whom_the_server_runs_as() {
        assert_eq!(
            owner(ROOT, Some(OTHER), Some(SERVER), Some(SERVER)),
            (OTHER, true, false),
            "as it was told"
        );
        assert_eq!(
            owner(ROOT, None, Some(OTHER), Some(SERVER)),
            (OTHER, true, false),
            "the directory's owner"
        );
        assert_eq!(
            owner(ROOT, None, Some(ROOT), Some(SERVER)),
            (SERVER, true, false),
            "the backup's, as root owns only the mount point"
        );
        assert_eq!(owner(ROOT, None, None, Some(SERVER)), (SERVER, true, false));
        assert_eq!(
            owner(ROOT, None, None, Some(ROOT)),
            (ROOT, true, false),
            "the server ran as root"
        );
    }

    #[test]
    fn a_wrong_owner_is_never_silent() {
        assert_eq!(owner(ROOT, None, None, None), (ROOT, true, true));
        assert_eq!(owner(OTHER, None, None, Some(SERVER)), (OTHER, false, true));
        assert_eq!(
            owner(OTHER, None, Some(SERVER), Some(OTHER)),
            (OTHER, false, true),
            "the group may write there, but the server is another user"
        );
        assert_eq!(
            owner(SERVER, None, Some(SERVER), Some(OTHER)),
            (SERVER, false, false)
        );
        assert_eq!(owner(SERVER, None, None, None), (SERVER, false, false));
    }

    #[test]
    fn others_than_root_give_files_to_nobody_else() {
        assert_eq!(
            decide(OTHER, Some(SERVER), None, None).unwrap_err().kind(),
            Kind::Refused
        );
        assert_eq!(
            owner(SERVER, Some((1001, 50)), None, None),
            ((1001, 50), true, false),
            "a group of theirs, perhaps"
        );
        assert_eq!(
            owner(SERVER, Some(SERVER), None, None),
            (SERVER, false, false)
        );
    }
}
