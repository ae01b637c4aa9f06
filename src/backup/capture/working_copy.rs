//! Which files the working copy holds, and which of them belong in the backup.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::captured_file::{CapturedFile, CapturedRow, FileOrigin};
use crate::error::Result;
use crate::format::ReadAt;
use crate::log::{ChunkSet, Inspected};
use crate::manifest::{Cost, Directories, FileEntry, FileSet, Manifest, RelativePath, Role, Row};
use crate::proof::{CheckedTable, LogStretch};
use crate::repository::Incoming;
use crate::run::Run;

/// The files of the incoming backup, and the parent's files that it may reuse.
///
/// It outlives the attempts of a run: the next attempt need not copy what this one has captured.
pub(in crate::backup) struct Capture<'a> {
    pub(in crate::backup) incoming: Box<dyn Incoming + 'a>,
    pub(in crate::backup) source: &'a Directories,
    pub(in crate::backup) run: &'a Run,
    pub(in crate::backup) cost: Cost,
    parent: Option<&'a Manifest>,
    /// The rows of the parent whose files may be reused.
    pub(super) parent_rows: HashMap<&'a RelativePath, &'a Row>,
    pub(super) captured: BTreeMap<RelativePath, CapturedFile<'a>>,
    /// Headers and footers of the reused and the copied chunks, as this run has read them.
    pub(super) inspected: Inspected,
    /// Headers and footers of the source's chunks, as the preflight has read them. The first
    /// listing of the chunks takes them out.
    pub(in crate::backup) inspected_in_preflight: Inspected,
    /// Files of the parent that turned out damaged.
    pub(super) damaged_in_parent: Vec<RelativePath>,
}

impl<'a> Capture<'a> {
    pub(in crate::backup) fn new(
        incoming: Box<dyn Incoming + 'a>,
        source: &'a Directories,
        parent: Option<&'a Manifest>,
        run: &'a Run,
    ) -> Self {
        let mut parent_rows = HashMap::new();
        if let Some(parent) = parent {
            parent_rows.extend(parent.files.iter().map(|row| (&row.path, row)));
        }
        Self {
            incoming,
            source,
            run,
            cost: Cost::default(),
            parent,
            parent_rows,
            captured: BTreeMap::new(),
            inspected: Inspected::default(),
            inspected_in_preflight: Inspected::default(),
            damaged_in_parent: Vec::new(),
        }
    }

    pub(in crate::backup) fn into_incoming(self) -> (Box<dyn Incoming + 'a>, Inspected) {
        (self.incoming, self.inspected)
    }

    /// The backup whose files may be reused.
    pub(in crate::backup) fn parent(&self) -> Option<&'a Manifest> {
        self.parent
    }

    /// The parent's row of a path, if its file may be reused.
    pub(in crate::backup) fn parent_row(&self, path: &RelativePath) -> Option<&'a Row> {
        self.parent_rows.get(path).copied()
    }

    /// The row under which a file is held already, here or in the parent.
    pub(in crate::backup) fn held_row(&self, path: &RelativePath) -> Option<&Row> {
        match self.captured.get(path) {
            Some(file) => Some(&file.row),
            None => self.parent_row(path),
        }
    }

    /// Whether a file was captured, by this attempt or an earlier one of this run.
    pub(in crate::backup) fn is_captured(&self, path: &RelativePath) -> bool {
        self.captured.contains_key(path)
    }

    /// Begins a new attempt. It has to find every file at the source again, but need not copy any
    /// again.
    pub(in crate::backup) fn start_over(&mut self) {
        for file in self.captured.values_mut() {
            file.is_wanted = false;
        }
    }

    /// Begins a new reading of the files of these roles. It has to find each at the source again.
    pub(in crate::backup) fn look_again_for(&mut self, roles: &[Role]) {
        for file in self.captured.values_mut() {
            if roles.contains(&file.row.role) {
                file.is_wanted = false;
            }
        }
    }

    /// Steps D6 and D17: removes what this attempt did not find at the source.
    pub(in crate::backup) fn remove_unwanted(&mut self) -> Result<()> {
        for path in self.paths_of(|file| !file.is_wanted) {
            self.remove(&path)?;
        }
        Ok(())
    }

    /// Removes a file that turned out wrong, so that it does not count as captured.
    pub(in crate::backup) fn remove(&mut self, path: &RelativePath) -> Result<()> {
        self.captured.remove(path);
        self.incoming.remove(path)
    }

    /// The rows of all captured files, in the order of their paths.
    pub(in crate::backup) fn rows(&self) -> Vec<Row> {
        let files = self.captured.values();
        files.map(|file| (*file.row).clone()).collect()
    }

    /// The captured files of these roles.
    pub(in crate::backup) fn paths_of_roles(&self, roles: &[Role]) -> Vec<RelativePath> {
        self.paths_of(|file| roles.contains(&file.row.role))
    }

    /// The chunks in the backup that fail their own MD5.
    pub(in crate::backup) fn damaged_chunks(&self) -> Vec<RelativePath> {
        self.paths_of(|file| file.is_damaged && file.is_wanted)
    }

    /// The files whose bytes this run has read, here or at the source, and compared with the
    /// server's MD5 if they have one.
    pub(in crate::backup) fn newly_read(&self) -> HashSet<RelativePath> {
        let paths = self.paths_of(|file| file.origin != FileOrigin::Reused && !file.is_damaged);
        paths.into_iter().collect()
    }

    fn paths_of(&self, is_chosen: impl Fn(&CapturedFile<'_>) -> bool) -> Vec<RelativePath> {
        let mut paths = Vec::new();
        for file in self.captured.values() {
            if is_chosen(file) {
                paths.push(file.row.path.clone());
            }
        }
        paths
    }

    /// Whether this run has read the bytes of a file, here or at the source.
    pub(in crate::backup) fn is_newly_read(&self, path: &RelativePath) -> bool {
        match self.captured.get(path) {
            Some(file) => file.origin != FileOrigin::Reused,
            None => false,
        }
    }

    /// The stretches of the log that this run has read: whole chunks, or chunks from the parent's
    /// end on, because all before that was proven in the parent.
    pub(in crate::backup) fn newly_read_log(&self) -> Vec<LogStretch> {
        let mut stretches = Vec::new();
        for file in self.captured.values() {
            let Some(records) = &file.records else {
                continue;
            };
            if file.is_wanted {
                stretches.push(LogStretch {
                    path: file.row.path.clone(),
                    from: records.from,
                    records: records.told.clone(),
                });
            }
        }
        stretches
    }

    /// The tables that this run has copied, with their entries for the latest events.
    pub(in crate::backup) fn newly_copied_tables(&self) -> Vec<CheckedTable> {
        let mut tables = Vec::new();
        for file in self.captured.values() {
            if let Some(table) = &file.table {
                tables.push((**table).clone());
            }
        }
        tables
    }

    /// The chunks among the captured files.
    pub(in crate::backup) fn chunks(&self) -> Result<ChunkSet> {
        let mut entries = Vec::new();
        for file in self.captured.values() {
            if file.row.role != Role::Chunk {
                continue;
            }
            entries.push(FileEntry {
                path: file.row.path.clone(),
                size: file.row.size,
                mode: file.row.mode,
                stamp: self.inspected.stamp(&file.row.path),
            });
        }
        ChunkSet::among(&self.files(), entries, &self.inspected)
    }

    /// The captured files. Messages about them name the source's files, because damage in them came
    /// from there.
    pub(in crate::backup) fn files(&self) -> CapturedFiles<'_> {
        CapturedFiles {
            files: &*self.incoming,
            source: self.source,
        }
    }

    /// What the run has cost so far.
    pub(in crate::backup) fn cost(&self) -> Cost {
        let mut cost = Cost {
            bytes_stored: self.incoming.bytes_stored(),
            ..self.cost.clone()
        };
        for file in self.captured.values() {
            match file.origin {
                FileOrigin::Reused => cost.files_linked += 1,
                FileOrigin::Copied => cost.files_copied += 1,
                FileOrigin::Resumed => {
                    cost.files_resumed += 1;
                    cost.bytes_resumed += file.row.size;
                }
            }
        }
        cost
    }

    pub(super) fn insert(&mut self, row: CapturedRow<'a>, origin: FileOrigin) {
        self.insert_file(CapturedFile {
            row,
            origin,
            is_wanted: true,
            records: None,
            table: None,
            is_damaged: false,
        });
    }

    /// Makes a file part of the backup. What was read of an earlier file of this path counts no
    /// more.
    pub(super) fn insert_file(&mut self, file: CapturedFile<'a>) {
        let path = file.row.path.clone();
        self.inspected.forget(&path);
        self.captured.insert(path, file);
    }
}

/// Captured files that messages name by their paths at the source.
pub(in crate::backup) struct CapturedFiles<'a> {
    files: &'a dyn FileSet,
    source: &'a Directories,
}

impl FileSet for CapturedFiles<'_> {
    fn files(&self) -> Result<Vec<FileEntry>> {
        self.files.files()
    }

    fn open(&self, path: &RelativePath) -> Result<Option<Box<dyn ReadAt>>> {
        self.files.open(path)
    }

    fn place_of(&self, path: &RelativePath) -> String {
        self.source.place_of(path)
    }
}
