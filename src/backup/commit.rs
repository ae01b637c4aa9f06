//! Proves a captured backup, and commits it.

use super::attempt::CapturedBackup;
use super::capture::Capture;
use super::description::BackupDescription;
use crate::error::Result;
use crate::event::{Event, Step};
use crate::manifest::Head;
use crate::proof::{self, BackupEvidence};

/// Proves what was captured, and commits it.
///
/// # Errors
/// After any error nothing is listed.
pub(super) fn commit(
    capture: Capture<'_>,
    description: BackupDescription<'_>,
    captured: &CapturedBackup,
) -> Result<Head> {
    let (run, parent) = (capture.run, capture.parent());
    let manifest = description.manifest(&capture, captured);
    run.almost_done()?;
    run.emit(Event::Step(Step::Commit));

    let md5_compared = capture.newly_read();
    let (incoming, inspected) = capture.into_incoming();
    let evidence = BackupEvidence {
        parent,
        md5_compared: &md5_compared,
        log: &captured.proof,
        inspected: &inspected,
    };
    let proven = proof::prove_backup(&*incoming, manifest, &evidence, run)?;

    // The commit lists the files once more, and there may be tens of thousands.
    drop((inspected, md5_compared));
    incoming.commit(&proven)?;
    run.emit(Event::Committed {
        label: proven.label.to_string(),
        position: proven.log.position.position().get(),
    });
    Ok(proven.head.clone())
}
