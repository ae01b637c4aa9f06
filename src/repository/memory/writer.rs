//! The session of the memory store's only writer.

use super::incoming::MemoryIncoming;
use super::writer_place::WriterPlace;
use super::{MemoryRepository, not_as_stored};
use crate::error::Result;
use crate::manifest::{Label, Manifest, Row};
use crate::repository::{Incoming, Removal, Writer, condition};
use crate::run::Run;
use crate::transfer::hash_file;

/// The writer's place, taken.
pub(super) struct MemoryWriter<'a> {
    run: &'a Run,
    place: WriterPlace<'a>,
}

impl<'a> MemoryWriter<'a> {
    pub(super) fn take(repository: &'a MemoryRepository, run: &'a Run) -> Result<Self> {
        Ok(Self {
            run,
            place: WriterPlace::take(repository)?,
        })
    }
}

impl<'a> Writer<'a> for MemoryWriter<'a> {
    fn begin(self: Box<Self>, parent: Option<&'a Manifest>) -> Result<Box<dyn Incoming + 'a>> {
        let Self { run, place } = *self;
        Ok(Box::new(MemoryIncoming::new(place, parent, run)?))
    }

    /// Lets the backup's head name the good blob.
    fn replace(&self, label: &Label, row: &Row, (from, held): (&Label, &Row)) -> Result<()> {
        let repository = self.place.repository;
        let mut store = repository.reach()?;
        let place = repository.place_of(from, &held.path);
        let Some(good) = store.committed(from)?.files.get(&held.path).copied() else {
            return Err(not_as_stored(place, "it is gone"));
        };
        let Some(blob) = store.blob(&good) else {
            return Err(not_as_stored(place, "it is gone"));
        };
        if hash_file(&blob, false, self.run)?.blake3 != row.blake3 {
            return Err(not_as_stored(place, "the BLAKE3 differs"));
        }

        store.committed(label)?;
        for committed in store.heads.values_mut() {
            if committed.label == *label {
                committed.files.insert(row.path.clone(), good);
            }
        }
        Ok(())
    }

    /// A blob has one name, and nobody can write to it.
    fn separate(&self, _: &Label, _: &Row) -> Result<()> {
        Ok(())
    }

    fn remove(&self, label: &Label) -> Result<Removal> {
        let repository = self.place.repository;
        let mut store = repository.reach()?;
        store.committed(label)?;
        if store.readers.contains_key(label) {
            return Ok(Removal::InUse);
        }
        if store.retained.contains(label) {
            return Ok(Removal::Later);
        }

        store.heads.retain(|_, committed| committed.label != *label);
        store.values.remove(&condition::key(label));
        self.run.note(format!("{label} is removed"));
        Ok(Removal::Freed(store.collect_garbage()))
    }
}
