//! Pauses between attempts that a node refuses. A directory service locks an account after a few
//! refused logins, and a node that cannot take something back must not be asked every 5 seconds.
//!
//! Pure: callers pass the time.

use std::time::{Duration, Instant};

use crate::clock::patience;
use crate::schedule::doubled;

/// The pause after the first refusal.
const FIRST_PAUSE: Duration = Duration::from_secs(5);
/// No pause is longer.
const LONGEST_PAUSE: Duration = Duration::from_mins(10);

/// The refusals in a row. `C` are the circumstances of an attempt: if they change, the next attempt
/// may succeed, so it needs no pause.
#[derive(Debug, Clone)]
pub(super) struct RetryPause<C> {
    last: Option<Refusal<C>>,
}

#[derive(Debug, Clone)]
struct Refusal<C> {
    /// How many there were in a row under the same circumstances.
    count: u32,
    at: Instant,
    circumstances: C,
}

impl<C: PartialEq> RetryPause<C> {
    /// Nothing was refused.
    pub(super) const fn none() -> Self {
        Self { last: None }
    }

    /// Whether the pause still lasts. Then no attempt may be made.
    pub(super) fn lasts(&self, circumstances: &C, now: Instant) -> bool {
        let Some(last) = &self.last else {
            return false;
        };

        last.circumstances == *circumstances
            && now.saturating_duration_since(last.at) < last.pause()
    }

    /// How long the pause still lasts, if the circumstances do not change. `None` if the last
    /// attempt was not refused.
    pub(super) fn left(&self, now: Instant) -> Option<Duration> {
        let last = self.last.as_ref()?;
        let gone = now.saturating_duration_since(last.at);
        Some(last.pause().saturating_sub(gone))
    }

    /// The attempt that ended now was refused.
    pub(super) fn refused(&mut self, circumstances: C, now: Instant) {
        let before = match &self.last {
            Some(last) if last.circumstances == circumstances => last.count,
            _ => 0,
        };

        self.last = Some(Refusal {
            count: before.saturating_add(1),
            at: now,
            circumstances,
        });
    }
}

impl<C> Refusal<C> {
    fn pause(&self) -> Duration {
        patience(doubled(FIRST_PAUSE, LONGEST_PAUSE, self.count))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The seconds from the start at which looks every 5 seconds make an attempt. Each is refused.
    fn attempts(pause: &mut RetryPause<&'static str>, start: Instant, until: u64) -> Vec<u64> {
        let mut attempts = Vec::new();
        for second in (0..until).step_by(5) {
            let now = start + Duration::from_secs(second);
            if !pause.lasts(&"old password", now) {
                pause.refused("old password", now);
                attempts.push(second);
            }
        }
        attempts
    }

    #[test]
    fn the_pause_after_each_refusal_is_twice_as_long() {
        let mut pause = RetryPause::none();
        let attempts = attempts(&mut pause, Instant::now(), 3600);
        assert_eq!(
            attempts,
            [0, 5, 15, 35, 75, 155, 315, 635, 1235, 1835, 2435, 3035]
        );
    }

    #[test]
    fn other_circumstances_end_the_pause_at_once() {
        let (mut pause, start) = (RetryPause::none(), Instant::now());
        attempts(&mut pause, start, 600);
        let now = start + Duration::from_secs(600);
        assert!(pause.lasts(&"old password", now));
        assert!(!pause.lasts(&"new password", now));

        // The pauses begin anew.
        pause.refused("new password", now);
        assert!(pause.lasts(&"new password", now + Duration::from_secs(4)));
        assert_eq!(
            pause.left(now + Duration::from_secs(4)),
            Some(Duration::from_secs(1))
        );
        assert!(!pause.lasts(&"new password", now + Duration::from_secs(5)));
    }
}
