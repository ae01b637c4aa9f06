//! The names of the files in the state directory that are about one node.

use super::release_record::RecordedNode;
use crate::manifest::Blake3Hash;

/// What tells a node's record from those of other nodes. Two single nodes that advertise one
/// address have different databases, or else different directories.
pub(super) fn key(node: &RecordedNode) -> String {
    let endpoint = match &node.endpoint {
        Some(endpoint) => endpoint.clone(),
        None => node.to_string(),
    };
    let database = match node.database {
        Some(database) => database.to_string(),
        None => String::new(),
    };
    let directory = match &node.directory {
        Some(directory) => directory.display().to_string(),
        None => node.to_string(),
    };

    format!("{endpoint} {database} {directory}")
}

/// The name of a node's file: readable, and different for different keys.
pub(super) fn file_name(key: &str) -> String {
    const READABLE: usize = 80;
    const DIGEST: usize = 8;

    let mut readable = String::new();
    for character in key.chars().take(READABLE) {
        let is_plain = character.is_ascii_alphanumeric() || "-.".contains(character);
        readable.push(if is_plain { character } else { '_' });
    }

    let digest = Blake3Hash::of(key.as_bytes()).to_string();
    let digest: String = digest.chars().take(DIGEST).collect();
    format!("{}-{digest}", readable.trim_start_matches('.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_files_after_nodes() {
        assert!(file_name("127.0.0.1:2113").starts_with("127.0.0.1_2113-"));
        assert_ne!(file_name("a:b"), file_name("a/b"));
        assert!(!file_name("../../etc/passwd").contains('/'));
        assert!(!file_name("..").starts_with('.'));
    }
}
