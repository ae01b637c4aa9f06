//! The records at the end of the log, which the server reads again at its start (disk-format
//! §6.12).

use super::state::{ServerStart, Step};
use crate::format::LogPosition;
use crate::format::checkpoint::Checkpoint;
use crate::proof::finding::Effect;
use crate::proof::start::facts::{Damage, EndFact};
use crate::proof::start::observation::StartObservation;
use crate::server::{Evidence, observed};

impl ServerStart<'_> {
    /// Reads the log from the end of the index (`replayed_from`) to the end of the log.
    pub(super) fn log_end(&mut self, replayed_from: i64) -> Step {
        let Some(writer) = LogPosition::from_signed(self.writer) else {
            return Ok(());
        };
        let facts = self.facts;
        let end = facts.ends.get(&writer);

        match end {
            Some(EndFact::HalfAppend(begin)) => self.half_append(writer, *begin),
            Some(EndFact::Damaged(damage)) => self.damaged(damage, replayed_from)?,
            Some(EndFact::Whole) | None => {}
        }

        for damage in &facts.damage {
            if damage.position < writer {
                self.damaged(damage, replayed_from)?;
            }
        }

        // If the log is damaged at its end, the chaser tells nothing new.
        if matches!(end, Some(EndFact::Damaged(_))) {
            return Ok(());
        }
        self.chaser_between_records()
    }

    fn half_append(&mut self, writer: LogPosition, begin: LogPosition) {
        let what = format!(
            "the log ends at {writer}, inside of an append that begins at {begin}: clients see a \
             part of it"
        );
        let place = self.place_of(Checkpoint::Writer);
        let effect = Effect::ShowsHalfAppend;
        self.see(
            StartObservation::new("half-append", what, effect, Evidence::Seen(observed::O32))
                .on(&place),
        );
    }

    /// Damage behind the end of the index stops the server. Damage before that shows only when
    /// somebody reads the events.
    fn damaged(&mut self, damage: &Damage, replayed_from: i64) -> Step {
        let is_replayed = damage.position.to_signed() >= replayed_from;
        let (effect, evidence) = if is_replayed {
            (Effect::Refuses, Evidence::Seen(observed::O17))
        } else {
            (Effect::LosesEvents, Evidence::Read("disk-format §6.12"))
        };
        let what = format!(
            "the log is damaged at position {}: {}",
            damage.position, damage.why
        );
        let observation = StartObservation::new("log-damaged", what, effect, evidence)
            .on(&damage.place)
            .hint("restore from a backup")
            .damage();

        if is_replayed {
            return self.refuse(observation);
        }
        self.see(observation);
        Ok(())
    }

    /// The chaser has to stand between two records (disk-format §2.7 C1).
    fn chaser_between_records(&mut self) -> Step {
        let Some(chaser) = LogPosition::from_signed(self.chaser) else {
            return Ok(());
        };
        let Some(EndFact::Damaged(damage)) = self.facts.ends.get(&chaser) else {
            return Ok(());
        };

        let what = format!(
            "chaser.chk at {chaser} is not the end of a record: {}",
            damage.why
        );
        let evidence = Evidence::Read("disk-format §2.7 C1");
        let place = self.place_of(Checkpoint::Chaser);
        self.refuse(StartObservation::refusal("chaser-inside-record", what, evidence).on(&place))
    }
}
