//! The input is a whole file.

#![no_main]

use kbackup::format::sqlite;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(header) = sqlite::inspect(&bytes.to_vec()) {
        assert!(header.pages * header.page_size <= bytes.len() as u64);
    }
});
