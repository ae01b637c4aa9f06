//! MD5 of many streams at once, beside their owners' work.
//!
//! Within one stream the algorithm runs on one core, at the pace of its slowest chain; with a
//! stream in each lane of a vector the same time serves sixteen of them. So the pieces of all
//! streams of the process wait in one queue, and whoever must wait for a piece takes as many as
//! there are lanes and works on them all.

mod lanes;

use std::collections::VecDeque;
use std::fmt;
use std::ops::Range;
use std::sync::{Arc, Condvar, LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

pub use lanes::{Block, Kernel, LANES, Lane, State};

/// Bytes that are hashed while their owner uses them too. `as_ref` must not panic: somebody else
/// calls it.
pub type Piece = Arc<dyn AsRef<[u8]> + Send + Sync>;

/// Shorter pieces are hashed where they are handed over: to queue them would cost more.
const WORTH_QUEUEING: usize = 64 * 1024 + 1;

/// So long a stream waits for others to fill the lanes. Whoever computed its own piece at once
/// would do so alone, piece after piece, and the others in their turn: no faster than without
/// lanes.
const PATIENCE: Duration = Duration::from_millis(2);

/// The processor is one for the whole process, and so is the queue.
static ENGINE: LazyLock<Engine> = LazyLock::new(|| Engine::new(Kernel::best(), WORTH_QUEUEING));

/// The MD5 of one stream, computed beside its owner's work, in lanes with all other streams of the
/// process.
pub struct Md5 {
    engine: &'static Engine,
    /// As of the last piece that came back.
    stream: Stream,
    slot: Arc<Slot>,
    /// A piece is on its way.
    away: bool,
    /// The engine has been told of this stream.
    known: bool,
}

impl Default for Md5 {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Md5 {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Md5")
            .field("away", &self.away)
            .finish_non_exhaustive()
    }
}

impl Md5 {
    /// The hash of nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self::with(&ENGINE)
    }

    fn with(engine: &'static Engine) -> Self {
        Self {
            engine,
            stream: Stream::default(),
            slot: Arc::default(),
            away: false,
            known: false,
        }
    }

    /// Hashes the next bytes of the stream: those of the piece that are in the range. Returns at
    /// once where the piece before is hashed, else waits for it; one piece at most is on its way,
    /// and the one before has been let go.
    pub fn update(&mut self, piece: &Piece, range: Range<usize>) {
        self.settle();
        let bytes = part(piece, &range);
        if bytes.len() < self.engine.queued_from {
            self.stream.update(bytes);
            return;
        }
        self.away = true;
        let job = Job {
            stream: self.stream.clone(),
            piece: piece.clone(),
            range,
            slot: self.slot.clone(),
        };
        self.engine
            .submit(job, !std::mem::replace(&mut self.known, true));
    }

    /// The hash of all pieces.
    #[must_use]
    pub fn finish(mut self) -> [u8; 16] {
        self.settle();
        std::mem::take(&mut self.stream).finish()
    }

    fn settle(&mut self) {
        if std::mem::take(&mut self.away) {
            self.stream = self.engine.result(&self.slot);
        }
    }
}

impl Drop for Md5 {
    fn drop(&mut self) {
        if self.known {
            self.engine.forget(&self.slot);
        }
    }
}

fn part<'a>(piece: &'a Piece, range: &Range<usize>) -> &'a [u8] {
    (**piece).as_ref().get(range.clone()).unwrap_or_default()
}

/// A hash in the making.
#[derive(Debug, Clone)]
struct Stream {
    state: State,
    length: u64,
    /// Its first `length % 64` bytes are not in the state yet.
    rest: Block,
}

impl Default for Stream {
    fn default() -> Self {
        Self {
            state: [0x6745_2301, 0xefcd_ab89, 0x98ba_dcfe, 0x1032_5476],
            length: 0,
            rest: [0; 64],
        }
    }
}

impl Stream {
    /// Takes the bytes, but leaves the whole blocks among them to the caller, who brings them into
    /// the state.
    fn take<'a>(&mut self, mut bytes: &'a [u8]) -> &'a [Block] {
        let begun = self.begun();
        self.length += bytes.len() as u64;
        if begun > 0 {
            let room = self.rest.get_mut(begun..).unwrap_or_default();
            let Some((filling, after)) = bytes.split_at_checked(room.len()) else {
                write(room, bytes);
                return &[];
            };
            write(room, filling);
            ::md5::block_api::compress(&mut self.state, &[self.rest]);
            bytes = after;
        }
        let (blocks, rest) = bytes.as_chunks();
        write(&mut self.rest, rest);
        blocks
    }

    fn begun(&self) -> usize {
        usize::try_from(self.length % 64).unwrap_or_default()
    }

    fn update(&mut self, bytes: &[u8]) {
        let blocks = self.take(bytes);
        ::md5::block_api::compress(&mut self.state, blocks);
    }

    fn finish(mut self) -> [u8; 16] {
        let bits = self.length.wrapping_mul(8);
        let padding = if self.begun() < 56 { 56 } else { 120 } - self.begun();
        let mut marked = [0; 64];
        marked[0] = 0x80;
        self.update(marked.get(..padding).unwrap_or_default());
        self.update(&bits.to_le_bytes());
        let mut hash = [0; 16];
        for (bytes, word) in hash.as_chunks_mut().0.iter_mut().zip(self.state) {
            *bytes = word.to_le_bytes();
        }
        hash
    }
}

fn write(room: &mut [u8], bytes: &[u8]) {
    for (room, byte) in room.iter_mut().zip(bytes) {
        *room = *byte;
    }
}

/// Where a stream is handed back.
#[derive(Default)]
struct Slot {
    stream: Mutex<Option<Stream>>,
    back: Condvar,
}

struct Job {
    stream: Stream,
    piece: Piece,
    range: Range<usize>,
    slot: Arc<Slot>,
}

impl Job {
    fn hand_back(self) {
        let Self {
            stream,
            piece,
            slot,
            ..
        } = self;
        // The owner may count on having the piece for itself again.
        drop(piece);
        *lock(&slot.stream) = Some(stream);
        slot.back.notify_one();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Engine {
    kernel: Kernel,
    /// The shortest piece that is queued.
    queued_from: usize,
    queue: Mutex<Queue>,
    full: Condvar,
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<Job>,
    /// Streams that may bring a piece.
    streams: usize,
    /// A thread has been started that takes what is [`Self::is_full`].
    tended: bool,
}

impl Queue {
    /// No more can be won by waiting: all lanes are filled, or all streams are here.
    fn is_full(&self, lanes: usize) -> bool {
        !self.waiting.is_empty() && self.waiting.len() >= self.streams.min(lanes)
    }

    fn batch(&mut self, lanes: usize) -> Vec<Job> {
        self.waiting
            .drain(..self.waiting.len().min(lanes))
            .collect()
    }

    fn position(&self, slot: &Arc<Slot>) -> Option<usize> {
        self.waiting
            .iter()
            .position(|job| Arc::ptr_eq(&job.slot, slot))
    }
}

impl Engine {
    fn new(kernel: Kernel, queued_from: usize) -> Self {
        Self {
            kernel,
            queued_from,
            queue: Mutex::default(),
            full: Condvar::new(),
        }
    }

    /// Streams that are worth working on at once.
    fn lanes(&self) -> usize {
        self.kernel.lanes()
    }

    fn submit(&'static self, job: Job, new: bool) {
        let mut queue = lock(&self.queue);
        queue.streams += usize::from(new);
        queue.waiting.push_back(job);
        let untended = !std::mem::replace(&mut queue.tended, true);
        if queue.is_full(self.lanes()) {
            self.full.notify_one();
        }
        drop(queue);
        if untended {
            // Without it the owners do all the work, when they come for it.
            let _ = std::thread::Builder::new()
                .name("md5".into())
                .spawn(|| self.tend());
        }
    }

    /// Ends with the last stream: the next one may belong to a run of another priority, which its
    /// thread inherits.
    fn tend(&self) {
        loop {
            let idle = |queue: &mut Queue| !queue.is_full(self.lanes()) && queue.streams > 0;
            let mut queue = self
                .full
                .wait_while(lock(&self.queue), idle)
                .unwrap_or_else(PoisonError::into_inner);
            if queue.streams == 0 {
                queue.tended = false;
                return;
            }
            let batch = queue.batch(self.lanes());
            drop(queue);
            self.compute(batch);
        }
    }

    /// Waits for a stream to come back. If nobody works on it, and no others join it for a while,
    /// its owner does: together with whatever else waits.
    fn result(&self, slot: &Arc<Slot>) -> Stream {
        let full = lock(&self.queue).is_full(self.lanes());
        let patience = if full { Duration::ZERO } else { PATIENCE };
        let back = slot
            .back
            .wait_timeout_while(lock(&slot.stream), patience, |stream| stream.is_none());
        let (mut stream, _) = back.unwrap_or_else(PoisonError::into_inner);
        if let Some(stream) = stream.take() {
            return stream;
        }
        drop(stream);
        let mut queue = lock(&self.queue);
        let batch = queue.position(slot).map(|own| {
            queue.waiting.swap(0, own);
            queue.batch(self.lanes())
        });
        drop(queue);
        self.compute(batch.unwrap_or_default());
        let mut stream = lock(&slot.stream);
        loop {
            match stream.take() {
                Some(stream) => return stream,
                None => {
                    stream = slot
                        .back
                        .wait(stream)
                        .unwrap_or_else(PoisonError::into_inner);
                }
            }
        }
    }

    fn compute(&self, mut batch: Vec<Job>) {
        let mut lanes: Vec<Lane<'_>> = batch
            .iter_mut()
            .map(|job| {
                let blocks = job.stream.take(part(&job.piece, &job.range));
                Lane {
                    state: &mut job.stream.state,
                    blocks,
                }
            })
            .collect();
        self.kernel.compress(&mut lanes);
        drop(lanes);
        batch.into_iter().for_each(Job::hand_back);
    }

    fn forget(&self, slot: &Arc<Slot>) {
        let mut queue = lock(&self.queue);
        queue.streams -= 1;
        let unwanted = queue
            .position(slot)
            .and_then(|own| queue.waiting.remove(own));
        if queue.streams == 0 || queue.is_full(self.lanes()) {
            self.full.notify_one();
        }
        drop(queue);
        drop(unwanted);
    }
}

#[cfg(test)]
mod tests {
    use ::md5::Digest as _;
    use proptest::prelude::*;

    use super::*;

    /// Small, as kernels that are not optimised are slow.
    const QUEUED_FROM: usize = 300;

    fn engine(kernel: Kernel) -> &'static Engine {
        Box::leak(Box::new(Engine::new(kernel, QUEUED_FROM)))
    }

    /// One that nobody tends.
    fn untended() -> &'static Engine {
        let engine = engine(Kernel::ALONE);
        lock(&engine.queue).tended = true;
        engine
    }

    fn engines() -> Vec<(&'static str, &'static Engine)> {
        Kernel::all()
            .into_iter()
            .map(|(name, kernel)| (name, engine(kernel)))
            .collect()
    }

    fn bytes(length: usize, seed: usize) -> Arc<Vec<u8>> {
        Arc::new(
            (0..length)
                .map(|index| u8::try_from((index * 31 + index / 251 + seed * 17) % 256).unwrap())
                .collect(),
        )
    }

    fn expected(bytes: &[u8]) -> [u8; 16] {
        ::md5::Md5::digest(bytes).into()
    }

    #[test]
    fn known_hashes() {
        // RFC 1321, appendix A.5.
        let known = [
            ("", "d41d8cd98f00b204e9800998ecf8427e"),
            ("a", "0cc175b9c0f1b6a831c399e269772661"),
            ("abc", "900150983cd24fb0d6963f7d28e17f72"),
            ("message digest", "f96b697d7cb7938d525a2f31aaf161d0"),
            (
                "12345678901234567890123456789012345678901234567890123456789012345678901234567890",
                "57edf4a22be3c955ac49da2e2107b67a",
            ),
        ];
        for (text, hash) in known {
            let mut md5 = Md5::new();
            let piece: Piece = Arc::new(text.as_bytes());
            md5.update(&piece, 0..text.len());
            assert_eq!(
                md5.finish().map(|byte| format!("{byte:02x}")).concat(),
                hash
            );
        }
    }

    #[test]
    fn lengths_around_whole_blocks() {
        for (name, engine) in engines() {
            for length in (0..200).chain(QUEUED_FROM - 70..QUEUED_FROM + 70) {
                let whole = bytes(length, 0);
                let piece: Piece = whole.clone();
                let mut md5 = Md5::with(engine);
                md5.update(&piece, 0..length);
                assert_eq!(md5.finish(), expected(&whole), "{name} {length}");
            }
        }
    }

    #[test]
    fn many_threads_share_the_lanes() {
        for (name, engine) in engines() {
            std::thread::scope(|scope| {
                for number in 0..40 {
                    scope.spawn(move || {
                        let whole = bytes(QUEUED_FROM * (number % 5) * 2 + number * 1001, number);
                        let piece: Piece = whole.clone();
                        let mut md5 = Md5::with(engine);
                        let mut start = 0;
                        while start < whole.len() {
                            let end = whole.len().min(start + QUEUED_FROM + number * 37);
                            md5.update(&piece, start..end);
                            start = end;
                        }
                        assert_eq!(md5.finish(), expected(&whole), "{name} {number}");
                    });
                }
            });
            assert_eq!(lock(&engine.queue).streams, 0);
        }
    }

    #[test]
    fn a_piece_is_let_go_when_it_is_hashed() {
        let whole = bytes(WORTH_QUEUEING, 1);
        let piece: Piece = whole.clone();
        let mut md5 = Md5::new();
        md5.update(&piece, 0..WORTH_QUEUEING);
        drop(piece);
        let next: Piece = Arc::new([]);
        md5.update(&next, 0..0);
        assert_eq!(Arc::strong_count(&whole), 1);
    }

    #[test]
    fn an_unfinished_stream_leaves_nothing_behind() {
        let engine = untended();
        let whole = bytes(QUEUED_FROM, 1);
        let piece: Piece = whole.clone();
        let mut md5 = Md5::with(engine);
        md5.update(&piece, 0..QUEUED_FROM);
        assert_eq!(lock(&engine.queue).waiting.len(), 1);
        drop(md5);
        let queue = lock(&engine.queue);
        assert_eq!(
            (
                queue.waiting.len(),
                queue.streams,
                Arc::strong_count(&whole)
            ),
            (0, 0, 2)
        );
    }

    #[test]
    fn owners_do_all_the_work_where_nobody_else_does() {
        let engine = untended();
        let whole = bytes(QUEUED_FROM * 2, 1);
        let piece: Piece = whole.clone();
        let mut streams: Vec<Md5> = (0..LANES + 3).map(|_| Md5::with(engine)).collect();
        for range in [0..QUEUED_FROM, QUEUED_FROM..QUEUED_FROM * 2] {
            streams
                .iter_mut()
                .for_each(|md5| md5.update(&piece, range.clone()));
        }
        for md5 in streams {
            assert_eq!(md5.finish(), expected(&whole));
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        #[test]
        fn pieces_may_be_of_any_length(
            lengths in prop::collection::vec(prop_oneof![0_usize..200, QUEUED_FROM - 100..QUEUED_FROM + 200], 0..8),
            streams in 1_usize..20,
        ) {
            let whole = bytes(lengths.iter().sum(), streams);
            let hash = expected(&whole);
            let piece: Piece = whole;
            for (name, engine) in engines() {
                let mut hashes: Vec<Md5> = (0..streams).map(|_| Md5::with(engine)).collect();
                let mut start = 0;
                for length in &lengths {
                    hashes.iter_mut().for_each(|md5| md5.update(&piece, start..start + length));
                    start += length;
                }
                for md5 in hashes {
                    prop_assert_eq!(md5.finish(), hash, "{}", name);
                }
            }
        }
    }
}
