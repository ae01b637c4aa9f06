use std::fmt;
use std::str::FromStr;

use serde::{Serialize, Serializer};

/// A line of server versions that start alike (disk-format §8).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ServerLine {
    /// 20.6 to 21.2.
    V20_10,
    /// 21.6 and 21.10.
    V21_10,
    /// 22.6 and 22.10.
    V22_10,
    /// 23.6 to 24.2.
    V23_10,
    /// 24.6 and 24.10.
    V24_10,
    /// 25.0.
    V25_0,
    /// 25.1.
    V25_1,
    /// 26.0 and later.
    V26_1,
}

impl ServerLine {
    /// Every line, oldest first.
    pub const ALL: [Self; 8] = [
        Self::V20_10,
        Self::V21_10,
        Self::V22_10,
        Self::V23_10,
        Self::V24_10,
        Self::V25_0,
        Self::V25_1,
        Self::V26_1,
    ];

    /// The line of a version such as `24.10.14`; none for servers before 20.6 and for text that is
    /// no version.
    #[must_use]
    pub fn of_version(version: &str) -> Option<Self> {
        let mut numbers = version
            .trim_start_matches('v')
            .split(['.', '-', '+', ' '])
            .map_while(|part| part.parse::<u32>().ok());
        match (numbers.next()?, numbers.next()?) {
            (20, 6..) | (21, ..6) => Some(Self::V20_10),
            (21, _) => Some(Self::V21_10),
            (22, _) => Some(Self::V22_10),
            (23, _) | (24, ..6) => Some(Self::V23_10),
            (24, _) => Some(Self::V24_10),
            (25, 0) => Some(Self::V25_0),
            (25, _) => Some(Self::V25_1),
            (26.., _) => Some(Self::V26_1),
            _ => None,
        }
    }

    /// The version it is named by.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::V20_10 => "20.10",
            Self::V21_10 => "21.10",
            Self::V22_10 => "22.10",
            Self::V23_10 => "23.10",
            Self::V24_10 => "24.10",
            Self::V25_0 => "25.0",
            Self::V25_1 => "25.1",
            Self::V26_1 => "26.1",
        }
    }

    /// Whether a server of this line was run to see what it does (observed.md). What is said of the
    /// others comes from reading its source.
    #[must_use]
    pub const fn was_run(self) -> bool {
        !matches!(self, Self::V25_0 | Self::V25_1)
    }

    /// From 21.10.2 on a chunk file of version 0 counts for one chunk number, whatever its header
    /// says (disk-format §3.8).
    pub(super) fn trusts_version_zero(self) -> bool {
        self >= Self::V21_10
    }

    /// From 24.6 on: chunks of format 4, one chunk beyond the writer's is deleted instead of
    /// refused (O16), the process ends after a truncation (O10), a truncation to a chunk's start
    /// leaves no file for it.
    pub(super) fn is_modern(self) -> bool {
        self >= Self::V24_10
    }

    /// Table and stream filters (disk-format §1).
    pub(super) fn has_filters(self) -> bool {
        self >= Self::V21_10
    }

    /// `kurrent.ddb` (disk-format §1).
    pub(super) fn has_secondary_index(self) -> bool {
        self >= Self::V25_1
    }
}

impl fmt::Display for ServerLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for ServerLine {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::of_version(text)
            .ok_or_else(|| format!("{text:?} is no server version from 20.6 on, such as `24.10`"))
    }
}

impl Serialize for ServerLine {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_line_is_found_by_its_name() {
        for line in ServerLine::ALL {
            assert_eq!(ServerLine::of_version(line.name()), Some(line));
        }
    }

    #[test]
    fn versions_between_belong_to_the_line_that_starts_like_them() {
        for (version, line) in [
            ("20.10.5", "20.10"),
            ("21.2.0", "20.10"),
            ("21.10.11", "21.10"),
            ("22.10.5", "22.10"),
            ("23.6.0", "23.10"),
            ("24.2.0", "23.10"),
            ("24.6.0-nightly", "24.10"),
            ("v24.10.14", "24.10"),
            ("25.0.1", "25.0"),
            ("25.1.0", "25.1"),
            ("26.2.0-alpha.1", "26.1"),
        ] {
            assert_eq!(
                version.parse::<ServerLine>().unwrap().name(),
                line,
                "{version}"
            );
        }
        for version in ["", "5.0.11", "20.2", "latest", "26"] {
            assert!(version.parse::<ServerLine>().is_err(), "{version}");
        }
    }
}
