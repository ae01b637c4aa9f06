use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::thread::{Scope, ScopedJoinHandle};

use md5::Digest as _;

use super::extents::{Extent, extent_at};
use crate::error::{Error, Kind, Result};
use crate::event::{Event, Run};
use crate::format::Md5Hash;
use crate::fs::ReadAt;
use crate::manifest::Blake3Hash;

/// What a run of bytes hashes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Digest {
    /// Length in bytes, holes included.
    pub size: u64,
    /// Hash of all bytes.
    pub blake3: Blake3Hash,
    /// MD5 of all but the last 16 bytes, where it was asked for: the server keeps its own in those (disk-format §3.5, §5.2).
    pub md5: Option<Md5Hash>,
}

/// Bytes read at once.
pub(super) const PIECE: usize = 1024 * 1024;
/// Buffers of one piece that are on their way at once.
const BUFFERS: usize = 5;
/// Parts that may wait for a hash; of stored parts, this bounds what must stay cached.
const WAITING: usize = 8;
/// Zeros that are handled as one part.
const ZEROS_AT_ONCE: u64 = 16 * 1024 * 1024;
pub(super) static ZEROS: [u8; 64 * 1024] = [0; 64 * 1024];

/// A buffer that is filled in part.
#[derive(Debug, Default)]
pub(super) struct Buffer {
    bytes: Vec<u8>,
    used: usize,
}

impl Buffer {
    /// The bytes that were read.
    pub(super) fn filled(&self) -> &[u8] {
        self.bytes.get(..self.used).unwrap_or_default()
    }

    /// Reads up to `wanted` bytes, fewer only at the end of the file, and says how many there are.
    pub(super) fn fill(&mut self, source: &(impl ReadAt + ?Sized), offset: u64, wanted: usize) -> io::Result<usize> {
        self.bytes.resize(PIECE, 0);
        self.used = 0;
        while self.used < wanted {
            let room = self.bytes.get_mut(self.used..wanted).unwrap_or_default();
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

/// The next part of what is hashed.
#[derive(Debug, Clone)]
enum Part {
    Bytes(Arc<Buffer>),
    Zeros(u64),
    /// Bytes that the hash reads for itself from the stored file.
    Stored {
        start: u64,
        end: u64,
    },
}

/// The hashes of one file in the making, each on its own thread.
pub(super) struct Hashing<'scope> {
    blake3: Worker<'scope, Blake3Hash>,
    md5: Option<Worker<'scope, Md5Hash>>,
    size: u64,
    pool: Pool,
}

struct Worker<'scope, H> {
    parts: SyncSender<Part>,
    thread: ScopedJoinHandle<'scope, io::Result<H>>,
}

/// Buffers go round: whoever is the last to need one gives it back.
struct Pool {
    free: Receiver<Buffer>,
    back: Sender<Buffer>,
}

fn give_back(buffer: Arc<Buffer>, back: &Sender<Buffer>) {
    if let Some(buffer) = Arc::into_inner(buffer) {
        // Nobody waits for it any more where this fails.
        let _ = back.send(buffer);
    }
}

impl<'scope> Hashing<'scope> {
    /// Hashes `size` bytes. `stored` is what [`Self::stored`] reads from.
    pub(super) fn start<'env, S: ReadAt + ?Sized>(scope: &'scope Scope<'scope, 'env>, stored: &'scope S, size: u64, md5: bool) -> Self {
        let (back, free) = channel();
        for _ in 0..BUFFERS {
            let _ = back.send(Buffer::default());
        }
        let blake3 = Worker::start(scope, stored, back.clone(), move |feed| {
            let mut hasher = blake3::Hasher::new();
            feed(&mut |bytes| {
                hasher.update(bytes);
            })?;
            Ok(hasher.finalize().into())
        });
        let md5 = md5.then(|| {
            Worker::start(scope, stored, back.clone(), move |feed| {
                let mut hasher = md5::Md5::new();
                let mut left = size.saturating_sub(16);
                feed(&mut |bytes| {
                    let count = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len());
                    hasher.update(bytes.get(..count).unwrap_or_default());
                    left -= count as u64;
                })?;
                Ok(Md5Hash(hasher.finalize().into()))
            })
        });
        Self { blake3, md5, size, pool: Pool { free, back } }
    }

    /// A free buffer; waits for the slowest hash.
    pub(super) fn buffer(&self) -> Buffer {
        // The pool holds a sender itself, so that it never ends; a new buffer would be right too.
        self.pool.free.recv().unwrap_or_default()
    }

    /// Hashes what the buffer holds, and lends it to `meanwhile`.
    pub(super) fn bytes<T>(&self, buffer: Buffer, meanwhile: impl FnOnce(&[u8]) -> T) -> T {
        let buffer = Arc::new(buffer);
        self.send(&Part::Bytes(buffer.clone()));
        let result = meanwhile(buffer.filled());
        give_back(buffer, &self.pool.back);
        result
    }

    /// Hashes bytes that are stored already.
    pub(super) fn stored(&self, start: u64, end: u64) {
        self.send(&Part::Stored { start, end });
    }

    /// Hashes `count` zeros.
    pub(super) fn zeros(&self, mut count: u64, run: &Run) -> Result<()> {
        while count > 0 {
            run.check()?;
            let part = count.min(ZEROS_AT_ONCE);
            self.send(&Part::Zeros(part));
            count -= part;
        }
        Ok(())
    }

    fn send(&self, part: &Part) {
        // A worker takes every part to the end, also after an error, which `finish` tells.
        if let Some(md5) = &self.md5 {
            let _ = md5.parts.send(part.clone());
        }
        let _ = self.blake3.parts.send(part.clone());
    }

    /// Waits for the hashes; fails where the stored file could not be read.
    pub(super) fn finish(self) -> io::Result<Digest> {
        let blake3 = self.blake3.finish()?;
        let md5 = self.md5.map(Worker::finish).transpose()?;
        Ok(Digest { size: self.size, blake3, md5 })
    }
}

impl<'scope, H: Send + 'scope> Worker<'scope, H> {
    fn start<'env, S: ReadAt + ?Sized>(
        scope: &'scope Scope<'scope, 'env>,
        stored: &'scope S,
        back: Sender<Buffer>,
        hash: impl FnOnce(&mut dyn FnMut(&mut dyn FnMut(&[u8])) -> io::Result<()>) -> io::Result<H> + Send + 'scope,
    ) -> Self {
        let (parts, waiting) = sync_channel(WAITING);
        let thread = scope.spawn(move || hash(&mut |absorb| feed(&waiting, stored, &back, absorb)));
        Self { parts, thread }
    }

    fn finish(self) -> io::Result<H> {
        drop(self.parts);
        self.thread.join().unwrap_or_else(|_| Err(io::Error::other("a hashing thread ended early")))
    }
}

fn feed(parts: &Receiver<Part>, stored: &(impl ReadAt + ?Sized), back: &Sender<Buffer>, absorb: &mut dyn FnMut(&[u8])) -> io::Result<()> {
    let mut own = Buffer::default();
    let mut outcome = Ok(());
    for part in parts {
        match part {
            Part::Bytes(buffer) => {
                absorb(buffer.filled());
                give_back(buffer, back);
            }
            Part::Zeros(mut left) => {
                while left > 0 {
                    let count = usize::try_from(left).unwrap_or(usize::MAX).min(ZEROS.len());
                    absorb(ZEROS.get(..count).unwrap_or_default());
                    left -= count as u64;
                }
            }
            Part::Stored { start, end } if outcome.is_ok() => outcome = read(stored, start, end, &mut own, absorb),
            Part::Stored { .. } => {}
        }
    }
    outcome
}

fn read(stored: &(impl ReadAt + ?Sized), mut start: u64, end: u64, buffer: &mut Buffer, absorb: &mut dyn FnMut(&[u8])) -> io::Result<()> {
    /// Stays in the processor's cache.
    const AT_ONCE: u64 = 256 * 1024;
    while start < end {
        let wanted = usize::try_from((end - start).min(AT_ONCE)).unwrap_or(PIECE);
        let count = buffer.fill(stored, start, wanted)?;
        if count < wanted {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        absorb(buffer.filled());
        start += count as u64;
    }
    Ok(())
}

/// Hashes a whole file, reading it once, and its holes not at all. Tells progress in bytes. The pace is that of the file: see [`super::paced`].
///
/// # Errors
/// What the storage reports, without the file's place, which the caller knows; also where the file ends before its size.
pub fn hash_file(file: &dyn ReadAt, md5: bool, run: &Run) -> Result<Digest> {
    let size = file.size();
    let unreadable = |error: io::Error| Error::new(Kind::Failed, "cannot read").because(error);
    std::thread::scope(|scope| {
        let hashing = Hashing::start(scope, file, size, md5);
        let mut offset = 0;
        while offset < size {
            run.check()?;
            let end = match file.file().map_or(Extent::Data { end: size }, |file| extent_at(file, offset, size)) {
                Extent::Hole { end } => {
                    hashing.zeros(end - offset, run)?;
                    run.emit(Event::Progress { bytes: end - offset });
                    offset = end;
                    continue;
                }
                Extent::Data { end } => end,
            };
            let wanted = usize::try_from(run.pace().piece((end - offset).min(PIECE as u64))).unwrap_or(PIECE);
            let mut buffer = hashing.buffer();
            let count = buffer.fill(file, offset, wanted).map_err(unreadable)?;
            if count < wanted {
                return Err(unreadable(io::ErrorKind::UnexpectedEof.into()));
            }
            hashing.bytes(buffer, |_| ());
            offset += count as u64;
            run.emit(Event::Progress { bytes: count as u64 });
        }
        // A file that was cut meanwhile reads as a hole at its end.
        if let Some(file) = file.file()
            && file.status()?.size < size
        {
            return Err(unreadable(io::ErrorKind::UnexpectedEof.into()));
        }
        hashing.finish().map_err(unreadable)
    })
}
