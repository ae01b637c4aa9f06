//! The fixed texts between the parts of `manifest.json`, and the limits of its parts.

use std::io;

use crate::error::{Error, Kind};
use crate::manifest::Blake3Hash;

/// The version of the manifest format that this program writes.
pub const FORMAT: u32 = 1;
/// The version that it writes if the head is longer than readers of format 1 expect. Nothing else
/// differs.
pub(super) const FORMAT_OF_LONG_HEADS: u32 = 2;

/// The longest manifest that is read. It has room for 400 000 chunks.
pub(super) const MAX_BYTES: u64 = 512 * 1024 * 1024;
/// The longest head that readers of format 1 read.
pub(super) const MAX_HEAD_BYTES_OF_FORMAT_1: usize = 16 * 1024 * 1024;
/// The longest head that is read. It has room for a million epochs, of 70 bytes each, and for
/// 400 000 damaged chunks.
pub(super) const MAX_HEAD_BYTES: usize = 128 * 1024 * 1024;
/// The longest row that is read as a line of its own.
pub(super) const MAX_ROW_BYTES: u64 = 8 * 1024;
/// Few rows are longer, so this much memory is reserved for each.
pub(super) const USUAL_ROW_BYTES: usize = 512;
/// Bytes that are read at once.
pub(super) const PIECE: usize = 64 * 1024;

/// How every manifest begins.
pub(super) const BEGIN: &str = "{\n  \"format\": ";
/// How a head without epochs shows its lineage. A JSON string holds no line break, so no other
/// place of a head looks like this.
pub(super) const NO_EPOCHS: &str = "\n    \"lineage\": []";
/// Separates the head from its checksum. A JSON string holds no line break, so no other place of a
/// manifest looks like this.
pub(super) const HEAD_SEAL: &str = ",\n  \"head_checksum\": \"";
/// Separates the checksum of the head from the rows. It ends with the bracket of their list.
pub(super) const ROWS: &str = "\",\n  \"files\": [";
/// Separates everything from the last checksum.
pub(super) const SEAL: &str = ",\n  \"checksum\": \"";
/// How every manifest ends.
pub(super) const END: &str = "\"\n}\n";

/// Digits of a checksum.
pub(super) const HASH_DIGITS: usize = 64;
/// Bytes from [`SEAL`] to the end.
pub(super) const SEAL_BYTES: usize = SEAL.len() + HASH_DIGITS + END.len();

/// Reads the digits of a checksum. Returns `None` if they are not a hash.
pub(super) fn hash(digits: &[u8]) -> Option<Blake3Hash> {
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// The error for bytes that are not a manifest, or not the manifest that was written.
pub(super) fn corrupt(why: impl Into<String>) -> Error {
    Error::new(Kind::StoredCorrupt, "the manifest is damaged").because(why.into())
}

/// The error for a manifest that the storage does not give.
pub(super) fn unreadable(error: io::Error) -> Error {
    if error.kind() == io::ErrorKind::UnexpectedEof {
        return corrupt("it ends too early");
    }
    Error::new(Kind::Failed, "cannot read the manifest").because(error)
}
