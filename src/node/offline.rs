//! A source on which no server runs. kbackup checks that before and after a copy. The counterpart
//! for a running node is in `quiesce`.

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
    /// The checkpoint files. They change if a server starts, even if it has stopped again.
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
    /// Checks that no server runs here. If kbackup cannot find out everything, it tells the
    /// operator and continues, because it checks again after the copy.
    ///
    /// # Errors
    /// [`crate::error::Kind::Refused`] if a server runs here.
    pub fn begin(directories: &Directories, run: &'a Run) -> Result<Self> {
        let findings = probe(directories, None)?;
        findings
            .refuse(
                "cannot back up this directory offline",
                &directories.db,
                true,
            )
            .map_err(|error| {
                error
                    .hint("to back up the running node, leave `--offline` out and use `--node URL`")
            })?;

        for doubt in &findings.doubts {
            run.note(doubt.to_string());
        }
        Ok(Self {
            directories: directories.clone(),
            run,
            traces: traces(directories)?,
        })
    }

    /// Checks again, before a copy starts over.
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
    /// [`crate::error::Kind::Interrupted`] if the run was told to end.
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
            // For a file that has vanished or is not a small regular file, the status alone is
            // enough.
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
