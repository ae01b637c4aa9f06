//! Marks of objects that no head names: since when, and whether the store refused to delete them.
//! `pruning` sets them, and deletes objects whose mark is old.

use std::collections::{BTreeMap, HashMap};

use serde::{Deserialize, Serialize};

use super::layout::{self, NamedObject};
use super::naming::ObjectName;
use super::sealed::{self, MAX_STORED_BYTES};
use super::store::Store;
use crate::clock::Timestamp;
use crate::error::Result;

/// So many marks make an object of less than 16 MiB. The rest is marked by the next run.
const MOST: usize = 400_000;

/// The mark of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Mark {
    /// When it was found that no head names the object, by the store's clock.
    pub(super) since: Timestamp,
    /// The store did not delete the object.
    pub(super) refused: bool,
}

/// The marks of a repository.
#[derive(Debug, Default)]
pub(super) struct Marks(HashMap<NamedObject, Mark>);

/// The marks as they are stored.
#[derive(Debug, Default, Serialize, Deserialize)]
struct MarksText {
    #[serde(default)]
    groups: Vec<MarkedGroup>,
}

/// The objects that have the same mark.
#[derive(Debug, Serialize, Deserialize)]
struct MarkedGroup {
    since: Timestamp,
    #[serde(default)]
    refused: bool,
    #[serde(default)]
    blobs: Vec<ObjectName>,
    #[serde(default)]
    sections: Vec<ObjectName>,
}

impl Marks {
    /// The marks that were set. Lost marks are set again, and then the time begins anew.
    pub(super) fn read(store: &Store) -> Result<Self> {
        let object = store.get(layout::MARKS, MAX_STORED_BYTES)?;
        let text: MarksText = object
            .and_then(|object| sealed::unseal(&object).ok())
            .unwrap_or_default();

        let mut marks = HashMap::new();
        for group in text.groups {
            let mark = Mark {
                since: group.since,
                refused: group.refused,
            };
            for name in group.blobs {
                marks.insert(NamedObject::Blob(name), mark);
            }
            for name in group.sections {
                marks.insert(NamedObject::Section(name), mark);
            }
        }
        Ok(Self(marks))
    }

    /// Keeps the marks.
    pub(super) fn write(&self, store: &Store) -> Result<()> {
        let mut groups: BTreeMap<Mark, MarkedGroup> = BTreeMap::new();
        for (object, mark) in &self.0 {
            let group = groups.entry(*mark).or_insert_with(|| MarkedGroup {
                since: mark.since,
                refused: mark.refused,
                blobs: Vec::new(),
                sections: Vec::new(),
            });
            match object {
                NamedObject::Blob(name) => group.blobs.push(*name),
                NamedObject::Section(name) => group.sections.push(*name),
            }
        }

        let text = MarksText {
            groups: groups.into_values().collect(),
        };
        store.put(layout::MARKS, sealed::seal(&text)?.into())
    }

    pub(super) fn of(&self, object: NamedObject) -> Option<Mark> {
        self.0.get(&object).copied()
    }

    pub(super) fn set(&mut self, object: NamedObject, mark: Mark) {
        if self.0.len() < MOST {
            self.0.insert(object, mark);
        }
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(feature = "faults")]
    fn marks_read_back_and_damage_counts_as_loss() {
        let store = Store::in_memory();
        assert_eq!(Marks::read(&store).unwrap().len(), 0);

        let name = |digit: &str| -> ObjectName { digit.repeat(64).parse().unwrap() };
        let mark = |second, refused| Mark {
            since: Timestamp::from_second(second).unwrap(),
            refused,
        };
        let mut marks = Marks::default();
        marks.set(NamedObject::Blob(name("1")), mark(10, false));
        marks.set(NamedObject::Section(name("1")), mark(20, false));
        marks.set(NamedObject::Blob(name("2")), mark(10, true));
        marks.write(&store).unwrap();
        assert_eq!(Marks::read(&store).unwrap().0, marks.0);

        store.put(layout::MARKS, b"damage".to_vec().into()).unwrap();
        assert_eq!(Marks::read(&store).unwrap().len(), 0);
    }
}
