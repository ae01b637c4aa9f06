//! A chunk file as a whole: what header, footer and length say together.

use std::ops::Range;

use uuid::Uuid;

use super::footer::{ChunkFooter, FOOTER_LENGTH};
use super::header::{ChunkHeader, HEADER_LENGTH};
use crate::format::{ChunkNumber, ChunkVersion, LogPosition, Malformed, Md5Hash, ReadAt, Result};

/// What the last 128 bytes of a chunk file say about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ChunkState {
    /// The chunk is whole and immutable.
    Completed(ChunkFooter),
    /// Records may still come. Some servers write the footer before they cut the file to its
    /// length; in between, a completed chunk looks like this too (disk-format §3.7).
    Ongoing,
    /// The footer says "completed", but footer, header and length contradict each other.
    ///
    /// This means nothing if the log ends in the file: the server ignores the bytes behind the
    /// writer position (disk-format §3.7), and the end of a short copy can hold anything.
    Contradictory(Malformed),
}

/// A chunk file, known from the 256 bytes of its header and footer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChunkFile {
    /// Its first 128 bytes.
    pub header: ChunkHeader,
    /// Its length in bytes when it was read.
    pub length: u64,
    /// What its last 128 bytes say.
    pub state: ChunkState,
}

/// What distinguishes one version of a chunk file from another. The name alone does not
/// (disk-format §9.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ChunkIdentity {
    /// The first chunk number in the file.
    pub start: ChunkNumber,
    /// The last chunk number in the file.
    pub end: ChunkNumber,
    /// The version in its name.
    pub version: ChunkVersion,
    /// Its length in bytes.
    pub length: u64,
    /// The header's id.
    pub chunk_id: Uuid,
    /// The footer's MD5. `None` while the chunk is not completed.
    pub md5: Option<Md5Hash>,
}

/// Reads header and footer of a chunk file: 256 bytes in all.
///
/// # Errors
/// A file below 256 bytes, a bad header, or what the storage reports. A bad footer is a
/// [`ChunkState`], because only the caller knows whether it matters.
pub fn inspect(source: &dyn ReadAt) -> Result<ChunkFile> {
    let length = source.size();
    if length < HEADER_LENGTH + FOOTER_LENGTH {
        let found = format!("{length} bytes");
        return Err(Malformed::new("chunk file", length, "at least 256 bytes", found).into());
    }
    let footer_at = length - FOOTER_LENGTH;

    let mut bytes = [0; 128];
    source.read_exact_at(0, &mut bytes)?;
    let header = ChunkHeader::parse(&bytes)?;
    source.read_exact_at(footer_at, &mut bytes)?;

    let state = match ChunkFooter::fields(&bytes) {
        Ok(None) => ChunkState::Ongoing,
        Ok(Some(footer)) => match footer.agrees(&header, length) {
            Ok(()) => ChunkState::Completed(footer),
            Err(malformed) => ChunkState::Contradictory(malformed),
        },
        Err(malformed) => ChunkState::Contradictory(Malformed {
            offset: footer_at + malformed.offset,
            ..malformed
        }),
    };
    Ok(ChunkFile {
        header,
        length,
        state,
    })
}

impl ChunkFile {
    /// The footer of a chunk that has to be completed, as all chunks before the end of the log have
    /// to be (disk-format §6.6).
    ///
    /// # Errors
    /// The chunk is not completed, or its footer contradicts the rest.
    pub fn completed(&self) -> Result<&ChunkFooter> {
        match &self.state {
            ChunkState::Completed(footer) => Ok(footer),
            ChunkState::Contradictory(malformed) => Err(malformed.clone().into()),
            ChunkState::Ongoing => {
                let footer_at = self.length.saturating_sub(FOOTER_LENGTH);
                let expected = "a completed chunk";
                let malformed =
                    Malformed::new("chunk footer", footer_at, expected, "one that is not");
                Err(malformed.into())
            }
        }
    }

    /// The footer. Returns `None` unless the chunk is completed.
    #[must_use]
    pub const fn footer(&self) -> Option<&ChunkFooter> {
        match &self.state {
            ChunkState::Completed(footer) => Some(footer),
            ChunkState::Ongoing | ChunkState::Contradictory(_) => None,
        }
    }

    /// The bytes of the file that hold the records of a completed chunk.
    ///
    /// # Errors
    /// As [`Self::completed`], and if the data is transformed.
    pub fn completed_data(&self) -> Result<Range<u64>> {
        let physical = self.completed()?.physical;
        self.header.readable()?;
        Ok(HEADER_LENGTH..HEADER_LENGTH + physical)
    }

    /// The bytes of the file that hold the records before the writer position W. W lies in this
    /// chunk, so its footer means nothing.
    ///
    /// # Errors
    /// W outside the range, a scavenged chunk (W is unusable then, disk-format §7), transformed
    /// data, or a file that ends before W.
    pub fn data_before(&self, writer: LogPosition) -> Result<Range<u64>> {
        self.header.readable()?;
        let Some(end) = self.header.offset_of(writer) else {
            return Err(self.does_not_hold(writer).into());
        };

        if end > self.length {
            let expected = format!("{end} bytes, to hold the log up to {writer}");
            let malformed = Malformed::new("chunk file", self.length, expected, self.length);
            return Err(malformed.into());
        }
        Ok(HEADER_LENGTH..end)
    }

    fn does_not_hold(&self, writer: LogPosition) -> Malformed {
        let expected = format!("an unscavenged chunk that covers the position {writer}");
        let kind = if self.header.scavenged {
            "a scavenged one"
        } else {
            "one"
        };
        let (start, end) = (self.header.start_position(), self.header.end_position());
        let found = format!("{kind} from {start} to {end}");
        Malformed::new("chunk header", 6, expected, found)
    }

    /// Whether a plain, unscavenged chunk's file is long enough to hold the log up to `position`.
    #[must_use]
    pub fn reaches(&self, position: LogPosition) -> bool {
        match self.header.offset_of(position) {
            Some(end) => end <= self.length,
            None => false,
        }
    }

    /// What distinguishes this chunk file from others. `version` comes from the file's name.
    #[must_use]
    pub fn identity(&self, version: ChunkVersion) -> ChunkIdentity {
        ChunkIdentity {
            start: self.header.start,
            end: self.header.end,
            version,
            length: self.length,
            chunk_id: self.header.id,
            md5: self.footer().map(|footer| footer.md5),
        }
    }
}
