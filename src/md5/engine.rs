//! The queue of pieces, and the threads that hash them: one of its own, and the owners themselves.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::lanes::{HashLane, Kernel};
use super::stream::Md5Stream;

/// Bytes that are hashed while their owner uses them too. `as_ref` must not panic: another thread
/// calls it.
pub type Piece = Arc<dyn AsRef<[u8]> + Send + Sync>;

/// A stream waits this long for others to fill the lanes. If each owner computed its own piece at
/// once, it would do so alone, piece after piece, and the others in their turn: no faster than
/// without lanes.
const PATIENCE: Duration = Duration::from_millis(2);

/// The bytes of a piece that are in the range.
pub(super) fn part<'a>(piece: &'a Piece, range: &Range<usize>) -> &'a [u8] {
    (**piece).as_ref().get(range.clone()).unwrap_or_default()
}

/// The place where a stream is handed back.
#[derive(Default)]
pub(super) struct Slot {
    stream: Mutex<Option<Md5Stream>>,
    is_back: Condvar,
}

/// A stream and its next bytes.
pub(super) struct HashJob {
    pub(super) stream: Md5Stream,
    pub(super) piece: Piece,
    pub(super) range: Range<usize>,
    pub(super) slot: Arc<Slot>,
}

impl HashJob {
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
        slot.is_back.notify_one();
    }
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Hashes the pieces of many streams together.
pub(super) struct Engine {
    kernel: Kernel,
    /// The shortest piece that is queued.
    queued_from: usize,
    pub(super) queue: Mutex<Queue>,
    is_full: Condvar,
}

#[derive(Default)]
pub(super) struct Queue {
    pub(super) waiting: VecDeque<HashJob>,
    /// Streams that may bring a piece.
    pub(super) streams: usize,
    /// A thread has been started that works as soon as the queue [is full](Self::is_full).
    pub(super) is_tended: bool,
}

impl Queue {
    /// No more can be won by waiting: all lanes are filled, or all streams have brought a piece.
    fn is_full(&self, lanes: usize) -> bool {
        !self.waiting.is_empty() && self.waiting.len() >= self.streams.min(lanes)
    }

    fn take_batch(&mut self, lanes: usize) -> Vec<HashJob> {
        let count = self.waiting.len().min(lanes);
        self.waiting.drain(..count).collect()
    }

    fn position(&self, slot: &Arc<Slot>) -> Option<usize> {
        self.waiting
            .iter()
            .position(|job| Arc::ptr_eq(&job.slot, slot))
    }
}

impl Engine {
    pub(super) fn new(kernel: Kernel, queued_from: usize) -> Self {
        Self {
            kernel,
            queued_from,
            queue: Mutex::default(),
            is_full: Condvar::new(),
        }
    }

    /// Whether a piece of this length is queued.
    pub(super) fn queues(&self, length: usize) -> bool {
        length >= self.queued_from
    }

    /// Streams that are worth working on at once.
    fn lanes(&self) -> usize {
        self.kernel.lanes()
    }

    pub(super) fn submit(&'static self, job: HashJob, is_new: bool) {
        let mut queue = lock(&self.queue);
        queue.streams += usize::from(is_new);
        queue.waiting.push_back(job);
        let was_tended = std::mem::replace(&mut queue.is_tended, true);
        if queue.is_full(self.lanes()) {
            self.is_full.notify_one();
        }
        drop(queue);

        if !was_tended {
            // Without this thread the owners do all the work, when they come for it.
            let _ = std::thread::Builder::new()
                .name("md5".into())
                .spawn(|| self.tend());
        }
    }

    /// Ends with the last stream: the next one may belong to a run of another priority, which its
    /// thread inherits.
    fn tend(&self) {
        loop {
            let mut queue = lock(&self.queue);
            while queue.streams > 0 && !queue.is_full(self.lanes()) {
                queue = self
                    .is_full
                    .wait(queue)
                    .unwrap_or_else(PoisonError::into_inner);
            }
            if queue.streams == 0 {
                queue.is_tended = false;
                return;
            }

            let batch = queue.take_batch(self.lanes());
            drop(queue);
            self.compute(batch);
        }
    }

    /// Waits for a stream to come back. If nobody works on it, and no others join it for a while,
    /// its owner does: together with whatever else waits.
    pub(super) fn result(&self, slot: &Arc<Slot>) -> Md5Stream {
        if let Some(stream) = self.wait_for_others(slot) {
            return stream;
        }

        let mut queue = lock(&self.queue);
        let batch = match queue.position(slot) {
            Some(own) => {
                queue.waiting.swap(0, own);
                queue.take_batch(self.lanes())
            }
            // Another thread is at it.
            None => Vec::new(),
        };
        drop(queue);
        self.compute(batch);

        let mut stream = lock(&slot.stream);
        loop {
            if let Some(stream) = stream.take() {
                return stream;
            }
            stream = slot
                .is_back
                .wait(stream)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Gives the other streams a moment to fill the lanes, and another thread a moment to do the
    /// work.
    fn wait_for_others(&self, slot: &Arc<Slot>) -> Option<Md5Stream> {
        let is_full = lock(&self.queue).is_full(self.lanes());
        let patience = if is_full { Duration::ZERO } else { PATIENCE };

        let waited = slot
            .is_back
            .wait_timeout_while(lock(&slot.stream), patience, |stream| stream.is_none());
        let (mut stream, _) = waited.unwrap_or_else(PoisonError::into_inner);
        stream.take()
    }

    fn compute(&self, mut batch: Vec<HashJob>) {
        let mut lanes: Vec<HashLane<'_>> = Vec::with_capacity(batch.len());
        for job in &mut batch {
            let blocks = job.stream.take(part(&job.piece, &job.range));
            lanes.push(HashLane {
                state: &mut job.stream.state,
                blocks,
            });
        }
        self.kernel.compress(&mut lanes);
        drop(lanes);

        for job in batch {
            job.hand_back();
        }
    }

    /// A stream brings no more pieces. One that waits is not hashed.
    pub(super) fn forget(&self, slot: &Arc<Slot>) {
        let mut queue = lock(&self.queue);
        queue.streams -= 1;
        let own = queue.position(slot);
        let unwanted = own.and_then(|own| queue.waiting.remove(own));
        if queue.streams == 0 || queue.is_full(self.lanes()) {
            self.is_full.notify_one();
        }

        // The piece is let go outside of the lock.
        drop(queue);
        drop(unwanted);
    }
}
