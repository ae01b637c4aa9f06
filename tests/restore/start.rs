//! The first steps of a server in a directory.

use std::path::Path;

use kbackup::manifest::{ChunkRow, Manifest};

/// A checkpoint as the server reads it. A short file is extended with zeros (disk-format §2.1).
pub(crate) fn checkpoint(db: &Path, name: &str, missing: i64) -> i64 {
    match std::fs::read(db.join(name)) {
        Ok(mut bytes) => {
            bytes.resize(8, 0);
            i64::from_le_bytes(bytes.try_into().unwrap())
        }
        Err(_) => missing,
    }
}

/// The result of a server's first steps in a directory, by disk-format §2.3, §2.4 and §6, with its
/// `MaxTruncation` switched off.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Start {
    Refused,
    Opened { writer: i64, chaser: i64 },
}

pub(crate) fn start(db: &Path, manifest: &Manifest) -> Start {
    let (mut writer, mut chaser) = (
        checkpoint(db, "writer.chk", 0),
        checkpoint(db, "chaser.chk", 0),
    );
    let (mut epoch, truncate) = (
        checkpoint(db, "epoch.chk", -1),
        checkpoint(db, "truncate.chk", -1),
    );

    let size = i64::try_from(manifest.log.chunk_size.get()).unwrap();
    let rows: Vec<ChunkRow> = manifest.files.iter().filter_map(|row| row.chunk).collect();

    if truncate != -1 {
        // The server uses a 32-bit number, which overflows.
        #[expect(clippy::cast_possible_truncation, reason = "as in the server")]
        let next = ((writer / size) as i32).wrapping_add(1);
        if rows
            .iter()
            .any(|chunk| i32::try_from(chunk.start.0).unwrap() == next)
        {
            return Start::Refused;
        }

        assert_eq!(
            truncate,
            manifest.log.position.position().to_signed(),
            "a truncation to anywhere else loses events"
        );

        let covering = rows.iter().find(|chunk| {
            i64::from(chunk.start.0) * size <= truncate
                && truncate < (i64::from(chunk.end.0) + 1) * size
        });
        assert!(
            covering.is_none_or(|chunk| !chunk.scavenged),
            "O33: the server would go back to the start of a scavenged chunk"
        );

        epoch = if epoch >= truncate { -1 } else { epoch };
        (writer, chaser) = (writer.min(truncate), chaser.min(truncate));
    }

    if chaser > writer || epoch > writer {
        Start::Refused
    } else {
        Start::Opened { writer, chaser }
    }
}
