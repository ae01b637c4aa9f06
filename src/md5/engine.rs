//! The queue of pieces, and the threads that hash them: one worker thread, and the owners of the
//! streams.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::lanes::{HashLane, Kernel};
use super::stream::Md5Stream;

/// Bytes that are hashed while their owner uses them too. `as_ref` must not panic: another thread
/// calls it.
pub type Piece = Arc<dyn AsRef<[u8]> + Send + Sync>;

/// A stream waits this long for others to fill the lanes. If each owner hashed its own piece at
/// once, each piece would be alone in its lanes, which is no faster than without lanes.
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

        // Drop the piece first, because its owner may expect to be the only user again.
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
    /// A worker thread runs. It hashes as soon as the queue [is full](Self::is_full).
    pub(super) has_worker: bool,
}

impl Queue {
    /// Whether waiting gains nothing more: all lanes are filled, or all streams have brought a
    /// piece.
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
        let had_worker = std::mem::replace(&mut queue.has_worker, true);
        if queue.is_full(self.lanes()) {
            self.is_full.notify_one();
        }
        drop(queue);

        if !had_worker {
            // If no thread can be started, the owners do all the work when they ask for their
            // results.
            let _ = std::thread::Builder::new()
                .name("md5".into())
                .spawn(|| self.work());
        }
    }

    /// The worker thread. It ends with the last stream, because the next stream may belong to a run
    /// of another priority, and a thread inherits its priority.
    fn work(&self) {
        loop {
            let mut queue = lock(&self.queue);
            while queue.streams > 0 && !queue.is_full(self.lanes()) {
                queue = self
                    .is_full
                    .wait(queue)
                    .unwrap_or_else(PoisonError::into_inner);
            }
            if queue.streams == 0 {
                queue.has_worker = false;
                return;
            }

            let batch = queue.take_batch(self.lanes());
            drop(queue);
            self.compute(batch);
        }
    }

    /// Waits until a stream is handed back. If no thread works on it for a while, this thread does,
    /// together with the other streams that wait.
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
            // Another thread hashes it already.
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

    /// Removes a stream. If a piece of it still waits, that piece is not hashed.
    pub(super) fn forget(&self, slot: &Arc<Slot>) {
        let mut queue = lock(&self.queue);
        queue.streams -= 1;
        let own = queue.position(slot);
        let unwanted = own.and_then(|own| queue.waiting.remove(own));
        if queue.streams == 0 || queue.is_full(self.lanes()) {
            self.is_full.notify_one();
        }

        // The piece is dropped outside of the lock.
        drop(queue);
        drop(unwanted);
    }
}
