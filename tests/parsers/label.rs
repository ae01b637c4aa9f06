//! The input is a label, a path inside a backup, or a version of a server. A value that can be read is
//! written as it was.

use std::path::{Component, Path};

use kbackup::manifest::{Label, RelativePath};
use kbackup::server::ServerVersion;

pub(crate) fn examine(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };

    if let Ok(label) = text.parse::<Label>() {
        assert_eq!(label.as_str(), text);
        let _ = label.time();
    }

    if let Ok(path) = text.parse::<RelativePath>() {
        assert_eq!(path.to_string(), text);
        let below: Vec<_> = Path::new(text).components().collect();
        assert!(
            below.len() >= 2
                && below
                    .iter()
                    .all(|part| matches!(part, Component::Normal(_)))
        );
    }

    let _ = ServerVersion::parse(text);
}
