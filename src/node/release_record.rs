//! The release record: what kbackup took from a node and has to give back to it.
//!
//! A record is written before anything is taken. There is one JSON file per node in a local state
//! directory, so that after a crash the next run, or `kbackup release` without any repository,
//! gives everything back. The run that quiesces a node locks its file. The lock ends with the
//! process.

use std::fmt;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{Session, last_stop};
use crate::clock::{self, Timestamp};
use crate::error::{Error, Kind, Result};
use crate::fs;
use crate::manifest::Blake3Hash;

/// The version of the record that this program writes.
const FORMAT: u32 = 1;
const MAX_RECORD: u64 = 64 * 1024;
/// A run that lists the records holds each lock for a moment.
const LOCK_ATTEMPTS: u32 = 5;
const LOCK_PAUSE: Duration = Duration::from_millis(20);

/// Everything that has to be given back to one node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReleaseRecord {
    format: u32,
    /// How to find the node again.
    pub node: RecordedNode,
    /// The scavenge that was stopped.
    pub scavenge: Option<StoppedScavenge>,
    /// Set if auto-scavenge was paused and has to be resumed.
    pub auto_scavenge: Option<PausedAutoScavenge>,
    /// The number of the process that wrote the record.
    pub process: u32,
}

/// How to find a node again. It holds no credentials.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordedNode {
    /// The URL as the operator gave it.
    pub url: String,
    /// The unix socket, if the node was asked through it.
    pub unix_socket: Option<PathBuf>,
    /// The advertised `host:port`.
    pub endpoint: Option<String>,
    /// The server process at that time.
    pub instance: Option<Uuid>,
}

/// A scavenge that was stopped before it was done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoppedScavenge {
    /// The id that the server gave it.
    pub id: String,
    /// Number of threads with which it is started again.
    pub threads: u32,
    /// Throttle with which it is started again, in percent; the node does not report the old value.
    pub throttle_percent: u32,
    /// The first chunk number that it scavenged, if the node told it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_from_chunk: Option<u32>,
    /// When it was put on record, right before it was told to stop.
    pub since: Timestamp,
    /// The request to stop it has been sent. False if the run died before that, or while it sent
    /// the request; in that case the node may have received it.
    #[serde(default)]
    pub told: bool,
}

/// A pause of auto-scavenge that kbackup asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PausedAutoScavenge {
    /// When it was put on record, right before it was paused.
    pub since: Timestamp,
}

impl ReleaseRecord {
    /// True if nothing has to be given back.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.scavenge.is_none() && self.auto_scavenge.is_none()
    }

    /// Whether an operator who writes `node` means this one: by its URL, its socket or its
    /// advertised endpoint.
    #[must_use]
    pub fn is_of(&self, node: &str) -> bool {
        let node = node.trim_end_matches('/');
        let socket = Path::new(node.trim_start_matches("unix:"));

        self.node.url.trim_end_matches('/') == node
            || self.node.endpoint.as_deref() == Some(node)
            || self.node.unix_socket.as_deref() == Some(socket)
    }

    /// The stopped scavenge, if it has this id.
    fn scavenge_of(&self, id: &str) -> Option<&StoppedScavenge> {
        self.scavenge.as_ref().filter(|stopped| stopped.id == id)
    }
}

impl fmt::Display for RecordedNode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.unix_socket {
            Some(socket) => write!(f, "unix:{}", socket.display()),
            None => f.write_str(self.url.trim_end_matches('/')),
        }
    }
}

/// The release records of all nodes, in a local state directory.
#[derive(Debug, Clone)]
pub struct ReleaseRecords {
    directory: PathBuf,
}

/// One node's record, as it was listed.
#[derive(Debug, Clone)]
pub struct ListedRecord {
    /// What the file says.
    pub record: ReleaseRecord,
    /// Another run holds the record and will give everything back itself.
    pub in_use: bool,
    name: String,
}

/// Creates the state directory if it does not exist. After a loss of power it must still exist, or
/// the record in it would be lost.
///
/// # Errors
/// [`Kind::Denied`] or [`Kind::Failed`] if the directory cannot be created.
pub fn create_state_directory(directory: &Path) -> Result<()> {
    fs::create_directories_durably(directory, 0o700, 0o700).map_err(|error| {
        let is_denied = error.source.kind() == ErrorKind::PermissionDenied;
        let error = Error::from(error).with_what("cannot create the state directory");
        if !is_denied {
            return error;
        }

        error
            .without_hints()
            .hint("name a directory that this user may write with `--state-dir`")
    })
}

impl ReleaseRecords {
    /// The records in `directory`. A missing directory is created for this user alone.
    ///
    /// # Errors
    /// [`Kind::Denied`] or [`Kind::Failed`] if the directory cannot be created.
    pub fn open(directory: &Path) -> Result<Self> {
        create_state_directory(directory)?;

        Ok(Self {
            directory: directory.to_owned(),
        })
    }

    /// The records of all nodes.
    ///
    /// # Errors
    /// [`Kind::StoredCorrupt`] if a record is damaged, [`Kind::Refused`] if a newer kbackup wrote
    /// it.
    pub fn records(&self) -> Result<Vec<ListedRecord>> {
        let mut records = Vec::new();
        for entry in fs::list(&self.directory)? {
            let name = entry.name.to_str().unwrap_or_default();
            let Some(name) = name.strip_suffix(".json") else {
                continue;
            };
            let Some(record) = self.read(name)? else {
                continue;
            };

            let in_use = self.lock(name)?.is_none();
            records.push(ListedRecord {
                record,
                in_use,
                name: name.to_owned(),
            });
        }

        Ok(records)
    }

    /// Locks the node's record against other runs. It still holds what an earlier run did not give
    /// back.
    ///
    /// # Errors
    /// [`Kind::Locked`] while another run quiesces this node.
    pub fn hold(&self, session: &Session) -> Result<HeldRecord> {
        let whereabouts = session.whereabouts();
        let name = name_of(session);
        let (lock, earlier) = self.lock_and_read(&name)?;

        let (scavenge, auto_scavenge) = match earlier {
            Some(earlier) => (earlier.scavenge, earlier.auto_scavenge),
            None => (None, None),
        };
        let connection = session.client().connection();
        let record = ReleaseRecord {
            format: FORMAT,
            node: RecordedNode {
                url: connection.url.clone(),
                unix_socket: connection.unix_socket.clone(),
                endpoint: whereabouts.endpoint.clone(),
                instance: whereabouts.instance,
            },
            scavenge,
            auto_scavenge,
            process: std::process::id(),
        };

        Ok(self.held(&name, record, lock))
    }

    /// When a run with this state directory last interrupted a scavenge on this node. Returns
    /// `None` if none is known.
    #[must_use]
    pub fn last_stop(&self, session: &Session) -> Option<Timestamp> {
        let record = self.path(&name_of(session), "json");
        last_stop::read(&last_stop::path_beside(&record))
    }

    /// Locks a listed record, to give back what it says. Returns `None` if another run has given
    /// everything back since it was listed.
    ///
    /// # Errors
    /// [`Kind::Locked`] while another run quiesces this node.
    pub fn hold_listed(&self, listed: &ListedRecord) -> Result<Option<HeldRecord>> {
        let (lock, record) = self.lock_and_read(&listed.name)?;
        let Some(record) = record else {
            return Ok(None);
        };

        Ok(Some(self.held(&listed.name, record, lock)))
    }

    fn held(&self, name: &str, record: ReleaseRecord, lock: fs::File) -> HeldRecord {
        HeldRecord {
            directory: self.directory.clone(),
            path: self.path(name, "json"),
            record,
            scavenge_recorded: None,
            pause_recorded: None,
            _lock: lock,
        }
    }

    fn lock_and_read(&self, name: &str) -> Result<(fs::File, Option<ReleaseRecord>)> {
        let mut lock = self.lock(name)?;
        for _ in 0..LOCK_ATTEMPTS {
            if lock.is_some() {
                break;
            }
            std::thread::sleep(LOCK_PAUSE);
            lock = self.lock(name)?;
        }

        let record = self.read(name)?;
        let Some(lock) = lock else {
            return Err(self.locked(name, record.as_ref()));
        };

        // A killed run may have left temporary files here, of this record or of another one. If
        // they cannot be removed they do no harm.
        let _ = fs::remove_stale_staging(&self.directory);
        Ok((lock, record))
    }

    fn locked(&self, name: &str, record: Option<&ReleaseRecord>) -> Error {
        let who = match record {
            Some(record) => format!(" (process {})", record.process),
            None => String::new(),
        };

        Error::new(
            Kind::Locked,
            format!("another run of kbackup{who} works on this node"),
        )
        .at(&self.path(name, "lock"))
        .hint("wait until it ends; it gives back to the node what it stopped")
    }

    fn lock(&self, name: &str) -> Result<Option<fs::File>> {
        let file = fs::open_or_create(&self.path(name, "lock"), 0o600)?;
        Ok(if file.try_lock()? { Some(file) } else { None })
    }

    fn read(&self, name: &str) -> Result<Option<ReleaseRecord>> {
        let path = self.path(name, "json");
        if fs::status(&path)?.is_none() {
            return Ok(None);
        }
        let bytes = match fs::read_small(&path, MAX_RECORD) {
            Err(error) if error.is_not_found() => return Ok(None),
            result => result?,
        };

        parse(&bytes, &path).map(Some)
    }

    fn path(&self, name: &str, extension: &str) -> PathBuf {
        self.directory.join(format!("{name}.{extension}"))
    }
}

/// Reads the version first, because a newer record may have other fields.
fn parse(bytes: &[u8], path: &Path) -> Result<ReleaseRecord> {
    #[derive(Deserialize)]
    struct RecordVersion {
        format: u32,
    }

    let version: RecordVersion =
        serde_json::from_slice(bytes).map_err(|error| corrupt(path, error))?;
    if version.format > FORMAT {
        return Err(Error::new(
            Kind::Refused,
            format!(
                "the release record has format {}, this program knows {FORMAT}",
                version.format
            ),
        )
        .at(path)
        .hint("use the newer kbackup that wrote it"));
    }

    serde_json::from_slice(bytes).map_err(|error| corrupt(path, error))
}

fn corrupt(path: &Path, error: serde_json::Error) -> Error {
    Error::new(Kind::StoredCorrupt, "a release record cannot be read")
        .at(path)
        .because(error)
        .hint(
            "if the node's auto-scavenge is paused, resume it by hand; \
             then remove the file",
        )
}

/// One node's record. No other run can change it until this value is dropped.
#[derive(Debug)]
pub struct HeldRecord {
    directory: PathBuf,
    path: PathBuf,
    record: ReleaseRecord,
    /// When this run put the scavenge on record, by the monotonic clock.
    scavenge_recorded: Option<Instant>,
    pause_recorded: Option<Instant>,
    _lock: fs::File,
}

impl HeldRecord {
    /// What has to be given back now.
    #[must_use]
    pub const fn record(&self) -> &ReleaseRecord {
        &self.record
    }

    /// Puts a scavenge on record. It replaces an earlier one, because each scavenge continues where
    /// the one before it was stopped. Returns how long the replaced one was on record.
    ///
    /// # Errors
    /// [`Kind::Failed`] if the record cannot be written. Then nothing may be taken from the node.
    pub fn record_scavenge(
        &mut self,
        id: &str,
        threads: u32,
        throttle_percent: u32,
        start_from_chunk: Option<u32>,
    ) -> Result<Option<Duration>> {
        // An earlier run may have stopped the same scavenge.
        let told = match self.record.scavenge_of(id) {
            Some(stopped) => stopped.told,
            None => false,
        };
        let replaced = match &self.record.scavenge {
            Some(earlier) if earlier.id != id => Some(earlier.since),
            _ => None,
        };

        let stopped = StoppedScavenge {
            id: id.to_owned(),
            threads,
            throttle_percent,
            start_from_chunk,
            since: clock::now(),
            told,
        };
        self.change(|record| record.scavenge = Some(stopped))?;

        let recorded = self.scavenge_recorded.replace(Instant::now());
        Ok(replaced.map(|since| time_on_record(recorded, Some(since))))
    }

    /// Notes that the scavenge on record has been told to stop.
    ///
    /// # Errors
    /// [`Kind::Failed`] if the record cannot be written.
    pub fn record_stop_request(&mut self) -> Result<()> {
        self.change(|record| {
            if let Some(stopped) = &mut record.scavenge {
                stopped.told = true;
            }
        })
    }

    /// Notes that a scavenge is interrupted now, for `--scavenge-rest`.
    ///
    /// # Errors
    /// [`Kind::Failed`] if the note cannot be written.
    pub fn note_stop(&self) -> Result<()> {
        last_stop::note(&last_stop::path_beside(&self.path))
    }

    /// Puts a pause of auto-scavenge on record.
    ///
    /// # Errors
    /// As [`Self::record_scavenge`].
    pub fn record_pause(&mut self) -> Result<()> {
        let paused = PausedAutoScavenge {
            since: clock::now(),
        };
        self.change(|record| record.auto_scavenge = Some(paused))?;

        self.pause_recorded = Some(Instant::now());
        Ok(())
    }

    /// Removes the scavenge from the record, because it was given back or had finished. Returns how
    /// long it was on record.
    ///
    /// # Errors
    /// [`Kind::Failed`] if the record cannot be written. The scavenge may then be given back twice,
    /// which is harmless.
    pub fn clear_scavenge(&mut self) -> Result<Duration> {
        let since = self.record.scavenge.as_ref().map(|stopped| stopped.since);
        self.change(|record| record.scavenge = None)?;

        Ok(time_on_record(self.scavenge_recorded.take(), since))
    }

    /// Removes the pause from the record, because auto-scavenge was resumed. Returns how long it
    /// was on record.
    ///
    /// # Errors
    /// As [`Self::clear_scavenge`].
    pub fn clear_pause(&mut self) -> Result<Duration> {
        let since = self
            .record
            .auto_scavenge
            .as_ref()
            .map(|paused| paused.since);
        self.change(|record| record.auto_scavenge = None)?;

        Ok(time_on_record(self.pause_recorded.take(), since))
    }

    /// Changes the file before the copy in memory, so that memory never holds more than the disk.
    fn change(&mut self, change: impl FnOnce(&mut ReleaseRecord)) -> Result<()> {
        let mut record = self.record.clone();
        change(&mut record);

        if record.is_empty() {
            fs::remove_file(&self.path)?;
            fs::sync_directory(&self.directory)?;
        } else {
            let text = serde_json::to_vec_pretty(&record).map_err(|error| {
                Error::new(Kind::Failed, "cannot write the release record")
                    .at(&self.path)
                    .because(error)
            })?;
            fs::write_durably(&self.path, &text, 0o600)?;
        }

        self.record = record;
        Ok(())
    }
}

/// How long something was on record. If an earlier run recorded it, this uses the wall clock, and
/// returns zero if that went back.
fn time_on_record(recorded: Option<Instant>, since: Option<Timestamp>) -> Duration {
    if let Some(recorded) = recorded {
        return recorded.elapsed();
    }
    let Some(since) = since else {
        return Duration::ZERO;
    };

    Duration::try_from(clock::now().duration_since(since)).unwrap_or_default()
}

fn name_of(session: &Session) -> String {
    match &session.whereabouts().endpoint {
        Some(endpoint) => file_name(endpoint),
        None => file_name(&session.client().place()),
    }
}

/// The name of a node's file: readable, and different for different places.
fn file_name(place: &str) -> String {
    const READABLE: usize = 80;
    const DIGEST: usize = 8;

    let mut readable = String::new();
    for character in place.chars().take(READABLE) {
        let is_plain = character.is_ascii_alphanumeric() || "-.".contains(character);
        readable.push(if is_plain { character } else { '_' });
    }

    let digest = Blake3Hash::of(place.as_bytes()).to_string();
    let digest: String = digest.chars().take(DIGEST).collect();
    format!("{}-{digest}", readable.trim_start_matches('.'))
}

#[cfg(test)]
mod tests {
    use super::file_name;

    #[test]
    fn names_files_after_places() {
        assert!(file_name("127.0.0.1:2113").starts_with("127.0.0.1_2113-"));
        assert_ne!(file_name("a:b"), file_name("a/b"));
        assert!(!file_name("../../etc/passwd").contains('/'));
        assert!(!file_name("..").starts_with('.'));
    }
}
