//! How long a caller waits for the node.

use std::time::Duration;

use crate::error::Result;
use crate::run::Run;

/// How long a caller waits for one answer, and what ends the wait early.
#[derive(Clone, Copy)]
pub struct Patience<'a> {
    run: Option<&'a Run>,
    total: Option<Duration>,
}

impl<'a> Patience<'a> {
    /// Waits as long as the connection's limits say, but not beyond an interruption of `run`.
    #[must_use]
    pub const fn of(run: &'a Run) -> Self {
        Self {
            run: Some(run),
            total: None,
        }
    }

    /// Waits for at most `total`, even if the run was interrupted. Giving back uses this.
    #[must_use]
    pub const fn regardless(total: Duration) -> Self {
        Self {
            run: None,
            total: Some(total),
        }
    }

    /// Waits for at most `total`, for all attempts together.
    #[must_use]
    pub const fn within(self, total: Duration) -> Self {
        Self {
            total: Some(total),
            ..self
        }
    }

    /// The run whose interruption ends the wait.
    pub(super) const fn run(&self) -> Option<&'a Run> {
        self.run
    }

    /// The limit for all attempts together; `None` if the connection's limits apply.
    pub(super) const fn total(&self) -> Option<Duration> {
        self.total
    }

    /// Fails once the run was asked to end.
    pub(super) fn check(&self) -> Result<()> {
        match self.run {
            Some(run) => run.check(),
            None => Ok(()),
        }
    }

    /// Sleeps, but not beyond an interruption of the run.
    pub(super) fn pause(&self, duration: Duration) -> Result<()> {
        match self.run {
            Some(run) => run.pause(duration),
            None => {
                std::thread::sleep(duration);
                Ok(())
            }
        }
    }
}
