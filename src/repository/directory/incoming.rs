use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::fs::Advice;
use rustix::io::Errno;

use super::layout::{DIRECTORY_MODE, FILE_MODE, MANIFEST, is_directory, make_directory};
use super::leftovers::{self, Leftovers};
use super::stored::Files;
use super::{DirectoryRepository, Lock};
use crate::clock;
use crate::error::{Error, Kind, Result};
use crate::format::{Md5Hash, ReadAt};
use crate::fs::{self, IoError};
use crate::manifest::{Blake3Hash, FileEntry, FileSet, Label, Manifest, RelativePath, Row};
use crate::proof::Proven;
use crate::repository::{Attributes, Incoming, Ingest, Stored};
use crate::run::Run;
use crate::transfer::{self, CopyFailure, Follower, Segment};

/// A backup in the making: `incoming/<id>/`, which becomes `backups/LABEL/` by one rename.
///
/// Every file but an adopted one is an inode of its own, which gets its name when all of it is
/// synced; what is adopted shares its inode with the parent and is never written to.
pub(super) struct DirectoryIncoming<'a> {
    repository: &'a DirectoryRepository,
    parent: Option<(&'a Label, Files)>,
    run: &'a Run,
    files: Files,
    /// Files whose inode is this backup's own, and whether they carry the server's MD5: then a
    /// later run can take them up.
    own: Mutex<BTreeMap<RelativePath, bool>>,
    leftovers: Leftovers,
    bytes_stored: AtomicU64,
    /// The storage could not do what it was told.
    failed: AtomicBool,
    committed: bool,
    /// Given back last.
    _lock: Lock,
}

impl<'a> DirectoryIncoming<'a> {
    pub(super) fn new(
        repository: &'a DirectoryRepository,
        parent: Option<&'a Manifest>,
        run: &'a Run,
        leftovers: Leftovers,
        lock: Lock,
    ) -> Result<Self> {
        let parent = parent
            .map(|manifest| Ok::<_, Error>((&manifest.label, repository.backup(&manifest.label)?)))
            .transpose()?;
        let files = Files::new(
            repository
                .layout
                .incoming()
                .join(clock::identifier().to_string()),
        );
        // Where not even a directory can be made, the disk gets back what lies there.
        make_directory(files.top()).inspect_err(|_| leftovers.remove(run))?;
        Ok(Self {
            repository,
            parent,
            run,
            files,
            own: Mutex::default(),
            leftovers,
            bytes_stored: AtomicU64::new(0),
            failed: AtomicBool::new(false),
            committed: false,
            _lock: lock,
        })
    }

    /// What came of a change of ours. Where one fails, a later sync may succeed and the bytes be
    /// lost all the same: nothing of this run is kept.
    fn changed<T>(&self, result: Result<T, IoError>) -> Result<T, IoError> {
        if result.is_err() {
            self.failed.store(true, Ordering::SeqCst);
        }
        result
    }

    fn own(&self) -> MutexGuard<'_, BTreeMap<RelativePath, bool>> {
        // It is whole after every call, also where a thread ended early beside it.
        self.own.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn parent(&self, row: &Row) -> Result<&Files> {
        let none = || {
            Error::new(
                Kind::Failed,
                "there is no earlier backup to take a file from",
            )
            .on(&row.path)
        };
        self.parent
            .as_ref()
            .map(|(_, files)| files)
            .ok_or_else(none)
    }

    fn held(&self, row: &Row) -> Result<fs::File> {
        self.parent(row)?.open_row(row)
    }

    /// Where a file goes; its directories are there.
    fn place(&self, path: &RelativePath) -> Result<PathBuf> {
        let place = self.files.path_of(path);
        if matches!(self.files.has_directories(path), Ok(true)) {
            return Ok(place);
        }
        let below = place.strip_prefix(self.files.top()).unwrap_or(&place);
        let mut directory = self.files.top().to_owned();
        for part in fs::parent(below) {
            directory.push(part);
            if !is_directory(&directory)? {
                self.changed(fs::create_directory(&directory, DIRECTORY_MODE))?;
            }
        }
        Ok(place)
    }

    fn create(&self, path: &RelativePath) -> Result<Draft> {
        let place = self.place(path)?;
        let mut staged = std::ffi::OsString::from(".");
        staged.push(place.file_name().unwrap_or_default());
        staged.push(".part");
        let staged = place.with_file_name(staged);
        let file = self.changed(fs::create_new(&staged, FILE_MODE))?;
        Ok(Draft {
            file,
            staged,
            place,
        })
    }

    /// Gives a file its name. Only now, when its bytes are on the disk: what an interrupted run
    /// leaves under a name was synced with success, even if the process was killed right after a
    /// failed sync. That sync's file has no name yet.
    fn finish(
        &self,
        draft: &Draft,
        path: &RelativePath,
        size: u64,
        attributes: Attributes,
        has_md5: bool,
    ) -> Result<(), IoError> {
        self.changed(set_attributes(&draft.file, attributes))?;
        self.changed(transfer::sync(&draft.file, size, self.run))?;
        self.changed(fs::rename(&draft.staged, &draft.place))?;
        self.own().insert(path.clone(), has_md5);
        Ok(())
    }

    fn copy(
        &self,
        draft: &Draft,
        path: &RelativePath,
        plan: &transfer::CopyPlan<'_>,
        attributes: Attributes,
        follow: Follower<'_>,
    ) -> Result<Stored, CopyFailure> {
        let captured = clock::now();
        let copied =
            transfer::copy(plan, &draft.file, follow, self.run).inspect_err(|failure| {
                if matches!(failure, CopyFailure::Target(_)) {
                    self.failed.store(true, Ordering::SeqCst);
                }
            })?;
        self.finish(draft, path, plan.full_length, attributes, plan.md5)?;
        self.bytes_stored
            .fetch_add(copied.written, Ordering::Relaxed);
        let transfer::Digest { size, blake3, md5 } = copied.digest;
        Ok(Stored {
            size,
            blake3,
            md5,
            captured,
        })
    }

    /// A file of the repository as the first bytes of a new one: shared where the file system can,
    /// else copied.
    fn copy_from_repository(
        &self,
        path: &RelativePath,
        from: &fs::File,
        rest: Rest<'_>,
    ) -> Result<Stored> {
        let draft = self.create(path)?;
        let place = from.path().display().to_string();
        let prefix = Segment {
            source: from,
            place: &place,
            end: rest.prefix,
            live: false,
            whole: rest.whole,
        };
        let segments: Vec<Segment<'_>> = std::iter::once(prefix).chain(rest.segment).collect();
        let plan = transfer::CopyPlan {
            segments: &segments,
            full_length: rest.full_length,
            md5: rest.md5,
        };
        self.copy(&draft, path, &plan, rest.attributes, rest.follow)
            .map_err(|failure| {
                let stored = failure.source_place() == Some(place.as_str());
                let error = Error::from(failure);
                if stored {
                    error.with_kind(Kind::StoredCorrupt)
                } else {
                    error
                }
            })
    }

    /// What was adopted can be as large as the parent: only names and lengths are compared.
    fn check_rows(&self, manifest: &Manifest) -> Result<()> {
        let wrong = |path: &RelativePath, why: String| {
            Err(
                Error::new(Kind::Failed, "the files are not those of the manifest")
                    .on(self.files.place_of(path))
                    .because(why),
            )
        };
        let mut rows: Vec<&Row> = manifest.files.iter().collect();
        rows.sort_by(|one, other| one.path.cmp(&other.path));
        let mut rows = rows.into_iter().peekable();
        for entry in self.files.files()? {
            match rows.next_if(|row| row.path <= entry.path) {
                Some(row) if row.path < entry.path => {
                    return wrong(&row.path, "the file is missing".to_owned());
                }
                Some(row) if row.size != entry.size => {
                    return wrong(
                        &row.path,
                        format!("it has {} bytes, its row says {}", entry.size, row.size),
                    );
                }
                Some(_) => {}
                None => return wrong(&entry.path, "it has no row".to_owned()),
            }
        }
        rows.next().map_or(Ok(()), |row| {
            wrong(&row.path, "the file is missing".to_owned())
        })
    }

    /// No backup has the name of this one.
    fn check_label(&self, label: &Label) -> Result<()> {
        if fs::status(&self.repository.layout.backup(label))?.is_some() {
            return Err(Error::new(
                Kind::Locked,
                "another run has committed a backup of this name meanwhile",
            )
            .on(label)
            .hint("run it again"));
        }
        Ok(())
    }

    /// Modes and times as on the node, so that a plain copy looks like it: of what was taken up,
    /// and of what was changed since it was stored.
    fn finish_files(&self, manifest: &Manifest) -> Result<()> {
        let own = self.own();
        for row in manifest
            .files
            .iter()
            .filter(|row| own.contains_key(&row.path))
        {
            self.run.check()?;
            let file = fs::open(&self.files.path_of(&row.path))?;
            let attributes = row.into();
            if !has_attributes(&file.status()?, attributes) {
                self.changed(set_attributes(&file, attributes))?;
                self.changed(file.sync())?;
            }
            // The proof has read it; nobody else will soon. Advice, and so never an error.
            let _ = file.system(fs::Operation::Inspect, |fd| {
                rustix::fs::fadvise(fd, 0, None, Advice::DontNeed)
            });
        }
        Ok(())
    }

    fn sync_directories(&self, manifest: &Manifest) -> Result<()> {
        let mut directories = BTreeSet::new();
        let mut last = None;
        for row in &manifest.files {
            let place = self.files.path_of(&row.path);
            let directory = place.parent().map(PathBuf::from);
            if directory != last {
                directories.extend(
                    place
                        .ancestors()
                        .skip(1)
                        .take_while(|above| above.starts_with(self.files.top()))
                        .map(PathBuf::from),
                );
                last = directory;
            }
        }
        for directory in &directories {
            self.changed(fs::sync_directory(directory))?;
        }
        Ok(())
    }
}

/// A file in the making. It has no name of a backup's file yet, and goes unless it gets one.
struct Draft {
    file: fs::File,
    staged: PathBuf,
    place: PathBuf,
}

impl Drop for Draft {
    fn drop(&mut self) {
        // Nothing is there after its rename. What cannot be removed now goes with all else, or is
        // passed over.
        let _ = fs::remove_file(&self.staged);
    }
}

/// What follows the bytes that the repository has.
struct Rest<'a> {
    /// Bytes from the start that come from the repository.
    prefix: u64,
    /// What all of the repository's file hashes to, where that is to be proven.
    whole: Option<Blake3Hash>,
    segment: Option<Segment<'a>>,
    full_length: u64,
    md5: bool,
    attributes: Attributes,
    follow: Follower<'a>,
}

/// The commit failed, and could not be taken back either. All below the name is durable; only the
/// name may go with a loss of power. To take the manifest away instead would make a backup that is
/// whole a damaged one.
fn still_listed(label: &Label, backup: &Path, error: &IoError, back: &IoError) -> Error {
    Error::new(Kind::Failed, format!("{label} could not be committed, and is listed all the same"))
        .at(backup)
        .because(format!("{error}: {}; it could not be taken back: {back}: {}", error.source, back.source))
        .hint(format!("its files are whole, but its name may be lost with the next loss of power: do not count on it before a later backup has succeeded and `kbackup verify {label}` finds it intact"))
        .hint("look at the repository's disk and the system's log: it fails, or has gone")
}

fn not_as_stored(file: &fs::File, found: Blake3Hash, row: &Row) -> Error {
    Error::new(Kind::StoredCorrupt, "a stored file is not as it was stored")
        .at(file.path())
        .because(format!(
            "its bytes hash to {found}, its row says {}",
            row.blake3
        ))
        .hint("`kbackup full` reads everything from the node again")
}

/// The server's bits for owner, group and others; the owner can always read what is stored.
const fn stored_mode(mode: u32) -> u32 {
    mode & 0o777 | 0o400
}

pub(super) fn set_attributes(file: &fs::File, attributes: Attributes) -> Result<(), IoError> {
    where_known(file.set_mode(stored_mode(attributes.mode)))?;
    where_known(file.set_modified(attributes.modified.into()))
}

fn has_attributes(status: &fs::FileStatus, attributes: Attributes) -> bool {
    status.mode & 0o7777 == stored_mode(attributes.mode)
        && status.modified == attributes.modified.into()
}

/// Not every file system keeps modes and times; the rows do.
pub(super) fn where_known(result: Result<(), IoError>) -> Result<(), IoError> {
    match result {
        Err(error)
            if matches!(
                Errno::from_io_error(&error.source),
                Some(Errno::PERM | Errno::OPNOTSUPP)
            ) =>
        {
            Ok(())
        }
        result => result,
    }
}

/// The file system has no hard links, or no more for this file, or none across this border.
pub(super) fn cannot_link(error: &IoError) -> bool {
    let reasons = [
        Errno::MLINK,
        Errno::PERM,
        Errno::XDEV,
        Errno::OPNOTSUPP,
        Errno::NOTSUP,
        Errno::NOSYS,
        Errno::ACCESS,
    ];
    Errno::from_io_error(&error.source).is_some_and(|errno| reasons.contains(&errno))
}

impl FileSet for DirectoryIncoming<'_> {
    fn files(&self) -> Result<Vec<FileEntry>> {
        self.files.files()
    }

    fn open(&self, path: &RelativePath) -> Result<Option<Box<dyn ReadAt>>> {
        self.files.open(path)
    }

    fn place_of(&self, path: &RelativePath) -> String {
        self.files.place_of(path)
    }
}

impl Incoming for DirectoryIncoming<'_> {
    fn check_next(&self, sequence: u64) -> Result<()> {
        for newest in self.repository.labels()?.iter().rev() {
            match self.repository.head(newest) {
                Ok(newest) if newest.sequence >= sequence => {
                    return Err(Error::new(
                        Kind::Locked,
                        "another run has committed a backup meanwhile",
                    )
                    .on(newest.label)
                    .hint("run it again"));
                }
                Ok(_) => return Ok(()),
                // A damaged one does not tell.
                Err(_) => {}
            }
        }
        Ok(())
    }

    fn adopt(&self, row: &Row) -> Result<Box<dyn ReadAt>> {
        let parent = self.parent(row)?;
        let place = self.place(&row.path)?;
        let from = parent.path_of(&row.path);
        if !parent.has_directories(&row.path)? {
            // It tells what is wrong.
            self.held(row)?;
        }
        let mut linked = fs::hard_link(&from, &place);
        if linked
            .as_ref()
            .is_err_and(|error| error.source.kind() == std::io::ErrorKind::AlreadyExists)
        {
            self.remove(&row.path)?;
            linked = fs::hard_link(&from, &place);
        }
        match linked {
            // Looked at under its new name: whatever the old one leads to a moment later, this is
            // what the backup has.
            Ok(()) => match self.files.open_row(row) {
                Ok(file) => return Ok(Box::new(file)),
                Err(error) => {
                    self.remove(&row.path)?;
                    return Err(self.held(row).err().unwrap_or(error));
                }
            },
            Err(error) if cannot_link(&error) => {}
            Err(error) if error.is_not_found() => {
                self.held(row)?;
                self.changed(Err(error))?;
            }
            result => self.changed(result)?,
        }
        let held = self.held(row)?;
        self.remove(&row.path)?;
        let rest = Rest {
            prefix: row.size,
            whole: None,
            segment: None,
            full_length: row.size,
            md5: false,
            attributes: row.into(),
            follow: None,
        };
        let stored = self.copy_from_repository(&row.path, &held, rest)?;
        if stored.blake3 != row.blake3 {
            return Err(not_as_stored(&held, stored.blake3, row));
        }
        Ok(Box::new(self.files.open_row(row)?))
    }

    fn take_up(&self, path: &RelativePath, size: u64, md5: Md5Hash) -> Result<Option<Stored>> {
        for found in self.leftovers.of(path, size) {
            let captured = clock::now();
            // The bytes were synced before they got this name. Once more, and read from the disk:
            // then the hash tells what it holds.
            self.changed(found.sync())?;
            let _ = found.system(fs::Operation::Inspect, |fd| {
                rustix::fs::fadvise(fd, 0, None, Advice::DontNeed)
            });
            match leftovers::prove(&found, md5, self.run) {
                Ok(digest) => {
                    let place = self.place(path)?;
                    self.changed(fs::rename(found.path(), &place))?;
                    self.own().insert(path.clone(), true);
                    return Ok(Some(Stored {
                        size,
                        blake3: digest.blake3,
                        md5: digest.md5,
                        captured,
                    }));
                }
                Err(error) if matches!(error.kind(), Kind::Interrupted(_)) => return Err(error),
                Err(error) => {
                    self.run.note(format!(
                        "{path}: what an interrupted run left of it is not taken up: {error}"
                    ));
                    self.changed(fs::remove_file(found.path()))?;
                }
            }
        }
        Ok(None)
    }

    fn ingest(&self, path: &RelativePath, ingest: Ingest<'_>) -> Result<Stored> {
        let draft = self.create(path)?;
        let place = ingest.source.path().display().to_string();
        let segment = Segment {
            source: ingest.source,
            place: &place,
            end: ingest.length,
            live: ingest.live,
            whole: None,
        };
        let plan = transfer::CopyPlan {
            segments: &[segment],
            full_length: ingest.full_length.max(ingest.length),
            md5: ingest.md5,
        };
        Ok(self.copy(&draft, path, &plan, ingest.attributes, ingest.follow)?)
    }

    /// The parent's file plays the part of the `.old` file of the vendor's procedure: it is read
    /// where it lies, and stays.
    fn extend(
        &self,
        path: &RelativePath,
        held: &Row,
        prefix: u64,
        ingest: Ingest<'_>,
    ) -> Result<Stored> {
        let from = self.held(held)?;
        if prefix > held.size || prefix > ingest.length {
            let why = format!(
                "{prefix} bytes of a file of {}, for one of {}",
                held.size, ingest.length
            );
            return Err(
                Error::new(Kind::Failed, "cannot extend a file beyond its end")
                    .on(path)
                    .because(why),
            );
        }
        let place = ingest.source.path().display().to_string();
        let segment = Segment {
            source: ingest.source,
            place: &place,
            end: ingest.length,
            live: ingest.live,
            whole: None,
        };
        let full_length = ingest.full_length.max(ingest.length);
        let rest = Rest {
            prefix,
            whole: Some(held.blake3),
            segment: Some(segment),
            full_length,
            md5: ingest.md5,
            attributes: ingest.attributes,
            follow: ingest.follow,
        };
        self.copy_from_repository(path, &from, rest)
    }

    fn write(&self, path: &RelativePath, bytes: &[u8], attributes: Attributes) -> Result<Stored> {
        let captured = clock::now();
        let draft = self.create(path)?;
        self.changed(draft.file.write_all_at(0, bytes))?;
        self.finish(&draft, path, bytes.len() as u64, attributes, false)?;
        self.bytes_stored
            .fetch_add(bytes.len() as u64, Ordering::Relaxed);
        Ok(Stored {
            size: bytes.len() as u64,
            blake3: Blake3Hash::of(bytes),
            md5: None,
            captured,
        })
    }

    fn cut(
        &self,
        path: &RelativePath,
        length: u64,
        full_length: u64,
        attributes: Attributes,
    ) -> Result<Stored> {
        let whole = fs::open(&self.files.path_of(path))?;
        if length > whole.size() || length > full_length {
            let why = format!(
                "{length} bytes of a file of {}, for one of {full_length}",
                whole.size()
            );
            return Err(Error::new(Kind::Failed, "cannot cut a file beyond its end")
                .on(path)
                .because(why));
        }
        // Always a new inode: the old one may be the parent's too.
        self.copy_from_repository(
            path,
            &whole,
            Rest {
                prefix: length,
                whole: None,
                segment: None,
                full_length,
                md5: false,
                attributes,
                follow: None,
            },
        )
    }

    fn remove(&self, path: &RelativePath) -> Result<()> {
        self.own().remove(path);
        Ok(self.changed(fs::remove_file(&self.files.path_of(path)))?)
    }

    fn commit(mut self: Box<Self>, manifest: &Proven<Manifest>) -> Result<()> {
        self.check_label(&manifest.label)?;
        self.check_next(manifest.sequence)?;
        self.check_rows(manifest)?;
        self.finish_files(manifest)?;
        self.sync_directories(manifest)?;
        self.changed(fs::write_durably_by(
            &self.files.top().join(MANIFEST),
            FILE_MODE,
            |into| manifest.write(into),
        ))?;
        self.run.check()?;
        let layout = &self.repository.layout;
        let backup = layout.backup(&manifest.label);
        self.changed(fs::rename(self.files.top(), &backup))?;
        if let Err(error) = self.changed(
            fs::sync_directory(&layout.backups())
                .and_then(|()| fs::sync_directory(&layout.incoming())),
        ) {
            // Not known to be durable, and so not to be listed.
            return Err(match fs::rename(&backup, self.files.top()) {
                Ok(()) => error.into(),
                Err(back) => still_listed(&manifest.label, &backup, &error, &back),
            });
        }
        self.committed = true;
        self.leftovers.remove(self.run);
        Ok(())
    }

    fn bytes_stored(&self) -> u64 {
        self.bytes_stored.load(Ordering::Relaxed)
    }
}

impl Drop for DirectoryIncoming<'_> {
    fn drop(&mut self) {
        if self.committed {
            return;
        }
        let there = is_directory(self.files.top()).is_ok_and(|there| there);
        let failed = self.failed.load(Ordering::SeqCst);
        // What cannot be removed now, a later run removes.
        if !there {
            // Nothing of this run is left there.
        } else if failed || !self.own().values().any(|has_md5| *has_md5) {
            let _ = fs::remove_tree(self.files.top());
        } else {
            for (path, _) in self.own().iter().filter(|(_, has_md5)| !**has_md5) {
                let _ = fs::remove_file(&self.files.path_of(path));
            }
        }
        if failed {
            // Also what lay there before: a full disk gets its space back.
            self.leftovers.remove(self.run);
        }
    }
}
