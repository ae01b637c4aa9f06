//! The place of the repository's only writer. It is for politeness: two writers would waste their
//! time, but only one of them can make the head with the next number.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use uuid::Uuid;

use super::holder::Holder;
use super::layout::LEASE;
use super::store::{Created, Replaced, Store, Version};
use crate::clock::{self, Timestamp};
use crate::error::{Error, Kind, Result};

/// How long a writer holds the place without a sign of life.
const LENGTH: Duration = Duration::from_secs(5 * 60);
/// How often a writer gives a sign of life.
const RENEWAL: Duration = Duration::from_secs(60);
const MAX_BYTES: u64 = 64 * 1024;

/// The place, taken. Dropping it gives it back.
pub(super) struct Lease<'a> {
    store: &'a Store,
    own: Mutex<Own>,
}

struct Own {
    holder: Holder,
    /// No other run was seen in this place.
    is_held: bool,
    renewed: Instant,
    /// The same by the clock on the wall. The other one may stand still while the machine sleeps.
    renewed_at: Timestamp,
}

impl Own {
    fn new(holder: Holder) -> Self {
        Self {
            holder,
            is_held: true,
            renewed: Instant::now(),
            renewed_at: clock::now(),
        }
    }

    fn is_fresh(&self) -> bool {
        let by_wall = clock::between(self.renewed_at, clock::now());
        self.renewed.elapsed().max(by_wall) < RENEWAL
    }
}

impl<'a> Lease<'a> {
    /// Takes the place.
    ///
    /// # Errors
    /// `Locked` if another run has it.
    pub(super) fn take(store: &'a Store) -> Result<Self> {
        let holder = Holder::this_run(LENGTH);
        let text = text_of(&holder)?;

        let is_taken = match store.get_versioned(LEASE, MAX_BYTES)? {
            // An answer may have been lost, so the object can be this run's own.
            None => {
                store.create(LEASE, text.into())? == Created::New
                    || own_version(store, &holder)?.is_some()
            }
            Some((found, version)) => {
                if let Ok(other) = serde_json::from_slice::<Holder>(&found)
                    && other.holds()
                {
                    return Err(locked(store).because(other.in_words()).hint(format!(
                        "wait until it has ended; if its machine is gone, its place is free at {}",
                        other.until
                    )));
                }
                replace(store, text, &version)?
            }
        };
        if !is_taken {
            return Err(locked(store).because("it began at the same moment"));
        }

        Ok(Self {
            store,
            own: Mutex::new(Own::new(holder)),
        })
    }

    /// Tells this run from all others.
    pub(super) fn id(&self) -> Uuid {
        self.own().holder.id
    }

    /// Whether a run has the place now.
    pub(super) fn is_taken(store: &Store) -> Result<bool> {
        let found = store.get(LEASE, MAX_BYTES)?;
        let holder = found.and_then(|text| serde_json::from_slice::<Holder>(&text).ok());
        Ok(holder.is_some_and(|holder| holder.holds()))
    }

    /// Gives a sign of life, if it is time. If another run has taken the place meanwhile, the heads
    /// decide which of them commits.
    pub(super) fn renew(&self) -> Result<()> {
        self.is_renewed().map(|_| ())
    }

    /// Gives a sign of life, if it is time, and checks that this run still has the place.
    ///
    /// # Errors
    /// `Locked` if it has lost the place.
    pub(super) fn confirm(&self) -> Result<()> {
        if self.is_renewed()? {
            return Ok(());
        }
        Err(locked(self.store).because(
            "this run gave no sign of life for some minutes and lost its \
                                        place",
        ))
    }

    /// Whether this run still has the place.
    fn is_renewed(&self) -> Result<bool> {
        let mut own = self.own();
        if own.is_fresh() || !own.is_held {
            return Ok(own.is_held);
        }

        let (renewed, renewed_at) = (Instant::now(), clock::now());
        own.holder = own.holder.renewed(LENGTH);
        own.is_held = match own_version(self.store, &own.holder)? {
            Some(version) => replace(self.store, text_of(&own.holder)?, &version)?,
            None => false,
        };
        own.renewed = renewed;
        own.renewed_at = renewed_at;
        Ok(own.is_held)
    }

    fn own(&self) -> MutexGuard<'_, Own> {
        self.own.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Lease<'_> {
    /// If the store is out of reach, the place is free after a while.
    fn drop(&mut self) {
        let own = self.own();
        if let Ok(Some(_)) = own_version(self.store, &own.holder) {
            let _ = self.store.delete(LEASE);
        }
    }
}

/// The version of the object, if it is this run's.
fn own_version(store: &Store, own: &Holder) -> Result<Option<Version>> {
    let Some((found, version)) = store.get_versioned(LEASE, MAX_BYTES)? else {
        return Ok(None);
    };
    let is_own = serde_json::from_slice::<Holder>(&found).is_ok_and(|found| found.id == own.id);
    Ok(is_own.then_some(version))
}

fn replace(store: &Store, text: Vec<u8>, version: &Version) -> Result<bool> {
    Ok(store.replace(LEASE, text.into(), version)? == Replaced::Done)
}

fn text_of(holder: &Holder) -> Result<Vec<u8>> {
    serde_json::to_vec(holder)
        .map_err(|error| Error::new(Kind::Failed, "cannot write the lease").because(error))
}

fn locked(store: &Store) -> Error {
    Error::new(Kind::Locked, "another run writes to this repository").on(store.place())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Lets a lease look as if its last sign of life were long ago.
    fn age(lease: &Lease<'_>) {
        lease.own().renewed_at = Timestamp::UNIX_EPOCH;
    }

    #[test]
    fn a_run_that_lost_its_place_does_not_confirm_it_again() {
        let store = Store::in_memory();
        let lease = Lease::take(&store).unwrap();
        age(&lease);
        lease.confirm().unwrap();

        // Its time was over, and another run has taken the place and left it.
        store.delete(LEASE).unwrap();
        lease.confirm().unwrap();
        age(&lease);
        assert_eq!(lease.confirm().unwrap_err().kind(), Kind::Locked);

        // Its place stays lost, also if nobody has it. A backup goes on: its head decides.
        assert_eq!(lease.confirm().unwrap_err().kind(), Kind::Locked);
        lease.renew().unwrap();
    }

    #[test]
    fn the_place_of_another_run_is_left_alone() {
        let store = Store::in_memory();
        let lost = Lease::take(&store).unwrap();
        store.delete(LEASE).unwrap();
        let other = Lease::take(&store).unwrap();

        age(&lost);
        assert_eq!(lost.confirm().unwrap_err().kind(), Kind::Locked);
        drop(lost);
        age(&other);
        other.confirm().unwrap();
    }
}
