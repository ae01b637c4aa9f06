//! The start of a server, step by step as disk-format §6 lists it, on facts instead of files. Pure:
//! every rule is a line here and can be tested without a disk.

use std::collections::BTreeMap;

use crate::format::checkpoint::Checkpoint;
use crate::format::chunk::{ChunkFile, State, Transform};
use crate::format::{ChunkNumber, ChunkSize, LogPosition};
use crate::log::{ListedChunk, select};
use crate::proof::finding::Effect;
use crate::server::{Evidence, ServerLine, evidence, facts};

/// The truncator refuses to cut off more than this, unless it is told `--max-truncation=-1`
/// (disk-format §2.4).
const MAX_TRUNCATION: i64 = 256 * 1024 * 1024;

/// What a start depends on, as it was found.
#[derive(Debug, Clone)]
pub(super) struct Facts {
    pub(super) checkpoints: BTreeMap<Checkpoint, CheckpointFact>,
    pub(super) chunk_size: Option<ChunkSize>,
    /// In the order of their names.
    pub(super) chunks: Vec<ChunkFact>,
    /// What was found when the log was read up to a position; none where it was not read.
    pub(super) ends: BTreeMap<LogPosition, End>,
    /// Places where the log is damaged, found elsewhere than before one of the `ends`.
    pub(super) damage: Vec<Damage>,
    /// What stands at the position in `epoch.chk`; none where that is fine, or was not looked at.
    pub(super) bad_epoch: Option<Damage>,
    pub(super) index: IndexFact,
    pub(super) stream_filter: StreamFilterFact,
    /// Where the scavenge state is, and how it contradicts the log.
    pub(super) foreign_scavenge: Option<(String, String)>,
    /// Why `kurrent.ddb` cannot be opened.
    pub(super) bad_secondary_index: Option<(String, String)>,
}

/// A checkpoint file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct CheckpointFact {
    pub(super) place: String,
    /// Its length in bytes; none where there is no file.
    pub(super) length: Option<u64>,
    /// What a server takes it for.
    pub(super) value: i64,
}

/// A file named like a chunk.
#[derive(Debug, Clone)]
pub(super) struct ChunkFact {
    pub(super) listed: ListedChunk,
    pub(super) place: String,
    /// What header and footer say, or why they cannot be read.
    pub(super) file: Result<ChunkFile, String>,
    /// Whether a record stands at its beginning.
    pub(super) has_records: bool,
    /// It was hashed, and fails its own MD5.
    pub(super) fails_md5: bool,
}

/// What a log that ends at some position ends with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum End {
    /// A whole append, or any other record.
    Whole,
    /// A part of an append that begins at the position.
    HalfAppend(LogPosition),
    /// It cannot be read up to there.
    Damaged(Damage),
}

/// A place where the log is not what it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Damage {
    pub(super) position: LogPosition,
    pub(super) place: String,
    pub(super) why: String,
}

/// The index directory.
#[derive(Debug, Clone, Default)]
pub(super) struct IndexFact {
    pub(super) map: MapFact,
    /// ListedChunk tables that a server refuses.
    pub(super) bad_tables: Vec<TableFact>,
    /// Events that are in the log and not in the index, and whether a scavenge in the log may
    /// explain it.
    pub(super) hidden: Option<Hidden>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) enum MapFact {
    #[default]
    Absent,
    Damaged {
        place: String,
        why: String,
    },
    Read {
        place: String,
        commit: Option<LogPosition>,
        /// Below the highest possible: a server with the default setting rebuilds.
        merge_level: Option<i32>,
    },
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct TableFact {
    pub(super) place: String,
    pub(super) why: TableProblem,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum TableProblem {
    Missing,
    Damaged(String),
    /// Format version 1, which servers from 24.10 on refuse.
    Old,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Hidden {
    pub(super) missing: u64,
    pub(super) sampled: u64,
    pub(super) first: LogPosition,
    pub(super) explained: bool,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) enum StreamFilterFact {
    #[default]
    Absent,
    Damaged {
        place: String,
        why: String,
    },
    /// It lacks streams that it should know: servers take them for new ones.
    Incomplete {
        place: String,
        why: String,
    },
    Whole,
}

/// Something that a server of one line does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Observation {
    pub(super) code: &'static str,
    pub(super) file: Option<String>,
    pub(super) what: String,
    pub(super) effect: Effect,
    pub(super) evidence: Evidence,
    pub(super) hint: Option<String>,
    /// The bytes are provably not what a server wrote there.
    pub(super) damage: bool,
}

impl Observation {
    fn new(
        code: &'static str,
        what: impl Into<String>,
        effect: Effect,
        evidence: Evidence,
    ) -> Self {
        Self {
            code,
            file: None,
            what: what.into(),
            effect,
            evidence,
            hint: None,
            damage: false,
        }
    }

    fn on(mut self, place: &str) -> Self {
        self.file = Some(place.to_owned());
        self
    }

    fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    fn damage(mut self) -> Self {
        self.damage = true;
        self
    }
}

/// What a server of `line` does at its start with these files, in its order. Where it does not
/// start, nothing behind that is told.
pub(super) fn start(line: ServerLine, facts: &Facts) -> Vec<Observation> {
    let value = |checkpoint| {
        facts
            .checkpoints
            .get(&checkpoint)
            .map_or(0, |fact| fact.value)
    };
    let mut start = Start {
        line,
        facts,
        writer: value(Checkpoint::Writer),
        chaser: value(Checkpoint::Chaser),
        epoch: value(Checkpoint::Epoch),
        files: (0..facts.chunks.len()).collect(),
        cut: None,
        seen: Vec::new(),
    };
    // A step that does not come to its end is where the server gives up.
    let _ = start.run(value(Checkpoint::Truncate));
    start.seen
}

struct Start<'a> {
    line: ServerLine,
    facts: &'a Facts,
    writer: i64,
    chaser: i64,
    epoch: i64,
    /// The files that are still there.
    files: Vec<usize>,
    /// The file that a truncation has cut: an ongoing one from then on.
    cut: Option<usize>,
    seen: Vec<Observation>,
}

/// The server has given up.
struct Refused;

type Step<T = ()> = Result<T, Refused>;

impl Start<'_> {
    fn run(&mut self, truncate: i64) -> Step {
        self.guard(truncate)?;
        if truncate != -1 {
            self.truncate(truncate)?;
        }
        self.secondary_index()?;
        self.readers()?;
        let sizes = self.chunks()?;
        self.epochs()?;
        self.index_and_tail(sizes)?;
        self.background(sizes);
        self.stream_filter();
        self.scavenge_state();
        Ok(())
    }

    fn see(&mut self, observation: Observation) {
        self.seen.push(observation);
    }

    fn refuse<T>(&mut self, observation: Observation) -> Step<T> {
        self.seen.push(observation);
        Err(Refused)
    }

    fn place(&self, checkpoint: Checkpoint) -> String {
        self.facts
            .checkpoints
            .get(&checkpoint)
            .map(|fact| fact.place.clone())
            .unwrap_or_default()
    }

    fn is_missing(&self, checkpoint: Checkpoint) -> bool {
        self.facts
            .checkpoints
            .get(&checkpoint)
            .is_none_or(|fact| fact.length.is_none())
    }

    /// O15: whatever half of a guarded directory has been restored.
    fn guard(&mut self, truncate: i64) -> Step {
        let guarded = self.chaser == i64::MAX || self.writer == i64::MAX - 1;
        if !guarded {
            return Ok(());
        }
        let evidence = if self.chaser > self.writer && truncate == -1 {
            Evidence::Seen("O15")
        } else {
            Evidence::Read("O15")
        };
        let what = "a restore was interrupted here: the checkpoints are a guard that no server starts from";
        let place = self.place(if self.chaser == i64::MAX {
            Checkpoint::Chaser
        } else {
            Checkpoint::Writer
        });
        self.refuse(
            Observation::new("start-guard", what, Effect::Refuses, evidence)
                .on(&place)
                .hint("run the same `kbackup restore` again, or empty the directory"),
        )
    }

    /// disk-format §2.4.
    fn truncate(&mut self, target: i64) -> Step {
        const SECTION: Evidence = Evidence::Read("disk-format §2.4");
        let place = self.place(Checkpoint::Truncate);
        let Some(size) = self.facts.chunk_size else {
            let what = format!("a truncation to {target} is pending, and there is no log");
            return self.refuse(
                Observation::new("truncation-pending", what, Effect::Refuses, SECTION).on(&place),
            );
        };
        let (Some(position), Some(writer)) = (
            LogPosition::from_signed(target),
            LogPosition::from_signed(self.writer),
        ) else {
            let what = format!("a truncation to {target} is pending, which is no position");
            return self.refuse(
                Observation::new("truncation-pending", what, Effect::Refuses, SECTION).on(&place),
            );
        };
        if self.writer.saturating_sub(target) > MAX_TRUNCATION {
            let what = format!(
                "truncate.chk wants {} bytes cut off, more than servers cut by default",
                self.writer.saturating_sub(target)
            );
            return self.refuse(
                Observation::new("truncation-limit", what, Effect::Refuses, SECTION)
                    .on(&place)
                    .hint("if that is meant, start the server once with `--max-truncation=-1`; else write -1 into truncate.chk"),
            );
        }
        let writer_chunk = number(size, writer);
        if let Some(excess) =
            self.find(|fact| Some(fact.listed.name.start.0) == writer_chunk.checked_add(1))
        {
            let what = "it lies beyond the chunk of writer.chk, which no server accepts while a truncation is pending";
            return self.refuse(
                Observation::new(
                    "truncation-excess-chunk",
                    what,
                    Effect::Refuses,
                    Evidence::Seen("O16"),
                )
                .on(&excess)
                .hint("restore with kbackup, which leaves such a chunk out"),
            );
        }
        let selection = self.select();
        let target_chunk = number(size, position);
        if let Some(missing) = selection
            .missing
            .iter()
            .find(|range| *range.start() < target_chunk)
        {
            let what = format!(
                "chunk {} is missing, below the position {target} that truncate.chk names",
                missing.start()
            );
            return self.refuse(Observation::new(
                "chunk-missing",
                what,
                Effect::Refuses,
                SECTION,
            ));
        }
        let covering = selection
            .used
            .iter()
            .copied()
            .find(|index| self.range_of(*index).contains(&target_chunk));
        let effective = self.cut_off(covering, position, target_chunk, size)?;
        let effect = if self.line.has(facts::EXITS_AFTER_TRUNCATION) {
            Effect::StartsAgain
        } else {
            Effect::Ignores
        };
        let what = format!("truncate.chk asks for the log to be cut at {target}");
        self.see(
            Observation::new("truncation-pending", what, effect, Evidence::Seen("O10"))
                .on(&place)
                .hint(format!("servers {} exit with 0 after it and have to be started again; a supervisor must allow that", facts::EXITS_AFTER_TRUNCATION)),
        );
        if effective < writer {
            let (evidence, why) = match effective {
                LogPosition::ZERO if self.is_short(Checkpoint::Truncate) => (
                    Evidence::Seen("O13"),
                    "an empty truncate.chk reads as 0, and ",
                ),
                _ if effective < position => (
                    Evidence::Seen("O33"),
                    "a scavenged chunk is cut as a whole, and ",
                ),
                _ => (Evidence::Seen("recordings: truncate"), ""),
            };
            let what = format!(
                "{why}{} bytes of the log are cut off: {effective} to {writer}",
                writer.since(effective)
            );
            self.see(
                Observation::new("truncation-loses", what, Effect::LosesEvents, evidence)
                    .on(&place)
                    .hint("write -1 into truncate.chk (8 bytes of 0xff) unless the loss is meant"),
            );
        }
        let effective = effective.to_signed();
        if self.epoch >= effective {
            self.epoch = -1;
        }
        self.chaser = self.chaser.min(effective);
        self.writer = self.writer.min(effective);
        Ok(())
    }

    /// Removes what lies beyond the target, and says where the log really ends then.
    fn cut_off(
        &mut self,
        covering: Option<usize>,
        position: LogPosition,
        target_chunk: u32,
        size: ChunkSize,
    ) -> Step<LogPosition> {
        let facts = self.facts;
        let keep_below = |files: &mut Vec<usize>, limit: u32| {
            files.retain(|index| {
                facts
                    .chunks
                    .get(*index)
                    .is_some_and(|fact| fact.listed.name.start.0 < limit)
            });
        };
        let Some((index, fact)) =
            covering.and_then(|index| Some((index, facts.chunks.get(index)?)))
        else {
            keep_below(&mut self.files, target_chunk);
            return Ok(position);
        };
        let file_start = fact.listed.name.start;
        if let Ok(file) = &fact.file {
            if file.header.scavenged {
                keep_below(&mut self.files, file_start.0);
                return Ok(size.start_of(file_start));
            }
            if file.header.end > file_start {
                let what =
                    "truncate.chk points into it; it holds several chunks and is not scavenged";
                let refused = Observation::new(
                    "truncation-merged-chunk",
                    what,
                    Effect::Refuses,
                    Evidence::Read("disk-format §2.4"),
                );
                return self.refuse(refused.on(&fact.place));
            }
        }
        if size.local(position) == 0 && self.line.has(facts::TRUNCATES_WHOLE_CHUNKS) {
            keep_below(&mut self.files, target_chunk);
        } else {
            keep_below(&mut self.files, target_chunk.saturating_add(1));
            self.cut = Some(index);
        }
        Ok(position)
    }

    fn secondary_index(&mut self) -> Step {
        match &self.facts.bad_secondary_index {
            Some((place, why)) if self.line.has(facts::HAS_SECONDARY_INDEX) => {
                let evidence = evidence::STOPS_AT_BAD_SECONDARY_INDEX;
                let refused = Observation::new("secondary-index-damaged", why, Effect::Refuses, evidence)
                    .on(place)
                    .hint("remove kurrent.ddb and kurrent.ddb.wal: the server rebuilds them, perhaps without the schema registry's part")
                    .damage();
                self.refuse(refused)
            }
            _ => Ok(()),
        }
    }

    /// Chaser and epoch must not be ahead of the writer.
    fn readers(&mut self) -> Step {
        if self.writer < 0 || self.chaser < 0 {
            let which = if self.writer < 0 {
                Checkpoint::Writer
            } else {
                Checkpoint::Chaser
            };
            let place = self.place(which);
            let refused = Observation::new(
                "checkpoint-negative",
                "a negative position",
                Effect::Refuses,
                Evidence::Read("disk-format §6.5"),
            );
            return self.refuse(refused.on(&place).damage());
        }
        for (checkpoint, value) in [
            (Checkpoint::Chaser, self.chaser),
            (Checkpoint::Epoch, self.epoch),
        ] {
            if value <= self.writer {
                continue;
            }
            let (place, writer) = (self.place(checkpoint), self.writer);
            let missing = self.is_missing(Checkpoint::Writer);
            let evidence = match checkpoint {
                Checkpoint::Chaser if missing => Evidence::Seen("O14"),
                Checkpoint::Chaser => Evidence::Seen("O15"),
                _ => Evidence::Read("disk-format §6.5"),
            };
            let writer = if missing {
                "writer.chk, which is missing and reads as 0".to_owned()
            } else {
                format!("writer.chk at {writer}")
            };
            let what = format!("{} at {value} is ahead of {writer}", checkpoint.file_name());
            return self.refuse(
                Observation::new("reader-ahead", what, Effect::Refuses, evidence).on(&place),
            );
        }
        Ok(())
    }

    /// disk-format §6.6–§6.8. Returns the chunk number of W, where there is a log.
    fn chunks(&mut self) -> Step<Option<(ChunkSize, u32)>> {
        let Some(writer) = LogPosition::from_signed(self.writer) else {
            return Err(Refused);
        };
        let Some(size) = self.facts.chunk_size else {
            if self.facts.chunks.is_empty() && self.writer == 0 {
                return Ok(None);
            }
            let what = "no chunk can be read, and writer.chk does not say that there is none";
            return self.refuse(Observation::new(
                "chunk-missing",
                what,
                Effect::Refuses,
                Evidence::Read("disk-format §6.6"),
            ));
        };
        let writer_chunk = number(size, writer);
        let at_boundary = size.local(writer) == 0;
        let selection = self.select();
        let used = |start: &Self| -> Vec<usize> {
            let covers = |index: &usize| *start.range_of(*index).start() < writer_chunk;
            selection.used.iter().copied().filter(covers).collect()
        };
        let current = selection
            .used
            .iter()
            .copied()
            .find(|index| self.range_of(*index).contains(&writer_chunk));
        let mut refused = false;
        if let Some(range) = selection
            .missing
            .iter()
            .find(|range| *range.start() < writer_chunk)
        {
            let what = format!("chunk {} is missing", range.start());
            self.see(
                Observation::new(
                    "chunk-missing",
                    what,
                    Effect::Refuses,
                    Evidence::Read("disk-format §6.6"),
                )
                .hint(format!(
                    "with an archive, servers {} fetch missing chunks from there",
                    facts::HAS_ARCHIVE
                )),
            );
            refused = true;
        } else if let Some(covered) = selection
            .used
            .iter()
            .map(|index| *self.range_of(*index).end())
            .max()
            && covered < writer_chunk.saturating_sub(1)
        {
            let what = format!("chunk {} is missing", covered + 1);
            self.see(Observation::new(
                "chunk-missing",
                what,
                Effect::Refuses,
                Evidence::Read("disk-format §6.6"),
            ));
            refused = true;
        }
        for index in used(self) {
            if Some(index) == current {
                continue;
            }
            let last_before = *self.range_of(index).end() == writer_chunk.saturating_sub(1);
            refused |= self.historical(index, at_boundary && current.is_none() && last_before);
        }
        refused |= self.current(current, writer, size, at_boundary);
        refused |= self.beyond(writer_chunk);
        self.overwrites();
        if refused {
            Err(Refused)
        } else {
            Ok(Some((size, writer_chunk)))
        }
    }

    /// A chunk below W's: it must be completed. True where the server gives up.
    fn historical(&mut self, index: usize, may_be_ongoing: bool) -> bool {
        const SECTION: Evidence = Evidence::Read("disk-format §6.6");
        let Some(fact) = self.facts.chunks.get(index) else {
            return false;
        };
        let refusal = match &fact.file {
            Err(why) => {
                Some(Observation::new("chunk-unreadable", why, Effect::Refuses, SECTION).damage())
            }
            Ok(file) => self.too_new(file).or_else(|| match &file.state {
                _ if self.cut == Some(index) => (!may_be_ongoing).then(not_completed),
                State::Ongoing => (!may_be_ongoing).then(not_completed),
                State::Contradictory(_) | State::Completed(_) => None,
            }),
        };
        if let Some(observation) = refusal {
            self.see(observation.on(&fact.place));
            return true;
        }
        if let Ok(ChunkFile {
            state: State::Contradictory(malformed),
            ..
        }) = &fact.file
            && self.cut != Some(index)
        {
            let evidence = Evidence::Read("disk-format §3.5");
            self.see(
                Observation::new(
                    "chunk-contradictory",
                    malformed.to_string(),
                    Effect::Dies,
                    evidence,
                )
                .on(&fact.place)
                .damage(),
            );
        }
        false
    }

    fn too_new(&self, file: &ChunkFile) -> Option<Observation> {
        let too_new =
            !self.line.has(facts::READS_TRANSFORMED_CHUNKS) && file.header.min_compatible > 3;
        let what = format!(
            "servers before {} cannot read its format",
            facts::READS_TRANSFORMED_CHUNKS.first_release()
        );
        too_new.then(|| {
            Observation::new(
                "chunk-too-new",
                what,
                Effect::Refuses,
                Evidence::Read("disk-format §3.2"),
            )
        })
    }

    /// The chunk that W lies in.
    fn current(
        &mut self,
        current: Option<usize>,
        writer: LogPosition,
        size: ChunkSize,
        at_boundary: bool,
    ) -> bool {
        const SECTION: Evidence = Evidence::Read("disk-format §6.7");
        let Some(fact) = current.and_then(|index| self.facts.chunks.get(index)) else {
            if at_boundary {
                return false;
            }
            let what = format!(
                "chunk {}, which the log should end in, is missing",
                number(size, writer)
            );
            self.see(Observation::new(
                "chunk-missing",
                what,
                Effect::Refuses,
                SECTION,
            ));
            return true;
        };
        let refusal = match &fact.file {
            Err(why) => {
                Some(Observation::new("chunk-unreadable", why, Effect::Refuses, SECTION).damage())
            }
            Ok(file) => self.too_new(file).or_else(|| {
                let local = writer.since(size.start_of(fact.listed.name.start));
                if file.header.scavenged && self.cut != current {
                    let fits = if self.line.has(facts::RESUMES_BEHIND_SCAVENGED_CHUNK) {
                        at_boundary
                    } else {
                        file.footer().is_some_and(|footer| footer.logical == local)
                    };
                    let what =
                        format!("it is scavenged, and writer.chk at {writer} points into it");
                    return (!fits).then(|| {
                        Observation::new(
                            "chunk-scavenged-at-writer",
                            what,
                            Effect::Refuses,
                            SECTION,
                        )
                    });
                }
                let ends_early = file.header.transform == Transform::Identity
                    && file
                        .header
                        .offset_of(writer)
                        .is_none_or(|end| end > file.length);
                ends_early.then(|| {
                    let what = format!("it ends before the log does, at {writer}");
                    Observation::new(
                        "log-damaged",
                        what,
                        Effect::Refuses,
                        Evidence::Read("disk-format §6.12"),
                    )
                    .damage()
                })
            }),
        };
        match refusal {
            Some(observation) => {
                self.see(observation.on(&fact.place));
                true
            }
            None => false,
        }
    }

    /// Files beyond W's chunk (O16, O14).
    fn beyond(&mut self, writer_chunk: u32) -> bool {
        let beyond: Vec<usize> = self
            .files
            .iter()
            .copied()
            .filter(|index| {
                self.name_of(*index)
                    .is_some_and(|start| start > writer_chunk)
            })
            .collect();
        let mut refused = false;
        for index in &beyond {
            let Some(fact) = self.facts.chunks.get(*index) else {
                continue;
            };
            let deletable = fact.listed.name.start.0 == writer_chunk.saturating_add(1)
                && fact.listed.name.version.0 == 0;
            let same_start = beyond
                .iter()
                .filter(|other| self.name_of(**other) == Some(fact.listed.name.start.0))
                .count();
            let observation = if self.line.has(facts::DELETES_CHUNK_BEYOND_WRITER)
                && deletable
                && same_start == 1
            {
                let (what, effect) = if fact.has_records {
                    (
                        "it lies beyond writer.chk, but holds records: the server deletes it",
                        Effect::LosesEvents,
                    )
                } else {
                    (
                        "it lies beyond writer.chk and holds nothing: the server deletes it",
                        Effect::Deletes,
                    )
                };
                let evidence = if self.is_missing(Checkpoint::Writer) {
                    "O14"
                } else {
                    "O16"
                };
                Observation::new(
                    "chunk-beyond-writer",
                    what,
                    effect,
                    Evidence::Seen(evidence),
                )
            } else {
                refused = true;
                Observation::new(
                    "chunk-beyond-writer",
                    "it lies beyond writer.chk",
                    Effect::Refuses,
                    Evidence::Seen("O16"),
                )
            };
            self.see(
                observation
                    .on(&fact.place)
                    .hint("is writer.chk older than the chunks, or missing?"),
            );
        }
        refused
    }

    /// disk-format §1: with no writer checkpoint the log is written anew from its start.
    fn overwrites(&mut self) {
        let has_log = self
            .files
            .iter()
            .filter_map(|index| self.facts.chunks.get(*index))
            .any(|fact| fact.has_records);
        if self.is_missing(Checkpoint::Writer) && has_log {
            let place = self.place(Checkpoint::Writer);
            let what = "it is missing and reads as 0: what the chunks hold is overwritten";
            self.see(
                Observation::new(
                    "writer-missing",
                    what,
                    Effect::LosesEvents,
                    Evidence::Read("disk-format §1"),
                )
                .on(&place),
            );
        }
    }

    /// disk-format §6.9.
    fn epochs(&mut self) -> Step {
        let place = self.place(Checkpoint::Epoch);
        if self.epoch < 0 {
            if self.writer > 0 {
                let what = "the server searches the log backwards for its last epoch";
                self.see(
                    Observation::new("epoch-search", what, Effect::Slows, Evidence::Seen("O12"))
                        .on(&place),
                );
            }
            return Ok(());
        }
        match &self.facts.bad_epoch {
            Some(damage) => {
                let what = format!(
                    "no epoch record stands at {}: {}",
                    damage.position, damage.why
                );
                self.refuse(
                    Observation::new(
                        "epoch-record",
                        what,
                        Effect::Refuses,
                        Evidence::Read("disk-format §6.9"),
                    )
                    .on(&damage.place)
                    .hint(
                        "a missing epoch.chk, or -1 in it, makes the server search the log instead",
                    ),
                )
            }
            None => Ok(()),
        }
    }

    /// disk-format §5.4 and §6.12: the index is taken or set aside, and the log is replayed from
    /// where it ends.
    fn index_and_tail(&mut self, sizes: Option<(ChunkSize, u32)>) -> Step {
        let replay_from = self.index();
        if sizes.is_none() {
            return Ok(());
        }
        let Some(writer) = LogPosition::from_signed(self.writer) else {
            return Ok(());
        };
        let facts = self.facts;
        match facts.ends.get(&writer) {
            Some(End::HalfAppend(begin)) => {
                let what = format!(
                    "the log ends at {writer}, inside of an append that begins at {begin}: clients see a part of it"
                );
                let place = self.place(Checkpoint::Writer);
                self.see(
                    Observation::new(
                        "half-append",
                        what,
                        Effect::ShowsHalfAppend,
                        Evidence::Seen("O32"),
                    )
                    .on(&place),
                );
            }
            Some(End::Damaged(damage)) => self.damaged(damage, replay_from)?,
            Some(End::Whole) | None => {}
        }
        for damage in facts
            .damage
            .iter()
            .filter(|damage| damage.position < writer)
        {
            self.damaged(damage, replay_from)?;
        }
        let chaser = LogPosition::from_signed(self.chaser);
        if let Some(End::Damaged(damage)) = chaser.and_then(|chaser| facts.ends.get(&chaser))
            && !matches!(facts.ends.get(&writer), Some(End::Damaged(_)))
        {
            let place = self.place(Checkpoint::Chaser);
            let what = format!(
                "chaser.chk at {} is not the end of a record: {}",
                self.chaser, damage.why
            );
            return self.refuse(
                Observation::new(
                    "chaser-inside-record",
                    what,
                    Effect::Refuses,
                    Evidence::Read("disk-format §2.7 C1"),
                )
                .on(&place),
            );
        }
        Ok(())
    }

    fn damaged(&mut self, damage: &Damage, replay_from: i64) -> Step {
        let what = format!(
            "the log is damaged at position {}: {}",
            damage.position, damage.why
        );
        if damage.position.to_signed() >= replay_from {
            let refused =
                Observation::new("log-damaged", what, Effect::Refuses, Evidence::Seen("O17"));
            return self.refuse(
                refused
                    .on(&damage.place)
                    .hint("restore from a backup")
                    .damage(),
            );
        }
        let read = Observation::new(
            "log-damaged",
            what,
            Effect::LosesEvents,
            Evidence::Read("disk-format §6.12"),
        );
        self.see(
            read.on(&damage.place)
                .hint("restore from a backup")
                .damage(),
        );
        Ok(())
    }

    /// Returns the position from which the log is replayed.
    fn index(&mut self) -> i64 {
        let facts = self.facts;
        let before = self.seen.len();
        let mut accepted = None;
        match &facts.index.map {
            MapFact::Absent => {
                if self.writer > 0 {
                    let what = "there is no index; a full rebuild takes long on a large database";
                    self.see(Observation::new(
                        "index-absent",
                        what,
                        Effect::Rebuilds,
                        Evidence::Seen("O18"),
                    ));
                }
                return 0;
            }
            MapFact::Damaged { place, why } => {
                let evidence = Evidence::Read("disk-format §5.4");
                self.see(
                    Observation::new("index-map-damaged", why, Effect::SetsIndexAside, evidence)
                        .on(place)
                        .damage(),
                );
            }
            MapFact::Read {
                place,
                commit,
                merge_level,
            } => {
                accepted = Some(commit.map_or(0, LogPosition::to_signed));
                if let Some(commit) = commit.filter(|commit| commit.to_signed() >= self.chaser) {
                    let what = format!(
                        "the index reaches to {commit}, not below chaser.chk at {}",
                        self.chaser
                    );
                    self.see(
                        Observation::new("index-ahead", what, Effect::SetsIndexAside, Evidence::Seen("O18"))
                            .on(place)
                            .hint("remove the index directory's files: the rebuild stays, the copy is saved"),
                    );
                }
                if let Some(level) = merge_level {
                    let what = format!(
                        "tables are merged up to level {level} only; a server without that setting rebuilds the index"
                    );
                    let evidence = Evidence::Read("disk-format §5.1");
                    self.see(
                        Observation::new(
                            "index-merge-level",
                            what,
                            Effect::SetsIndexAside,
                            evidence,
                        )
                        .on(place),
                    );
                }
            }
        }
        for table in &facts.index.bad_tables {
            let observation = match &table.why {
                TableProblem::Missing => {
                    let what = "indexmap names this table, and it is missing";
                    Observation::new(
                        "index-table-missing",
                        what,
                        Effect::SetsIndexAside,
                        Evidence::Seen("O18"),
                    )
                    .damage()
                }
                TableProblem::Damaged(why) => Observation::new(
                    "index-table-damaged",
                    why,
                    Effect::SetsIndexAside,
                    Evidence::Seen("O18"),
                )
                .damage(),
                TableProblem::Old if self.line.has(facts::REFUSES_OLD_TABLES) => {
                    let what = format!(
                        "servers {} refuse tables of format version 1",
                        facts::REFUSES_OLD_TABLES
                    );
                    Observation::new(
                        "index-table-old",
                        what,
                        Effect::SetsIndexAside,
                        Evidence::Read("disk-format §5.2"),
                    )
                }
                TableProblem::Old => continue,
            };
            self.see(
                observation.on(&table.place).hint(
                    "remove the index directory's files: the rebuild stays, the copy is saved",
                ),
            );
        }
        if self.seen.len() > before {
            return 0;
        }
        if let Some(hidden) = &facts.index.hidden {
            let Hidden {
                missing,
                sampled,
                first,
                explained,
            } = hidden;
            let what = format!(
                "{missing} of {sampled} events that the log holds are not in the index, the first at {first}"
            );
            let (effect, hint) = if *explained {
                (
                    Effect::MayHideEvents,
                    "a scavenge can explain it; if this directory was put together from copies, remove the index directory's files",
                )
            } else {
                (
                    Effect::LosesEvents,
                    "the index is from after a scavenge, the chunks from before it: remove the index directory's files",
                )
            };
            let evidence = evidence::HIDES_EVENTS_WITH_LATER_INDEX;
            self.see(Observation::new("index-hides-events", what, effect, evidence).hint(hint));
        }
        accepted.unwrap_or(0).min(self.chaser)
    }

    /// The hashing of completed chunks that begins after the start (O17).
    fn background(&mut self, sizes: Option<(ChunkSize, u32)>) {
        let Some((_, writer_chunk)) = sizes else {
            return;
        };
        let facts = self.facts;
        let selection = self.select();
        for index in selection.used {
            let Some(fact) = facts.chunks.get(index).filter(|fact| fact.fails_md5) else {
                continue;
            };
            if *self.range_of(index).end() < writer_chunk && self.cut != Some(index) {
                let what = "the chunk fails its own MD5";
                let dies = Observation::new("chunk-md5", what, Effect::Dies, Evidence::Seen("O17"));
                self.see(
                    dies.on(&fact.place)
                        .hint("restore this chunk from a backup")
                        .damage(),
                );
            }
        }
    }

    fn stream_filter(&mut self) {
        if !self.line.has(facts::HAS_FILTERS) || self.writer <= 0 {
            return;
        }
        let facts = self.facts;
        let observation = match &facts.stream_filter {
            StreamFilterFact::Whole => return,
            StreamFilterFact::Absent => {
                let what = "there is no stream-existence filter; it is built from the index";
                Observation::new(
                    "stream-filter-absent",
                    what,
                    Effect::Rebuilds,
                    Evidence::Seen("O18"),
                )
            }
            StreamFilterFact::Damaged { place, why } => Observation::new(
                "stream-filter-damaged",
                why,
                Effect::Rebuilds,
                Evidence::Seen("O18"),
            )
            .on(place),
            StreamFilterFact::Incomplete { place, why } => Observation::new(
                "stream-filter-incomplete",
                why,
                Effect::LosesEvents,
                Evidence::Read("disk-format §5.3"),
            )
            .on(place)
            .hint("remove the files in index/stream-existence: the server builds the filter anew")
            .damage(),
        };
        self.see(observation);
    }

    /// O34: the start goes well, the next scavenge does not.
    fn scavenge_state(&mut self) {
        if !self.line.has(facts::HAS_SCAVENGE_STATE) {
            return;
        }
        if let Some((place, why)) = &self.facts.foreign_scavenge {
            let what = format!("{why}: the next scavenge removes events that were written since");
            let evidence = evidence::SCAVENGES_BY_FOREIGN_STATE;
            let loses = Observation::new(
                "scavenge-state-foreign",
                what,
                Effect::LosesEvents,
                evidence,
            );
            self.see(
                loses
                    .on(place)
                    .hint("remove the files in index/scavenging: the next scavenge begins anew"),
            );
        }
    }

    fn is_short(&self, checkpoint: Checkpoint) -> bool {
        self.facts
            .checkpoints
            .get(&checkpoint)
            .is_some_and(|fact| fact.length.is_some_and(|length| length != 8))
    }

    fn name_of(&self, index: usize) -> Option<u32> {
        self.facts
            .chunks
            .get(index)
            .map(|fact| fact.listed.name.start.0)
    }

    /// The chunk numbers that a server takes a file for.
    fn range_of(&self, index: usize) -> std::ops::RangeInclusive<u32> {
        let Some(fact) = self.facts.chunks.get(index) else {
            return u32::MAX..=u32::MAX;
        };
        let start = fact.listed.name.start.0;
        let end = fact
            .file
            .as_ref()
            .map_or(start, |file| file.header.end.0.max(start));
        let single = self.line.has(facts::TRUSTS_VERSION_ZERO) && fact.listed.name.version.0 == 0;
        start..=if single { start } else { end }
    }

    fn find(&self, wanted: impl Fn(&ChunkFact) -> bool) -> Option<String> {
        self.files
            .iter()
            .filter_map(|index| self.facts.chunks.get(*index))
            .find(|fact| wanted(fact))
            .map(|fact| fact.place.clone())
    }

    /// The files used, as indices of the facts.
    fn select(&self) -> Used {
        let remaining: Vec<(usize, &ChunkFact)> = self
            .files
            .iter()
            .filter_map(|index| Some((*index, self.facts.chunks.get(*index)?)))
            .collect();
        let names: Vec<ListedChunk> = remaining
            .iter()
            .map(|(_, fact)| fact.listed.clone())
            .collect();
        let ends: BTreeMap<_, _> = remaining
            .iter()
            .map(|(index, fact)| (fact.listed.name, *self.range_of(*index).end()))
            .collect();
        let selection = select(&names, self.line, |_, listed| {
            Ok(ChunkNumber(
                ends.get(&listed.name).copied().unwrap_or_default(),
            ))
        });
        let Ok(selection) = selection else {
            return Used::default();
        };
        Used {
            used: selection
                .used
                .into_iter()
                .filter_map(|place| remaining.get(place))
                .map(|(index, _)| *index)
                .collect(),
            missing: selection
                .missing
                .into_iter()
                .map(|range| range.start().0..=range.end().0)
                .collect(),
        }
    }
}

#[derive(Default)]
struct Used {
    used: Vec<usize>,
    missing: Vec<std::ops::RangeInclusive<u32>>,
}

fn not_completed() -> Observation {
    let what = "it lies below writer.chk and is not completed";
    Observation::new(
        "chunk-not-completed",
        what,
        Effect::Refuses,
        Evidence::Read("disk-format §6.6"),
    )
}

fn number(size: ChunkSize, position: LogPosition) -> u32 {
    size.chunk_of(position).map_or(u32::MAX, |chunk| chunk.0)
}
