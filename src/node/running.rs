//! Does a server run on this directory? (http-api §6.2, O6.)
//!
//! This is the only code that locks a file of the server: it opens the file for reading, takes an
//! exclusive lock, and releases it at once. `open_files` looks through the processes.

use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};

use md5::{Digest, Md5};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use rustix::process::{Flock, FlockType, fcntl_getlk};

use super::open_files::processes_that_write;
use super::{Client, Patience};
use crate::error::{Error, Kind, Result};
use crate::format::Md5Hash;
use crate::format::checkpoint::Checkpoint;
use crate::format::names;
use crate::fs::{self, Operation};
use crate::manifest::Directories;

/// Where .NET keeps the named mutexes of a machine; the path is part of .NET.
const MUTEXES: &str = "/tmp/.dotnet/shm/global";

/// Something that only a running server does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RunningSign {
    /// It holds a lock on this file.
    Locked(PathBuf),
    /// A process holds a lock on `kurrent.ddb`.
    DatabaseLocked {
        /// The file.
        path: PathBuf,
        /// The process; `None` if kbackup cannot see it.
        process: Option<u32>,
    },
    /// A process listens on its socket.
    Listens(PathBuf),
    /// A process has this file open for writing.
    Open {
        /// The file.
        path: PathBuf,
        /// The process.
        process: u32,
        /// The process's name.
        name: String,
    },
    /// It holds the mutex for this directory.
    Mutex(PathBuf),
    /// The node at this URL says that it runs here.
    Answers(String),
}

impl fmt::Display for RunningSign {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Locked(path)
            | Self::DatabaseLocked {
                path,
                process: None,
            } => write!(f, "`{}` is locked", path.display()),
            Self::DatabaseLocked {
                path,
                process: Some(process),
            } => write!(f, "`{}` is locked by process {process}", path.display()),

            Self::Listens(path) => write!(f, "a process listens on `{}`", path.display()),
            Self::Open {
                path,
                process,
                name,
            } => write!(
                f,
                "process {process} ({name}) has `{}` open for writing",
                path.display()
            ),

            Self::Mutex(path) => write!(
                f,
                "the server's mutex for this directory is held (`{}`)",
                path.display()
            ),
            Self::Answers(url) => write!(f, "the node at {url} says that it uses this directory"),
        }
    }
}

/// Something that the probes could not find out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProbeDoubt {
    /// Another machine may use the directory. Its locks cannot be seen here.
    Network {
        /// The directory.
        path: PathBuf,
        /// The kind of file system.
        kind: &'static str,
    },
    /// kbackup could not probe this file or directory.
    Unprobed {
        /// The file or directory.
        path: PathBuf,
        /// Why it could not be probed.
        why: String,
    },
    /// The number of processes of other users whose files cannot be seen. The locks show their
    /// servers all the same.
    HiddenProcesses(usize),
    /// The node at this URL could not be asked for its directories.
    Unasked {
        /// The URL.
        url: String,
        /// Why it could not be asked.
        why: String,
    },
}

impl ProbeDoubt {
    /// Whether a server may be running in spite of it.
    #[must_use]
    pub const fn matters(&self) -> bool {
        matches!(self, Self::Network { .. } | Self::Unprobed { .. })
    }
}

impl fmt::Display for ProbeDoubt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Network { path, kind } => write!(
                f,
                "`{}` is on {kind}: another machine may use it",
                path.display()
            ),
            Self::Unprobed { path, why } => {
                write!(f, "`{}` could not be probed: {why}", path.display())
            }
            Self::HiddenProcesses(count) => write!(
                f,
                "processes of other users that could not be looked at: {count}"
            ),
            Self::Unasked { url, why } => write!(f, "the node at {url} could not be asked: {why}"),
        }
    }
}

/// What the probes found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ProbeFindings {
    /// Everything that shows a running server.
    pub signs: Vec<RunningSign>,
    /// Everything that could not be found out.
    pub doubts: Vec<ProbeDoubt>,
}

impl ProbeFindings {
    /// At least one probe says that a server runs.
    #[must_use]
    pub fn is_running(&self) -> bool {
        !self.signs.is_empty()
    }

    /// Refuses an action that must not happen beside a running server. `what` begins the message,
    /// for example "cannot restore into this directory".
    ///
    /// # Errors
    /// [`Kind::Refused`] if a server runs. Also if one may run unseen, and the operator did not
    /// confirm that none does.
    pub fn refuse(&self, what: &str, directory: &Path, confirmed: bool) -> Result<()> {
        if self.is_running() {
            let signs: Vec<String> = self.signs.iter().map(ToString::to_string).collect();
            return Err(
                Error::new(Kind::Refused, format!("{what}: a server runs on it"))
                    .at(directory)
                    .because(signs.join("; "))
                    .hint("stop the server first"),
            );
        }

        let mut doubts: Vec<String> = Vec::new();
        for doubt in &self.doubts {
            if doubt.matters() {
                doubts.push(doubt.to_string());
            }
        }
        if doubts.is_empty() || confirmed {
            return Ok(());
        }

        Err(Error::new(
            Kind::Refused,
            format!("{what}: kbackup cannot tell whether a server runs on it"),
        )
        .at(directory)
        .because(doubts.join("; "))
        .hint("make sure that no server runs on it, on any machine, and pass `--confirm`"))
    }
}

/// Looks for a server that runs on these directories, which need not exist. Files that this process
/// itself has open do not count.
///
/// If there is a `client`, kbackup also asks that node whether it uses these directories.
///
/// # Errors
/// [`Kind::Interrupted`] only. What cannot be found out is a [`ProbeDoubt`].
pub fn probe(
    directories: &Directories,
    client: Option<(&Client, Patience<'_>)>,
) -> Result<ProbeFindings> {
    let mut findings = ProbeFindings::default();

    // On a network file system the locks of other machines may not be seen.
    for directory in [&directories.db, &directories.index] {
        findings.look_at_file_system(directory);
    }

    // A server keeps these files open and locked as long as it runs (O6).
    for checkpoint in Checkpoint::ALL {
        findings.try_lock(&checkpoint.under(&directories.db), RunningSign::Locked);
    }
    let filter = directories.index.join(names::STREAM_FILTER_CHECKPOINT);
    findings.try_lock(&filter, RunningSign::Locked);
    findings.look_at_database_lock(&directories.db.join(names::SECONDARY_INDEX));

    for name in names::SOCKETS {
        findings.try_socket(&directories.db.join(name));
    }
    for path in mutexes(&directories.db) {
        findings.try_lock(&path, RunningSign::Mutex);
    }

    findings.look_at_processes(directories);
    if let Some((client, patience)) = client {
        findings.ask_node(directories, client, patience)?;
    }
    Ok(findings)
}

impl ProbeFindings {
    fn unprobed(&mut self, path: &Path, error: &std::io::Error) {
        self.doubts.push(ProbeDoubt::Unprobed {
            path: path.to_owned(),
            why: error.to_string(),
        });
    }

    fn look_at_file_system(&mut self, directory: &Path) {
        match fs::network_file_system(directory) {
            Ok(Some(kind)) => self.doubts.push(ProbeDoubt::Network {
                path: directory.to_owned(),
                kind,
            }),
            Ok(None) => {}
            Err(error) if error.is_not_found() => {}
            Err(error) => self.unprobed(directory, &error.source),
        }
    }

    /// The server locks these files by `flock`.
    fn try_lock(&mut self, path: &Path, sign: fn(PathBuf) -> RunningSign) {
        match is_lockable(path) {
            Ok(true) => {}
            Ok(false) => self.signs.push(sign(path.to_owned())),
            Err(error) if error.is_not_found() => {}
            Err(error) => self.unprobed(path, &error.source),
        }
    }

    /// DuckDB locks by `fcntl`, which `flock` does not see.
    fn look_at_database_lock(&mut self, path: &Path) {
        match holder_of_write_lock(path) {
            Ok(Some(process)) => self.signs.push(RunningSign::DatabaseLocked {
                path: path.to_owned(),
                process,
            }),
            Ok(None) => {}
            Err(error) if error.is_not_found() => {}
            Err(error) => self.unprobed(path, &error.source),
        }
    }

    fn try_socket(&mut self, path: &Path) {
        let is_socket =
            matches!(fs::status(path), Ok(Some(status)) if status.kind == fs::FileKind::Special);
        if !is_socket {
            return;
        }

        match connect(path) {
            // A full queue of connections also shows that a process listens.
            Ok(()) | Err(Errno::AGAIN | Errno::INPROGRESS) => {
                self.signs.push(RunningSign::Listens(path.to_owned()));
            }
            // A killed server leaves its socket behind.
            Err(Errno::CONNREFUSED | Errno::NOENT) => {}
            Err(error) => self.unprobed(path, &error.into()),
        }
    }

    fn look_at_processes(&mut self, directories: &Directories) {
        let found = processes_that_write(directories);
        for file in found.open {
            self.signs.push(RunningSign::Open {
                path: file.path,
                process: file.process,
                name: file.process_name,
            });
        }
        if found.hidden > 0 {
            self.doubts.push(ProbeDoubt::HiddenProcesses(found.hidden));
        }
    }

    fn ask_node(
        &mut self,
        directories: &Directories,
        client: &Client,
        patience: Patience<'_>,
    ) -> Result<()> {
        match client.options(patience) {
            Ok(options) => {
                if let Some(db) = options.value("Db")
                    && is_same_directory(Path::new(db), &directories.db)
                {
                    self.signs.push(RunningSign::Answers(client.place()));
                }
            }
            Err(error) if matches!(error.kind(), Kind::Interrupted(_)) => return Err(error),
            // A node that does not answer at all does not run.
            Err(error) if error.kind() == Kind::Unreachable => {}
            Err(error) => self.doubts.push(ProbeDoubt::Unasked {
                url: client.place(),
                why: error.what().to_owned(),
            }),
        }

        Ok(())
    }
}

/// Takes an exclusive lock, and releases it at once. Returns false if the file is locked.
fn is_lockable(path: &Path) -> fs::Result<bool> {
    let file = fs::open_source(path)?;
    if !file.try_lock()? {
        return Ok(false);
    }

    file.unlock()?;
    Ok(true)
}

/// The process that holds a write lock on the file: `None` if none does, `Some(None)` if kbackup
/// cannot see which one does.
fn holder_of_write_lock(path: &Path) -> fs::Result<Option<Option<u32>>> {
    let question = Flock::from(FlockType::WriteLock);
    let file = fs::open_source(path)?;
    let Some(holder) = file.system(Operation::Lock, |file| fcntl_getlk(file, &question))? else {
        return Ok(None);
    };

    let process = holder.pid.map(|process| process.as_raw_nonzero().get());
    Ok(Some(process.and_then(|number| u32::try_from(number).ok())))
}

fn connect(path: &Path) -> rustix::io::Result<()> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    rustix::net::connect(socket, &SocketAddrUnix::new(path)?)
}

fn is_same_directory(one: &Path, other: &Path) -> bool {
    match (fs::canonical(one), fs::canonical(other)) {
        (Ok(one), Ok(other)) => one == other,
        _ => false,
    }
}

/// The files behind the mutexes of a server on `db`: one for each spelling of the path, because the
/// server does not resolve links (http-api §6.1).
fn mutexes(db: &Path) -> Vec<PathBuf> {
    let mut spellings: BTreeSet<PathBuf> = BTreeSet::new();
    spellings.extend(std::path::absolute(db));
    spellings.extend(fs::canonical(db));

    let mut names = BTreeSet::new();
    for path in &spellings {
        let Some(path) = path.to_str() else {
            continue;
        };
        let bare = path.trim_end_matches('/');
        names.insert(mutex_name(bare));
        names.insert(mutex_name(&format!("{bare}/")));
    }

    names
        .iter()
        .map(|name| Path::new(MUTEXES).join(name))
        .collect()
}

fn mutex_name(db: &str) -> String {
    let digest = Md5Hash(Md5::digest(db.as_bytes()).into());
    format!("ESDB-HASHED:{}", digest.to_string().to_uppercase())
}

#[cfg(test)]
mod tests {
    use super::mutex_name;

    #[test]
    fn names_the_mutex_as_the_server_does() {
        assert_eq!(
            mutex_name("/var/lib/kurrentdb"),
            "ESDB-HASHED:F8A8657FB09AD275589C1D01BD36B8CE",
            "http-api §6.1"
        );
    }
}
