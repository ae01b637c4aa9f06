//! The input is a checkpoint file.

use kbackup::format::checkpoint;

pub(crate) fn examine(bytes: &[u8]) {
    let position = checkpoint::position(bytes);
    match checkpoint::decode(bytes) {
        Ok(value) => {
            assert_eq!(checkpoint::encode(value), bytes);
            assert_eq!(position.is_ok(), value >= -1);
        }
        Err(_) => assert!(bytes.len() != 8 && position.is_err()),
    }
}
