//! The backups that the repository holds already.

use std::collections::{BTreeMap, HashSet};

use super::missing_index::EarlierIndex;
use crate::clock;
use crate::error::{Error, Kind, Result};
use crate::format::Lineage;
use crate::manifest::{BackupKind, Head, Label};
use crate::repository::{
    GivenNumbers, Listed, Repository, given_numbers, same_number, same_number_in_words,
};
use crate::run::Run;

/// The backups that the repository holds already.
#[derive(Debug, Default)]
pub(super) struct ExistingBackups {
    /// The head of every manifest that can be read, oldest first.
    pub(super) backups: Vec<Head>,
    /// The newest label, also of a backup that is gone or whose manifest cannot be read.
    pub(super) newest_label: Option<Label>,
    /// The highest numbers that were ever given here.
    pub(super) given: GivenNumbers,
    /// Backups whose rows turned out damaged.
    damaged: HashSet<Label>,
}

impl ExistingBackups {
    /// Lists the repository, and warns of each manifest that is damaged.
    ///
    /// # Errors
    /// `Denied` if a manifest is somebody else's: that backup is there, and must not be passed over.
    /// As for [`given_numbers`].
    pub(super) fn read(repository: &dyn Repository, run: &Run) -> Result<Self> {
        let listed = repository.list()?;

        let mut existing = Self::default();
        for Listed { label, head } in &listed {
            existing.note_label(label);
            if let Err(error) = head {
                warn_of_unusable(label, error, run);
            }
        }
        existing.given = given_numbers(repository, &listed)?;
        // The backup that had the newest label may be gone. If its clock was wrong, its label need
        // not keep all later ones in the future.
        if let Some(newest) = existing.given.newest.clone()
            && clock::ahead(newest.time(), clock::now()).is_none()
        {
            existing.note_label(&newest);
        }

        for Listed { head, .. } in listed {
            match head {
                Ok(head) => existing.backups.push(head),
                Err(error) if error.kind() == Kind::Denied => return Err(error),
                Err(_) => {}
            }
        }
        if let Some((one, other)) = same_number(&existing.backups) {
            run.warn(same_number_in_words(one, other));
        }
        Ok(existing)
    }

    /// The lineages whose epochs a run need not read from the source again: the longest one of each
    /// branch. A full reads everything again.
    pub(super) fn known_lineages(&self, kind: BackupKind) -> Vec<Lineage> {
        if kind == BackupKind::Full {
            return Vec::new();
        }

        let mut longest: BTreeMap<u32, &Lineage> = BTreeMap::new();
        for backup in &self.backups {
            let lineage = &backup.log.lineage;
            let known = longest.entry(backup.branch).or_insert(lineage);
            if known.epochs().len() < lineage.epochs().len() {
                *known = lineage;
            }
        }
        longest.into_values().cloned().collect()
    }

    /// The newest backup that holds index tables.
    pub(super) fn newest_index(&self) -> Option<EarlierIndex> {
        for backup in self.backups.iter().rev() {
            if let Some(commit) = backup.log.index_commit {
                let label = backup.label.clone();
                return Some(EarlierIndex { label, commit });
            }
        }
        None
    }

    fn note_label(&mut self, label: &Label) {
        if let Some(newest) = &self.newest_label
            && newest.time() > label.time()
        {
            return;
        }
        self.newest_label = Some(label.clone());
    }

    /// Whether a diff can reuse files of a backup.
    pub(super) fn is_usable(&self, backup: &Head) -> bool {
        backup.is_sound() && !self.damaged.contains(&backup.label)
    }

    /// Remembers that the rows of a backup cannot be read, and warns.
    pub(super) fn mark_damaged(&mut self, label: Label, error: &Error, run: &Run) {
        warn_of_unusable(&label, error, run);
        self.damaged.insert(label);
    }
}

fn warn_of_unusable(label: &Label, error: &Error, run: &Run) {
    run.warn(format!("{label}: {error}; this run ignores that backup"));
}
