//! The threads that talk to the store.

use tokio::runtime::{Handle, Runtime};

use crate::error::{Error, Kind, Result};

/// A runtime that is dropped without waiting for its tasks. Otherwise a name server that does not
/// answer would delay the end of the process.
pub(super) struct BackgroundRuntime {
    pub(super) handle: Handle,
    runtime: Option<Runtime>,
}

impl BackgroundRuntime {
    pub(super) fn new() -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("object-store")
            .enable_all()
            .build()
            .map_err(|error| {
                Error::new(Kind::Failed, "cannot prepare the network").because(error)
            })?;

        Ok(Self {
            handle: runtime.handle().clone(),
            runtime: Some(runtime),
        })
    }
}

impl Drop for BackgroundRuntime {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}
