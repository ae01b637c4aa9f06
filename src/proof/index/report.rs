//! What is found of an index, and what is wrong with it.

use std::io::ErrorKind;

use crate::error::Result;
use crate::format::indexmap::IndexMap;
use crate::format::{self, LogPosition};
use crate::log::with_place;
use crate::manifest::{FileSet, RelativePath};

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
    /// A table's filter is damaged: the server does without it.
    TableFilter,
    /// The stream-existence filter is damaged: the server builds it anew.
    StreamFilter,
    /// The stream-existence filter lacks streams: a server takes them for new ones.
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

/// Events that the log holds and the index does not (O39).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HiddenEvents {
    /// How many of the events looked up are not in the index.
    pub missing: u64,
    /// How many events were looked up.
    pub sampled: u64,
    /// Where the first of them stands.
    pub first: LogPosition,
    /// Whether a scavenge with a threshold came after all of them. It takes events out of the index
    /// and leaves them in their chunks.
    pub explained: bool,
}

/// What was found of an index.
#[derive(Debug, Clone, Default)]
pub struct IndexProof {
    /// The list of tables; `None` if there is none, or it cannot be read.
    pub map: Option<IndexMap>,
    /// Whether there is a file `indexmap`.
    pub has_map: bool,
    /// Everything that is wrong.
    pub problems: Vec<IndexProblem>,
    /// Files named like tables, or like filters of tables, that `indexmap` does not name. A server
    /// deletes them. A copy that holds some was made by name (O2).
    pub unlisted: Vec<RelativePath>,
    /// Whether there is a stream-existence filter.
    pub has_stream_filter: bool,
    /// How many entries were compared with the log.
    pub entries: u64,
    /// How many of them name a record that a scavenge has removed.
    pub dangling: u64,
    /// Events of the log that the index lacks.
    pub hidden: Option<HiddenEvents>,
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

    /// Whether a problem of this kind is known, of this file if one is named.
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

    /// Puts what a parser complains of among the problems, and returns `None` then. What the
    /// storage reports stays an error.
    pub(super) fn judge<T>(
        &mut self,
        files: &dyn FileSet,
        path: &RelativePath,
        fault: IndexFault,
        parsed: format::Result<T>,
    ) -> Result<Option<T>> {
        let what = match parsed {
            Ok(value) => return Ok(Some(value)),
            Err(format::Error::Malformed(why)) => why.to_string(),
            Err(format::Error::Read(error)) if error.kind() == ErrorKind::UnexpectedEof => {
                "the file ends too early".to_owned()
            }
            Err(error) => return with_place(files, path, Err(error)),
        };

        self.add_problem(path, fault, what);
        Ok(None)
    }
}
