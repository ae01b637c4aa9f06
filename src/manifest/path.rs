//! The paths that a manifest can hold: none of them leads out of the data directory.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// One of the two directories of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Root {
    /// Chunks and checkpoints.
    Db,
    /// Index map, tables, filters, scavenge state.
    Index,
}

impl Root {
    /// The first part of a [`RelativePath`].
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Db => "db",
            Self::Index => "index",
        }
    }
}

/// The only path a manifest can hold: `db/…` or `index/…`, and no way to climb out.
///
/// Every part is non-empty, not `.` or `..`, at most 255 bytes, and free of `/`, `\` and control
/// characters. At most 8 parts.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RelativePath {
    root: Root,
    /// What comes after the root, `/` between parts. There are many paths, and each is in many
    /// places, so they share the text.
    rest: Arc<str>,
}

/// A path that a manifest must not hold.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{path:?} is no path of a backup: {reason}")]
pub struct InvalidPath {
    path: String,
    reason: &'static str,
}

impl RelativePath {
    /// A path below `root`.
    ///
    /// # Errors
    /// [`InvalidPath`] if a part breaks the rules.
    pub fn new(root: Root, rest: &str) -> Result<Self, InvalidPath> {
        if let Err(reason) = check_parts(rest) {
            return Err(InvalidPath {
                path: format!("{}/{rest}", root.name()),
                reason,
            });
        }
        Ok(Self {
            root,
            rest: rest.into(),
        })
    }

    /// A path that is known to follow the rules: the server's own names do.
    pub(super) fn of_valid(root: Root, rest: &str) -> Self {
        Self {
            root,
            rest: rest.into(),
        }
    }

    /// The directory that the file is in.
    #[must_use]
    pub const fn root(&self) -> Root {
        self.root
    }

    /// The path below its root, `/` between parts.
    #[must_use]
    pub fn below_root(&self) -> &str {
        &self.rest
    }

    /// The last part: the file's name.
    #[must_use]
    pub fn file_name(&self) -> &str {
        self.rest.rsplit('/').next().unwrap_or(&self.rest)
    }

    /// The file's path under `directory`, which holds `db/` and `index/`.
    #[must_use]
    pub fn under(&self, directory: &Path) -> PathBuf {
        directory.join(self.root.name()).join(&*self.rest)
    }
}

/// Checks what comes after the root. The error is a reason.
fn check_parts(rest: &str) -> Result<(), &'static str> {
    if rest.split('/').count() > 7 {
        return Err("it has more than 8 parts");
    }
    for part in rest.split('/') {
        if part.is_empty() || part == "." || part == ".." {
            return Err("a part is empty, `.` or `..`");
        }
        if part.len() > 255 {
            return Err("a part is longer than 255 bytes");
        }
        if part.contains(|character: char| character.is_control() || character == '\\') {
            return Err("a part has a control character or a backslash");
        }
    }
    Ok(())
}

impl FromStr for RelativePath {
    type Err = InvalidPath;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let invalid = || InvalidPath {
            path: text.to_owned(),
            reason: "it does not begin with `db/` or `index/`",
        };
        let (root, rest) = text.split_once('/').ok_or_else(invalid)?;
        match root {
            "db" => Self::new(Root::Db, rest),
            "index" => Self::new(Root::Index, rest),
            _ => Err(invalid()),
        }
    }
}

impl TryFrom<String> for RelativePath {
    type Error = InvalidPath;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<RelativePath> for String {
    fn from(path: RelativePath) -> Self {
        path.to_string()
    }
}

impl fmt::Display for RelativePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.root.name(), self.rest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepts_what_a_server_writes() {
        for path in [
            "db/chunk-000000.000000",
            "db/writer.chk",
            "index/indexmap",
            "index/stream-existence/streamExistenceFilter.dat",
        ] {
            assert_eq!(path.parse::<RelativePath>().unwrap().to_string(), path);
        }
    }

    #[test]
    fn refuses_what_climbs_out() {
        let long = format!("db/{}", "x".repeat(256));
        for path in [
            "",
            "db",
            "db/",
            "/db/x",
            "db//x",
            "db/../x",
            "db/./x",
            "etc/passwd",
            "../db/x",
            "db/a\\b",
            "db/a\0b",
            "db/a\nb",
            &long,
        ] {
            assert!(path.parse::<RelativePath>().is_err(), "{path:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn never_leaves_the_directory(text in "\\PC{0,40}") {
            if let Ok(path) = text.parse::<RelativePath>() {
                let place = path.under(Path::new("/r"));
                assert!(place.components().all(|part| !matches!(part, std::path::Component::ParentDir | std::path::Component::CurDir)));
                assert!(place.starts_with("/r"));
            }
        }
    }
}
