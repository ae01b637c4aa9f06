use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::clock::{self, Timestamp};
use crate::error::{Error, Kind, Result};
use crate::fs;
use crate::users;

/// The place of a repository's only writer. The kernel takes it from a dead process; dropping it
/// gives it back.
#[derive(Debug)]
pub(super) struct Lock {
    file: fs::File,
}

/// Who writes, for the one who has to wait.
#[derive(Debug, Serialize, Deserialize)]
struct Holder {
    pid: u32,
    host: String,
    user: String,
    command: String,
    since: Timestamp,
}

const MAX_BYTES: u64 = 64 * 1024;
/// [`Lock::is_held`] has the lock for a moment, and no run shall fail because somebody lists the
/// backups.
const GLANCES: u32 = 5;
const GLANCE: Duration = Duration::from_millis(10);

impl Lock {
    /// Takes the place, or says who has it.
    ///
    /// # Errors
    /// `Locked`, and what the file system reports.
    pub(super) fn take(path: &Path) -> Result<Self> {
        let file = fs::open_or_create(path, 0o600)?;
        let try_lock = || {
            file.try_lock().map_err(|error| {
                Error::from(error).hint("a repository needs a file system with locks (`flock`)")
            })
        };
        if !patiently(try_lock)? {
            return Err(
                Error::new(Kind::Locked, "another run writes to this repository")
                    .at(path)
                    .because(describe(path))
                    .hint("wait until it has ended; a lock never outlives its process"),
            );
        }
        let lock = Self { file };
        let text = serde_json::to_string(&Holder::this_process())
            .map_err(|error| Error::new(Kind::Failed, "cannot write the lock").because(error))?;
        lock.file.set_size(0)?;
        lock.file.write_all_at(0, text.as_bytes())?;
        Ok(lock)
    }

    /// Whether a run has the place now.
    ///
    /// # Errors
    /// What the file system reports.
    pub(super) fn is_held(path: &Path) -> Result<bool> {
        match fs::open(path) {
            Ok(file) => Ok(!file.try_lock()?),
            Err(error) if error.is_not_found() => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}

/// Tries for as long as somebody may have the lock for no more than a glance.
pub(super) fn patiently(try_lock: impl Fn() -> Result<bool>) -> Result<bool> {
    for _ in 0..GLANCES {
        if try_lock()? {
            return Ok(true);
        }
        std::thread::sleep(GLANCE);
    }
    try_lock()
}

impl Drop for Lock {
    fn drop(&mut self) {
        // The words only; the lock itself ends when the file is closed.
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
            // The verb only: what follows may be long, and is nobody's business.
            command: std::env::args().nth(1).unwrap_or_default(),
            since: clock::now(),
        }
    }
}

fn describe(path: &Path) -> String {
    let holder = fs::read_small(path, MAX_BYTES)
        .ok()
        .and_then(|bytes| serde_json::from_slice::<Holder>(&bytes).ok());
    match holder {
        Some(Holder {
            pid,
            host,
            user,
            command,
            since,
        }) => format!("`{command}` by {user} on {host}, process {pid}, since {since}"),
        None => "it has not said who it is".to_owned(),
    }
}
