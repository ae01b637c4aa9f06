//! Mending stored backups: where a file's bytes are stored once more, in another copy that is
//! right, its name is made to lead there.

use std::collections::{BTreeSet, HashMap};

use serde::Serialize;

use super::backup::{Shared, is_intact};
use super::{Report, Which, verify, verify_with};
use crate::error::{Kind, Result};
use crate::manifest::{Blake3Hash, Label, Manifest, RelativePath, Row};
use crate::proof::Depth;
use crate::repository::{Remembered, Repository, remember_damage, remembered};
use crate::run::Run;

/// What can be mended, and what cannot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RepairPlan {
    /// Files whose bytes are stored once more.
    pub replacements: Vec<Replacement>,
    /// Files of which no right copy is left.
    pub lost: Vec<Lost>,
    /// What the verification found, before anything is mended.
    #[serde(flatten)]
    pub found: Report,
}

/// A stored file that is to be had again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Replacement {
    /// Where it lies in the backups.
    pub path: RelativePath,
    /// Its length in bytes.
    pub size: u64,
    /// A backup that holds the bytes as they should be.
    pub from: Label,
    /// The backups whose file is damaged or gone.
    pub into: Vec<Label>,
    #[serde(skip)]
    rows: Rows,
}

/// A stored file that the repository does not hold as it was any more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Lost {
    /// Where it lies in the backups.
    pub path: RelativePath,
    /// The backups whose file it is.
    pub backups: Vec<Label>,
}

/// The row of the right copy, and those of the wrong ones.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Rows {
    good: Row,
    bad: Vec<(Label, Row)>,
}

/// What became of a repair.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Repaired {
    /// Files that were mended.
    pub replaced: Vec<Replacement>,
    /// Files of which no right copy is left.
    pub lost: Vec<Lost>,
    /// The verification of the backups, and of all others that were mended, as they are now.
    #[serde(flatten)]
    pub report: Report,
}

/// Verifies backups, and looks for right copies of what is damaged in the whole repository. Changes
/// no backup.
///
/// # Errors
/// As for [`verify`]. Damage is in the plan.
pub fn plan_repair(
    repository: &dyn Repository,
    which: &Which,
    depth: Depth,
    run: &Run,
) -> Result<RepairPlan> {
    let mut shared = Shared::default();
    let found = verify_with(repository, which, depth, &mut shared, run)?;
    let mut plan = RepairPlan {
        replacements: Vec::new(),
        lost: Vec::new(),
        found,
    };
    let wanted: BTreeSet<&Label> = plan
        .found
        .backups
        .iter()
        .filter(|backup| !backup.findings.is_empty())
        .map(|backup| &backup.label)
        .collect();
    if wanted.is_empty() {
        return Ok(plan);
    }
    // The manifests one at a time: each can be large, and there can be many.
    let mut names: HashMap<Bytes, Vec<(Label, Row)>> = HashMap::new();
    for label in wanted {
        for row in readable(repository, label)?.map_or_else(Vec::new, |manifest| manifest.files) {
            if !is_intact(repository, label, &row, &mut shared, run)? {
                names.entry(bytes_of(&row)).or_default();
            }
        }
    }
    for label in repository.list()?.into_iter().map(|listed| listed.label) {
        for row in readable(repository, &label)?.map_or_else(Vec::new, |manifest| manifest.files) {
            if let Some(names) = names.get_mut(&bytes_of(&row)) {
                names.push((label.clone(), row));
            }
        }
    }
    for names in names.into_values() {
        let (mut good, mut bad) = (None, Vec::new());
        for (label, row) in names {
            if is_intact(repository, &label, &row, &mut shared, run)? {
                good = Some((label, row));
            } else {
                bad.push((label, row));
            }
        }
        let Some((_, first)) = bad.first() else {
            continue;
        };
        let (path, size) = (first.path.clone(), first.size);
        let backups: Vec<Label> = bad.iter().map(|(label, _)| label.clone()).collect();
        let Some((from, good)) = good else {
            plan.lost.push(Lost { path, backups });
            continue;
        };
        plan.replacements.push(Replacement {
            path,
            size,
            from,
            into: backups,
            rows: Rows { good, bad },
        });
    }
    plan.replacements
        .sort_by(|one, other| one.path.cmp(&other.path));
    plan.lost.sort_by(|one, other| one.path.cmp(&other.path));
    Ok(plan)
}

/// The manifest; none where it is damaged, which the verification has told.
fn readable(repository: &dyn Repository, label: &Label) -> Result<Option<Manifest>> {
    match repository.manifest(label) {
        Err(error) if matches!(error.kind(), Kind::StoredCorrupt | Kind::NotFound) => Ok(None),
        result => result.map(Some),
    }
}

/// What tells equal files.
type Bytes = (Blake3Hash, u64);

fn bytes_of(row: &Row) -> Bytes {
    (row.blake3, row.size)
}

/// Mends what can be mended, verifies the result, and marks the backups of what cannot be mended as
/// damaged. Takes the writer's place from the first look on.
///
/// # Errors
/// [`Kind::Locked`] where another run writes; as for [`verify`]. What cannot be mended is in the
/// result.
pub fn repair(
    repository: &dyn Repository,
    which: &Which,
    depth: Depth,
    run: &Run,
) -> Result<Repaired> {
    let writer = repository.writer(run)?;
    let plan = plan_repair(repository, which, depth, run)?;
    let mut replaced = Vec::new();
    for replacement in plan.replacements {
        let mut into = Vec::new();
        for (label, row) in &replacement.rows.bad {
            run.check()?;
            match writer.replace(label, row, (&replacement.from, &replacement.rows.good)) {
                Ok(()) => into.push(label.clone()),
                Err(error) if matches!(error.kind(), Kind::Interrupted(_)) => return Err(error),
                Err(error) => run.warn(format!(
                    "{} of {label} cannot be mended: {}",
                    row.path,
                    error.in_words()
                )),
            }
        }
        if !into.is_empty() {
            replaced.push(Replacement {
                into,
                ..replacement
            });
        }
    }
    for label in plan.lost.iter().flat_map(|lost| &lost.backups) {
        remember_damage(repository, label)?;
    }
    let mended: BTreeSet<&Label> = replaced.iter().flat_map(|one| &one.into).collect();
    if mended.is_empty() {
        return Ok(Repaired {
            replaced,
            lost: plan.lost,
            report: plan.found,
        });
    }
    let labels: BTreeSet<Label> = plan
        .found
        .backups
        .iter()
        .map(|backup| &backup.label)
        .chain(mended)
        .cloned()
        .collect();
    let depth = deep_enough(repository, &labels, depth)?;
    let report = verify(
        repository,
        &Which::Named(labels.into_iter().collect()),
        depth,
        run,
    )?;
    Ok(Repaired {
        replaced,
        lost: plan.lost,
        report,
    })
}

/// Damage that a deeper look has found is cleared only by a look as deep.
fn deep_enough(
    repository: &dyn Repository,
    labels: &BTreeSet<Label>,
    depth: Depth,
) -> Result<Depth> {
    labels.iter().try_fold(depth, |depth, label| {
        let known = remembered(repository, label)?.filter(Remembered::is_damaged);
        Ok(known.map_or(depth, |known| known.depth.max(depth)))
    })
}
