//! The retry loop: the source is alive, and what one attempt could not get whole, the next one can.

use std::time::Duration;

use crate::error::{Kind, Result};
use crate::event::Event;
use crate::run::Run;

/// What looks corrupt may have been caught in the middle of a change; that often it is read again
/// before anyone is told.
const CORRUPT_READINGS: u32 = 3;
/// The pause grows with each attempt up to this.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// Runs `attempt` until it succeeds, at most `of` times. Only what another attempt can mend is
/// tried again; each reason is told.
///
/// # Errors
/// Those of the last attempt.
pub(super) fn repeat<T>(
    of: u32,
    run: &Run,
    mut attempt: impl FnMut(u32) -> Result<T>,
) -> Result<T> {
    let (mut number, mut corrupt) = (1, 0);
    loop {
        run.check()?;
        let error = match attempt(number) {
            Ok(value) => return Ok(value),
            Err(error) => error,
        };
        let again = match error.kind() {
            Kind::Unstable | Kind::Transient => true,
            // Only these readings count: a busy node must not use up those of a chunk that was
            // caught in mid-change.
            Kind::SourceCorrupt => {
                corrupt += 1;
                corrupt < CORRUPT_READINGS
            }
            _ => false,
        };
        if !again || number >= of {
            return Err(error);
        }
        run.emit(Event::Retry {
            attempt: number,
            of,
            reason: error.in_words(),
        });
        run.pause(
            Duration::from_millis(20)
                .saturating_mul(1 << number.min(8))
                .min(LONGEST_PAUSE),
        )?;
        number += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;
    use crate::event::Silent;

    fn failing(kind: Kind, of: u32) -> (u32, Kind) {
        let mut attempts = 0;
        let result: Result<()> = repeat(of, &Run::new(Silent), |number| {
            attempts = number;
            Err(Error::new(kind, "changed"))
        });
        (attempts, result.unwrap_err().kind())
    }

    #[test]
    fn a_changing_source_is_tried_as_often_as_allowed() {
        assert_eq!(failing(Kind::Unstable, 4), (4, Kind::Unstable));
    }

    #[test]
    fn a_corrupt_source_is_read_three_times() {
        assert_eq!(failing(Kind::SourceCorrupt, 10), (3, Kind::SourceCorrupt));
        assert_eq!(failing(Kind::SourceCorrupt, 1), (1, Kind::SourceCorrupt));
    }

    #[test]
    fn a_corrupt_reading_is_repeated_however_often_the_source_changed_before() {
        let mut attempts = 0;
        let result: Result<()> = repeat(10, &Run::new(Silent), |number| {
            attempts = number;
            Err(Error::new(
                if number <= 4 {
                    Kind::Unstable
                } else {
                    Kind::SourceCorrupt
                },
                "changed",
            ))
        });
        assert_eq!(
            (attempts, result.unwrap_err().kind()),
            (7, Kind::SourceCorrupt)
        );
    }

    #[test]
    fn nothing_else_is_tried_twice() {
        for kind in [
            Kind::Failed,
            Kind::StoredCorrupt,
            Kind::Refused,
            Kind::Denied,
            Kind::Locked,
        ] {
            assert_eq!(failing(kind, 10), (1, kind));
        }
    }

    #[test]
    fn the_next_attempt_may_succeed() {
        let run = Run::new(Silent);
        let result = repeat(5, &run, |number| {
            if number < 3 {
                Err(Error::new(Kind::Unstable, "changed"))
            } else {
                Ok(number)
            }
        });
        assert_eq!(result.unwrap(), 3);
    }

    #[test]
    fn an_interrupted_run_does_not_try_again() {
        let run = Run::new(Silent);
        let result: Result<()> = repeat(5, &run, |_| {
            run.interrupt(crate::error::Signal::Terminate);
            Err(Error::new(Kind::Unstable, "changed"))
        });
        assert_eq!(result.unwrap_err().kind().exit_code(), 143);
    }
}
