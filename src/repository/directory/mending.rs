use std::path::PathBuf;

use super::incoming::{cannot_link, set_attributes};
use super::layout::{FILE_MODE, is_directory, make_directory};
use super::{DirectoryRepository, Lock};
use crate::clock;
use crate::error::{Error, Kind, Result};
use crate::fs;
use crate::manifest::{Label, Row};
use crate::repository::Mending;
use crate::run::Run;
use crate::transfer::{self, Segment};

/// Mends what is listed. Every new name is made in `incoming/`, where the next run sweeps, and
/// takes its place by one rename: whoever dies in between leaves nothing in `backups/` that no
/// manifest knows.
pub(super) struct DirectoryMending<'a> {
    repository: &'a DirectoryRepository,
    run: &'a Run,
    /// Given back last.
    _lock: Lock,
}

impl<'a> DirectoryMending<'a> {
    pub(super) fn new(repository: &'a DirectoryRepository, run: &'a Run, lock: Lock) -> Self {
        Self {
            repository,
            run,
            _lock: lock,
        }
    }

    /// A copy of its own where no further link can be had.
    fn copy(&self, from: &fs::File, row: &Row, staged: &std::path::Path) -> Result<()> {
        let file = fs::create_new(staged, FILE_MODE)?;
        let place = from.path().display().to_string();
        let segment = Segment {
            source: from,
            place: &place,
            end: row.size,
            live: false,
            whole: None,
        };
        let plan = transfer::CopyPlan {
            segments: &[segment],
            full_length: row.size,
            md5: false,
        };
        let copied = transfer::copy(&plan, &file, None, self.run)?;
        if copied.digest.blake3 != row.blake3 {
            return Err(
                Error::new(Kind::StoredCorrupt, "a stored file is not as it was stored")
                    .at(from.path()),
            );
        }
        set_attributes(&file, row.into())?;
        Ok(file.sync()?)
    }

    /// The directory that the file belongs in; made where it is gone.
    fn directory_of(&self, label: &Label, row: &Row) -> Result<PathBuf> {
        let files = self.repository.backup(label)?;
        let place = files.path_of(&row.path);
        let below = place.strip_prefix(files.top()).unwrap_or(&place);
        let mut directory = files.top().to_owned();
        for part in fs::parent(below) {
            let above = directory.clone();
            directory.push(part);
            if !is_directory(&directory)? {
                make_directory(&directory)?;
                fs::sync_directory(&above)?;
            }
        }
        Ok(directory)
    }
}

impl Mending for DirectoryMending<'_> {
    fn replace(&self, label: &Label, row: &Row, (from, held): (&Label, &Row)) -> Result<()> {
        let good = self.repository.backup(from)?.open_row(held)?;
        let directory = self.directory_of(label, row)?;
        let place = directory.join(row.path.file_name());
        let incoming = self.repository.layout.incoming();
        let staged = incoming.join(clock::identifier().to_string());
        match fs::hard_link(good.path(), &staged) {
            Ok(()) => {}
            Err(error) if cannot_link(&error) => self
                .copy(&good, row, &staged)
                .inspect_err(|_| drop(fs::remove_file(&staged)))?,
            Err(error) => return Err(error.into()),
        }
        if let Err(error) = fs::rename(&staged, &place) {
            // What cannot be removed now the next run removes.
            let _ = fs::remove_file(&staged);
            return Err(error.into());
        }
        fs::sync_directory(&directory)?;
        Ok(fs::sync_directory(&incoming)?)
    }
}
