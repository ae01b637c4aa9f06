//! Decides who will own the restored files.

use std::path::Path;

use serde::Serialize;

use crate::error::{Error, Kind, Result};
use crate::fs;
use crate::manifest::Owner;
use crate::server::facts::MUST_OWN_CHUNKS;

/// Who will own the restored files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Ownership {
    /// User id.
    pub user: u32,
    /// Group id.
    pub group: u32,
    /// Whether kbackup has to set owner and group. If it runs as the owner, it need not.
    pub set: bool,
}

/// User id and group id.
type Ids = (u32, u32);

const ROOT: u32 = 0;

/// Decides who will own the files of a target. Returns a warning if the server may not own them.
///
/// # Errors
/// `Refused` if the process cannot give files to the owner that was asked for.
pub(super) fn ownership(
    wanted: Option<Ids>,
    db: &Path,
    source: Option<&Owner>,
) -> Result<(Ownership, Option<String>)> {
    let process = (
        rustix::process::geteuid().as_raw(),
        rustix::process::getegid().as_raw(),
    );
    let existing = fs::status(db)?.map(|status| (status.user, status.group));
    let source = source.map(|owner| (owner.user, owner.group));

    let (owner, warning) =
        decide(process, wanted, existing, source).map_err(|error| error.at(db))?;
    let warning = warning.map(|warning| format!("{}: {warning}", db.display()));
    Ok((owner, warning))
}

/// `existing` is the owner of the directory, `source` the owner of the files on the node.
fn decide(
    process: Ids,
    wanted: Option<Ids>,
    existing: Option<Ids>,
    source: Option<Ids>,
) -> Result<(Ownership, Option<String>)> {
    if process.0 == ROOT {
        return Ok(decide_as_root(process, wanted, existing, source));
    }

    if let Some(wanted) = wanted {
        if wanted.0 != process.0 {
            return Err(cannot_give(process.0, wanted.0));
        }
        let owner = Ownership {
            set: wanted != process,
            ..set(wanted)
        };
        return Ok((owner, None));
    }

    let owner = Ownership {
        set: false,
        ..set(process)
    };
    let warning = match existing.or(source) {
        Some((server, _)) if server != process.0 => Some(format!(
            "the files will belong to user {}, but the server seems to run as user {server}: \
             {}; run the restore as that user, or as root",
            process.0,
            consequence()
        )),
        Some(_) | None => None,
    };
    Ok((owner, warning))
}

fn decide_as_root(
    process: Ids,
    wanted: Option<Ids>,
    existing: Option<Ids>,
    source: Option<Ids>,
) -> (Ownership, Option<String>) {
    // If somebody prepared the directory for the server, its owner counts before the owner on the
    // node. Root as its owner means that nobody prepared it.
    let prepared = existing.filter(|(user, _)| *user != ROOT);
    if let Some(owner) = wanted.or(prepared).or(source) {
        return (set(owner), None);
    }

    let warning = format!(
        "nothing tells which user runs the server, so the files will belong to root: \
         {}; see `--owner`",
        consequence()
    );
    (set(process), Some(warning))
}

/// What a wrong owner of the files leads to.
fn consequence() -> String {
    format!("a server {MUST_OWN_CHUNKS} that does not own its chunks does not start")
}

fn set((user, group): Ids) -> Ownership {
    Ownership {
        user,
        group,
        set: true,
    }
}

fn cannot_give(process: u32, user: u32) -> Error {
    let what = format!("this process runs as user {process} and cannot give files to user {user}");
    Error::new(Kind::Refused, what)
        .hint("run the restore as root, or without `--owner` as the user that runs the server")
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOT: Ids = (0, 0);
    const SERVER: Ids = (1001, 1001);
    const OTHER: Ids = (1000, 1000);

    fn owner(
        process: Ids,
        wanted: Option<Ids>,
        existing: Option<Ids>,
        source: Option<Ids>,
    ) -> (Ids, bool, bool) {
        let (owner, warning) = decide(process, wanted, existing, source).unwrap();
        ((owner.user, owner.group), owner.set, warning.is_some())
    }

    #[test]
    fn root_gives_the_files_to_whom_the_server_runs_as() {
        assert_eq!(
            owner(ROOT, Some(OTHER), Some(SERVER), Some(SERVER)),
            (OTHER, true, false),
            "as it was told"
        );
        assert_eq!(
            owner(ROOT, None, Some(OTHER), Some(SERVER)),
            (OTHER, true, false),
            "the directory's owner"
        );
        assert_eq!(
            owner(ROOT, None, Some(ROOT), Some(SERVER)),
            (SERVER, true, false),
            "the backup's, as root owns only the mount point"
        );
        assert_eq!(owner(ROOT, None, None, Some(SERVER)), (SERVER, true, false));
        assert_eq!(
            owner(ROOT, None, None, Some(ROOT)),
            (ROOT, true, false),
            "the server ran as root"
        );
    }

    #[test]
    fn a_wrong_owner_is_never_silent() {
        assert_eq!(owner(ROOT, None, None, None), (ROOT, true, true));
        assert_eq!(owner(OTHER, None, None, Some(SERVER)), (OTHER, false, true));
        assert_eq!(
            owner(OTHER, None, Some(SERVER), Some(OTHER)),
            (OTHER, false, true),
            "the group may write there, but the server is another user"
        );
        assert_eq!(
            owner(SERVER, None, Some(SERVER), Some(OTHER)),
            (SERVER, false, false)
        );
        assert_eq!(owner(SERVER, None, None, None), (SERVER, false, false));
    }

    #[test]
    fn others_than_root_give_files_to_nobody_else() {
        assert_eq!(
            decide(OTHER, Some(SERVER), None, None).unwrap_err().kind(),
            Kind::Refused
        );
        assert_eq!(
            owner(SERVER, Some((1001, 50)), None, None),
            ((1001, 50), true, false),
            "a group of theirs, perhaps"
        );
        assert_eq!(
            owner(SERVER, Some(SERVER), None, None),
            (SERVER, false, false)
        );
    }
}
