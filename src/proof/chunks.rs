use std::borrow::Borrow;
use std::collections::HashMap;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::SystemTime;

use crate::error::{Error, Kind, Result};
use crate::format::chunk::{self, ChunkFile};
use crate::format::names::ChunkName;
use crate::format::{ChunkNumber, ChunkSize, InContext, LogPosition, Malformed, ReadAt};
use crate::fs::Stamp;
use crate::manifest::{FileEntry, FileSet, RelativePath, Root};
use crate::parallel;
use crate::server::ServerLine;
use crate::server::facts::TRUSTS_VERSION_ZERO;

/// One chunk file of a set, known from its name, header and footer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogFile {
    /// Where it lies in the set.
    pub path: RelativePath,
    /// What its name says.
    pub name: ChunkName,
    /// Permission bits.
    pub mode: u32,
    /// What header, footer and length say.
    pub file: Arc<ChunkFile>,
    /// Its state when it was listed, where the storage tells.
    pub(super) stamp: Option<Stamp>,
}

impl LogFile {
    /// First chunk number in it.
    #[must_use]
    pub fn start(&self) -> ChunkNumber {
        self.file.header.start
    }

    /// Last chunk number in it.
    #[must_use]
    pub fn end(&self) -> ChunkNumber {
        self.file.header.end
    }

    /// Opens it.
    ///
    /// # Errors
    /// [`Kind::Unstable`] where it vanished since the set was read; what the storage reports.
    pub fn open(&self, files: &dyn FileSet) -> Result<Box<dyn ReadAt>> {
        open(files, &self.path)
    }
}

/// Opens a file that the set had a moment ago.
pub(super) fn open(files: &dyn FileSet, path: &RelativePath) -> Result<Box<dyn ReadAt>> {
    files.open(path)?.ok_or_else(|| {
        Error::new(Kind::Unstable, "the file vanished while it was looked at")
            .on(files.place_of(path))
    })
}

/// Gives what a parser says the file's name.
pub(super) fn named<T>(
    files: &dyn FileSet,
    path: &RelativePath,
    parsed: crate::format::Result<T>,
) -> Result<T> {
    match parsed {
        Ok(value) => Ok(value),
        // Where it lies is only then asked for: there may be tens of thousands.
        error => error.in_source(files.place_of(path).as_ref()),
    }
}

/// Headers and footers that were read already. A file whose state is still the same needs no second
/// look.
#[derive(Debug, Default)]
pub struct Inspected {
    /// In the order of their paths, which is nearly always the order in which they come.
    files: Vec<Known>,
    /// What changed at this time or later is looked at again, as it may have changed twice at the
    /// same time.
    since: Option<SystemTime>,
}

impl Inspected {
    /// What a set has shown of files that others may write to, and of which only those count that
    /// had not changed since before `since`.
    #[must_use]
    pub fn of(set: ChunkSet, since: SystemTime) -> Self {
        let known = |LogFile {
                         path, file, stamp, ..
                     }: LogFile| {
            Some(Known {
                path,
                stamp: stamp?,
                file,
            })
        };
        let mut files: Vec<Known> = set.used.into_iter().filter_map(known).collect();
        files.sort_by(|one, other| one.path.cmp(&other.path));
        Self {
            files,
            since: Some(since),
        }
    }

    /// Adds a file that was read in this state.
    pub fn add(&mut self, path: &RelativePath, stamp: Stamp, file: Arc<ChunkFile>) {
        let known = Known {
            path: path.clone(),
            stamp,
            file,
        };
        if self.files.last().is_none_or(|last| last.path < *path) {
            return self.files.push(known);
        }
        match self.files.binary_search_by(|file| file.path.cmp(path)) {
            Ok(index) => self.files.splice(index..=index, [known]),
            Err(index) => self.files.splice(index..index, [known]),
        };
    }

    /// The state in which a file was read.
    #[must_use]
    pub fn stamp(&self, path: &RelativePath) -> Option<Stamp> {
        self.known(path).map(|known| known.stamp)
    }

    fn known(&self, path: &RelativePath) -> Option<&Known> {
        self.files.get(
            self.files
                .binary_search_by(|file| file.path.cmp(path))
                .ok()?,
        )
    }

    fn find(&self, path: &RelativePath, stamp: Stamp) -> Option<&Arc<ChunkFile>> {
        let known = self.known(path)?;
        (known.stamp == stamp && self.since.is_none_or(|since| stamp.is_before(since)))
            .then_some(&known.file)
    }
}

/// A file that was read, and its state then.
#[derive(Debug)]
struct Known {
    path: RelativePath,
    stamp: Stamp,
    file: Arc<ChunkFile>,
}

/// The chunk files that a server would use, as it finds them by their names and headers
/// (disk-format §3.8). No file stays open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChunkSet {
    chunk_size: ChunkSize,
    used: Vec<LogFile>,
    superseded: Vec<RelativePath>,
    missing: Vec<RangeInclusive<ChunkNumber>>,
}

impl ChunkSet {
    /// Lists the chunk files of a set and reads 256 bytes of each that a server (21.10.2 or later)
    /// would use.
    ///
    /// # Errors
    /// [`Kind::SourceCorrupt`] where there is no chunk, or a used file has no good header, a header
    /// that contradicts its name, or another chunk size than the others; [`Kind::Unstable`] where a
    /// file vanishes meanwhile; what the storage reports.
    pub fn read(files: &dyn FileSet) -> Result<Self> {
        Self::among(files, files.files()?, &Inspected::default())
    }

    /// As [`Self::read`], of files that were listed a moment ago, and of which some were read
    /// already.
    ///
    /// # Errors
    /// As for [`Self::read`].
    pub fn among(
        files: &dyn FileSet,
        entries: impl IntoIterator<Item: Borrow<FileEntry>>,
        inspected: &Inspected,
    ) -> Result<Self> {
        let names = names_of(entries);
        let mut read = inspect_all(files, &names, inspected);
        let mut used = Vec::with_capacity(names.len());
        let selection = select(&names, ServerLine::NEWEST, |index, listed| {
            // Only what a server would use has to be good.
            let file = match read.get_mut(index).and_then(Option::take) {
                Some(file) => file?,
                None => inspect(files, listed, inspected)?,
            };
            let end = file.header.end;
            used.push(LogFile {
                path: listed.path.clone(),
                name: listed.name,
                mode: listed.mode,
                file,
                stamp: listed.stamp,
            });
            Ok(end)
        })?;
        let superseded = selection
            .superseded
            .into_iter()
            .filter_map(|index| names.get(index))
            .map(|listed| listed.path.clone())
            .collect();
        let chunk_size = used
            .first()
            .map(|first| first.file.header.chunk_size)
            .ok_or_else(|| {
                Error::new(Kind::SourceCorrupt, "there is no chunk in the db directory")
                    .hint("is this the node's db directory?")
            })?;
        let set = Self {
            chunk_size,
            used,
            superseded,
            missing: selection.missing,
        };
        for file in &set.used {
            named(files, &file.path, set.agrees(file))?;
        }
        Ok(set)
    }

    /// The set of the files that could be read, in the order of their names; none without any.
    /// Files of another chunk size than the first are left out.
    pub(super) fn of_readable(files: Vec<LogFile>) -> Option<Self> {
        let chunk_size = files.first()?.file.header.chunk_size;
        let files: Vec<LogFile> = files
            .into_iter()
            .filter(|file| file.file.header.chunk_size == chunk_size)
            .collect();
        let listed = |file: &LogFile| Listed {
            path: file.path.clone(),
            name: file.name,
            mode: file.mode,
            stamp: file.stamp,
        };
        let names: Vec<Listed> = files.iter().map(listed).collect();
        let ends: HashMap<ChunkName, ChunkNumber> =
            files.iter().map(|file| (file.name, file.end())).collect();
        let selection = select(&names, ServerLine::NEWEST, |_, listed| {
            Ok(ends.get(&listed.name).copied().unwrap_or(listed.name.start))
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

    fn agrees(&self, file: &LogFile) -> crate::format::Result<()> {
        let header = &file.file.header;
        if header.start != file.name.start {
            let wanted = format!("the first chunk number {}, as in the name", file.name.start);
            return Err(Malformed::new("chunk header", 6, wanted, header.start).into());
        }
        if header.chunk_size != self.chunk_size {
            let wanted = format!(
                "the chunk size {}, which the first chunk has",
                self.chunk_size.get()
            );
            return Err(Malformed::new("chunk header", 2, wanted, header.chunk_size.get()).into());
        }
        Ok(())
    }

    /// Bytes of log per chunk number.
    #[must_use]
    pub fn chunk_size(&self) -> ChunkSize {
        self.chunk_size
    }

    /// The files a server would use, in the order of the log.
    #[must_use]
    pub fn in_use(&self) -> &[LogFile] {
        &self.used
    }

    /// Files that are covered by another one: a server deletes them at its start.
    #[must_use]
    pub fn superseded(&self) -> &[RelativePath] {
        &self.superseded
    }

    /// Chunk numbers below the last used file's that no file covers.
    #[must_use]
    pub fn missing(&self) -> &[RangeInclusive<ChunkNumber>] {
        &self.missing
    }

    /// The used file that holds a chunk number.
    #[must_use]
    pub fn covering(&self, number: ChunkNumber) -> Option<&LogFile> {
        let after = self.used.partition_point(|file| file.start() <= number);
        self.used
            .get(after.checked_sub(1)?)
            .filter(|file| file.end() >= number)
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
        self.covering(name.start).filter(|file| file.path == *path)
    }
}

/// A chunk file's name in a set.
#[derive(Debug, Clone)]
pub(super) struct Listed {
    pub(super) path: RelativePath,
    pub(super) name: ChunkName,
    pub(super) mode: u32,
    pub(super) stamp: Option<Stamp>,
}

/// Reads the files that no name replaces, several at once. What is wrong with one is told only
/// where it is used.
fn inspect_all(
    files: &dyn FileSet,
    names: &[Listed],
    inspected: &Inspected,
) -> Vec<Option<Result<Arc<ChunkFile>>>> {
    let replaced = names
        .iter()
        .zip(names.iter().skip(1))
        .map(|(one, next)| one.name.start == next.name.start)
        .chain([false]);
    let numbered: Vec<(&Listed, bool)> = names.iter().zip(replaced).collect();
    let read = parallel::map(&numbered, |(listed, replaced)| {
        Ok::<_, std::convert::Infallible>((!replaced).then(|| inspect(files, listed, inspected)))
    });
    read.unwrap_or_default()
}

fn inspect(files: &dyn FileSet, listed: &Listed, inspected: &Inspected) -> Result<Arc<ChunkFile>> {
    if let Some(known) = listed
        .stamp
        .and_then(|stamp| inspected.find(&listed.path, stamp))
    {
        return Ok(Arc::clone(known));
    }
    let source = open(files, &listed.path)?;
    source.expect_pieces();
    named(files, &listed.path, chunk::inspect(&*source)).map(Arc::new)
}

/// The chunk files of a set in the server's order: by number, then version.
pub(super) fn names_of(entries: impl IntoIterator<Item: Borrow<FileEntry>>) -> Vec<Listed> {
    let listed = |entry: &FileEntry| {
        let name = entry
            .path
            .below_root()
            .parse()
            .ok()
            .filter(|_| entry.path.root() == Root::Db)?;
        Some(Listed {
            path: entry.path.clone(),
            name,
            mode: entry.mode,
            stamp: entry.stamp,
        })
    };
    let mut names: Vec<Listed> = entries
        .into_iter()
        .filter_map(|entry| listed(entry.borrow()))
        .collect();
    names.sort_by_key(|listed| listed.name);
    names
}

/// Which of the sorted names a server uses (disk-format §3.8).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Selection {
    /// Indices of the files used.
    pub(super) used: Vec<usize>,
    /// Indices of files that others cover.
    pub(super) superseded: Vec<usize>,
    /// Numbers that nothing covers, below the last used file.
    pub(super) missing: Vec<RangeInclusive<ChunkNumber>>,
}

/// Walks the sorted names as servers of `line` do. `end_of` tells the last chunk number in a file's
/// header; it is asked once for each file used, with its index.
pub(super) fn select(
    names: &[Listed],
    line: ServerLine,
    mut end_of: impl FnMut(usize, &Listed) -> Result<ChunkNumber>,
) -> Result<Selection> {
    let mut selection = Selection {
        used: Vec::new(),
        superseded: Vec::new(),
        missing: Vec::new(),
    };
    let mut expected = 0;
    let mut rest = names.iter().enumerate().peekable();
    while let Some((index, listed)) = rest.next() {
        let start = listed.name.start.0;
        let replaced = rest
            .peek()
            .is_some_and(|(_, next)| next.name.start == listed.name.start);
        if start < expected || replaced {
            selection.superseded.push(index);
            continue;
        }
        if start > expected {
            selection
                .missing
                .push(ChunkNumber(expected)..=ChunkNumber(start - 1));
        }
        selection.used.push(index);
        let end = end_of(index, listed)?.0.max(start);
        let last = if line.has(TRUSTS_VERSION_ZERO) && listed.name.version.0 == 0 {
            start
        } else {
            end
        };
        expected = last.saturating_add(1);
    }
    Ok(selection)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listed(name: &str) -> Listed {
        Listed {
            path: RelativePath::new(Root::Db, name).unwrap(),
            name: name.parse().unwrap(),
            mode: 0o444,
            stamp: None,
        }
    }

    /// Files with the last chunk number of their headers.
    fn selected(
        files: &[(&str, u32)],
        line: ServerLine,
    ) -> (Vec<String>, Vec<String>, Vec<RangeInclusive<u32>>) {
        let names: Vec<Listed> = files.iter().map(|(name, _)| listed(name)).collect();
        let end_of = |_: usize, listed: &Listed| {
            Ok(ChunkNumber(
                files
                    .iter()
                    .find(|(name, _)| *name == listed.path.below_root())
                    .unwrap()
                    .1,
            ))
        };
        let selection = select(&names, line, end_of).unwrap();
        let text = |indices: Vec<usize>| {
            indices
                .into_iter()
                .map(|index| files[index].0.to_owned())
                .collect()
        };
        let missing = selection
            .missing
            .into_iter()
            .map(|range| range.start().0..=range.end().0)
            .collect();
        (text(selection.used), text(selection.superseded), missing)
    }

    #[test]
    fn the_highest_version_wins_and_merged_files_cover_their_range() {
        let files = [
            ("chunk-000000.000001", 0),
            ("chunk-000000.000002", 2),
            ("chunk-000001.000000", 1),
            ("chunk-000002.000001", 2),
            ("chunk-000003.000000", 3),
            ("chunk-000006.000000", 6),
        ];
        let (used, superseded, missing) = selected(&files, ServerLine::V26_1);
        assert_eq!(
            used,
            [
                "chunk-000000.000002",
                "chunk-000003.000000",
                "chunk-000006.000000"
            ]
        );
        assert_eq!(
            superseded,
            [
                "chunk-000000.000001",
                "chunk-000001.000000",
                "chunk-000002.000001"
            ]
        );
        assert_eq!(missing, [4..=5]);
    }

    #[test]
    fn a_merged_file_of_version_zero_counts_once_from_21_10_on() {
        let files = [("chunk-000000.000000", 2), ("chunk-000003.000000", 3)];
        assert_eq!(selected(&files, ServerLine::V20_10).2, []);
        assert_eq!(selected(&files, ServerLine::V21_10).2, [1..=2]);
    }

    proptest::proptest! {
        #[test]
        fn every_number_is_covered_once_or_missing(files in proptest::collection::btree_map(0_u32..20, (0_u32..4, 0_u32..3), 1..12)) {
            let text: Vec<(String, u32)> = files
                .iter()
                .map(|(start, (length, version))| (format!("chunk-{start:06}.{version:06}"), start + if *version == 0 { 0 } else { *length }))
                .collect();
            let borrowed: Vec<(&str, u32)> = text.iter().map(|(name, end)| (name.as_str(), *end)).collect();
            let (used, superseded, missing) = selected(&borrowed, ServerLine::V26_1);
            assert_eq!(used.len() + superseded.len(), files.len());
            let mut numbers: Vec<u32> = missing.into_iter().flatten().collect();
            for name in &used {
                let start: u32 = name.get(6..12).unwrap().parse().unwrap();
                let end = borrowed.iter().find(|(other, _)| other == name).unwrap().1;
                numbers.extend(start..=end);
            }
            numbers.sort_unstable();
            let last = *numbers.last().unwrap();
            assert_eq!(numbers, (0..=last).collect::<Vec<_>>());
        }
    }
}
