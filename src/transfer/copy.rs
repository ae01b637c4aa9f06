//! Copying one file: from its segments into a new target, hashed on the way.
//!
//! Each extent of the source takes one of three ways: the target shares its blocks, the kernel
//! copies it, or kbackup reads, hashes and writes it. kbackup hashes shared and kernel-copied
//! extents in the target.

use std::io;

use rustix::io::Errno;

use super::buffer::{PIECE, ZEROS};
use super::extents::{Extent, extent_at};
use super::failure::CopyFailure;
use super::hashing::{Digest, Hashing, RecentlyHashed};
use super::plan::{CopyPlan, Follower, Segment};
use super::writeback::WriteBack;
use crate::event::Event;
use crate::fs::{File, IoError, Operation, ReadAt};
use crate::manifest::Blake3Hash;
use crate::run::Run;
use crate::timings::Activity;

/// Bytes that the kernel copies at once.
const KERNEL_PIECE: u64 = 4 * 1024 * 1024;

/// A file that was copied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Copied {
    /// The hashes of the whole target.
    pub digest: Digest,
    /// Bytes that were read from the segments; holes are not read.
    pub read: u64,
    /// Bytes that were written to the target; blocks of zeros are not.
    pub written: u64,
    /// Bytes that the target held before.
    pub held: u64,
}

/// Copies into `target`, which is new and empty. The target is not synced at the end. Reports
/// progress in bytes of the segments.
///
/// If the file system can, the target shares the blocks of the first segment's file, unless every
/// byte of that file is to be read.
///
/// # Errors
/// [`CopyFailure::Stopped`] once the run was asked to end. The other variants tell a failure of a
/// source from a failure of the target.
pub fn copy(
    plan: &CopyPlan<'_>,
    target: &File,
    follow: Follower<'_>,
    run: &Run,
) -> Result<Copied, CopyFailure> {
    continue_copy(plan, target, &mut 0, follow, run)
}

/// As [`copy`], into a target that may hold the first `stored` bytes already. They are hashed in the
/// target and not read from the segments. Nothing proves them but the hashes of the whole file.
/// After a failure, `stored` says how many bytes the target holds now.
///
/// # Errors
/// As for [`copy`].
pub fn continue_copy(
    plan: &CopyPlan<'_>,
    target: &File,
    stored: &mut u64,
    follow: Follower<'_>,
    run: &Run,
) -> Result<Copied, CopyFailure> {
    let held = std::mem::take(stored);
    let shared = match plan.segments.first() {
        Some(first) if !first.reads_every_byte && first.end > 0 => share(first, target, held)?,
        _ => 0,
    };
    // A clone replaces all bytes of the target.
    let held = if shared > 0 { 0 } else { held };

    target.set_size(plan.full_length)?;
    if shared.max(held) > 0 {
        target.expect_pieces();
    }

    let mut copying = Copying {
        target: Target {
            file: target,
            size: plan.full_length,
        },
        write_back: WriteBack::new(target, plan.full_length, run),
        hashing: Hashing::new(plan.full_length, plan.md5, run),
        follow,
        run,
        offset: 0,
        read: 0,
        written: 0,
    };
    let result = copying.copy_segments(plan, shared.max(held));
    // The bytes that were held stay stored if the copy ends while they are hashed.
    *stored = held.max(copying.offset);
    result?;

    // After the last segment follows a hole.
    let mut hashing = copying.hashing;
    hashing.zeros(plan.full_length.saturating_sub(copying.offset))?;
    Ok(Copied {
        digest: hashing.finish(),
        read: copying.read,
        written: copying.written,
        held,
    })
}

/// Makes the `target` hold the bytes of a segment by sharing the blocks of its file, if the file
/// system can. Otherwise it keeps its first `held` bytes. Returns the number of shared bytes.
fn share(segment: &Segment<'_>, target: &File, held: u64) -> Result<u64, IoError> {
    let Some(source) = segment.source.file() else {
        return Ok(0);
    };

    let is_shared = target
        .system(Operation::Clone, |fd| rustix::fs::ioctl_ficlone(fd, source))
        .is_ok();
    let bytes = if is_shared { segment.end } else { held };

    // The file may be longer than the segment, and a failed clone may leave bytes behind. Neither
    // belongs to the target.
    if is_shared || target.status()?.size > bytes {
        target.set_size(bytes)?;
    }
    Ok(if is_shared { bytes } else { 0 })
}

/// How the data of a file gets into the target, unless every byte is to be read.
#[derive(Clone, Copy, PartialEq, Eq)]
enum DataPath {
    /// The first read decides.
    Undecided,
    /// The kernel copies, because it needs no page cache, or because reading would fill the cache,
    /// too.
    Kernel,
    /// The data is read past the page cache, or the kernel cannot copy it.
    Reading,
}

/// The target, with the length that it will have.
struct Target<'a> {
    file: &'a File,
    size: u64,
}

impl Target<'_> {
    fn unreadable(&self, source: io::Error) -> CopyFailure {
        CopyFailure::Target(IoError {
            operation: Operation::Read,
            path: self.file.path().to_owned(),
            source,
        })
    }
}

impl ReadAt for Target<'_> {
    fn size(&self) -> u64 {
        self.size
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        ReadAt::read_at(self.file, offset, buffer)
    }

    fn read_once_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        ReadAt::read_once_at(self.file, offset, buffer)
    }
}

/// A copy under way.
struct Copying<'a> {
    target: Target<'a>,
    write_back: WriteBack<'a>,
    hashing: Hashing<'a>,
    follow: Follower<'a>,
    run: &'a Run,
    /// Everything before it is stored and hashed.
    offset: u64,
    read: u64,
    written: u64,
}

impl Copying<'_> {
    /// Hashes the first `stored` bytes in the target, and copies the rest of the segments.
    fn copy_segments(&mut self, plan: &CopyPlan<'_>, stored: u64) -> Result<(), CopyFailure> {
        self.hash_stored(stored)?;
        for segment in plan.segments {
            self.copy_segment(segment)?;
            if let Some(whole) = segment.whole {
                self.prove(segment, whole)?;
            }
        }
        Ok(())
    }

    fn copy_segment(&mut self, segment: &Segment<'_>) -> Result<(), CopyFailure> {
        match segment.source.file() {
            Some(file) if !segment.reads_every_byte => self.copy_extents(file, segment),
            _ => self.copy_by_reading(segment, segment.end),
        }
    }

    fn copy_extents(&mut self, file: &File, segment: &Segment<'_>) -> Result<(), CopyFailure> {
        let mut path = self.first_data_path(file)?;
        while self.offset < segment.end {
            self.run.check()?;
            match extent_at(file, self.offset, segment.end) {
                Extent::Hole { end } => {
                    self.hashing.zeros(end - self.offset)?;
                    self.advance(end);
                }
                Extent::Data { end } => path = self.copy_data(file, segment, end, path)?,
            }
        }

        // If the file was truncated during the copy, its end was read as a hole.
        let status = file
            .status()
            .map_err(|error| source_failure(segment, error.source))?;
        if status.size < segment.end {
            return Err(short(segment, status.size));
        }
        Ok(())
    }

    fn first_data_path(&self, file: &File) -> Result<DataPath, CopyFailure> {
        // A server of files copies without sending the bytes here and back.
        if file.is_served()? {
            return Ok(DataPath::Kernel);
        }

        Ok(if self.write_back.is_direct() {
            DataPath::Reading
        } else {
            DataPath::Undecided
        })
    }

    /// Copies one extent of data, and returns the path that the next one takes.
    fn copy_data(
        &mut self,
        file: &File,
        segment: &Segment<'_>,
        end: u64,
        path: DataPath,
    ) -> Result<DataPath, CopyFailure> {
        self.write_back.reserve(self.offset, end);

        let mut path = path;
        if path == DataPath::Undecided {
            self.copy_by_reading(segment, end.min(self.offset + PIECE as u64))?;
            path = if file.reads_once() {
                DataPath::Reading
            } else {
                DataPath::Kernel
            };
        }

        if path == DataPath::Kernel {
            if self.copy_by_kernel(file, end)? {
                return Ok(path);
            }
            path = DataPath::Reading;
        }

        self.copy_by_reading(segment, end)?;
        Ok(path)
    }

    /// Lets the kernel copy up to `end`. Returns false if it cannot. Then the caller reads the
    /// rest.
    fn copy_by_kernel(&mut self, source: &File, end: u64) -> Result<bool, CopyFailure> {
        while self.offset < end {
            self.run.check()?;
            let wanted = self.run.pace().piece((end - self.offset).min(KERNEL_PIECE));
            let wanted = usize::try_from(wanted).unwrap_or(PIECE);

            match self.copy_piece_by_kernel(source, wanted) {
                // The file has ended, or the file system copies nothing without an error. Reading
                // shows which.
                Ok(0) => return Ok(false),
                Ok(count) => {
                    self.read += count;
                    self.written += count;
                    self.write_back.count_cached(count)?;
                    self.hash_stored(self.offset + count)?;
                }
                Err(error) if is_full(&error) => return Err(error.into()),
                // Another file system, an old kernel, or a bad block. Reading shows which.
                Err(_) => return Ok(false),
            }
        }

        Ok(true)
    }

    fn copy_piece_by_kernel(&self, source: &File, wanted: usize) -> Result<u64, IoError> {
        let (mut from, mut to) = (self.offset, self.offset);
        let copied = self.run.in_turn(Activity::Read, || {
            self.target.file.system(Operation::Write, |fd| {
                rustix::io::retry_on_intr(|| {
                    rustix::fs::copy_file_range(source, Some(&mut from), fd, Some(&mut to), wanted)
                })
            })
        });

        copied.map(|count| count as u64)
    }

    fn copy_by_reading(&mut self, segment: &Segment<'_>, end: u64) -> Result<(), CopyFailure> {
        while self.offset < end {
            self.run.check()?;

            // Up to the next multiple of a piece, so that blocks of zeros are found at their
            // places.
            let piece = self.run.pace().piece(PIECE as u64);
            let piece = piece - self.offset % piece;
            let wanted = usize::try_from((end - self.offset).min(piece)).unwrap_or(PIECE);

            let mut buffer = self.hashing.buffer();
            let count = self
                .run
                .in_turn(Activity::Read, || {
                    buffer.fill(segment.source, self.offset, wanted)
                })
                .map_err(|error| source_failure(segment, error))?;
            if count < wanted {
                return Err(short(segment, self.offset + count as u64));
            }

            let (write_back, offset) = (&mut self.write_back, self.offset);
            self.written += self.hashing.bytes(offset, buffer, |bytes| {
                write_data(write_back, offset, bytes)
            })?;
            self.read += count as u64;
            self.run.pace().spend(count as u64);
            self.advance(offset + count as u64);
        }

        Ok(())
    }

    /// Proves the whole file of a segment whose bytes are all copied.
    fn prove(&self, segment: &Segment<'_>, wanted: Blake3Hash) -> Result<(), CopyFailure> {
        let found = self
            .hashing
            .continued(segment.source, segment.end)?
            .map_err(|error| source_failure(segment, error))?;
        if found == wanted {
            return Ok(());
        }

        Err(CopyFailure::Other {
            place: segment.place.to_owned(),
            wanted,
            found,
        })
    }

    /// Hashes bytes that are stored already, up to `end`.
    fn hash_stored(&mut self, end: u64) -> Result<(), CopyFailure> {
        while self.offset < end {
            self.run.check()?;
            let (offset, piece) = (self.offset, self.run.pace().piece(PIECE as u64));
            let wanted = usize::try_from((end - offset).min(piece)).unwrap_or(PIECE);

            let mut buffer = self.hashing.buffer();
            let count = self
                .run
                .in_turn(Activity::Read, || buffer.fill(&self.target, offset, wanted))
                .map_err(|error| self.target.unreadable(error))?;
            if count < wanted {
                let error = io::ErrorKind::UnexpectedEof.into();
                return Err(self.target.unreadable(error));
            }

            self.hashing.bytes(offset, buffer, |_| ());
            self.run.pace().spend(wanted as u64);
            self.advance(offset + wanted as u64);
        }

        Ok(())
    }

    /// Everything before `offset` is stored and hashed now.
    fn advance(&mut self, offset: u64) {
        let bytes = offset - self.offset;
        self.run.emit(Event::Progress { bytes });
        self.offset = offset;

        if let Some(follow) = &mut self.follow {
            let stored = RecentlyHashed {
                file: &self.target,
                hashing: &self.hashing,
            };
            self.run
                .timings()
                .time(Activity::Records, || follow.follow(&stored, offset));
        }
    }
}

/// Writes the blocks of `bytes` that are not all zeros. Returns the number of bytes written.
fn write_data(write_back: &mut WriteBack<'_>, offset: u64, bytes: &[u8]) -> Result<u64, IoError> {
    let mut written = 0;
    let mut data_start = 0;
    let mut at = 0;
    while at < bytes.len() {
        // Blocks of zeros are found at multiples of their size in the file.
        let place = usize::try_from((offset + at as u64) % ZEROS.len() as u64).unwrap_or_default();
        let next = (at + ZEROS.len() - place).min(bytes.len());

        let is_whole = next - at == ZEROS.len();
        if is_whole && bytes.get(at..next) == Some(ZEROS.as_slice()) {
            written += write_part(write_back, offset, bytes, data_start, at)?;
            data_start = next;
        }
        at = next;
    }

    written += write_part(write_back, offset, bytes, data_start, bytes.len())?;
    Ok(written)
}

fn write_part(
    write_back: &mut WriteBack<'_>,
    offset: u64,
    bytes: &[u8],
    from: usize,
    to: usize,
) -> Result<u64, IoError> {
    let data = bytes.get(from..to).unwrap_or_default();
    if !data.is_empty() {
        write_back.write(offset + from as u64, data)?;
    }
    Ok(data.len() as u64)
}

fn is_full(error: &IoError) -> bool {
    matches!(
        Errno::from_io_error(&error.source),
        Some(Errno::NOSPC | Errno::DQUOT | Errno::FBIG | Errno::ROFS)
    )
}

fn source_failure(segment: &Segment<'_>, source: io::Error) -> CopyFailure {
    CopyFailure::Source {
        place: segment.place.to_owned(),
        source,
    }
}

fn short(segment: &Segment<'_>, found: u64) -> CopyFailure {
    CopyFailure::Short {
        place: segment.place.to_owned(),
        wanted: segment.end,
        found,
    }
}
