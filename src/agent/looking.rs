//! When node and repository are looked at: now and then, and before anything is decided by what was
//! seen.

use std::time::{Duration, Instant};

/// Node and repository are looked at so often.
const LOOK: Duration = Duration::from_secs(30);
/// While one of them is missing: what waits for it is to go on soon.
const LOOK_OUT: Duration = Duration::from_secs(5);

/// The looks, one at a time.
#[derive(Debug, Default)]
pub(super) struct Looking {
    /// One is under way.
    is_under_way: bool,
    /// When the last one that counts ended.
    last: Option<Instant>,
    /// What the one under way sees is past when it ends.
    is_stale: bool,
    /// Something was missing.
    is_anxious: bool,
}

impl Looking {
    /// Whether one is due, which then is under way.
    pub(super) fn begins(&mut self) -> bool {
        let is_due =
            !self.is_under_way && self.is_older_than(if self.is_anxious { LOOK_OUT } else { LOOK });
        if is_due {
            (self.is_under_way, self.is_stale) = (true, false);
        }
        is_due
    }

    /// The one under way has ended, and everything was there or not.
    pub(super) fn ended(&mut self, is_well: bool) {
        self.is_anxious = !is_well;
        // From its end on: one that takes long would never be recent.
        self.is_under_way = false;
        self.last = (!self.is_stale).then(Instant::now);
    }

    /// What was seen is past.
    pub(super) const fn forget(&mut self) {
        (self.last, self.is_stale) = (None, true);
    }

    /// Whether what is there was seen, and nobody looks just now.
    pub(super) const fn is_current(&self) -> bool {
        !self.is_under_way && self.last.is_some()
    }

    /// Whether what was seen may be longer past.
    pub(super) fn is_older_than(&self, age: Duration) -> bool {
        self.last.is_none_or(|last| last.elapsed() >= age)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_seen_before_something_happened_does_not_count() {
        let mut looking = Looking::default();
        assert!(!looking.is_current() && looking.begins() && !looking.begins());
        looking.ended(true);
        assert!(looking.is_current() && !looking.begins());
        looking.forget();
        assert!(!looking.is_current() && looking.begins());
        looking.forget();
        looking.ended(true);
        assert!(!looking.is_current() && looking.begins());
        looking.ended(true);
        assert!(looking.is_current());
    }
}
