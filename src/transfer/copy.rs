use std::io;
use std::path::PathBuf;

use rustix::io::Errno;

use super::extents::{Extent, extent_at};
use super::hashing::{Digest, Hashing, PIECE, ZEROS};
use super::writeback::WriteBack;
use crate::error::{Error, Kind};
use crate::event::Event;
use crate::fs::{File, IoError, Operation, ReadAt};
use crate::manifest::Blake3Hash;
use crate::run::Run;
use crate::timings::Activity;

/// Bytes that the kernel copies at once.
const KERNEL_PIECE: u64 = 4 * 1024 * 1024;

/// How a file is put together. Every byte keeps its offset.
#[derive(Debug, Clone, Copy)]
pub struct CopyPlan<'a> {
    /// Where its bytes come from, in order.
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
    /// Of the first segment: what all bytes of the file hash to. It is proven on the way; of what
    /// lies behind the segment's end only the data is read.
    pub whole: Option<Blake3Hash>,
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
pub enum CopyFailure {
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
    /// A source is not what it should be.
    #[error("the bytes of `{place}` hash to {found}, not to {wanted}")]
    Other {
        /// The source.
        place: String,
        /// What it should hash to.
        wanted: Blake3Hash,
        /// What it hashes to.
        found: Blake3Hash,
    },
    /// The target cannot be written, or read again.
    #[error(transparent)]
    Target(#[from] IoError),
    /// The run was told to end.
    #[error(transparent)]
    Stopped(#[from] Error),
}

impl CopyFailure {
    /// The source it failed on; none where a source is not to blame.
    #[must_use]
    pub fn source_place(&self) -> Option<&str> {
        match self {
            Self::Short { place, .. } | Self::Source { place, .. } | Self::Other { place, .. } => {
                Some(place)
            }
            Self::Target(_) | Self::Stopped(_) => None,
        }
    }
}

impl From<CopyFailure> for Error {
    /// As it is meant where the segments are a node's files: a short one is [`Kind::Unstable`], so
    /// that the procedure goes back and tries again.
    fn from(failure: CopyFailure) -> Self {
        match failure {
            CopyFailure::Short {
                place,
                wanted,
                found,
            } => Self::new(
                Kind::Unstable,
                "the file became shorter while it was copied",
            )
            .on(place)
            .because(format!(
                "it ends at byte {found}, not at {wanted} or behind it"
            )),
            CopyFailure::Source { place, source }
                if Errno::from_io_error(&source) == Some(Errno::STALE) =>
            {
                Self::new(Kind::Unstable, "the file vanished while it was copied")
                    .on(place)
                    .because(source)
            }
            CopyFailure::Source { place, source } => Self::from(IoError {
                operation: Operation::Read,
                path: PathBuf::from(place),
                source,
            }),
            CopyFailure::Other {
                place,
                wanted,
                found,
            } => Self::new(Kind::Unstable, "the file changed while it was copied")
                .on(place)
                .because(format!("its bytes hash to {found}, not to {wanted}")),
            CopyFailure::Target(error) => error.into(),
            CopyFailure::Stopped(error) => error,
        }
    }
}

/// Looks at a file while it is being copied.
pub trait Follow: Send {
    /// All bytes of `stored` before `end` are there now, and will most likely not have to be read
    /// from a disk.
    fn follow(&mut self, stored: &dyn ReadAt, end: u64);
}

/// Whoever looks at a file while it is copied, if somebody does.
pub type Follower<'a> = Option<&'a mut (dyn Follow + 'static)>;

/// Copies into `target`, which is new and empty. It is not synced at the end. Tells progress in
/// bytes of the segments.
///
/// Where the file system can, the target shares the blocks of the first segment's file, unless
/// somebody writes to that.
///
/// # Errors
/// [`CopyFailure`], which tells trouble with a source from trouble with the target.
pub fn copy(
    plan: &CopyPlan<'_>,
    target: &File,
    follow: Follower<'_>,
    run: &Run,
) -> Result<Copied, CopyFailure> {
    let shared = match plan.segments.first() {
        Some(first) if !first.live && first.end > 0 => share(first, target)?,
        _ => 0,
    };
    target.set_size(plan.full_length)?;
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
    if shared > 0 {
        target.expect_pieces();
    }
    copying.stored(shared)?;
    for segment in plan.segments {
        copying.segment(segment)?;
        if let Some(whole) = segment.whole {
            copying.prove(segment, whole)?;
        }
    }
    let Copying {
        mut hashing,
        offset,
        read,
        written,
        ..
    } = copying;
    hashing.zeros(plan.full_length.saturating_sub(offset))?;
    Ok(Copied {
        digest: hashing.finish(),
        read,
        written,
    })
}

/// Makes the empty `target` hold the bytes of a segment by sharing the blocks of its file, where
/// the file system can; how many bytes that are.
fn share(segment: &Segment<'_>, target: &File) -> Result<u64, IoError> {
    let Some(source) = segment.source.file() else {
        return Ok(0);
    };
    let shared = target
        .system(Operation::Clone, |fd| rustix::fs::ioctl_ficlone(fd, source))
        .is_ok();
    let bytes = if shared { segment.end } else { 0 };
    // What lies behind the segment is none of the target's; neither is what a failure has left.
    if shared || target.status()?.size > 0 {
        target.set_size(bytes)?;
    }
    Ok(bytes)
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

/// The target, as long as it will be.
struct Target<'a> {
    file: &'a File,
    size: u64,
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

struct Copying<'a> {
    target: Target<'a>,
    write_back: WriteBack<'a>,
    hashing: Hashing<'a>,
    follow: Follower<'a>,
    run: &'a Run,
    /// Everything before it is done.
    offset: u64,
    read: u64,
    written: u64,
}

impl Copying<'_> {
    fn segment(&mut self, segment: &Segment<'_>) -> Result<(), CopyFailure> {
        segment.source.expect_pieces();
        match segment.source.file() {
            Some(file) if !segment.live => self.by_extents(file, segment),
            // Of a live file every byte is read: below the writer's position there are no holes.
            _ => self.by_reading(segment, segment.end),
        }
    }

    fn by_extents(&mut self, file: &File, segment: &Segment<'_>) -> Result<(), CopyFailure> {
        let mut way = match file.is_served()? {
            true => Way::Kernel,
            false if self.write_back.is_direct() => Way::Reading,
            false => Way::Unknown,
        };
        while self.offset < segment.end {
            self.run.check()?;
            match extent_at(file, self.offset, segment.end) {
                Extent::Hole { end } => {
                    self.hashing.zeros(end - self.offset)?;
                    self.done(end);
                }
                Extent::Data { end } => {
                    self.write_back.reserve(self.offset, end);
                    if way == Way::Unknown {
                        self.by_reading(segment, end.min(self.offset + PIECE as u64))?;
                        way = if file.reads_once() {
                            Way::Reading
                        } else {
                            Way::Kernel
                        };
                    }
                    if way == Way::Kernel && !self.by_kernel(file, end)? {
                        way = Way::Reading;
                    }
                    self.by_reading(segment, end)?;
                }
            }
        }
        // A file that was cut meanwhile reads as a hole at its end.
        let size = file
            .status()
            .map_err(|error| source_failure(segment, error.source))?
            .size;
        if size < segment.end {
            return Err(short(segment, size));
        }
        Ok(())
    }

    /// Lets the kernel copy up to `end`; false where it cannot, and then the rest is to be read.
    fn by_kernel(&mut self, source: &File, end: u64) -> Result<bool, CopyFailure> {
        while self.offset < end {
            self.run.check()?;
            let wanted =
                usize::try_from(self.run.pace().piece((end - self.offset).min(KERNEL_PIECE)))
                    .unwrap_or(PIECE);
            let (mut from, mut to) = (self.offset, self.offset);
            let copied = self.run.in_turn(Activity::Read, || {
                self.target.file.system(Operation::Write, |fd| {
                    rustix::io::retry_on_intr(|| {
                        rustix::fs::copy_file_range(
                            source,
                            Some(&mut from),
                            fd,
                            Some(&mut to),
                            wanted,
                        )
                    })
                })
            });
            match copied {
                // The end of the file, or a file system that does not mean it: reading tells.
                Ok(0) => return Ok(false),
                Ok(count) => {
                    let count = count as u64;
                    self.read += count;
                    self.written += count;
                    self.write_back.cached(count)?;
                    self.stored(self.offset + count)?;
                }
                Err(error) if is_full(&error) => return Err(error.into()),
                // Another file system, an old kernel, or a bad block: reading tells which.
                Err(_) => return Ok(false),
            }
        }
        Ok(true)
    }

    fn by_reading(&mut self, segment: &Segment<'_>, end: u64) -> Result<(), CopyFailure> {
        while self.offset < end {
            self.run.check()?;
            // Up to the next multiple of a piece, so that blocks of zeros are found at their
            // places.
            let piece = self.run.pace().piece(PIECE as u64);
            let piece = piece - self.offset % piece;
            let wanted = usize::try_from((end - self.offset).min(piece)).unwrap_or(PIECE);
            let mut buffer = self.hashing.buffer();
            let fill = || buffer.fill(segment.source, self.offset, wanted);
            let count = self
                .run
                .in_turn(Activity::Read, fill)
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
            self.done(offset + count as u64);
        }
        Ok(())
    }

    /// Proves the whole file of the segment that everything up to `offset` came from.
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
    fn stored(&mut self, end: u64) -> Result<(), CopyFailure> {
        while self.offset < end {
            self.run.check()?;
            let (at, piece) = (self.offset, self.run.pace().piece(PIECE as u64));
            let wanted = usize::try_from((end - at).min(piece)).unwrap_or(PIECE);
            let mut buffer = self.hashing.buffer();
            let unreadable = |source| IoError {
                operation: Operation::Read,
                path: self.target.file.path().to_owned(),
                source,
            };
            let fill = || buffer.fill(&self.target, at, wanted);
            if self.run.in_turn(Activity::Read, fill).map_err(unreadable)? < wanted {
                return Err(unreadable(io::ErrorKind::UnexpectedEof.into()).into());
            }
            self.hashing.bytes(at, buffer, |_| ());
            self.run.pace().spend(wanted as u64);
            self.done(at + wanted as u64);
        }
        Ok(())
    }

    /// Everything before `offset` is done now.
    fn done(&mut self, offset: u64) {
        self.run.emit(Event::Progress {
            bytes: offset - self.offset,
        });
        self.offset = offset;
        if let Some(follow) = &mut self.follow {
            let stored = Recent {
                target: &self.target,
                hashing: &self.hashing,
            };
            self.run
                .timings()
                .time(Activity::Records, || follow.follow(&stored, offset));
        }
    }
}

/// The target, of which the last bytes need not be read again.
struct Recent<'a> {
    target: &'a Target<'a>,
    hashing: &'a Hashing<'a>,
}

impl ReadAt for Recent<'_> {
    fn size(&self) -> u64 {
        self.target.size
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let at_hand = self.hashing.at_hand().find_map(|(begin, bytes)| {
            let from = usize::try_from(offset.checked_sub(begin)?).ok()?;
            bytes.get(from..).filter(|rest| !rest.is_empty())
        });
        match at_hand {
            Some(bytes) => bytes.read_at(0, buffer),
            None => self.target.read_at(offset, buffer),
        }
    }
}

/// Writes the blocks of `bytes` that are not all zeros, and says how many bytes that were.
fn write_data(write_back: &mut WriteBack<'_>, offset: u64, bytes: &[u8]) -> Result<u64, IoError> {
    let mut written = 0;
    let mut run_start = 0;
    let mut at = 0;
    let mut flush = |from: usize, to: usize| -> Result<(), IoError> {
        let data = bytes.get(from..to).unwrap_or_default();
        if !data.is_empty() {
            write_back.write(offset + from as u64, data)?;
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
