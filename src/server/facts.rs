//! Everything that some server versions do and others do not.
//!
//! Each fact is a constant that says from which release on it holds. Rooms ask
//! [`ServerLine::has`](super::ServerLine::has) or
//! [`ServerVersion::has`](super::ServerVersion::has), and show the fact itself in messages
//! ("servers from 24.6 on …"). The room `format` holds what is true of a file whichever server
//! wrote it.

use std::fmt;

use super::ReleaseNumber;

/// Something that servers do from one release on, and perhaps only up to another release. Shown as
/// "from 24.6 on" or "from 21.6 to 26.0".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VersionFact {
    since: ReleaseNumber,
    until: Option<ReleaseNumber>,
}

impl VersionFact {
    const fn since(major: u32, minor: u32, patch: u32) -> Self {
        Self {
            since: ReleaseNumber::new(major, minor, patch),
            until: None,
        }
    }

    const fn until(self, major: u32, minor: u32) -> Self {
        Self {
            until: Some(ReleaseNumber::new(major, minor, 0)),
            ..self
        }
    }

    /// The first release for which the fact holds.
    #[must_use]
    pub const fn first_release(self) -> ReleaseNumber {
        self.since
    }

    pub(super) fn holds_for(self, release: ReleaseNumber) -> bool {
        if release < self.since {
            return false;
        }
        match self.until {
            Some(until) => release <= until.fully_patched(),
            None => true,
        }
    }

    pub(super) const fn has_ended(self) -> bool {
        self.until.is_some()
    }
}

impl fmt::Display for VersionFact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.until {
            Some(until) => write!(f, "from {} to {until}", self.since),
            None => write!(f, "from {} on", self.since),
        }
    }
}

// The files that servers write.

/// Servers write a bloom filter per table and the stream-existence filter (disk-format §1, §5.3).
/// Without its filters such a server is slower, or rebuilds them (O18).
pub const HAS_FILTERS: VersionFact = VersionFact::since(21, 10, 0);

/// The scavenger keeps its state in `index/scavenging/scavenging.db` (disk-format §1, O34).
pub const HAS_SCAVENGE_STATE: VersionFact = VersionFact::since(22, 10, 0);

/// Servers read and write chunks of format 4, which may be encrypted. Older servers read formats 2
/// and 3 only (disk-format §3.2, §3.6).
pub const READS_TRANSFORMED_CHUNKS: VersionFact = VersionFact::since(24, 6, 0);

/// Servers refuse tables of format version 1 and build the index anew (disk-format §5.2).
pub const REFUSES_OLD_TABLES: VersionFact = VersionFact::since(24, 10, 0);

/// Servers can fetch chunks that are missing from an archive (disk-format §10).
pub const HAS_ARCHIVE: VersionFact = VersionFact::since(25, 0, 0);

/// Servers keep secondary indexes in `kurrent.ddb`, and do not start if they cannot open it
/// (disk-format §1, §6.2, O35).
pub const HAS_SECONDARY_INDEX: VersionFact = VersionFact::since(25, 1, 0);

/// Servers could be told to use the experimental log format V3, which kbackup does not read
/// (disk-format §1, §8).
pub const KNEW_LOG_V3: VersionFact = VersionFact::since(21, 6, 0).until(26, 0);

// The start.

/// The truncator refuses to cut off more bytes than this, unless the server is started with
/// `--max-truncation=-1` (disk-format §2.4). The limit is the same in every line that kbackup
/// knows.
pub const MAX_TRUNCATION: u64 = 256 * 1024 * 1024;

/// A chunk file of version 0 counts for one chunk number only, even if its header names more
/// (disk-format §3.8).
pub const TRUSTS_VERSION_ZERO: VersionFact = VersionFact::since(21, 10, 2);

/// After a truncation the process exits with code 0 and has to be started again. Older servers
/// continue their start (O10, disk-format §2.3).
pub const EXITS_AFTER_TRUNCATION: VersionFact = VersionFact::since(24, 6, 0);

/// A truncation to the start of a chunk deletes that chunk's file. Older servers keep the file and
/// write zeros over its data (disk-format §2.4).
pub const TRUNCATES_WHOLE_CHUNKS: VersionFact = VersionFact::since(24, 6, 0);

/// A server deletes a new chunk file directly behind the chunk of `writer.chk`. Other servers do
/// not start with such a file (O16, disk-format §6.8).
///
/// 23.6 deletes it too, but 23.10 to 24.2, which share its line, do not.
pub const DELETES_CHUNK_BEYOND_WRITER: VersionFact = VersionFact::since(24, 6, 0);

/// A server accepts a scavenged chunk at `writer.chk` if `writer.chk` is the chunk's start. Older
/// servers accept it if `writer.chk` is the end of the chunk's records (disk-format §6.7).
pub const RESUMES_BEHIND_SCAVENGED_CHUNK: VersionFact = VersionFact::since(24, 6, 0);

/// A server that does not own its chunk files does not start: it changes their permission bits
/// (O19, disk-format §1).
pub const MUST_OWN_CHUNKS: VersionFact = VersionFact::since(25, 0, 0);

/// How many new events a server holds in memory before it writes an index table of them, unless
/// `MaxMemTableSize` says otherwise. So a node with fewer events may have no table at all.
pub const EVENTS_BEFORE_A_TABLE: u64 = 1_000_000;

// The admin API.

/// A node without a cluster answers `GET /gossip`. Older nodes do so only if `GossipOnSingleNode`
/// is set (http-api §3.2).
pub const GOSSIPS_ALONE: VersionFact = VersionFact::since(21, 2, 0);

/// A scavenge continues where it was stopped, and `syncOnly` is known. Older servers ignore that
/// parameter and start a full scavenge (O43).
pub const RESUMES_SCAVENGES: VersionFact = VersionFact::since(22, 10, 0);

/// `GET /admin/scavenge/current` exists. The client knows older servers by their answer 405 (O42,
/// http-api §1.1).
pub const NAMES_CURRENT_SCAVENGE: VersionFact = VersionFact::since(22, 10, 1);

/// `GET /admin/scavenge/last` exists. The client knows older servers by their answer 405 (O42).
pub const NAMES_LAST_SCAVENGE: VersionFact = VersionFact::since(24, 10, 0);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::{ServerLine, ServerVersion};

    /// Each fact, and the oldest line that it holds for.
    const FACTS: [(VersionFact, ServerLine); 16] = [
        (HAS_FILTERS, ServerLine::V21_10),
        (HAS_SCAVENGE_STATE, ServerLine::V22_10),
        (READS_TRANSFORMED_CHUNKS, ServerLine::V24_10),
        (REFUSES_OLD_TABLES, ServerLine::V24_10),
        (HAS_ARCHIVE, ServerLine::V25_0),
        (HAS_SECONDARY_INDEX, ServerLine::V25_1),
        (KNEW_LOG_V3, ServerLine::V21_10),
        (TRUSTS_VERSION_ZERO, ServerLine::V21_10),
        (EXITS_AFTER_TRUNCATION, ServerLine::V24_10),
        (TRUNCATES_WHOLE_CHUNKS, ServerLine::V24_10),
        (DELETES_CHUNK_BEYOND_WRITER, ServerLine::V24_10),
        (RESUMES_BEHIND_SCAVENGED_CHUNK, ServerLine::V24_10),
        (MUST_OWN_CHUNKS, ServerLine::V25_0),
        (RESUMES_SCAVENGES, ServerLine::V22_10),
        (NAMES_CURRENT_SCAVENGE, ServerLine::V22_10),
        (NAMES_LAST_SCAVENGE, ServerLine::V24_10),
    ];

    #[test]
    fn every_line_has_every_fact_from_its_first_line_on() {
        for (fact, first) in FACTS {
            assert_eq!(ServerLine::first_with(fact), first, "{fact}");
            for line in ServerLine::ALL {
                let wanted = line >= first && (!fact.has_ended() || line < ServerLine::V26_1);
                assert_eq!(line.has(fact), wanted, "{fact}: {line}");
            }
        }
    }

    #[test]
    fn every_fact_of_the_newest_line_holds_for_newer_servers() {
        let newer = ServerVersion::parse("99.0.0").unwrap();
        for (fact, _) in FACTS {
            assert_eq!(newer.has(fact), ServerLine::NEWEST.has(fact), "{fact}");
        }
    }

    #[test]
    fn a_fact_says_which_servers_it_holds_for() {
        assert_eq!(EXITS_AFTER_TRUNCATION.to_string(), "from 24.6 on");
        assert_eq!(TRUSTS_VERSION_ZERO.to_string(), "from 21.10.2 on");
        assert_eq!(KNEW_LOG_V3.to_string(), "from 21.6 to 26.0");
    }
}
