//! The input is the name of a file, or a path. The name of a chunk or a table is written as it was.

use kbackup::format::names::{DbFile, IndexFile};

pub(crate) fn examine(bytes: &[u8]) {
    let Ok(name) = std::str::from_utf8(bytes) else {
        return;
    };
    match DbFile::of(name) {
        DbFile::Chunk(chunk) => assert_eq!(chunk.to_string(), name),
        DbFile::Checkpoint(checkpoint) => assert_eq!(checkpoint.file_name(), name),
        _ => {}
    }
    match IndexFile::of(name) {
        IndexFile::Table(table) => assert_eq!(table.to_string(), name),
        IndexFile::BloomFilter(table) => assert_eq!(format!("{table}.bloomfilter"), name),
        _ => {}
    }
}
