//! What was taken from a node and has to be given back, on record before it is taken.
//!
//! One JSON file per node in a local state directory, so that a crash is repaired by the next run,
//! or by `kbackup release` without any repository. A file is locked by the run that keeps the node
//! quiet; a process that died holds no lock.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::Session;
use crate::clock::{self, Timestamp};
use crate::error::{Error, Kind, Result};
use crate::fs;
use crate::manifest::Blake3Hash;

/// The version of the record that this program writes.
const FORMAT: u32 = 1;
const MAX_RECORD: u64 = 64 * 1024;
/// Whoever lists the records holds each lock for a moment.
const LOCK_ATTEMPTS: u32 = 5;
const LOCK_PAUSE: Duration = Duration::from_millis(20);

/// Everything that one node is owed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Debt {
    format: u32,
    /// Where it lives.
    pub node: DebtNode,
    /// A scavenge that was stopped.
    pub scavenge: Option<OwedScavenge>,
    /// Auto-scavenge was paused, and is to be resumed.
    pub auto_scavenge: Option<OwedResume>,
    /// The number of the process that took it.
    pub process: u32,
}

/// How to find the node again. Without credentials.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DebtNode {
    /// Its URL.
    pub url: String,
    /// Its unix socket, where it was asked through it.
    pub unix_socket: Option<PathBuf>,
    /// Its advertised `host:port`.
    pub endpoint: Option<String>,
    /// The server process at that time.
    pub instance: Option<Uuid>,
}

/// A scavenge that was stopped before it was done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OwedScavenge {
    /// The server's id of it.
    pub id: String,
    /// With how many threads to go on; the node does not tell the old number.
    pub threads: u32,
    /// With how much of the time to go on, in percent; the node does not tell the old value.
    pub throttle_percent: u32,
    /// When it was put on record, right before it was told to stop.
    pub since: Timestamp,
    /// The request to stop it has been sent. False where the run died before that, or while it was
    /// sent: then nobody knows.
    #[serde(default)]
    pub told: bool,
}

/// A pause that was asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OwedResume {
    /// When it was paused.
    pub since: Timestamp,
}

impl Debt {
    /// Nothing is owed.
    #[must_use]
    pub const fn is_settled(&self) -> bool {
        self.scavenge.is_none() && self.auto_scavenge.is_none()
    }

    /// Whether an operator who writes `node` means this one: by its URL, its socket or its
    /// advertised endpoint.
    #[must_use]
    pub fn is_of(&self, node: &str) -> bool {
        let node = node.trim_end_matches('/');
        self.node.url.trim_end_matches('/') == node
            || self.node.endpoint.as_deref() == Some(node)
            || self.node.unix_socket.as_deref() == Some(Path::new(node.trim_start_matches("unix:")))
    }
}

impl fmt::Display for DebtNode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.unix_socket {
            Some(socket) => write!(f, "unix:{}", socket.display()),
            None => f.write_str(self.url.trim_end_matches('/')),
        }
    }
}

/// The state directory.
#[derive(Debug, Clone)]
pub struct Ledger {
    directory: PathBuf,
}

/// One node's record on file.
#[derive(Debug, Clone)]
pub struct Record {
    /// What is owed.
    pub debt: Debt,
    /// Another run is at work on this node, and will give it back itself.
    pub in_use: bool,
    name: String,
}

impl Ledger {
    /// The records in `directory`, which is made for this user alone where it is missing.
    ///
    /// # Errors
    /// What the file system reports.
    pub fn open(directory: &Path) -> Result<Self> {
        // A record in a directory that a loss of power takes away would be a forgotten debt.
        fs::create_directories_durably(directory, 0o700, 0o700)?;
        Ok(Self {
            directory: directory.to_owned(),
        })
    }

    /// What is owed to all nodes.
    ///
    /// # Errors
    /// What the file system reports; [`Kind::StoredCorrupt`] for a record that cannot be read.
    pub fn records(&self) -> Result<Vec<Record>> {
        let mut records = Vec::new();
        for entry in fs::list(&self.directory)? {
            let Some(name) = entry
                .name
                .to_str()
                .and_then(|name| name.strip_suffix(".json"))
            else {
                continue;
            };
            if let Some(debt) = self.read(name)? {
                let in_use = self.lock(name)?.is_none();
                records.push(Record {
                    debt,
                    in_use,
                    name: name.to_owned(),
                });
            }
        }
        Ok(records)
    }

    /// Takes the node's record, so that no other run touches it, with what an earlier run left in
    /// it.
    ///
    /// # Errors
    /// [`Kind::Locked`] while another run keeps this node quiet; what the file system reports.
    pub fn claim(&self, session: &Session) -> Result<Claim> {
        let here = session.whereabouts();
        let connection = session.client().connection();
        let node = DebtNode {
            url: connection.url.clone(),
            unix_socket: connection.unix_socket.clone(),
            endpoint: here.endpoint.clone(),
            instance: here.instance,
        };
        let name = file_name(
            here.endpoint
                .as_deref()
                .unwrap_or(&session.client().place()),
        );
        let (lock, left) = self.claim_name(&name)?;
        let (scavenge, auto_scavenge) = left
            .map(|left| (left.scavenge, left.auto_scavenge))
            .unwrap_or_default();
        let debt = Debt {
            format: FORMAT,
            node,
            scavenge,
            auto_scavenge,
            process: std::process::id(),
        };
        Ok(Claim {
            ledger: self.clone(),
            name,
            debt,
            scavenge_taken: None,
            resume_taken: None,
            _lock: lock,
        })
    }

    /// Takes a record to settle it.
    ///
    /// # Errors
    /// As [`Self::claim`]. None where it was settled meanwhile.
    pub fn take(&self, record: &Record) -> Result<Option<Claim>> {
        let (lock, debt) = self.claim_name(&record.name)?;
        let name = record.name.clone();
        Ok(debt.map(|debt| Claim {
            ledger: self.clone(),
            name,
            debt,
            scavenge_taken: None,
            resume_taken: None,
            _lock: lock,
        }))
    }

    fn claim_name(&self, name: &str) -> Result<(fs::File, Option<Debt>)> {
        let mut lock = self.lock(name)?;
        for _ in 0..LOCK_ATTEMPTS {
            if lock.is_some() {
                break;
            }
            std::thread::sleep(LOCK_PAUSE);
            lock = self.lock(name)?;
        }
        let debt = self.read(name)?;
        let Some(lock) = lock else {
            let who = debt.map_or_else(String::new, |debt| format!(" (process {})", debt.process));
            return Err(Error::new(
                Kind::Locked,
                format!("another run of kbackup{who} works on this node"),
            )
            .at(&self.path(name, "lock"))
            .hint("wait for it; it gives back itself what it took"));
        };
        // Of this record or of another one, by a run that was killed. Where they cannot be removed
        // they are in nobody's way.
        let _ = fs::remove_stale_staging(&self.directory);
        Ok((lock, debt))
    }

    fn lock(&self, name: &str) -> Result<Option<fs::File>> {
        let file = fs::open_or_create(&self.path(name, "lock"), 0o600)?;
        Ok(if file.try_lock()? { Some(file) } else { None })
    }

    fn read(&self, name: &str) -> Result<Option<Debt>> {
        #[derive(Deserialize)]
        struct Version {
            format: u32,
        }
        let path = self.path(name, "json");
        if fs::status(&path)?.is_none() {
            return Ok(None);
        }
        let bytes = match fs::read_small(&path, MAX_RECORD) {
            Err(error) if error.is_not_found() => return Ok(None),
            result => result?,
        };
        let corrupt = |error: serde_json::Error| {
            Error::new(Kind::StoredCorrupt, "a record of what is owed to a node cannot be read")
                .at(&path)
                .because(error)
                .hint("look whether the node's auto-scavenge is paused, give it back by hand, and remove the file")
        };
        let version: Version = serde_json::from_slice(&bytes).map_err(corrupt)?;
        if version.format > FORMAT {
            return Err(Error::new(
                Kind::Refused,
                format!(
                    "the record has format {}, this program knows {FORMAT}",
                    version.format
                ),
            )
            .at(&path)
            .hint("use the newer kbackup that wrote it"));
        }
        serde_json::from_slice(&bytes).map(Some).map_err(corrupt)
    }

    fn path(&self, name: &str, extension: &str) -> PathBuf {
        self.directory.join(format!("{name}.{extension}"))
    }
}

/// One node's record, held by this run alone until it is dropped.
#[derive(Debug)]
pub struct Claim {
    ledger: Ledger,
    name: String,
    debt: Debt,
    /// When this run put it on record, by a clock that nobody sets.
    scavenge_taken: Option<Instant>,
    resume_taken: Option<Instant>,
    _lock: fs::File,
}

impl Claim {
    /// What is owed.
    #[must_use]
    pub const fn debt(&self) -> &Debt {
        &self.debt
    }

    /// Puts a scavenge on record, in place of an earlier one: each goes on where the one before it
    /// was stopped. Returns how long an earlier one was owed.
    ///
    /// # Errors
    /// What the file system reports; then nothing may be taken.
    pub fn owe_scavenge(
        &mut self,
        id: &str,
        threads: u32,
        throttle_percent: u32,
    ) -> Result<Option<Duration>> {
        // A run before this one may have told it.
        let told = self
            .debt
            .scavenge
            .as_ref()
            .is_some_and(|owed| owed.id == id && owed.told);
        let owed = OwedScavenge {
            id: id.to_owned(),
            threads,
            throttle_percent,
            since: clock::now(),
            told,
        };
        let replaced = self
            .debt
            .scavenge
            .as_ref()
            .filter(|earlier| earlier.id != id)
            .map(|earlier| earlier.since);
        self.change(|debt| debt.scavenge = Some(owed))?;
        let taken = self.scavenge_taken.replace(Instant::now());
        Ok(replaced.map(|since| passed(taken, Some(since))))
    }

    /// The scavenge on record has been told to stop, and will.
    ///
    /// # Errors
    /// What the file system reports.
    pub fn told_scavenge(&mut self) -> Result<()> {
        self.change(|debt| {
            if let Some(owed) = &mut debt.scavenge {
                owed.told = true;
            }
        })
    }

    /// Puts a pause of auto-scavenge on record.
    ///
    /// # Errors
    /// As [`Self::owe_scavenge`].
    pub fn owe_resume(&mut self) -> Result<()> {
        self.change(|debt| {
            debt.auto_scavenge = Some(OwedResume {
                since: clock::now(),
            })
        })?;
        self.resume_taken = Some(Instant::now());
        Ok(())
    }

    /// The scavenge was given back. Returns how long it was owed.
    ///
    /// # Errors
    /// What the file system reports; it may then be given back twice, which is harmless.
    pub fn settle_scavenge(&mut self) -> Result<Duration> {
        let since = self.debt.scavenge.as_ref().map(|owed| owed.since);
        self.change(|debt| debt.scavenge = None)?;
        Ok(passed(self.scavenge_taken.take(), since))
    }

    /// Auto-scavenge was resumed. Returns how long it was paused.
    ///
    /// # Errors
    /// As [`Self::settle_scavenge`].
    pub fn settle_resume(&mut self) -> Result<Duration> {
        let since = self.debt.auto_scavenge.as_ref().map(|owed| owed.since);
        self.change(|debt| debt.auto_scavenge = None)?;
        Ok(passed(self.resume_taken.take(), since))
    }

    fn change(&mut self, change: impl FnOnce(&mut Debt)) -> Result<()> {
        let mut debt = self.debt.clone();
        change(&mut debt);
        let path = self.ledger.path(&self.name, "json");
        if debt.is_settled() {
            fs::remove_file(&path)?;
            fs::sync_directory(&self.ledger.directory)?;
        } else {
            let text = serde_json::to_vec_pretty(&debt).map_err(|error| {
                Error::new(Kind::Failed, "cannot write down what is owed to the node")
                    .at(&path)
                    .because(error)
            })?;
            fs::write_durably(&path, &text, 0o600)?;
        }
        self.debt = debt;
        Ok(())
    }
}

/// How long something was owed. Of what an earlier run took, only the clock on the wall can tell;
/// one that went back says zero.
fn passed(taken: Option<Instant>, since: Option<Timestamp>) -> Duration {
    let by_the_wall =
        || since.and_then(|since| Duration::try_from(clock::now().duration_since(since)).ok());
    taken
        .map(|taken| taken.elapsed())
        .or_else(by_the_wall)
        .unwrap_or_default()
}

/// A file's name for a place: readable, and different for different places.
fn file_name(place: &str) -> String {
    let readable: String = place
        .chars()
        .map(|character| {
            if character.is_ascii_alphanumeric() || "-.".contains(character) {
                character
            } else {
                '_'
            }
        })
        .take(80)
        .collect();
    let digest: String = Blake3Hash::of(place.as_bytes())
        .to_string()
        .chars()
        .take(8)
        .collect();
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
