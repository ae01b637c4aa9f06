//! How far a simulated start has come.

use crate::format::checkpoint::{self, Checkpoint};
use crate::format::names::ChunkName;
use crate::proof::start::facts::{ChunkFact, DirectoryFacts};
use crate::proof::start::observation::StartObservation;
use crate::server::ServerLine;

/// A server that starts from a directory. A truncation changes what the later steps find, so this
/// holds its own checkpoints and its own list of files.
pub(super) struct ServerStart<'a> {
    pub(super) line: ServerLine,
    pub(super) facts: &'a DirectoryFacts,
    pub(super) writer: i64,
    pub(super) chaser: i64,
    pub(super) epoch: i64,
    /// The files that are still there, in the order of their names.
    pub(super) files: Vec<&'a ChunkFact>,
    /// The file that a truncation has cut: it is not completed any more.
    pub(super) cut: Option<ChunkName>,
    pub(super) seen: Vec<StartObservation>,
}

/// The server has given up.
pub(super) struct Refused;

/// A step of the start that can be its last one.
pub(super) type Step<T = ()> = Result<T, Refused>;

impl<'a> ServerStart<'a> {
    pub(super) fn new(line: ServerLine, facts: &'a DirectoryFacts) -> Self {
        Self {
            line,
            facts,
            writer: facts.checkpoint(Checkpoint::Writer),
            chaser: facts.checkpoint(Checkpoint::Chaser),
            epoch: facts.checkpoint(Checkpoint::Epoch),
            files: facts.chunks.iter().collect(),
            cut: None,
            seen: Vec::new(),
        }
    }

    /// Notes what the server does, and goes on.
    pub(super) fn see(&mut self, observation: StartObservation) {
        self.seen.push(observation);
    }

    /// Notes why the server does not start.
    pub(super) fn refuse<T>(&mut self, observation: StartObservation) -> Step<T> {
        self.seen.push(observation);
        Err(Refused)
    }

    pub(super) fn is_cut(&self, file: &ChunkFact) -> bool {
        self.cut == Some(file.listed.name)
    }

    pub(super) fn place_of(&self, checkpoint: Checkpoint) -> String {
        match self.facts.checkpoints.get(&checkpoint) {
            Some(fact) => fact.place.clone(),
            None => String::new(),
        }
    }

    pub(super) fn is_missing(&self, checkpoint: Checkpoint) -> bool {
        self.length_of(checkpoint).is_none()
    }

    /// Whether a checkpoint file has another length than a server gives it.
    pub(super) fn has_wrong_length(&self, checkpoint: Checkpoint) -> bool {
        match self.length_of(checkpoint) {
            Some(length) => length != checkpoint::LENGTH as u64,
            None => false,
        }
    }

    fn length_of(&self, checkpoint: Checkpoint) -> Option<u64> {
        self.facts.checkpoints.get(&checkpoint)?.length
    }
}
