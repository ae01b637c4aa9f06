//! The commit: sections, then the head, which makes the backup visible.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::cells::Cell;
use super::grouping::{GroupKey, Grouping};
use super::heads::{BackupHead, HeadObject, Previous, Removed};
use super::incoming::{IncomingFile, ObjectIncoming, not_as_stored};
use super::layout;
use super::listing;
use super::sealed::MAX_STORED_BYTES;
use super::sections::{self, Group, ROWS_OF_CELLS, SectionObject, StoredRow};
use super::store::Created;
use super::stored::cells_section;
use super::upload::StoredBytes;
use crate::clock;
use crate::error::{Error, Kind, Result};
use crate::manifest::{FileSet, Manifest, RelativePath, Row};
use crate::repository::{Repository, numbers};

/// A row with its cells, as the sections will have it.
struct FullRow {
    stored: StoredRow,
    cells: Arc<[Cell]>,
}

impl ObjectIncoming<'_> {
    /// Makes the backup visible.
    pub(super) fn make_listed(&self, manifest: &Manifest) -> Result<()> {
        let heads = self.repository.read_heads()?;
        self.repository.check_number(&heads, manifest.sequence)?;
        let is_taken = heads.iter().any(|found| {
            found.label == manifest.label && !matches!(found.object, Ok(HeadObject::Removed(_)))
        });
        if is_taken {
            return Err(Error::new(
                Kind::Locked,
                "another run has committed a backup with this label meanwhile",
            )
            .on(&manifest.label)
            .hint("run it again"));
        }
        self.check_rows(manifest)?;
        self.run.check()?;

        let groups = self.store_groups(manifest)?;
        let newest = heads.last();
        let previous = newest.and_then(|newest| {
            let (sequence, hash) = (newest.sequence, newest.hash?);
            Some(Previous { sequence, hash })
        });
        let head = HeadObject::Backup(Box::new(BackupHead {
            head: manifest.head.clone(),
            previous,
            run: Some(self.lease.id()),
            groups,
        }));
        let bytes = head.to_bytes()?;
        self.check_written(manifest, &bytes)?;

        numbers::give(self.repository, manifest)?;
        self.sweep.check_none_since(&self.objects.store)?;
        self.create_head(manifest, &bytes)?;
        self.withdraw_after_sweep(manifest)?;
        self.repository
            .note_written(heads, manifest.sequence, &bytes, head, self.run);
        Ok(())
    }

    /// The files of the set are those of the manifest's rows.
    fn check_rows(&self, manifest: &Manifest) -> Result<()> {
        let mut rows: Vec<(&RelativePath, u64)> = Vec::with_capacity(manifest.files.len());
        for row in &manifest.files {
            rows.push((&row.path, row.size));
        }
        rows.sort();

        let files = self.files();
        let stored = files.iter().map(|(path, file)| (path, file.size()));
        if stored.eq(rows) {
            return Ok(());
        }
        Err(Error::new(
            Kind::Failed,
            "the files are not those of the manifest",
        ))
    }

    /// Stores the sections that the parent does not have.
    fn store_groups(&self, manifest: &Manifest) -> Result<Vec<Group>> {
        let mut rows: Vec<&Row> = manifest.files.iter().collect();
        rows.sort_by(|one, other| one.path.cmp(&other.path));

        let mut grouping = Grouping::of(rows.iter().copied());
        let mut by_group: BTreeMap<GroupKey, Vec<&Row>> = BTreeMap::new();
        for row in rows {
            let key = grouping.key(row, self.bytes_in_row(&row.path));
            by_group.entry(key).or_default().push(row);
        }

        let mut groups = Vec::with_capacity(by_group.len());
        for rows in by_group.values() {
            self.run.check()?;
            let group = match self.parents_group(rows)? {
                Some(group) => group,
                None => self.store_group(rows)?,
            };
            groups.push(group);
        }
        Ok(groups)
    }

    fn bytes_in_row(&self, path: &RelativePath) -> u64 {
        match self.files().get(path) {
            Some(file) if file.size() <= self.objects.row_bytes => file.size(),
            _ => 0,
        }
    }

    /// The parent's group with exactly these rows, if all of them are reused.
    fn parents_group(&self, rows: &[&Row]) -> Result<Option<Group>> {
        let (Some(parent), Some(first), Some(last)) = (&self.parent, rows.first(), rows.last())
        else {
            return Ok(None);
        };
        if !self.are_reused(rows) {
            return Ok(None);
        }

        for group in &parent.backup.groups {
            let ends = (&group.first, &group.last, group.files);
            if ends != (&first.path, &last.path, rows.len() as u64) {
                continue;
            }
            let parents = self.objects.rows(&group.rows)?;
            let parents = parents.iter().map(|stored| &stored.row);
            if parents.eq(rows.iter().copied()) {
                return Ok(Some(group.clone()));
            }
        }
        Ok(None)
    }

    fn are_reused(&self, rows: &[&Row]) -> bool {
        let files = self.files();
        rows.iter()
            .all(|row| matches!(files.get(&row.path), Some(IncomingFile::Reused(_))))
    }

    fn store_group(&self, rows: &[&Row]) -> Result<Group> {
        let mut full = Vec::with_capacity(rows.len());
        for row in rows {
            full.push(self.full_row(row)?);
        }

        let mut cells = Vec::new();
        for rows in full.chunks(ROWS_OF_CELLS) {
            cells.push(self.store_cells(rows)?);
        }
        let rows: Vec<StoredRow> = full.into_iter().map(|row| row.stored).collect();
        let text = sections::rows_to_text(&rows)?;
        let (section, written) = self.objects.store_section(&text)?;
        self.count(written);

        let (Some(first), Some(last)) = (rows.first(), rows.last()) else {
            return Err(Error::new(Kind::Failed, "a group without files"));
        };
        Ok(Group {
            first: first.row.path.clone(),
            last: last.row.path.clone(),
            files: rows.len() as u64,
            rows: section,
            cells,
        })
    }

    fn store_cells(&self, rows: &[FullRow]) -> Result<Option<SectionObject>> {
        let with_cells = rows.iter().filter(|row| !row.cells.is_empty());
        let text =
            sections::cells_to_text(with_cells.map(|row| (&row.stored.row.path, &row.cells)))?;
        if text.is_empty() {
            return Ok(None);
        }
        let (section, written) = self.objects.store_section(&text)?;
        self.count(written);
        Ok(Some(section))
    }

    fn full_row(&self, row: &Row) -> Result<FullRow> {
        let file = self.files().get(&row.path).cloned();
        let Some(IncomingFile::Own(file, _)) = file else {
            return self.parents_row(row);
        };

        let mut stored = StoredRow {
            row: row.clone(),
            data: None,
            first: None,
            last: None,
        };
        let cells = match &file.bytes {
            StoredBytes::InRow(data) => {
                stored.data = Some(data.clone());
                Arc::from(Vec::new())
            }
            StoredBytes::InCells {
                first, last, cells, ..
            } => {
                stored.first = Some(first.clone()).filter(|bytes| !bytes.is_empty());
                stored.last = Some(last.clone()).filter(|bytes| !bytes.is_empty());
                cells.clone()
            }
        };
        Ok(FullRow { stored, cells })
    }

    fn parents_row(&self, row: &Row) -> Result<FullRow> {
        let found = match &self.parent {
            Some(parent) => parent.row(&row.path)?,
            None => None,
        };
        let Some(found) = found else {
            return Err(not_as_stored(
                self.place_of(&row.path),
                "no backup names it",
            ));
        };
        let cells = found.cells(&self.objects)?;
        Ok(FullRow {
            stored: StoredRow {
                row: row.clone(),
                ..found.stored
            },
            cells,
        })
    }

    /// Reads the head and the sections back before anybody relies on them.
    fn check_written(&self, manifest: &Manifest, head: &[u8]) -> Result<()> {
        match self.read_back(manifest, head) {
            // Nothing is damaged yet: kbackup would write what no reader takes.
            Err(error) if error.kind() == Kind::StoredCorrupt => Err(Error::new(
                Kind::Failed,
                "the manifest of this backup cannot be read back",
            )
            .because(error.in_words())
            .hint("the backup was not committed, and the earlier ones are untouched")),
            other => other,
        }
    }

    fn read_back(&self, manifest: &Manifest, head: &[u8]) -> Result<()> {
        let backup = match HeadObject::from_bytes(head)? {
            HeadObject::Backup(backup) => backup,
            HeadObject::Removed(_) => {
                return Err(Error::new(
                    Kind::Failed,
                    "the head says something else than was written",
                ));
            }
        };

        let files = super::stored::StoredFiles::new(&self.objects, Arc::new(*backup));
        let read = files.manifest()?;
        let mut text = Vec::new();
        read.write(&mut text).map_err(|error| {
            Error::new(Kind::Failed, "cannot write the manifest").because(error)
        })?;
        manifest.check_written(&text)?;
        self.check_cells(&files)
    }

    /// Whether the sections name the cells of every file that has some.
    fn check_cells(&self, files: &super::stored::StoredFiles) -> Result<()> {
        for (number, group) in files.backup.groups.iter().enumerate() {
            let is_parents = self
                .parent
                .as_ref()
                .is_some_and(|parent| parent.backup.groups.contains(group));
            if is_parents {
                continue;
            }
            for (at, stored) in files.rows(number)?.iter().enumerate() {
                if stored.data.is_none()
                    && let Some(section) = cells_section(group, at)
                    && stored.first.is_some()
                {
                    let row = &stored.row;
                    self.objects.cells_of(&section, &row.path, row.size)?;
                }
            }
        }
        Ok(())
    }

    /// Makes the head. If its key is taken, another run was faster, or the reply to this one's
    /// request was lost.
    fn create_head(&self, manifest: &Manifest, bytes: &[u8]) -> Result<()> {
        let key = layout::head(manifest.sequence);
        let store = &self.objects.store;
        let read = || store.get(&key, MAX_STORED_BYTES);

        if self.repository.honours_create() {
            if store.create(&key, bytes.to_vec().into())? == Created::New {
                return Ok(());
            }
        } else if read()?.is_none() {
            // Two runs that are here in the same moment both write. The later one wins, and the
            // other one may have looked too early to see that.
            store.put(&key, bytes.to_vec().into())?;
        }

        if read()?.as_deref() == Some(bytes) {
            return Ok(());
        }
        Err(listing::committed_meanwhile(self.repository.place()))
    }

    /// Removes the head again if a sweep began just before it was made: that sweep has not seen it,
    /// and may have deleted what it names.
    fn withdraw_after_sweep(&self, manifest: &Manifest) -> Result<()> {
        let store = &self.objects.store;
        let swept = match self.sweep.check_none_since(store) {
            Ok(()) => return Ok(()),
            Err(error) if error.kind() == Kind::Locked => error,
            Err(error) => {
                self.run.warn(format!(
                    "kbackup could not ask whether `prune` ran in the moment of the commit, run \
                     `kbackup verify {}`: {}",
                    manifest.label,
                    error.in_words()
                ));
                return Ok(());
            }
        };

        let removed = HeadObject::Removed(Removed {
            label: manifest.label.clone(),
            at: clock::now(),
        });
        store.put(&layout::head(manifest.sequence), removed.to_bytes()?.into())?;
        Err(swept)
    }
}
