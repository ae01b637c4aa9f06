//! Blobs: bytes that are named by their content, and written once.

use std::collections::{HashMap, HashSet};
use std::io;
use std::sync::Arc;

use crate::format::ReadAt;
use crate::fs::{CopyId, Stamp};

/// The name of a blob: the BLAKE3 of its bytes, and which copy of them it is. There is a second
/// copy only if the first one turned out damaged, because a blob is never written again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct BlobId {
    content: [u8; 32],
    copy: u8,
}

impl BlobId {
    /// What tells this copy from all others.
    pub(super) fn hash(self) -> [u8; 32] {
        let mut hash = self.content;
        hash[0] ^= self.copy;
        hash
    }
}

/// The bytes of a blob, as they are stored now.
#[derive(Debug, Clone)]
pub(super) struct Blob {
    id: BlobId,
    content: Content,
}

/// Bytes that may end with a hole.
#[derive(Debug, Clone, Default)]
pub(super) struct Content {
    pub(super) bytes: Arc<Vec<u8>>,
    /// Length, with the hole at the end.
    pub(super) size: u64,
}

impl Content {
    pub(super) fn hash(&self) -> blake3::Hash {
        static ZEROS: [u8; 64 * 1024] = [0; 64 * 1024];
        let mut hasher = blake3::Hasher::new();
        hasher.update(&self.bytes);
        let mut left = self.size.saturating_sub(self.bytes.len() as u64);
        while left > 0 {
            let piece = usize::try_from(left)
                .unwrap_or(ZEROS.len())
                .min(ZEROS.len());
            hasher.update(ZEROS.get(..piece).unwrap_or_default());
            left -= piece as u64;
        }
        hasher.finalize()
    }
}

impl ReadAt for Content {
    fn size(&self) -> u64 {
        self.size
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        if offset < self.bytes.len() as u64 {
            return self.bytes.read_at(offset, buffer);
        }
        // The hole.
        let left = usize::try_from(self.size.saturating_sub(offset)).unwrap_or(usize::MAX);
        let count = left.min(buffer.len());
        buffer.get_mut(..count).unwrap_or_default().fill(0);
        Ok(count)
    }
}

impl ReadAt for Blob {
    fn size(&self) -> u64 {
        self.content.size
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        self.content.read_at(offset, buffer)
    }

    fn stamp(&self) -> Option<Stamp> {
        Some(Stamp::of_content(self.id.hash()))
    }

    fn copy_id(&self) -> Option<CopyId> {
        Some(CopyId::of_content(self.id.hash()))
    }
}

/// All blobs of a store.
#[derive(Debug, Default)]
pub(super) struct Blobs {
    stored: HashMap<BlobId, Content>,
}

impl Blobs {
    /// Stores bytes, unless they are stored and intact already. Returns the blob, and how many
    /// bytes were written.
    pub(super) fn put(&mut self, content: Content) -> (BlobId, u64) {
        let hash = content.hash();
        let mut id = BlobId {
            content: *hash.as_bytes(),
            copy: 0,
        };
        while let Some(stored) = self.stored.get(&id) {
            if stored.size == content.size && stored.hash() == hash {
                return (id, 0);
            }
            id.copy += 1;
        }

        let length = content.bytes.len() as u64;
        self.stored.insert(id, content);
        (id, length)
    }

    pub(super) fn get(&self, id: BlobId) -> Option<Blob> {
        let content = self.stored.get(&id)?.clone();
        Some(Blob { id, content })
    }

    /// How many bytes a blob takes; its hole takes none.
    pub(super) fn length(&self, id: BlobId) -> u64 {
        self.stored
            .get(&id)
            .map_or(0, |content| content.bytes.len() as u64)
    }

    /// Removes all other blobs. Returns how many bytes came free.
    pub(super) fn keep_only(&mut self, named: &HashSet<BlobId>) -> u64 {
        let mut freed = 0;
        self.stored.retain(|id, content| {
            let is_named = named.contains(id);
            if !is_named {
                freed += content.bytes.len() as u64;
            }
            is_named
        });
        freed
    }

    /// Changes stored bytes, those of the hole as well. A blob that vanishes leaves its name behind
    /// only in the heads.
    pub(super) fn damage(&mut self, id: BlobId, change: impl FnOnce(Vec<u8>) -> Option<Vec<u8>>) {
        let Some(content) = self.stored.remove(&id) else {
            return;
        };
        let mut bytes = content.bytes.to_vec();
        bytes.resize(usize::try_from(content.size).unwrap_or_default(), 0);

        if let Some(bytes) = change(bytes) {
            let size = bytes.len() as u64;
            let bytes = Arc::new(bytes);
            self.stored.insert(id, Content { bytes, size });
        }
    }
}
