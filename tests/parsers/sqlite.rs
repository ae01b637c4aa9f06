//! The input is a whole file.

use kbackup::format::sqlite;

pub(crate) fn examine(bytes: &[u8]) {
    if let Ok(header) = sqlite::inspect(&bytes.to_vec()) {
        assert!(header.pages * header.page_size <= bytes.len() as u64);
    }
}
