//! The input is a whole filter, and again the lines of the smallest one.

use kbackup::format::bloom;

const SMALLEST: usize = 10_752;

pub(crate) fn examine(bytes: &[u8]) {
    let whole = bytes.to_vec();
    if let Ok(filter) = bloom::inspect(&whole) {
        let _ = filter.check_lines();
    }

    let mut lines = vec![0; SMALLEST];
    lines[0] = 1;
    lines[8..16].copy_from_slice(&80_000_u64.to_le_bytes());
    let length = bytes.len().min(SMALLEST - 64);
    lines[64..64 + length].copy_from_slice(&bytes[..length]);
    let filter = bloom::inspect(&lines).unwrap();
    let checked = filter.check_lines().unwrap();
    assert!(checked.bad <= checked.total);
    let _ = filter.might_contain(length as u64).unwrap();
}
