//! Bytes at any offset: the trait [`ReadAt`] for every kind of storage, and [`File`], an open file.
//!
//! Both are in one file because each names the other: a reader may be a plain file, and the kernel
//! can copy the bytes of a plain file. `open.rs` opens files.

use std::io::{self, IoSliceMut, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{FileExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::SystemTime;

use rustix::fs::{Advice, AtFlags, OFlags, StatxFlags};
use rustix::io::{Errno, ReadWriteFlags};

use super::change::Change;
use super::error::{Operation, Result};
use super::gate::{attempt, change};
use super::stamp::{CopyId, Stamp};
use super::status::FileStatus;

/// Random access to the bytes of one file, in any kind of storage.
pub trait ReadAt: Send + Sync {
    /// Length in bytes.
    fn size(&self) -> u64;

    /// Reads at most `buffer.len()` bytes from byte `offset`. Returns 0 only at or beyond the end.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize>;

    /// As [`Self::read_at`], for bytes that are not read again soon. If they were not in the page
    /// cache before, they need not stay there.
    fn read_once_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        self.read_at(offset, buffer)
    }

    /// The plain file that holds exactly these bytes, if there is one. The kernel can copy its
    /// bytes.
    fn file(&self) -> Option<&File> {
        None
    }

    /// The state of the file when it was opened. Returns `None` if the storage has no stamps.
    fn stamp(&self) -> Option<Stamp> {
        None
    }

    /// The stored copy that this reads. Returns `None` if the storage does not know copies.
    fn copy_id(&self) -> Option<CopyId> {
        None
    }

    /// As [`File::drop_from_cache`], if the bytes are in a plain file.
    fn drop_from_cache(&self) {
        if let Some(file) = self.file() {
            file.drop_from_cache();
        }
    }

    /// Fills `buffer` from byte `offset`.
    ///
    /// # Errors
    /// [`io::ErrorKind::UnexpectedEof`] if the file ends earlier.
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
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        let rest = self.get(start..).unwrap_or_default();

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

/// An open file that knows its path. Clones share the descriptor.
#[derive(Debug, Clone)]
pub struct File {
    inner: Arc<std::fs::File>,
    path: Arc<Path>,
    /// Its status when it was opened; a live file may have changed since.
    found: Arc<FileStatus>,
    /// The kernel or the file system has refused to read without keeping the pages.
    fills_cache: Arc<AtomicBool>,
}

/// `RWF_DONTCACHE` of preadv2(2), since Linux 6.14: pages that the read itself brings into the
/// cache are dropped after it; others stay.
const DONT_CACHE: ReadWriteFlags = ReadWriteFlags::from_bits_retain(0x80);

impl File {
    pub(super) fn new(inner: std::fs::File, path: &Path) -> Result<Self> {
        let metadata = attempt(Operation::Inspect, path, || inner.metadata())?;
        Ok(Self {
            inner: Arc::new(inner),
            path: path.into(),
            found: Arc::new(FileStatus::from(&metadata)),
            fills_cache: Arc::default(),
        })
    }

    /// Its state when it was opened.
    #[must_use]
    pub fn found(&self) -> &FileStatus {
        &self.found
    }

    /// The path under which it was opened.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its state now.
    pub fn status(&self) -> Result<FileStatus> {
        let metadata = attempt(Operation::Inspect, &self.path, || self.inner.metadata())?;
        Ok(FileStatus::from(&metadata))
    }

    /// Fills `buffer` from byte `offset`.
    ///
    /// # Errors
    /// [`io::ErrorKind::UnexpectedEof`] if the file ends earlier.
    pub fn read_exact_at(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        attempt(Operation::Read, &self.path, || {
            FileExt::read_exact_at(&*self.inner, buffer, offset)
        })
    }

    /// Reads at most `buffer.len()` bytes from byte `offset`. Returns 0 only at the end.
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

    /// Reads a whole small file from its descriptor, because the name may lead to another file by
    /// now.
    ///
    /// # Errors
    /// [`io::ErrorKind::FileTooLarge`] if it is longer than `limit` bytes.
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

    /// As [`Self::read_at`]. Leaves the page cache as it was, if kernel and file system can.
    pub fn read_once_at(&self, offset: u64, buffer: &mut [u8]) -> Result<usize> {
        if !self.reads_once() {
            return self.read_at(offset, buffer);
        }
        if let Some(count) = self.read_past_cache(offset, buffer)? {
            return Ok(count);
        }

        self.fills_cache.store(true, Ordering::Relaxed);
        self.read_at(offset, buffer)
    }

    /// Reads with [`DONT_CACHE`]. Returns `None` if the kernel or the file system cannot do that.
    fn read_past_cache(&self, offset: u64, buffer: &mut [u8]) -> Result<Option<usize>> {
        attempt(Operation::Read, &self.path, || {
            let read = rustix::io::retry_on_intr(|| {
                let buffers = &mut [IoSliceMut::new(buffer)];
                rustix::io::preadv2(&*self.inner, buffers, offset, DONT_CACHE)
            });
            match read {
                Ok(count) => Ok(Some(count)),
                Err(Errno::OPNOTSUPP | Errno::INVAL | Errno::NOSYS) => Ok(None),
                Err(error) => Err(error.into()),
            }
        })
    }

    /// Tells the kernel to read only the requested bytes, and that they are read only once.
    ///
    /// Otherwise the kernel would read ahead, and others would wait for the disk. With
    /// [`Self::read_once_at`] it would even drop some of those bytes before they are requested, and
    /// read them again. This is advice: a file system that ignores it does no harm.
    pub fn expect_pieces(&self) {
        for advice in [Advice::Random, Advice::NoReuse] {
            let _ = self.system(Operation::Inspect, |fd| {
                rustix::fs::fadvise(fd, 0, None, advice)
            });
        }
    }

    /// Takes the file's pages out of the cache, so that the next read comes from the disk. Pages that
    /// are not on the disk yet stay: see [`Self::settle`].
    ///
    /// Only for files of kbackup: the node reads its own files from the cache. This is advice, and
    /// some file systems ignore it: those in memory, and those with a cache of their own.
    pub fn drop_from_cache(&self) {
        let _ = self.system(Operation::Inspect, |fd| {
            rustix::fs::fadvise(fd, 0, None, Advice::DontNeed)
        });
    }

    /// Whether [`Self::read_once_at`] has left the page cache alone so far.
    #[must_use]
    pub fn reads_once(&self) -> bool {
        !self.fills_cache.load(Ordering::Relaxed)
    }

    /// Whether another machine serves the file. That machine can copy it without the network.
    pub fn is_served(&self) -> Result<bool> {
        // NFS, CIFS, SMB2, Ceph.
        const SERVED: [u32; 4] = [0x6969, 0xff53_4d42, 0xfe53_4d42, 0x00c3_6400];

        let statistics = self.system(Operation::Inspect, |fd| rustix::fs::fstatfs(fd))?;
        // The number may be signed or not.
        let number = u32::try_from(statistics.f_type).unwrap_or_default();
        Ok(SERVED.contains(&number))
    }

    /// Opens the same file again for writes past the page cache. Offsets, lengths and addresses
    /// must then be multiples of a block. If `durably`, each write is on the disk when it returns.
    /// Returns `None` if the file system cannot do that, or if the path leads to another file by
    /// now.
    #[must_use]
    pub fn reopen_direct(&self, durably: bool) -> Option<Self> {
        let mut flags = OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::DIRECT;
        if durably {
            flags |= OFlags::DSYNC;
        }
        let flags = i32::try_from(flags.bits()).unwrap_or_default();

        let opened = attempt(Operation::Open, &self.path, || {
            std::fs::OpenOptions::new()
                .write(true)
                .custom_flags(flags)
                .open(&self.path)
        });
        let direct = Self::new(opened.ok()?, &self.path).ok()?;

        let is_same =
            direct.found.device == self.found.device && direct.found.inode == self.found.inode;
        (is_same && direct.writes_past_cache()).then_some(direct)
    }

    /// Whether writes really go past the page cache. Some file systems accept the flag and use the
    /// cache all the same; since Linux 6.1 they report that.
    fn writes_past_cache(&self) -> bool {
        let asked = rustix::fs::statx(&*self.inner, "", AtFlags::EMPTY_PATH, StatxFlags::DIOALIGN);
        match asked {
            Ok(answer) if answer.stx_mask & StatxFlags::DIOALIGN.bits() != 0 => {
                answer.stx_dio_offset_align > 0
            }
            _ => true,
        }
    }

    /// Writes all of `bytes` at byte `offset`.
    pub fn write_all_at(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        change(
            Operation::Write,
            &self.path,
            Change::Written(&self.inner, offset, bytes),
            || self.inner.write_all_at(bytes, offset),
        )
    }

    /// Sets the length. Added bytes are a hole.
    pub fn set_size(&self, size: u64) -> Result<()> {
        change(
            Operation::Truncate,
            &self.path,
            Change::Resized(&self.inner, size),
            || self.inner.set_len(size),
        )
    }

    /// Makes content and length durable.
    ///
    /// # Errors
    /// A failure is final: never retry it into success.
    pub fn sync(&self) -> Result<()> {
        change(
            Operation::Sync,
            &self.path,
            Change::Synced(&self.inner),
            || self.inner.sync_all(),
        )
    }

    /// Syncs the file and takes its pages out of the cache, so that the next read shows what the
    /// disk holds. No file that an earlier run left may be trusted before that: after a failed write
    /// the kernel keeps the pages as if the disk had them, and the next sync succeeds.
    ///
    /// # Errors
    /// As for [`Self::sync`]. Then nobody knows what the disk holds: remove the file.
    pub fn settle(&self) -> Result<()> {
        self.sync()?;
        self.drop_from_cache();
        Ok(())
    }

    /// Sets the permission bits.
    pub fn set_mode(&self, mode: u32) -> Result<()> {
        let permissions = std::fs::Permissions::from_mode(mode & 0o7777);
        change(
            Operation::SetMode,
            &self.path,
            Change::Attributes(&self.inner),
            || self.inner.set_permissions(permissions),
        )
    }

    /// Sets the time of the last modification.
    pub fn set_modified(&self, modified: SystemTime) -> Result<()> {
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
    /// [`io::ErrorKind::PermissionDenied`] unless the process may give files away.
    pub fn set_owner(&self, user: u32, group: u32) -> Result<()> {
        change(
            Operation::SetOwner,
            &self.path,
            Change::Attributes(&self.inner),
            || std::os::unix::fs::fchown(&*self.inner, Some(user), Some(group)),
        )
    }

    /// Makes a system call on the open file, in the name of `operation`.
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

    /// Takes an exclusive lock that ends with this process. Returns false if the file is locked.
    pub fn try_lock(&self) -> Result<bool> {
        attempt(Operation::Lock, &self.path, || {
            lock_result(self.inner.try_lock())
        })
    }

    /// Takes a lock that others may share. Returns false if there is an exclusive lock.
    pub fn try_lock_shared(&self) -> Result<bool> {
        attempt(Operation::Lock, &self.path, || {
            lock_result(self.inner.try_lock_shared())
        })
    }

    /// Releases a lock.
    pub fn unlock(&self) -> Result<()> {
        attempt(Operation::Lock, &self.path, || self.inner.unlock())
    }
}

fn lock_result(taken: std::result::Result<(), std::fs::TryLockError>) -> io::Result<bool> {
    match taken {
        Ok(()) => Ok(true),
        Err(std::fs::TryLockError::WouldBlock) => Ok(false),
        Err(std::fs::TryLockError::Error(error)) => Err(error),
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

    fn stamp(&self) -> Option<Stamp> {
        Some(Stamp::from(self.found()))
    }

    fn copy_id(&self) -> Option<CopyId> {
        Some(CopyId::from(self.found()))
    }
}
