//! How the bytes behind a chunk's header were changed before they were written.

use serde::{Deserialize, Serialize};

/// What a chunk's data went through before it was written (disk-format §3.6).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Transform {
    /// Nothing.
    Identity,
    /// Encryption. Such a chunk can be hashed and copied, but its records cannot be read.
    AesGcm,
    /// Something that kbackup does not know.
    Other(u8),
}

impl Transform {
    pub(super) const fn of(byte: u8) -> Self {
        match byte {
            0 => Self::Identity,
            1 => Self::AesGcm,
            other => Self::Other(other),
        }
    }

    pub(super) const fn byte(self) -> u8 {
        match self {
            Self::Identity => 0,
            Self::AesGcm => 1,
            Self::Other(other) => other,
        }
    }

    /// Bytes that `data` bytes of records take in the file behind the header. Returns `None` for an
    /// unknown transform.
    ///
    /// Encrypted data (disk-format §3.6):
    ///
    /// ```text
    /// | encryption header 32 | AES header 32 | block 512 | block 512 | …
    ///                                           block = length 2, cipher text 496, tag 14
    /// ```
    pub(super) fn stored(self, data: u64) -> Option<u64> {
        const HEADERS: u64 = 64;
        const BLOCK: u64 = 512;
        const DATA_IN_BLOCK: u64 = 496;

        match self {
            Self::Identity => Some(data),
            Self::AesGcm => {
                let blocks = data.div_ceil(DATA_IN_BLOCK);
                blocks.checked_mul(BLOCK)?.checked_add(HEADERS)
            }
            Self::Other(_) => None,
        }
    }
}
