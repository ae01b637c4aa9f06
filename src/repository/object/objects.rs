//! The blobs and sections of a repository: their names, their encoding, and the store that holds
//! them.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use super::cells::Cell;
use super::compression::Compression;
use super::encoding::{self, Encoding};
use super::layout;
use super::naming::{NamingKey, ObjectName, damaged};
use super::sections::{self, CellsByPath, MAX_HOLE, SectionObject, StoredRow};
use super::store::{Created, Store};
use crate::error::{Error, Kind, Result};
use crate::manifest::{Blake3Hash, RelativePath};
use crate::run::Run;

/// The longest plain text of a section that is read.
const MAX_SECTION_BYTES: u64 = 128 << 20;
/// What an object may be longer than its plain bytes. zstd adds less.
const SLACK: u64 = 1 << 20;
/// zstd's level for sections.
const SECTION_LEVEL: i32 = 3;
/// How many bytes of sections stay in memory as they are stored. A diff reads the rows of its parent
/// twice.
const KEPT_SECTION_BYTES: u64 = 16 << 20;
/// How many sections of cells stay in memory.
const KEPT_CELLS: usize = 2;

/// Names, encodes and stores the blobs and sections of one repository.
pub(super) struct Objects {
    pub(super) store: Store,
    pub(super) naming: NamingKey,
    /// Length of a cell, a power of two.
    pub(super) cell_bytes: u64,
    /// Files of at most this many bytes stand in their row.
    pub(super) row_bytes: u64,
    pub(super) compression: Compression,
    kept: Mutex<Kept>,
}

/// Sections that were read or written before.
#[derive(Default)]
struct Kept {
    stored: VecDeque<(SectionObject, Arc<Vec<u8>>)>,
    cells: VecDeque<(SectionObject, Arc<CellsByPath>)>,
}

/// A blob of another backup that may hold the bytes.
#[derive(Debug, Clone, Copy)]
pub(super) enum Known<'a> {
    /// The parent names it, and nobody removes what the parent of a running backup names.
    OfParent(&'a Cell),
    /// Another backup names it. It is looked at before it is used.
    OfAnother(&'a Cell),
    /// A backup names it that is damaged somewhere. It is read before it is used.
    Suspect(&'a Cell),
}

impl Known<'_> {
    pub(super) fn cell(&self) -> &Cell {
        match self {
            Self::OfParent(cell) | Self::OfAnother(cell) | Self::Suspect(cell) => cell,
        }
    }
}

impl Objects {
    pub(super) fn new(
        store: Store,
        naming: NamingKey,
        (cell_bytes, row_bytes): (u64, u64),
        compression: Compression,
    ) -> Self {
        Self {
            store,
            naming,
            cell_bytes,
            row_bytes,
            compression,
            kept: Mutex::default(),
        }
    }

    /// The plain bytes of a cell, proven by their name.
    ///
    /// # Errors
    /// `StoredCorrupt` if the blob is gone or damaged.
    pub(super) fn cell(&self, cell: &Cell) -> Result<Vec<u8>> {
        let key = layout::blob(&cell.name);
        let place = || self.place_of(&key);
        let length = usize::try_from(cell.length)
            .ok()
            .filter(|_| cell.length <= self.cell_bytes);
        let Some(length) = length else {
            return Err(damaged(
                place(),
                format!("no cell has {} bytes", cell.length),
            ));
        };

        let Some(stored) = self.store.get(&key, self.cell_bytes + SLACK)? else {
            return Err(damaged(place(), "it is gone"));
        };
        match self.decoded(cell.name, length, stored) {
            Some((_, plain)) => Ok(plain),
            None => Err(damaged(place(), "its bytes are not those of its name")),
        }
    }

    /// The plain bytes of a blob, and the form in which it holds them. That need not be the form in
    /// which the blob was stored first: a run that finds it damaged stores it again, and may compress
    /// in another way. The name proves the bytes in any form. `None` if the bytes are others.
    fn decoded(
        &self,
        name: ObjectName,
        length: usize,
        stored: Vec<u8>,
    ) -> Option<(Encoding, Vec<u8>)> {
        if stored.len() == length && self.naming.name(&stored) == name {
            return Some((Encoding::Plain, stored));
        }
        let plain = encoding::decode(Encoding::Zstd, stored, length).ok()?;
        (self.naming.name(&plain) == name).then_some((Encoding::Zstd, plain))
    }

    /// Whether the stored bytes of a blob are those that were stored. Decodes them only if they are
    /// others: then the blob may have been stored again in another form.
    ///
    /// # Errors
    /// `StoredCorrupt` if they are not.
    pub(super) fn check_stored(&self, cell: &Cell) -> Result<()> {
        let key = layout::blob(&cell.name);
        let Some(stored) = self.store.get(&key, self.cell_bytes + SLACK)? else {
            return Err(damaged(self.place_of(&key), "it is gone"));
        };
        if Blake3Hash::of(&stored) == cell.hash || self.as_found(cell, stored).is_some() {
            return Ok(());
        }
        Err(damaged(
            self.place_of(&key),
            "its bytes are not those that were stored: the BLAKE3 differs",
        ))
    }

    /// Stores the bytes of a cell, unless a blob holds them already. Returns the cell and how many
    /// bytes were written. Ends when the run is told to end, also in the middle of a request.
    pub(super) fn store_cell(
        &self,
        run: &Run,
        offset: u64,
        plain: &[u8],
        known: &[Known<'_>],
    ) -> Result<(Cell, u64)> {
        let name = self.naming.name(plain);
        for known in known {
            if known.cell().name == name && self.can_use(known)? {
                let cell = Cell {
                    offset,
                    ..*known.cell()
                };
                return Ok((cell, 0));
            }
        }

        let (encoding, stored) = self.compression.encode(plain)?;
        let cell = Cell {
            offset,
            length: plain.len() as u64,
            name,
            stored: stored.len() as u64,
            hash: Blake3Hash::of(&stored),
            encoding,
        };
        self.create_blob(&self.store.for_run(run), cell, stored.into())
    }

    fn can_use(&self, known: &Known<'_>) -> Result<bool> {
        match known {
            Known::OfParent(_) => Ok(true),
            Known::OfAnother(cell) => {
                let found = self.store.head(&layout::blob(&cell.name))?;
                Ok(found.is_some_and(|found| found.size == cell.stored))
            }
            Known::Suspect(cell) => match self.cell(cell) {
                Ok(_) => Ok(true),
                Err(error) if error.kind() == Kind::StoredCorrupt => Ok(false),
                Err(error) => Err(error),
            },
        }
    }

    /// Makes a blob. If its name is taken, the blob that has it is proven, and used if it is good.
    fn create_blob(&self, store: &Store, cell: Cell, stored: Bytes) -> Result<(Cell, u64)> {
        let key = layout::blob(&cell.name);
        let written = cell.stored;
        // Only a full cell stays as it is for long.
        let created = match cell.length == self.cell_bytes {
            true => store.create_in_class(&key, stored.clone())?,
            false => store.create(&key, stored.clone())?,
        };
        if created == Created::New {
            return Ok((cell, written));
        }

        // A marked blob is used like any other: from the commit on, a head names it.
        if let Some(found) = store.get(&key, self.cell_bytes + SLACK)?
            && let Some(found) = self.as_found(&cell, found)
        {
            return Ok((found, 0));
        }
        // Otherwise the blob is damaged. These bytes have its name, so every backup that names it is
        // mended.
        store.put(&key, stored)?;
        Ok((cell, written))
    }

    /// The cell with the blob that is there. `None` if that blob does not hold the cell's bytes.
    fn as_found(&self, cell: &Cell, found: Vec<u8>) -> Option<Cell> {
        let length = usize::try_from(cell.length)
            .ok()
            .filter(|_| cell.length <= self.cell_bytes)?;
        let (stored, hash) = (found.len() as u64, Blake3Hash::of(&found));
        let (encoding, _) = self.decoded(cell.name, length, found)?;
        Some(Cell {
            stored,
            hash,
            encoding,
            ..*cell
        })
    }

    /// Stores a blob again whose stored bytes are lost. `plain` must be the bytes of the cell.
    pub(super) fn mend(&self, cell: &Cell, plain: &[u8]) -> Result<()> {
        let key = layout::blob(&cell.name);
        let stored = match cell.encoding {
            Encoding::Plain => plain.to_vec(),
            Encoding::Zstd => self.compression.encode(plain)?.1,
        };
        self.store.put(&key, stored.into())
    }

    /// Stores the text of a section, unless it is stored already. Returns it with the number of
    /// bytes that were written.
    pub(super) fn store_section(&self, text: &[u8]) -> Result<(SectionObject, u64)> {
        let name = self.naming.name(text);
        let key = layout::section(&name);
        let mut stored = zstd::bulk::compress(text, SECTION_LEVEL)
            .map_err(|error| Error::new(Kind::Failed, "cannot compress").because(error))?;

        let mut written = stored.len() as u64;
        if self.store.create(&key, stored.clone().into())? == Created::Exists {
            // Another program may have compressed it in another way.
            match self.store.get(&key, MAX_SECTION_BYTES)? {
                Some(found) if text_of(&found, text.len()).as_deref() == Ok(text) => {
                    stored = found;
                    written = 0;
                }
                _ => self.store.put(&key, stored.clone().into())?,
            }
        }

        let section = SectionObject {
            name,
            size: text.len() as u64,
            stored: stored.len() as u64,
            hash: Blake3Hash::of(&stored),
        };
        self.keep(section, Arc::new(stored));
        Ok((section, written))
    }

    /// The rows of a section.
    ///
    /// # Errors
    /// `StoredCorrupt` if the section is gone or damaged.
    pub(super) fn rows(&self, section: &SectionObject) -> Result<Vec<StoredRow>> {
        let text = self.section(section)?;
        sections::rows_of(&text)
            .map_err(|why| damaged(self.place_of(&layout::section(&section.name)), why))
    }

    /// The cells of the files of a section.
    ///
    /// # Errors
    /// As for [`Self::rows`].
    pub(super) fn cells(&self, section: &SectionObject) -> Result<Arc<CellsByPath>> {
        for (kept, cells) in &self.kept().cells {
            if kept == section {
                return Ok(cells.clone());
            }
        }

        let text = self.section(section)?;
        let cells = sections::cells_of(&text)
            .map_err(|why| damaged(self.place_of(&layout::section(&section.name)), why))?;
        let cells = Arc::new(cells);

        let mut kept = self.kept();
        kept.cells.push_back((*section, cells.clone()));
        if kept.cells.len() > KEPT_CELLS {
            kept.cells.pop_front();
        }
        Ok(cells)
    }

    /// The cells of one file.
    ///
    /// # Errors
    /// As for [`Self::rows`]; `StoredCorrupt` if the section does not name the file, or names cells
    /// that a file of `size` bytes cannot have.
    pub(super) fn cells_of(
        &self,
        section: &SectionObject,
        path: &RelativePath,
        size: u64,
    ) -> Result<Arc<[Cell]>> {
        let place = || self.place_of(&layout::section(&section.name));
        let cells = self.cells(section)?;
        let Some(cells) = cells.get(path) else {
            return Err(damaged(place(), format!("it has no cells of {path}")));
        };

        let end = cells.last().map_or(0, Cell::end);
        if end > size || size - end > MAX_HOLE {
            let why = format!("the cells of {path} hold {end} bytes, and its row says {size}");
            return Err(damaged(place(), why));
        }
        Ok(cells.clone())
    }

    /// The proven text of a section.
    fn section(&self, section: &SectionObject) -> Result<Vec<u8>> {
        let key = layout::section(&section.name);
        let place = || self.place_of(&key);
        let size = usize::try_from(section.size)
            .ok()
            .filter(|_| section.size <= MAX_SECTION_BYTES);
        let Some(size) = size else {
            return Err(damaged(
                place(),
                format!("no section has {} bytes", section.size),
            ));
        };

        let stored = match self.kept_section(section) {
            Some(stored) => stored,
            None => match self.store.get(&key, MAX_SECTION_BYTES)? {
                Some(stored) => Arc::new(stored),
                None => return Err(damaged(place(), "it is gone")),
            },
        };
        let text = text_of(&stored, size).map_err(|why| damaged(place(), why))?;
        if self.naming.name(&text) != section.name {
            return Err(damaged(place(), "its text is not that of its name"));
        }
        self.keep(*section, stored);
        Ok(text)
    }

    fn kept_section(&self, section: &SectionObject) -> Option<Arc<Vec<u8>>> {
        for (kept, stored) in &self.kept().stored {
            if kept == section {
                return Some(stored.clone());
            }
        }
        None
    }

    fn keep(&self, section: SectionObject, stored: Arc<Vec<u8>>) {
        let mut kept = self.kept();
        if kept.stored.iter().any(|(known, _)| *known == section) {
            return;
        }

        kept.stored.push_back((section, stored));
        let mut bytes: u64 = 0;
        for (section, _) in &kept.stored {
            bytes = bytes.saturating_add(section.stored);
        }
        while bytes > KEPT_SECTION_BYTES
            && let Some((oldest, _)) = kept.stored.pop_front()
        {
            bytes = bytes.saturating_sub(oldest.stored);
        }
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The name of an object for an operator.
    pub(super) fn place_of(&self, key: &str) -> String {
        format!("{}/{key}", self.store.place().trim_end_matches('/'))
    }
}

/// The plain text of a section. The error is why the object does not hold `size` bytes of text.
fn text_of(stored: &[u8], size: usize) -> std::result::Result<Vec<u8>, String> {
    let text = zstd::bulk::decompress(stored, size).map_err(|error| error.to_string())?;
    if text.len() == size {
        return Ok(text);
    }
    Err(format!("it holds {} bytes, not {size}", text.len()))
}
