//! Repairs stored backups: if the repository holds an intact copy of a damaged file, kbackup makes
//! the damaged file's name lead to that copy.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use serde::Serialize;

use super::known_files::KnownFiles;
use super::pass::VerifyPass;
use super::report::{VerifiedBackup, VerifyReport};
use super::verification::verify_with;
use super::which::Which;
use crate::error::{Kind, Result};
use crate::manifest::{Blake3Hash, Label, Manifest, RelativePath, Row};
use crate::proof::Depth;
use crate::repository::{Repository, Writer, remember_damage, remembered};
use crate::run::Run;

/// What can be repaired, and what cannot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RepairPlan {
    /// Damaged files of which the repository holds an intact copy.
    pub replacements: Vec<Replacement>,
    /// Files of which no intact copy is left.
    pub lost: Vec<Lost>,
    /// What the verification found, before anything is repaired.
    #[serde(flatten)]
    pub found: VerifyReport,
}

/// A damaged file that another copy can replace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Replacement {
    /// The file's path in the backups.
    pub path: RelativePath,
    /// The file's length in bytes.
    pub size: u64,
    /// A backup that holds the intact copy.
    pub from: Label,
    /// The path of the intact copy in that backup. Two files may have the same bytes.
    pub from_path: RelativePath,
    /// The backups whose file is damaged or gone.
    pub into: Vec<Label>,
    #[serde(skip)]
    rows: CopyRows,
}

/// A damaged file of which the repository holds no intact copy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Lost {
    /// The file's path in the backups.
    pub path: RelativePath,
    /// The backups that have the file.
    pub backups: Vec<Label>,
}

/// The row of the intact copy, and those of the damaged ones.
#[derive(Debug, Clone, PartialEq, Eq)]
struct CopyRows {
    good: Row,
    bad: Vec<(Label, Row)>,
}

/// What a repair did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Repaired {
    /// Files that were repaired.
    pub replaced: Vec<Replacement>,
    /// Files of which no intact copy is left.
    pub lost: Vec<Lost>,
    /// A new verification of the chosen backups, and of all others that were repaired.
    #[serde(flatten)]
    pub report: VerifyReport,
    /// How many bytes were hashed before and after the repair.
    #[serde(skip)]
    pub all_bytes_hashed: u64,
}

/// Verifies backups, and looks in the whole repository for intact copies of what is damaged.
/// Changes no backup.
///
/// # Errors
/// As for [`verify`](super::verify).
pub fn plan_repair(
    repository: &dyn Repository,
    which: &Which,
    depth: Depth,
    run: &Run,
) -> Result<RepairPlan> {
    let plan = plan(repository, which, depth, KnownFiles::default(), run)?;
    plan.found.warn_of_twins(run);
    Ok(plan)
}

fn plan(
    repository: &dyn Repository,
    which: &Which,
    depth: Depth,
    known: KnownFiles,
    run: &Run,
) -> Result<RepairPlan> {
    let mut search = CopySearch {
        repository,
        known,
        run,
        copies: HashMap::new(),
    };
    let found = verify_with(repository, which, depth, &search.known, run)?;

    for backup in &found.backups {
        if !backup.findings.is_empty() {
            search.want_damaged_files_of(&backup.label)?;
        }
    }
    search.find_copies()?;
    let (replacements, lost) = search.sort_copies()?;

    Ok(RepairPlan {
        replacements,
        lost,
        found,
    })
}

/// The hash and the length of a file. Files are equal if both are.
type Bytes = (Blake3Hash, u64);

fn bytes_of(row: &Row) -> Bytes {
    (row.blake3, row.size)
}

/// The search for other copies of damaged files.
struct CopySearch<'a> {
    repository: &'a dyn Repository,
    known: KnownFiles,
    run: &'a Run,
    /// Every file in the repository that should have the wanted bytes.
    copies: HashMap<Bytes, Vec<(Label, Row)>>,
}

impl CopySearch<'_> {
    /// Adds the bytes of each damaged file of a backup to the wanted ones.
    fn want_damaged_files_of(&mut self, label: &Label) -> Result<()> {
        for row in rows_of(self.repository, label)? {
            if !self
                .known
                .is_intact(self.repository, label, &row, self.run)?
            {
                self.copies.entry(bytes_of(&row)).or_default();
            }
        }
        Ok(())
    }

    /// Finds every file that should have the wanted bytes. Reads one manifest at a time, because
    /// each can be large, and there can be many.
    fn find_copies(&mut self) -> Result<()> {
        if self.copies.is_empty() {
            return Ok(());
        }
        for listed in self.repository.list()? {
            for row in rows_of(self.repository, &listed.label)? {
                if let Some(copies) = self.copies.get_mut(&bytes_of(&row)) {
                    copies.push((listed.label.clone(), row));
                }
            }
        }
        Ok(())
    }

    /// Tells intact copies from damaged ones.
    fn sort_copies(self) -> Result<(Vec<Replacement>, Vec<Lost>)> {
        let (mut replacements, mut lost) = (Vec::new(), Vec::new());
        for copies in self.copies.into_values() {
            let (mut good, mut bad): (Vec<_>, BTreeMap<_, Vec<_>>) = Default::default();
            for (label, row) in copies {
                if self
                    .known
                    .is_intact_now(self.repository, &label, &row, self.run)?
                {
                    good.push((label, row));
                } else {
                    bad.entry(row.path.clone()).or_default().push((label, row));
                }
            }

            for (path, bad) in bad {
                match best_copy(&good, &path) {
                    Some(good) => replacements.push(Replacement::new(path, good, bad)),
                    None => lost.push(Lost {
                        path,
                        backups: labels_of(&bad),
                    }),
                }
            }
        }

        replacements.sort_by(|one, other| one.path.cmp(&other.path));
        lost.sort_by(|one, other| one.path.cmp(&other.path));
        Ok((replacements, lost))
    }
}

/// The newest intact copy. One of the same path is better, because backups can share it.
fn best_copy<'a>(good: &'a [(Label, Row)], path: &RelativePath) -> Option<&'a (Label, Row)> {
    let same_path = good.iter().rev().find(|(_, row)| row.path == *path);
    same_path.or(good.last())
}

fn labels_of(rows: &[(Label, Row)]) -> Vec<Label> {
    rows.iter().map(|(label, _)| label.clone()).collect()
}

impl Replacement {
    fn new(path: RelativePath, (from, good): &(Label, Row), bad: Vec<(Label, Row)>) -> Self {
        Self {
            path,
            size: good.size,
            from: from.clone(),
            from_path: good.path.clone(),
            into: labels_of(&bad),
            rows: CopyRows {
                good: good.clone(),
                bad,
            },
        }
    }
}

/// The rows of a backup. Returns none if its manifest is damaged: the verification has reported
/// that.
fn rows_of(repository: &dyn Repository, label: &Label) -> Result<Vec<Row>> {
    match repository.manifest(label) {
        Ok(Manifest { files, .. }) => Ok(files),
        Err(error) if matches!(error.kind(), Kind::StoredCorrupt | Kind::NotFound) => {
            Ok(Vec::new())
        }
        Err(error) => Err(error),
    }
}

/// Repairs what can be repaired, verifies the result, and marks the backups of what cannot be
/// repaired as damaged. Takes the writer's place first, so that no other run writes meanwhile.
///
/// # Errors
/// [`Kind::Locked`] if another run writes; as for [`verify`](super::verify). What cannot be
/// repaired is in the result.
pub fn repair(
    repository: &dyn Repository,
    which: &Which,
    depth: Depth,
    run: &Run,
) -> Result<Repaired> {
    repair_with(repository, which, depth, &Arc::default(), run)
}

/// As [`repair`]. Continues where an interrupted run of the same verification has stopped, with or
/// without a repair. Backups that such a run found intact may not be in the report.
///
/// # Errors
/// As [`repair`].
pub fn continue_repair(
    repository: &dyn Repository,
    which: &Which,
    depth: Depth,
    pass: VerifyPass,
    run: &Run,
) -> Result<Repaired> {
    let pass = Arc::new(pass);
    let repaired = repair_with(repository, which, depth, &pass, run)?;
    // If a backup could not be read, the next run tries again, and reads only what is left.
    if repaired.report.has_read_all() {
        pass.end();
    }
    Ok(repaired)
}

fn repair_with(
    repository: &dyn Repository,
    which: &Which,
    depth: Depth,
    pass: &Arc<VerifyPass>,
    run: &Run,
) -> Result<Repaired> {
    let writer = repository.writer(run)?;
    let known = KnownFiles::of_pass(Arc::clone(pass));
    let plan = plan(repository, which, depth, known, run)?;

    let mut replaced = Vec::new();
    for replacement in plan.replacements {
        let into = replace(&*writer, &replacement, run)?;
        if !into.is_empty() {
            replaced.push(Replacement {
                into,
                ..replacement
            });
        }
    }
    for lost in &plan.lost {
        for label in &lost.backups {
            remember_damage(repository, label)?;
        }
    }
    if replaced.is_empty() {
        separate(&*writer, &plan.found, run)?;
        return Ok(Repaired {
            replaced,
            lost: plan.lost,
            all_bytes_hashed: plan.found.bytes_hashed,
            report: plan.found,
        });
    }

    // Verify the result, as deep as the look that found the damage. Files have other inodes now.
    pass.look_at_all_backups();
    let before = plan.found.bytes_hashed;
    let mut labels: BTreeSet<Label> = BTreeSet::new();
    labels.extend(plan.found.backups.into_iter().map(|backup| backup.label));
    for replacement in &replaced {
        labels.extend(replacement.into.iter().cloned());
    }
    let depth = deep_enough(repository, &labels, depth)?;
    let which = Which::Named(labels.into_iter().collect());
    let known = KnownFiles::of_pass(Arc::clone(pass));
    let report = verify_with(repository, &which, depth, &known, run)?;
    // A file that was linked here may have had another name in its new backup all the time.
    separate(&*writer, &report, run)?;
    Ok(Repaired {
        replaced,
        lost: plan.lost,
        all_bytes_hashed: before.saturating_add(report.bytes_hashed),
        report,
    })
}

/// Gives names of one backup that lead to one file a file each.
fn separate(writer: &dyn Writer<'_>, found: &VerifyReport, run: &Run) -> Result<()> {
    for VerifiedBackup { label, twins, .. } in &found.backups {
        for row in twins {
            run.check()?;
            match writer.separate(label, row) {
                Ok(()) => run.note(format!("{} of {label} is a file of its own now", row.path)),
                Err(error) if matches!(error.kind(), Kind::Interrupted(_)) => return Err(error),
                Err(error) => run.warn(format!(
                    "{} of {label} is still one file with another name of that backup: {}",
                    row.path,
                    error.in_words()
                )),
            }
        }
    }
    Ok(())
}

/// Replaces the damaged copies of one file. Returns the backups in which that succeeded.
fn replace(writer: &dyn Writer<'_>, replacement: &Replacement, run: &Run) -> Result<Vec<Label>> {
    let good = (&replacement.from, &replacement.rows.good);
    let mut into = Vec::new();
    for (label, row) in &replacement.rows.bad {
        run.check()?;
        match writer.replace(label, row, good) {
            Ok(()) => {
                let (from, good) = good;
                run.note(format!(
                    "{} of {label} was damaged, and is repaired from {} of {from}",
                    row.path, good.path
                ));
                into.push(label.clone());
            }
            Err(error) if matches!(error.kind(), Kind::Interrupted(_)) => return Err(error),
            Err(error) => run.warn(format!(
                "{} of {label} cannot be repaired: {}",
                row.path,
                error.in_words()
            )),
        }
    }
    Ok(into)
}

/// The depth that clears known damage of these backups: at least that of the look that found it.
fn deep_enough(
    repository: &dyn Repository,
    labels: &BTreeSet<Label>,
    depth: Depth,
) -> Result<Depth> {
    let mut deepest = depth;
    for label in labels {
        if let Some(known) = remembered(repository, label)?
            && known.is_damaged()
        {
            deepest = deepest.max(known.depth);
        }
    }
    Ok(deepest)
}
