//! Marks of objects that no head names. A later run deletes them (`pruning`). A run that needs such an
//! object writes it again, so that it stays.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::layout;
use super::sealed::{self, MAX_STORED_BYTES};
use super::store::Store;
use crate::clock::Timestamp;
use crate::error::Result;

/// When objects were found to be named by nobody, by their keys.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Marks {
    pub(super) marked: BTreeMap<String, Timestamp>,
}

impl Marks {
    /// The marks that were set. Lost marks are set again, and then the time begins anew.
    pub(super) fn read(store: &Store) -> Result<Self> {
        let object = store.get(layout::MARKS, MAX_STORED_BYTES)?;
        Ok(object
            .and_then(|object| sealed::unseal(&object).ok())
            .unwrap_or_default())
    }

    /// Keeps the marks.
    pub(super) fn write(&self, store: &Store) -> Result<()> {
        store.put(layout::MARKS, sealed::seal(self)?.into())
    }

    /// Whether an object may be deleted soon. A run that needs it writes it again.
    pub(super) fn holds(&self, key: &str) -> bool {
        self.marked.contains_key(key)
    }
}
