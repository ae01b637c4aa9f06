//! Stores for tests: in memory, and with faults.

use std::sync::Arc;

use super::Store;
use super::backend::Backend;
use super::options::Limits;
use super::request_faults::StoreFaults;

impl Store {
    /// A store in the memory of this process, for tests.
    pub(in super::super) fn in_memory() -> Self {
        let backend = Backend::in_memory();
        let limits = Limits::default();
        let counter = Arc::default();
        #[expect(clippy::expect_used, reason = "only tests have a store in memory")]
        Self::new(backend, "memory:", "", limits, None, counter).expect("threads for the network")
    }

    /// The same store, with faults between it and this client.
    pub(in super::super) fn with_faults(&self, faults: StoreFaults) -> crate::error::Result<Self> {
        let inner = &self.inner;
        Self::new(
            inner.backend.with_faults(faults),
            &inner.place,
            &inner.prefix,
            inner.limits,
            inner.storage_class.clone(),
            inner.counter.clone(),
        )
    }
}
