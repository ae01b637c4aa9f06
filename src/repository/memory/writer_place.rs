//! The place of the memory store's only writer. The writer's session takes it, and the incoming
//! backup keeps it.

use super::MemoryRepository;
use crate::error::{Error, Kind, Result};
use crate::repository::Repository;

/// The writer's place, taken. Dropping it gives it back.
pub(super) struct WriterPlace<'a> {
    pub(super) repository: &'a MemoryRepository,
}

impl<'a> WriterPlace<'a> {
    /// Takes the place.
    ///
    /// # Errors
    /// `Locked` if another run has it.
    pub(super) fn take(repository: &'a MemoryRepository) -> Result<Self> {
        let mut store = repository.reach()?;
        if store.has_writer {
            return Err(
                Error::new(Kind::Locked, "another run writes to this repository")
                    .on(repository.place())
                    .because(format!("process {}", std::process::id())),
            );
        }

        store.has_writer = true;
        Ok(Self { repository })
    }
}

impl Drop for WriterPlace<'_> {
    fn drop(&mut self) {
        self.repository.locked().has_writer = false;
    }
}
