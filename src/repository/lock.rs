//! The lock that makes a run the repository's only writer. It is a `flock`, so the kernel gives it
//! back if the process dies, and nobody ever has to remove it.

use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::clock::{self, Timestamp};
use crate::error::{Error, Kind, Result};
use crate::fs;
use crate::users;

/// The lock, taken. Dropping it gives it back.
#[derive(Debug)]
pub(super) struct Lock {
    file: fs::File,
}

/// The run that holds the lock. The lock file names it for an operator who has to wait.
#[derive(Debug, Serialize, Deserialize)]
struct Holder {
    pid: u32,
    host: String,
    user: String,
    command: String,
    since: Timestamp,
}

const MAX_BYTES: u64 = 64 * 1024;
/// [`Lock::is_held`] takes the lock for a moment. A run must not fail because somebody lists the
/// backups at that moment, so it tries again.
const TRIES: u32 = 5;
const PAUSE: Duration = Duration::from_millis(10);

impl Lock {
    /// Takes the lock. If another run has it, the error names that run.
    ///
    /// # Errors
    /// `Locked` if another run has it.
    pub(super) fn take(path: &Path) -> Result<Self> {
        let file = fs::open_or_create(path, 0o600)?;
        if !patiently(|| try_lock(&file))? {
            return Err(
                Error::new(Kind::Locked, "another run writes to this repository")
                    .at(path)
                    .because(holder_of(path))
                    .hint("wait until it has ended; a lock never outlives its process"),
            );
        }

        let text = serde_json::to_string(&Holder::this_process())
            .map_err(|error| Error::new(Kind::Failed, "cannot write the lock").because(error))?;
        let lock = Self { file };
        lock.file.set_size(0)?;
        lock.file.write_all_at(0, text.as_bytes())?;
        Ok(lock)
    }

    /// Whether a run has the lock now.
    pub(super) fn is_held(path: &Path) -> Result<bool> {
        match fs::open(path) {
            Ok(file) => Ok(!file.try_lock()?),
            Err(error) if error.is_not_found() => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}

fn try_lock(file: &fs::File) -> Result<bool> {
    file.try_lock().map_err(|error| {
        Error::from(error).hint("a repository needs a file system with locks (`flock`)")
    })
}

/// Repeats `try_lock` for a while, because another process may hold the lock only for a moment.
pub(super) fn patiently(try_lock: impl Fn() -> Result<bool>) -> Result<bool> {
    for _ in 0..TRIES {
        if try_lock()? {
            return Ok(true);
        }
        std::thread::sleep(PAUSE);
    }
    try_lock()
}

impl Drop for Lock {
    fn drop(&mut self) {
        // This removes only the text. The lock itself ends when the file is closed.
        let _ = self.file.set_size(0);
    }
}

impl Holder {
    fn this_process() -> Self {
        let host =
            fs::read_small(Path::new("/proc/sys/kernel/hostname"), MAX_BYTES).unwrap_or_default();
        Self {
            pid: std::process::id(),
            host: String::from_utf8_lossy(&host).trim().to_owned(),
            user: users::this_user(),
            // The verb only: the rest of the command line may be long, or private.
            command: std::env::args().nth(1).unwrap_or_default(),
            since: clock::now(),
        }
    }
}

/// Who holds the lock, in words.
fn holder_of(path: &Path) -> String {
    let unknown = "the lock does not say which run".to_owned();
    let Ok(bytes) = fs::read_small(path, MAX_BYTES) else {
        return unknown;
    };
    let Ok(holder) = serde_json::from_slice::<Holder>(&bytes) else {
        return unknown;
    };

    let Holder {
        pid,
        host,
        user,
        command,
        since,
    } = holder;
    format!("`{command}` by {user} on {host}, process {pid}, since {since}")
}
