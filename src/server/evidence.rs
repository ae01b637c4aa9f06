//! How kbackup knows what a server does: somebody ran the server, or read its source.
//!
//! [`observed`] lists what was seen, and on which lines. A line that an observation does not name
//! may do the same, but nobody saw it, so `kbackup check` calls it unproven there.

use super::ServerLine;

/// How kbackup knows an effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Evidence {
    /// Real servers showed it.
    Seen(Observation),
    /// Somebody read it in the server's source, and no run showed it. The text names the section of
    /// disk-format.
    Read(&'static str),
}

/// What somebody saw real servers do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Observation {
    /// The name in observed.md, or of the recordings that show it.
    name: &'static str,
    lines: &'static [ServerLine],
}

impl Evidence {
    /// The observation of observed.md ("O16") or the section of disk-format.
    #[must_use]
    pub const fn source(self) -> &'static str {
        match self {
            Self::Seen(observation) => observation.name,
            Self::Read(source) => source,
        }
    }

    /// Whether somebody saw a real server of this line do it.
    #[must_use]
    pub fn proves(self, line: ServerLine) -> bool {
        match self {
            Self::Seen(observation) => observation.lines.contains(&line),
            Self::Read(_) => false,
        }
    }
}

/// The observations of observed.md that kbackup relies on.
pub mod observed {
    use super::Observation;
    use crate::server::ServerLine::{
        self, V20_10, V21_10, V22_10, V23_10, V24_10, V25_0, V25_1, V26_1,
    };

    /// The lines whose real directories were changed by hand and started.
    const CHANGED_BY_HAND: &[ServerLine] = &[V20_10, V21_10, V22_10, V23_10, V24_10, V26_1];

    /// The lines on which a directory that kbackup restored was started (observed.md §5).
    const RESTORED: &[ServerLine] = &[V20_10, V21_10, V22_10, V23_10, V24_10, V25_0, V25_1, V26_1];

    const fn seen(name: &'static str, lines: &'static [ServerLine]) -> Observation {
        Observation { name, lines }
    }

    /// The documented restore: the server cuts its log at `truncate.chk`. Since 24.6 it then exits
    /// once with code 0.
    pub const O10: Observation = seen("O10", RESTORED);

    /// The server starts without `truncate.chk`, `epoch.chk` or `proposal.chk`.
    pub const O12: Observation = seen("O12", CHANGED_BY_HAND);

    /// An empty `truncate.chk` reads as 0, and the server deletes its log.
    pub const O13: Observation = seen("O13", CHANGED_BY_HAND);

    /// Without `writer.chk` a server refuses to start, or deletes chunks.
    pub const O14: Observation = seen("O14", CHANGED_BY_HAND);

    /// The start guard of a restore stops the server.
    pub const O15: Observation = seen("O15", CHANGED_BY_HAND);

    /// A chunk behind the chunk of `writer.chk` is refused or deleted.
    pub const O16: Observation = seen("O16", CHANGED_BY_HAND);

    /// Zeros below `writer.chk` stop the server at its start, and a flipped byte in a completed
    /// chunk soon after.
    pub const O17: Observation = seen("O17", CHANGED_BY_HAND);

    /// A missing or damaged index is rebuilt.
    pub const O18: Observation = seen("O18", CHANGED_BY_HAND);

    /// A log that ends inside an append shows a part of it.
    pub const O32: Observation = seen("O32", CHANGED_BY_HAND);

    /// A cut inside a scavenged chunk goes back to the start of that chunk.
    pub const O33: Observation = seen("O33", CHANGED_BY_HAND);

    /// A scavenge continues from a state that is ahead of the log, and removes new events.
    pub const O34: Observation = seen("O34", &[V23_10, V24_10, V26_1]);

    /// A server does not start with a `kurrent.ddb` that it cannot open.
    pub const O35: Observation = seen("O35", &[V26_1]);

    /// An index that was copied after a scavenge hides events that chunks from before it still
    /// hold.
    pub const O39: Observation = seen("O39", &[V23_10, V26_1]);

    /// A log that is cut below its end loses what is behind the cut.
    pub const TRUNCATE_RECORDINGS: Observation = seen("recordings: truncate", CHANGED_BY_HAND);

    #[cfg(test)]
    mod tests {
        use super::*;
        use crate::server::Evidence;

        #[test]
        fn an_observation_proves_what_its_lines_do_and_nothing_else() {
            for line in ServerLine::ALL {
                assert!(Evidence::Seen(O10).proves(line), "{line}");
                assert_eq!(Evidence::Seen(O35).proves(line), line == V26_1, "{line}");
                assert!(!Evidence::Read("disk-format §6.9").proves(line), "{line}");
            }
        }

        #[test]
        fn every_line_on_which_something_was_seen_counts_as_run() {
            for line in ServerLine::ALL {
                let was_seen = CHANGED_BY_HAND.contains(&line) || RESTORED.contains(&line);
                assert_eq!(was_seen, line.was_run(), "{line}");
            }
        }
    }
}
