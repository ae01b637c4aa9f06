//! Reuses files of the parent. kbackup checks each file when it reuses it. If a file differs from
//! its row, kbackup reads it from the node instead.

use std::collections::HashMap;
use std::fmt::Display;
use std::io::ErrorKind;
use std::sync::{Arc, Mutex, PoisonError};

use super::captured_file::{CapturedRow, FileOrigin};
use super::working_copy::Capture;
use crate::error::{Error, Kind, Result};
use crate::event::Event;
use crate::format::chunk::{self, ChunkFile};
use crate::format::{ReadAt, bloom, ptable};
use crate::fs::Stamp;
use crate::manifest::{Blake3Hash, ChunkRow, RelativePath, Role, Row};
use crate::transfer::{hash_file, paced};

/// Reused files up to this many bytes are hashed whole.
const SMALL: u64 = 4096;
/// How many files kbackup reuses before it asks again whether the run should stop.
const REUSED_AT_ONCE: usize = 256;

/// The result of the check of a reused file.
enum ReuseCheck {
    /// The file is as its row says.
    AsStored(Option<InspectedChunk>),
    /// The file could not be reused: the parent's is gone, or found damaged already.
    Missing(Error),
    /// The file was reused and then found to differ from its row.
    Differs(Error),
}

/// Header and footer of a reused chunk, and the state of the file when they were read.
struct InspectedChunk {
    stamp: Stamp,
    file: Arc<ChunkFile>,
}

impl<'a> Capture<'a> {
    /// Keeps a file that is held already: reuses the parent's, or one that an earlier attempt has
    /// captured. Returns false if the parent's file is damaged. Then the caller reads it from the
    /// source.
    pub(in crate::backup) fn keep(&mut self, path: &RelativePath) -> Result<bool> {
        let kept = self.keep_all(std::slice::from_ref(path))?;
        Ok(kept.into_iter().all(|is_kept| is_kept))
    }

    /// As [`Self::keep`], for many files.
    pub(in crate::backup) fn keep_all(&mut self, paths: &[RelativePath]) -> Result<Vec<bool>> {
        let mut kept = Vec::with_capacity(paths.len());
        for paths in paths.chunks(REUSED_AT_ONCE) {
            self.run.check()?;
            kept.extend(self.keep_some(paths)?);
        }
        Ok(kept)
    }

    /// As [`Self::keep`], for some files.
    fn keep_some(&mut self, paths: &[RelativePath]) -> Result<Vec<bool>> {
        let mut rows = Vec::with_capacity(paths.len());
        for path in paths {
            if !self.captured.contains_key(path) {
                rows.extend(self.parent_row(path));
            }
        }
        let mut checks = self.reuse(&rows)?;

        let mut kept = Vec::with_capacity(paths.len());
        for path in paths {
            let is_kept = match checks.remove(path) {
                Some((row, check)) => self.finish_reuse(row, check)?,
                // An earlier attempt has captured it.
                None => {
                    self.want_again(path);
                    true
                }
            };
            kept.push(is_kept);
        }
        Ok(kept)
    }

    fn want_again(&mut self, path: &RelativePath) {
        if let Some(file) = self.captured.get_mut(path) {
            file.is_wanted = true;
        }
    }

    /// Reuses files of the parent, and checks each. Several at once, because a check costs no more
    /// than a few system calls.
    fn reuse(&self, rows: &[&'a Row]) -> Result<HashMap<&'a RelativePath, (&'a Row, ReuseCheck)>> {
        let looks = Mutex::new(HashMap::with_capacity(rows.len()));
        let reused = self.incoming.reuse(rows, &|row, stored| {
            let check = self.check_reused(row, stored);
            let mut looks = looks.lock().unwrap_or_else(PoisonError::into_inner);
            looks.insert(row.path.clone(), check);
        });
        let mut looks = looks.into_inner().unwrap_or_else(PoisonError::into_inner);

        let mut checks = HashMap::with_capacity(rows.len());
        for (row, reused) in rows.iter().zip(reused) {
            let check = match (reused, looks.remove(&row.path)) {
                (Ok(()), Some(check)) => check?,
                (Ok(()), None) => {
                    return Err(Error::new(
                        Kind::Failed,
                        "the repository did not show a reused file",
                    )
                    .on(&row.path));
                }
                (Err(error), _) if error.kind() == Kind::StoredCorrupt => {
                    ReuseCheck::Missing(error)
                }
                (Err(error), _) => return Err(error),
            };
            checks.insert(&row.path, (*row, check));
        }
        Ok(checks)
    }

    /// Returns whether the reused file stays in the backup.
    fn finish_reuse(&mut self, row: &'a Row, check: ReuseCheck) -> Result<bool> {
        let path = &row.path;

        match check {
            ReuseCheck::AsStored(chunk) => {
                self.run.emit(Event::Reused {
                    path: path.to_string(),
                });
                self.insert(CapturedRow::Parents(row), FileOrigin::Reused);
                if let Some(chunk) = chunk {
                    self.inspected.add(path, chunk.stamp, chunk.file);
                }
                Ok(true)
            }
            ReuseCheck::Missing(error) => {
                self.stop_reusing(path, &error);
                Ok(false)
            }
            ReuseCheck::Differs(error) => {
                self.discard_reused(path, &error)?;
                Ok(false)
            }
        }
    }

    /// Looks for damage in a file that was just reused. Small files are hashed whole. Of the
    /// others, kbackup reads header and footer. The proof reads as much later, but damage that the
    /// proof finds fails the backup, while damage found here only costs another copy.
    fn check_reused(&self, row: &Row, stored: &dyn ReadAt) -> Result<ReuseCheck> {
        self.run.check()?;
        let stamp = stored.stamp();

        let bytes;
        let stored: &dyn ReadAt = if row.size <= SMALL {
            let Some(small) = self.read_small_stored(row, stored)? else {
                return Ok(ReuseCheck::Differs(hash_differs(&row.path)));
            };
            bytes = small;
            &bytes
        } else {
            stored
        };

        let is_as_described = match row.role {
            Role::Chunk => return Ok(check_chunk(row, stored, stamp)),
            Role::Table => ptable::inspect(stored).map(|layout| Some(layout.md5) == row.table_md5),
            Role::TableFilter | Role::StreamFilter => bloom::inspect(stored).map(|_| true),
            _ => Ok(true),
        };
        Ok(match is_as_described {
            Ok(true) => ReuseCheck::AsStored(None),
            Ok(false) => ReuseCheck::Differs(described_otherwise(row)),
            Err(error) => ReuseCheck::Differs(differs(&row.path, error.to_string())),
        })
    }

    /// Reads a small stored file. Returns `None` if its bytes are not those of its row.
    fn read_small_stored(&self, row: &Row, stored: &dyn ReadAt) -> Result<Option<Vec<u8>>> {
        let mut bytes = vec![0; usize::try_from(row.size).unwrap_or_default()];
        match stored.read_exact_at(0, &mut bytes) {
            Ok(()) => self.run.pace().spend(row.size),
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(None),
            Err(error) => {
                return Err(Error::new(Kind::Failed, "cannot read")
                    .on(&row.path)
                    .because(error));
            }
        }

        if Blake3Hash::of(&bytes) != row.blake3 {
            return Ok(None);
        }
        Ok(Some(bytes))
    }

    /// Whether a stored file has the bytes of its row, on the disk and not only in the page cache.
    pub(in crate::backup) fn has_bytes_of(
        &self,
        row: &Row,
        stored: Box<dyn ReadAt>,
    ) -> Result<bool> {
        stored.drop_from_cache();
        let paced = paced(stored, self.run);
        let digest = hash_file(&*paced, false, self.run).map_err(|error| error.on(&row.path))?;
        Ok(digest.blake3 == row.blake3)
    }

    /// Hashes the reused files that `is_suspect` chooses, and removes the damaged ones, so that the
    /// next attempt reads them from the node. Returns whether there was one.
    pub(in crate::backup) fn remove_damaged_reused(
        &mut self,
        is_suspect: impl Fn(&Row) -> bool,
    ) -> Result<bool> {
        let mut suspects = Vec::new();
        for file in self.captured.values() {
            if file.origin == FileOrigin::Reused && is_suspect(&file.row) {
                suspects.push((*file.row).clone());
            }
        }

        let mut has_damaged = false;
        for row in suspects {
            let Some(stored) = self.incoming.open(&row.path)? else {
                continue;
            };
            if !self.has_bytes_of(&row, stored)? {
                has_damaged = true;
                self.discard_reused(&row.path, &hash_differs(&row.path))?;
            }
        }
        Ok(has_damaged)
    }

    /// Removes a reused file that is damaged, and reads it from the node in the next attempt.
    pub(super) fn discard_reused(&mut self, path: &RelativePath, error: &Error) -> Result<()> {
        self.remove(path)?;
        self.stop_reusing(path, error);
        Ok(())
    }

    /// Stops reusing the parent's file of this path: this run reads its bytes from the node.
    pub(in crate::backup) fn stop_reusing(&mut self, path: &RelativePath, error: &Error) {
        self.parent_rows.remove(path);
        self.damaged_in_parent.push(path.clone());
        self.run.warn(format!(
            "{error}: {}; kbackup reads it from the node again",
            error.causes().join(": ")
        ));
    }

    /// The files of the parent that turned out damaged since the last call.
    pub(in crate::backup) fn take_damaged_in_parent(&mut self) -> Vec<RelativePath> {
        std::mem::take(&mut self.damaged_in_parent)
    }
}

/// Compares header and footer of a reused chunk with its row.
fn check_chunk(row: &Row, stored: &dyn ReadAt, stamp: Option<Stamp>) -> ReuseCheck {
    let found = match chunk::inspect(stored) {
        Ok(found) => found,
        Err(error) => return ReuseCheck::Differs(differs(&row.path, error.to_string())),
    };
    if !is_chunk_of(row, &found) {
        return ReuseCheck::Differs(described_otherwise(row));
    }

    let file = Arc::new(found);
    ReuseCheck::AsStored(stamp.map(|stamp| InspectedChunk { stamp, file }))
}

fn described_otherwise(row: &Row) -> Error {
    differs(&row.path, "header and footer are not what its row says")
}

fn is_chunk_of(row: &Row, found: &ChunkFile) -> bool {
    match row.chunk {
        Some(chunk) => chunk == ChunkRow::of(found, chunk.version),
        None => false,
    }
}

/// The error for a file of an earlier backup that differs from its row.
pub(in crate::backup) fn differs(place: impl Display, why: impl Into<String>) -> Error {
    Error::new(Kind::StoredCorrupt, "a stored file is damaged")
        .on(place)
        .because(why.into())
}

fn hash_differs(place: impl Display) -> Error {
    differs(place, "the BLAKE3 differs")
}
