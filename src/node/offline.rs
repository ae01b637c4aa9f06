use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::SystemTime;

use super::running::probe;
use super::{ProbeFindings, QuiesceCheck};
use crate::error::Result;
use crate::fs;
use crate::manifest::Directories;
use crate::run::Run;

/// Files by which a start of the server shows, even one that is over again.
const TRACES: [&str; 5] = [
    "writer.chk",
    "chaser.chk",
    "epoch.chk",
    "proposal.chk",
    "truncate.chk",
];

/// Directories on which no server runs: a stopped node's, or a mounted snapshot.
pub struct QuiescedOffline<'a> {
    directories: Directories,
    run: &'a Run,
    traces: BTreeMap<PathBuf, Trace>,
}

#[derive(Debug, PartialEq, Eq)]
struct Trace {
    modified: SystemTime,
    inode: u64,
    size: u64,
    bytes: Vec<u8>,
}

impl<'a> QuiescedOffline<'a> {
    /// Looks whether a server runs here. What cannot be found out is told and does not stop the
    /// backup: it is checked again at its end.
    ///
    /// # Errors
    /// [`crate::error::Kind::Refused`] where a server runs; what the file system reports.
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
    /// As [`Self::begin`].
    pub fn begin_again(&mut self) -> Result<()> {
        *self = Self::begin(&self.directories, self.run)?;
        Ok(())
    }

    /// Whether no server ran here since [`Self::begin`].
    ///
    /// # Errors
    /// What the file system reports.
    pub fn check_undisturbed(&self) -> Result<QuiesceCheck> {
        self.run.check()?;
        let ProbeFindings { signs, .. } = probe(&self.directories, None)?;
        if let Some(sign) = signs.first() {
            return Ok(QuiesceCheck::Disturbed(format!(
                "a server was started on these directories: {sign}"
            )));
        }
        if traces(&self.directories)? != self.traces {
            return Ok(QuiesceCheck::Disturbed(
                "the checkpoints changed: a server ran on these directories".to_owned(),
            ));
        }
        Ok(QuiesceCheck::Undisturbed)
    }
}

/// Bytes of the longest file that is looked into; a checkpoint has 8.
const LIMIT: u64 = 4096;

fn traces(directories: &Directories) -> Result<BTreeMap<PathBuf, Trace>> {
    let mut traces = BTreeMap::new();
    for path in TRACES.iter().map(|name| directories.db.join(name)) {
        if let Some(status) = fs::status(&path)? {
            let bytes = match fs::read_small(&path, LIMIT) {
                // What is no plain small file, or is gone already, tells enough by being so.
                Err(error) if status.kind != fs::FileKind::File || error.is_not_found() => {
                    Vec::new()
                }
                Err(error) if error.source.kind() == std::io::ErrorKind::FileTooLarge => Vec::new(),
                result => result?,
            };
            traces.insert(
                path,
                Trace {
                    modified: status.modified,
                    inode: status.inode,
                    size: status.size,
                    bytes,
                },
            );
        }
    }
    Ok(traces)
}
