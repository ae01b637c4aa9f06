//! The paths that a manifest can hold. No path leads out of a data directory.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// One of the two directories of a node: each file lies in one of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Root {
    /// The db directory: chunks and checkpoints.
    Db,
    /// The index directory: `indexmap`, tables, filters, scavenge state.
    Index,
}

impl Root {
    /// The first part of a [`RelativePath`] below this root.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Db => "db",
            Self::Index => "index",
        }
    }
}

/// A path below one of the roots: `db/…` or `index/…`. A manifest holds no other paths.
///
/// It has at most 8 parts. No part is empty, `.` or `..`, or longer than 255 bytes, and no part
/// holds `/`, `\` or a control character. So the path cannot lead out of its root.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RelativePath {
    root: Root,
    /// The parts after the root, with `/` between them. Copies share this text, because one run
    /// holds many copies of many paths.
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
        if let Some(reason) = fault_of(rest) {
            return Err(InvalidPath {
                path: format!("{}/{rest}", root.name()),
                reason,
            });
        }
        Ok(Self::of_valid(root, rest))
    }

    /// A path that is known to follow the rules, as the server's own names do.
    pub(super) fn of_valid(root: Root, rest: &str) -> Self {
        Self {
            root,
            rest: rest.into(),
        }
    }

    /// The root that the path begins with.
    #[must_use]
    pub const fn root(&self) -> Root {
        self.root
    }

    /// The parts after the root, with `/` between them.
    #[must_use]
    pub fn below_root(&self) -> &str {
        &self.rest
    }

    /// The last part.
    #[must_use]
    pub fn file_name(&self) -> &str {
        self.rest.rsplit('/').next().unwrap_or(&self.rest)
    }

    /// The path on the disk if `directory` holds `db/` and `index/`.
    #[must_use]
    pub fn under(&self, directory: &Path) -> PathBuf {
        directory.join(self.root.name()).join(&*self.rest)
    }
}

/// The rule that the parts after the root break. Returns `None` if they break none.
fn fault_of(rest: &str) -> Option<&'static str> {
    // The root is a part too.
    if rest.split('/').count() > 7 {
        return Some("it has more than 8 parts");
    }

    for part in rest.split('/') {
        if part.is_empty() || part == "." || part == ".." {
            return Some("a part is empty, `.` or `..`");
        }
        if part.len() > 255 {
            return Some("a part is longer than 255 bytes");
        }
        if part.chars().any(is_forbidden) {
            return Some("a part has a control character or a backslash");
        }
    }
    None
}

fn is_forbidden(character: char) -> bool {
    character.is_control() || character == '\\'
}

impl FromStr for RelativePath {
    type Err = InvalidPath;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.split_once('/') {
            Some(("db", rest)) => Self::new(Root::Db, rest),
            Some(("index", rest)) => Self::new(Root::Index, rest),
            _ => Err(InvalidPath {
                path: text.to_owned(),
                reason: "it does not begin with `db/` or `index/`",
            }),
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
