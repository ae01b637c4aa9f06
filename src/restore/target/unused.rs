//! Checks that no server uses a restore target, now or the next time that it runs.

use super::super::request::AcceptedRisks;
use super::content::{self, BackupToRestore, FinishedTarget, TargetContent};
use crate::error::{Error, Kind, Result};
use crate::manifest::Directories;
use crate::node;
use crate::run::Run;

/// Proves that no server uses a target, and that nothing in it can be lost.
///
/// # Errors
/// `Refused` if a server uses the target, if kbackup cannot tell and the operator did not confirm,
/// and if the target holds anything but traces of the same restore.
pub(in crate::restore) fn find_unused(
    target: &Directories,
    backup: BackupToRestore<'_>,
    finished: FinishedTarget,
    accept: AcceptedRisks,
    run: &Run,
) -> Result<TargetContent> {
    const CANNOT: &str = "cannot restore into this directory";
    refuse_inside_another(target)?;

    // Signs of a server first: they explain why the directory is not empty. Doubts count below,
    // when the content is known.
    let findings = node::probe(target, None)?;
    findings.refuse(CANNOT, &target.db, true)?;
    let content = content::examine(target, backup, finished)?;

    // kbackup may not see a server, such as on another machine. Its files would be in the target.
    let has_nothing_to_lose = match content {
        TargetContent::Absent | TargetContent::Empty | TargetContent::Finished => true,
        TargetContent::Interrupted(_) => false,
    };
    let confirmed = has_nothing_to_lose || accept.unsure_whether_in_use;
    findings.refuse(CANNOT, &target.db, confirmed)?;

    for doubt in &findings.doubts {
        run.note(doubt.to_string());
    }
    Ok(content)
}

/// Refuses a target inside the directory of another database. A server treats everything in its
/// directories as its own, whether it runs now or later.
fn refuse_inside_another(directories: &Directories) -> Result<()> {
    for target in [&directories.db, &directories.index] {
        for above in target.ancestors().skip(1) {
            if above == directories.db {
                continue;
            }
            let Some(sign) = node::sign_of_database(above)? else {
                continue;
            };

            let what = "the target lies inside the directory of another database";
            return Err(Error::new(Kind::Refused, what)
                .at(target)
                .because(format!("there is {}", sign.display()))
                .hint("name a directory beside it"));
        }
    }
    Ok(())
}
