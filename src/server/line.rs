//! The lines of server versions. A new server release gets its place in this list, and nowhere
//! else.

use std::fmt;

use serde::{Serialize, Serializer};

use super::{ReleaseNumber, ServerVersion, VersionFact};

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

/// What distinguishes one line from the others.
struct Description {
    /// The first release of the line. The line ends where the next line begins. The last line has
    /// no end.
    first: ReleaseNumber,
    /// The release that gives the line its name: the one that was run, or the only one.
    named: ReleaseNumber,
    /// The name as text.
    name: &'static str,
    /// Whether a server of this line was run to see what it does (observed.md).
    was_run: bool,
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

    /// The oldest line that kbackup knows.
    pub const OLDEST: Self = Self::V20_10;

    /// The newest line. kbackup treats servers that are newer than all known ones like this line.
    pub const NEWEST: Self = Self::V26_1;

    const fn describe(self) -> Description {
        const fn line(
            first: (u32, u32),
            named: (u32, u32),
            name: &'static str,
            was_run: bool,
        ) -> Description {
            Description {
                first: ReleaseNumber::new(first.0, first.1, 0),
                named: ReleaseNumber::new(named.0, named.1, 0),
                name,
                was_run,
            }
        }

        match self {
            Self::V20_10 => line((20, 6), (20, 10), "20.10", true),
            Self::V21_10 => line((21, 6), (21, 10), "21.10", true),
            Self::V22_10 => line((22, 0), (22, 10), "22.10", true),
            Self::V23_10 => line((23, 0), (23, 10), "23.10", true),
            Self::V24_10 => line((24, 6), (24, 10), "24.10", true),
            Self::V25_0 => line((25, 0), (25, 0), "25.0", true),
            Self::V25_1 => line((25, 1), (25, 1), "25.1", true),
            Self::V26_1 => line((26, 0), (26, 1), "26.1", true),
        }
    }

    /// The line of a version that a person wrote, such as `24.10.14`. Returns `None` for servers
    /// before 20.6, for text that is not a version, and for a version without a minor number,
    /// because the lines of one year differ by it.
    #[must_use]
    pub fn of_version(text: &str) -> Option<Self> {
        let version = ServerVersion::parse(text)?;
        if !version.has_minor() {
            return None;
        }

        let mut newest_first = Self::ALL.into_iter().rev();
        newest_first.find(|line| line.describe().first <= version.release())
    }

    /// The oldest line for which `fact` holds.
    #[must_use]
    pub fn first_with(fact: VersionFact) -> Self {
        let first = Self::ALL.into_iter().find(|line| line.has(fact));
        first.unwrap_or(Self::NEWEST)
    }

    /// The name of the line, which is one of its versions.
    #[must_use]
    pub const fn name(self) -> &'static str {
        self.describe().name
    }

    /// Whether a server of this line was run to see what it does (observed.md). kbackup knows the
    /// other lines only from their source.
    #[must_use]
    pub const fn was_run(self) -> bool {
        self.describe().was_run
    }

    /// Whether `fact` holds for the release that gives the line its name, with all its patches.
    #[must_use]
    pub fn has(self, fact: VersionFact) -> bool {
        fact.holds_for(self.describe().named.fully_patched())
    }
}

impl fmt::Display for ServerLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
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
    fn the_list_holds_each_line_once_oldest_first() {
        for (place, line) in ServerLine::ALL.into_iter().enumerate() {
            // A new line does not compile before it has a place here, and so in the list.
            let wanted = match line {
                ServerLine::V20_10 => 0,
                ServerLine::V21_10 => 1,
                ServerLine::V22_10 => 2,
                ServerLine::V23_10 => 3,
                ServerLine::V24_10 => 4,
                ServerLine::V25_0 => 5,
                ServerLine::V25_1 => 6,
                ServerLine::V26_1 => 7,
            };
            assert_eq!(place, wanted);
        }

        assert_eq!(ServerLine::ALL.first(), Some(&ServerLine::OLDEST));
        assert_eq!(ServerLine::ALL.last(), Some(&ServerLine::NEWEST));
        assert!(
            ServerLine::ALL.is_sorted_by_key(|line| (line.describe().first, line.describe().named))
        );
    }

    #[test]
    fn each_line_is_found_by_its_name() {
        for line in ServerLine::ALL {
            assert_eq!(line.describe().named.to_string(), line.name());
            assert_eq!(ServerLine::of_version(line.name()), Some(line));
        }
    }

    #[test]
    fn versions_between_belong_to_the_line_that_starts_like_them() {
        let lines = [
            ("20.6.0", "20.10"),
            ("20.10.5", "20.10"),
            ("21.2.0", "20.10"),
            ("21.6.0", "21.10"),
            ("21.10.11", "21.10"),
            ("22.6.0", "22.10"),
            ("22.10.5", "22.10"),
            ("23.6.0", "23.10"),
            ("24.2.0", "23.10"),
            ("24.6.0-nightly", "24.10"),
            ("v24.10.14", "24.10"),
            ("25.0.1", "25.0"),
            ("25.1.0", "25.1"),
            ("26.2.0-alpha.1", "26.1"),
        ];

        for (version, line) in lines {
            assert_eq!(
                ServerLine::of_version(version).unwrap().name(),
                line,
                "{version}"
            );
        }

        for version in ["", "5.0.11", "20.2", "latest", "26", "0.0.0"] {
            assert!(ServerLine::of_version(version).is_none(), "{version}");
        }
    }

    #[test]
    fn an_unknown_newer_version_is_taken_for_the_newest_line() {
        assert_eq!(
            ServerLine::of_version("27.0.0"),
            Some(ServerLine::NEWEST),
            "enter the new line before this test is changed"
        );
        assert_eq!(ServerLine::of_version("99.9"), Some(ServerLine::NEWEST));
    }
}
