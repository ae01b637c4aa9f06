//! The chunk files that a server would use, with their headers and footers read.
//!
//! `selection` holds the rules by which a server chooses them (disk-format §3.8). This file opens
//! the chunks that the rules need, and answers which file holds a position.

use std::borrow::Borrow;
use std::convert::Infallible;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::SystemTime;

use super::access::{open_listed, with_place};
use super::inspected::Inspected;
use super::log_file::LogFile;
use super::selection::{ListedChunk, is_replaced, listed_chunks, select};
use crate::error::{Error, Kind, Result};
use crate::format::chunk::{self, ChunkFile};
use crate::format::names::ChunkName;
use crate::format::{self, ChunkNumber, ChunkSize, LogPosition, Malformed};
use crate::manifest::{FileEntry, FileSet, RelativePath};
use crate::parallel;
use crate::server::ServerLine;

/// The chunk files that a server would use. No file stays open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChunkSet {
    chunk_size: ChunkSize,
    used: Vec<LogFile>,
    superseded: Vec<RelativePath>,
    missing: Vec<RangeInclusive<ChunkNumber>>,
}

impl ChunkSet {
    /// Lists the chunk files of a set, and reads 256 bytes of each that a server (21.10.2 or later)
    /// would use.
    ///
    /// # Errors
    /// [`Kind::SourceCorrupt`] if there is no chunk, or if a used file has no good header, a header
    /// that contradicts its name, or another chunk size than the others; [`Kind::Unstable`] if a
    /// file vanishes meanwhile.
    pub fn read(files: &dyn FileSet) -> Result<Self> {
        Self::among(files, files.files()?, &Inspected::default())
    }

    /// As [`Self::read`], for a caller that has just listed the files and has read some of them
    /// already.
    ///
    /// # Errors
    /// As for [`Self::read`].
    pub fn among(
        files: &dyn FileSet,
        entries: impl IntoIterator<Item: Borrow<FileEntry>>,
        inspected: &Inspected,
    ) -> Result<Self> {
        let chunks = listed_chunks(entries);
        let mut read = inspect_all(files, &chunks, inspected);

        let mut used = Vec::with_capacity(chunks.len());
        let selection = select(&chunks, ServerLine::NEWEST, |index, listed| {
            // A fault counts only now. A file that no server uses may be damaged.
            let chunk = match read.get_mut(index).and_then(Option::take) {
                Some(chunk) => chunk?,
                None => inspect(files, listed, inspected)?,
            };

            let end = chunk.header.end;
            used.push(LogFile {
                path: listed.path.clone(),
                name: listed.name,
                mode: listed.mode,
                chunk,
                stamp: listed.stamp,
            });
            Ok(end)
        })?;

        let mut superseded = Vec::with_capacity(selection.superseded.len());
        for index in selection.superseded {
            if let Some(listed) = chunks.get(index) {
                superseded.push(listed.path.clone());
            }
        }

        let Some(first) = used.first() else {
            return Err(
                Error::new(Kind::SourceCorrupt, "there is no chunk in the db directory")
                    .hint("is this the node's db directory?"),
            );
        };
        let set = Self {
            chunk_size: first.header().chunk_size,
            used,
            superseded,
            missing: selection.missing,
        };

        for file in &set.used {
            with_place(files, &file.path, set.check_header(file))?;
        }
        Ok(set)
    }

    /// The set of those chunk files that could be read. They have to come in the order of their
    /// names. Files of another chunk size than the first are left out. Returns `None` if there is
    /// no file.
    pub(crate) fn of_readable(mut files: Vec<LogFile>) -> Option<Self> {
        let chunk_size = files.first()?.header().chunk_size;
        files.retain(|file| file.header().chunk_size == chunk_size);

        let listed: Vec<ListedChunk> = files.iter().map(LogFile::listed).collect();
        let selection = select(&listed, ServerLine::NEWEST, |index, chunk| {
            let file = files.get(index);
            Ok(file.map_or(chunk.name.start, LogFile::end))
        })
        .ok()?;

        let mut used = Vec::with_capacity(selection.used.len());
        let mut superseded = Vec::new();
        for (index, file) in files.into_iter().enumerate() {
            if selection.used.binary_search(&index).is_ok() {
                used.push(file);
            } else {
                superseded.push(file.path);
            }
        }

        Some(Self {
            chunk_size,
            used,
            superseded,
            missing: selection.missing,
        })
    }

    /// Whether a file's header agrees with its name and with the set.
    fn check_header(&self, file: &LogFile) -> format::Result<()> {
        let header = file.header();
        if header.start != file.name.start {
            let wanted = format!("the first chunk number {}, as in the name", file.name.start);
            return Err(Malformed::new("chunk header", 6, wanted, header.start).into());
        }

        if header.chunk_size != self.chunk_size {
            let size = self.chunk_size.get();
            let wanted = format!("the chunk size {size}, which the first chunk has");
            return Err(Malformed::new("chunk header", 2, wanted, header.chunk_size.get()).into());
        }
        Ok(())
    }

    /// Bytes of log per chunk number.
    #[must_use]
    pub fn chunk_size(&self) -> ChunkSize {
        self.chunk_size
    }

    /// The files that a server would use, in the order of the log.
    #[must_use]
    pub fn in_use(&self) -> &[LogFile] {
        &self.used
    }

    /// Remembers what was read of these files. A server may be writing to them, so only files that
    /// last changed before `since` count.
    #[must_use]
    pub fn into_inspected(self, since: SystemTime) -> Inspected {
        Inspected::of(self.used, since)
    }

    /// Files whose chunk numbers another file covers. A server deletes them at its start.
    #[must_use]
    pub fn superseded(&self) -> &[RelativePath] {
        &self.superseded
    }

    /// Chunk numbers before the last used file that no file covers.
    #[must_use]
    pub fn missing(&self) -> &[RangeInclusive<ChunkNumber>] {
        &self.missing
    }

    /// The used file that holds a chunk number.
    #[must_use]
    pub fn covering(&self, number: ChunkNumber) -> Option<&LogFile> {
        let after = self.used.partition_point(|file| file.start() <= number);
        let file = self.used.get(after.checked_sub(1)?)?;
        (file.end() >= number).then_some(file)
    }

    /// The used file whose range of the log holds a position.
    #[must_use]
    pub fn holding(&self, position: LogPosition) -> Option<&LogFile> {
        self.covering(self.chunk_size.chunk_of(position)?)
    }

    /// The used file of a path.
    #[must_use]
    pub fn file(&self, path: &RelativePath) -> Option<&LogFile> {
        let name: ChunkName = path.file_name().parse().ok()?;
        let file = self.covering(name.start)?;
        (file.path == *path).then_some(file)
    }
}

/// Reads header and footer of each file that no higher version replaces, several at once. The
/// caller reports a fault only if a server would use the file.
fn inspect_all(
    files: &dyn FileSet,
    listed: &[ListedChunk],
    inspected: &Inspected,
) -> Vec<Option<Result<Arc<ChunkFile>>>> {
    let mut wanted = Vec::with_capacity(listed.len());
    for (index, chunk) in listed.iter().enumerate() {
        wanted.push((chunk, !is_replaced(listed, index)));
    }

    let read = parallel::map(&wanted, |(chunk, is_wanted)| {
        let file = is_wanted.then(|| inspect(files, chunk, inspected));
        Ok::<_, Infallible>(file)
    });
    read.unwrap_or_default()
}

/// Reads header and footer of a file, unless an earlier reading is remembered and the file has not
/// changed since.
fn inspect(
    files: &dyn FileSet,
    chunk: &ListedChunk,
    inspected: &Inspected,
) -> Result<Arc<ChunkFile>> {
    if let Some(stamp) = chunk.stamp
        && let Some(known) = inspected.find(&chunk.path, stamp)
    {
        return Ok(Arc::clone(known));
    }

    let source = open_listed(files, &chunk.path)?;
    let file = with_place(files, &chunk.path, chunk::inspect(&*source))?;
    Ok(Arc::new(file))
}
