//! The one door to the file system: every error carries what was tried and on which path, every
//! durable step is an explicit call.

#![expect(clippy::disallowed_methods, reason = "this is the door")]

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::io::{self, IoSliceMut, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{Advice, AtFlags, OFlags, StatxFlags};
use rustix::io::{Errno, ReadWriteFlags};

use crate::parallel;

/// What was tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "each is the name of a system call's purpose")]
pub enum Operation {
    Open,
    Create,
    Read,
    Write,
    Truncate,
    Sync,
    Rename,
    Link,
    Remove,
    List,
    Inspect,
    SetMode,
    SetOwner,
    SetTime,
    Lock,
    Clone,
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Open => "open",
            Self::Create => "create",
            Self::Read => "read",
            Self::Write => "write",
            Self::Truncate => "set the length of",
            Self::Sync => "sync",
            Self::Rename => "rename",
            Self::Link => "link",
            Self::Remove => "remove",
            Self::List => "list",
            Self::Inspect => "inspect",
            Self::SetMode => "set the mode of",
            Self::SetOwner => "set the owner of",
            Self::SetTime => "set the time of",
            Self::Lock => "lock",
            Self::Clone => "clone",
        })
    }
}

/// A failed operation on a path.
#[derive(Debug, thiserror::Error)]
#[error("cannot {operation} `{}`", path.display())]
pub struct IoError {
    /// What was tried.
    pub operation: Operation,
    /// On what.
    pub path: PathBuf,
    /// Why it failed.
    pub source: io::Error,
}

impl IoError {
    /// The path, or a part of it, does not exist.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        self.source.kind() == io::ErrorKind::NotFound
    }

    /// The path names a link, a directory, a pipe or a socket where a plain file was wanted.
    #[must_use]
    pub fn is_no_plain_file(&self) -> bool {
        matches!(
            self.source.kind(),
            io::ErrorKind::InvalidInput
                | io::ErrorKind::IsADirectory
                | io::ErrorKind::NotADirectory
        ) || matches!(
            Errno::from_io_error(&self.source),
            Some(Errno::LOOP | Errno::NXIO)
        )
    }
}

/// What this module's functions return.
pub type Result<T> = std::result::Result<T, IoError>;

/// What an operation changes on the disk, so that a test can tell what a loss of power leaves of
/// it.
#[derive(Clone, Copy)]
#[cfg_attr(
    not(feature = "faults"),
    expect(dead_code, reason = "only a recording reads it")
)]
enum Change<'a> {
    /// A path and what is missing above it, where it was not there before.
    Made(&'a Path),
    Written(&'a std::fs::File, u64, &'a [u8]),
    /// The kernel put bytes somewhere.
    Content(&'a std::fs::File),
    Resized(&'a std::fs::File, u64),
    Attributes(&'a std::fs::File),
    AttributesOf(&'a Path),
    Synced(&'a std::fs::File),
    SyncedPath(&'a Path),
    Renamed(&'a Path, &'a Path),
    Linked(&'a Path, &'a Path),
    Removed(&'a Path),
    RemovedTree(&'a Path),
}

/// Every change of the disk passes here.
fn change<T>(
    operation: Operation,
    path: &Path,
    change: Change<'_>,
    run: impl FnOnce() -> io::Result<T>,
) -> Result<T> {
    attempt(operation, path, || recording::around(&change, run))
}

fn attempt<T>(operation: Operation, path: &Path, run: impl FnOnce() -> io::Result<T>) -> Result<T> {
    faults::gate(operation, path)
        .and_then(|()| run())
        .map_err(|source| IoError {
            operation,
            path: path.to_owned(),
            source,
        })
}

/// Random access to the bytes of one file, wherever they are kept.
pub trait ReadAt: Send + Sync {
    /// Length in bytes.
    fn size(&self) -> u64;

    /// Reads at most `buffer.len()` bytes from byte `offset`; 0 only at or beyond the end.
    ///
    /// # Errors
    /// What the storage reports.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize>;

    /// As [`Self::read_at`], of bytes that nobody reads again soon: they need not stay in the page
    /// cache where they were not before.
    ///
    /// # Errors
    /// What the storage reports.
    fn read_once_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        self.read_at(offset, buffer)
    }

    /// The plain file behind it, if that is all there is: its bytes can then be copied by the
    /// kernel.
    fn file(&self) -> Option<&File> {
        None
    }

    /// As [`File::expect_pieces`], where there is such a file.
    fn expect_pieces(&self) {
        if let Some(file) = self.file() {
            file.expect_pieces();
        }
    }

    /// Fills `buffer` from byte `offset`.
    ///
    /// # Errors
    /// [`io::ErrorKind::UnexpectedEof`] where the file ends earlier, else what the storage reports.
    fn read_exact_at(&self, mut offset: u64, mut buffer: &mut [u8]) -> io::Result<()> {
        while !buffer.is_empty() {
            match self.read_at(offset, buffer) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(count) => {
                    offset += count as u64;
                    buffer = buffer.get_mut(count..).unwrap_or_default();
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

impl ReadAt for [u8] {
    fn size(&self) -> u64 {
        self.len() as u64
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let rest = usize::try_from(offset)
            .ok()
            .and_then(|start| self.get(start..))
            .unwrap_or_default();
        let count = rest.len().min(buffer.len());
        if let (Some(into), Some(from)) = (buffer.get_mut(..count), rest.get(..count)) {
            into.copy_from_slice(from);
        }
        Ok(count)
    }
}

impl ReadAt for Vec<u8> {
    fn size(&self) -> u64 {
        self.as_slice().size()
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        self.as_slice().read_at(offset, buffer)
    }
}

/// An open file that knows its path.
#[derive(Debug, Clone)]
pub struct File {
    inner: Arc<std::fs::File>,
    path: Arc<Path>,
    /// When it was opened; a live file may have changed since.
    found: Arc<Status>,
    /// The kernel or the file system has refused to read without keeping.
    keeps: Arc<AtomicBool>,
}

/// `RWF_DONTCACHE` of preadv2(2), since Linux 6.14: pages that the read itself brings into the
/// cache are dropped after it; others stay.
const DONT_CACHE: ReadWriteFlags = ReadWriteFlags::from_bits_retain(0x80);

impl File {
    fn new(inner: std::fs::File, path: &Path) -> Result<Self> {
        let found = Status::from(&attempt(Operation::Inspect, path, || inner.metadata())?);
        Ok(Self {
            inner: Arc::new(inner),
            path: path.into(),
            found: Arc::new(found),
            keeps: Arc::default(),
        })
    }

    /// Its state when it was opened.
    #[must_use]
    pub fn found(&self) -> &Status {
        &self.found
    }

    /// Where it was opened.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its state now.
    ///
    /// # Errors
    /// What the file system reports.
    pub fn status(&self) -> Result<Status> {
        attempt(Operation::Inspect, &self.path, || self.inner.metadata())
            .map(|metadata| Status::from(&metadata))
    }

    /// Fills `buffer` from byte `offset`.
    ///
    /// # Errors
    /// Also where the file ends earlier.
    pub fn read_exact_at(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        attempt(Operation::Read, &self.path, || {
            FileExt::read_exact_at(&*self.inner, buffer, offset)
        })
    }

    /// Reads at most `buffer.len()` bytes from byte `offset`; 0 only at the end.
    ///
    /// # Errors
    /// What the file system reports.
    pub fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<usize> {
        attempt(Operation::Read, &self.path, || {
            loop {
                match FileExt::read_at(&*self.inner, buffer, offset) {
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    result => return result,
                }
            }
        })
    }

    /// Reads the whole of a small file, from the one descriptor: its name may lead elsewhere by
    /// now.
    ///
    /// # Errors
    /// Also where it is longer than `limit` bytes.
    pub fn read_small(&self, limit: u64) -> Result<Vec<u8>> {
        attempt(Operation::Read, &self.path, || {
            let mut bytes = Vec::new();
            (&*self.inner)
                .take(limit.saturating_add(1))
                .read_to_end(&mut bytes)?;
            if bytes.len() as u64 > limit {
                return Err(io::Error::new(
                    io::ErrorKind::FileTooLarge,
                    format!("longer than {limit} bytes"),
                ));
            }
            Ok(bytes)
        })
    }

    /// As [`Self::read_at`], and leaves the page cache as it was, where kernel and file system can.
    ///
    /// # Errors
    /// What the file system reports.
    pub fn read_once_at(&self, offset: u64, buffer: &mut [u8]) -> Result<usize> {
        if self.keeps.load(Ordering::Relaxed) {
            return self.read_at(offset, buffer);
        }
        let read = attempt(Operation::Read, &self.path, || {
            let read = || {
                rustix::io::preadv2(
                    &*self.inner,
                    &mut [IoSliceMut::new(buffer)],
                    offset,
                    DONT_CACHE,
                )
            };
            match rustix::io::retry_on_intr(read) {
                Ok(count) => Ok(Some(count)),
                Err(Errno::OPNOTSUPP | Errno::INVAL | Errno::NOSYS) => Ok(None),
                Err(error) => Err(error.into()),
            }
        })?;
        match read {
            Some(count) => Ok(count),
            None => {
                self.keeps.store(true, Ordering::Relaxed);
                self.read_at(offset, buffer)
            }
        }
    }

    /// Tells the kernel that only what is asked for is wanted, and not again. It would read ahead
    /// as much as it likes, which keeps the disk from others; and of what it has brought in for
    /// [`Self::read_once_at`] it drops a part before it is asked for, and reads that again. Advice:
    /// where it is not understood nothing is lost.
    pub fn expect_pieces(&self) {
        for advice in [Advice::Random, Advice::NoReuse] {
            let _ = self.system(Operation::Inspect, |fd| {
                rustix::fs::fadvise(fd, 0, None, advice)
            });
        }
    }

    /// Whether [`Self::read_once_at`] has left the page cache alone so far.
    #[must_use]
    pub fn reads_once(&self) -> bool {
        !self.keeps.load(Ordering::Relaxed)
    }

    /// Whether another machine serves it, and can copy it there.
    ///
    /// # Errors
    /// What the file system reports.
    pub fn is_served(&self) -> Result<bool> {
        let statistics = self.system(Operation::Inspect, |fd| rustix::fs::fstatfs(fd))?;
        // NFS, CIFS, SMB2, Ceph.
        let known = [0x6969, 0xff53_4d42, 0xfe53_4d42, 0x00c3_6400];
        Ok(u32::try_from(statistics.f_type).is_ok_and(|number| known.contains(&number)))
    }

    /// The same file again, to be written past the page cache: in whole blocks, from addresses that
    /// are aligned as well; each write is on the disk when it returns if `durably`. None where the
    /// file system cannot, or where its path leads elsewhere by now.
    #[must_use]
    pub fn reopen_direct(&self, durably: bool) -> Option<Self> {
        let flags = OFlags::NOFOLLOW
            | OFlags::CLOEXEC
            | OFlags::DIRECT
            | if durably {
                OFlags::DSYNC
            } else {
                OFlags::empty()
            };
        let direct = attempt(Operation::Open, &self.path, || {
            std::fs::OpenOptions::new()
                .write(true)
                .custom_flags(i32::try_from(flags.bits()).unwrap_or_default())
                .open(&self.path)
        });
        let direct = Self::new(direct.ok()?, &self.path).ok()?;
        let same =
            (direct.found.device, direct.found.inode) == (self.found.device, self.found.inode);
        (same && direct.writes_past_cache()).then_some(direct)
    }

    /// Some file systems open a file so and use the page cache all the same; since Linux 6.1 they
    /// say so.
    fn writes_past_cache(&self) -> bool {
        let asked = rustix::fs::statx(&*self.inner, "", AtFlags::EMPTY_PATH, StatxFlags::DIOALIGN);
        asked.map_or(true, |answer| {
            answer.stx_mask & StatxFlags::DIOALIGN.bits() == 0 || answer.stx_dio_offset_align > 0
        })
    }

    /// Writes all of `bytes` at byte `offset`.
    ///
    /// # Errors
    /// What the file system reports.
    pub fn write_all_at(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        change(
            Operation::Write,
            &self.path,
            Change::Written(&self.inner, offset, bytes),
            || self.inner.write_all_at(bytes, offset),
        )
    }

    /// Sets the length; what is added is a hole.
    ///
    /// # Errors
    /// What the file system reports.
    pub fn set_size(&self, size: u64) -> Result<()> {
        change(
            Operation::Truncate,
            &self.path,
            Change::Resized(&self.inner, size),
            || self.inner.set_len(size),
        )
    }

    /// Makes content and length durable. A failure is final: never retry it into success.
    ///
    /// # Errors
    /// What the file system reports.
    pub fn sync(&self) -> Result<()> {
        change(
            Operation::Sync,
            &self.path,
            Change::Synced(&self.inner),
            || self.inner.sync_all(),
        )
    }

    /// Sets the permission bits.
    ///
    /// # Errors
    /// What the file system reports.
    pub fn set_mode(&self, mode: u32) -> Result<()> {
        change(
            Operation::SetMode,
            &self.path,
            Change::Attributes(&self.inner),
            || {
                self.inner
                    .set_permissions(std::fs::Permissions::from_mode(mode & 0o7777))
            },
        )
    }

    /// Sets the time of the last modification.
    ///
    /// # Errors
    /// What the file system reports.
    pub fn set_modified(&self, modified: std::time::SystemTime) -> Result<()> {
        change(
            Operation::SetTime,
            &self.path,
            Change::Attributes(&self.inner),
            || self.inner.set_modified(modified),
        )
    }

    /// Sets owner and group by number.
    ///
    /// # Errors
    /// What the file system reports.
    pub fn set_owner(&self, user: u32, group: u32) -> Result<()> {
        change(
            Operation::SetOwner,
            &self.path,
            Change::Attributes(&self.inner),
            || std::os::unix::fs::fchown(&*self.inner, Some(user), Some(group)),
        )
    }

    /// Tries a system call on the open file, in the name of `operation`.
    ///
    /// # Errors
    /// What the call reports.
    pub fn system<T>(
        &self,
        operation: Operation,
        call: impl FnOnce(BorrowedFd<'_>) -> rustix::io::Result<T>,
    ) -> Result<T> {
        let run = || call(self.inner.as_fd()).map_err(io::Error::from);
        match operation {
            Operation::Write | Operation::Clone => {
                change(operation, &self.path, Change::Content(&self.inner), run)
            }
            Operation::Sync => change(operation, &self.path, Change::Synced(&self.inner), run),
            _ => attempt(operation, &self.path, run),
        }
    }

    /// Takes an exclusive lock that ends with this process; false where somebody else holds one.
    ///
    /// # Errors
    /// What the file system reports.
    pub fn try_lock(&self) -> Result<bool> {
        attempt(Operation::Lock, &self.path, || {
            match self.inner.try_lock() {
                Ok(()) => Ok(true),
                Err(std::fs::TryLockError::WouldBlock) => Ok(false),
                Err(std::fs::TryLockError::Error(error)) => Err(error),
            }
        })
    }

    /// Takes a lock that others may share; false where somebody holds an exclusive one.
    ///
    /// # Errors
    /// What the file system reports.
    pub fn try_lock_shared(&self) -> Result<bool> {
        attempt(Operation::Lock, &self.path, || {
            match self.inner.try_lock_shared() {
                Ok(()) => Ok(true),
                Err(std::fs::TryLockError::WouldBlock) => Ok(false),
                Err(std::fs::TryLockError::Error(error)) => Err(error),
            }
        })
    }

    /// Gives a lock back.
    ///
    /// # Errors
    /// What the file system reports.
    pub fn unlock(&self) -> Result<()> {
        attempt(Operation::Lock, &self.path, || self.inner.unlock())
    }
}

impl AsFd for File {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.inner.as_fd()
    }
}

impl ReadAt for File {
    fn size(&self) -> u64 {
        self.found.size
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        Self::read_at(self, offset, buffer).map_err(|error| error.source)
    }

    fn read_once_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        Self::read_once_at(self, offset, buffer).map_err(|error| error.source)
    }

    fn file(&self) -> Option<&File> {
        Some(self)
    }
}

/// What kind of thing a path names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileKind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link, never followed.
    Link,
    /// A socket, device or pipe.
    Special,
}

/// What the file system says of a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Status {
    /// What it is.
    pub kind: FileKind,
    /// Length in bytes.
    pub size: u64,
    /// Bytes that it takes of the file system; holes take none.
    pub allocated: u64,
    /// Permission bits.
    pub mode: u32,
    /// Time of the last modification.
    pub modified: std::time::SystemTime,
    /// Time of the last change of bytes, names, mode or owner; nobody can set it.
    pub changed: std::time::SystemTime,
    /// Device that holds it.
    pub device: u64,
    /// Number of the inode on that device.
    pub inode: u64,
    /// How many names the inode has.
    pub links: u64,
    /// Numeric owner.
    pub user: u32,
    /// Numeric group.
    pub group: u32,
}

impl From<&std::fs::Metadata> for Status {
    fn from(metadata: &std::fs::Metadata) -> Self {
        let kind = match metadata.file_type() {
            kind if kind.is_file() => FileKind::File,
            kind if kind.is_dir() => FileKind::Directory,
            kind if kind.is_symlink() => FileKind::Link,
            _ => FileKind::Special,
        };
        Self {
            kind,
            size: metadata.len(),
            allocated: metadata.blocks().saturating_mul(512),
            mode: metadata.mode() & 0o7777,
            modified: metadata.modified().unwrap_or(std::time::UNIX_EPOCH),
            changed: time(metadata.ctime(), metadata.ctime_nsec()),
            device: metadata.dev(),
            inode: metadata.ino(),
            links: metadata.nlink(),
            user: metadata.uid(),
            group: metadata.gid(),
        }
    }
}

/// Seconds since 1970, and nanoseconds.
fn time(seconds: i64, nanoseconds: i64) -> std::time::SystemTime {
    let whole = std::time::Duration::from_secs(seconds.unsigned_abs());
    let part = std::time::Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or_default());
    let whole = if seconds < 0 {
        std::time::UNIX_EPOCH.checked_sub(whole)
    } else {
        std::time::UNIX_EPOCH.checked_add(whole)
    };
    whole
        .and_then(|whole| whole.checked_add(part))
        .unwrap_or(std::time::UNIX_EPOCH)
}

/// What tells one state of one file from all others, as far as the file system does: nobody writes
/// to a file, or puts another one in its place, and leaves all of it as it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    modified: std::time::SystemTime,
    changed: std::time::SystemTime,
}

impl Stamp {
    /// Whether the file has not changed since before `moment`. File systems keep times in ticks:
    /// what changes twice in one tick shows only the first time.
    #[must_use]
    pub fn is_before(&self, moment: std::time::SystemTime) -> bool {
        self.changed < moment && self.modified < moment
    }
}

impl From<&Status> for Stamp {
    fn from(status: &Status) -> Self {
        let Status {
            device,
            inode,
            size,
            modified,
            changed,
            ..
        } = *status;
        Self {
            device,
            inode,
            size,
            modified,
            changed,
        }
    }
}

/// One name in a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The name, which need not be UTF-8.
    pub name: OsString,
    /// What it is.
    pub status: Status,
}

/// Opens a regular file of the node for reading: never through a link, without moving its access
/// time where that is permitted.
///
/// # Errors
/// Also where the path is a link or no regular file.
pub fn open_source(path: &Path) -> Result<File> {
    let open = |extra: OFlags| {
        let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC | extra;
        std::fs::OpenOptions::new()
            .read(true)
            .custom_flags(i32::try_from(flags.bits()).unwrap_or_default())
            .open(path)
    };
    let file = attempt(Operation::Open, path, || match open(OFlags::NOATIME) {
        Err(error) if error.raw_os_error() == Some(Errno::PERM.raw_os_error()) => {
            open(OFlags::empty())
        }
        result => result,
    })?;
    let file = File::new(file, path)?;
    if file.found().kind != FileKind::File {
        let source = io::Error::new(io::ErrorKind::InvalidInput, "not a regular file");
        return Err(IoError {
            operation: Operation::Open,
            path: path.to_owned(),
            source,
        });
    }
    Ok(file)
}

/// Opens a file of ours for reading, never through a link.
///
/// # Errors
/// What the file system reports.
pub fn open(path: &Path) -> Result<File> {
    open_source(path)
}

/// Opens a file of ours for reading and writing, never through a link.
///
/// # Errors
/// What the file system reports.
pub fn open_for_writing(path: &Path) -> Result<File> {
    open_with(
        path,
        Operation::Open,
        std::fs::OpenOptions::new().read(true).write(true),
    )
}

/// Creates a file that must not exist yet.
///
/// # Errors
/// Also where the path exists.
pub fn create_new(path: &Path, mode: u32) -> Result<File> {
    open_with(
        path,
        Operation::Create,
        std::fs::OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(mode),
    )
}

/// Opens a file for reading and writing, and creates it where there is none.
///
/// # Errors
/// What the file system reports.
pub fn open_or_create(path: &Path, mode: u32) -> Result<File> {
    open_with(
        path,
        Operation::Create,
        std::fs::OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(mode),
    )
}

fn open_with(
    path: &Path,
    operation: Operation,
    options: &mut std::fs::OpenOptions,
) -> Result<File> {
    let flags = OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let options = options.custom_flags(i32::try_from(flags.bits()).unwrap_or_default());
    let file = change(operation, path, Change::Made(path), || options.open(path))?;
    File::new(file, path)
}

/// Reads a whole small file.
///
/// # Errors
/// Also where it is longer than `limit` bytes.
pub fn read_small(path: &Path, limit: u64) -> Result<Vec<u8>> {
    open_source(path)?.read_small(limit)
}

/// Puts `bytes` under `path` by a durable, atomic rename: a reader sees the old file or the whole
/// new one.
///
/// # Errors
/// What the file system reports; the old file then still stands.
pub fn write_durably(path: &Path, bytes: &[u8], mode: u32) -> Result<()> {
    write_durably_by(path, mode, |into| into.write_all(bytes))
}

/// As [`write_durably`], for content that is made piece by piece.
///
/// # Errors
/// As for [`write_durably`]; also what `write` returns.
pub fn write_durably_by(
    path: &Path,
    mode: u32,
    write: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> Result<()> {
    let directory = parent(path);
    let staged = attempt(Operation::Create, path, || {
        let mode = std::fs::Permissions::from_mode(mode);
        let staged = tempfile::Builder::new()
            .prefix(".")
            .suffix(".tmp")
            .permissions(mode)
            .tempfile_in(directory)?;
        recording::made(staged.path())?;
        Ok(staged)
    })?;
    change(
        Operation::Write,
        path,
        Change::Content(staged.as_file()),
        || {
            let mut buffered = io::BufWriter::new(staged.as_file());
            write(&mut buffered)?;
            buffered.flush()
        },
    )?;
    change(
        Operation::Sync,
        path,
        Change::Synced(staged.as_file()),
        || staged.as_file().sync_all(),
    )?;
    let name = staged.path().to_owned();
    change(
        Operation::Rename,
        path,
        Change::Renamed(&name, path),
        || staged.persist(path).map_err(|error| error.error),
    )?;
    sync_directory(directory)
}

/// Removes what [`write_durably`] left in a directory when its process was killed: no file has that
/// name for longer than a write takes, and what is there for an hour is nobody's any more.
///
/// # Errors
/// What the file system reports.
pub fn remove_stale_staging(directory: &Path) -> Result<()> {
    const STALE: std::time::Duration = std::time::Duration::from_secs(3600);
    for entry in list(directory)? {
        let is_staging = entry
            .name
            .to_str()
            .and_then(|name| name.strip_prefix('.')?.strip_suffix(".tmp"))
            .is_some_and(|random| {
                // As `tempfile` names them.
                random.len() == 6 && random.bytes().all(|byte| byte.is_ascii_alphanumeric())
            });
        // A file from the future is left: the clock may have gone back.
        let is_stale = || {
            entry
                .status
                .modified
                .elapsed()
                .is_ok_and(|age| age >= STALE)
        };
        if is_staging && entry.status.kind == FileKind::File && is_stale() {
            remove_file(&directory.join(&entry.name))?;
        }
    }
    Ok(())
}

/// The directory that holds `path`.
#[must_use]
pub fn parent(path: &Path) -> &Path {
    path.parent()
        .filter(|parent| !parent.as_os_str().is_empty())
        .unwrap_or(Path::new("."))
}

/// Makes the names in a directory durable, as far as its file system knows how: some network file
/// systems do not.
///
/// # Errors
/// What the file system reports.
pub fn sync_directory(path: &Path) -> Result<()> {
    change(
        Operation::Sync,
        path,
        Change::SyncedPath(path),
        || match std::fs::File::open(path)?.sync_all() {
            Err(error)
                if matches!(
                    Errno::from_io_error(&error),
                    Some(Errno::INVAL | Errno::OPNOTSUPP)
                ) =>
            {
                Ok(())
            }
            result => result,
        },
    )
}

/// What the file system says of `path`, links not followed; none where nothing has that name.
///
/// # Errors
/// What the file system reports, except that nothing is there.
pub fn status(path: &Path) -> Result<Option<Status>> {
    match attempt(Operation::Inspect, path, || std::fs::symlink_metadata(path)) {
        Ok(metadata) => Ok(Some(Status::from(&metadata))),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error),
    }
}

/// What the file system says of what `path` leads to, links followed; none where nothing is there.
///
/// # Errors
/// What the file system reports, except that nothing is there.
pub fn status_of_target(path: &Path) -> Result<Option<Status>> {
    match attempt(Operation::Inspect, path, || std::fs::metadata(path)) {
        Ok(metadata) => Ok(Some(Status::from(&metadata))),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error),
    }
}

/// Where a link points.
///
/// # Errors
/// Also where `path` is no link.
pub fn link_target(path: &Path) -> Result<PathBuf> {
    attempt(Operation::Inspect, path, || std::fs::read_link(path))
}

/// The absolute path without links. Used for directories the operator names, which may be links
/// themselves.
///
/// # Errors
/// Also where it does not exist.
pub fn canonical(path: &Path) -> Result<PathBuf> {
    attempt(Operation::Inspect, path, || std::fs::canonicalize(path))
}

/// The names in one directory, and nothing else of what bears them.
///
/// # Errors
/// What the file system reports.
pub fn names(path: &Path) -> Result<Vec<OsString>> {
    attempt(Operation::List, path, || {
        std::fs::read_dir(path)?
            .map(|entry| entry.map(|entry| entry.file_name()))
            .collect()
    })
}

/// Whether a directory has a name that `which` looks for.
///
/// # Errors
/// What the file system reports.
pub fn has_name(path: &Path, which: impl Fn(&OsStr) -> bool) -> Result<bool> {
    attempt(Operation::List, path, || {
        for entry in std::fs::read_dir(path)? {
            if which(&entry?.file_name()) {
                return Ok(true);
            }
        }
        Ok(false)
    })
}

/// The names in one directory, sorted. A name that vanishes meanwhile is left out.
///
/// # Errors
/// What the file system reports.
pub fn list(path: &Path) -> Result<Vec<Entry>> {
    let mut entries = list_by(path, |name, status| Some(Entry { name, status }))?;
    entries.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(entries)
}

/// What `make` makes of the names in one directory, in no order; it is called by several threads. A
/// name that vanishes meanwhile is left out.
///
/// # Errors
/// What the file system reports.
pub fn list_by<T: Send>(
    path: &Path,
    make: impl Fn(OsString, Status) -> Option<T> + Sync,
) -> Result<Vec<T>> {
    let names = attempt(Operation::List, path, || {
        std::fs::read_dir(path)?.collect::<io::Result<Vec<_>>>()
    })?;
    let inspect = |name: &std::fs::DirEntry| {
        // By its directory's descriptor: the way there is not walked for every name.
        match attempt(Operation::Inspect, &name.path(), || name.metadata()) {
            Ok(metadata) => Ok(make(name.file_name(), Status::from(&metadata))),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    };
    let mut entries = Vec::with_capacity(names.len());
    for names in names.chunks(parallel::AT_ONCE) {
        entries.extend(parallel::map(names, inspect)?.into_iter().flatten());
    }
    Ok(entries)
}

/// Creates a directory, unless there is one; its parent exists.
///
/// # Errors
/// What the file system reports.
pub fn create_directory(path: &Path, mode: u32) -> Result<()> {
    change(
        Operation::Create,
        path,
        Change::Made(path),
        || match std::fs::DirBuilder::new().mode(mode).create(path) {
            Err(error)
                if error.kind() == io::ErrorKind::AlreadyExists
                    && std::fs::metadata(path)?.is_dir() =>
            {
                Ok(())
            }
            result => result,
        },
    )
}

/// Creates a directory and, with `mode_above`, those above it that are missing, and makes their
/// names durable.
///
/// Each is durable before the next is made, and the name of one that is there already is made
/// durable, too: a run that was killed may have made it and never synced it. So only the last can
/// be in doubt.
///
/// # Errors
/// What the file system reports.
pub fn create_directories_durably(path: &Path, mode_above: u32, mode: u32) -> Result<()> {
    let mut missing = Vec::new();
    let mut there = path;
    while status_of_target(there)?.is_none() {
        missing.push(there);
        there = parent(there);
    }
    match sync_directory(parent(there)) {
        // What lies in a directory that this process may not read, or not change, was not made by
        // an earlier run of it.
        Err(error)
            if matches!(
                error.source.kind(),
                io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem
            ) => {}
        result => result?,
    }
    for directory in missing.into_iter().rev() {
        create_directory(directory, if directory == path { mode } else { mode_above })?;
        sync_directory(parent(directory))?;
    }
    Ok(())
}

/// Gives `from` the name `to`, replacing what has it.
///
/// # Errors
/// What the file system reports.
pub fn rename(from: &Path, to: &Path) -> Result<()> {
    change(Operation::Rename, to, Change::Renamed(from, to), || {
        std::fs::rename(from, to)
    })
}

/// Gives the file `from` a second name.
///
/// # Errors
/// What the file system reports.
pub fn hard_link(from: &Path, to: &Path) -> Result<()> {
    change(Operation::Link, to, Change::Linked(from, to), || {
        std::fs::hard_link(from, to)
    })
}

/// Removes a file; that it is gone already is no error.
///
/// # Errors
/// What the file system reports.
pub fn remove_file(path: &Path) -> Result<()> {
    gone_is_fine(change(
        Operation::Remove,
        path,
        Change::Removed(path),
        || std::fs::remove_file(path),
    ))
}

/// Removes a directory and all below it, links not followed; that it is gone already is no error.
///
/// # Errors
/// What the file system reports.
pub fn remove_tree(path: &Path) -> Result<()> {
    gone_is_fine(change(
        Operation::Remove,
        path,
        Change::RemovedTree(path),
        || std::fs::remove_dir_all(path),
    ))
}

fn gone_is_fine(result: Result<()>) -> Result<()> {
    match result {
        Err(error) if error.is_not_found() => Ok(()),
        result => result,
    }
}

/// Sets owner and group of a file or directory by number, durably.
///
/// # Errors
/// What the file system reports.
pub fn set_owner(path: &Path, user: u32, group: u32) -> Result<()> {
    change(
        Operation::SetOwner,
        path,
        Change::AttributesOf(path),
        || std::os::unix::fs::lchown(path, Some(user), Some(group)),
    )?;
    // Opens a file as well as a directory.
    sync_directory(path)
}

/// Sets the permission bits of a directory.
///
/// # Errors
/// What the file system reports.
pub fn set_mode(path: &Path, mode: u32) -> Result<()> {
    change(Operation::SetMode, path, Change::AttributesOf(path), || {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode & 0o7777))
    })
}

/// Bytes that may still be written to the file system of `path`.
///
/// # Errors
/// What the file system reports.
pub fn free_space(path: &Path) -> Result<u64> {
    let statistics = attempt(Operation::Inspect, path, || Ok(rustix::fs::statvfs(path)?))?;
    Ok(statistics.f_bavail.saturating_mul(statistics.f_frsize))
}

/// The kind of the network file system that holds `path`, where it is one: other machines may use
/// the same files, and locks may not be seen.
///
/// # Errors
/// What the file system reports.
pub fn network_file_system(path: &Path) -> Result<Option<&'static str>> {
    let statistics = attempt(Operation::Inspect, path, || Ok(rustix::fs::statfs(path)?))?;
    // The numbers are those of statfs(2); they may be signed or not.
    Ok(match u32::try_from(statistics.f_type).unwrap_or_default() {
        0x6969 => Some("NFS"),
        0x517b => Some("SMB"),
        0xff53_4d42 => Some("CIFS"),
        0xfe53_4d42 => Some("SMB2"),
        0x6573_5546 => Some("FUSE"),
        0x0102_1997 => Some("9p"),
        0x00c3_6400 => Some("Ceph"),
        0x0bd0_0bd0 => Some("Lustre"),
        0x0116_1970 => Some("GFS2"),
        0x7461_636f => Some("OCFS2"),
        _ => None,
    })
}

#[cfg(feature = "faults")]
mod faults;
#[cfg(feature = "faults")]
mod recording;

#[cfg(not(feature = "faults"))]
mod recording {
    use std::io;

    pub(super) fn around<T>(
        _: &super::Change<'_>,
        run: impl FnOnce() -> io::Result<T>,
    ) -> io::Result<T> {
        run()
    }

    #[expect(
        clippy::unnecessary_wraps,
        reason = "the same signature as with faults"
    )]
    pub(super) fn made(_: &std::path::Path) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(not(feature = "faults"))]
mod faults {
    #[expect(
        clippy::unnecessary_wraps,
        reason = "the same signature as with faults"
    )]
    pub(super) fn gate(_: super::Operation, _: &std::path::Path) -> std::io::Result<()> {
        Ok(())
    }
}
