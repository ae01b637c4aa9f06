//! Repeats recorded steps in a directory: files, lengths, holes, modes and locks.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::fs::{FallocateFlags, FlockOperation};

use crate::recording::{Action, Lock, Recording};

/// How long the node waits for a file that another process has locked.
const LOCK_PATIENCE: Duration = Duration::from_secs(5);

/// The DuckDB file, which a running node locks with `fcntl` and not with `flock` (O6).
const DUCKDB: &str = "db/kurrent.ddb";

/// One file that the node holds locked.
struct Held {
    file: File,
    /// The node opens some files several times. The lock ends when the last of them is closed.
    count: usize,
}

/// The directory in which the steps are repeated, with the node's locks there.
pub(crate) struct Target {
    root: PathBuf,
    held: HashMap<String, Held>,
    /// The open DuckDB file. Its `fcntl` lock would end with the first closed descriptor, so all
    /// writes use this one.
    duckdb: Option<File>,
    /// Files that another process had locked when the node wanted them. A real node would have
    /// failed.
    pub(crate) conflicts: Vec<String>,
}

impl Target {
    pub(crate) fn new(root: PathBuf) -> Self {
        Self {
            root,
            held: HashMap::new(),
            duckdb: None,
            conflicts: Vec::new(),
        }
    }

    /// Ends the process: the kernel releases all its locks.
    pub(crate) fn release_locks(&mut self) {
        self.held.clear();
        self.duckdb = None;
    }

    pub(crate) fn holds_locks(&self) -> bool {
        !self.held.is_empty()
    }

    pub(crate) fn apply(&mut self, recording: &Recording, action: &Action) -> Result<()> {
        self.try_apply(recording, action)
            .with_context(|| format!("cannot replay {action:?}"))
    }

    fn try_apply(&mut self, recording: &Recording, action: &Action) -> Result<()> {
        match action {
            Action::Create {
                path,
                exclusive,
                truncate,
            } => self.create(path, *exclusive, *truncate)?,
            Action::Write {
                path,
                offset,
                length,
                data,
            } => {
                let zeros;
                let bytes = if let Some(start) = data {
                    recording.bytes(*start, *length)
                } else {
                    zeros = vec![0; usize::try_from(*length)?];
                    &zeros
                };
                if path == DUCKDB {
                    self.lock_duckdb()?;
                    if let Some(file) = &self.duckdb {
                        file.write_all_at(bytes, *offset)?;
                    }
                } else {
                    self.writable(path)?.write_all_at(bytes, *offset)?;
                }
            }
            Action::Truncate { path, size } => {
                if path == DUCKDB {
                    self.lock_duckdb()?;
                    if let Some(file) = &self.duckdb {
                        file.set_len(*size)?;
                    }
                } else {
                    self.writable(path)?.set_len(*size)?;
                }
            }
            Action::Allocate {
                path,
                offset,
                length,
                mode,
            } => {
                let flags = if mode.contains("FALLOC_FL_KEEP_SIZE") {
                    FallocateFlags::KEEP_SIZE
                } else {
                    FallocateFlags::empty()
                };
                match rustix::fs::fallocate(self.writable(path)?, flags, *offset, *length) {
                    Ok(()) | Err(rustix::io::Errno::OPNOTSUPP) => {}
                    Err(error) => return Err(error.into()),
                }
            }
            Action::Rename { path, to } => {
                fs::rename(self.at(path)?, self.at(to)?)?;
                if let Some(held) = self.held.remove(path) {
                    self.held.insert(to.clone(), held);
                }
            }
            Action::Copy {
                path,
                source_offset,
                to,
                offset,
                length,
            } => {
                let mut bytes = vec![0; usize::try_from(*length)?];
                File::open(self.at(path)?)?.read_exact_at(&mut bytes, *source_offset)?;
                self.writable(to)?.write_all_at(&bytes, *offset)?;
            }
            Action::Unlink { path } => fs::remove_file(self.at(path)?)?,
            Action::Mkdir { path } => fs::create_dir(self.at(path)?)?,
            Action::Rmdir { path } => fs::remove_dir(self.at(path)?)?,
            Action::Link { path, to } => fs::hard_link(self.at(path)?, self.at(to)?)?,
            Action::Chmod { path, mode } => {
                fs::set_permissions(self.at(path)?, Permissions::from_mode(*mode))?;
            }
            Action::Flock { path, how } => self.flock(path, *how)?,
            Action::Operator { path, value } => {
                self.writable(path)?.write_all_at(&value.to_le_bytes(), 0)?;
            }
            Action::Fsync { .. }
            | Action::MmapSharedWrite { .. }
            | Action::Acked { .. }
            | Action::Http { .. }
            | Action::Mark { .. } => {}
        }
        Ok(())
    }

    fn at(&self, path: &str) -> Result<PathBuf> {
        let relative = Path::new(path);
        if relative
            .components()
            .any(|part| !matches!(part, std::path::Component::Normal(_)))
        {
            bail!("`{path}` leads out of the directory");
        }
        Ok(self.root.join(relative))
    }

    fn create(&mut self, path: &str, exclusive: bool, truncate: bool) -> Result<()> {
        let place = self.at(path)?;
        let mut options = OpenOptions::new();
        options.write(true).mode(0o644);
        match options.clone().create_new(true).open(&place) {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && !exclusive => {
                if truncate {
                    self.writable(path)?.set_len(0)?;
                }
            }
            Err(error) => return Err(error.into()),
        }

        if path == DUCKDB {
            self.lock_duckdb()?;
        }
        Ok(())
    }

    /// Opens a file for writing. The node may write through a descriptor that it opened before the
    /// file became read-only.
    fn writable(&self, path: &str) -> Result<File> {
        let place = self.at(path)?;
        match OpenOptions::new().write(true).open(&place) {
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                let before = fs::metadata(&place)?.permissions();
                fs::set_permissions(&place, Permissions::from_mode(0o644))?;
                let file = OpenOptions::new().write(true).open(&place)?;
                fs::set_permissions(&place, before)?;
                Ok(file)
            }
            other => Ok(other?),
        }
    }

    fn flock(&mut self, path: &str, how: Lock) -> Result<()> {
        if how == Lock::Release {
            if let Some(held) = self.held.get_mut(path) {
                held.count -= 1;
                if held.count == 0 {
                    self.held.remove(path);
                }
            }
            return Ok(());
        }

        if let Some(held) = self.held.get_mut(path) {
            held.count += 1;
            return Ok(());
        }

        let file = File::open(self.at(path)?)?;
        let operation = match how {
            Lock::Exclusive => FlockOperation::NonBlockingLockExclusive,
            Lock::Shared | Lock::Release => FlockOperation::NonBlockingLockShared,
        };

        let begun = Instant::now();
        let mut waited = false;
        while let Err(error) = rustix::fs::flock(&file, operation) {
            if error != rustix::io::Errno::WOULDBLOCK || begun.elapsed() > LOCK_PATIENCE {
                return Err(error).with_context(|| format!("{path} is locked by another process"));
            }
            if !waited {
                self.conflicts.push(path.to_owned());
                waited = true;
            }
            std::thread::sleep(Duration::from_millis(1));
        }

        self.held.insert(path.to_owned(), Held { file, count: 1 });
        Ok(())
    }

    fn lock_duckdb(&mut self) -> Result<()> {
        if self.duckdb.is_none() {
            let file = OpenOptions::new()
                .read(true)
                .write(true)
                .open(self.at(DUCKDB)?)?;
            rustix::fs::fcntl_lock(&file, FlockOperation::NonBlockingLockExclusive)
                .context("kurrent.ddb is locked by another process")?;
            self.duckdb = Some(file);
        }
        Ok(())
    }

    /// Takes the locks of a running node on an existing directory (O6).
    pub(crate) fn lock_as_running(&mut self) -> Result<()> {
        for path in [
            "db/writer.chk",
            "db/chaser.chk",
            "db/epoch.chk",
            "db/proposal.chk",
            "db/truncate.chk",
            "db/index/stream-existence/streamExistenceFilter.chk",
        ] {
            if self.at(path)?.exists() {
                self.flock(path, Lock::Shared)?;
            }
        }

        if self.at(DUCKDB)?.exists() {
            self.lock_duckdb()?;
        }
        Ok(())
    }
}

impl std::fmt::Debug for Held {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{:?} × {}", self.file, self.count)
    }
}
