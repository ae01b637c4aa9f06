//! Cuts one file into cells, and stores them.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

use super::cells::{Cell, parts_that_stay};
use super::file::{CellSource, Content, Decoded, ObjectFile};
use super::objects::{Known, Objects};
use super::sections::END_BYTES;
use super::tree_hash::TreeHash;
use crate::error::Result;
use crate::event::Event;
use crate::format::{Md5Hash, ReadAt};
use crate::manifest::Blake3Hash;
use crate::md5::{Md5, Piece};
use crate::run::Run;
use crate::transfer::{CopyFailure, Follower};

/// Bytes that are read at once.
const PIECE: u64 = 1 << 20;
static ZEROS: [u8; 64 * 1024] = [0; 64 * 1024];

/// What is known of a file before it is stored.
pub(super) struct FilePlan<'a> {
    /// How many bytes of the source belong to it.
    pub(super) length: u64,
    /// Its length. What lies beyond `length` is zeros.
    pub(super) full_length: u64,
    /// It ends with the server's MD5 of all other bytes.
    pub(super) md5: bool,
    /// Cells of other backups that may hold the same bytes.
    pub(super) known: Vec<Known<'a>>,
}

/// The bytes of a file, one after the other.
pub(super) struct Source<'a> {
    pub(super) file: &'a dyn ReadAt,
    /// Its name for an operator.
    pub(super) place: String,
    /// The file that the first bytes come from, and how many.
    pub(super) prefix: Option<(&'a ObjectFile, u64)>,
}

/// A stored file.
#[derive(Debug, Clone)]
pub(super) struct StoredFile {
    pub(super) size: u64,
    pub(super) blake3: Blake3Hash,
    /// MD5 of all but the last 16 bytes, if it was asked for.
    pub(super) md5: Option<Md5Hash>,
    pub(super) bytes: StoredBytes,
}

/// Where the bytes of a stored file are.
#[derive(Debug, Clone)]
pub(super) enum StoredBytes {
    /// In the file's row.
    InRow(Vec<u8>),
    /// In cells.
    InCells {
        first: Vec<u8>,
        last: Vec<u8>,
        cells: Arc<[Cell]>,
        /// The values of the cells, so that the file can be cut. `None` for a file that was
        /// resumed.
        tree: Option<TreeHash>,
    },
}

impl StoredFile {
    /// The file, for reading.
    pub(super) fn open(&self, objects: &Arc<Objects>) -> ObjectFile {
        self.open_with(objects, VecDeque::new())
    }

    fn open_with(&self, objects: &Arc<Objects>, at_hand: VecDeque<Decoded>) -> ObjectFile {
        let content = match &self.bytes {
            StoredBytes::InRow(data) => Content::InRow(data.clone()),
            StoredBytes::InCells {
                first, last, cells, ..
            } => {
                let cells = CellSource::Known(cells.clone());
                Content::in_cells(first.clone(), last.clone(), cells, at_hand)
            }
        };
        ObjectFile::new(objects, self.size, self.blake3, content)
    }
}

/// A file that is being stored.
pub(super) struct Upload<'a> {
    objects: &'a Arc<Objects>,
    run: &'a Run,
    plan: FilePlan<'a>,
    md5: Option<Md5>,
    tree: TreeHash,
    cells: Vec<Cell>,
    first: Vec<u8>,
    last: Vec<u8>,
    /// The last two cells: a record may begin in the one and end in the other.
    at_hand: VecDeque<Decoded>,
    /// How many bytes are stored so far.
    end: u64,
    written: u64,
}

impl<'a> Upload<'a> {
    pub(super) fn new(objects: &'a Arc<Objects>, run: &'a Run, plan: FilePlan<'a>) -> Self {
        Self {
            md5: plan.md5.then(Md5::new),
            tree: TreeHash::new(objects.cell_bytes),
            cells: Vec::new(),
            first: Vec::new(),
            last: Vec::new(),
            at_hand: VecDeque::new(),
            end: 0,
            written: 0,
            objects,
            run,
            plan,
        }
    }

    /// Goes on behind the first `count` cells of a stored file.
    pub(super) fn behind(
        mut self,
        first: &[u8],
        cells: &[Cell],
        tree: &TreeHash,
        count: u64,
    ) -> Self {
        self.end = count.saturating_mul(self.objects.cell_bytes);
        self.cells = cells
            .iter()
            .filter(|cell| cell.end() <= self.end)
            .copied()
            .collect();
        self.tree = tree.clone();
        self.tree
            .truncate(usize::try_from(count).unwrap_or(usize::MAX));
        if self.end > 0 {
            self.first = first.to_vec();
        }
        self
    }

    /// Stores the file. Returns it with the number of bytes that were written to the store.
    pub(super) fn run(
        mut self,
        source: &Source<'_>,
        mut follow: Follower<'_>,
    ) -> Result<(StoredFile, u64)> {
        if self.plan.full_length <= self.objects.row_bytes {
            return self.in_row(source, follow);
        }

        while self.end < self.plan.length {
            let length = (self.plan.length - self.end).min(self.objects.cell_bytes);
            let plain = Arc::new(self.read(source, length)?);
            self.run.check()?;
            self.cell(&plain)?;
            if let Some(follow) = &mut follow {
                let so_far = self.stored(Blake3Hash::of(b""), None);
                follow.follow(
                    &so_far.open_with(self.objects, self.at_hand.clone()),
                    self.end,
                );
            }
        }

        let objects = self.objects;
        let (stored, at_hand, written) = self.finish();
        if let Some(follow) = follow {
            follow.finish(&stored.open_with(objects, at_hand));
        }
        Ok((stored, written))
    }

    /// Takes a small file into its row.
    fn in_row(&mut self, source: &Source<'_>, follow: Follower<'_>) -> Result<(StoredFile, u64)> {
        let mut data = self.read(source, self.plan.length)?;
        data.resize(
            usize::try_from(self.plan.full_length).unwrap_or(data.len()),
            0,
        );
        self.run.check()?;

        let size = data.len() as u64;
        let blake3 = Blake3Hash::of(&data);
        let data = Arc::new(data);
        let md5 = self.md5.take().map(|mut md5| {
            let piece: Piece = data.clone();
            md5.update(&piece, 0..data.len().saturating_sub(16));
            Md5Hash(md5.finish())
        });

        let stored = StoredFile {
            size,
            blake3,
            md5,
            bytes: StoredBytes::InRow(data.to_vec()),
        };
        if let Some(follow) = follow {
            let file = stored.open(self.objects);
            follow.follow(&file, size);
            follow.finish(&file);
        }
        Ok((stored, size))
    }

    /// Reads the next `length` bytes.
    fn read(&self, source: &Source<'_>, length: u64) -> Result<Vec<u8>> {
        let length = usize::try_from(length).unwrap_or_default();
        let mut plain = vec![0; length];
        let mut filled = 0;
        while filled < length {
            self.run.check()?;
            let offset = self.end + filled as u64;
            let piece = self.run.pace().piece(PIECE.min((length - filled) as u64));
            let piece = usize::try_from(piece).unwrap_or(length);
            let room = plain.get_mut(filled..filled + piece).unwrap_or_default();

            let count = match source.file.read_once_at(offset, room) {
                Ok(0) => return Err(self.short(source, offset)),
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => {
                    let place = source.place.clone();
                    return Err(CopyFailure::Source {
                        place,
                        source: error,
                    }
                    .into());
                }
            };
            filled += count;
            self.run.pace().spend(count as u64);
            self.run.emit(Event::Progress {
                bytes: count as u64,
            });
        }

        if let Some((from, prefix)) = source.prefix {
            self.take_prefix(&mut plain, from, prefix)?;
        }
        Ok(plain)
    }

    fn short(&self, source: &Source<'_>, found: u64) -> crate::error::Error {
        CopyFailure::Short {
            place: source.place.clone(),
            wanted: self.plan.length,
            found,
        }
        .into()
    }

    /// Makes the bytes before `prefix` those of the stored file `from`. The source almost always has
    /// the same bytes, and then the names of the cells prove it without a request.
    fn take_prefix(&self, plain: &mut [u8], from: &ObjectFile, prefix: u64) -> Result<()> {
        let end = prefix.min(self.end + plain.len() as u64);
        let mut offset = self.end;
        while offset < end {
            let (bytes, name) = from.piece_at(offset, end)?;
            let begin = usize::try_from(offset - self.end).unwrap_or_default();
            let length = usize::try_from(bytes).unwrap_or_default();
            let Some(part) = plain.get_mut(begin..begin + length) else {
                break;
            };

            if name.is_none() || name != Some(self.objects.naming.name(part)) {
                from.read_exact_at(offset, part)
                    .map_err(super::file::error_of)?;
            }
            offset += bytes;
        }
        Ok(())
    }

    /// Stores the next cell.
    fn cell(&mut self, plain: &Arc<Vec<u8>>) -> Result<()> {
        let offset = self.end;
        self.end += plain.len() as u64;

        if let Some(md5) = &mut self.md5 {
            let left = self
                .plan
                .full_length
                .saturating_sub(16)
                .saturating_sub(offset);
            let count = usize::try_from(left).unwrap_or(usize::MAX).min(plain.len());
            let piece: Piece = plain.clone();
            md5.update(&piece, 0..count);
        }
        let cell_end = offset + self.objects.cell_bytes;
        self.tree.add(
            plain,
            cell_end.min(self.plan.full_length).saturating_sub(self.end),
        );

        self.store(offset, plain)?;
        self.keep_ends(plain);
        self.at_hand.push_back(Decoded {
            offset,
            plain: plain.clone(),
        });
        if self.at_hand.len() > 2 {
            self.at_hand.pop_front();
        }
        Ok(())
    }

    fn store(&mut self, offset: u64, plain: &[u8]) -> Result<()> {
        let is_full = plain.len() as u64 == self.objects.cell_bytes;
        let mut begin = offset;
        if !is_full {
            let parts = self.parts_at(offset, plain);
            begin = parts.last().map_or(offset, Cell::end);
            self.cells.extend(parts);
        }

        let from = usize::try_from(begin - offset).unwrap_or_default();
        let rest = plain.get(from..).unwrap_or_default();
        if rest.is_empty() {
            return Ok(());
        }
        let (cell, written) = self
            .objects
            .store_cell(self.run, begin, rest, &self.plan.known)?;
        self.cells.push(cell);
        self.written += written;
        Ok(())
    }

    /// The parts of an unfinished cell that the parent holds, and that stay as they are.
    fn parts_at(&self, offset: u64, plain: &[u8]) -> Vec<Cell> {
        let mut parts: Vec<Cell> = Vec::new();
        let mut end = offset;
        for known in &self.plan.known {
            let Known::OfParent(part) = known else {
                continue;
            };
            if part.offset != end {
                continue;
            }
            let range = (
                usize::try_from(part.offset - offset),
                usize::try_from(part.end() - offset),
            );
            let (Ok(from), Ok(to)) = range else {
                break;
            };
            match plain.get(from..to) {
                Some(bytes) if self.objects.naming.name(bytes) == part.name => {
                    end = part.end();
                    parts.push(**part);
                }
                _ => break,
            }
        }

        let rest = (offset + plain.len() as u64).saturating_sub(end);
        if rest > 0 {
            parts.truncate(parts_that_stay(&parts, rest));
        }
        parts
    }

    fn keep_ends(&mut self, plain: &[u8]) {
        if self.first.is_empty() {
            self.first = plain
                .get(..END_BYTES.min(plain.len()))
                .unwrap_or_default()
                .to_vec();
        }
        self.last.extend_from_slice(
            plain
                .get(plain.len().saturating_sub(END_BYTES)..)
                .unwrap_or_default(),
        );
        let surplus = self.last.len().saturating_sub(END_BYTES);
        self.last.drain(..surplus);
    }

    /// The file as far as it is stored.
    fn stored(&self, blake3: Blake3Hash, md5: Option<Md5Hash>) -> StoredFile {
        let is_whole = self.end >= self.plan.full_length;
        StoredFile {
            size: self.plan.full_length,
            blake3,
            md5,
            bytes: StoredBytes::InCells {
                first: self.first.clone(),
                // If zeros follow, the last stored bytes are not the last ones of the file.
                last: if is_whole {
                    self.last.clone()
                } else {
                    Vec::new()
                },
                cells: Arc::from(self.cells.clone()),
                tree: Some(self.tree.clone()),
            },
        }
    }

    fn finish(mut self) -> (StoredFile, VecDeque<Decoded>, u64) {
        let cells = self.end.div_ceil(self.objects.cell_bytes);
        let hashed = cells
            .saturating_mul(self.objects.cell_bytes)
            .min(self.plan.full_length);
        self.tree
            .add_zeros(self.plan.full_length.saturating_sub(hashed));

        let md5 = self.md5.take().map(|md5| self.md5_with_zeros(md5));
        let stored = self.stored(self.tree.finish(), md5);
        (stored, self.at_hand, self.written)
    }

    fn md5_with_zeros(&self, mut md5: Md5) -> Md5Hash {
        let zeros: Piece = Arc::new(Zeros);
        let mut left = self
            .plan
            .full_length
            .saturating_sub(16)
            .saturating_sub(self.end);
        while left > 0 {
            let count = usize::try_from(left)
                .unwrap_or(ZEROS.len())
                .min(ZEROS.len());
            md5.update(&zeros, 0..count);
            left -= count as u64;
        }
        Md5Hash(md5.finish())
    }
}

/// Zeros as a piece that the threads of the MD5 share.
struct Zeros;

impl AsRef<[u8]> for Zeros {
    fn as_ref(&self) -> &[u8] {
        &ZEROS
    }
}
