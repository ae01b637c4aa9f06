//! The release records of all nodes, in a local state directory.
//!
//! The run that quiesces a node locks its record. The lock ends with the process. A record that
//! cannot be read is listed as such, and does not keep kbackup from the others.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::Session;
use super::database_sign::{database_around, state_inside_node};
use super::held_record::{self, HeldRecord};
use super::last_stop;
use super::recognition;
use super::record_names::{file_name, key};
use super::release_record::{NodeFiles, RecordedNode, ReleaseRecord};
use super::same_node::Comparison;
use crate::clock::Timestamp;
use crate::error::{Error, Kind, Result};
use crate::fs;
use crate::run::Run;

/// A run that lists the records holds each lock for a moment.
const LOCK_ATTEMPTS: u32 = 5;
const LOCK_PAUSE: Duration = Duration::from_millis(20);

/// The release records of all nodes, in a local state directory.
#[derive(Debug, Clone)]
pub struct ReleaseRecords {
    directory: PathBuf,
}

/// All records of a state directory.
#[derive(Debug, Default)]
pub struct RecordListing {
    /// The records, by the names of their files.
    pub readable: Vec<ListedRecord>,
    /// The files that cannot be read as records.
    pub unreadable: Vec<UnreadableRecord>,
}

/// One node's record, as it was listed.
#[derive(Debug, Clone)]
pub struct ListedRecord {
    /// What the file says.
    pub record: ReleaseRecord,
    /// Another run holds the record and will give everything back itself.
    pub in_use: bool,
    /// The file.
    pub path: PathBuf,
    name: String,
}

/// A file that should be a record, and cannot be read as one.
#[derive(Debug)]
pub struct UnreadableRecord {
    /// The file.
    pub path: PathBuf,
    /// Why it cannot be read.
    pub error: Error,
}

/// Checks that a directory can be the state directory. Makes nothing.
///
/// # Errors
/// [`Kind::Refused`] if it would lie in a directory of a server, such as below the home of the
/// server's user. [`Kind::Usage`] if something else has its name.
pub fn check_state_directory(directory: &Path) -> Result<()> {
    match fs::status_of_target(directory) {
        Ok(Some(status)) if status.kind != fs::FileKind::Directory => Err(Error::new(
            Kind::Usage,
            "the state directory is no directory",
        )
        .at(directory)
        .hint("name another directory with `--state-dir`")),
        Ok(None) => match database_around(directory) {
            Ok(Some(database)) => Err(state_inside_node(directory, &database)),
            _ => Ok(()),
        },
        // If nobody can look there, nobody can create anything there either, and the creation says
        // why.
        Ok(Some(_)) | Err(_) => Ok(()),
    }
}

/// Creates the state directory if it does not exist. After a loss of power it must still exist, or
/// the record in it would be lost.
///
/// # Errors
/// [`Kind::Denied`] or [`Kind::Failed`] if the directory cannot be created. [`Kind::Refused`] if it
/// would lie in a directory of a server, such as below the home of the server's user.
pub fn create_state_directory(directory: &Path) -> Result<()> {
    check_state_directory(directory)?;

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

    /// The records of all nodes, and the files that cannot be read.
    ///
    /// # Errors
    /// [`Kind::Denied`] or [`Kind::Failed`] if the directory cannot be listed.
    pub fn list(&self) -> Result<RecordListing> {
        let mut listing = RecordListing::default();
        for entry in fs::list(&self.directory)? {
            let name = entry.name.to_str().unwrap_or_default();
            let Some(name) = name.strip_suffix(".json") else {
                continue;
            };

            match self.listed(name) {
                Ok(Some(listed)) => listing.readable.push(listed),
                Ok(None) => {}
                Err(error) => listing.unreadable.push(UnreadableRecord {
                    path: self.path(name, "json"),
                    error,
                }),
            }
        }

        Ok(listing)
    }

    fn listed(&self, name: &str) -> Result<Option<ListedRecord>> {
        let Some(record) = self.read(name)? else {
            return Ok(None);
        };

        Ok(Some(ListedRecord {
            record,
            in_use: self.lock(name)?.is_none(),
            path: self.path(name, "json"),
            name: name.to_owned(),
        }))
    }

    /// Locks the node's record against other runs. It holds what earlier runs did not give back to
    /// this node, also if the node had another address then.
    ///
    /// # Errors
    /// [`Kind::Locked`] while another run quiesces this node. [`Kind::StoredCorrupt`] if the record
    /// of this very node cannot be read.
    pub fn hold(&self, session: &Session, files: &NodeFiles, run: &Run) -> Result<HeldRecord> {
        let node = RecordedNode::of(session, files);
        let name = file_name(&key(&node));
        let (lock, earlier) = self.lock_and_read(&name)?;

        let mut record = ReleaseRecord::empty(node);
        if let Some(earlier) = earlier {
            record.add(earlier);
        }
        let mut held = HeldRecord::new(
            &self.directory,
            self.path(&name, "json"),
            record,
            Some(lock),
        );

        let mut others = self.list()?.readable;
        others.retain(|listed| listed.name != name);
        if !others.is_empty() {
            let former = files.former_endpoint.as_deref();
            self.take_over_own(others, former, &mut held, session, run)?;
        }
        Ok(held)
    }

    /// Takes over the records of this node under other names. If the operator says that the node
    /// had the address `former` before, at most one that kbackup cannot prove is taken over, too.
    fn take_over_own(
        &self,
        others: Vec<ListedRecord>,
        former: Option<&str>,
        held: &mut HeldRecord,
        session: &Session,
        run: &Run,
    ) -> Result<()> {
        let shown = recognition::show(session, held.record().node.clone(), run)?;

        let mut unproven = Vec::new();
        for listed in others {
            let recorded = &listed.record.node;
            match recognition::compare_and_ask(session, recorded, &shown, run) {
                Comparison::Same | Comparison::Moved => self.take_over(&listed, held, run)?,
                Comparison::Unproven(why)
                    if recorded.endpoint.is_some() && recorded.endpoint.as_deref() == former =>
                {
                    unproven.push((listed, why));
                }
                Comparison::Unproven(_) | Comparison::Another(_) => {}
            }
        }

        if held.record().is_empty()
            && let [(only, _)] = unproven.as_slice()
        {
            return self.take_over(only, held, run);
        }
        for (listed, why) in unproven {
            run.warn(format!(
                "the release record of {} is left as it is, because kbackup cannot prove that it \
                 is this node's: {why}; if it is, run `kbackup release --node URL --new-address`",
                listed.record.node
            ));
        }
        Ok(())
    }

    /// When a run with this state directory last interrupted a scavenge on this node. Returns
    /// `None` if none is known.
    #[must_use]
    pub fn last_stop(&self, session: &Session) -> Option<Timestamp> {
        let node = RecordedNode::of(session, &NodeFiles::default());
        last_stop::read(&last_stop::path(&self.directory, &node))
    }

    /// Moves what a record of the same node under another name holds to the record of this run.
    fn take_over(&self, listed: &ListedRecord, held: &mut HeldRecord, run: &Run) -> Result<()> {
        let (_lock, record) = self.lock_and_read(&listed.name)?;
        let Some(record) = record else {
            return Ok(());
        };

        run.note(format!(
            "the release record of {} is about this node: kbackup gives it back at {}",
            record.node,
            held.record().node
        ));
        // In this order: after a crash in between, everything is on record twice, and giving back
        // twice is harmless.
        held.add(record)?;
        fs::remove_file(&listed.path)?;
        Ok(fs::sync_directory(&self.directory)?)
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

        let path = listed.path.clone();
        Ok(Some(HeldRecord::new(
            &self.directory,
            path,
            record,
            Some(lock),
        )))
    }

    /// A listed record without its lock, because the run that has it hangs. If that run goes on, it
    /// finds out that the node is not quiesced any more. Returns `None` if there is no record now.
    ///
    /// # Errors
    /// As [`Self::list`] for one record.
    pub fn seize(&self, listed: &ListedRecord) -> Result<Option<HeldRecord>> {
        let Some(record) = self.read(&listed.name)? else {
            return Ok(None);
        };

        let path = listed.path.clone();
        Ok(Some(HeldRecord::new(&self.directory, path, record, None)))
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
        .hint("if that run hangs, give back with `kbackup release --force`")
    }

    fn lock(&self, name: &str) -> Result<Option<fs::File>> {
        let file = fs::open_or_create(&self.path(name, "lock"), 0o600)?;
        Ok(if file.try_lock()? { Some(file) } else { None })
    }

    fn read(&self, name: &str) -> Result<Option<ReleaseRecord>> {
        held_record::read(&self.path(name, "json"))
    }

    fn path(&self, name: &str, extension: &str) -> PathBuf {
        self.directory.join(format!("{name}.{extension}"))
    }
}
