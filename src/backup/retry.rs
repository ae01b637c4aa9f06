//! The retry loop. The source is alive: what one attempt could not capture whole, the next one can.

use std::time::Duration;

use crate::error::{Kind, Result};
use crate::event::Event;
use crate::run::Run;

/// How often kbackup reads a source that looks corrupt before it says so: it may have read it in
/// the middle of a change.
const CORRUPT_READINGS: u32 = 3;
const FIRST_PAUSE: Duration = Duration::from_millis(20);
/// The pause doubles with each attempt, up to this.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// Runs `attempt` until it succeeds, at most `allowed` times, and hands it its number, from 1 on.
/// Retries only errors that another attempt may avoid, and reports the reason of each retry.
///
/// # Errors
/// The error of the last attempt.
pub(super) fn retry<T>(
    allowed: u32,
    run: &Run,
    mut attempt: impl FnMut(u32) -> Result<T>,
) -> Result<T> {
    let mut number = 1;
    let mut corrupt_readings = 0;

    loop {
        run.check()?;
        let error = match attempt(number) {
            Ok(value) => return Ok(value),
            Err(error) => error,
        };

        let is_worth_another = match error.kind() {
            Kind::Unstable | Kind::Transient => true,
            // Only these readings count: a busy node must not use up the readings of a chunk that
            // was caught in the middle of a change.
            Kind::SourceCorrupt => {
                corrupt_readings += 1;
                corrupt_readings < CORRUPT_READINGS
            }
            _ => false,
        };
        if !is_worth_another || number >= allowed {
            return Err(error);
        }

        run.emit(Event::Retry {
            attempt: number,
            of: allowed,
            reason: error.in_words(),
        });
        run.pause(pause_after(number))?;
        number += 1;
    }
}

fn pause_after(attempt: u32) -> Duration {
    let pause = FIRST_PAUSE.saturating_mul(1 << attempt.min(8));
    pause.min(LONGEST_PAUSE)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;
    use crate::event::Silent;

    fn failing(kind: Kind, of: u32) -> (u32, Kind) {
        let mut attempts = 0;
        let result: Result<()> = retry(of, &Run::new(Silent), |number| {
            attempts = number;
            Err(Error::new(kind, "changed"))
        });
        (attempts, result.unwrap_err().kind())
    }

    #[test]
    fn a_changing_source_is_retried_as_often_as_allowed() {
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
        let result: Result<()> = retry(10, &Run::new(Silent), |number| {
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
    fn nothing_else_is_retried() {
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
        let result = retry(5, &run, |number| {
            if number < 3 {
                Err(Error::new(Kind::Unstable, "changed"))
            } else {
                Ok(number)
            }
        });
        assert_eq!(result.unwrap(), 3);
    }

    #[test]
    fn an_interrupted_run_does_not_retry() {
        let run = Run::new(Silent);
        let result: Result<()> = retry(5, &run, |_| {
            run.interrupt(crate::error::Signal::Terminate);
            Err(Error::new(Kind::Unstable, "changed"))
        });
        assert_eq!(result.unwrap_err().kind().exit_code(), 143);
    }
}
