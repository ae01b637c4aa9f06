//! MD5 of many streams at once, beside their owners' work.
//!
//! Within one stream each step waits for the one before, so the stream cannot use a core fully.
//! With a stream in each lane of a vector, sixteen streams take the time of one. So the pieces of
//! all streams of the process wait in one queue. A thread that must wait for a piece takes as many
//! pieces as there are lanes, and hashes them all.
//!
//! `stream` is one unfinished hash, `engine` the queue and its threads, and `lanes` the code with
//! vectors.

mod engine;
mod lanes;
mod stream;

use std::fmt;
use std::ops::Range;
use std::sync::{Arc, LazyLock};

pub use engine::Piece;
use engine::{Engine, HashJob, Slot, part};
pub use lanes::{Block, HashLane, Kernel, LANES, State};
use stream::Md5Stream;

/// Shorter pieces are hashed at once, because to queue them would cost more.
const WORTH_QUEUEING: usize = 64 * 1024 + 1;

/// All streams of the process share one queue.
static ENGINE: LazyLock<Engine> = LazyLock::new(|| Engine::new(Kernel::best(), WORTH_QUEUEING));

/// The MD5 of one stream, computed beside its owner's work, in lanes with all other streams of the
/// process.
pub struct Md5 {
    engine: &'static Engine,
    /// Its state after the last piece that was handed back.
    stream: Md5Stream,
    slot: Arc<Slot>,
    /// A piece is on its way.
    is_away: bool,
    /// The engine has been told of this stream.
    is_known: bool,
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
            .field("is_away", &self.is_away)
            .finish_non_exhaustive()
    }
}

impl Md5 {
    /// A hash to which no bytes have been added yet.
    #[must_use]
    pub fn new() -> Self {
        Self::with(&ENGINE)
    }

    fn with(engine: &'static Engine) -> Self {
        Self {
            engine,
            stream: Md5Stream::default(),
            slot: Arc::default(),
            is_away: false,
            is_known: false,
        }
    }

    /// Hashes the next bytes of the stream: those of the piece that are in the range. First waits
    /// until the piece before is hashed. So at most one piece is on its way, and the one before has
    /// been dropped.
    pub fn update(&mut self, piece: &Piece, range: Range<usize>) {
        self.settle();

        let bytes = part(piece, &range);
        if !self.engine.queues(bytes.len()) {
            self.stream.update(bytes);
            return;
        }

        self.is_away = true;
        let is_new = !std::mem::replace(&mut self.is_known, true);
        let job = HashJob {
            stream: self.stream.clone(),
            piece: piece.clone(),
            range,
            slot: self.slot.clone(),
        };
        self.engine.submit(job, is_new);
    }

    /// The hash of all pieces.
    #[must_use]
    pub fn finish(mut self) -> [u8; 16] {
        self.settle();
        std::mem::take(&mut self.stream).finish()
    }

    fn settle(&mut self) {
        if std::mem::take(&mut self.is_away) {
            self.stream = self.engine.result(&self.slot);
        }
    }
}

impl Drop for Md5 {
    fn drop(&mut self) {
        if self.is_known {
            self.engine.forget(&self.slot);
        }
    }
}

#[cfg(test)]
mod tests {
    use ::md5::Digest as _;
    use proptest::prelude::*;

    use super::engine::lock;
    use super::*;

    /// Small, as kernels that are not optimised are slow.
    const QUEUED_FROM: usize = 300;

    fn engine(kernel: Kernel) -> &'static Engine {
        Box::leak(Box::new(Engine::new(kernel, QUEUED_FROM)))
    }

    /// An engine without a worker thread.
    fn untended() -> &'static Engine {
        let engine = engine(Kernel::ALONE);
        lock(&engine.queue).has_worker = true;
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
    fn owners_do_all_the_work_if_nobody_else_does() {
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
            lengths in prop::collection::vec(
                prop_oneof![0_usize..200, QUEUED_FROM - 100..QUEUED_FROM + 200],
                0..8,
            ),
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
