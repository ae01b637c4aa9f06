//! The session of the repository's only writer.

use std::time::Duration;

use super::ObjectRepository;
use super::heads::{HeadObject, Removed};
use super::incoming::{ObjectIncoming, not_as_stored};
use super::layout;
use super::lease::Lease;
use super::pruning::Unneeded;
use super::readers;
use super::stored::{StoredFiles, place_of};
use crate::clock;
use crate::error::Result;
use crate::manifest::{Label, Manifest, Row};
use crate::repository::{Incoming, Pruned, Removal, Repository, Writer, condition};
use crate::run::Run;
use crate::transfer::hash_file;

/// How many seconds the clocks of the store and of this machine may differ.
const MOST_SECONDS: u64 = 120;

/// The writer's place, taken.
pub(super) struct ObjectWriter<'a> {
    repository: &'a ObjectRepository,
    run: &'a Run,
    lease: Lease<'a>,
}

impl<'a> ObjectWriter<'a> {
    pub(super) fn take(repository: &'a ObjectRepository, run: &'a Run) -> Result<Self> {
        let store = &repository.objects.store;
        let lease = Lease::take(store)?;

        if !repository.honours_create() {
            run.warn(
                "this object store writes over an object although it was asked not to: let only \
                 one machine write to this repository",
            );
        }
        // A lease and the times of objects mean nothing if the clocks disagree.
        if let Some(seconds) = store.clock_difference()
            && seconds.unsigned_abs() > MOST_SECONDS
        {
            run.warn(format!(
                "the clock of the object store is {seconds} seconds ahead of this machine's"
            ));
        }
        Ok(Self {
            repository,
            run,
            lease,
        })
    }
}

impl<'a> Writer<'a> for ObjectWriter<'a> {
    fn begin(self: Box<Self>, parent: Option<&'a Manifest>) -> Result<Box<dyn Incoming + 'a>> {
        let Self {
            repository,
            run,
            lease,
        } = *self;
        Ok(Box::new(ObjectIncoming::new(
            repository, lease, parent, run,
        )?))
    }

    /// Stores the damaged blobs of the file again. Equal bytes are one blob, so a good copy has
    /// other blobs only if its parts are cut differently.
    fn replace(&self, label: &Label, row: &Row, (from, held): (&Label, &Row)) -> Result<()> {
        self.lease.renew()?;
        let objects = &self.repository.objects;
        let good = self.repository.open(from, held)?;
        let digest = hash_file(&*good, false, self.run)?;
        let (_, backup) = self.repository.listed_now(from)?;
        if digest.blake3 != row.blake3 {
            return Err(not_as_stored(
                place_of(objects, &backup, &held.path),
                "the BLAKE3 differs",
            ));
        }

        let (_, backup) = self.repository.listed_now(label)?;
        let files = StoredFiles::new(objects, backup);
        let Some(found) = files.row(&row.path)? else {
            return Err(not_as_stored(
                place_of(objects, &files.backup, &row.path),
                "its backup does not name it",
            ));
        };
        for cell in found.cells(objects)?.iter() {
            if objects.check_stored(cell).is_ok() {
                continue;
            }
            let mut plain = vec![0; usize::try_from(cell.length).unwrap_or_default()];
            good.read_exact_at(cell.offset, &mut plain)
                .map_err(super::file::error_of)?;
            objects.mend(cell, &plain)?;
        }
        Ok(())
    }

    /// A blob has one name, and nobody can write to it.
    fn separate(&self, _: &Label, _: &Row) -> Result<()> {
        Ok(())
    }

    fn remove(&self, label: &Label) -> Result<Removal> {
        self.lease.renew()?;
        let (sequence, _) = self.repository.listed_now(label)?;
        let store = &self.repository.objects.store;
        if readers::is_read(store, sequence)? {
            return Ok(Removal::InUse);
        }

        let removed = HeadObject::Removed(Removed {
            label: label.clone(),
            at: clock::now(),
        });
        let bytes = removed.to_bytes()?;
        let heads = self.repository.read_heads()?;
        store.put(&layout::head(sequence), bytes.clone().into())?;

        self.repository
            .note_written(heads, sequence, &bytes, removed, self.run);
        if let Err(error) = self.repository.set_state(&condition::key(label), None) {
            self.run
                .note(format!("the result of its verification stays: {error}"));
        }
        self.run.note(format!("{label} is removed"));
        Ok(Removal::LeftToPrune)
    }

    fn prune(&self, grace: Duration) -> Result<Pruned> {
        let unneeded = Unneeded::find(self.repository)?;
        unneeded.prune(&self.lease, self.run, grace)
    }
}
