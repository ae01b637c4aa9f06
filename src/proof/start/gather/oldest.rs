//! The oldest server version that can have written the files.

use crate::format::names::{DbFile, IndexFile};
use crate::manifest::{FileEntry, RelativePath, Root};
use crate::proof::start::facts::ChunkFact;
use crate::server::facts::{
    HAS_FILTERS, HAS_SCAVENGE_STATE, HAS_SECONDARY_INDEX, READS_TRANSFORMED_CHUNKS,
};
use crate::server::{ServerLine, VersionFact};

/// The oldest line that can have written these files (disk-format §8).
pub(super) fn oldest_writer(entries: &[FileEntry], chunks: &[ChunkFact]) -> ServerLine {
    let mut oldest = ServerLine::OLDEST;

    for entry in entries {
        if let Some(fact) = shown_by_name(&entry.path) {
            oldest = oldest.max(ServerLine::first_with(fact));
        }
    }
    for chunk in chunks {
        let Ok(file) = &chunk.file else { continue };
        // Older servers can read a plain chunk of format 4. They do not write it.
        if file.header.has_transform_field() {
            oldest = oldest.max(ServerLine::first_with(READS_TRANSFORMED_CHUNKS));
        }
    }

    oldest
}

/// The fact that is true of every server that can have written a file of this name. Returns `None`
/// if every server writes such files.
fn shown_by_name(path: &RelativePath) -> Option<VersionFact> {
    let name = path.below_root();
    match path.root() {
        Root::Db => match DbFile::of(name) {
            DbFile::SecondaryIndex => Some(HAS_SECONDARY_INDEX),
            _ => None,
        },
        Root::Index => match IndexFile::of(name) {
            IndexFile::BloomFilter(_)
            | IndexFile::StreamFilterCheckpoint
            | IndexFile::StreamFilterData => Some(HAS_FILTERS),
            IndexFile::Scavenging(_) => Some(HAS_SCAVENGE_STATE),
            _ => None,
        },
    }
}
