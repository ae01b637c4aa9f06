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
        if self.bytes.len() < wanted {
            self.bytes.resize(wanted, 0);
        }
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

/// The hashes of one file in the making. A large file gets a thread for each; a small one is hashed where it is read, as threads would cost more.
pub(super) struct Hashing<'scope> {
    way: Way<'scope>,
    size: u64,
}

enum Way<'scope> {
    Here { both: Box<Intake<'scope, Both>>, spare: Buffer },
    Threads { blake3: Worker<'scope, blake3::Hasher>, md5: Option<Worker<'scope, ServersMd5>>, pool: Pool },
}

/// Files up to this many bytes are hashed where they are read.
const SMALL: u64 = PIECE as u64;

trait Hash {
    fn update(&mut self, bytes: &[u8]);
}

impl Hash for blake3::Hasher {
    fn update(&mut self, bytes: &[u8]) {
        Self::update(self, bytes);
    }
}

/// MD5 as the server has it: over all but the last 16 bytes.
struct ServersMd5 {
    hasher: md5::Md5,
    left: u64,
}

impl ServersMd5 {
    fn new(size: u64) -> Self {
        Self { hasher: md5::Md5::new(), left: size.saturating_sub(16) }
    }

    fn finish(self) -> Md5Hash {
        Md5Hash(self.hasher.finalize().into())
    }
}

impl Hash for ServersMd5 {
    fn update(&mut self, bytes: &[u8]) {
        let count = usize::try_from(self.left).unwrap_or(usize::MAX).min(bytes.len());
        self.hasher.update(bytes.get(..count).unwrap_or_default());
        self.left -= count as u64;
    }
}

struct Both {
    blake3: blake3::Hasher,
    md5: Option<ServersMd5>,
}

impl Hash for Both {
    fn update(&mut self, bytes: &[u8]) {
        self.blake3.update(bytes);
        if let Some(md5) = &mut self.md5 {
            md5.update(bytes);
        }
    }
}

/// Takes parts in, whoever hands them over.
struct Intake<'scope, H> {
    hash: H,
    stored: &'scope dyn ReadAt,
    own: Buffer,
    /// The first failure to read what is stored; parts are taken to the end all the same.
    outcome: io::Result<()>,
}

impl<'scope, H: Hash> Intake<'scope, H> {
    fn new(hash: H, stored: &'scope dyn ReadAt) -> Self {
        Self { hash, stored, own: Buffer::default(), outcome: Ok(()) }
    }

    fn take(&mut self, part: &Part) {
        match part {
            Part::Bytes(buffer) => self.hash.update(buffer.filled()),
            Part::Zeros(count) => {
                let mut left = *count;
                while left > 0 {
                    let count = usize::try_from(left).unwrap_or(usize::MAX).min(ZEROS.len());
                    self.hash.update(ZEROS.get(..count).unwrap_or_default());
                    left -= count as u64;
                }
            }
            Part::Stored { start, end } if self.outcome.is_ok() => self.outcome = self.read(*start, *end),
            Part::Stored { .. } => {}
        }
    }

    fn read(&mut self, mut start: u64, end: u64) -> io::Result<()> {
        /// Stays in the processor's cache.
        const AT_ONCE: u64 = 256 * 1024;
        while start < end {
            let wanted = usize::try_from((end - start).min(AT_ONCE)).unwrap_or(PIECE);
            let count = self.own.fill(self.stored, start, wanted)?;
            if count < wanted {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            self.hash.update(self.own.filled());
            start += count as u64;
        }
        Ok(())
    }

    fn finish(self) -> io::Result<H> {
        self.outcome.map(|()| self.hash)
    }
}

struct Worker<'scope, H> {
    parts: SyncSender<Part>,
    thread: ScopedJoinHandle<'scope, io::Result<H>>,
}

impl<'scope, H: Hash + Send + 'scope> Worker<'scope, H> {
    fn start(scope: &'scope Scope<'scope, '_>, mut intake: Intake<'scope, H>, back: Sender<Buffer>) -> Self {
        let (parts, waiting) = sync_channel(WAITING);
        let thread = scope.spawn(move || {
            for part in waiting {
                intake.take(&part);
                if let Part::Bytes(buffer) = part {
                    give_back(buffer, &back);
                }
            }
            intake.finish()
        });
        Self { parts, thread }
    }

    fn finish(self) -> io::Result<H> {
        drop(self.parts);
        self.thread.join().unwrap_or_else(|_| Err(io::Error::other("a hashing thread ended early")))
    }
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
    pub(super) fn start(scope: &'scope Scope<'scope, '_>, stored: &'scope dyn ReadAt, size: u64, md5: bool) -> Self {
        let (blake3, md5) = (blake3::Hasher::new(), md5.then(|| ServersMd5::new(size)));
        if size <= SMALL {
            let both = Box::new(Intake::new(Both { blake3, md5 }, stored));
            return Self { way: Way::Here { both, spare: Buffer::default() }, size };
        }
        let (back, free) = channel();
        for _ in 0..BUFFERS {
            let _ = back.send(Buffer::default());
        }
        let blake3 = Worker::start(scope, Intake::new(blake3, stored), back.clone());
        let md5 = md5.map(|md5| Worker::start(scope, Intake::new(md5, stored), back.clone()));
        Self { way: Way::Threads { blake3, md5, pool: Pool { free, back } }, size }
    }

    /// A free buffer; waits for the slowest hash.
    pub(super) fn buffer(&mut self) -> Buffer {
        match &mut self.way {
            Way::Here { spare, .. } => std::mem::take(spare),
            // The pool holds a sender itself, so that it never ends; a new buffer would be right too.
            Way::Threads { pool, .. } => pool.free.recv().unwrap_or_default(),
        }
    }

    /// Hashes what the buffer holds, and lends it to `meanwhile`.
    pub(super) fn bytes<T>(&mut self, buffer: Buffer, meanwhile: impl FnOnce(&[u8]) -> T) -> T {
        let buffer = Arc::new(buffer);
        self.send(&Part::Bytes(buffer.clone()));
        let result = meanwhile(buffer.filled());
        match &mut self.way {
            Way::Here { spare, .. } => *spare = Arc::into_inner(buffer).unwrap_or_default(),
            Way::Threads { pool, .. } => give_back(buffer, &pool.back),
        }
        result
    }

    /// Hashes bytes that are stored already.
    pub(super) fn stored(&mut self, start: u64, end: u64) {
        self.send(&Part::Stored { start, end });
    }

    /// Hashes `count` zeros.
    pub(super) fn zeros(&mut self, mut count: u64, run: &Run) -> Result<()> {
        while count > 0 {
            run.check()?;
            let part = count.min(ZEROS_AT_ONCE);
            self.send(&Part::Zeros(part));
            count -= part;
        }
        Ok(())
    }

    fn send(&mut self, part: &Part) {
        match &mut self.way {
            Way::Here { both, .. } => both.take(part),
            // A worker takes every part to the end, also after an error, which `finish` tells.
            Way::Threads { blake3, md5, .. } => {
                if let Some(md5) = md5 {
                    let _ = md5.parts.send(part.clone());
                }
                let _ = blake3.parts.send(part.clone());
            }
        }
    }

    /// Waits for the hashes; fails where the stored file could not be read.
    pub(super) fn finish(self) -> io::Result<Digest> {
        let (blake3, md5) = match self.way {
            Way::Here { both, .. } => both.finish().map(|Both { blake3, md5 }| (blake3, md5))?,
            Way::Threads { blake3, md5, .. } => (blake3.finish()?, md5.map(Worker::finish).transpose()?),
        };
        Ok(Digest { size: self.size, blake3: blake3.finalize().into(), md5: md5.map(ServersMd5::finish) })
    }
}

/// Hashes a whole file, reading it once, and its holes not at all. Tells progress in bytes. The pace is that of the file: see [`super::paced`].
///
/// # Errors
/// What the storage reports, without the file's place, which the caller knows; also where the file ends before its size.
pub fn hash_file(file: &dyn ReadAt, md5: bool, run: &Run) -> Result<Digest> {
    let size = file.size();
    let unreadable = |error: io::Error| Error::new(Kind::Failed, "cannot read").because(error);
    std::thread::scope(|scope| {
        let mut hashing = Hashing::start(scope, file, size, md5);
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
