//! Deletes objects that no head names, in two phases. The first one marks them. A later run deletes
//! those whose mark is old enough, that no head or journal names, and that nobody has written since.
//!
//! Four things make that safe. Only the holder of the lease prunes, and it confirms the lease before
//! each batch of deletions. It begins a `sweep` before it reads the heads for the last time, and a
//! backup that lost its lease is not committed across a sweep. All heads must be readable, and none
//! may be missing in a listing that lags behind. A run that dies leaves its marks, and the next one
//! goes on.

use std::collections::HashSet;
use std::time::Duration;

use super::ObjectRepository;
use super::heads::{BackupHead, HeadObject};
use super::journal;
use super::layout::{self, NamedObject};
use super::lease::Lease;
use super::marks::{Mark, Marks};
use super::objects::Objects;
use super::store::Store;
use super::sweep::Sweep;
use crate::clock::{self, Timestamp};
use crate::error::{Error, Kind, Result};
use crate::parallel;
use crate::repository::{Prunable, Pruned, numbers};
use crate::run::Run;

/// Objects that are deleted between two looks at the lease.
const BATCH: usize = 256;
/// Requests that delete at once.
const THREADS: usize = 8;
/// How many of the highest numbers are looked for behind the end of a listing.
const MOST_LAGGING: usize = 16;

/// An object that no head names.
struct Unnamed {
    object: NamedObject,
    size: u64,
    modified: Timestamp,
}

/// What happens to an object that no head names.
enum Fate {
    /// It is deleted now.
    Due { refused: bool },
    /// It waits. `since` is its mark, or now.
    Waits { since: Timestamp, is_marked: bool },
}

/// What a repository holds that nothing needs.
pub(super) struct Unneeded<'a> {
    repository: &'a ObjectRepository,
    needed: Needed,
    unnamed: Vec<Unnamed>,
    marks: Marks,
    /// By the store's clock, like the marks and the times of objects.
    now: Timestamp,
}

impl<'a> Unneeded<'a> {
    /// Looks for it.
    ///
    /// # Errors
    /// The error of a head that cannot be read: nobody knows what it names.
    pub(super) fn find(repository: &'a ObjectRepository) -> Result<Self> {
        let store = &repository.objects.store;
        let mut needed = Needed::default();
        needed.read(repository)?;

        let mut unnamed = Vec::new();
        for prefix in [layout::BLOBS, layout::SECTIONS] {
            store.visit(prefix, |info| {
                // What kbackup did not name stays.
                let Some(object) = layout::object_of(&info.key) else {
                    return;
                };
                if !needed.objects.contains(&object) {
                    unnamed.push(Unnamed {
                        object,
                        size: info.size,
                        modified: info.modified,
                    });
                }
            })?;
        }
        // A listing that broke off may have begun anew.
        unnamed.sort_by_key(|unnamed| unnamed.object);
        unnamed.dedup_by_key(|unnamed| unnamed.object);

        Ok(Self {
            marks: Marks::read(store)?,
            now: store.now(),
            repository,
            needed,
            unnamed,
        })
    }

    /// What can be deleted now, and what only later.
    pub(super) fn plan(&self, grace: Duration) -> Prunable {
        let mut plan = Prunable {
            removed_heads: self.needed.removed_heads.len() as u64,
            ..Prunable::default()
        };
        for unnamed in &self.unnamed {
            match self.fate(unnamed, grace) {
                Fate::Due { refused } => {
                    plan.due_objects += 1;
                    plan.due_bytes = plan.due_bytes.saturating_add(unnamed.size);
                    if refused {
                        plan.refused_objects += 1;
                        plan.refused_bytes = plan.refused_bytes.saturating_add(unnamed.size);
                    }
                }
                Fate::Waits { since, is_marked } => {
                    plan.waiting_objects += 1;
                    plan.waiting_bytes = plan.waiting_bytes.saturating_add(unnamed.size);
                    plan.unmarked_objects += u64::from(!is_marked);
                    let due = since.checked_add(grace).unwrap_or(since);
                    plan.next = Some(plan.next.map_or(due, |next| next.min(due)));
                }
            }
        }
        plan
    }

    fn fate(&self, unnamed: &Unnamed, grace: Duration) -> Fate {
        let new = Fate::Waits {
            since: self.now,
            is_marked: false,
        };
        let Some(mark) = self.marks.of(unnamed.object) else {
            return new;
        };

        // An object that was written since its mark belongs to another run. A mark of the future
        // was set while a clock was wrong. Marks have whole seconds, as the times of most stores.
        let was_written_since = unnamed.modified.as_second() > mark.since.as_second();
        if was_written_since || mark.since > self.now {
            return new;
        }
        if clock::between(mark.since, self.now) < grace {
            return Fate::Waits {
                since: mark.since,
                is_marked: true,
            };
        }
        Fate::Due {
            refused: mark.refused,
        }
    }

    /// Deletes what is due, and marks the rest. An object that cannot be deleted, such as a locked
    /// one, stays marked.
    ///
    /// # Errors
    /// `Locked` if another run has taken the place of the writer. After an error, the next run goes
    /// on.
    pub(super) fn prune(mut self, lease: &Lease<'_>, run: &Run, grace: Duration) -> Result<Pruned> {
        let store = &self.repository.objects.store.for_run(run);
        let mut marks = Marks::default();
        let mut due = Vec::new();
        for unnamed in std::mem::take(&mut self.unnamed) {
            match self.fate(&unnamed, grace) {
                Fate::Due { .. } => due.push(unnamed),
                Fate::Waits { since, .. } => {
                    let refused = false;
                    marks.set(unnamed.object, Mark { since, refused });
                }
            }
        }

        let mut pruned = Pruned::default();
        if !due.is_empty() || !self.needed.removed_heads.is_empty() {
            lease.confirm()?;
            Sweep::begin(store)?;
            self.needed.read(self.repository)?;
            due.retain(|unnamed| !self.needed.objects.contains(&unnamed.object));

            self.delete(&due, &mut marks, &mut pruned, lease, run)?;
            self.delete_removed_heads(&mut pruned, lease, run)?;
        }

        pruned.marked = marks.len() as u64;
        marks.write(store)?;
        Ok(pruned)
    }

    fn delete(
        &self,
        due: &[Unnamed],
        marks: &mut Marks,
        pruned: &mut Pruned,
        lease: &Lease<'_>,
        run: &Run,
    ) -> Result<()> {
        let store = &self.repository.objects.store.for_run(run);
        let mut gives_up = false;
        for batch in due.chunks(BATCH) {
            if gives_up {
                self.mark_again(batch, marks);
                continue;
            }

            run.check()?;
            lease.confirm()?;
            parallel::for_each(
                THREADS,
                batch,
                |unnamed| is_deleted(store, &unnamed.object.key()),
                |unnamed, is_gone| {
                    if is_gone {
                        pruned.objects += 1;
                        pruned.bytes = pruned.bytes.saturating_add(unnamed.size);
                        return;
                    }
                    pruned.refused += 1;
                    let since = self.marks.of(unnamed.object).map(|mark| mark.since);
                    let (since, refused) = (since.unwrap_or(self.now), true);
                    marks.set(unnamed.object, Mark { since, refused });
                },
            )?;
            // Whoever may delete nothing is not asked a hundred thousand times.
            gives_up = pruned.objects == 0;
        }
        Ok(())
    }

    fn mark_again(&self, batch: &[Unnamed], marks: &mut Marks) {
        for unnamed in batch {
            if let Some(mark) = self.marks.of(unnamed.object) {
                marks.set(unnamed.object, mark);
            }
        }
    }

    /// The heads of removed backups, but the newest: its number must stay taken.
    fn delete_removed_heads(
        &self,
        pruned: &mut Pruned,
        lease: &Lease<'_>,
        run: &Run,
    ) -> Result<()> {
        let store = &self.repository.objects.store.for_run(run);
        for batch in self.needed.removed_heads.chunks(BATCH) {
            run.check()?;
            lease.confirm()?;
            parallel::for_each(
                THREADS,
                batch,
                |sequence| is_deleted(store, &layout::head(*sequence)),
                |_, is_gone| pruned.refused += u64::from(!is_gone),
            )?;
        }
        Ok(())
    }
}

/// Deletes an object. Returns whether the store has done so: it refuses if the object is locked, or
/// if this user may not delete.
fn is_deleted(store: &Store, key: &str) -> Result<bool> {
    match store.delete(key) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == Kind::Denied => Ok(false),
        Err(error) => Err(error),
    }
}

/// What must stay.
#[derive(Default)]
struct Needed {
    /// What heads and journals name. It only grows: what was named a moment ago is not deleted.
    objects: HashSet<NamedObject>,
    /// The numbers of removed backups, without the newest of all numbers.
    removed_heads: Vec<u64>,
}

impl Needed {
    /// Reads it. Journals come first: so a blob that a commit moves from a journal into a head is
    /// seen in one of them.
    fn read(&mut self, repository: &ObjectRepository) -> Result<()> {
        let objects = &repository.objects;
        let blobs = &mut self.objects;
        journal::each_cell(&objects.store, |cell| {
            blobs.insert(NamedObject::Blob(cell.name));
        })?;

        let heads = repository.read_heads()?;
        let newest = heads.last().map(|head| head.sequence);
        check_listing(repository, newest.unwrap_or_default())?;

        self.removed_heads.clear();
        for head in heads {
            match head.object {
                Ok(HeadObject::Backup(backup)) => {
                    if let Err(error) = self.add(objects, &backup) {
                        return Err(unknown(&error).on(&backup.head.label).hint(
                            "run `kbackup verify` to see what is damaged; if nothing repairs it, \
                             remove this backup with `kbackup expire`",
                        ));
                    }
                }
                Ok(HeadObject::Removed(_)) if Some(head.sequence) == newest => {}
                Ok(HeadObject::Removed(_)) => self.removed_heads.push(head.sequence),
                Err(error) => {
                    let place = objects.place_of(&layout::head(head.sequence));
                    return Err(unknown(&error).on(place).hint(
                        "put this object back from a copy; delete it only if the backup is lost \
                         for good",
                    ));
                }
            }
        }
        Ok(())
    }

    /// Adds all objects that a backup names.
    fn add(&mut self, objects: &Objects, backup: &BackupHead) -> Result<()> {
        for group in &backup.groups {
            self.objects.insert(NamedObject::Section(group.rows.name));
            for section in group.cells.iter().flatten() {
                // Backups share most sections.
                let is_known = self.objects.contains(&NamedObject::Section(section.name));
                if is_known {
                    continue;
                }
                for cells in objects.cells(section)?.values() {
                    let names = cells.iter().map(|cell| NamedObject::Blob(cell.name));
                    self.objects.extend(names);
                }
                self.objects.insert(NamedObject::Section(section.name));
            }
        }
        Ok(())
    }
}

/// Checks that the listing of heads lacks none that was just made. Most stores list what is there,
/// but not every one does so at once.
fn check_listing(repository: &ObjectRepository, newest: u64) -> Result<()> {
    let given = numbers::highest(repository)?;
    let missing = newest.saturating_add(1)..=given;
    for sequence in missing.rev().take(MOST_LAGGING) {
        let key = layout::head(sequence);
        if repository.objects.store.head(&key)?.is_some() {
            return Err(Error::new(
                Kind::Transient,
                "kbackup deletes nothing, because the object store does not list its newest backup",
            )
            .on(repository.objects.place_of(&key))
            .hint("run it again in some minutes"));
        }
    }
    Ok(())
}

fn unknown(error: &Error) -> Error {
    let what = "kbackup deletes nothing, because it cannot tell what this backup needs";
    let mut unknown = Error::new(error.kind(), what).because(error.in_words());
    for hint in error.hints() {
        unknown = unknown.hint(hint.as_str());
    }
    unknown
}

#[cfg(test)]
mod tests {
    use super::super::naming::ObjectName;
    use super::*;

    /// An object that no head names, with a mark that was set so long ago.
    fn marked(ago: i64) -> ObjectRepository {
        let repository = ObjectRepository::create_in_memory().unwrap();
        let name: ObjectName = "5a".repeat(32).parse().unwrap();
        let store = &repository.objects.store;
        store
            .create(&layout::blob(&name), b"blob".to_vec().into())
            .unwrap();

        let since = store.now() - jiff::SignedDuration::from_secs(ago);
        let mut marks = Marks::default();
        let refused = false;
        marks.set(NamedObject::Blob(name), Mark { since, refused });
        marks.write(store).unwrap();
        repository
    }

    fn plan(repository: &ObjectRepository, grace: u64) -> Prunable {
        let unneeded = Unneeded::find(repository).unwrap();
        unneeded.plan(Duration::from_secs(grace))
    }

    #[test]
    fn a_mark_counts_from_its_time() {
        let repository = marked(-3600);
        let mut unneeded = Unneeded::find(&repository).unwrap();
        // Two hours later.
        unneeded.now += jiff::SignedDuration::from_secs(7200);
        assert_eq!(unneeded.plan(Duration::from_secs(3000)).due_objects, 1);
        assert_eq!(unneeded.plan(Duration::from_secs(4000)).due_objects, 0);
        assert_eq!(unneeded.plan(Duration::from_secs(4000)).unmarked_objects, 0);
    }

    #[test]
    fn a_mark_that_was_set_while_a_clock_was_ahead_begins_anew() {
        let found = plan(&marked(-3600), 0);
        assert_eq!((found.due_objects, found.unmarked_objects), (0, 1));
    }

    #[test]
    fn an_object_that_was_written_after_its_mark_waits_anew() {
        let found = plan(&marked(3600), 0);
        assert_eq!((found.due_objects, found.unmarked_objects), (0, 1));
    }

    #[test]
    fn a_head_that_the_store_does_not_list_yet_stops_it() {
        let repository = ObjectRepository::create_in_memory().unwrap();
        let store = &repository.objects.store;
        store
            .put(&layout::head(7), b"head".to_vec().into())
            .unwrap();
        let numbers = br#"{"sequence":7,"branch":1,"newest":"20260101T000000Z-full"}"#;
        store
            .put(&layout::state("numbers"), numbers.to_vec().into())
            .unwrap();

        let error = check_listing(&repository, 6).unwrap_err();
        assert_eq!(error.kind(), Kind::Transient);
        check_listing(&repository, 7).unwrap();
        store.delete(&layout::head(7)).unwrap();
        check_listing(&repository, 6).unwrap();
    }
}
