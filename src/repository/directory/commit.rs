//! The commit of an incoming backup: everything in it is checked and made durable, its manifest is
//! written last and read back, and one rename makes it visible.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::draft::{has_attributes, set_attributes};
use super::incoming::DirectoryIncoming;
use super::layout::{FILE_MODE, MANIFEST};
use super::stored::below_top;
use super::twins;
use crate::error::{Error, Kind, Result};
use crate::fs::{self, IoError};
use crate::manifest::{FileSet, Label, Manifest, RelativePath, Row};
use crate::proof::Proven;
use crate::repository::{Repository, numbers};

impl DirectoryIncoming<'_> {
    /// As [`crate::repository::Incoming::commit`].
    pub(super) fn make_listed(&mut self, manifest: &Proven<Manifest>) -> Result<()> {
        self.check_label(&manifest.label)?;
        self.check_sequence(manifest.sequence)?;
        self.check_rows(manifest)?;

        self.separate_twins(manifest)?;
        self.finish_files(manifest)?;
        self.sync_directories(manifest)?;
        let place = self.files.top().join(MANIFEST);
        self.noted(fs::write_durably_by(&place, FILE_MODE, |into| {
            manifest.write(into)
        }))?;
        let written = self.files.open_below(Path::new(MANIFEST))?;
        manifest
            .check_written(&written)
            .map_err(|error| error.at(&place))?;
        self.run.check()?;

        // Before the backup is visible: its number must stay known if the backup does not.
        if let Err(error) = numbers::give(self.repository, manifest) {
            self.note_failure();
            return Err(error);
        }

        // From here on only a failure of the disk ends this run before its backup is listed, and
        // then nobody resumes its files.
        self.noted(self.proofs.remove())?;
        self.noted(fs::sync_directory(self.files.top()))?;
        self.publish_backup(&manifest.label)?;
        self.is_committed = true;
        self.leftovers.remove(self.run);
        Ok(())
    }

    /// Checks that no backup has this label.
    fn check_label(&self, label: &Label) -> Result<()> {
        if fs::status(&self.repository.layout.backup(label))?.is_none() {
            return Ok(());
        }
        Err(Error::new(
            Kind::Locked,
            "another run has committed a backup with this label meanwhile",
        )
        .on(label)
        .hint("run it again"))
    }

    /// As [`crate::repository::Incoming::check_next`].
    pub(super) fn check_sequence(&self, sequence: u64) -> Result<()> {
        for label in self.repository.labels()?.iter().rev() {
            // The sequence number in a damaged manifest is not known. That of the backup before it
            // is.
            let Ok(newest) = self.repository.head(label) else {
                continue;
            };
            if newest.sequence < sequence {
                break;
            }
            return Err(overtaken(newest.label));
        }

        if numbers::is_given(self.repository, sequence)? {
            return Err(overtaken(self.repository.place()));
        }
        Ok(())
    }

    /// Checks that the files of this set are those of the manifest. Compares only names and
    /// lengths, because reused files can be as large as the parent.
    fn check_rows(&self, manifest: &Manifest) -> Result<()> {
        let mut rows: Vec<&Row> = manifest.files.iter().collect();
        rows.sort_by(|one, other| one.path.cmp(&other.path));
        let mut rows = rows.into_iter();

        for entry in self.files.files()? {
            let Some(row) = rows.next() else {
                return Err(self.contradiction(&entry.path, "it has no row"));
            };
            if row.path < entry.path {
                return Err(self.contradiction(&row.path, "the file is missing"));
            }
            if row.path > entry.path {
                return Err(self.contradiction(&entry.path, "it has no row"));
            }
            if row.size != entry.size {
                let why = format!("it has {} bytes, its row says {}", entry.size, row.size);
                return Err(self.contradiction(&row.path, why));
            }
        }

        match rows.next() {
            Some(row) => Err(self.contradiction(&row.path, "the file is missing")),
            None => Ok(()),
        }
    }

    fn contradiction(&self, path: &RelativePath, why: impl Into<String>) -> Error {
        Error::new(Kind::Failed, "the files are not those of the manifest")
            .on(self.files.place_of(path))
            .because(why.into())
    }

    /// Gives each file an inode of its own: the parent may have two names for one.
    fn separate_twins(&self, manifest: &Manifest) -> Result<()> {
        for row in twins::find(&self.files, manifest) {
            self.run.check()?;
            let shared = self.files.open_row(row)?;
            self.copy_stored(&shared, row)?;
        }
        Ok(())
    }

    /// Sets modes and times as on the node, so that a plain copy looks like it. Only resumed files,
    /// and files whose rows were changed after they were stored, still need it.
    fn finish_files(&self, manifest: &Manifest) -> Result<()> {
        let own = self.own();
        for row in &manifest.files {
            if !own.contains_key(&row.path) {
                continue;
            }

            self.run.check()?;
            let file = self.files.open_below(&below_top(&row.path))?;
            if !has_attributes(&file.status()?, row.into()) {
                self.noted(set_attributes(&file, row.into()))?;
                self.noted(file.sync())?;
            }
            // The proof has read the file, and nothing else will read it soon.
            file.drop_from_cache();
        }
        Ok(())
    }

    fn sync_directories(&self, manifest: &Manifest) -> Result<()> {
        let mut directories = BTreeSet::new();
        let mut last = PathBuf::new();
        for row in &manifest.files {
            let place = self.files.path_of(&row.path);
            let directory = fs::parent(&place);
            // Rows of one directory follow each other.
            if directory == last {
                continue;
            }
            for above in directory.ancestors() {
                if !above.starts_with(self.files.top()) {
                    break;
                }
                directories.insert(above.to_owned());
            }
            last = directory.to_owned();
        }

        for directory in &directories {
            self.noted(fs::sync_directory(directory))?;
        }
        Ok(())
    }

    /// Renames the finished backup into the list, durably.
    fn publish_backup(&self, label: &Label) -> Result<()> {
        let layout = &self.repository.layout;
        let backup = layout.backup(label);
        self.noted(fs::rename(self.files.top(), &backup))?;

        let synced = fs::sync_directory(&layout.backups())
            .and_then(|()| fs::sync_directory(&layout.incoming()));
        let Err(error) = self.noted(synced) else {
            return Ok(());
        };
        // The rename may not be durable, so the backup must not stay listed.
        match fs::rename(&backup, self.files.top()) {
            Ok(()) => Err(error.into()),
            Err(back) => Err(still_listed(label, &backup, &error, &back)),
        }
    }
}

fn overtaken(on: impl std::fmt::Display) -> Error {
    Error::new(Kind::Locked, "another run has committed a backup meanwhile")
        .on(on)
        .hint("run it again")
}

/// The commit failed and could not be undone. Everything below the backup's name is durable; only
/// the name may be lost with the power. Removing the manifest instead would turn a whole backup
/// into a damaged one.
fn still_listed(label: &Label, backup: &Path, error: &IoError, back: &IoError) -> Error {
    Error::new(
        Kind::Failed,
        format!("the commit of {label} failed, but the backup is still listed"),
    )
    .at(backup)
    .because(format!(
        "{error}: {}; kbackup could not undo the commit: {back}: {}",
        error.source, back.source
    ))
    .hint(format!(
        "its files are whole, but its name may be lost with the next loss of power: do not rely on \
         it before a later backup has succeeded and `kbackup verify {label}` finds it intact"
    ))
    .hint("check the repository's disk and the system's log: the disk fails, or is gone")
}
