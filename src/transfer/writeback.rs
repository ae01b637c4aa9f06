//! Writes a new file to the disk, a little at a time: past the page cache, or through it with few
//! dirty bytes. The node's syncs would have to wait for a long sync at the end.

use rustix::fs::FallocateFlags;
use rustix::io::Errno;

use super::buffer::{BLOCK, PIECE};
use crate::fs::{File, IoError, Operation};
use crate::run::Run;
use crate::timings::Activity;

/// Bytes of a file that may be dirty before they are written back, if they go through the page
/// cache.
const DIRTY: u64 = 8 * 1024 * 1024;
/// Files up to this many bytes go through the page cache: the sync at their end writes no more at
/// once than a piece of a large one.
const SMALL: u64 = PIECE as u64;

/// Makes a copied file durable, with its attributes. A small file does not wait for its turn: the
/// sync writes all of it at once, and the journal takes several files together.
///
/// # Errors
/// An error is final: never retry a failed sync into success.
pub fn sync(file: &File, size: u64, run: &Run) -> Result<(), IoError> {
    if size > SMALL {
        run.in_turn(Activity::Sync, || file.sync())
    } else {
        run.timings().time(Activity::Sync, || file.sync())
    }
}

/// Writes one new file.
pub(super) struct WriteBack<'a> {
    target: &'a File,
    /// The same file past the page cache, while that works.
    direct: Option<File>,
    /// Bytes in the page cache that are not on the disk yet.
    dirty: u64,
    run: &'a Run,
}

impl<'a> WriteBack<'a> {
    /// Writes a file that will have `size` bytes.
    pub(super) fn new(target: &'a File, size: u64, run: &'a Run) -> Self {
        // A disk may keep bytes to itself until it is told to sync. Then the node's next sync has
        // to wait for them, so a run at low priority syncs each write.
        let direct = if size > SMALL {
            target.reopen_direct(run.pace().has_low_priority())
        } else {
            None
        };

        Self {
            target,
            direct,
            dirty: 0,
            run,
        }
    }

    /// Whether bytes go past the page cache.
    pub(super) fn is_direct(&self) -> bool {
        self.direct.is_some()
    }

    /// Reserves the place on the disk for the bytes from `start` to `end`. The kernel does not
    /// gather writes past the page cache, so the pieces of several files would otherwise lie mixed
    /// on the disk. If this fails, only that advantage is lost; the write itself finds out if the
    /// disk is full.
    pub(super) fn reserve(&self, start: u64, end: u64) {
        if !self.is_direct() || end <= start {
            return;
        }

        let _ = self.target.system(Operation::Write, |fd| {
            rustix::fs::fallocate(fd, FallocateFlags::KEEP_SIZE, start, end - start)
        });
    }

    /// Writes all of `bytes` at byte `offset`.
    pub(super) fn write(&mut self, offset: u64, bytes: &[u8]) -> Result<(), IoError> {
        let (blocks, rest) = self.direct_part(offset, bytes);
        if self.write_direct(offset, blocks)? {
            return self.write_cached(offset + blocks.len() as u64, rest);
        }

        self.write_cached(offset, bytes)
    }

    /// Writes whole blocks past the page cache. Returns false if there are none, or if the file
    /// system cannot do that. In the second case the whole rest of the file goes through the page
    /// cache.
    fn write_direct(&mut self, offset: u64, blocks: &[u8]) -> Result<bool, IoError> {
        let Some(direct) = &self.direct else {
            return Ok(false);
        };
        if blocks.is_empty() {
            return Ok(false);
        }

        let written = self
            .run
            .in_turn(Activity::Write, || direct.write_all_at(offset, blocks));
        match written {
            Ok(()) => Ok(true),
            // Some file systems open files this way, but fail to write them.
            Err(error) if Errno::from_io_error(&error.source) == Some(Errno::INVAL) => {
                self.direct = None;
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    /// The blocks that can go past the page cache, and the bytes after them.
    fn direct_part<'b>(&self, offset: u64, bytes: &'b [u8]) -> (&'b [u8], &'b [u8]) {
        let is_aligned =
            offset.is_multiple_of(BLOCK as u64) && bytes.as_ptr().align_offset(BLOCK) == 0;
        let length = if is_aligned && self.is_direct() {
            bytes.len() - bytes.len() % BLOCK
        } else {
            0
        };

        bytes.split_at_checked(length).unwrap_or((&[], bytes))
    }

    fn write_cached(&mut self, offset: u64, bytes: &[u8]) -> Result<(), IoError> {
        if bytes.is_empty() {
            return Ok(());
        }

        self.run
            .timings()
            .time(Activity::Write, || self.target.write_all_at(offset, bytes))?;
        self.count_cached(bytes.len() as u64)
    }

    /// Counts bytes that kbackup or the kernel has put into the page cache, and writes them to the
    /// disk if there are too many.
    pub(super) fn count_cached(&mut self, count: u64) -> Result<(), IoError> {
        self.dirty += count;
        if self.dirty < DIRTY {
            return Ok(());
        }

        self.run.in_turn(Activity::Sync, || {
            self.target
                .system(Operation::Sync, |fd| rustix::fs::fdatasync(fd))
        })?;
        self.dirty = 0;
        Ok(())
    }
}
