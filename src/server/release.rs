//! The numbers of a release, as versions, lines and facts compare them.

use std::fmt;

/// The numbers of a release: major, minor, patch. Shown as `24.6`, or as `22.10.1` if there is a
/// patch number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReleaseNumber {
    major: u32,
    minor: u32,
    patch: u32,
}

impl ReleaseNumber {
    /// The release `major.minor.patch`.
    #[must_use]
    pub const fn new(major: u32, minor: u32, patch: u32) -> Self {
        Self {
            major,
            minor,
            patch,
        }
    }

    /// The last patch of this release's `major.minor`.
    pub(super) const fn fully_patched(self) -> Self {
        Self::new(self.major, self.minor, u32::MAX)
    }
}

impl fmt::Display for ReleaseNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)?;

        if self.patch == 0 {
            return Ok(());
        }
        write!(f, ".{}", self.patch)
    }
}
