use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

use super::extents::{Extent, extent_at};
use super::writeback::BLOCK;
use crate::error::{Error, Kind, Result};
use crate::event::Event;
use crate::format::Md5Hash;
use crate::fs::ReadAt;
use crate::manifest::Blake3Hash;
use crate::md5::{Md5, Piece};
use crate::run::Run;
use crate::timings::Activity;

/// What a run of bytes hashes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Digest {
    /// Length in bytes, holes included.
    pub size: u64,
    /// Hash of all bytes.
    pub blake3: Blake3Hash,
    /// MD5 of all but the last 16 bytes, where it was asked for: the server keeps its own in those
    /// (disk-format §3.5, §5.2).
    pub md5: Option<Md5Hash>,
}

/// Bytes read at once.
pub(super) const PIECE: usize = 1024 * 1024;
pub(super) static ZEROS: [u8; 64 * 1024] = [0; 64 * 1024];

/// A buffer that is filled in part, from an address that a write past the page cache takes.
#[derive(Debug, Default)]
pub(super) struct Buffer {
    bytes: Vec<u8>,
    start: usize,
    used: usize,
}

impl Buffer {
    /// The bytes that were read.
    pub(super) fn filled(&self) -> &[u8] {
        self.bytes
            .get(self.start..self.start + self.used)
            .unwrap_or_default()
    }

    /// Reads up to `wanted` bytes, fewer only at the end of the file, and says how many there are.
    pub(super) fn fill(
        &mut self,
        source: &(impl ReadAt + ?Sized),
        offset: u64,
        wanted: usize,
    ) -> io::Result<usize> {
        if self.bytes.len() < wanted + BLOCK {
            self.bytes.resize(wanted + BLOCK, 0);
            self.start = self.bytes.as_ptr().align_offset(BLOCK).min(BLOCK);
        }
        self.used = 0;
        while self.used < wanted {
            let room = self
                .bytes
                .get_mut(self.start + self.used..self.start + wanted)
                .unwrap_or_default();
            match source.read_once_at(offset + self.used as u64, room) {
                Ok(0) => break,
                Ok(count) => self.used += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(self.used)
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        self.filled()
    }
}

struct Zeros;

impl AsRef<[u8]> for Zeros {
    fn as_ref(&self) -> &[u8] {
        &ZEROS
    }
}

/// The hashes of one file in the making. BLAKE3 is taken where the bytes are handled; MD5, which is
/// slower, beside it.
pub(super) struct Hashing<'a> {
    run: &'a Run,
    blake3: blake3::Hasher,
    md5: Option<ServersMd5>,
    size: u64,
    /// The last pieces with their offsets: the one that MD5 may still be at, and the one before it.
    last: VecDeque<(u64, Arc<Buffer>)>,
}

/// MD5 as the server has it: over all but the last 16 bytes.
struct ServersMd5 {
    hasher: Md5,
    left: u64,
}

impl ServersMd5 {
    fn new(size: u64) -> Self {
        Self {
            hasher: Md5::new(),
            left: size.saturating_sub(16),
        }
    }

    fn update(&mut self, piece: &Piece, length: usize) {
        let count = usize::try_from(self.left).unwrap_or(usize::MAX).min(length);
        self.hasher.update(piece, 0..count);
        self.left -= count as u64;
    }
}

impl<'a> Hashing<'a> {
    /// Hashes `size` bytes.
    pub(super) fn new(size: u64, md5: bool, run: &'a Run) -> Self {
        Self {
            run,
            blake3: blake3::Hasher::new(),
            md5: md5.then(|| ServersMd5::new(size)),
            size,
            last: VecDeque::new(),
        }
    }

    /// A buffer that nobody uses any more.
    pub(super) fn buffer(&mut self) -> Buffer {
        let oldest = if self.last.len() > 1 {
            self.last.pop_front()
        } else {
            None
        };
        oldest
            .and_then(|(_, buffer)| Arc::into_inner(buffer))
            .unwrap_or_default()
    }

    /// The bytes of the file that were handled last, as far as they are still at hand: each piece
    /// with its offset.
    pub(super) fn at_hand(&self) -> impl Iterator<Item = (u64, &[u8])> {
        self.last
            .iter()
            .map(|(offset, buffer)| (*offset, buffer.filled()))
    }

    /// Hashes what the buffer holds, which stands at byte `offset` of the file, and lends it to
    /// `meanwhile`.
    pub(super) fn bytes<T>(
        &mut self,
        offset: u64,
        buffer: Buffer,
        meanwhile: impl FnOnce(&[u8]) -> T,
    ) -> T {
        let buffer = Arc::new(buffer);
        if let Some(md5) = &mut self.md5 {
            // Waits for the piece before, so that two buffers are enough.
            let piece: Piece = buffer.clone();
            self.run
                .timings()
                .time(Activity::Md5, || md5.update(&piece, buffer.used));
        }
        let result = meanwhile(buffer.filled());
        self.run
            .timings()
            .time(Activity::Blake3, || self.blake3.update(buffer.filled()));
        self.last.push_back((offset, buffer));
        result
    }

    /// Hashes `count` zeros.
    pub(super) fn zeros(&mut self, mut count: u64) -> Result<()> {
        let zeros: Piece = Arc::new(Zeros);
        while count > 0 {
            self.run.check()?;
            let part = usize::try_from(count)
                .unwrap_or(usize::MAX)
                .min(ZEROS.len());
            if let Some(md5) = &mut self.md5 {
                md5.update(&zeros, part);
            }
            self.blake3.update(ZEROS.get(..part).unwrap_or_default());
            count -= part as u64;
        }
        Ok(())
    }

    /// Hashes a file from byte `offset` to its end, and tells how many bytes went by, and how many
    /// of them were read. The outer error ends the run, the inner one is the storage's.
    fn rest_of(
        &mut self,
        file: &dyn ReadAt,
        mut offset: u64,
        progress: impl Fn(u64, u64),
    ) -> Result<io::Result<()>> {
        let run = self.run;
        let size = file.size();
        file.expect_pieces();
        while offset < size {
            run.check()?;
            let end = match file.file().map_or(Extent::Data { end: size }, |file| {
                extent_at(file, offset, size)
            }) {
                Extent::Hole { end } => {
                    self.zeros(end - offset)?;
                    progress(end - offset, 0);
                    offset = end;
                    continue;
                }
                Extent::Data { end } => end,
            };
            let wanted = usize::try_from(run.pace().piece((end - offset).min(PIECE as u64)))
                .unwrap_or(PIECE);
            let mut buffer = self.buffer();
            match run.in_turn(Activity::Read, || buffer.fill(file, offset, wanted)) {
                Ok(count) if count < wanted => return Ok(Err(io::ErrorKind::UnexpectedEof.into())),
                Ok(_) => {}
                Err(error) => return Ok(Err(error)),
            }
            self.bytes(offset, buffer, |_| ());
            offset += wanted as u64;
            progress(wanted as u64, wanted as u64);
        }
        // A file that was cut meanwhile reads as a hole at its end.
        if let Some(file) = file.file()
            && file.status()?.size < size
        {
            return Ok(Err(io::ErrorKind::UnexpectedEof.into()));
        }
        Ok(Ok(()))
    }

    /// What the BLAKE3 would come to if all that follows were the rest of `file` from byte `offset`
    /// on.
    pub(super) fn continued(
        &self,
        file: &dyn ReadAt,
        offset: u64,
    ) -> Result<io::Result<Blake3Hash>> {
        let mut branch = Self {
            blake3: self.blake3.clone(),
            ..Self::new(file.size(), false, self.run)
        };
        Ok(branch
            .rest_of(file, offset, |_, read| self.run.pace().spend(read))?
            .map(|()| branch.finish().blake3))
    }

    /// Waits for the MD5.
    pub(super) fn finish(self) -> Digest {
        let md5 = self.run.timings().time(Activity::Md5, || {
            self.md5.map(|md5| Md5Hash(md5.hasher.finish()))
        });
        Digest {
            size: self.size,
            blake3: self.blake3.finalize().into(),
            md5,
        }
    }
}

/// Hashes a whole file, reading it once, and its holes not at all. Tells progress in bytes. The
/// pace is that of the file: see [`super::paced`].
///
/// # Errors
/// What the storage reports, without the file's place, which the caller knows; also where the file
/// ends before its size.
pub fn hash_file(file: &dyn ReadAt, md5: bool, run: &Run) -> Result<Digest> {
    let mut hashing = Hashing::new(file.size(), md5, run);
    hashing
        .rest_of(file, 0, |bytes, _| run.emit(Event::Progress { bytes }))?
        .map_err(unreadable)?;
    Ok(hashing.finish())
}

fn unreadable(error: io::Error) -> Error {
    Error::new(Kind::Failed, "cannot read").because(error)
}
