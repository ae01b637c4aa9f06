//! Files beside log and index: the secondary index and the state of the scavenger.

use super::state::{ServerStart, Step};
use crate::proof::finding::Effect;
use crate::proof::start::observation::StartObservation;
use crate::server::facts::{HAS_SCAVENGE_STATE, HAS_SECONDARY_INDEX};
use crate::server::{Evidence, observed};

impl ServerStart<'_> {
    /// A server that cannot open `kurrent.ddb` does not start (disk-format §6.2, O35).
    pub(super) fn secondary_index(&mut self) -> Step {
        let Some(problem) = &self.facts.bad_secondary_index else {
            return Ok(());
        };
        if !self.line.has(HAS_SECONDARY_INDEX) {
            return Ok(());
        }

        let evidence = Evidence::Seen(observed::O35);
        let hint = "remove kurrent.ddb and kurrent.ddb.wal: the server rebuilds them, perhaps \
                    without the schema registry's part";
        self.refuse(
            StartObservation::refusal("secondary-index-damaged", &problem.why, evidence)
                .on(&problem.place)
                .hint(hint)
                .damage(),
        )
    }

    /// A scavenge state from another log does not disturb the start. The next scavenge loses events
    /// (O34).
    pub(super) fn scavenge_state(&mut self) {
        let Some(problem) = &self.facts.foreign_scavenge else {
            return;
        };
        if !self.line.has(HAS_SCAVENGE_STATE) {
            return;
        }

        let what = format!(
            "{}: the next scavenge removes events that were written since",
            problem.why
        );
        let hint = "remove the files in index/scavenging: the next scavenge begins anew";
        let evidence = Evidence::Seen(observed::O34);
        self.see(
            StartObservation::new(
                "scavenge-state-foreign",
                what,
                Effect::LosesEvents,
                evidence,
            )
            .on(&problem.place)
            .hint(hint),
        );
    }
}
