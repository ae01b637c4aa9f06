//! When to look at the node and the repository: at regular times, and before each decision.

use std::time::{Duration, Instant};

/// How often the agent looks.
const LOOK: Duration = Duration::from_secs(30);
/// How often the agent looks while the node or the repository is missing. So a backup that waits
/// for them begins soon after they are back.
const LOOK_WHILE_MISSING: Duration = Duration::from_secs(5);
/// A look that takes longer than this hangs. A look at a node that does not answer takes less.
const LONGEST_LOOK: Duration = Duration::from_secs(120);

/// The looks. There is never more than one at a time.
#[derive(Debug, Default)]
pub(super) struct LookSchedule {
    /// When the look under way began.
    began: Option<Instant>,
    /// When the last look ended. `None` if its result does not count any more.
    last: Option<Instant>,
    /// Whether something happened since the look under way began. Its result does not count then.
    is_outdated: bool,
    /// Whether the last look missed the node or the repository.
    last_look_failed: bool,
}

impl LookSchedule {
    /// Whether a look is due. If so, it counts as begun, until [`Self::ended`] is called.
    pub(super) fn begins(&mut self) -> bool {
        let interval = if self.last_look_failed {
            LOOK_WHILE_MISSING
        } else {
            LOOK
        };
        if self.began.is_some() || !self.is_older_than(interval) {
            return false;
        }

        (self.began, self.is_outdated) = (Some(Instant::now()), false);
        true
    }

    /// The look under way has ended. `is_well`: it found node and repository.
    pub(super) fn ended(&mut self, is_well: bool) {
        self.last_look_failed = !is_well;
        self.began = None;

        // The age counts from the end of a look. Otherwise a look that takes long would never be
        // recent.
        self.last = (!self.is_outdated).then(Instant::now);
    }

    /// Something happened: the result of the last look, or of the look under way, does not count
    /// any more.
    pub(super) const fn forget(&mut self) {
        (self.last, self.is_outdated) = (None, true);
    }

    /// Whether the last look still counts, and no other is under way.
    pub(super) const fn is_current(&self) -> bool {
        self.began.is_none() && self.last.is_some()
    }

    /// Whether the last look that counts ended at least `age` ago. True if no look counts.
    pub(super) fn is_older_than(&self, age: Duration) -> bool {
        match self.last {
            Some(last) => last.elapsed() >= age,
            None => true,
        }
    }

    /// For how long the look under way has lasted, if it hangs: a disk does not answer.
    pub(super) fn hangs_for(&self) -> Option<Duration> {
        let lasted = self.began?.elapsed();

        (lasted >= LONGEST_LOOK).then_some(lasted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_look_from_before_an_event_does_not_count() {
        let mut looks = LookSchedule::default();
        assert!(!looks.is_current() && looks.begins() && !looks.begins());
        looks.ended(true);
        assert!(looks.is_current() && !looks.begins());

        looks.forget();
        assert!(!looks.is_current() && looks.begins());
        looks.forget();
        looks.ended(true);
        assert!(!looks.is_current() && looks.begins());

        looks.ended(true);
        assert!(looks.is_current());
    }

    #[test]
    fn a_look_that_does_not_end_hangs() {
        let mut looks = LookSchedule::default();
        assert_eq!(looks.hangs_for(), None, "no look is under way");
        assert!(looks.begins());
        assert_eq!(looks.hangs_for(), None, "the look has just begun");

        looks.began = Instant::now().checked_sub(LONGEST_LOOK);
        assert!(looks.hangs_for() >= Some(LONGEST_LOOK));
        looks.ended(true);
        assert_eq!(looks.hangs_for(), None);
    }
}
