//! The result of examining an index: its facts and its problems.

use crate::error::Result;
use crate::format::indexmap::IndexMap;
use crate::format::{self, LogPosition};
use crate::manifest::{FileSet, RelativePath};
use crate::proof::judge::judge;

/// What kind of thing is wrong with a file of the index.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum IndexFault {
    /// `indexmap` cannot be read.
    Map,
    /// A table that it names is missing.
    TableMissing,
    /// A table is not what the server wrote.
    TableDamaged,
    /// A table has format version 1, which servers from 24.10 on refuse.
    TableOld,
    /// A table contradicts the log.
    EntryWrong,
    /// A table's filter is damaged. The server works without it.
    TableFilter,
    /// A table's filter lacks streams of the table. A server does not find their events there.
    TableFilterIncomplete,
    /// The stream-existence filter is damaged. The server rebuilds it.
    StreamFilter,
    /// The stream-existence filter lacks streams. A server takes them for new streams.
    StreamFilterIncomplete,
}

/// Something wrong with the index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IndexProblem {
    /// The file that is wrong.
    pub path: RelativePath,
    /// What that means for a server.
    pub fault: IndexFault,
    /// What was found, in words.
    pub what: String,
}

impl IndexProblem {
    pub(super) fn new(path: &RelativePath, fault: IndexFault, what: impl Into<String>) -> Self {
        Self {
            path: path.clone(),
            fault,
            what: what.into(),
        }
    }
}

/// Events that the log holds, and that the index lacks although a server should show them (O39).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HiddenEvents {
    /// How many of the events looked up a server would show if they were in the index.
    pub missing: u64,
    /// How many more may be missing: the metadata that decides it is gone.
    pub unknown: u64,
    /// How many events were looked up.
    pub sampled: u64,
    /// The position of the first missing event, or of the first that may be missing.
    pub first: LogPosition,
}

/// What was found of an index.
#[derive(Debug, Clone, Default)]
pub struct IndexProof {
    /// The list of tables. `None` if there is no `indexmap`, or if it cannot be read.
    pub map: Option<IndexMap>,
    /// Whether there is a file `indexmap`.
    pub has_map: bool,
    /// Everything that is wrong.
    pub problems: Vec<IndexProblem>,
    /// Files that are named like tables or their filters, and that `indexmap` does not name. A
    /// server deletes them. If a copy has such files, it was made by file names (O2).
    pub unlisted: Vec<RelativePath>,
    /// Whether there is a stream-existence filter.
    pub has_stream_filter: bool,
    /// How many entries were compared with the log.
    pub entries: u64,
    /// How many of them name a record that a scavenge has removed.
    pub dangling: u64,
    /// Events of the log that the index should hold and lacks.
    pub hidden: Option<HiddenEvents>,
}

impl IndexFault {
    /// Whether the bytes are not what a server wrote. A table of version 1 is old, not damaged.
    #[must_use]
    pub const fn is_damage(self) -> bool {
        !matches!(self, Self::TableOld)
    }
}

impl IndexProof {
    /// The problems for which a server sets the whole index aside (disk-format §5.4).
    pub fn fatal(&self) -> impl Iterator<Item = &IndexProblem> {
        self.problems.iter().filter(|problem| {
            matches!(
                problem.fault,
                IndexFault::Map | IndexFault::TableMissing | IndexFault::TableDamaged
            )
        })
    }

    /// Whether a problem of this kind is known already: of the file at `path`, or of any file.
    pub(super) fn has_problem(&self, fault: IndexFault, path: Option<&RelativePath>) -> bool {
        self.problems
            .iter()
            .any(|problem| problem.fault == fault && path.is_none_or(|path| problem.path == *path))
    }

    pub(super) fn add_problem(
        &mut self,
        path: &RelativePath,
        fault: IndexFault,
        what: impl Into<String>,
    ) {
        self.problems.push(IndexProblem::new(path, fault, what));
    }

    /// Adds the error of a parser to the problems. Returns `None` then. An error of the storage
    /// stays an error.
    pub(super) fn judge<T>(
        &mut self,
        files: &dyn FileSet,
        path: &RelativePath,
        fault: IndexFault,
        parsed: format::Result<T>,
    ) -> Result<Option<T>> {
        match judge(files, path, parsed)? {
            Ok(value) => Ok(Some(value)),
            Err(what) => {
                self.add_problem(path, fault, what);
                Ok(None)
            }
        }
    }
}
