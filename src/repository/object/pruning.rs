//! Deletes objects that no head names, in two phases. The first one marks them. The second one
//! deletes those that were marked long ago, that nobody has named or written since, and that no
//! interrupted run left for the next one. In between, a run that was in progress has ended.

use std::collections::HashSet;
use std::time::Duration;

use super::heads::{BackupHead, HeadObject};
use super::journal::Leftovers;
use super::layout;
use super::listing::FoundHead;
use super::marks::Marks;
use super::objects::Objects;
use super::store::Store;
use crate::clock::{self, Timestamp};
use crate::error::{Error, Kind, Result};
use crate::repository::{Prunable, Pruned};

/// How far the clocks of the store and of this machine may differ.
const CLOCKS: Duration = Duration::from_secs(60 * 60);

/// An object that no head names.
struct Unnamed {
    key: String,
    size: u64,
    modified: Timestamp,
}

/// What a repository holds that nothing needs.
pub(super) struct Unneeded {
    unnamed: Vec<Unnamed>,
    /// Keys of removed backups. The newest number is not among them: it must stay taken.
    removed: Vec<String>,
    marks: Marks,
}

impl Unneeded {
    /// Looks for it.
    ///
    /// # Errors
    /// The error of a head that cannot be read: nobody knows what it names.
    pub(super) fn find(objects: &Objects, heads: Vec<FoundHead>) -> Result<Self> {
        let store = &objects.store;
        let mut removed = Vec::new();
        let mut named = HashSet::new();
        let newest = heads.last().map(|head| head.sequence);
        for head in heads {
            let key = layout::head(head.sequence);
            match head.object {
                Ok(HeadObject::Backup(backup)) => add_named(&mut named, objects, &backup)?,
                Ok(HeadObject::Removed(_)) if Some(head.sequence) == newest => {}
                Ok(HeadObject::Removed(_)) => removed.push(key),
                Err(error) => return Err(unknown(&error).on(objects.place_of(&key))),
            }
        }
        for entry in Leftovers::read(store)?.entries() {
            for cell in &entry.cells {
                named.insert(layout::blob(&cell.name));
            }
        }

        let mut unnamed = Vec::new();
        for prefix in [layout::BLOBS, layout::SECTIONS] {
            for info in store.list(prefix)? {
                if !named.contains(&info.key) {
                    unnamed.push(Unnamed {
                        key: info.key,
                        size: info.size,
                        modified: info.modified,
                    });
                }
            }
        }
        Ok(Self {
            unnamed,
            removed,
            marks: Marks::read(store)?,
        })
    }

    /// What can be deleted now, and what only later.
    pub(super) fn plan(&self, grace: Duration) -> Prunable {
        let now = clock::now();
        let mut plan = Prunable::default();
        for object in &self.unnamed {
            if self.is_due(object, now, grace) {
                plan.due_objects += 1;
                plan.due_bytes = plan.due_bytes.saturating_add(object.size);
            } else {
                plan.waiting_objects += 1;
                plan.waiting_bytes = plan.waiting_bytes.saturating_add(object.size);
                let since = self.marks.marked.get(&object.key).copied().unwrap_or(now);
                let due = since.checked_add(grace).unwrap_or(since);
                plan.next = Some(plan.next.map_or(due, |next| next.min(due)));
            }
        }
        plan
    }

    /// Whether an object was marked so long ago, and not written since.
    fn is_due(&self, object: &Unnamed, now: Timestamp, grace: Duration) -> bool {
        let Some(marked) = self.marks.marked.get(&object.key) else {
            return false;
        };
        let was_written_since = object.modified > marked.checked_add(CLOCKS).unwrap_or(*marked);
        !was_written_since && clock::between(*marked, now) >= grace
    }

    /// Deletes what is due, and marks the rest. An object that cannot be deleted, such as a locked
    /// one, stays marked.
    pub(super) fn prune(self, store: &Store, grace: Duration) -> Result<Pruned> {
        let now = clock::now();
        let mut pruned = Pruned::default();
        let mut marks = Marks::default();
        for object in &self.unnamed {
            if self.is_due(object, now, grace) {
                match store.delete(&object.key) {
                    Ok(()) => {
                        pruned.objects += 1;
                        pruned.bytes = pruned.bytes.saturating_add(object.size);
                        continue;
                    }
                    Err(error) if error.kind() == Kind::Denied => pruned.refused += 1,
                    Err(error) => return Err(error),
                }
            }

            let known = self.marks.marked.get(&object.key).copied();
            // An object that was written again since it was marked waits anew.
            let since = known
                .filter(|marked| object.modified <= *marked)
                .unwrap_or(now);
            marks.marked.insert(object.key.clone(), since);
        }
        for key in &self.removed {
            store.delete(key)?;
        }

        pruned.marked = marks.marked.len() as u64;
        marks.write(store)?;
        Ok(pruned)
    }
}

/// Adds the keys of all objects that a backup names.
fn add_named(named: &mut HashSet<String>, objects: &Objects, backup: &BackupHead) -> Result<()> {
    for group in &backup.groups {
        named.insert(layout::section(&group.rows.name));
        for section in group.cells.iter().flatten() {
            // Backups share most sections.
            if !named.insert(layout::section(&section.name)) {
                continue;
            }
            for cells in objects.cells(section)?.values() {
                named.extend(cells.iter().map(|cell| layout::blob(&cell.name)));
            }
        }
    }
    Ok(())
}

fn unknown(error: &Error) -> Error {
    Error::new(
        error.kind(),
        "kbackup deletes nothing, because it cannot tell what this backup needs",
    )
    .because(error.in_words())
}
