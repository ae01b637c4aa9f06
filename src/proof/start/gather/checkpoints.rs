//! The checkpoint files, as a server reads them.

use std::collections::BTreeMap;

use super::Gathering;
use crate::error::Result;
use crate::format::checkpoint::{self, Checkpoint};
use crate::log::RawCheckpoint;
use crate::manifest::RelativePath;
use crate::proof::finding::Severity;
use crate::proof::start::facts::CheckpointFact;

impl Gathering<'_> {
    pub(super) fn checkpoints(&mut self) -> Result<BTreeMap<Checkpoint, CheckpointFact>> {
        let mut facts = BTreeMap::new();
        for which in Checkpoint::ALL {
            facts.insert(which, self.checkpoint(which)?);
        }
        Ok(facts)
    }

    fn checkpoint(&mut self, which: Checkpoint) -> Result<CheckpointFact> {
        let raw = RawCheckpoint::of_set(self.files, which)?;
        let fact = CheckpointFact {
            place: self.place(&RelativePath::checkpoint(which)),
            length: raw.length(),
            value: raw.as_read_by_server(which),
        };

        if let Some(length) = fact.length
            && length != checkpoint::LENGTH as u64
        {
            let what = format!(
                "it has {length} bytes instead of 8; a server takes it for {}",
                fact.value
            );
            let place = fact.place.clone();
            self.tell(Severity::Error, "checkpoint-length", Some(place), what);
        }
        Ok(fact)
    }
}
