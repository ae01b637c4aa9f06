//! What an examination of a directory finds, and what servers do about it.

use serde::Serialize;

use crate::server::ServerLine;

/// What a server does about a finding, from harmless to fatal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Effect {
    /// It does nothing about it.
    Ignores,
    /// It works, but something takes longer.
    Slows,
    /// It deletes the file, and loses nothing by that.
    Deletes,
    /// It builds what is missing from the log.
    Rebuilds,
    /// It copies the whole index aside, which needs disk space, and builds a new one from the log's
    /// start (O18).
    SetsIndexAside,
    /// It cuts the log, ends with exit code 0 and has to be started again (O10).
    StartsAgain,
    /// Readers may not find events that the log holds (O39).
    MayHideEvents,
    /// Clients see a part of an append (O32).
    ShowsHalfAppend,
    /// Events are gone, or can no longer be read.
    LosesEvents,
    /// It comes up and ends itself within seconds, at every start (O17).
    Dies,
    /// It does not start.
    Refuses,
}

impl Effect {
    /// The effect as the end of "the server …".
    #[must_use]
    pub const fn phrase(self) -> &'static str {
        match self {
            Self::Ignores => "ignores it",
            Self::Slows => "is slower",
            Self::Deletes => "deletes it",
            Self::Rebuilds => "rebuilds it",
            Self::SetsIndexAside => "copies the index aside and rebuilds it from the log's start",
            Self::StartsAgain => "cuts the log, exits with 0 and must be started again",
            Self::MayHideEvents => "may hide events",
            Self::ShowsHalfAppend => "shows half of an append",
            Self::LosesEvents => "loses events",
            Self::Dies => "comes up and then ends itself",
            Self::Refuses => "does not start",
        }
    }

    /// Whether readers miss events that they should see, or see half of an append.
    #[must_use]
    pub const fn is_loss(self) -> bool {
        matches!(self, Self::ShowsHalfAppend | Self::LosesEvents)
    }

    /// Whether the server builds something anew from what is there.
    #[must_use]
    pub const fn is_rebuild(self) -> bool {
        matches!(self, Self::Rebuilds | Self::SetsIndexAside)
    }
}

/// How much a finding matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The operator may want to know it.
    Info,
    /// The server copes, at a price.
    Warning,
    /// Files are damaged, events are lost, or the server does not start.
    Error,
}

/// What one version line does about a finding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Consequence {
    /// The version line.
    pub version: ServerLine,
    /// What its servers do.
    pub effect: Effect,
    /// Whether nobody saw a real server of this line do it. It was read in the source.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub unproven: bool,
}

/// Something about a directory that a server or its operator will notice.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// How much it matters.
    pub severity: Severity,
    /// A stable name, such as "index-table-damaged".
    pub code: &'static str,
    /// The file, as an operator would name it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// What was found, as a sentence about the file.
    pub what: String,
    /// What servers do about it, oldest line first. Empty if it concerns no server.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub consequences: Vec<Consequence>,
    /// A letter of observed.md or a section of disk-format.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub evidence: Option<&'static str>,
    /// What the operator can do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

impl Finding {
    /// The worst effect on any version line.
    #[must_use]
    pub fn worst(&self) -> Option<Effect> {
        self.consequences
            .iter()
            .map(|consequence| consequence.effect)
            .max()
    }
}
