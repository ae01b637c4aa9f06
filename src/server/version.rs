//! The version that a server calls itself.

use std::cmp::Ordering;
use std::fmt;

use super::{ReleaseNumber, VersionFact};

/// The version that a server calls itself (http-api §3.1). Only its first three numbers count.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerVersion {
    release: ReleaseNumber,
    has_minor: bool,
    text: String,
}

impl ServerVersion {
    /// Reads texts such as `26.1.0`, `v20.10.5.0` and `26.1.0-rc.1`. Minor and patch number are 0
    /// if they are missing. Returns `None` if the text does not begin with a number.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        let mut numbers = text
            .trim_start_matches(['v', 'V'])
            .split(['.', '-', '+', ' '])
            .map_while(|part| part.parse::<u32>().ok());

        let major = numbers.next()?;
        let minor = numbers.next();
        let patch = numbers.next();
        Some(Self {
            release: ReleaseNumber::new(major, minor.unwrap_or(0), patch.unwrap_or(0)),
            has_minor: minor.is_some(),
            text: text.to_owned(),
        })
    }

    /// Whether this is a build from source without a number (`0.0.0`). kbackup treats it as the
    /// newest server.
    #[must_use]
    pub fn is_development(&self) -> bool {
        self.release == ReleaseNumber::new(0, 0, 0)
    }

    /// Major, minor and patch number.
    #[must_use]
    pub const fn release(&self) -> ReleaseNumber {
        self.release
    }

    /// The text as the server wrote it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether `fact` holds for this server.
    #[must_use]
    pub fn has(&self, fact: VersionFact) -> bool {
        if self.is_development() {
            return !fact.has_ended();
        }
        fact.holds_for(self.release)
    }

    /// Whether this server may be unable to read what `other` wrote: its `major.minor` is older
    /// (disk-format §8, "Downgrade"). Patches of one release read each other's files.
    #[must_use]
    pub fn is_older_release_than(&self, other: &Self) -> bool {
        if self.is_development() {
            return false;
        }
        self.release.fully_patched() < other.release
    }

    /// Whether the text has at least `major.minor`, so that it names a certain release.
    pub(super) const fn has_minor(&self) -> bool {
        self.has_minor
    }
}

/// By the three numbers; a development build comes last.
impl PartialOrd for ServerVersion {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for ServerVersion {
    fn cmp(&self, other: &Self) -> Ordering {
        let this = (self.is_development(), self.release, &self.text);
        let that = (other.is_development(), other.release, &other.text);
        this.cmp(&that)
    }
}

impl fmt::Display for ServerVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::facts;

    fn version(text: &str) -> ServerVersion {
        ServerVersion::parse(text).unwrap()
    }

    #[test]
    fn a_version_is_read_as_servers_write_it() {
        for (text, numbers) in [
            ("20.10.5.0", (20, 10, 5)),
            ("22.10", (22, 10, 0)),
            ("26.1.0", (26, 1, 0)),
            ("26.1.0.3456", (26, 1, 0)),
            ("26.1.0-rc.1", (26, 1, 0)),
            ("v24.10.14", (24, 10, 14)),
            ("0.0.0.0", (0, 0, 0)),
        ] {
            let (major, minor, patch) = numbers;
            assert_eq!(
                version(text).release(),
                ReleaseNumber::new(major, minor, patch),
                "{text}"
            );
        }

        assert!(ServerVersion::parse("").is_none());
        assert!(ServerVersion::parse("latest").is_none());
    }

    #[test]
    fn a_fact_holds_from_its_exact_patch_on() {
        assert!(!version("22.10.0").has(facts::NAMES_CURRENT_SCAVENGE));
        assert!(version("22.10.1").has(facts::NAMES_CURRENT_SCAVENGE));
        assert!(!version("23.10.8").has(facts::NAMES_LAST_SCAVENGE));
        assert!(version("24.10.0").has(facts::NAMES_LAST_SCAVENGE));
        assert!(!version("22.6.0").has(facts::RESUMES_SCAVENGES));
        assert!(version("22.10.0").has(facts::RESUMES_SCAVENGES));
        assert!(!version("24.2.0").has(facts::EXITS_AFTER_TRUNCATION));
        assert!(version("24.6.0").has(facts::EXITS_AFTER_TRUNCATION));
    }

    #[test]
    fn a_development_build_is_the_newest_server() {
        assert!(version("0.0.0.0").has(facts::NAMES_LAST_SCAVENGE));
        assert!(!version("0.0.0.0").has(facts::KNEW_LOG_V3));
        assert!(version("0.0.0.0") > version("26.1.0"));
        assert!(!version("0.0.0").is_older_release_than(&version("26.1.0")));
        assert!(!version("20.10.0").is_older_release_than(&version("0.0.0")));
    }

    #[test]
    fn versions_are_ordered_by_their_numbers() {
        assert!(version("20.10.5.0") < version("21.10.11.0"));
        assert!(version("9.0.0") < version("10.0.0"));
    }

    #[test]
    fn a_patch_makes_no_release_older() {
        assert!(!version("26.1.0").is_older_release_than(&version("26.1.3")));
        assert!(version("26.0.9").is_older_release_than(&version("26.1.0")));
        assert!(!version("26.1.0").is_older_release_than(&version("25.1.9")));
    }

    proptest::proptest! {
        #[test]
        fn never_stumbles_over_a_version(text in "\\PC{0,30}") {
            if let Some(version) = ServerVersion::parse(&text) {
                proptest::prop_assert_eq!(version.as_str(), text.trim());
            }
        }
    }
}
