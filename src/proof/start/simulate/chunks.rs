//! The chunk files. All chunks before the end of the log have to be completed, and no file may lie
//! behind it (disk-format §6.6–§6.8).

use super::selection::{UsedFile, UsedFiles, number_of};
use super::state::{Refused, ServerStart, Step};
use crate::format::checkpoint::Checkpoint;
use crate::format::chunk::{ChunkFile, ChunkState, Transform};
use crate::format::{ChunkSize, LogPosition};
use crate::proof::finding::Effect;
use crate::proof::start::facts::ChunkFact;
use crate::proof::start::observation::StartObservation;
use crate::server::facts::{
    DELETES_CHUNK_BEYOND_WRITER, HAS_ARCHIVE, READS_TRANSFORMED_CHUNKS,
    RESUMES_BEHIND_SCAVENGED_CHUNK,
};
use crate::server::{Evidence, observed};

/// Chunks before the end of the log.
const HISTORICAL: Evidence = Evidence::Read("disk-format §6.6");
/// The chunk that the log ends in.
const LAST: Evidence = Evidence::Read("disk-format §6.7");

/// Where the log ends.
#[derive(Clone, Copy)]
pub(super) struct Tail {
    size: ChunkSize,
    writer: LogPosition,
    /// The number of the chunk that the writer position lies in.
    number: u32,
}

impl Tail {
    /// Whether the log ends exactly where a chunk ends.
    fn is_at_chunk_start(self) -> bool {
        self.size.local(self.writer) == 0
    }
}

impl<'a> ServerStart<'a> {
    /// Opens the chunks. Returns the end of the log, and `None` for an empty directory.
    pub(super) fn chunks(&mut self) -> Step<Option<Tail>> {
        let Some(writer) = LogPosition::from_signed(self.writer) else {
            return Err(Refused);
        };
        let Some(size) = self.facts.chunk_size else {
            return self.without_readable_chunk();
        };
        let tail = Tail {
            size,
            writer,
            number: number_of(size, writer),
        };
        let files = self.used_files();
        let current = files.covering(tail.number);

        // Report everything that is wrong, not only what the server would meet first.
        let mut is_refused = self.missing(&files, tail);
        for file in &files.used {
            let is_current = current.is_some_and(|current| current.first == file.first);
            if file.first >= tail.number || is_current {
                continue;
            }
            let is_last_before = file.last == tail.number.saturating_sub(1);
            let may_be_ongoing = tail.is_at_chunk_start() && current.is_none() && is_last_before;
            is_refused |= self.historical(file.fact, may_be_ongoing);
        }
        is_refused |= self.last(current, tail);
        is_refused |= self.beyond(self.last_number_after_start(current, tail));
        self.overwritten();

        if is_refused {
            return Err(Refused);
        }
        Ok(Some(tail))
    }

    fn without_readable_chunk(&mut self) -> Step<Option<Tail>> {
        if self.facts.chunks.is_empty() && self.writer == 0 {
            return Ok(None);
        }
        let what = "no chunk can be read, but writer.chk says that there is a log";
        self.refuse(StartObservation::refusal("chunk-missing", what, HISTORICAL))
    }

    /// Returns true if a chunk is missing before the one that the log ends in.
    fn missing(&mut self, files: &UsedFiles<'_>, tail: Tail) -> bool {
        if let Some(number) = files.missing_below(tail.number) {
            let what = format!("chunk {number} is missing");
            let hint =
                format!("with an archive, servers {HAS_ARCHIVE} fetch missing chunks from there");
            self.see(StartObservation::refusal("chunk-missing", what, HISTORICAL).hint(hint));
            return true;
        }

        let Some(covered) = files.used.iter().map(|file| file.last).max() else {
            return false;
        };
        if covered >= tail.number.saturating_sub(1) {
            return false;
        }
        let what = format!("chunk {} is missing", covered + 1);
        self.see(StartObservation::refusal("chunk-missing", what, HISTORICAL));
        true
    }

    /// A chunk before the one that the log ends in has to be completed. Returns true if the server
    /// gives up.
    fn historical(&mut self, fact: &ChunkFact, may_be_ongoing: bool) -> bool {
        if let Some(refusal) = self.refusal_of_historical(fact, may_be_ongoing) {
            self.see(refusal.on(&fact.place));
            return true;
        }

        // The server notices this when it hashes the file.
        if let Ok(file) = &fact.file
            && let ChunkState::Contradictory(why) = &file.state
            && !self.is_cut(fact)
        {
            let evidence = Evidence::Read("disk-format §3.5");
            let dies = StartObservation::new(
                "chunk-contradictory",
                why.to_string(),
                Effect::Dies,
                evidence,
            );
            self.see(dies.on(&fact.place).damage());
        }
        false
    }

    fn refusal_of_historical(
        &self,
        fact: &ChunkFact,
        may_be_ongoing: bool,
    ) -> Option<StartObservation> {
        let file = match &fact.file {
            Ok(file) => file,
            Err(why) => return Some(unreadable(why, HISTORICAL)),
        };
        if let Some(refusal) = self.too_new(file) {
            return Some(refusal);
        }

        let is_ongoing = self.is_cut(fact) || file.state == ChunkState::Ongoing;
        if !is_ongoing || may_be_ongoing {
            return None;
        }
        let what = "it lies below writer.chk and is not completed";
        Some(StartObservation::refusal(
            "chunk-not-completed",
            what,
            HISTORICAL,
        ))
    }

    /// A chunk format that servers of this line do not read (disk-format §3.2).
    fn too_new(&self, file: &ChunkFile) -> Option<StartObservation> {
        if !file.header.needs_transforms() || self.line.has(READS_TRANSFORMED_CHUNKS) {
            return None;
        }
        let what = format!(
            "servers before {} cannot read its format",
            READS_TRANSFORMED_CHUNKS.first_release()
        );
        let evidence = Evidence::Read("disk-format §3.2");
        Some(StartObservation::refusal("chunk-too-new", what, evidence))
    }

    /// The chunk that the log ends in. Returns true if the server gives up.
    fn last(&mut self, current: Option<UsedFile<'_>>, tail: Tail) -> bool {
        let Some(UsedFile { fact, .. }) = current else {
            if tail.is_at_chunk_start() {
                return false;
            }
            let what = format!(
                "chunk {}, which the log should end in, is missing",
                tail.number
            );
            self.see(StartObservation::refusal("chunk-missing", what, LAST));
            return true;
        };

        let Some(refusal) = self.refusal_of_last(fact, tail) else {
            return false;
        };
        self.see(refusal.on(&fact.place));
        true
    }

    fn refusal_of_last(&self, fact: &ChunkFact, tail: Tail) -> Option<StartObservation> {
        let file = match &fact.file {
            Ok(file) => file,
            Err(why) => return Some(unreadable(why, LAST)),
        };
        if let Some(refusal) = self.too_new(file) {
            return Some(refusal);
        }

        let writer = tail.writer;
        if file.header.scavenged && !self.is_cut(fact) {
            if self.continues_behind(fact, file, tail) {
                return None;
            }
            let what = format!("it is scavenged, and writer.chk at {writer} points into it");
            return Some(StartObservation::refusal(
                "chunk-scavenged-at-writer",
                what,
                LAST,
            ));
        }

        // Nobody knows how many bytes a transformed chunk needs.
        if file.header.transform != Transform::Identity || file.reaches(writer) {
            return None;
        }
        let what = format!("it ends before the log does, at {writer}");
        let evidence = Evidence::Read("disk-format §6.12");
        Some(StartObservation::refusal("log-damaged", what, evidence).damage())
    }

    /// Whether the server moves `writer.chk` to the end of the scavenged chunk that it finds there
    /// (disk-format §6.7).
    fn continues_behind(&self, fact: &ChunkFact, file: &ChunkFile, tail: Tail) -> bool {
        // The server finds the file by the number of its first chunk.
        let start = fact.listed.name.start;
        if start.0 != tail.number {
            return false;
        }

        let written = tail.writer.since(tail.size.start_of(start));
        if self.line.has(RESUMES_BEHIND_SCAVENGED_CHUNK) {
            return written == 0;
        }
        match file.footer() {
            Some(footer) => footer.logical == written,
            None => false,
        }
    }

    /// The number of the chunk that the server takes for the last one. If it has moved `writer.chk`
    /// to the end of a scavenged chunk, that is the chunk's last number.
    fn last_number_after_start(&self, current: Option<UsedFile<'_>>, tail: Tail) -> u32 {
        let Some(UsedFile { fact, last, .. }) = current else {
            return tail.number;
        };
        match &fact.file {
            Ok(file)
                if file.header.scavenged
                    && self.line.has(RESUMES_BEHIND_SCAVENGED_CHUNK)
                    && self.continues_behind(fact, file, tail) =>
            {
                last
            }
            _ => tail.number,
        }
    }

    /// Files behind the chunk that the log ends in (O14, O16). Returns true if the server gives up.
    fn beyond(&mut self, last: u32) -> bool {
        let mut files = self.files.clone();
        files.retain(|fact| fact.listed.name.start.0 > last);

        let mut is_refused = false;
        for fact in &files {
            let number = fact.listed.name.start.0;
            let is_alone = files
                .iter()
                .all(|other| other.listed.name.start.0 != number || other.place == fact.place);
            let is_new =
                number == last.saturating_add(1) && fact.listed.name.version.0 == 0 && is_alone;

            let observation = if is_new && self.line.has(DELETES_CHUNK_BEYOND_WRITER) {
                self.deleted(fact)
            } else {
                is_refused = true;
                let what = "it lies beyond writer.chk";
                StartObservation::refusal(
                    "chunk-beyond-writer",
                    what,
                    Evidence::Seen(observed::O16),
                )
            };
            self.see(
                observation
                    .on(&fact.place)
                    .hint("is writer.chk older than the chunks, or missing?"),
            );
        }
        is_refused
    }

    /// The server deletes the file, whether it holds records or not.
    fn deleted(&self, fact: &ChunkFact) -> StartObservation {
        let (what, effect) = if fact.has_records {
            let what = "it lies beyond writer.chk, but holds records: the server deletes it";
            (what, Effect::LosesEvents)
        } else {
            let what = "it lies beyond writer.chk and holds nothing: the server deletes it";
            (what, Effect::Deletes)
        };
        let seen = if self.is_missing(Checkpoint::Writer) {
            observed::O14
        } else {
            observed::O16
        };
        StartObservation::new("chunk-beyond-writer", what, effect, Evidence::Seen(seen))
    }

    /// Without a writer checkpoint the log is written anew from its start (disk-format §1).
    fn overwritten(&mut self) {
        let has_log = self.files.iter().any(|fact| fact.has_records);
        if !has_log || !self.is_missing(Checkpoint::Writer) {
            return;
        }
        let what = "it is missing and reads as 0: the server overwrites what the chunks hold";
        let evidence = Evidence::Read("disk-format §1");
        self.see(
            StartObservation::new("writer-missing", what, Effect::LosesEvents, evidence)
                .on(&self.place_of(Checkpoint::Writer)),
        );
    }

    /// After its start the server hashes the completed chunks, and ends itself if one fails (O17).
    pub(super) fn background_hashing(&mut self, tail: Tail) {
        for file in self.used_files().used {
            let fact = file.fact;
            if !fact.fails_md5 || file.last >= tail.number || self.is_cut(fact) {
                continue;
            }
            let what = "the chunk fails its own MD5";
            let dies = StartObservation::new(
                "chunk-md5",
                what,
                Effect::Dies,
                Evidence::Seen(observed::O17),
            );
            self.see(
                dies.on(&fact.place)
                    .hint("restore this chunk from a backup")
                    .damage(),
            );
        }
    }
}

fn unreadable(why: &str, evidence: Evidence) -> StartObservation {
    StartObservation::refusal("chunk-unreadable", why, evidence).damage()
}
