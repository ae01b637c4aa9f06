//! The lock that makes the members of a cluster run one after another. It is on a file in the
//! directory that holds their repositories. The lock ends with its process, so a crash frees it.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::clock::{self, Timestamp};
use crate::error::{Error, Result};
use crate::fs;

const NAME: &str = "turn";
const MAX_BYTES: u64 = 64 * 1024;
/// Agents of several users share the file.
const FILE_MODE: u32 = 0o660;

/// A member's turn. It lasts until the lock is dropped.
#[derive(Debug)]
pub(super) struct TurnLock {
    file: fs::File,
}

/// What the file says, for the members that wait.
#[derive(Debug, Serialize, Deserialize)]
struct TurnHolder {
    member: String,
    since: Timestamp,
}

impl TurnLock {
    /// Takes the turn for a member without waiting. If another member has it, returns that
    /// member's name as the inner error.
    ///
    /// # Errors
    /// If the directory cannot be written, or its file system has no locks.
    pub(super) fn take(
        directory: &Path,
        member: &str,
    ) -> Result<std::result::Result<Self, String>> {
        let path = directory.join(NAME);
        let file = fs::open_or_create(&path, FILE_MODE).map_err(cannot_lock)?;
        if !file.try_lock().map_err(cannot_lock)? {
            return Ok(Err(holder(&path)));
        }

        let turn = Self { file };
        let holder = TurnHolder {
            member: member.to_owned(),
            since: clock::now(),
        };
        // The other members show the text. The lock holds without it.
        if let Ok(text) = serde_json::to_vec(&holder)
            && turn.file.set_size(0).is_ok()
        {
            drop(turn.file.write_all_at(0, &text));
        }

        Ok(Ok(turn))
    }
}

impl Drop for TurnLock {
    fn drop(&mut self) {
        // This removes the text only. The lock ends when the file is closed.
        drop(self.file.set_size(0));
    }
}

/// The member that has the turn, as far as the file says.
fn holder(path: &Path) -> String {
    let holder = fs::read_small(path, MAX_BYTES)
        .ok()
        .and_then(|bytes| serde_json::from_slice::<TurnHolder>(&bytes).ok());

    match holder {
        Some(holder) => holder.member,
        None => "another member".to_owned(),
    }
}

fn cannot_lock(error: impl Into<Error>) -> Error {
    error.into().hint(
        "give turns a directory that every agent can write to, \
         on a file system with locks (`flock`)",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_member_has_the_turn_at_a_time() {
        let place = tempfile::tempdir().unwrap();
        let first = TurnLock::take(place.path(), "node1:2113").unwrap().unwrap();
        assert_eq!(
            TurnLock::take(place.path(), "node2:2113")
                .unwrap()
                .unwrap_err(),
            "node1:2113"
        );

        drop(first);
        let second = TurnLock::take(place.path(), "node2:2113").unwrap().unwrap();
        assert_eq!(
            TurnLock::take(place.path(), "node1:2113")
                .unwrap()
                .unwrap_err(),
            "node2:2113"
        );

        drop(second);
        assert!(TurnLock::take(&place.path().join("unmounted"), "node1:2113").is_err());
    }
}
