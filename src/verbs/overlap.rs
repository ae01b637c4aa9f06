//! Refuses paths of kbackup's that overlap with the node's own directories: the repository, and the
//! state directory. Also refuses repositories that lie in each other.
//!
//! Links and bind mounts give a directory several paths. So directories are compared by their inodes
//! as well.

use std::path::{Path, PathBuf};

use crate::error::{Error, Kind, Result};
use crate::fs;
use crate::repository::Location;

/// Refuses a repository inside the node's directories, and directories of the node inside the
/// repository. The one would be lost with the node and be in the server's way. The other would be
/// taken for what an interrupted run left.
pub(super) fn refuse_repository(typed: &Path, of_node: &[&Path]) -> Result<()> {
    let location = Location::parse(typed)?;
    // A store on another machine cannot overlap.
    let Some(repository) = location.directory() else {
        return Ok(());
    };
    if let Some(status) = fs::status_of_target(repository)?
        && status.kind != fs::FileKind::Directory
    {
        // Whoever opens it says that it is no directory.
        return Ok(());
    }

    let repository_lies = Lies::of(repository)?;
    let mut own = vec![Lies::of(repository)?];
    for name in ["backups", "incoming", "state"] {
        own.push(Lies::of(&repository.join(name))?);
    }

    for directory in of_node {
        let node_lies = Lies::of(directory)?;
        if repository_lies.inside(&node_lies) {
            return Err(Error::new(
                Kind::Refused,
                "the repository lies inside the node's own directory",
            )
            .at(repository)
            .hint("choose another `--repo`, best on another disk"));
        }
        if own.iter().any(|own| node_lies.inside(own)) {
            return Err(Error::new(
                Kind::Refused,
                "the node's own directory lies inside the repository",
            )
            .at(directory)
            .hint(
                "choose another `--repo`, best on another disk: a repository holds nothing but \
                   backups",
            ));
        }
    }
    Ok(())
}

/// Refuses to copy a repository into itself, and one repository inside another.
pub(super) fn refuse_nested_repositories(from: &Path, to: &Path) -> Result<()> {
    let (from_lies, to_lies) = (Lies::of(from)?, Lies::of(to)?);
    let (to_inside, from_inside) = (to_lies.inside(&from_lies), from_lies.inside(&to_lies));

    let what = match (to_inside, from_inside) {
        (false, false) => return Ok(()),
        (true, true) => "the two repositories are one",
        (true, false) => "the target lies inside the repository that is read",
        (false, true) => "the repository that is read lies inside the target",
    };
    Err(Error::new(Kind::Refused, what)
        .at(to)
        .hint("choose another `--to`, best on another machine"))
}

/// Refuses to make a state directory inside the node's directories. One that exists already is used.
pub(super) fn refuse_new_state(state: &Path, of_node: &[&Path]) -> Result<()> {
    if fs::status_of_target(state)?.is_some() {
        return Ok(());
    }

    let state_lies = Lies::of(state)?;
    for directory in of_node {
        if state_lies.inside(&Lies::of(directory)?) {
            return Err(crate::node::state_inside_node(state, directory));
        }
    }
    Ok(())
}

/// Where a path lies.
struct Lies {
    /// The path without links, although its last parts may not exist yet.
    real: PathBuf,
    /// Device and inode of the path itself, if it exists.
    own: Option<(u64, u64)>,
    /// Device and inode of each existing directory from the path up to the root.
    up: Vec<(u64, u64)>,
}

impl Lies {
    fn of(path: &Path) -> Result<Self> {
        let real = fs::real(path);

        let mut lies = Self {
            own: None,
            up: Vec::new(),
            real,
        };
        for directory in lies.real.ancestors() {
            let Some(status) = fs::status(directory)? else {
                continue;
            };
            let identity = (status.device, status.inode);
            if directory == lies.real {
                lies.own = Some(identity);
            }
            lies.up.push(identity);
        }
        Ok(lies)
    }

    /// Whether this path is the other one, or lies inside it.
    fn inside(&self, other: &Self) -> bool {
        let is_below = self.real.starts_with(&other.real);
        is_below || other.own.is_some_and(|own| self.up.contains(&own))
    }
}
