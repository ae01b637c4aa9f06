//! A source on which no server runs: how kbackup makes sure of it before and after a copy. The
//! counterpart for a running node is in `quiesce`.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::PathBuf;
use std::time::SystemTime;

use super::running::probe;
use super::{ProbeFindings, QuiesceCheck};
use crate::error::Result;
use crate::format::checkpoint::Checkpoint;
use crate::fs;
use crate::manifest::Directories;
use crate::run::Run;

/// Bytes of the longest file whose content is compared; a checkpoint has 8.
const LONGEST: u64 = 4096;

/// Directories on which no server runs: a stopped node's, or a mounted snapshot.
pub struct QuiescedOffline<'a> {
    directories: Directories,
    run: &'a Run,
    /// The checkpoint files, by which a start of the server shows, even one that is over again.
    traces: BTreeMap<PathBuf, Trace>,
}

/// The state of a checkpoint file, whatever it holds.
#[derive(Debug, PartialEq, Eq)]
struct Trace {
    modified: SystemTime,
    inode: u64,
    size: u64,
    bytes: Vec<u8>,
}

impl<'a> QuiescedOffline<'a> {
    /// Looks whether a server runs here. If something cannot be found out, the operator is told,
    /// and the backup goes on: its end is checked again.
    ///
    /// # Errors
    /// [`crate::error::Kind::Refused`] if a server runs here.
    pub fn begin(directories: &Directories, run: &'a Run) -> Result<Self> {
        let findings = probe(directories, None)?;
        findings.refuse(
            "cannot back up these directories offline",
            &directories.db,
            true,
        )?;

        for doubt in &findings.doubts {
            run.note(doubt.to_string());
        }
        Ok(Self {
            directories: directories.clone(),
            run,
            traces: traces(directories)?,
        })
    }

    /// Looks anew, for a copy that starts over.
    ///
    /// # Errors
    /// As for [`Self::begin`].
    pub fn begin_again(&mut self) -> Result<()> {
        *self = Self::begin(&self.directories, self.run)?;
        Ok(())
    }

    /// Whether a server ran here since [`Self::begin`].
    ///
    /// # Errors
    /// What the file system reports, and an interruption.
    pub fn check_undisturbed(&self) -> Result<QuiesceCheck> {
        self.run.check()?;

        let ProbeFindings { signs, .. } = probe(&self.directories, None)?;
        if let Some(sign) = signs.first() {
            let what = format!("a server was started on these directories: {sign}");
            return Ok(QuiesceCheck::Disturbed(what));
        }

        if traces(&self.directories)? != self.traces {
            let what = "the checkpoints changed: a server ran on these directories";
            return Ok(QuiesceCheck::Disturbed(what.to_owned()));
        }
        Ok(QuiesceCheck::Undisturbed)
    }
}

fn traces(directories: &Directories) -> Result<BTreeMap<PathBuf, Trace>> {
    let mut traces = BTreeMap::new();

    for which in Checkpoint::ALL {
        let path = which.under(&directories.db);
        let Some(status) = fs::status(&path)? else {
            continue;
        };

        let bytes = match fs::read_small(&path, LONGEST) {
            Ok(bytes) => bytes,
            // If this is not a plain small file, or is gone already, that tells enough.
            Err(error)
                if status.kind != fs::FileKind::File
                    || error.is_not_found()
                    || error.source.kind() == ErrorKind::FileTooLarge =>
            {
                Vec::new()
            }
            Err(error) => return Err(error.into()),
        };
        let trace = Trace {
            modified: status.modified,
            inode: status.inode,
            size: status.size,
            bytes,
        };
        traces.insert(path, trace);
    }

    Ok(traces)
}
