//! The last run that deleted objects. A backup compares it at its begin and at its commit: if it is
//! another one, objects may be gone that the backup relied on, and it is not made.
//!
//! While a backup holds the lease, nobody prunes. This is for a run that lost the lease, because its
//! machine stood still or could not reach the store.

use super::layout;
use super::store::Store;
use crate::clock;
use crate::error::{Error, Kind, Result};

/// The longest value that is read: a UUID as text.
const MAX_BYTES: u64 = 1024;

/// Which run deleted objects last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Sweep(Option<Vec<u8>>);

impl Sweep {
    /// The last one.
    pub(super) fn last(store: &Store) -> Result<Self> {
        Ok(Self(store.get(layout::SWEEP, MAX_BYTES)?))
    }

    /// Says that this run begins to delete objects. It has to read all heads after that: then either
    /// it sees the head of a backup, or that backup sees the sweep.
    pub(super) fn begin(store: &Store) -> Result<()> {
        let id = clock::identifier().to_string();
        store.put(layout::SWEEP, id.into_bytes().into())
    }

    /// Whether objects were deleted since.
    ///
    /// # Errors
    /// What the store reports.
    pub(super) fn check_none_since(&self, store: &Store) -> Result<()> {
        if Self::last(store)? == *self {
            return Ok(());
        }
        Err(Error::new(
            Kind::Locked,
            "`kbackup prune` deleted objects while this run wrote, so the backup is not made",
        )
        .on(store.place())
        .because("this run lost its place as the only writer, for example in an outage")
        .hint("run it again: it resumes what was copied"))
    }
}
