use std::io;
use std::path::PathBuf;

use rustix::fs::Advice;
use rustix::io::Errno;

use super::extents::{Extent, extent_at};
use super::hashing::{Digest, Hashing, PIECE, ZEROS};
use crate::error::{Error, Kind};
use crate::event::{Event, Run};
use crate::fs::{File, IoError, Operation, ReadAt};

/// Bytes that the kernel copies at once.
const KERNEL_PIECE: u64 = 4 * 1024 * 1024;
/// Bytes that may be dirty before they are written back.
const DIRTY: u64 = 32 * 1024 * 1024;

/// How a file is put together. Every byte keeps its offset.
#[derive(Debug, Clone, Copy)]
pub struct Copy<'a> {
    /// Bytes from the start that the target holds already, by [`clone`].
    pub kept: u64,
    /// Where the bytes from `kept` on come from, in order.
    pub segments: &'a [Segment<'a>],
    /// Length of the target; what the segments do not reach is a hole.
    pub full_length: u64,
    /// Compute the MD5 of all but the last 16 bytes, too.
    pub md5: bool,
}

/// A part of a file, from the end of the one before it.
#[derive(Clone, Copy)]
pub struct Segment<'a> {
    /// The file that holds it at the same offset.
    pub source: &'a dyn ReadAt,
    /// How to name that file to an operator.
    pub place: &'a str,
    /// First byte behind it.
    pub end: u64,
    /// Somebody writes to the file: never share its blocks.
    pub live: bool,
}

impl std::fmt::Debug for Segment<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} up to {}", self.place, self.end)
    }
}

/// A file that was copied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Copied {
    /// What all of the target hashes to.
    pub digest: Digest,
    /// Bytes that were read from the segments; holes are not read.
    pub read: u64,
    /// Bytes that were written to the target; blocks of zeros are not.
    pub written: u64,
}

/// Why a copy failed: whose fault it was.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// A source ends before its segment does. A live file shrank, or was replaced: try again.
    #[error("`{place}` ends at byte {found}, not at {wanted} or behind it")]
    Short {
        /// The source.
        place: String,
        /// Bytes it should have at least.
        wanted: u64,
        /// Bytes it has.
        found: u64,
    },
    /// A source cannot be read.
    #[error("cannot read `{place}`")]
    Source {
        /// The source.
        place: String,
        /// What the storage reports.
        source: io::Error,
    },
    /// The target cannot be written, or read again.
    #[error(transparent)]
    Target(#[from] IoError),
    /// The run was told to end.
    #[error(transparent)]
    Stopped(#[from] Error),
}

impl Failure {
    /// The source it failed on; none where a source is not to blame.
    #[must_use]
    pub fn source_place(&self) -> Option<&str> {
        match self {
            Self::Short { place, .. } | Self::Source { place, .. } => Some(place),
            Self::Target(_) | Self::Stopped(_) => None,
        }
    }
}

impl From<Failure> for Error {
    /// As it is meant where the segments are a node's files: a short one is [`Kind::Unstable`], so that the procedure goes back and tries again.
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Short { place, wanted, found } => Self::new(Kind::Unstable, "the file became shorter while it was copied")
                .on(place)
                .because(format!("it ends at byte {found}, not at {wanted} or behind it")),
            Failure::Source { place, source } if Errno::from_io_error(&source) == Some(Errno::STALE) => {
                Self::new(Kind::Unstable, "the file vanished while it was copied").on(place).because(source)
            }
            Failure::Source { place, source } => Self::from(IoError { operation: Operation::Read, path: PathBuf::from(place), source }),
            Failure::Target(error) => error.into(),
            Failure::Stopped(error) => error,
        }
    }
}

/// Copies into `target`, which is new and holds nothing but the `kept` bytes. It is not synced at the end. Tells progress in bytes of the segments.
///
/// # Errors
/// [`Failure`], which tells trouble with a source from trouble with the target.
pub fn copy(plan: &Copy<'_>, target: &File, run: &Run) -> Result<Copied, Failure> {
    target.set_size(plan.full_length)?;
    std::thread::scope(|scope| {
        let mut hashing = Hashing::start(scope, target, plan.full_length, plan.md5);
        hashing.stored(0, plan.kept);
        let mut copying = Copying { target, hashing: &mut hashing, run, offset: plan.kept, dirty: 0, read: 0, written: 0 };
        for segment in plan.segments {
            copying.segment(segment)?;
        }
        let Copying { offset, read, written, .. } = copying;
        hashing.zeros(plan.full_length.saturating_sub(offset), run)?;
        let digest = hashing.finish().map_err(|source| IoError { operation: Operation::Read, path: target.path().to_owned(), source })?;
        Ok(Copied { digest, read, written })
    })
}

/// Makes `target` hold the first `length` bytes of `source` by sharing its blocks, where the file system can; false where it cannot.
///
/// # Errors
/// What the file system reports of the target.
pub fn clone(source: &File, length: u64, target: &File) -> Result<bool, IoError> {
    let cloned = target.system(Operation::Clone, |fd| rustix::fs::ioctl_ficlone(fd, source)).is_ok();
    // Also where it failed half-way: an empty target is what a copy begins with.
    target.set_size(if cloned { length } else { 0 })?;
    Ok(cloned)
}

/// How the bytes of a file go that nobody writes to.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    /// What the first read shows decides.
    Unknown,
    /// The kernel copies: without the page cache, or because reading would fill the cache as well.
    Kernel,
    /// They are read past the page cache, or the kernel cannot copy them.
    Reading,
}

struct Copying<'a, 'scope> {
    target: &'a File,
    hashing: &'a mut Hashing<'scope>,
    run: &'a Run,
    /// Everything before it is done.
    offset: u64,
    /// Bytes written since the last write-back.
    dirty: u64,
    read: u64,
    written: u64,
}

impl Copying<'_, '_> {
    fn segment(&mut self, segment: &Segment<'_>) -> Result<(), Failure> {
        let file = segment.source.file();
        if let Some(file) = file {
            advise(file);
        }
        match file {
            Some(file) if !segment.live => self.by_extents(file, segment),
            // Of a live file every byte is read: below the writer's position there are no holes.
            _ => self.by_reading(segment, segment.end),
        }
    }

    fn by_extents(&mut self, file: &File, segment: &Segment<'_>) -> Result<(), Failure> {
        let mut way = if file.copies_without_pages()? { Way::Kernel } else { Way::Unknown };
        while self.offset < segment.end {
            self.run.check()?;
            match extent_at(file, self.offset, segment.end) {
                Extent::Hole { end } => {
                    self.hashing.zeros(end - self.offset, self.run)?;
                    self.done(end, 0, 0)?;
                }
                Extent::Data { end } => {
                    if way == Way::Unknown {
                        self.by_reading(segment, end.min(self.offset + PIECE as u64))?;
                        way = if file.reads_once() { Way::Reading } else { Way::Kernel };
                    }
                    if way == Way::Kernel && !self.by_kernel(file, end)? {
                        way = Way::Reading;
                    }
                    self.by_reading(segment, end)?;
                }
            }
        }
        // A file that was cut meanwhile reads as a hole at its end.
        let size = file.status().map_err(|error| source_failure(segment, error.source))?.size;
        if size < segment.end {
            return Err(short(segment, size));
        }
        Ok(())
    }

    /// Lets the kernel copy up to `end`; false where it cannot, and then the rest is to be read.
    fn by_kernel(&mut self, source: &File, end: u64) -> Result<bool, Failure> {
        while self.offset < end {
            self.run.check()?;
            let wanted = usize::try_from(self.run.pace().piece((end - self.offset).min(KERNEL_PIECE))).unwrap_or(PIECE);
            let (mut from, mut to) = (self.offset, self.offset);
            let copied = self.target.system(Operation::Write, |fd| {
                rustix::io::retry_on_intr(|| rustix::fs::copy_file_range(source, Some(&mut from), fd, Some(&mut to), wanted))
            });
            match copied {
                // The end of the file, or a file system that does not mean it: reading tells.
                Ok(0) => return Ok(false),
                Ok(count) => {
                    let next = self.offset + count as u64;
                    self.hashing.stored(self.offset, next);
                    self.done(next, count as u64, count as u64)?;
                }
                Err(error) if is_full(&error) => return Err(error.into()),
                // Another file system, an old kernel, or a bad block: reading tells which.
                Err(_) => return Ok(false),
            }
        }
        Ok(true)
    }

    fn by_reading(&mut self, segment: &Segment<'_>, end: u64) -> Result<(), Failure> {
        while self.offset < end {
            self.run.check()?;
            // Up to the next multiple of a piece, so that blocks of zeros are found at their places.
            let piece = self.run.pace().piece(PIECE as u64);
            let piece = piece - self.offset % piece;
            let wanted = usize::try_from((end - self.offset).min(piece)).unwrap_or(PIECE);
            let mut buffer = self.hashing.buffer();
            let count = buffer.fill(segment.source, self.offset, wanted).map_err(|error| source_failure(segment, error))?;
            if count < wanted {
                return Err(short(segment, self.offset + count as u64));
            }
            let (target, offset) = (self.target, self.offset);
            let written = self.hashing.bytes(buffer, |bytes| write_data(target, offset, bytes))?;
            self.done(offset + count as u64, count as u64, written)?;
        }
        Ok(())
    }

    /// Everything before `offset` is done now, by so many bytes more.
    fn done(&mut self, offset: u64, read: u64, written: u64) -> Result<(), Failure> {
        self.run.pace().spend(read);
        self.run.emit(Event::Progress { bytes: offset - self.offset });
        self.offset = offset;
        self.read += read;
        self.written += written;
        self.dirty += written;
        if self.dirty >= DIRTY {
            self.target.system(Operation::Sync, |fd| rustix::fs::fdatasync(fd))?;
            self.dirty = 0;
        }
        Ok(())
    }
}

/// Writes the blocks of `bytes` that are not all zeros, and says how many bytes that were.
fn write_data(target: &File, offset: u64, bytes: &[u8]) -> Result<u64, IoError> {
    let mut written = 0;
    let mut run_start = 0;
    let mut at = 0;
    let mut flush = |from: usize, to: usize| -> Result<(), IoError> {
        let data = bytes.get(from..to).unwrap_or_default();
        if !data.is_empty() {
            target.write_all_at(offset + from as u64, data)?;
            written += data.len() as u64;
        }
        Ok(())
    };
    while at < bytes.len() {
        let place = usize::try_from((offset + at as u64) % ZEROS.len() as u64).unwrap_or_default();
        let next = (at + ZEROS.len() - place).min(bytes.len());
        if next - at == ZEROS.len() && bytes.get(at..next) == Some(ZEROS.as_slice()) {
            flush(run_start, at)?;
            run_start = next;
        }
        at = next;
    }
    flush(run_start, bytes.len())?;
    Ok(written)
}

/// Advice for this open file only; where it is not understood nothing is lost.
fn advise(file: &File) {
    for advice in [Advice::Sequential, Advice::NoReuse] {
        let _ = file.system(Operation::Inspect, |fd| rustix::fs::fadvise(fd, 0, None, advice));
    }
}

fn is_full(error: &IoError) -> bool {
    matches!(Errno::from_io_error(&error.source), Some(Errno::NOSPC | Errno::DQUOT | Errno::FBIG | Errno::ROFS))
}

fn source_failure(segment: &Segment<'_>, source: io::Error) -> Failure {
    Failure::Source { place: segment.place.to_owned(), source }
}

fn short(segment: &Segment<'_>, found: u64) -> Failure {
    Failure::Short { place: segment.place.to_owned(), wanted: segment.end, found }
}
