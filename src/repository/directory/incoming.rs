//! A backup in the making: `incoming/ID/`, which becomes `backups/LABEL/` by one rename
//! ([`super::commit`]).
//!
//! A reused file shares its inode with the parent's and is never written to. Every other file is an
//! inode of its own, made as a [`Draft`], which gets its name when all of it is durable. So what an
//! interrupted run leaves under a name can be resumed ([`super::leftovers`]). A draft whose copy was
//! interrupted gets a name that says so, and a later run continues it.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::draft::{Draft, cannot_link, set_attributes};
use super::layout::{DIRECTORY_MODE, is_directory, make_directory};
use super::leftovers::Leftovers;
use super::proofs::{self, ProofsFile};
use super::stored::{Files, below_top, not_as_stored};
use super::{DirectoryRepository, Lock};
use crate::clock;
use crate::error::{Error, Kind, Result};
use crate::format::{Md5Hash, ReadAt};
use crate::fs::{self, IoError, Stamp};
use crate::manifest::{Blake3Hash, FileEntry, FileSet, Manifest, RelativePath, Row};
use crate::parallel;
use crate::proof::Proven;
use crate::repository::{
    Attributes, Begun, Incoming, Ingest, LookAtReused, ProvenCopy, Resumed, Stored,
};
use crate::run::Run;
use crate::transfer::{self, CopyFailure, Follower, Segment};

/// The incoming backup of a directory repository. It holds the writer's lock.
pub(super) struct DirectoryIncoming<'a> {
    pub(super) repository: &'a DirectoryRepository,
    pub(super) run: &'a Run,
    pub(super) files: Files,
    pub(super) leftovers: Leftovers,
    pub(super) is_committed: bool,
    /// What is proven of the files of this set.
    pub(super) proofs: ProofsFile,
    parent: Option<Files>,
    own: Mutex<OwnFiles>,
    bytes_stored: AtomicU64,
    /// Whether a change to the disk has failed.
    has_failed: AtomicBool,
    /// Whether the beginning of a file was kept for a later run.
    pub(super) keeps_begun: AtomicBool,
    /// Dropped last, so that no other run writes before this one has cleaned up.
    _lock: Lock,
}

/// Files whose inode belongs to this backup alone, and whether each carries the server's MD5: then
/// a later run can resume it.
pub(super) type OwnFiles = BTreeMap<RelativePath, bool>;

/// How to make a file whose first bytes are in the repository already.
struct Composition<'a> {
    /// The repository's file, and how many of its bytes to take.
    from: &'a fs::File,
    prefix: u64,
    /// The hash that the whole file of the repository must have. `None` if nothing has to be
    /// proven.
    whole: Option<Blake3Hash>,
    /// Read every byte of the prefix, because nothing proves the copy.
    reads_every_byte: bool,
    /// What follows the prefix.
    rest: Option<Segment<'a>>,
    full_length: u64,
    md5: Option<Md5Hash>,
    attributes: Attributes,
    follow: Follower<'a>,
}

/// What a copy puts into a draft.
struct DraftContent<'a> {
    segments: &'a [Segment<'a>],
    full_length: u64,
    /// How many bytes the draft holds already.
    begun: u64,
    /// The server's MD5 at the end of the source's file.
    md5: Option<Md5Hash>,
    attributes: Attributes,
}

impl<'a> DirectoryIncoming<'a> {
    pub(super) fn new(
        repository: &'a DirectoryRepository,
        parent: Option<&'a Manifest>,
        run: &'a Run,
        leftovers: Leftovers,
        lock: Lock,
    ) -> Result<Self> {
        let parent = match parent {
            Some(manifest) => Some(repository.backup(&manifest.label)?),
            None => None,
        };

        let id = clock::identifier().to_string();
        let files = Files::new(repository.layout.incoming().join(id));
        if let Err(error) = make_directory(files.top()) {
            // The disk may be full, so it gets back the space that interrupted runs took.
            leftovers.remove(run);
            return Err(error);
        }

        Ok(Self {
            repository,
            run,
            proofs: ProofsFile::new(files.top()),
            files,
            leftovers,
            is_committed: false,
            parent,
            own: Mutex::default(),
            bytes_stored: AtomicU64::new(0),
            has_failed: AtomicBool::new(false),
            keeps_begun: AtomicBool::new(false),
            _lock: lock,
        })
    }

    /// Passes on the result of a change to the disk, and remembers a failure. After a failure, a
    /// later sync may succeed although bytes are lost, so kbackup keeps nothing of this run.
    pub(super) fn noted<T>(&self, result: Result<T, IoError>) -> Result<T, IoError> {
        if result.is_err() {
            self.has_failed.store(true, Ordering::SeqCst);
        }
        result
    }

    /// As [`Self::noted`], for a failed change to the disk that has become an error already.
    pub(super) fn note_failure(&self) {
        self.has_failed.store(true, Ordering::SeqCst);
    }

    pub(super) fn own(&self) -> MutexGuard<'_, OwnFiles> {
        // The map is whole after every call, also if a thread panicked beside it.
        self.own.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn parent(&self, row: &Row) -> Result<&Files> {
        self.parent.as_ref().ok_or_else(|| {
            Error::new(
                Kind::Failed,
                "there is no earlier backup to reuse a file of",
            )
            .on(&row.path)
        })
    }

    fn open_parents(&self, row: &Row) -> Result<fs::File> {
        self.parent(row)?.open_row(row)
    }

    /// The path of a file in this set. Makes the directories that lead to it.
    pub(super) fn place(&self, path: &RelativePath) -> Result<PathBuf> {
        let place = self.files.path_of(path);
        if matches!(self.files.has_directories(path), Ok(true)) {
            return Ok(place);
        }

        let below = place.strip_prefix(self.files.top()).unwrap_or(&place);
        let mut directory = self.files.top().to_owned();
        for part in fs::parent(below) {
            directory.push(part);
            if !is_directory(&directory)? {
                self.noted(fs::create_directory(&directory, DIRECTORY_MODE))?;
            }
        }
        Ok(place)
    }

    pub(super) fn draft(&self, path: &RelativePath) -> Result<Draft> {
        let place = self.place(path)?;
        Ok(self.noted(Draft::create(place))?)
    }

    /// Makes a draft durable, and only then gives it its name.
    fn publish(
        &self,
        draft: &Draft,
        path: &RelativePath,
        size: u64,
        attributes: Attributes,
        has_md5: bool,
    ) -> Result<(), IoError> {
        self.noted(set_attributes(&draft.file, attributes))?;
        self.noted(transfer::sync(&draft.file, size, self.run))?;
        self.noted(draft.publish())?;

        self.own().insert(path.clone(), has_md5);
        Ok(())
    }

    fn copy(
        &self,
        path: &RelativePath,
        draft: &Draft,
        content: &DraftContent<'_>,
        mut follow: Follower<'_>,
    ) -> Result<Stored, CopyFailure> {
        let captured = clock::now();
        let plan = transfer::CopyPlan {
            segments: content.segments,
            full_length: content.full_length,
            md5: content.md5.is_some(),
        };

        let (file, mut stored) = (&draft.file, content.begun);
        let follower = follow.as_deref_mut();
        let copied = match transfer::continue_copy(&plan, file, &mut stored, follower, self.run) {
            Ok(copied) => copied,
            Err(failure) => {
                match &failure {
                    CopyFailure::Target(_) => self.has_failed.store(true, Ordering::SeqCst),
                    CopyFailure::Stopped(_) => self.keep_begun(draft, content.md5, stored),
                    _ => {}
                }
                return Err(failure);
            }
        };

        self.publish(draft, path, plan.full_length, content.attributes, plan.md5)?;
        self.bytes_stored
            .fetch_add(copied.written, Ordering::Relaxed);

        // The stamp is taken before the file is shown: whoever changes it later changes the stamp.
        let mut stamp = None;
        if let Some(follow) = follow {
            let stored = self.files.open_below(&below_top(path))?;
            stamp = stored.stamp();
            follow.finish(&stored);
        }
        Ok(Stored {
            size: copied.digest.size,
            blake3: copied.digest.blake3,
            md5: copied.digest.md5,
            begun: copied.held,
            captured,
            stamp,
        })
    }

    /// Makes a file that begins as a file of the repository does. Its blocks are shared if the file
    /// system can do that, and copied otherwise.
    fn compose(&self, path: &RelativePath, composition: Composition<'_>) -> Result<Stored> {
        let draft = self.draft(path)?;

        let place = composition.from.path().display().to_string();
        let mut segments = vec![Segment {
            source: composition.from,
            place: &place,
            end: composition.prefix,
            reads_every_byte: composition.reads_every_byte,
            whole: composition.whole,
        }];
        segments.extend(composition.rest);
        let content = DraftContent {
            segments: &segments,
            full_length: composition.full_length,
            begun: 0,
            md5: composition.md5,
            attributes: composition.attributes,
        };

        let copied = self.copy(path, &draft, &content, composition.follow);
        let failure = match copied {
            Ok(stored) => return Ok(stored),
            Err(failure) => failure,
        };

        // The repository's own file is to blame, not the source.
        let is_damage = failure.source_place() == Some(place.as_str());
        let error = Error::from(failure);
        if is_damage {
            return Err(error.with_kind(Kind::StoredCorrupt));
        }
        Err(error)
    }

    /// Reuses one file of the parent.
    fn reuse_one(&self, row: &Row) -> Result<Box<dyn ReadAt>> {
        if self.link_parents(row)? {
            return self.open_linked(row);
        }

        self.copy_parents(row)?;
        Ok(Box::new(self.files.open_row(row)?))
    }

    /// Gives the parent's file a second name in this set. Returns false if the file system has no
    /// hard links, or no more for this file.
    fn link_parents(&self, row: &Row) -> Result<bool> {
        let parent = self.parent(row)?;
        let place = self.place(&row.path)?;
        if !parent.has_directories(&row.path)? {
            // Returns the error that says what is wrong.
            parent.open_row(row)?;
        }

        let from = parent.path_of(&row.path);
        let mut linked = fs::hard_link(&from, &place);
        if matches!(&linked, Err(error) if error.source.kind() == ErrorKind::AlreadyExists) {
            self.remove(&row.path)?;
            linked = fs::hard_link(&from, &place);
        }

        let error = match linked {
            Ok(()) => return Ok(true),
            Err(error) if cannot_link(&error) => return Ok(false),
            Err(error) => error,
        };
        if error.is_not_found() {
            // Most likely the parent's file is gone. That is damage, and not a failure of the disk.
            parent.open_row(row)?;
        }
        self.noted(Err(error))?;
        Ok(false)
    }

    /// Opens a linked file under its new name. The old name may lead to another file a moment
    /// later, but the backup holds this one.
    fn open_linked(&self, row: &Row) -> Result<Box<dyn ReadAt>> {
        let error = match self.files.open_row(row) {
            Ok(file) => return Ok(Box::new(file)),
            Err(error) => error,
        };

        self.remove(&row.path)?;
        // The error should name the parent's file, because the link is removed.
        match self.open_parents(row) {
            Ok(_) => Err(error),
            Err(error) => Err(error),
        }
    }

    /// Copies the parent's file, and proves it on the way.
    fn copy_parents(&self, row: &Row) -> Result<()> {
        let parents = self.open_parents(row)?;
        self.remove(&row.path)?;
        self.copy_stored(&parents, row)
    }

    /// Copies a file that is in the repository already into an inode of its own, and proves it on
    /// the way.
    pub(super) fn copy_stored(&self, from: &fs::File, row: &Row) -> Result<()> {
        let stored = self.compose(
            &row.path,
            Composition {
                from,
                prefix: row.size,
                whole: None,
                reads_every_byte: false,
                rest: None,
                full_length: row.size,
                md5: None,
                attributes: row.into(),
                follow: None,
            },
        )?;

        if stored.blake3 != row.blake3 {
            let why = format!(
                "its bytes hash to {}, its row says {}",
                stored.blake3, row.blake3
            );
            return Err(not_as_stored(from.path(), why)
                .hint("`kbackup full` reads everything from the node again"));
        }
        Ok(())
    }
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
        self.check_sequence(sequence)
    }

    fn reuse(&self, rows: &[&Row], look: LookAtReused<'_>) -> Vec<Result<()>> {
        // Several at once: each needs only a few system calls.
        let reused = parallel::map(rows, |row| {
            let shown = self.reuse_one(row).map(|stored| look(row, &*stored));
            Ok::<_, std::convert::Infallible>(shown)
        });
        reused.unwrap_or_default()
    }

    fn left(&self) -> Result<Vec<(RelativePath, u64)>> {
        self.leftovers.list()
    }

    fn begun(&self) -> Result<Vec<Begun>> {
        self.leftovers.begun()
    }

    fn resume(
        &self,
        path: &RelativePath,
        size: u64,
        md5: Md5Hash,
        mut follow: Follower<'_>,
    ) -> Result<Option<Resumed>> {
        for found in &self.leftovers.candidates(path, size) {
            let resumed = self.resume_one(path, found, md5, &mut follow)?;
            if resumed.is_some() {
                return Ok(resumed);
            }
        }
        Ok(None)
    }

    fn keep_proof(&self, path: &RelativePath, proof: ProvenCopy) -> Result<()> {
        let Some(status) = fs::status(&self.files.path_of(path))? else {
            return Err(Error::new(Kind::Failed, "there is no such file to prove").on(path));
        };
        let line = proofs::encode(path, Stamp::from(&status), proof)?;
        Ok(self.noted(self.proofs.append(&line))?)
    }

    fn ingest(&self, path: &RelativePath, mut ingest: Ingest<'_>) -> Result<Stored> {
        let (draft, begun) = self.draft_for(path, &ingest)?;
        let follow = ingest.follow.take();
        let content = DraftContent {
            segments: &[segment_of(&ingest)],
            full_length: ingest.full_length.max(ingest.length),
            begun,
            md5: ingest.md5,
            attributes: ingest.attributes,
        };

        let stored = self.copy(path, &draft, &content, follow)?;
        if stored.begun > 0 && stored.md5 != ingest.md5 {
            self.run.note(format!(
                "{path}: the server's MD5 does not prove what an interrupted run had begun"
            ));
        }
        Ok(stored)
    }

    /// Reads the parent's file where it is. It takes the part of the `.old` file in the vendor's
    /// procedure.
    fn extend(
        &self,
        path: &RelativePath,
        held: &Row,
        prefix: u64,
        mut ingest: Ingest<'_>,
    ) -> Result<Stored> {
        let from = self.open_parents(held)?;
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

        let follow = ingest.follow.take();
        let composition = Composition {
            from: &from,
            prefix,
            whole: Some(held.blake3),
            reads_every_byte: false,
            rest: Some(segment_of(&ingest)),
            full_length: ingest.full_length.max(ingest.length),
            md5: ingest.md5,
            attributes: ingest.attributes,
            follow,
        };
        self.compose(path, composition)
    }

    fn write(&self, path: &RelativePath, bytes: &[u8], attributes: Attributes) -> Result<Stored> {
        let captured = clock::now();
        let size = bytes.len() as u64;

        let draft = self.draft(path)?;
        self.noted(draft.file.write_all_at(0, bytes))?;
        self.publish(&draft, path, size, attributes, false)?;

        self.bytes_stored.fetch_add(size, Ordering::Relaxed);
        Ok(Stored {
            size,
            blake3: Blake3Hash::of(bytes),
            md5: None,
            begun: 0,
            captured,
            stamp: None,
        })
    }

    fn cut(
        &self,
        path: &RelativePath,
        length: u64,
        full_length: u64,
        attributes: Attributes,
    ) -> Result<Stored> {
        let uncut = self.files.open_below(&below_top(path))?;
        if length > uncut.size() || length > full_length {
            let why = format!(
                "{length} bytes of a file of {}, for one of {full_length}",
                uncut.size()
            );
            return Err(Error::new(Kind::Failed, "cannot cut a file beyond its end")
                .on(path)
                .because(why));
        }

        // This makes a new inode: the old one may also be the parent's.
        let composition = Composition {
            from: &uncut,
            prefix: length,
            whole: None,
            reads_every_byte: true,
            rest: None,
            full_length,
            md5: None,
            attributes,
            follow: None,
        };
        self.compose(path, composition)
    }

    fn remove(&self, path: &RelativePath) -> Result<()> {
        self.own().remove(path);
        Ok(self.noted(fs::remove_file(&self.files.path_of(path)))?)
    }

    fn commit(mut self: Box<Self>, manifest: &Proven<Manifest>) -> Result<()> {
        self.make_listed(manifest)
    }

    fn bytes_stored(&self) -> u64 {
        self.bytes_stored.load(Ordering::Relaxed)
    }
}

fn segment_of<'a>(ingest: &'a Ingest<'_>) -> Segment<'a> {
    Segment {
        source: ingest.source,
        place: &ingest.place,
        end: ingest.length,
        reads_every_byte: ingest.reads_every_byte,
        whole: None,
    }
}

impl Drop for DirectoryIncoming<'_> {
    /// Keeps what a later run can resume. What cannot be removed now, a later run removes.
    fn drop(&mut self) {
        if self.is_committed {
            return;
        }

        let has_failed = self.has_failed.load(Ordering::SeqCst);
        if has_failed {
            // Remove also what earlier runs left, so that a full disk gets its space back.
            self.leftovers.remove(self.run);
        }
        if !matches!(is_directory(self.files.top()), Ok(true)) {
            return;
        }

        let own = self.own();
        let can_be_resumed =
            own.values().any(|has_md5| *has_md5) || self.keeps_begun.load(Ordering::SeqCst);
        if has_failed || !can_be_resumed {
            let _ = fs::remove_tree(self.files.top());
            return;
        }
        for (path, has_md5) in own.iter() {
            if !has_md5 {
                let _ = fs::remove_file(&self.files.path_of(path));
            }
        }
    }
}
