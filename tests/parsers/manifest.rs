//! The input is a whole manifest, and a head and rows without their checksums. A manifest that can be
//! read is written and read again.

use kbackup::manifest::{Blake3Hash, Head, Manifest};

const ROWS: &str = "\n  \"files\": [";

pub(crate) fn examine(bytes: &[u8]) {
    let whole = bytes.to_vec();
    let head = Head::read(&whole).ok();
    if let Ok(manifest) = Manifest::read(&whole) {
        assert_eq!(Some(manifest.head), head);
    }

    let Some((head, rows)) = std::str::from_utf8(bytes)
        .ok()
        .and_then(|text| text.split_once(ROWS))
    else {
        return;
    };
    let head = head.trim_end_matches(',');
    let body = format!(
        "{head},\n  \"head_checksum\": \"{}\",{ROWS}{rows}",
        Blake3Hash::of(head.as_bytes())
    );
    let sealed = format!(
        "{body},\n  \"checksum\": \"{}\"\n}}\n",
        Blake3Hash::of(body.as_bytes())
    )
    .into_bytes();
    if let Ok(manifest) = Manifest::read(&sealed) {
        let _ = manifest.is_sound();
        for row in &manifest.files {
            assert!(row.path.under("/top".as_ref()).starts_with("/top"));
            assert_eq!(manifest.row(&row.path), Some(row));
        }
        let mut again = Vec::new();
        manifest.write(&mut again).unwrap();
        assert_eq!(Manifest::read(&again).unwrap(), manifest);
    }
}
