//! A backup that arrives in the target, from another repository or from an archive: its place among
//! the backups there, and its proof.

use super::files::FilesToBring;
use super::filling::Brought;
use super::line::{ParentInLine, PlaceInLine, TargetLine};
use super::request::CopyRules;
use crate::error::{Error, Kind, Result};
use crate::event::{Event, Step};
use crate::manifest::{Head, Label, Manifest, Row};
use crate::proof::{self, CopyEvidence, Proven};
use crate::repository::{Incoming, Repository};
use crate::run::Run;

/// The place of an arriving backup in the target, and the backup there that it may reuse files of.
#[derive(Debug)]
pub struct Arrival {
    place: PlaceInLine,
    parent: Option<Manifest>,
}

impl Arrival {
    /// Finds the place of a backup. Returns `None` if the target holds it already. `source` are the
    /// backups of the repository that it comes from, if it comes from one.
    ///
    /// # Errors
    /// `Refused` if the target holds another backup of the same label, belongs to another node, or
    /// holds a newer backup.
    pub fn find(
        to: &dyn Repository,
        original: &Manifest,
        source: &[Head],
        rules: CopyRules,
        run: &Run,
    ) -> Result<Option<Self>> {
        let label = &original.label;
        let mut line = TargetLine::read(to, run)?;
        if line.find(label).is_some() {
            check_same(&to.manifest(label)?, original)?;
            return Ok(None);
        }
        if let Some(newer) = line.newer_than(label) {
            return Err(older_than(newer, label));
        }

        let (place, parent) = settle(&mut line, original, source, rules, run, |parent| {
            to.manifest(&parent.label)
        })?;
        Ok(Some(Self { place, parent }))
    }

    /// The backup of the target that files may be reused from.
    #[must_use]
    pub fn parent(&self) -> Option<&Manifest> {
        self.parent.as_ref()
    }

    /// The rows of the backup whose files the parent has, too.
    #[must_use]
    pub fn reusable<'a>(&self, original: &'a Manifest) -> Vec<&'a Row> {
        FilesToBring::of(original, self.parent()).reused
    }

    /// Refuses a backup that cannot fit.
    ///
    /// # Errors
    /// `Failed` if the target has too little free space.
    pub fn check_space(&self, original: &Manifest, to: &dyn Repository) -> Result<()> {
        let files = FilesToBring::of(original, self.parent());
        check_space(files.bytes_to_write(original), to)
    }

    /// Takes the place of the target's only writer, and begins the backup.
    ///
    /// # Errors
    /// `Locked` if another run writes, or has committed since the place was found.
    pub fn begin<'a>(
        &'a self,
        to: &'a dyn Repository,
        run: &'a Run,
    ) -> Result<Box<dyn Incoming + 'a>> {
        let incoming = to.writer(run)?.begin(self.parent())?;
        incoming.check_next(self.place.sequence)?;
        Ok(incoming)
    }

    /// Proves that what was brought is the original.
    ///
    /// # Errors
    /// As for [`proof::prove_copy`].
    pub fn prove(
        &self,
        incoming: &dyn Incoming,
        original: &Manifest,
        brought: &Brought,
        run: &Run,
    ) -> Result<Proven<Manifest>> {
        run.emit(Event::Step(Step::Prove));
        let mut manifest = original.clone();
        manifest.sequence = self.place.sequence;
        manifest.branch = self.place.branch;
        manifest.parent = self.parent().map(|parent| parent.label.clone());
        manifest.cost = brought.cost.clone();
        manifest.cost.bytes_stored = incoming.bytes_stored();
        manifest.cost.retries = original.cost.retries;

        let evidence = CopyEvidence {
            original,
            parent: self.parent(),
            stored: &brought.hashes,
        };
        proof::prove_copy(incoming, manifest, &evidence, run)
    }
}

/// Makes a proven backup visible.
///
/// # Errors
/// As for [`Incoming::commit`]. After an error nothing is listed.
pub fn commit(
    incoming: Box<dyn Incoming + '_>,
    proven: &Proven<Manifest>,
    run: &Run,
) -> Result<()> {
    run.almost_done()?;
    run.emit(Event::Step(Step::Commit));
    incoming.commit(proven)?;
    run.emit(Event::Committed {
        label: proven.label.to_string(),
        position: proven.log.position.position().get(),
    });
    Ok(())
}

/// Finds the place of a copy, and reads the manifest of its parent. A parent whose rows are damaged
/// is ignored, and the next one is looked for.
///
/// # Errors
/// As for [`TargetLine::place_for`].
pub(super) fn settle(
    line: &mut TargetLine,
    original: &Manifest,
    source: &[Head],
    rules: CopyRules,
    run: &Run,
    read: impl Fn(&ParentInLine) -> Result<Manifest>,
) -> Result<(PlaceInLine, Option<Manifest>)> {
    loop {
        let place = line.place_for(&original.head, source, rules, run)?;
        let Some(parent) = &place.parent else {
            return Ok((place, None));
        };

        match read(parent) {
            Ok(manifest) => return Ok((place, Some(manifest))),
            Err(error) if error.kind() == Kind::StoredCorrupt => {
                let label = &parent.label;
                run.warn(format!("{label}: {error}; this run ignores that backup"));
                line.mark_damaged(label);
            }
            Err(error) => return Err(error),
        }
    }
}

/// Checks that the target's backup of the same label is the same backup.
///
/// # Errors
/// `Refused` if it is another one.
pub(super) fn check_same(there: &Manifest, original: &Manifest) -> Result<()> {
    if there.is_copy_of(original) {
        return Ok(());
    }

    let what = "the target holds another backup of the same label";
    Err(Error::new(Kind::Refused, what)
        .on(&original.label)
        .because(how_they_differ(there, original))
        .hint("each node needs a repository of its own: choose another target"))
}

fn how_they_differ(there: &Manifest, original: &Manifest) -> String {
    let (ours, theirs) = (&original.source.identity, &there.source.identity);
    if ours.database != theirs.database {
        return format!(
            "that one is of database {}, this one of {}",
            theirs.database, ours.database
        );
    }
    if there.log.position != original.log.position {
        return format!(
            "that one ends at log position {}, this one at {}",
            there.log.position, original.log.position
        );
    }
    if there.files != original.files {
        return "their files differ".to_owned();
    }
    "their descriptions differ".to_owned()
}

/// The error for a backup that would get a higher number than newer ones.
pub(super) fn older_than(newer: &Label, label: &Label) -> Error {
    let what = "this backup is older than the newest one of the target, and would count as newer";
    Error::new(Kind::Refused, what)
        .on(label)
        .because(format!("the target holds {newer}"))
        .hint("copy it into another repository, which holds no newer backup")
}

/// Refuses what cannot fit.
pub(super) fn check_space(needed: u64, to: &dyn Repository) -> Result<()> {
    let Some(free) = to.free_space()? else {
        return Ok(());
    };

    // What an interrupted run left is resumed, or makes room.
    let left = to.interrupted()?;
    let free = free.saturating_add(left.map_or(0, |left| left.bytes));
    if free >= needed {
        return Ok(());
    }
    let what = format!("the target has {free} bytes of free space, the copy needs about {needed}");
    Err(Error::new(Kind::Failed, what)
        .on(to.place())
        .hint("free space there, or choose another target"))
}
