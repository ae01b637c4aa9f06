//! The files of a listed backup.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::cells::Cell;
use super::file::ObjectFile;
use super::heads::BackupHead;
use super::objects::Objects;
use super::sections::{Group, ROWS_OF_CELLS, SectionObject, StoredRow};
use crate::error::{Error, Kind, Result};
use crate::format::ReadAt;
use crate::manifest::{FileEntry, FileSet, Manifest, RelativePath};

/// How many groups stay in memory as rows.
const KEPT_GROUPS: usize = 2;

/// The files of a listed backup. Rows are read group by group, when somebody asks for them.
pub(super) struct StoredFiles {
    objects: Arc<Objects>,
    pub(super) backup: Arc<BackupHead>,
    /// Groups that were read last, by their place in the head.
    kept: Mutex<VecDeque<(usize, Arc<Vec<StoredRow>>)>>,
}

/// A row of a backup, with the section that holds its cells.
pub(super) struct FoundRow {
    pub(super) stored: StoredRow,
    pub(super) cells: Option<SectionObject>,
}

impl FoundRow {
    pub(super) fn open(self, objects: &Arc<Objects>) -> ObjectFile {
        ObjectFile::of_row(objects, self.stored, self.cells)
    }

    /// The cells of the file.
    pub(super) fn cells(&self, objects: &Objects) -> Result<Arc<[Cell]>> {
        match &self.cells {
            Some(section) if self.stored.data.is_none() => {
                let row = &self.stored.row;
                objects.cells_of(section, &row.path, row.size)
            }
            _ => Ok(Arc::from(Vec::new())),
        }
    }
}

impl StoredFiles {
    pub(super) fn new(objects: &Arc<Objects>, backup: Arc<BackupHead>) -> Self {
        Self {
            objects: objects.clone(),
            backup,
            kept: Mutex::default(),
        }
    }

    /// The manifest: the head and all rows, in the order of their paths.
    pub(super) fn manifest(&self) -> Result<Manifest> {
        let mut files = Vec::new();
        for group in &self.backup.groups {
            for stored in self.rows_of(group)? {
                files.push(stored.row);
            }
        }
        files.sort_by(|one, other| one.path.cmp(&other.path));

        let label = &self.backup.head.label;
        Manifest::of_parts(self.backup.head.clone(), files).map_err(|error| error.on(label))
    }

    /// The rows of a group. They are those that the head speaks of.
    fn rows_of(&self, group: &Group) -> Result<Vec<StoredRow>> {
        let rows = self.objects.rows(&group.rows)?;
        let ends = (
            rows.first().map(|stored| &stored.row.path),
            rows.last().map(|stored| &stored.row.path),
        );
        if rows.len() as u64 == group.files && ends == (Some(&group.first), Some(&group.last)) {
            return Ok(rows);
        }
        Err(Error::new(Kind::StoredCorrupt, "the manifest is damaged")
            .on(&self.backup.head.label)
            .because(format!(
                "the files from {} to {} are not those of their section",
                group.first, group.last
            )))
    }

    /// The rows of a group.
    pub(super) fn rows(&self, group: usize) -> Result<Arc<Vec<StoredRow>>> {
        let mut kept = self.kept();
        for (number, rows) in &*kept {
            if *number == group {
                return Ok(rows.clone());
            }
        }

        let rows = match self.backup.groups.get(group) {
            Some(group) => Arc::new(self.rows_of(group)?),
            None => Arc::default(),
        };
        kept.push_back((group, rows.clone()));
        if kept.len() > KEPT_GROUPS {
            kept.pop_front();
        }
        Ok(rows)
    }

    /// A row by its path. `None` if the backup has no such file.
    pub(super) fn row(&self, path: &RelativePath) -> Result<Option<FoundRow>> {
        for (number, group) in self.backup.groups.iter().enumerate() {
            if *path < group.first || *path > group.last {
                continue;
            }
            let rows = self.rows(number)?;
            let found = rows.binary_search_by(|stored| stored.row.path.cmp(path));
            let Ok(at) = found else {
                continue;
            };
            if let Some(stored) = rows.get(at) {
                return Ok(Some(FoundRow {
                    stored: stored.clone(),
                    cells: cells_section(group, at),
                }));
            }
        }
        Ok(None)
    }

    fn kept(&self) -> MutexGuard<'_, VecDeque<(usize, Arc<Vec<StoredRow>>)>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The section that holds the cells of a group's row.
pub(super) fn cells_section(group: &Group, row: usize) -> Option<SectionObject> {
    *group.cells.get(row / ROWS_OF_CELLS)?
}

impl FileSet for StoredFiles {
    fn files(&self) -> Result<Vec<FileEntry>> {
        let mut entries = Vec::new();
        for row in self.manifest()?.files {
            entries.push(FileEntry {
                path: row.path,
                size: row.size,
                mode: row.mode,
                stamp: Some(ObjectFile::stamp_of(&row.blake3)),
            });
        }
        Ok(entries)
    }

    fn open(&self, path: &RelativePath) -> Result<Option<Box<dyn ReadAt>>> {
        match self.row(path)? {
            Some(found) => Ok(Some(Box::new(found.open(&self.objects)))),
            None => Ok(None),
        }
    }

    fn place_of(&self, path: &RelativePath) -> String {
        place_of(&self.objects, &self.backup, path)
    }
}

/// The name of a stored file for an operator.
pub(super) fn place_of(objects: &Objects, backup: &BackupHead, path: &RelativePath) -> String {
    objects.place_of(&format!("{}/{path}", backup.head.label))
}
