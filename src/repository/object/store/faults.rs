//! Deletions that fail, for tests.

use std::sync::{Mutex, PoisonError};

use crate::error::{Error, Kind, Result};

/// Makes deletions fail.
#[derive(Debug, Default)]
pub(super) struct DeletionFaults(Mutex<Option<Fault>>);

#[derive(Debug)]
struct Fault {
    kind: Kind,
    /// How many deletions go well before.
    after: usize,
    prefix: &'static str,
}

impl DeletionFaults {
    /// Lets every deletion below `prefix` fail, after so many that go well. `None` ends that.
    pub(super) fn set(&self, kind: Option<Kind>, after: usize, prefix: &'static str) {
        let fault = kind.map(|kind| Fault {
            kind,
            after,
            prefix,
        });
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = fault;
    }

    /// Fails if it is time.
    pub(super) fn check(&self, key: &str) -> Result<()> {
        let mut fault = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(fault) = fault.as_mut() else {
            return Ok(());
        };
        if !key.starts_with(fault.prefix) {
            return Ok(());
        }
        if fault.after > 0 {
            fault.after -= 1;
            return Ok(());
        }
        Err(Error::new(fault.kind, "a fault of a test").on(key))
    }
}
