//! The session of a directory's only writer. It holds the lock, and has cleaned up after runs that
//! were killed. A backup in the making ([`super::incoming`]) gets its lock and its leftovers.

use super::incoming::DirectoryIncoming;
use super::leftovers::Leftovers;
use super::{DirectoryRepository, Lock, removal, replacement};
use crate::error::Result;
use crate::fs;
use crate::manifest::{Label, Manifest, Row};
use crate::repository::{Incoming, Removal, Writer};
use crate::run::Run;

/// The writer's place of a directory repository.
pub(super) struct DirectoryWriter<'a> {
    repository: &'a DirectoryRepository,
    run: &'a Run,
    leftovers: Leftovers,
    lock: Lock,
}

impl<'a> DirectoryWriter<'a> {
    /// Takes the place, and removes what no run can use any more.
    ///
    /// # Errors
    /// `Locked` if another run writes.
    pub(super) fn take(repository: &'a DirectoryRepository, run: &'a Run) -> Result<Self> {
        let layout = &repository.layout;
        layout.make_directories()?;
        let lock = Lock::take(&layout.lock())?;

        for name in repository.foreign_names()? {
            run.note(format!(
                "`{name}` in `{}` is not a backup; kbackup leaves it alone",
                layout.backups().display()
            ));
        }

        if let Err(error) = fs::remove_stale_staging(&layout.state()) {
            run.note(format!(
                "{error}: what a killed run left there stays until the next run"
            ));
        }
        removal::sweep(repository, run)?;
        let leftovers = Leftovers::sort_out(&layout.incoming(), run)?;

        Ok(Self {
            repository,
            run,
            leftovers,
            lock,
        })
    }
}

impl<'a> Writer<'a> for DirectoryWriter<'a> {
    fn begin(self: Box<Self>, parent: Option<&'a Manifest>) -> Result<Box<dyn Incoming + 'a>> {
        let Self {
            repository,
            run,
            leftovers,
            lock,
        } = *self;

        if !leftovers.is_empty() {
            run.note("an earlier run was interrupted: this one resumes what it can prove of it");
        }
        let incoming = DirectoryIncoming::new(repository, parent, run, leftovers, lock)?;
        Ok(Box::new(incoming))
    }

    fn replace(&self, label: &Label, row: &Row, good: (&Label, &Row)) -> Result<()> {
        replacement::replace(self.repository, (label, row), good, self.run)
    }

    fn separate(&self, label: &Label, row: &Row) -> Result<()> {
        replacement::separate(self.repository, (label, row), self.run)
    }

    fn remove(&self, label: &Label) -> Result<Removal> {
        removal::remove(self.repository, label, self.run)
    }
}
