//! The keys of an object repository, below the prefix of its URL (`docs/object-format.md`).

use super::naming::ObjectName;

/// The key of the repository's description.
pub(super) const DESCRIPTION: &str = "repository";
/// The key of the copies of all heads.
pub(super) const CATALOG: &str = "catalog";
/// The key under which the writer says that it writes.
pub(super) const LEASE: &str = "lease";
/// What the keys of all heads begin with.
pub(super) const HEADS: &str = "backups/";
/// What the keys of all journals begin with.
pub(super) const JOURNALS: &str = "journal/";
/// What the keys of all blobs begin with.
pub(super) const BLOBS: &str = "data/";
/// What the keys of all sections begin with.
pub(super) const SECTIONS: &str = "sections/";
/// The key of the marks of objects that are to be deleted.
pub(super) const MARKS: &str = "marks";
/// The key of the last run that deleted objects.
pub(super) const SWEEP: &str = "sweep";
/// The generation of the key that names blobs and sections. There is only one yet.
const GENERATION: u32 = 0;

/// An object that heads name, directly or through a section.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum NamedObject {
    Blob(ObjectName),
    Section(ObjectName),
}

impl NamedObject {
    /// The key.
    pub(super) fn key(&self) -> String {
        match self {
            Self::Blob(name) => blob(name),
            Self::Section(name) => section(name),
        }
    }
}

/// The object with this key. `None` for a key that kbackup did not make.
pub(super) fn object_of(key: &str) -> Option<NamedObject> {
    let (_, name) = key.rsplit_once('/')?;
    let name = name.parse().ok()?;
    let object = if key.starts_with(BLOBS) {
        NamedObject::Blob(name)
    } else {
        NamedObject::Section(name)
    };
    (object.key() == key).then_some(object)
}

/// The key of the head with this sequence number.
pub(super) fn head(sequence: u64) -> String {
    format!("{HEADS}{sequence:010}")
}

/// The sequence number in the key of a head. `None` for a key that kbackup did not make.
pub(super) fn sequence_of(key: &str) -> Option<u64> {
    let digits = key.strip_prefix(HEADS)?;
    let sequence = digits.parse().ok()?;
    (head(sequence) == key).then_some(sequence)
}

/// The key of a blob.
pub(super) fn blob(name: &ObjectName) -> String {
    named(BLOBS, name)
}

/// The key of a section.
pub(super) fn section(name: &ObjectName) -> String {
    named(SECTIONS, name)
}

fn named(kind: &str, name: &ObjectName) -> String {
    let digits = name.to_string();
    // Stores share the work between their machines by the first digits of a key.
    let first = digits.get(..2).unwrap_or_default();
    format!("{kind}{GENERATION}/{first}/{digits}")
}

/// The key of a small value.
pub(super) fn state(key: &str) -> String {
    format!("state/{key}")
}

/// What the keys of all readers of a backup begin with.
pub(super) fn readers(sequence: u64) -> String {
    format!("readers/{sequence:010}/")
}

/// The key of a part of a run's journal.
pub(super) fn journal(run: uuid::Uuid, part: u32) -> String {
    format!("{JOURNALS}{run}/{part:06}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_is_found_by_its_key_and_other_keys_are_none() {
        let name: ObjectName = "5a".repeat(32).parse().unwrap();
        for object in [NamedObject::Blob(name), NamedObject::Section(name)] {
            assert_eq!(object_of(&object.key()), Some(object));
        }
        for other in [
            format!("data/1/5a/{name}"),
            format!("data/0/5b/{name}"),
            format!("data/0/5a/{name}.tmp"),
            format!("data/0/{name}"),
            "data/README".to_owned(),
        ] {
            assert_eq!(object_of(&other), None, "{other}");
        }
    }

    #[test]
    fn heads_are_listed_in_the_order_of_their_numbers() {
        assert_eq!(head(1), "backups/0000000001");
        assert!(head(9) < head(10) && head(999_999_999) < head(1_000_000_000));
        for sequence in [0, 1, 1_234_567_890, 99_999_999_999] {
            assert_eq!(sequence_of(&head(sequence)), Some(sequence));
        }
        for other in [
            "backups/1",
            "backups/",
            "backups/000000000x",
            "state/numbers",
        ] {
            assert_eq!(sequence_of(other), None, "{other}");
        }
    }
}
