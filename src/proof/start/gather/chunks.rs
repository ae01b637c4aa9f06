//! The chunk files: headers, footers, and the MD5s that a server compares.

use std::sync::Arc;

use super::Gathering;
use crate::error::Result;
use crate::format::chunk::{self, ChunkFile, ChunkHeader, HEADER_LENGTH, Transform};
use crate::format::record::Forwards;
use crate::format::{ChunkSize, LogPosition, ReadAt};
use crate::log::{ChunkSet, ListedChunk, LogFile, listed_chunks, open_listed};
use crate::manifest::FileEntry;
use crate::proof::finding::Severity;
use crate::proof::start::facts::ChunkFact;
use crate::transfer::hash_file;

impl Gathering<'_> {
    /// Reads header and footer of each file that is named like a chunk.
    pub(super) fn chunks(&mut self, entries: &[FileEntry]) -> Result<Vec<ChunkFact>> {
        let mut facts = Vec::new();
        let mut size: Option<ChunkSize> = None;

        for listed in listed_chunks(entries) {
            self.run.check()?;
            let place = self.place(&listed.path);
            let source = open_listed(self.files, &listed.path)?;
            let file = self.judge(&listed.path, chunk::inspect(&*source))?;
            if let Ok(file) = &file {
                let first = *size.get_or_insert(file.header.chunk_size);
                self.check_header(&listed, &file.header, &place, first);
            }
            facts.push(ChunkFact {
                listed,
                place,
                file,
                has_records: false,
                fails_md5: false,
            });
        }

        if facts.is_empty() {
            let what = "there is no chunk: is this a server's db directory?";
            self.tell(Severity::Warning, "no-log", None, what);
        }
        Ok(facts)
    }

    /// Reports what a server does not notice, but an operator should know.
    fn check_header(
        &mut self,
        listed: &ListedChunk,
        header: &ChunkHeader,
        place: &str,
        first_size: ChunkSize,
    ) {
        let place = || Some(place.to_owned());

        if header.chunk_size != first_size {
            let what = format!(
                "its chunk size is {}, that of the first chunk {}",
                header.chunk_size.get(),
                first_size.get()
            );
            self.tell(Severity::Error, "chunk-size-differs", place(), what);
        }
        if header.start != listed.name.start {
            let what = format!("its header says that it begins with chunk {}", header.start);
            self.tell(Severity::Error, "chunk-name", place(), what);
        }
        if header.transform != Transform::Identity && !self.has_told("chunk-encrypted") {
            let what = "it is encrypted: kbackup cannot prove its records, and the server needs \
                        the master key that it names";
            self.tell(Severity::Warning, "chunk-encrypted", place(), what);
        }
    }

    /// Notes which files behind the end of the log hold records. If the log is empty, all files lie
    /// behind its end.
    pub(super) fn note_records(
        &mut self,
        chunks: &mut [ChunkFact],
        size: ChunkSize,
        writer: LogPosition,
    ) -> Result<()> {
        let last = size.chunk_of(writer);
        for fact in chunks {
            let is_beyond = Some(fact.listed.name.start) > last;
            if !is_beyond && writer != LogPosition::ZERO {
                continue;
            }
            let Ok(file) = &fact.file else { continue };
            let source = open_listed(self.files, &fact.listed.path)?;
            fact.has_records = begins_with_record(&*source, file);
        }
        Ok(())
    }

    /// Hashes the chunks that a server hashes: all completed ones before the one that the log ends
    /// in.
    pub(super) fn hash(
        &mut self,
        chunks: &mut [ChunkFact],
        set: &ChunkSet,
        size: ChunkSize,
        writer: LogPosition,
    ) -> Result<()> {
        let last = size.chunk_of(writer);
        for fact in chunks {
            self.run.check()?;
            let Ok(file) = &fact.file else { continue };
            let Some(footer) = file.footer() else {
                continue;
            };
            let Some(used) = set.file(&fact.listed.path) else {
                continue;
            };
            if Some(used.end()) >= last {
                continue;
            }

            let source = open_listed(self.files, &fact.listed.path)?;
            let computed = hash_file(&*source, true, self.run)?.md5;
            fact.fails_md5 = computed != Some(footer.md5);
        }
        Ok(())
    }
}

fn begins_with_record(source: &dyn ReadAt, file: &ChunkFile) -> bool {
    let data = HEADER_LENGTH..file.length.min(HEADER_LENGTH + file.header.capacity());
    let Ok(mut frames) = Forwards::new(source, &file.header, data) else {
        return false;
    };
    matches!(frames.next(), Ok(Some(_)))
}

/// The files of the log that can be read, as the newest servers use them.
pub(super) fn readable_chunks(chunks: &[ChunkFact]) -> Option<ChunkSet> {
    let mut files = Vec::new();
    for fact in chunks {
        let Ok(file) = &fact.file else { continue };
        let listed = fact.listed.clone();
        if file.header.start != listed.name.start {
            continue;
        }
        files.push(LogFile {
            path: listed.path,
            name: listed.name,
            mode: listed.mode,
            chunk: Arc::new(file.clone()),
            stamp: listed.stamp,
        });
    }
    ChunkSet::of_readable(files)
}
