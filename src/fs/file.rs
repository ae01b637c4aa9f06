//! Bytes at random places: the trait [`ReadAt`], whatever keeps the bytes, and an open [`File`].
//!
//! Both stand in one file because each names the other: a reader may be a plain file, and then the
//! kernel can copy its bytes. `open.rs` opens files.

use std::io::{self, IoSliceMut, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{FileExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::SystemTime;

use rustix::fs::{Advice, AtFlags, OFlags, StatxFlags};
use rustix::io::{Errno, ReadWriteFlags};

use super::error::{Operation, Result};
use super::gate::{Change, attempt, change};
use super::stamp::{CopyId, Stamp};
use super::status::FileStatus;

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

    /// The state in which it was opened; `None` if the storage does not tell.
    fn stamp(&self) -> Option<Stamp> {
        None
    }

    /// Which stored copy of its bytes it is; `None` if the storage does not tell.
    fn copy_id(&self) -> Option<CopyId> {
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
    found: Arc<FileStatus>,
    /// The kernel or the file system has refused to read without keeping.
    keeps: Arc<AtomicBool>,
}

/// `RWF_DONTCACHE` of preadv2(2), since Linux 6.14: pages that the read itself brings into the
/// cache are dropped after it; others stay.
const DONT_CACHE: ReadWriteFlags = ReadWriteFlags::from_bits_retain(0x80);

impl File {
    pub(super) fn new(inner: std::fs::File, path: &Path) -> Result<Self> {
        let found = FileStatus::from(&attempt(Operation::Inspect, path, || inner.metadata())?);
        Ok(Self {
            inner: Arc::new(inner),
            path: path.into(),
            found: Arc::new(found),
            keeps: Arc::default(),
        })
    }

    /// Its state when it was opened.
    #[must_use]
    pub fn found(&self) -> &FileStatus {
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
    pub fn status(&self) -> Result<FileStatus> {
        attempt(Operation::Inspect, &self.path, || self.inner.metadata())
            .map(|metadata| FileStatus::from(&metadata))
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

    /// Tells the kernel that nobody reads the file again soon, so that its pages can leave the
    /// cache. This is advice, and harmless if the kernel ignores it.
    pub fn drop_from_cache(&self) {
        let _ = self.system(Operation::Inspect, |fd| {
            rustix::fs::fadvise(fd, 0, None, Advice::DontNeed)
        });
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

    fn stamp(&self) -> Option<Stamp> {
        Some(Stamp::from(self.found()))
    }

    fn copy_id(&self) -> Option<CopyId> {
        Some(CopyId::from(self.found()))
    }
}
