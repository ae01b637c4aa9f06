//! Names of the server that lead to one file, by hard links. No server makes such twins. An old
//! repair did, and a copy that keeps hard links carries them on. `verify` looks for the same in
//! stored backups, and a restore makes a file of its own for each name.

use std::collections::HashMap;

use super::Gathering;
use crate::format::names::{DbFile, IndexFile};
use crate::fs::CopyId;
use crate::manifest::{FileEntry, RelativePath, Root};
use crate::proof::finding::{Finding, Severity};

impl Gathering<'_> {
    /// Reports each name that leads to the same file as a name before it.
    pub(super) fn twins(&mut self, entries: &[FileEntry]) {
        let mut first_names: HashMap<CopyId, &RelativePath> = HashMap::new();

        for entry in entries {
            let path = &entry.path;
            let Some(file) = entry.stamp.and_then(|stamp| stamp.file()) else {
                continue;
            };
            if !is_of_server(path) {
                continue;
            }

            if let Some(first) = first_names.get(&file) {
                self.tell_twins(path, first);
            } else {
                first_names.insert(file, path);
            }
        }
    }

    fn tell_twins(&mut self, path: &RelativePath, first: &RelativePath) {
        let other = self.place(first);
        let what = if is_checkpoint(path) || is_checkpoint(first) {
            format!(
                "it is one file with {other}, by a hard link: each write of the server to one of \
                 them changes both, so its next start takes one position for the other and can \
                 lose events"
            )
        } else {
            format!(
                "it is one file with {other}, by a hard link: each write of the server to one of \
                 them changes both"
            )
        };

        let place = self.place(path);
        let hint = format!(
            "while no server runs, make it a file of its own: `cp -p {place} {place}.own && mv \
             {place}.own {place}`"
        );
        self.findings.push(Finding {
            severity: Severity::Error,
            code: "file-twins",
            file: Some(place),
            what,
            consequences: Vec::new(),
            evidence: Some("disk-format §2.1"),
            hint: Some(hint),
        });
    }
}

fn is_of_server(path: &RelativePath) -> bool {
    let name = path.below_root();
    match path.root() {
        Root::Db => !matches!(DbFile::of(name), DbFile::Other),
        Root::Index => !matches!(IndexFile::of(name), IndexFile::Other),
    }
}

fn is_checkpoint(path: &RelativePath) -> bool {
    path.root() == Root::Db && matches!(DbFile::of(path.below_root()), DbFile::Checkpoint(_))
}
