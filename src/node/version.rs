use std::fmt;

/// The version a server calls itself, read leniently: the first three numbers (http-api §3.1).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerVersion {
    numbers: (u32, u32, u32),
    text: String,
}

impl ServerVersion {
    /// Reads `26.1.0`, `20.10.5.0`, `26.1.0-rc.1`; a number that is missing is 0.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text
            .trim()
            .trim_start_matches(['v', 'V'])
            .split(['.', '-', '+'])
            .map_while(|part| part.parse::<u32>().ok());
        let numbers = (
            parts.next()?,
            parts.next().unwrap_or(0),
            parts.next().unwrap_or(0),
        );
        Some(Self {
            numbers,
            text: text.trim().to_owned(),
        })
    }

    /// A build from source that carries no number; it is taken for the newest.
    #[must_use]
    pub fn is_development(&self) -> bool {
        self.numbers == (0, 0, 0)
    }

    /// Major, minor and patch number.
    #[must_use]
    pub const fn numbers(&self) -> (u32, u32, u32) {
        self.numbers
    }

    /// As the server wrote it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether it is this version or a later one. True for a development build.
    #[must_use]
    pub fn is_at_least(&self, major: u32, minor: u32, patch: u32) -> bool {
        self.is_development() || self.numbers >= (major, minor, patch)
    }

    /// `GET /admin/scavenge/current` exists (O42, http-api §1.1).
    #[must_use]
    pub fn names_current_scavenge(&self) -> bool {
        self.is_at_least(22, 10, 1)
    }

    /// `GET /admin/scavenge/last` exists (O42).
    #[must_use]
    pub fn names_last_scavenge(&self) -> bool {
        self.is_at_least(24, 10, 0)
    }

    /// Its scavenger goes on where it was stopped, and knows `syncOnly`. Earlier servers ignore
    /// that parameter and start a full scavenge (O43).
    #[must_use]
    pub fn resumes_scavenges(&self) -> bool {
        self.is_at_least(22, 10, 0)
    }

    /// A node that is alone tells its gossip without being asked to by an option (20.10: not).
    #[must_use]
    pub fn gossips_alone(&self) -> bool {
        self.is_at_least(21, 2, 0)
    }
}

/// By the three numbers; a development build comes last.
impl PartialOrd for ServerVersion {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for ServerVersion {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.is_development(), self.numbers, &self.text).cmp(&(
            other.is_development(),
            other.numbers,
            &other.text,
        ))
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

    fn version(text: &str) -> ServerVersion {
        ServerVersion::parse(text).unwrap()
    }

    #[test]
    fn reads_what_servers_say() {
        for (text, numbers) in [
            ("20.10.5.0", (20, 10, 5)),
            ("22.10", (22, 10, 0)),
            ("26.1.0", (26, 1, 0)),
            ("26.1.0.3456", (26, 1, 0)),
            ("26.1.0-rc.1", (26, 1, 0)),
            ("0.0.0.0", (0, 0, 0)),
        ] {
            assert_eq!(version(text).numbers(), numbers, "{text}");
        }
        assert!(ServerVersion::parse("").is_none());
        assert!(ServerVersion::parse("latest").is_none());
    }

    #[test]
    fn knows_what_each_can_do() {
        assert!(!version("22.10.0").names_current_scavenge());
        assert!(version("22.10.1").names_current_scavenge());
        assert!(!version("23.10.8").names_last_scavenge());
        assert!(version("24.10.0").names_last_scavenge());
        assert!(!version("22.6.0").resumes_scavenges());
        assert!(version("22.10.0").resumes_scavenges());
        assert!(version("0.0.0.0").names_last_scavenge());
        assert!(version("0.0.0.0") > version("26.1.0"));
        assert!(version("20.10.5.0") < version("21.10.11.0"));
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
