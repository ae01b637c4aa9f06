//! How fast a run may go: one budget of bytes for all its threads, and turns at the disk.

use std::num::NonZeroU64;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use crate::pulse::Pulse;

/// The most time of the budget that one piece takes, and the most that a run saves up while it
/// spends nothing. Together they are a quarter of a second.
const BURST: Duration = Duration::from_millis(125);
/// Pieces are multiples of this, in bytes, because blocks of zeros become holes only at such
/// offsets.
const GRAIN: u64 = 64 * 1024;
/// The largest piece of a run at low priority, in bytes.
const SMALL_PIECE: u64 = 8 * GRAIN;
/// The longest pause after the disk was used.
const LONGEST_PAUSE: Duration = Duration::from_millis(100);
/// An interruption is noticed within this time.
const NOTICED: Duration = Duration::from_millis(50);

/// Bytes that a run may handle in a second.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate(NonZeroU64);

impl Rate {
    /// The lowest rate, in bytes a second: the smallest piece is a quarter of a second of it.
    pub const LOWEST: u64 = 4 * GRAIN;

    /// A rate in bytes a second. Returns `None` if it is below [`Self::LOWEST`].
    #[must_use]
    pub fn new(bytes: u64) -> Option<Self> {
        if bytes < Self::LOWEST {
            return None;
        }
        NonZeroU64::new(bytes).map(Self)
    }

    fn time_of(self, bytes: u64) -> Duration {
        let nanoseconds = u128::from(bytes) * 1_000_000_000 / u128::from(self.0.get());
        Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(u64::MAX))
    }
}

/// The pace of a run; clones share its budget and its turns. Without a rate nothing is counted, and
/// nothing waits.
#[derive(Debug, Clone)]
pub struct Pace {
    budget: Option<Arc<Budget>>,
    /// The lock of the thread whose turn it is to use the disk; only at low priority.
    turn: Option<Arc<Mutex<()>>>,
    stop: CancellationToken,
    /// Beats while a thread waits for the budget.
    pulse: Pulse,
}

#[derive(Debug)]
struct Budget {
    rate: Rate,
    /// When everything that was spent so far has been earned.
    earned: Mutex<Instant>,
    /// Bytes that were spent so far.
    spent: AtomicU64,
}

impl Budget {
    fn new(rate: Rate) -> Self {
        Self {
            rate,
            earned: Mutex::new(Instant::now()),
            spent: AtomicU64::new(0),
        }
    }

    /// Spends `bytes`. Returns when they have been earned.
    fn spend(&self, bytes: u64) -> Instant {
        self.spent.fetch_add(bytes, Ordering::Relaxed);
        let mut earned = self.earned.lock().unwrap_or_else(PoisonError::into_inner);

        // Only a burst of what was not spent before is saved up.
        let saved_since = Instant::now().checked_sub(BURST).unwrap_or(*earned);
        let start = (*earned).max(saved_since);
        *earned = start.checked_add(self.rate.time_of(bytes)).unwrap_or(start);
        *earned
    }
}

impl Pace {
    /// A new budget. Once `stop` is cancelled, no thread waits for it.
    #[must_use]
    pub fn new(rate: Option<Rate>, stop: CancellationToken) -> Self {
        Self {
            budget: rate.map(|rate| Arc::new(Budget::new(rate))),
            turn: None,
            stop,
            pulse: Pulse::default(),
        }
    }

    /// The same budget, whose waits show in this pulse.
    #[must_use]
    pub fn beating(self, pulse: Pulse) -> Self {
        Self { pulse, ..self }
    }

    /// The same budget at low priority: the threads of the run use the disk one after the other,
    /// and leave it alone for a while after each piece.
    #[must_use]
    pub fn at_low_priority(self) -> Self {
        Self {
            turn: Some(Arc::default()),
            ..self
        }
    }

    /// Whether the run leaves the disk to others.
    #[must_use]
    pub fn has_low_priority(&self) -> bool {
        self.turn.is_some()
    }

    /// Does work that uses the disk.
    ///
    /// If another process reads or syncs, it waits for everything that the disk was told to do
    /// before. At low priority that is at most one piece, and then the disk is free for half as
    /// long as the piece took.
    pub fn in_turn<T>(&self, work: impl FnOnce() -> T) -> T {
        let Some(turn) = &self.turn else {
            return work();
        };

        let _turn = turn.lock().unwrap_or_else(PoisonError::into_inner);
        let begin = Instant::now();
        let result = work();
        if !self.stop.is_cancelled() {
            std::thread::sleep((begin.elapsed() / 2).min(LONGEST_PAUSE));
        }
        result
    }

    /// Whether the run has a rate limit.
    #[must_use]
    pub fn is_limited(&self) -> bool {
        self.budget.is_some()
    }

    /// The rate limit of the run, in bytes a second. Returns `None` if there is none.
    #[must_use]
    pub fn limit(&self) -> Option<u64> {
        self.budget.as_ref().map(|budget| budget.rate.0.get())
    }

    /// Bytes that were spent so far; 0 without a rate limit.
    #[must_use]
    pub fn spent(&self) -> u64 {
        match &self.budget {
            Some(budget) => budget.spent.load(Ordering::Relaxed),
            None => 0,
        }
    }

    /// Bytes to handle at once, if `wanted` would be best.
    #[must_use]
    pub fn piece(&self, wanted: u64) -> u64 {
        let wanted = if self.has_low_priority() {
            wanted.min(SMALL_PIECE)
        } else {
            wanted
        };
        let Some(budget) = &self.budget else {
            return wanted;
        };

        // An eighth of a second is one burst.
        let burst = budget.rate.0.get() / 8;
        let whole_grains = (burst - burst % GRAIN).max(GRAIN);
        wanted.min(whole_grains)
    }

    /// Spends the bytes of a piece after it was handled. Waits until they are earned, or the run is
    /// told to stop.
    pub fn spend(&self, bytes: u64) {
        let Some(budget) = &self.budget else { return };

        let earned = budget.spend(bytes);
        while !self.stop.is_cancelled() {
            self.pulse.beat();
            let left = earned.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            std::thread::sleep(left.min(NOTICED));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pace(bytes: u64) -> Pace {
        Pace::new(Rate::new(bytes), CancellationToken::new())
    }

    /// What may have been saved up at the beginning.
    fn least(bytes: u64, rate: u64) -> Duration {
        Rate::new(rate)
            .unwrap()
            .time_of(bytes)
            .saturating_sub(BURST)
    }

    #[test]
    fn several_threads_spend_one_budget() {
        const RATE: u64 = 4 << 20;
        let pace = pace(RATE);
        let started = Instant::now();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..4).for_each(|_| pace.clone().spend(128 << 10)));
            }
        });
        assert!(
            started.elapsed() >= least(16 * (128 << 10), RATE),
            "{:?}",
            started.elapsed()
        );
    }

    #[test]
    fn a_run_at_low_priority_writes_one_piece_after_the_other_and_pauses_between() {
        const WRITE: Duration = Duration::from_millis(20);
        let pace = Pace::new(None, CancellationToken::new()).at_low_priority();
        let at_once = std::sync::atomic::AtomicU32::new(0);

        let started = Instant::now();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    pace.clone().in_turn(|| {
                        assert_eq!(at_once.fetch_add(1, Ordering::SeqCst), 0);
                        std::thread::sleep(WRITE);
                        at_once.fetch_sub(1, Ordering::SeqCst);
                    });
                });
            }
        });
        assert!(started.elapsed() >= WRITE * 6, "{:?}", started.elapsed());
    }

    #[test]
    fn idle_time_is_not_saved_up() {
        const RATE: u64 = 1 << 20;
        let pace = pace(RATE);
        std::thread::sleep(Duration::from_millis(600));
        let started = Instant::now();
        pace.spend(RATE / 2);
        assert!(
            started.elapsed() >= least(RATE / 2, RATE),
            "{:?}",
            started.elapsed()
        );
    }

    #[test]
    fn an_interruption_ends_the_wait() {
        let pace = pace(Rate::LOWEST);
        std::thread::scope(|scope| {
            scope.spawn(|| pace.spend(1 << 40));
            std::thread::sleep(Duration::from_millis(20));
            pace.stop.cancel();
        });
        // Not even where the budget is overdrawn by days.
        pace.spend(1 << 40);
    }

    #[test]
    fn a_low_rate_makes_small_pieces() {
        assert_eq!(pace(Rate::LOWEST).piece(4 << 20), GRAIN);
        assert_eq!(pace(10 << 20).piece(4 << 20), 20 * GRAIN);
        assert_eq!(pace(1 << 40).piece(4 << 20), 4 << 20);
        assert_eq!(pace(1 << 20).piece(100), 100);
        assert!(Rate::new(Rate::LOWEST - 1).is_none());
    }

    #[test]
    fn without_a_rate_nothing_waits() {
        let pace = Pace::new(None, CancellationToken::new());
        pace.spend(u64::MAX);
        assert_eq!((pace.is_limited(), pace.piece(4 << 20)), (false, 4 << 20));
    }
}
