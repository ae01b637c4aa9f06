//! When to look at the node and the repository: now and then, and before each decision.

use std::time::{Duration, Instant};

/// How often the agent looks.
const LOOK: Duration = Duration::from_secs(30);
/// How often it looks while something is missing. What waits for it can then go on soon.
const LOOK_WHILE_MISSING: Duration = Duration::from_secs(5);

/// The looks. There is never more than one at a time.
#[derive(Debug, Default)]
pub(super) struct LookSchedule {
    is_under_way: bool,
    /// When the last look ended, if what it saw still counts.
    last: Option<Instant>,
    /// Whether something happened since the look under way began: it does not count then.
    is_outdated: bool,
    /// Whether the last look missed the node or the repository.
    last_look_failed: bool,
}

impl LookSchedule {
    /// Whether a look is due. If so, it counts as begun.
    pub(super) fn begins(&mut self) -> bool {
        let interval = if self.last_look_failed {
            LOOK_WHILE_MISSING
        } else {
            LOOK
        };
        if self.is_under_way || !self.is_older_than(interval) {
            return false;
        }

        (self.is_under_way, self.is_outdated) = (true, false);
        true
    }

    /// The look under way has ended. `is_well`: it found node and repository.
    pub(super) fn ended(&mut self, is_well: bool) {
        self.last_look_failed = !is_well;
        self.is_under_way = false;
        // The age counts from the end: a look that takes long would never be recent.
        self.last = (!self.is_outdated).then(Instant::now);
    }

    /// Something happened: what was seen does not count any more.
    pub(super) const fn forget(&mut self) {
        (self.last, self.is_outdated) = (None, true);
    }

    /// Whether the last look still counts, and no other is under way.
    pub(super) const fn is_current(&self) -> bool {
        !self.is_under_way && self.last.is_some()
    }

    /// Whether the last look that counts ended at least `age` ago.
    pub(super) fn is_older_than(&self, age: Duration) -> bool {
        match self.last {
            Some(last) => last.elapsed() >= age,
            None => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_seen_before_something_happened_does_not_count() {
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
}
