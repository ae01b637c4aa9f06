//! Checks `indexmap`, the tables that it names and their filters, without the log.

use super::report::{IndexFault, IndexProof};
use super::scope::IndexScope;
use super::table_filter::check_table_filter;
use crate::error::Result;
use crate::format::indexmap::IndexMap;
use crate::format::names::TableId;
use crate::format::ptable::{Table, TableEntry, TableVersion};
use crate::log::read_small;
use crate::manifest::{FileSet, RelativePath};
use crate::proof::depth::Depth;

/// The number of entries that are looked up in the log, of all tables together, unless all entries
/// are.
pub const LATEST_ENTRIES: usize = 1000;

/// A table whose entries can be read.
#[derive(Debug, Clone)]
pub struct CheckedTable {
    /// The table.
    pub path: RelativePath,
    /// The format of its entries.
    pub version: TableVersion,
    /// Its entries for the latest events of the log. Empty if the depth asks for all entries, or
    /// for none.
    pub latest: Vec<TableEntry>,
}

/// Reads the list of tables. Returns `None` if there is none, or if it cannot be read.
pub(super) fn read_map(files: &dyn FileSet, proof: &mut IndexProof) -> Result<Option<IndexMap>> {
    let path = RelativePath::index_map();
    let Some(source) = files.open(&path)? else {
        return Ok(None);
    };
    proof.has_map = true;

    let bytes = read_small(&*source, IndexMap::MAXIMUM_SIZE);
    let parsed = bytes.and_then(|bytes| IndexMap::parse(&bytes));
    proof.judge(files, &path, IndexFault::Map, parsed)
}

/// Checks a table and its filter. Returns `None` if the table's entries cannot be read.
pub(super) fn check_table(
    files: &dyn FileSet,
    table: TableId,
    scope: &IndexScope<'_>,
    proof: &mut IndexProof,
) -> Result<Option<CheckedTable>> {
    const DAMAGED: IndexFault = IndexFault::TableDamaged;

    let path = RelativePath::table(table);
    let Some(source) = files.open(&path)? else {
        let what = "indexmap names this table, and it is missing";
        proof.add_problem(&path, IndexFault::TableMissing, what);
        return Ok(None);
    };
    let Some(opened) = proof.judge(files, &path, DAMAGED, Table::open(&*source))? else {
        return Ok(None);
    };

    let version = opened.layout().version;
    if version == TableVersion::V1 {
        proof.add_problem(&path, IndexFault::TableOld, "it has format version 1");
    }

    let mut latest = Vec::new();
    if scope.depth > Depth::Quick {
        if scope.hash_tables {
            let hashed = proof.judge(files, &path, DAMAGED, opened.check_md5())?;
            if hashed.is_none() {
                return Ok(None);
            }
        }

        // One pass checks the order of the entries and finds the latest ones.
        let is_compared = scope.depth == Depth::Normal && scope.chunks.is_some();
        let count = if is_compared { LATEST_ENTRIES } else { 0 };
        let Some(entries) = proof.judge(files, &path, DAMAGED, opened.latest(count))? else {
            return Ok(None);
        };
        latest = entries;
    }

    check_table_filter(files, table, &opened, scope.depth, proof)?;
    Ok(Some(CheckedTable {
        path,
        version,
        latest,
    }))
}
