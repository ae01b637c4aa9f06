//! The input is a chunk file: its header, footer and position map. The entries in order are the
//! entries that a search finds.

use kbackup::format::chunk::{self, ChunkFooter, ChunkHeader, ChunkState};
use kbackup::format::names::ChunkName;
use kbackup::format::position_map::PositionMap;

pub(crate) fn examine(bytes: &[u8]) {
    let bytes = bytes.to_vec();
    let Ok(chunk) = chunk::inspect(&bytes) else {
        return;
    };

    let header = chunk.header;
    assert_eq!(
        ChunkHeader::parse(&header.encode()).unwrap().chunk_size,
        header.chunk_size
    );
    assert!(header.start_position() < header.end_position());

    let name: ChunkName = "chunk-000000.000000".parse().unwrap();
    assert_eq!(
        chunk.identity(name.version).md5.is_some(),
        matches!(chunk.state, ChunkState::Completed(_))
    );
    let _ = chunk.data_before(header.start_position());

    let Ok(footer) = chunk.completed() else {
        return;
    };
    assert_eq!(
        ChunkFooter::parse(&footer.encode().unwrap()).unwrap(),
        Some(*footer)
    );

    let (Ok(mut entries), Ok(mut searched)) = (
        PositionMap::new(&bytes, &chunk),
        PositionMap::new(&bytes, &chunk),
    ) else {
        return;
    };

    let mut found = Vec::new();
    loop {
        match entries.next_entry() {
            Ok(Some(entry)) => found.push(entry),
            Ok(None) => break,
            Err(_) => return,
        }
    }

    for entry in found {
        assert_eq!(
            searched.offset_of(entry.position).unwrap(),
            Some(entry.offset)
        );
    }
}
