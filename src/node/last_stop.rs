//! When kbackup last interrupted a scavenge on a node.
//!
//! `--scavenge-rest` needs this on the command line, where no agent remembers earlier runs. The
//! file lies beside the release records, and stays when the node's record is gone.

use std::path::{Path, PathBuf};

use super::record_names::file_name;
use super::release_record::RecordedNode;
use crate::clock::{self, Timestamp};
use crate::error::Result;
use crate::fs;

const EXTENSION: &str = "stopped";
const MAX_LENGTH: u64 = 64;

/// The node's file in the state directory. Its name needs only what the node itself tells.
pub(super) fn path(state: &Path, node: &RecordedNode) -> PathBuf {
    let endpoint = node.endpoint.as_deref().unwrap_or_default();
    let directory = node.own_directory.as_deref().unwrap_or_default();
    let name = file_name(&format!("{endpoint} {node} {directory}"));
    state.join(format!("{name}.{EXTENSION}"))
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
        let node = RecordedNode {
            url: "http://10.0.0.1:2113".to_owned(),
            unix_socket: None,
            endpoint: Some("10.0.0.1:2113".to_owned()),
            instance: None,
            database: None,
            directory: None,
            own_directory: None,
        };
        let path = path(state.path(), &node);
        assert_eq!(read(&path), None);

        let before = clock::now();
        note(&path).unwrap();
        let noted = read(&path).unwrap();
        assert!(before <= noted && noted <= clock::now());

        fs::write_durably(&path, b"yesterday", 0o600).unwrap();
        assert_eq!(read(&path), None);
    }
}
