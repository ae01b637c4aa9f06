//! The input is a checkpoint file.

#![no_main]

use kbackup::format::checkpoint;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let position = checkpoint::position(bytes);
    match checkpoint::decode(bytes) {
        Ok(value) => {
            assert_eq!(checkpoint::encode(value), bytes);
            assert_eq!(position.is_ok(), value >= -1);
        }
        Err(_) => assert!(bytes.len() != 8 && position.is_err()),
    }
});
