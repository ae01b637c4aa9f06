//! Notices a run that makes no progress. Its disk may answer every look, and only its writes may
//! wait.

use std::time::{Duration, Instant};

use crate::clock::patience;

/// A run that makes no progress for this long stands still. One piece of work takes seconds at most.
const LIMIT: Duration = Duration::from_mins(5);

/// When the run that is under way last went on.
#[derive(Debug, Default)]
pub(super) struct Stillness {
    went_on: Option<Instant>,
}

impl Stillness {
    /// No run is under way, or another one begins.
    pub(super) fn forget(&mut self) {
        self.went_on = None;
    }

    /// For how long the run has stood still, if that is too long. `goes_on`: it did something since
    /// the last call.
    pub(super) fn look(&mut self, goes_on: bool, now: Instant) -> Option<Duration> {
        if goes_on {
            self.went_on = Some(now);
        }

        let went_on = *self.went_on.get_or_insert(now);
        let still = now.saturating_duration_since(went_on);
        (still >= patience(LIMIT)).then_some(still)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_mins(1);

    #[test]
    fn a_run_stands_still_after_minutes_without_progress() {
        let mut stillness = Stillness::default();
        let began = Instant::now();

        assert_eq!(stillness.look(false, began), None);
        assert_eq!(stillness.look(false, began + 4 * MINUTE), None);
        assert_eq!(stillness.look(false, began + 5 * MINUTE), Some(5 * MINUTE));

        assert_eq!(stillness.look(true, began + 6 * MINUTE), None);
        assert_eq!(stillness.look(false, began + 10 * MINUTE), None);
        assert_eq!(stillness.look(false, began + 12 * MINUTE), Some(6 * MINUTE));
    }

    #[test]
    fn the_next_run_has_its_own_time() {
        let mut stillness = Stillness::default();
        let began = Instant::now();
        stillness.look(true, began);

        stillness.forget();
        assert_eq!(stillness.look(false, began + 20 * MINUTE), None);
    }
}
