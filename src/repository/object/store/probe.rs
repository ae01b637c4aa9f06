//! Finds out whether a store honours preconditions. A store that ignores them is dangerous: it lets
//! two writers commit the same backup, and says nothing.

use bytes::Bytes;
use object_store::Attributes;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::failure::Task;
use super::{Created, Replaced, Store};
use crate::error::{Error, Kind, Result};

/// What a store honours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::repository) struct Preconditions {
    /// An object that is there is not created again (`If-None-Match: *`).
    pub(in crate::repository) create: bool,
    /// An object that has changed is not replaced (`If-Match`).
    pub(in crate::repository) update: bool,
}

/// Writes an object of its own several times, and deletes it.
///
/// # Errors
/// As for [`Store::create`] and [`Store::get`].
pub(in crate::repository) fn probe(store: &Store) -> Result<Preconditions> {
    let key = format!("probe/{}", Uuid::new_v4());
    let found = honoured(store, &key);

    let deleted = store.delete(&key);
    let found = found?;
    deleted?;
    Ok(found)
}

fn honoured(store: &Store, key: &str) -> Result<Preconditions> {
    let create = create_is_honoured(store, key)?;

    store.put(key, Bytes::from_static(b"one"))?;
    let Some((_, stale)) = store.get_versioned(key, 1024)? else {
        return Err(Error::new(
            Kind::Refused,
            "the store does not show what was just written",
        )
        .on(format!("{}/{key}", store.place()))
        .hint("kbackup needs a store that is consistent after each write"));
    };
    store.put(key, Bytes::from_static(b"two"))?;

    // A directory compares only within this process.
    let update = store.inner.backend.compares_versions()
        && match store.try_replace(key, Bytes::from_static(b"three"), &stale) {
            Ok(replaced) => replaced == Replaced::Changed,
            Err(failure) if failure.says_not_supported() => false,
            Err(failure) => return Err(store.error(failure, Task::Write, key)),
        };
    Ok(Preconditions { create, update })
}

fn create_is_honoured(store: &Store, key: &str) -> Result<bool> {
    for text in ["first", "second"] {
        match store.try_create(key, Bytes::from_static(text.as_bytes()), Attributes::new()) {
            Ok(Created::New) => {}
            Ok(Created::Exists) => return Ok(true),
            Err(failure) if failure.says_not_supported() => return Ok(false),
            Err(failure) => return Err(store.error(failure, Task::Write, key)),
        }
    }
    Ok(false)
}
