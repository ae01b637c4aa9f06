//! How many bytes the removal of backups frees: those of the objects that no other backup names.

use std::collections::HashMap;

use super::heads::BackupHead;
use super::naming::ObjectName;
use super::objects::Objects;
use super::sections::SectionObject;
use crate::error::{Kind, Result};

/// Who names an object: the place of the removal that frees it, or nobody frees it.
type FreedWith = Option<usize>;

/// The bytes that come free with each of `removed`, if they are removed in this order. `kept` are
/// all other backups.
pub(super) fn bytes_freed(
    objects: &Objects,
    removed: &[&BackupHead],
    kept: &[&BackupHead],
) -> Result<Vec<u64>> {
    let mut sections: HashMap<ObjectName, (SectionObject, FreedWith, bool)> = HashMap::new();
    for (place, backup) in removed.iter().enumerate() {
        note(&mut sections, backup, Some(place));
    }
    for backup in kept {
        note(&mut sections, backup, None);
    }

    let mut freed = vec![0; removed.len()];
    let mut blobs: HashMap<ObjectName, (u64, FreedWith)> = HashMap::new();
    for (section, with, has_cells) in sections.values() {
        add(&mut freed, *with, section.stored);
        if !has_cells {
            continue;
        }
        let cells = match objects.cells(section) {
            Ok(cells) => cells,
            // Nobody knows which blobs a damaged section named. The backup can go all the same.
            Err(error) if error.kind() == Kind::StoredCorrupt => continue,
            Err(error) => return Err(error),
        };
        for cells in cells.values() {
            for cell in cells.iter() {
                let known = blobs.entry(cell.name).or_insert((cell.stored, *with));
                known.1 = later(known.1, *with);
            }
        }
    }
    for (stored, with) in blobs.values() {
        add(&mut freed, *with, *stored);
    }
    Ok(freed)
}

fn note(
    sections: &mut HashMap<ObjectName, (SectionObject, FreedWith, bool)>,
    backup: &BackupHead,
    with: FreedWith,
) {
    for group in &backup.groups {
        let rows = std::iter::once((&group.rows, false));
        let cells = group.cells.iter().flatten().map(|section| (section, true));
        for (section, has_cells) in rows.chain(cells) {
            let known = sections
                .entry(section.name)
                .or_insert((*section, with, has_cells));
            known.1 = later(known.1, with);
        }
    }
}

/// An object that two backups name comes free with the one that is removed last.
fn later(one: FreedWith, other: FreedWith) -> FreedWith {
    Some(one?.max(other?))
}

fn add(freed: &mut [u64], with: FreedWith, bytes: u64) {
    let place = with.and_then(|place| freed.get_mut(place));
    if let Some(freed) = place {
        *freed = freed.saturating_add(bytes);
    }
}
