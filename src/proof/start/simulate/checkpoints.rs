//! The steps of a start that look at checkpoints alone.

use super::state::{ServerStart, Step};
use crate::format::checkpoint::{self, Checkpoint};
use crate::proof::finding::Effect;
use crate::proof::start::observation::StartObservation;
use crate::server::{Evidence, observed};

const ORDER: Evidence = Evidence::Read("disk-format §6.5");

impl ServerStart<'_> {
    /// The start guard of a restore stops every server, even if only half of the guard is there
    /// (O15).
    pub(super) fn guard(&mut self, truncate: i64) -> Step {
        let chaser_guards = self.chaser == i64::MAX;
        let writer_guards = self.writer == i64::MAX - 1;
        if !chaser_guards && !writer_guards {
            return Ok(());
        }

        // Real servers were only seen with the whole guard.
        let evidence = if self.chaser > self.writer && truncate == checkpoint::NONE {
            Evidence::Seen(observed::O15)
        } else {
            Evidence::Read("O15")
        };
        let guard = if chaser_guards {
            Checkpoint::Chaser
        } else {
            Checkpoint::Writer
        };
        let what = "a restore was interrupted here: no server starts from the checkpoints that it \
                    left as a guard";
        self.refuse(
            StartObservation::refusal("start-guard", what, evidence)
                .on(&self.place_of(guard))
                .hint("run the same `kbackup restore` again, or empty the directory"),
        )
    }

    /// Writer and chaser must not be negative, and chaser and epoch must not be ahead of the writer
    /// (disk-format §6.5).
    pub(super) fn order_of_checkpoints(&mut self) -> Step {
        self.not_negative(Checkpoint::Writer, self.writer)?;
        self.not_negative(Checkpoint::Chaser, self.chaser)?;
        self.not_ahead(Checkpoint::Chaser, self.chaser)?;
        self.not_ahead(Checkpoint::Epoch, self.epoch)
    }

    fn not_negative(&mut self, checkpoint: Checkpoint, value: i64) -> Step {
        if value >= 0 {
            return Ok(());
        }
        self.refuse(
            StartObservation::refusal("checkpoint-negative", "it holds a negative position", ORDER)
                .on(&self.place_of(checkpoint))
                .damage(),
        )
    }

    fn not_ahead(&mut self, checkpoint: Checkpoint, value: i64) -> Step {
        if value <= self.writer {
            return Ok(());
        }

        let is_writer_missing = self.is_missing(Checkpoint::Writer);
        let evidence = match checkpoint {
            Checkpoint::Chaser if is_writer_missing => Evidence::Seen(observed::O14),
            Checkpoint::Chaser => Evidence::Seen(observed::O15),
            _ => ORDER,
        };
        let writer = if is_writer_missing {
            "writer.chk, which is missing and reads as 0".to_owned()
        } else {
            format!("writer.chk at {}", self.writer)
        };
        let what = format!("{} at {value} is ahead of {writer}", checkpoint.file_name());
        self.refuse(
            StartObservation::refusal("reader-ahead", what, evidence)
                .on(&self.place_of(checkpoint)),
        )
    }

    /// The server finds its last epoch (disk-format §6.9).
    pub(super) fn epochs(&mut self) -> Step {
        if self.epoch < 0 {
            self.search_for_epoch();
            return Ok(());
        }

        let Some(damage) = &self.facts.bad_epoch else {
            return Ok(());
        };
        let what = format!(
            "there is no epoch record at {}: {}",
            damage.position, damage.why
        );
        let hint = "remove epoch.chk, or write -1 into it: the server then searches the log for \
                    its last epoch";
        self.refuse(
            StartObservation::refusal("epoch-record", what, Evidence::Read("disk-format §6.9"))
                .on(&damage.place)
                .hint(hint),
        )
    }

    /// Without `epoch.chk` the server reads the log backwards until it finds an epoch (O12).
    fn search_for_epoch(&mut self) {
        if self.writer <= 0 {
            return;
        }
        let what = "the server searches the log backwards for its last epoch";
        self.see(
            StartObservation::new(
                "epoch-search",
                what,
                Effect::Slows,
                Evidence::Seen(observed::O12),
            )
            .on(&self.place_of(Checkpoint::Epoch)),
        );
    }
}
