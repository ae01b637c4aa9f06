//! The result of an examination: a verdict, what each server version does, and why.

use serde::Serialize;

use crate::clock::Timestamp;
use crate::error::Kind;
use crate::proof::depth::Depth;
use crate::proof::finding::Finding;
use crate::server::ServerLine;

/// How a start goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum StartOutcome {
    /// The server starts.
    Starts,
    /// The first start ends with exit code 0, and the server stays up after the second (O10).
    StartsAfterSecondStart,
    /// The server starts and ends itself within seconds, each time (O17).
    StartsThenDies,
    /// The server does not start.
    Refuses,
}

/// The verdict in one word, from good to bad.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum StartVerdict {
    /// A server starts with everything that the log holds.
    Starts,
    /// The same, but the server first builds something anew: the index, or a filter.
    StartsAndRebuilds,
    /// A server starts with everything, but files are damaged that it can do without.
    Damaged,
    /// A server starts, and events are lost, hidden or shown in part.
    Loses,
    /// A server starts and then ends itself.
    StartsThenDies,
    /// No server starts.
    Refuses,
}

impl StartVerdict {
    /// The error kind, which decides the exit code. Returns `None` if a server starts with all
    /// events and nothing is damaged.
    ///
    /// `in_use` says that a server runs on the directory, so that the damage is the source's.
    #[must_use]
    pub const fn kind(self, in_use: bool) -> Option<Kind> {
        match self {
            Self::Starts | Self::StartsAndRebuilds => None,
            Self::Damaged | Self::Loses | Self::StartsThenDies | Self::Refuses if in_use => {
                Some(Kind::SourceCorrupt)
            }
            Self::Damaged | Self::Loses | Self::StartsThenDies | Self::Refuses => {
                Some(Kind::StoredCorrupt)
            }
        }
    }

    /// The verdict as the end of "a server …".
    #[must_use]
    pub const fn phrase(self) -> &'static str {
        match self {
            Self::Starts => "starts with everything",
            Self::StartsAndRebuilds => "starts with everything, and rebuilds what is derived",
            Self::Damaged => "starts with everything, but files are damaged",
            Self::Loses => "starts, and loses events",
            Self::StartsThenDies => "starts, and then ends itself",
            Self::Refuses => "does not start",
        }
    }
}

/// What servers of one line do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct VersionOutcome {
    /// The line.
    pub version: ServerLine,
    /// How the start goes.
    pub outcome: StartOutcome,
    /// The verdict in one word.
    pub verdict: StartVerdict,
    /// Codes of the findings that lose or hide events, or show half an append.
    pub loses: Vec<&'static str>,
    /// Codes of the findings that make the server build something anew.
    pub rebuilds: Vec<&'static str>,
    /// Whether some of this was only read in the server's source, and not seen on a real server of
    /// this line.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub unproven: bool,
    /// Whether the files show that a newer server wrote them. Then this line does not count for the
    /// verdict.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub older_than_files: bool,
}

/// The log, as far as it could be read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LogSummary {
    /// Bytes of log per chunk number.
    pub chunk_size: u64,
    /// Number of chunk files that a server uses.
    pub chunks: u64,
    /// The value of `writer.chk`, in bytes of log.
    pub writer: i64,
    /// The last consistent position, in bytes of log. `None` if the records were not read.
    pub position: Option<u64>,
    /// Number of epochs. `None` if they cannot be followed.
    pub epochs: Option<u64>,
    /// Time of the last event in the chunk that the log ends in.
    pub last_event: Option<Timestamp>,
}

/// The index, as far as it could be read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct IndexSummary {
    /// Number of tables that `indexmap` names.
    pub tables: u64,
    /// How far the tables reach, in bytes of log.
    pub commit: Option<u64>,
    /// Number of entries that were compared with the log.
    pub entries_compared: u64,
}

/// The verdict on a directory, with its reasons.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Examination {
    /// The worst verdict of the lines that count.
    pub verdict: StartVerdict,
    /// How much was read.
    pub depth: Depth,
    /// Whether a server ran on the directory.
    pub in_use: bool,
    /// Each line, oldest first.
    pub versions: Vec<VersionOutcome>,
    /// Everything found, worst first.
    pub findings: Vec<Finding>,
    /// The log. `None` if no chunk can be read.
    pub log: Option<LogSummary>,
    /// The index. `None` if there is no `indexmap` that can be read.
    pub index: Option<IndexSummary>,
}

impl Examination {
    /// The error kind, which decides the exit code. Returns `None` if a server starts with
    /// everything and nothing is damaged.
    #[must_use]
    pub fn kind(&self) -> Option<Kind> {
        self.verdict.kind(self.in_use)
    }

    /// What servers of `line` do. Returns `None` if the line was not asked for.
    #[must_use]
    pub fn outcome(&self, line: ServerLine) -> Option<&VersionOutcome> {
        self.versions.iter().find(|outcome| outcome.version == line)
    }
}
