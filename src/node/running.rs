//! Does a server run on this directory? (http-api §6.2, O6.)
//!
//! The only place where kbackup ever locks a file of the server: one exclusive probe on a
//! descriptor opened for reading, given back at once.

use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};

use md5::{Digest, Md5};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use rustix::process::{Flock, FlockType, fcntl_getlk};

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
        /// The process, where it can be seen from here.
        process: Option<u32>,
    },
    /// Somebody listens on its socket.
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
    /// It holds the mutex that stands for this directory.
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
            Self::Listens(path) => write!(f, "somebody listens on `{}`", path.display()),
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

/// Something that could not be found out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProbeDoubt {
    /// The directory may be in use by another machine, whose locks are not seen here.
    Network {
        /// The directory.
        path: PathBuf,
        /// The kind of file system.
        kind: &'static str,
    },
    /// This could not be probed.
    Unprobed {
        /// On what.
        path: PathBuf,
        /// Why not.
        why: String,
    },
    /// So many processes of other users could not be looked at. The locks show their servers all
    /// the same.
    HiddenProcesses(usize),
    /// The node at this URL could not be asked for its directories.
    Unasked {
        /// The URL.
        url: String,
        /// Why not.
        why: String,
    },
}

impl ProbeDoubt {
    /// Whether a running server could hide behind it.
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
    /// What says that a server runs.
    pub signs: Vec<RunningSign>,
    /// What could not be found out.
    pub doubts: Vec<ProbeDoubt>,
}

impl ProbeFindings {
    /// At least one probe says that a server runs.
    #[must_use]
    pub fn is_running(&self) -> bool {
        !self.signs.is_empty()
    }

    /// Refuses what must not be done beside a running server. `what` is such as "cannot restore
    /// into this directory".
    ///
    /// # Errors
    /// [`Kind::Refused`] where a server runs, or may run unseen and the operator did not confirm
    /// that none does.
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
        let doubts: Vec<String> = self
            .doubts
            .iter()
            .filter(|doubt| doubt.matters())
            .map(ToString::to_string)
            .collect();
        if doubts.is_empty() || confirmed {
            return Ok(());
        }
        Err(Error::new(
            Kind::Refused,
            format!("{what}: it cannot be seen whether a server runs on it"),
        )
        .at(directory)
        .because(doubts.join("; "))
        .hint("make sure that no server runs on it, on any machine, and pass `--confirm`"))
    }
}

/// Looks for a server that runs on these directories, which need not exist. What this process
/// itself has open does not count.
///
/// `client`: also asks that node whether it runs here.
///
/// # Errors
/// [`Kind::Interrupted`] only; what cannot be found out is a [`ProbeDoubt`].
pub fn probe(
    directories: &Directories,
    client: Option<(&Client, Patience<'_>)>,
) -> Result<ProbeFindings> {
    let mut findings = ProbeFindings::default();
    for directory in [&directories.db, &directories.index] {
        match fs::network_file_system(directory) {
            Ok(Some(kind)) => findings.doubts.push(ProbeDoubt::Network {
                path: directory.clone(),
                kind,
            }),
            Ok(None) => {}
            Err(error) if error.is_not_found() => {}
            Err(error) => findings.unprobed(directory, &error),
        }
    }

    // What a server keeps open and locked as long as it lives (O6).
    for which in Checkpoint::ALL {
        findings.lock(&which.under(&directories.db), RunningSign::Locked);
    }
    let filter_checkpoint = directories.index.join(names::STREAM_FILTER_CHECKPOINT);
    findings.lock(&filter_checkpoint, RunningSign::Locked);

    findings.secondary_index(&directories.db.join(names::SECONDARY_INDEX));
    for name in names::SOCKETS {
        findings.socket(&directories.db.join(name));
    }
    for path in mutexes(&directories.db) {
        findings.lock(&path, RunningSign::Mutex);
    }
    findings.processes(directories);
    if let Some((client, patience)) = client {
        findings.node(directories, client, patience)?;
    }
    Ok(findings)
}

impl ProbeFindings {
    fn unprobed(&mut self, path: &Path, error: &fs::IoError) {
        self.doubts.push(ProbeDoubt::Unprobed {
            path: path.to_owned(),
            why: error.source.to_string(),
        });
    }

    fn lock(&mut self, path: &Path, sign: fn(PathBuf) -> RunningSign) {
        let free = fs::open_source(path).and_then(|file| {
            if file.try_lock()? {
                file.unlock().map(|()| true)
            } else {
                Ok(false)
            }
        });
        match free {
            Ok(true) => {}
            Ok(false) => self.signs.push(sign(path.to_owned())),
            Err(error) if error.is_not_found() => {}
            Err(error) => self.unprobed(path, &error),
        }
    }

    /// DuckDB locks by `fcntl`, which `flock` does not see.
    fn secondary_index(&mut self, path: &Path) {
        let question = Flock::from(FlockType::WriteLock);
        match fs::open_source(path)
            .and_then(|file| file.system(Operation::Lock, |file| fcntl_getlk(file, &question)))
        {
            Ok(Some(holder)) => {
                let process = holder
                    .pid
                    .and_then(|process| u32::try_from(process.as_raw_nonzero().get()).ok());
                self.signs.push(RunningSign::DatabaseLocked {
                    path: path.to_owned(),
                    process,
                });
            }
            Ok(None) => {}
            Err(error) if error.is_not_found() => {}
            Err(error) => self.unprobed(path, &error),
        }
    }

    fn socket(&mut self, path: &Path) {
        use rustix::io::Errno;
        if !matches!(fs::status(path), Ok(Some(status)) if status.kind == fs::FileKind::Special) {
            return;
        }
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let connected =
            rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)
                .and_then(|socket| rustix::net::connect(socket, &SocketAddrUnix::new(path)?));
        match connected {
            // Its queue of callers is full: somebody made that queue.
            Ok(()) | Err(Errno::AGAIN | Errno::INPROGRESS) => {
                self.signs.push(RunningSign::Listens(path.to_owned()));
            }
            // Left behind by a server that was killed.
            Err(Errno::CONNREFUSED | Errno::NOENT) => {}
            Err(error) => self.doubts.push(ProbeDoubt::Unprobed {
                path: path.to_owned(),
                why: std::io::Error::from(error).to_string(),
            }),
        }
    }

    /// Which processes have a file of these directories open for writing? Compared by inode: a
    /// container calls the same file by another path.
    fn processes(&mut self, directories: &Directories) {
        let ours = [
            directories.db.clone(),
            directories.index.clone(),
            directories.index.join(names::STREAM_FILTER_DIRECTORY),
        ];
        if !ours
            .iter()
            .any(|directory| fs::has_name(directory, |_| true).unwrap_or_default())
        {
            return;
        }
        let mut hidden = 0;
        for entry in fs::list(Path::new("/proc")).unwrap_or_default() {
            let Some(process) = entry
                .name
                .to_str()
                .and_then(|name| name.parse::<u32>().ok())
            else {
                continue;
            };
            if process == std::process::id() {
                continue;
            }
            let home = Path::new("/proc").join(&entry.name);
            let descriptors = match fs::list(&home.join("fd")) {
                Ok(descriptors) => descriptors,
                Err(error) if error.source.kind() == std::io::ErrorKind::PermissionDenied => {
                    hidden += 1;
                    continue;
                }
                Err(_) => continue,
            };
            let open = descriptors
                .iter()
                .map(|descriptor| &descriptor.name)
                .find_map(|descriptor| {
                    let link = home.join("fd").join(descriptor);
                    // Only what bears such a name is looked at: a file of a network that is gone
                    // would hold us up.
                    let target = fs::link_target(&link).ok()?;
                    let name = target.file_name()?;
                    let of_that_name = |directory: &PathBuf| {
                        let path = directory.join(name);
                        let status = fs::status(&path)
                            .ok()
                            .flatten()
                            .filter(|here| here.kind == fs::FileKind::File)?;
                        Some((path, status))
                    };
                    let mut here: Vec<(PathBuf, fs::FileStatus)> =
                        ours.iter().filter_map(of_that_name).collect();
                    if here.is_empty() {
                        return None;
                    }
                    let status = fs::status_of_target(&link).ok().flatten()?;
                    here.retain(|(_, here)| {
                        (here.device, here.inode) == (status.device, status.inode)
                    });
                    let (path, _) = here.into_iter().next()?;
                    is_open_for_writing(&home.join("fdinfo").join(descriptor)).then_some(path)
                });
            if let Some(path) = open {
                let name = fs::read_small(&home.join("comm"), 64)
                    .map(|name| String::from_utf8_lossy(&name).trim().to_owned())
                    .unwrap_or_default();
                self.signs.push(RunningSign::Open {
                    path,
                    process,
                    name,
                });
            }
        }
        if hidden > 0 {
            self.doubts.push(ProbeDoubt::HiddenProcesses(hidden));
        }
    }

    fn node(
        &mut self,
        directories: &Directories,
        client: &Client,
        patience: Patience<'_>,
    ) -> Result<()> {
        match client.options(patience) {
            Ok(options) => {
                let same = |told: &str| match (
                    fs::canonical(Path::new(told)),
                    fs::canonical(&directories.db),
                ) {
                    (Ok(told), Ok(here)) => told == here,
                    _ => false,
                };
                if options.value("Db").is_some_and(same) {
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

/// `flags:` in fdinfo is octal; its last two bits are the access mode, 0 for reading (proc(5)).
fn is_open_for_writing(fdinfo: &Path) -> bool {
    let Ok(bytes) = fs::read_small(fdinfo, 1 << 16) else {
        return false;
    };
    let text = String::from_utf8_lossy(&bytes);
    let flags = text
        .lines()
        .find_map(|line| line.strip_prefix("flags:"))
        .and_then(|flags| u32::from_str_radix(flags.trim(), 8).ok());
    flags.is_some_and(|flags| flags & 3 != 0)
}

/// The files behind the mutexes of a server on `db`: one for each way to write the path, as the
/// server does not follow links (http-api §6.1).
fn mutexes(db: &Path) -> Vec<PathBuf> {
    let mut spellings: BTreeSet<PathBuf> = BTreeSet::new();
    spellings.extend(std::path::absolute(db));
    spellings.extend(fs::canonical(db));
    let texts: BTreeSet<String> = spellings
        .iter()
        .filter_map(|path| path.to_str())
        .flat_map(|path| {
            let bare = path.trim_end_matches('/').to_owned();
            [format!("{bare}/"), bare]
        })
        .collect();
    texts
        .iter()
        .map(|text| Path::new(MUTEXES).join(mutex_name(text)))
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
