//! The paths of the server's own files in a data directory. These constructors cannot fail, because
//! the server's names follow the rules of [`RelativePath`].

use super::path::{RelativePath, Root};
use crate::format::checkpoint::Checkpoint;
use crate::format::names::{self, TableId};

impl RelativePath {
    /// The checkpoint that a server keeps at this path. Returns `None` for other files.
    #[must_use]
    pub fn as_checkpoint(&self) -> Option<Checkpoint> {
        match self.root() {
            Root::Db => Checkpoint::of_file(self.below_root()),
            Root::Index => None,
        }
    }

    /// One of the five checkpoints.
    #[must_use]
    pub fn checkpoint(which: Checkpoint) -> Self {
        Self::of_valid(Root::Db, which.file_name())
    }

    /// The secondary indexes of 25.1 and later.
    #[must_use]
    pub fn secondary_index() -> Self {
        Self::of_valid(Root::Db, names::SECONDARY_INDEX)
    }

    /// The write-ahead log of [`Self::secondary_index`].
    #[must_use]
    pub fn secondary_index_log() -> Self {
        Self::of_valid(Root::Db, names::SECONDARY_INDEX_LOG)
    }

    /// The list of the index tables.
    #[must_use]
    pub fn index_map() -> Self {
        Self::of_valid(Root::Index, names::INDEX_MAP)
    }

    /// An index table.
    #[must_use]
    pub fn table(table: TableId) -> Self {
        Self::of_valid(Root::Index, &table.to_string())
    }

    /// The Bloom filter beside an index table.
    #[must_use]
    pub fn table_filter(table: TableId) -> Self {
        Self::of_valid(Root::Index, &table.filter_name())
    }

    /// The stream-existence filter.
    #[must_use]
    pub fn stream_filter() -> Self {
        Self::of_valid(Root::Index, names::STREAM_FILTER)
    }

    /// The checkpoint of the stream-existence filter.
    #[must_use]
    pub fn stream_filter_checkpoint() -> Self {
        Self::of_valid(Root::Index, names::STREAM_FILTER_CHECKPOINT)
    }

    /// The scavenger's database.
    #[must_use]
    pub fn scavenge_state() -> Self {
        Self::of_valid(Root::Index, names::SCAVENGE_STATE)
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[test]
    fn the_servers_names_are_valid_paths() {
        let table = TableId(Uuid::max());
        let mut paths = vec![
            RelativePath::secondary_index(),
            RelativePath::secondary_index_log(),
            RelativePath::index_map(),
            RelativePath::table(table),
            RelativePath::table_filter(table),
            RelativePath::stream_filter(),
            RelativePath::stream_filter_checkpoint(),
            RelativePath::scavenge_state(),
        ];
        paths.extend(Checkpoint::ALL.map(RelativePath::checkpoint));

        for path in paths {
            assert_eq!(path.to_string().parse(), Ok(path));
        }
    }
}
