//! A stored file, read through its cells.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use super::cells::Cell;
use super::naming::ObjectName;
use super::objects::Objects;
use super::sections::{SectionObject, StoredRow};
use crate::error::{Error, Kind, Result};
use crate::format::ReadAt;
use crate::fs::{CopyId, Stamp};
use crate::manifest::{Blake3Hash, RelativePath};

/// A file of a backup, or of one in the making. Reading it needs no request as long as only its
/// ends are read.
pub(super) struct ObjectFile {
    objects: Arc<Objects>,
    size: u64,
    blake3: Blake3Hash,
    content: Content,
}

/// Where the bytes of a file are.
pub(super) enum Content {
    /// All of them, of a small file.
    InRow(Vec<u8>),
    /// In cells.
    InCells {
        first: Vec<u8>,
        last: Vec<u8>,
        cells: CellSource,
        /// Decoded bytes that are at hand: the cell that was read last.
        decoded: Mutex<VecDeque<Decoded>>,
    },
}

/// The cells of a file, or where to find them.
pub(super) enum CellSource {
    Known(Arc<[Cell]>),
    InSection(SectionObject, RelativePath),
    /// The row speaks of cells that no section names.
    Lost(RelativePath),
}

/// Plain bytes of a file that are in memory.
#[derive(Clone)]
pub(super) struct Decoded {
    /// Where they begin in the file.
    pub(super) offset: u64,
    pub(super) plain: Arc<Vec<u8>>,
}

impl Decoded {
    fn holds(&self, offset: u64) -> bool {
        let from = offset.checked_sub(self.offset);
        from.is_some_and(|from| from < self.plain.len() as u64)
    }
}

impl ObjectFile {
    /// A file of a listed backup. `cells` is the section that holds its cells.
    pub(super) fn of_row(
        objects: &Arc<Objects>,
        stored: StoredRow,
        cells: Option<SectionObject>,
    ) -> Self {
        let StoredRow {
            row,
            data,
            first,
            last,
        } = stored;
        let content = match (data, cells) {
            (Some(data), _) => Content::InRow(data),
            (None, Some(section)) => {
                let cells = CellSource::InSection(section, row.path.clone());
                Content::in_cells(
                    first.unwrap_or_default(),
                    last.unwrap_or_default(),
                    cells,
                    VecDeque::new(),
                )
            }
            // If the row names no bytes at all, all of them are zeros.
            (None, None) => {
                let cells = match first {
                    None => CellSource::Known(Arc::from(Vec::new())),
                    Some(_) => CellSource::Lost(row.path.clone()),
                };
                Content::in_cells(Vec::new(), Vec::new(), cells, VecDeque::new())
            }
        };
        Self::new(objects, row.size, row.blake3, content)
    }

    pub(super) fn new(
        objects: &Arc<Objects>,
        size: u64,
        blake3: Blake3Hash,
        content: Content,
    ) -> Self {
        Self {
            objects: objects.clone(),
            size,
            blake3,
            content,
        }
    }

    /// The stamp of a file with this hash.
    pub(super) fn stamp_of(blake3: &Blake3Hash) -> Stamp {
        Stamp::of_content(*blake3.as_bytes())
    }

    /// Reads bytes. `may_use_ends`: the ends of the file may come from its row.
    fn read(&self, offset: u64, buffer: &mut [u8], may_use_ends: bool) -> Result<usize> {
        // A row may lie: nothing behind the end of the file belongs to it.
        let left = usize::try_from(self.size.saturating_sub(offset)).unwrap_or(usize::MAX);
        let room = left.min(buffer.len());
        let buffer = buffer.get_mut(..room).unwrap_or_default();
        let (first, last, cells, decoded) = match &self.content {
            Content::InRow(data) => return Ok(copy_from(data, offset, buffer)),
            Content::InCells {
                first,
                last,
                cells,
                decoded,
            } => (first, last, cells, decoded),
        };

        if may_use_ends {
            let last_begins = self.size.saturating_sub(last.len() as u64);
            if offset < first.len() as u64 {
                return Ok(copy_from(first, offset, buffer));
            }
            if offset >= last_begins && !last.is_empty() {
                return Ok(copy_from(last, offset - last_begins, buffer));
            }
        }

        // Threads that read one file at once wait for each other, instead of reading a cell twice.
        let mut decoded = decoded.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(held) = decoded.iter().find(|held| held.holds(offset)) {
            return Ok(copy_from(&held.plain, offset - held.offset, buffer));
        }

        let cells = self.cells(cells)?;
        let Some(cell) = cell_at(&cells, offset) else {
            buffer.fill(0);
            return Ok(room);
        };
        let read = Decoded {
            offset: cell.offset,
            plain: Arc::new(self.objects.cell(cell)?),
        };
        let count = copy_from(&read.plain, offset - read.offset, buffer);
        decoded.clear();
        decoded.push_back(read);
        Ok(count)
    }

    /// How many bytes from `offset` on, but not beyond `end`, one cell holds, and the name of the
    /// cell if these are all its bytes.
    pub(super) fn piece_at(&self, offset: u64, end: u64) -> Result<(u64, Option<ObjectName>)> {
        let Content::InCells { cells, .. } = &self.content else {
            return Ok((end - offset, None));
        };
        let cells = self.cells(cells)?;
        let Some(cell) = cell_at(&cells, offset) else {
            return Ok((end - offset, None));
        };
        if cell.offset == offset && cell.end() <= end {
            return Ok((cell.length, Some(cell.name)));
        }
        Ok((cell.end().min(end) - offset, None))
    }

    /// The cells; none for a file in its row.
    pub(super) fn known_cells(&self) -> Result<Arc<[Cell]>> {
        match &self.content {
            Content::InRow(_) => Ok(Arc::from(Vec::new())),
            Content::InCells { cells, .. } => self.cells(cells),
        }
    }

    fn cells(&self, source: &CellSource) -> Result<Arc<[Cell]>> {
        match source {
            CellSource::Known(cells) => Ok(cells.clone()),
            CellSource::InSection(section, path) => self.objects.cells_of(section, path, self.size),
            CellSource::Lost(path) => Err(Error::new(
                Kind::StoredCorrupt,
                "the backup does not name the blobs of this file",
            )
            .on(path)),
        }
    }
}

impl Content {
    pub(super) fn in_cells(
        first: Vec<u8>,
        last: Vec<u8>,
        cells: CellSource,
        decoded: VecDeque<Decoded>,
    ) -> Self {
        Self::InCells {
            first,
            last,
            cells,
            decoded: Mutex::new(decoded),
        }
    }
}

/// The error behind an error of a read.
pub(super) fn error_of(error: io::Error) -> Error {
    match Error::passed_on(error) {
        Ok(error) => error,
        Err(error) => Error::new(Kind::StoredCorrupt, "cannot read a stored file").because(error),
    }
}

/// The cell that holds the byte at `offset`.
pub(super) fn cell_at(cells: &[Cell], offset: u64) -> Option<&Cell> {
    let behind = cells.partition_point(|cell| cell.offset <= offset);
    let cell = cells.get(behind.checked_sub(1)?)?;
    (offset < cell.end()).then_some(cell)
}

/// Copies the bytes from `offset` on, as many as there are and fit.
fn copy_from(bytes: &[u8], offset: u64, buffer: &mut [u8]) -> usize {
    let offset = usize::try_from(offset).unwrap_or(usize::MAX);
    let rest = bytes.get(offset..).unwrap_or_default();
    let count = rest.len().min(buffer.len());
    let (from, into) = (rest.get(..count), buffer.get_mut(..count));
    if let (Some(from), Some(into)) = (from, into) {
        into.copy_from_slice(from);
    }
    count
}

impl ReadAt for ObjectFile {
    fn size(&self) -> u64 {
        self.size
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        if offset >= self.size || buffer.is_empty() {
            return Ok(0);
        }
        // The error stays whole: its kind says whether the blob is damaged or the store is away.
        self.read(offset, buffer, true).map_err(io::Error::other)
    }

    /// Whoever reads the file once, from one end to the other, proves its blobs. The row says
    /// nothing about them.
    fn read_once_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        if offset >= self.size || buffer.is_empty() {
            return Ok(0);
        }
        self.read(offset, buffer, false).map_err(io::Error::other)
    }

    fn stamp(&self) -> Option<Stamp> {
        Some(Self::stamp_of(&self.blake3))
    }

    /// The blobs that hold the file. Equal bytes that are cut in another way are another copy: one of
    /// them can be damaged alone. `None` if the section that names the blobs is damaged.
    fn copy_id(&self) -> Option<CopyId> {
        let mut hasher = blake3::Hasher::new();
        match &self.content {
            Content::InRow(data) => hasher.update(data),
            Content::InCells { cells, .. } => {
                for cell in self.cells(cells).ok()?.iter() {
                    hasher.update(&cell.offset.to_le_bytes());
                    hasher.update(&cell.length.to_le_bytes());
                    hasher.update(cell.name.as_bytes());
                }
                hasher.update(&self.size.to_le_bytes())
            }
        };
        Some(CopyId::of_content(*hasher.finalize().as_bytes()))
    }
}
