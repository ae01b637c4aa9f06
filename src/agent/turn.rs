//! Members of a cluster one after another: a lock in the directory that holds their repositories. A
//! crash gives it back.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::clock::{self, Timestamp};
use crate::error::{Error, Result};
use crate::fs;

const NAME: &str = "turn";
const MAX_BYTES: u64 = 64 * 1024;
/// Agents of several users share it.
const FILE_MODE: u32 = 0o660;

/// Whose turn it is: whoever has this. Dropping it ends the turn.
#[derive(Debug)]
pub(super) struct Turn {
    file: fs::File,
}

#[derive(Debug, Serialize, Deserialize)]
struct Holder {
    member: String,
    since: Timestamp,
}

impl Turn {
    /// Takes the turn for a member, without waiting: where another one has it, says who.
    ///
    /// # Errors
    /// Where the directory cannot be written, or its file system has no locks.
    pub(super) fn take(
        directory: &Path,
        member: &str,
    ) -> Result<std::result::Result<Self, String>> {
        let path = directory.join(NAME);
        let hint = |error| {
            Error::from(error).hint("turns need a directory that every agent can write to, on a file system with locks (`flock`)")
        };
        let file = fs::open_or_create(&path, FILE_MODE).map_err(hint)?;
        if !file.try_lock().map_err(hint)? {
            let holder = fs::read_small(&path, MAX_BYTES)
                .ok()
                .and_then(|bytes| serde_json::from_slice::<Holder>(&bytes).ok());
            return Ok(Err(holder.map_or_else(
                || "another member".to_owned(),
                |holder| holder.member,
            )));
        }
        let turn = Self { file };
        let holder = Holder {
            member: member.to_owned(),
            since: clock::now(),
        };
        // The words are for the others; the turn is ours without them.
        if let Ok(text) = serde_json::to_vec(&holder) {
            drop(
                turn.file
                    .set_size(0)
                    .and_then(|()| turn.file.write_all_at(0, &text)),
            );
        }
        Ok(Ok(turn))
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        // The words only; the lock itself ends when the file is closed.
        drop(self.file.set_size(0));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_one_members_at_a_time() {
        let place = tempfile::tempdir().unwrap();
        let first = Turn::take(place.path(), "node1:2113").unwrap().unwrap();
        assert_eq!(
            Turn::take(place.path(), "node2:2113").unwrap().unwrap_err(),
            "node1:2113"
        );
        drop(first);
        let second = Turn::take(place.path(), "node2:2113").unwrap().unwrap();
        assert_eq!(
            Turn::take(place.path(), "node1:2113").unwrap().unwrap_err(),
            "node2:2113"
        );
        drop(second);
        assert!(Turn::take(&place.path().join("unmounted"), "node1:2113").is_err());
    }
}
