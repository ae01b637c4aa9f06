//! Asks a node the same question until it gives the wanted answer.

use std::time::{Duration, Instant};

use crate::error::{Error, Result};
use crate::node::Patience;

const SHORTEST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE_AFTER_REFUSAL: Duration = Duration::from_secs(5);

/// Decides how long and how often a question is asked. The caller's loop asks the question and
/// makes the error:
///
/// ```text
/// let mut poll = Poll::new(limit, patience);
/// while !is_wanted(ask(poll.patience())?) {
///     poll.again(|| what_to_say())?;
/// }
/// ```
///
/// Pauses get longer and longer. The last question is asked when the time is over.
pub(super) struct Poll<'a> {
    patience: Patience<'a>,
    is_regardless: bool,
    end: Instant,
    pause: Duration,
    longest_pause: Duration,
}

impl<'a> Poll<'a> {
    /// Asks for `limit`. An interruption of the run ends a pause.
    pub(super) fn new(limit: Duration, patience: Patience<'a>) -> Self {
        Self {
            patience,
            is_regardless: false,
            end: Instant::now() + limit,
            pause: SHORTEST_PAUSE,
            longest_pause: LONGEST_PAUSE,
        }
    }

    /// Asks for `limit`, answers included, even if the run was interrupted: for giving back.
    pub(super) fn regardless(limit: Duration) -> Self {
        Self {
            is_regardless: true,
            ..Self::new(limit, Patience::regardless(limit))
        }
    }

    /// The same poll with pauses that stay short, for something that ends in a moment.
    pub(super) fn steady(self) -> Self {
        Self {
            longest_pause: SHORTEST_PAUSE,
            ..self
        }
    }

    /// The same poll with pauses that grow much longer, for requests that may be refused.
    pub(super) fn less_and_less(self) -> Self {
        Self {
            longest_pause: LONGEST_PAUSE_AFTER_REFUSAL,
            ..self
        }
    }

    /// How long to wait for the answer to the next question.
    pub(super) fn patience(&self) -> Patience<'a> {
        if self.is_regardless {
            Patience::regardless(self.left().max(SHORTEST_PAUSE))
        } else {
            self.patience
        }
    }

    pub(super) fn is_over(&self) -> bool {
        self.left().is_zero()
    }

    /// Pauses before the next question. Returns false, without a pause, if the time is over.
    pub(super) fn pause(&mut self) -> Result<bool> {
        let left = self.left();
        if left.is_zero() {
            return Ok(false);
        }

        self.patience.pause(self.pause.min(left))?;
        self.pause = (self.pause * 2).min(self.longest_pause);
        Ok(true)
    }

    /// Pauses before the next question, or gives up with `problem` if the time is over.
    pub(super) fn again(&mut self, problem: impl FnOnce() -> Error) -> Result<()> {
        if self.pause()? {
            Ok(())
        } else {
            Err(problem())
        }
    }

    /// Makes the next pauses short again, because the caller has just changed something at the
    /// node.
    pub(super) fn expect_change(&mut self) {
        self.pause = SHORTEST_PAUSE;
    }

    fn left(&self) -> Duration {
        self.end.saturating_duration_since(Instant::now())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;

    fn problem() -> Error {
        Error::new(Kind::Unstable, "not in time")
    }

    #[test]
    fn the_last_question_is_asked_when_the_time_is_over() {
        let limit = Duration::from_millis(150);
        let started = Instant::now();
        let mut poll = Poll::regardless(limit);
        while poll.pause().unwrap() {}
        assert!(started.elapsed() >= limit);
        assert!(poll.is_over());
        assert_eq!(poll.again(problem).unwrap_err().kind(), Kind::Unstable);
    }

    #[test]
    fn without_any_time_one_question_is_asked() {
        let mut poll = Poll::regardless(Duration::ZERO);
        assert!(poll.again(problem).is_err());
    }

    #[test]
    fn an_answer_is_awaited_even_if_the_time_is_over() {
        let poll = Poll::regardless(Duration::ZERO);
        assert_eq!(poll.left(), Duration::ZERO);
        // Otherwise nothing could be given back after a slow node used up the time.
        assert!(poll.patience().total() >= Some(SHORTEST_PAUSE));
    }
}
