//! The input is the text after the MD5. A map that can be read is encoded and read again.

use kbackup::format::indexmap::IndexMap;
use md5::{Digest, Md5};

pub(crate) fn examine(body: &[u8]) {
    let _ = IndexMap::parse(body);

    let mut bytes: Vec<u8> = Md5::digest(body)
        .iter()
        .flat_map(|byte| format!("{byte:02X}").into_bytes())
        .collect();
    bytes.extend(body);
    if let Ok(map) = IndexMap::parse(&bytes) {
        assert_eq!(IndexMap::parse(&map.encode()).unwrap(), map);
    }
}
