//! How kbackup knows what a server does: somebody ran the server, or read its source.

use super::ServerLine;

/// How kbackup knows an effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Evidence {
    /// Every line that was run showed it. The text names the observation ("O16", observed.md).
    Seen(&'static str),
    /// These lines were run and showed it. The text names the observation.
    SeenOn(&'static str, &'static [ServerLine]),
    /// Somebody read it in the server's source, and no run showed it. The text names the section of
    /// disk-format.
    Read(&'static str),
}

/// A server does not start with a `kurrent.ddb` that it cannot open.
pub const STOPS_AT_BAD_SECONDARY_INDEX: Evidence = Evidence::SeenOn("O35", &[ServerLine::V26_1]);

/// An index that was copied after a scavenge hides events that chunks from before it still hold.
pub const HIDES_EVENTS_WITH_LATER_INDEX: Evidence =
    Evidence::SeenOn("O39", &[ServerLine::V23_10, ServerLine::V26_1]);

/// A scavenge continues from a state that is ahead of the log, and removes new events.
pub const SCAVENGES_BY_FOREIGN_STATE: Evidence = Evidence::SeenOn(
    "O34",
    &[ServerLine::V23_10, ServerLine::V24_10, ServerLine::V26_1],
);

impl Evidence {
    /// The observation of observed.md ("O16") or the section of disk-format.
    #[must_use]
    pub const fn source(self) -> &'static str {
        match self {
            Self::Seen(source) | Self::SeenOn(source, _) | Self::Read(source) => source,
        }
    }

    /// Whether somebody saw a real server of this line do it.
    #[must_use]
    pub fn proves(self, line: ServerLine) -> bool {
        match self {
            Self::Seen(_) => line.was_run(),
            Self::SeenOn(_, lines) => lines.contains(&line),
            Self::Read(_) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_lines_that_were_run_prove_anything() {
        for line in ServerLine::ALL {
            assert_eq!(Evidence::Seen("O10").proves(line), line.was_run());
            assert!(!Evidence::Read("disk-format §6.9").proves(line));

            let seen = [
                STOPS_AT_BAD_SECONDARY_INDEX,
                HIDES_EVENTS_WITH_LATER_INDEX,
                SCAVENGES_BY_FOREIGN_STATE,
            ];
            for evidence in seen {
                assert!(!evidence.proves(line) || line.was_run());
            }
        }
    }
}
