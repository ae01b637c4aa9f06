//! A pending truncation: the server cuts its log before it opens it (disk-format §2.4).

use super::selection::{UsedFile, UsedFiles, number_of};
use super::state::{ServerStart, Step};
use crate::format::checkpoint::{self, Checkpoint};
use crate::format::{ChunkSize, LogPosition};
use crate::proof::finding::Effect;
use crate::proof::start::observation::StartObservation;
use crate::server::facts::{EXITS_AFTER_TRUNCATION, MAX_TRUNCATION, TRUNCATES_WHOLE_CHUNKS};
use crate::server::{Evidence, observed};

const SECTION: Evidence = Evidence::Read("disk-format §2.4");

/// A truncation that a server can try.
#[derive(Clone, Copy)]
struct Cut {
    size: ChunkSize,
    /// Where `truncate.chk` wants the log to end.
    target: LogPosition,
    /// Where the log ends before the cut.
    writer: LogPosition,
}

impl Cut {
    fn target_chunk(self) -> u32 {
        number_of(self.size, self.target)
    }
}

impl ServerStart<'_> {
    /// Cuts the log at `target`, as `truncate.chk` asks for.
    pub(super) fn truncate(&mut self, target: i64) -> Step {
        let cut = self.possible_cut(target)?;
        self.within_limit(cut)?;
        self.nothing_behind_writer(cut)?;
        let used = self.used_files();
        self.nothing_missing_before(cut, &used)?;

        let end = self.cut_files(cut, used.covering(cut.target_chunk()))?;

        self.tell_restart(cut, end);
        self.tell_loss(cut, end);
        self.move_checkpoints(end.to_signed());
        Ok(())
    }

    fn possible_cut(&mut self, target: i64) -> Step<Cut> {
        let Some(size) = self.facts.chunk_size else {
            let what = format!("a truncation to {target} is pending, and there is no log");
            return self.refuse_truncation("truncation-pending", what);
        };

        let position = LogPosition::from_signed(target);
        let writer = LogPosition::from_signed(self.writer);
        let (Some(target), Some(writer)) = (position, writer) else {
            let what = format!("a truncation to {target} is pending, which is no position");
            return self.refuse_truncation("truncation-pending", what);
        };
        Ok(Cut {
            size,
            target,
            writer,
        })
    }

    fn refuse_truncation<T>(&mut self, code: &'static str, what: String) -> Step<T> {
        let place = self.place_of(Checkpoint::Truncate);
        self.refuse(StartObservation::refusal(code, what, SECTION).on(&place))
    }

    fn within_limit(&mut self, cut: Cut) -> Step {
        let removed = cut.writer.since(cut.target);
        if removed <= MAX_TRUNCATION {
            return Ok(());
        }

        let what =
            format!("truncate.chk wants {removed} bytes cut off, more than servers cut by default");
        let hint = "if that is meant, start the server once with `--max-truncation=-1`; else write \
                    -1 into truncate.chk";
        self.refuse(
            StartObservation::refusal("truncation-limit", what, SECTION)
                .on(&self.place_of(Checkpoint::Truncate))
                .hint(hint),
        )
    }

    /// No server truncates while there is a file behind the chunk of `writer.chk` (O16).
    fn nothing_behind_writer(&mut self, cut: Cut) -> Step {
        let Some(excess) = number_of(cut.size, cut.writer).checked_add(1) else {
            return Ok(());
        };
        let mut files = self.files.iter();
        let Some(file) = files.find(|fact| fact.listed.name.start.0 == excess) else {
            return Ok(());
        };

        let what = "it lies beyond the chunk of writer.chk, which no server accepts while a \
                    truncation is pending";
        let place = file.place.clone();
        self.refuse(
            StartObservation::refusal(
                "truncation-excess-chunk",
                what,
                Evidence::Seen(observed::O16),
            )
            .on(&place)
            .hint("restore with kbackup, which leaves such a chunk out"),
        )
    }

    fn nothing_missing_before(&mut self, cut: Cut, used: &UsedFiles<'_>) -> Step {
        let Some(missing) = used.missing_below(cut.target_chunk()) else {
            return Ok(());
        };
        let what = format!(
            "chunk {missing} is missing, below the position {} that truncate.chk names",
            cut.target
        );
        self.refuse(StartObservation::refusal("chunk-missing", what, SECTION))
    }

    /// Removes the files behind the target. Returns where the log really ends after that.
    fn cut_files(&mut self, cut: Cut, covering: Option<UsedFile<'_>>) -> Step<LogPosition> {
        let Some(UsedFile { fact, .. }) = covering else {
            self.keep_files_below(cut.target_chunk());
            return Ok(cut.target);
        };

        let start = fact.listed.name.start;
        if let Ok(file) = &fact.file {
            // The truncator removes a scavenged file as a whole.
            if file.header.scavenged {
                self.keep_files_below(start.0);
                return Ok(cut.size.start_of(start));
            }
            if file.header.end > start {
                let what =
                    "truncate.chk points into it; it holds several chunks and is not scavenged";
                return self.refuse(
                    StartObservation::refusal("truncation-merged-chunk", what, SECTION)
                        .on(&fact.place),
                );
            }
        }

        let at_chunk_start = cut.size.local(cut.target) == 0;
        if at_chunk_start && self.line.has(TRUNCATES_WHOLE_CHUNKS) {
            self.keep_files_below(cut.target_chunk());
        } else {
            self.keep_files_below(cut.target_chunk().saturating_add(1));
            self.cut = Some(fact.listed.name);
        }
        Ok(cut.target)
    }

    fn keep_files_below(&mut self, limit: u32) {
        self.files.retain(|fact| fact.listed.name.start.0 < limit);
    }

    fn tell_restart(&mut self, cut: Cut, end: LogPosition) {
        let effect = if self.line.has(EXITS_AFTER_TRUNCATION) {
            Effect::StartsAgain
        } else {
            Effect::Ignores
        };
        let mut what = format!("truncate.chk asks for the log to be cut at {}", cut.target);
        if end == cut.target && end == cut.writer {
            what.push_str(", where it ends: nothing is lost, and a restore writes that on purpose");
        }
        let hint = format!(
            "servers {EXITS_AFTER_TRUNCATION} exit with 0 after it and have to be started again; \
             a supervisor must allow that"
        );
        self.see(
            StartObservation::new(
                "truncation-pending",
                what,
                effect,
                Evidence::Seen(observed::O10),
            )
            .on(&self.place_of(Checkpoint::Truncate))
            .hint(hint),
        );
    }

    fn tell_loss(&mut self, cut: Cut, end: LogPosition) {
        if end >= cut.writer {
            return;
        }

        let (evidence, why) =
            if end == LogPosition::ZERO && self.has_wrong_length(Checkpoint::Truncate) {
                let why = "an empty truncate.chk reads as 0, and ";
                (Evidence::Seen(observed::O13), why)
            } else if end < cut.target {
                let why = "a scavenged chunk is cut as a whole, and ";
                (Evidence::Seen(observed::O33), why)
            } else {
                (Evidence::Seen(observed::TRUNCATE_RECORDINGS), "")
            };
        let what = format!(
            "{why}{} bytes of the log are cut off: {end} to {}",
            cut.writer.since(end),
            cut.writer
        );
        self.see(
            StartObservation::new("truncation-loses", what, Effect::LosesEvents, evidence)
                .on(&self.place_of(Checkpoint::Truncate))
                .hint("write -1 into truncate.chk (8 bytes of 0xff) unless the loss is meant"),
        );
    }

    fn move_checkpoints(&mut self, end: i64) {
        if self.epoch >= end {
            self.epoch = checkpoint::NONE;
        }
        self.chaser = self.chaser.min(end);
        self.writer = self.writer.min(end);
    }
}
