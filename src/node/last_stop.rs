//! When kbackup last interrupted a scavenge on a node.
//!
//! `--scavenge-rest` needs this on the command line, where no agent remembers earlier runs. The
//! file lies beside the node's release record, and stays when that record is gone.

use std::path::{Path, PathBuf};

use crate::clock::{self, Timestamp};
use crate::error::Result;
use crate::fs;

const EXTENSION: &str = "stopped";
const MAX_LENGTH: u64 = 64;

/// The file beside a node's release record.
pub(super) fn path_beside(record: &Path) -> PathBuf {
    record.with_extension(EXTENSION)
}

/// Notes that a scavenge is interrupted now.
pub(super) fn note(path: &Path) -> Result<()> {
    fs::write_durably(path, clock::now().to_string().as_bytes(), 0o600)?;
    Ok(())
}

/// When a scavenge was last interrupted. Returns `None` if the file says nothing: then one more
/// scavenge may be interrupted, and no backup is held back by a damaged file.
pub(super) fn read(path: &Path) -> Option<Timestamp> {
    let bytes = fs::read_small(path, MAX_LENGTH).ok()?;
    std::str::from_utf8(&bytes).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stop_is_remembered_beside_the_record() {
        let state = tempfile::tempdir().unwrap();
        let path = path_beside(&state.path().join("10.0.0.1_2113-abc.json"));
        assert_eq!(path, state.path().join("10.0.0.1_2113-abc.stopped"));
        assert_eq!(read(&path), None);

        let before = clock::now();
        note(&path).unwrap();
        let noted = read(&path).unwrap();
        assert!(before <= noted && noted <= clock::now());

        std::fs::write(&path, "yesterday").unwrap();
        assert_eq!(read(&path), None);
    }
}
