//! Checks from the manifest alone that a backup is a directory that a server would start from. No
//! stored file is read.

use crate::error::{Error, Kind, Result};
use crate::format::checkpoint;
use crate::log::{ChunkPlace, LogEndingAt};
use crate::manifest::{Blake3Hash, Manifest, Row};
use crate::proof;

/// Refuses a manifest that contradicts itself.
///
/// # Errors
/// `StoredCorrupt` for the first contradiction.
pub(super) fn check_manifest(manifest: &Manifest) -> Result<()> {
    if let Some(contradiction) = contradiction(manifest) {
        let label = &manifest.label;
        return Err(Error::new(Kind::StoredCorrupt, contradiction)
            .on(label)
            .hint(format!(
                "run `kbackup verify {label}` to learn more; restore another backup"
            )));
    }
    Ok(())
}

fn contradiction(manifest: &Manifest) -> Option<String> {
    if let Some(fault) = proof::misnamed(manifest).into_iter().next() {
        return Some(match fault.path {
            Some(path) => format!("`{path}`: {}", fault.what),
            None => fault.what,
        });
    }

    let log = LogEndingAt::of(&manifest.log);
    for row in &manifest.files {
        if is_beyond_end(row, &log) {
            // O16: no server starts with such a chunk.
            return Some(format!(
                "the backup holds `{}`, which is behind the end of its log",
                row.path
            ));
        }
        if let Some(which) = row.path.as_checkpoint()
            && row.blake3 != Blake3Hash::of(&checkpoint::encode(log.checkpoint(which)))
        {
            return Some(format!(
                "`{}` contradicts the rest of the manifest",
                row.path
            ));
        }
    }

    if log.stored().epoch >= Some(log.position()) {
        return Some("the epoch checkpoint is behind the end of the log".to_owned());
    }
    None
}

fn is_beyond_end(row: &Row, log: &LogEndingAt) -> bool {
    match row.chunk {
        Some(chunk) => log.place_of(chunk.start, chunk.end) == ChunkPlace::Beyond,
        None => false,
    }
}
