//! The heads of a repository, read with few requests. The catalog holds copies of them. A copy counts
//! only while the store says that the head is still the object that was copied.

use std::collections::HashSet;

use serde::{Deserialize, Serialize};

use super::heads::{HeadObject, HeadText};
use super::layout;
use super::sealed::{self, MAX_STORED_BYTES};
use super::store::{ObjectInfo, Store};
use crate::error::{Error, Kind, Result};
use crate::manifest::{BackupKind, Blake3Hash, Label};
use crate::parallel;

/// The longest head that is copied into the catalog. A log with very many elections has longer ones,
/// and a thousand of those would make the catalog too large.
const MAX_COPIED_BYTES: u64 = 64 * 1024;

/// A head as it was found.
pub(super) struct FoundHead {
    pub(super) sequence: u64,
    /// The store's version of the object.
    pub(super) version: String,
    /// Length of the object.
    pub(super) stored: u64,
    /// BLAKE3 of the object; `None` if it could not be read.
    pub(super) hash: Option<Blake3Hash>,
    /// The backup's label, known also if the head is damaged.
    pub(super) label: Label,
    pub(super) object: Result<HeadObject>,
}

/// The catalog.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Catalog {
    heads: Vec<Copied>,
}

/// A head in the catalog.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Copied {
    sequence: u64,
    version: String,
    stored: u64,
    hash: Blake3Hash,
    label: Label,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    head: Option<HeadText>,
}

/// Every head, by sequence number. Removed backups are among them.
pub(super) fn read(store: &Store) -> Result<Vec<FoundHead>> {
    let mut there = Vec::new();
    for info in store.list(layout::HEADS)? {
        if let Some(sequence) = layout::sequence_of(&info.key) {
            there.push((sequence, info));
        }
    }

    let catalog = catalog(store)?;
    add_newer(&mut there, store, &catalog)?;
    let mut heads = parallel::map(&there, |(sequence, info)| {
        let copied = catalog.of(*sequence);
        found(store, *sequence, info, copied)
    })?;
    give_own_labels(&mut heads);
    Ok(heads)
}

/// Adds the heads that the catalog knows and that the list does not show yet: the lists of some
/// stores lag behind.
fn add_newer(there: &mut Vec<(u64, ObjectInfo)>, store: &Store, catalog: &Catalog) -> Result<()> {
    let newest = there.last().map_or(0, |(sequence, _)| *sequence);
    for copied in &catalog.heads {
        if copied.sequence <= newest {
            continue;
        }
        if let Some(info) = store.head(&layout::head(copied.sequence))? {
            there.push((copied.sequence, info));
        }
    }
    there.sort_by_key(|(sequence, _)| *sequence);
    there.dedup_by_key(|(sequence, _)| *sequence);
    Ok(())
}

/// Sees to it that a label leads to one backup. A head that cannot be read gets one that no other
/// head has: the one that was guessed may be another one's.
fn give_own_labels(heads: &mut [FoundHead]) {
    let mut taken: HashSet<Label> = HashSet::new();
    for head in &mut *heads {
        let is_backup = matches!(head.object, Ok(HeadObject::Backup(_)));
        if is_backup && !taken.insert(head.label.clone()) {
            head.object = Err(corrupt().because("another backup has its label"));
        }
    }

    for head in heads {
        if head.object.is_ok() {
            continue;
        }
        while !taken.insert(head.label.clone()) {
            head.label = head.label.a_second_later();
        }
    }
}

/// Writes the catalog for these heads. Without it the next reader needs more requests, so a failure
/// harms nothing.
pub(super) fn write(store: &Store, heads: &[FoundHead]) -> Result<()> {
    let mut catalog = Catalog::default();
    for head in heads {
        let Some(hash) = head.hash else {
            continue;
        };
        let copy = match &head.object {
            Ok(object) if head.stored <= MAX_COPIED_BYTES => Some(object.clone().into()),
            _ => None,
        };
        catalog.heads.push(Copied {
            sequence: head.sequence,
            version: head.version.clone(),
            stored: head.stored,
            hash,
            label: head.label.clone(),
            head: copy,
        });
    }
    store.put(layout::CATALOG, sealed::seal(&catalog)?.into())
}

/// The catalog. A lost or damaged one says nothing.
fn catalog(store: &Store) -> Result<Catalog> {
    let object = store.get(layout::CATALOG, MAX_STORED_BYTES)?;
    Ok(object
        .and_then(|object| sealed::unseal(&object).ok())
        .unwrap_or_default())
}

impl Catalog {
    fn of(&self, sequence: u64) -> Option<&Copied> {
        let at = self
            .heads
            .binary_search_by_key(&sequence, |copied| copied.sequence);
        self.heads.get(at.ok()?)
    }
}

/// A head, from its copy if that is a copy of the object that is there.
fn found(
    store: &Store,
    sequence: u64,
    info: &ObjectInfo,
    copied: Option<&Copied>,
) -> Result<FoundHead> {
    if let Some(copied) = copied
        && (copied.version.as_str(), copied.stored) == (info.version.to_text().as_str(), info.size)
        && let Some(text) = &copied.head
        && let Ok(object) = text.clone().try_into()
        && has_number(&object, sequence)
    {
        return Ok(FoundHead {
            sequence,
            version: copied.version.clone(),
            stored: copied.stored,
            hash: Some(copied.hash),
            label: copied.label.clone(),
            object: Ok(object),
        });
    }

    let Some(bytes) = store.get(&info.key, MAX_STORED_BYTES)? else {
        // Somebody deleted it since the listing.
        let error = Error::new(Kind::NotFound, "the backup was removed a moment ago");
        return Ok(unreadable(sequence, info, copied, error));
    };
    let object =
        HeadObject::from_bytes(&bytes).and_then(|object| match has_number(&object, sequence) {
            true => Ok(object),
            false => Err(corrupt().because("it is the manifest of another backup")),
        });
    let mut head = match object {
        Ok(object) => {
            let label = label_of(&object).clone();
            FoundHead {
                object: Ok(object),
                label,
                ..unreadable(sequence, info, copied, corrupt())
            }
        }
        Err(error) => unreadable(sequence, info, copied, error),
    };
    head.hash = Some(Blake3Hash::of(&bytes));
    if let Err(error) = head.object {
        head.object = Err(error.on(&head.label));
    }
    Ok(head)
}

/// Whether a head stands under the number that it has. A removed backup does not tell its number.
fn has_number(object: &HeadObject, sequence: u64) -> bool {
    match object {
        HeadObject::Backup(backup) => backup.head.sequence == sequence,
        HeadObject::Removed(_) => true,
    }
}

fn corrupt() -> Error {
    Error::new(Kind::StoredCorrupt, "the manifest is damaged")
}

fn unreadable(
    sequence: u64,
    info: &ObjectInfo,
    copied: Option<&Copied>,
    error: Error,
) -> FoundHead {
    // The label stands in the head. If that is damaged and has no copy, the time of the object is
    // close to it.
    let label = match copied {
        Some(copied) => copied.label.clone(),
        None => Label::new(info.modified, BackupKind::Full),
    };
    FoundHead {
        sequence,
        version: info.version.to_text(),
        stored: info.size,
        hash: None,
        label,
        object: Err(error),
    }
}

/// The label in a head.
pub(super) fn label_of(object: &HeadObject) -> &Label {
    match object {
        HeadObject::Backup(backup) => &backup.head.label,
        HeadObject::Removed(removed) => &removed.label,
    }
}

/// The head that was just written, for the catalog.
pub(super) fn written(
    sequence: u64,
    version: String,
    bytes: &[u8],
    object: HeadObject,
) -> FoundHead {
    FoundHead {
        sequence,
        version,
        stored: bytes.len() as u64,
        hash: Some(Blake3Hash::of(bytes)),
        label: label_of(&object).clone(),
        object: Ok(object),
    }
}

/// The error for a run that was slower than another one.
pub(super) fn committed_meanwhile(place: impl std::fmt::Display) -> Error {
    Error::new(Kind::Locked, "another run has committed a backup meanwhile")
        .on(place)
        .hint("run it again")
}
