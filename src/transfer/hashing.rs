//! The hashes of one file: the BLAKE3 of all bytes, and the server's MD5.
//!
//! The copying thread computes BLAKE3. MD5 is slower, so other threads compute it at the same time
//! ([`crate::md5`]).

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

use super::buffer::{Buffer, PIECE, ZEROS};
use super::extents::{Extent, extent_at};
use super::plan::Follower;
use crate::error::{Error, Result};
use crate::event::Event;
use crate::format::Md5Hash;
use crate::fs::ReadAt;
use crate::manifest::Blake3Hash;
use crate::md5::{Md5, Piece};
use crate::run::Run;
use crate::timings::Activity;

/// The hashes of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Digest {
    /// Length in bytes, holes included.
    pub size: u64,
    /// Hash of all bytes.
    pub blake3: Blake3Hash,
    /// MD5 of all but the last 16 bytes, if it was requested. The last 16 bytes are the server's
    /// own MD5 (disk-format §3.5, §5.2).
    pub md5: Option<Md5Hash>,
}

/// Zeros as a piece that the MD5's threads can share.
struct Zeros;

impl AsRef<[u8]> for Zeros {
    fn as_ref(&self) -> &[u8] {
        &ZEROS
    }
}

/// The unfinished hashes of one file.
pub(super) struct Hashing<'a> {
    run: &'a Run,
    blake3: blake3::Hasher,
    md5: Option<ServersMd5>,
    size: u64,
    /// The last two pieces with their offsets. MD5 may still be hashing the last one.
    last: VecDeque<(u64, Arc<Buffer>)>,
}

/// The MD5 that the server computes: of all but the last 16 bytes.
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

    /// A buffer that is free again, or a new one.
    pub(super) fn buffer(&mut self) -> Buffer {
        if self.last.len() <= 1 {
            return Buffer::default();
        }
        let Some((_, oldest)) = self.last.pop_front() else {
            return Buffer::default();
        };

        // MD5 no longer uses it, because it accepts a piece only after it has hashed the one
        // before.
        Arc::into_inner(oldest).unwrap_or_default()
    }

    /// The newest bytes of the file, as far as they are still in memory: each piece with its
    /// offset.
    fn at_hand(&self) -> impl Iterator<Item = (u64, &[u8])> {
        self.last
            .iter()
            .map(|(offset, buffer)| (*offset, buffer.filled()))
    }

    /// Hashes the bytes in the buffer, which begin at byte `offset` of the file. Calls `use_bytes`
    /// with them while MD5 works.
    pub(super) fn bytes<T>(
        &mut self,
        offset: u64,
        buffer: Buffer,
        use_bytes: impl FnOnce(&[u8]) -> T,
    ) -> T {
        let timings = self.run.timings();
        let buffer = Arc::new(buffer);
        if let Some(md5) = &mut self.md5 {
            // Waits for the piece before, so that two buffers are enough.
            let piece: Piece = buffer.clone();
            timings.time(Activity::Md5, || md5.update(&piece, buffer.used()));
        }

        let result = use_bytes(buffer.filled());
        timings.time(Activity::Blake3, || self.blake3.update(buffer.filled()));

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

    /// Hashes a file from byte `offset` to its end. Tells `progress` after each piece. The outer
    /// error is an interruption, the inner one is an error of the storage.
    fn rest_of(
        &mut self,
        file: &dyn ReadAt,
        mut offset: u64,
        mut progress: impl FnMut(&Self, HashedPiece),
    ) -> Result<io::Result<()>> {
        let size = file.size();
        while offset < size {
            self.run.check()?;
            match extent_of(file, offset, size) {
                Extent::Hole { end } => {
                    self.zeros(end - offset)?;
                    let bytes = end - offset;
                    progress(
                        self,
                        HashedPiece {
                            end,
                            bytes,
                            read: 0,
                        },
                    );
                    offset = end;
                }
                Extent::Data { end } => {
                    let count = match self.piece_of(file, offset, end) {
                        Ok(count) => count,
                        Err(error) => return Ok(Err(error)),
                    };
                    offset += count;
                    let piece = HashedPiece {
                        end: offset,
                        bytes: count,
                        read: count,
                    };
                    progress(self, piece);
                }
            }
        }

        // If the file was truncated while it was hashed, its end was read as a hole.
        if let Some(file) = file.file()
            && file.status()?.size < size
        {
            return Ok(Err(io::ErrorKind::UnexpectedEof.into()));
        }
        Ok(Ok(()))
    }

    /// Reads and hashes the next piece of a file's data, and returns its length.
    fn piece_of(&mut self, file: &dyn ReadAt, offset: u64, end: u64) -> io::Result<u64> {
        let wanted = self.run.pace().piece((end - offset).min(PIECE as u64));
        let wanted = usize::try_from(wanted).unwrap_or(PIECE);

        let mut buffer = self.buffer();
        let count = self
            .run
            .in_turn(Activity::Read, || buffer.fill(file, offset, wanted))?;
        if count < wanted {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }

        self.bytes(offset, buffer, |_| ());
        Ok(wanted as u64)
    }

    /// The BLAKE3 of a file whose first `offset` bytes are hashed here already. Reads the others
    /// from `file`.
    pub(super) fn continued(
        &self,
        file: &dyn ReadAt,
        offset: u64,
    ) -> Result<io::Result<Blake3Hash>> {
        let mut branch = Self {
            blake3: self.blake3.clone(),
            ..Self::new(file.size(), false, self.run)
        };

        let pace = self.run.pace();
        let read = branch.rest_of(file, offset, |_, piece| pace.spend(piece.read))?;
        Ok(read.map(|()| branch.finish().blake3))
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

/// A piece of a file that was just hashed.
struct HashedPiece {
    /// The byte of the file behind it.
    end: u64,
    /// Its length.
    bytes: u64,
    /// How many of these bytes were read: those of a hole are not.
    read: u64,
}

/// A file that is being hashed. It serves the newest bytes from memory.
pub(super) struct RecentlyHashed<'a> {
    pub(super) file: &'a dyn ReadAt,
    pub(super) hashing: &'a Hashing<'a>,
}

impl ReadAt for RecentlyHashed<'_> {
    fn size(&self) -> u64 {
        self.file.size()
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        for (begin, bytes) in self.hashing.at_hand() {
            let Some(from) = offset.checked_sub(begin) else {
                continue;
            };
            if from < bytes.len() as u64 {
                return bytes.read_at(from, buffer);
            }
        }

        self.file.read_at(offset, buffer)
    }
}

/// Only a plain file has holes.
fn extent_of(file: &dyn ReadAt, offset: u64, size: u64) -> Extent {
    match file.file() {
        Some(file) => extent_at(file, offset, size),
        None => Extent::Data { end: size },
    }
}

/// Hashes a whole file. Reads its data once, and its holes not at all. Reports progress in bytes.
/// The file decides the pace: see [`super::paced`].
///
/// # Errors
/// [`Failed`](crate::error::Kind::Failed) if the file cannot be read or ends before its size. The caller adds the file's
/// place.
pub fn hash_file(file: &dyn ReadAt, md5: bool, run: &Run) -> Result<Digest> {
    hash_followed(file, md5, None, run)
}

/// As [`hash_file`], and shows the bytes to a follower.
///
/// # Errors
/// As for [`hash_file`].
pub fn hash_followed(
    file: &dyn ReadAt,
    md5: bool,
    mut follow: Follower<'_>,
    run: &Run,
) -> Result<Digest> {
    let mut hashing = Hashing::new(file.size(), md5, run);
    let hashed = hashing.rest_of(file, 0, |hashing, piece| {
        run.emit(Event::Progress { bytes: piece.bytes });
        if let Some(follow) = &mut follow {
            let recent = RecentlyHashed { file, hashing };
            run.timings()
                .time(Activity::Records, || follow.follow(&recent, piece.end));
        }
    })?;
    hashed.map_err(unreadable)?;

    if let Some(follow) = follow {
        follow.finish(file);
    }
    Ok(hashing.finish())
}

fn unreadable(error: io::Error) -> Error {
    Error::of_read("cannot read", error)
}
