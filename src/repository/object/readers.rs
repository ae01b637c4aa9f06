//! Runs that read a backup. `expire` leaves a backup alone that somebody reads.

use std::time::Duration;

use super::holder::Holder;
use super::layout;
use super::store::Store;
use crate::error::{Error, Kind, Result};
use crate::repository::Held;

/// How long a reader counts. The blobs of a removed backup stay for a day, so a longer read is in no
/// danger before that.
const LENGTH: Duration = Duration::from_secs(24 * 60 * 60);
const MAX_BYTES: u64 = 64 * 1024;

/// A run that reads a backup. Dropping it lets the backup go.
pub(super) struct Reader {
    store: Store,
    key: String,
}

impl Reader {
    /// Says that this run reads the backup with this number. A store that takes no writes from this
    /// user has no readers that it knows of.
    pub(super) fn begin(store: &Store, sequence: u64) -> Result<Self> {
        let holder = Holder::this_run(LENGTH);
        let key = format!("{}{}", layout::readers(sequence), holder.id);
        let text = serde_json::to_vec(&holder)
            .map_err(|error| Error::new(Kind::Failed, "cannot write a reader").because(error))?;

        match store.put(&key, text.into()) {
            Ok(()) => {}
            Err(error) if error.kind() == Kind::Denied => {}
            Err(error) => return Err(error),
        }
        Ok(Self {
            store: store.clone(),
            key,
        })
    }
}

impl Held for Reader {}

impl Drop for Reader {
    fn drop(&mut self) {
        let _ = self.store.delete(&self.key);
    }
}

/// Whether a run reads the backup with this number.
pub(super) fn is_read(store: &Store, sequence: u64) -> Result<bool> {
    for info in store.list(&layout::readers(sequence))? {
        let Some(text) = store.get(&info.key, MAX_BYTES)? else {
            continue;
        };
        if serde_json::from_slice::<Holder>(&text).is_ok_and(|reader| reader.holds()) {
            return Ok(true);
        }
    }
    Ok(false)
}
