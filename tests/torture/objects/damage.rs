//! Damage to each object of a small repository.

use std::collections::{BTreeMap, BTreeSet};

use kbackup::error::Kind;
use kbackup::event::Silent;
use kbackup::manifest::Label;
use kbackup::proof::Depth;
use kbackup::repository::{Compression, ObjectRepository, Repository};
use kbackup::run::Run;
use kbackup::verify::{Which, verify};

use super::{
    Objects, Restored, all_restored, assert_sound, bench, labels, restored, two_backups, verified,
};
use crate::backup::bench::Bench;
use crate::torture::{Chance, amount, seed};

#[derive(Debug, Clone)]
enum Damage {
    Flip(usize),
    Cut(usize),
    Extend,
    Delete,
    /// Another object of the repository takes its place.
    Replace(String),
    Empty,
}

impl Damage {
    fn choose(objects: &Objects, key: &str, chance: &mut Chance) -> Self {
        let length = objects[key].len();
        match chance.below(12) {
            0..5 => Self::Flip(chance.place(length * 8)),
            5 | 6 => Self::Cut(chance.place(length)),
            7 => Self::Extend,
            8 => Self::Delete,
            9 => Self::Empty,
            _ => {
                let keys: Vec<&String> = objects.keys().collect();
                // An object of the same kind is the harder case.
                let kind = key.split('/').next().unwrap_or_default();
                let same: Vec<&&String> = keys
                    .iter()
                    .filter(|other| other.starts_with(kind) && other.as_str() != key)
                    .collect();
                match same.is_empty() || chance.below(4) == 0 {
                    true => Self::Replace((*chance.of(&keys)).clone()),
                    false => Self::Replace((**chance.of(&same)).clone()),
                }
            }
        }
    }

    fn of(&self, objects: &Objects, key: &str) -> Option<Vec<u8>> {
        let mut bytes = objects[key].clone();
        match self {
            Self::Flip(bit) => bytes[bit / 8] ^= 1 << (bit % 8),
            Self::Cut(length) => bytes.truncate(*length),
            Self::Extend => bytes.extend_from_slice(b"more"),
            Self::Delete => return None,
            Self::Replace(by) => bytes.clone_from(&objects[by]),
            Self::Empty => bytes.clear(),
        }
        Some(bytes)
    }
}

struct Master {
    bench: Bench,
    objects: Objects,
    restored: BTreeMap<Label, Restored>,
    /// The keys of the blobs that the next full writes if it finds none.
    next_blobs: BTreeSet<String>,
}

impl Master {
    fn new() -> Self {
        let bench = bench();
        let objects = two_backups(&bench);
        let repository = ObjectRepository::of_objects(&objects).unwrap();
        let restored = all_restored(&bench, &repository);

        let without = objects
            .iter()
            .filter(|(key, _)| !key.starts_with("data/"))
            .map(|(key, bytes)| (key.clone(), bytes.clone()))
            .collect();
        let repository = ObjectRepository::of_objects(&without).unwrap();
        bench.full_to(&repository).unwrap();
        let next_blobs = repository.raw_objects().unwrap().into_keys();
        let next_blobs = next_blobs.filter(|key| key.starts_with("data/")).collect();
        Self {
            bench,
            objects,
            restored,
            next_blobs,
        }
    }

    /// Every command that an operator may run after the damage. Says what is wrong.
    fn examine(&self, key: &str, damage: &Damage, chance: &mut Chance) -> Result<(), String> {
        let master = ObjectRepository::of_objects(&self.objects).unwrap();
        let damaged = damage.of(&self.objects, key);
        let is_changed = damaged.as_ref() != Some(&self.objects[key]);
        master.set_raw_object(key, damaged.as_deref()).unwrap();

        let repository = match master.reopen() {
            Ok(repository) => repository,
            Err(error) => {
                let kinds = [Kind::StoredCorrupt, Kind::NotFound, Kind::Refused];
                let is_right = key == "repository" && kinds.contains(&error.kind());
                return is_right
                    .then_some(())
                    .ok_or_else(|| format!("it does not open: {error}"));
            }
        };

        let report = verified(&repository);
        let mut found_damage = false;
        for (label, expected) in &self.restored {
            let found = report.backups.iter().find(|found| found.label == *label);
            let is_named = found.is_none_or(|found| !found.findings.is_empty());
            found_damage = found_damage || is_named;
            match restored(&self.bench, &repository, label) {
                Ok(bytes) if bytes != *expected => {
                    return Err(format!("{label} restores to other bytes"));
                }
                Ok(_) => {}
                Err(error) => {
                    let kinds = [Kind::StoredCorrupt, Kind::NotFound];
                    if !kinds.contains(&error.kind()) {
                        return Err(format!("{label}: {:?} {error}", error.kind()));
                    }
                    if !is_named {
                        return Err(format!("verify misses what restore finds: {error}"));
                    }
                }
            }
        }
        let mut seen = BTreeSet::new();
        for listed in repository
            .list()
            .map_err(|error| format!("list: {error}"))?
        {
            if !seen.insert(listed.label.clone()) {
                return Err(format!("{} is listed twice", listed.label));
            }
        }
        let is_blob = key.starts_with("data/");
        if is_blob && is_changed && !found_damage {
            return Err("verify does not name the damage".to_owned());
        }
        if key == "repository" || chance.below(amount(3, 1) as u64) > 0 {
            return Ok(());
        }
        self.next_full(key, &repository)
    }

    /// The next full succeeds, is sound, and heals each blob that it needs.
    fn next_full(&self, key: &str, repository: &ObjectRepository) -> Result<(), String> {
        let summary = match self.bench.full_to(repository) {
            Ok(summary) => summary,
            // Nobody knows how high its number was, if the counter is lost at the same time.
            Err(error) => return Err(format!("the next full: {error} {:?}", error.causes())),
        };
        let report = verified(repository);
        for backup in &report.backups {
            let is_new = backup.label == summary.label;
            let is_healed = self.next_blobs.contains(key);
            if (is_new || is_healed) && !backup.findings.is_empty() {
                let (label, new) = (&backup.label, &summary.label);
                return Err(format!("{label} after {new}: {:?}", backup.findings));
            }
        }
        let bytes = restored(&self.bench, repository, &summary.label);
        bytes.map_err(|error| format!("restore of the next full: {error}"))?;
        Ok(())
    }
}

#[test]
fn any_damaged_object_is_named_and_never_restored() {
    let master = Master::new();
    let mut failures = Vec::new();
    let keys: Vec<&String> = master.objects.keys().collect();
    let samples = amount(60, 20 * keys.len());
    for sample in 0..samples {
        let seed = seed().wrapping_add(sample as u64);
        let mut chance = Chance::new(seed);
        // Blobs are many, and all alike.
        let kinds = [
            "data/",
            "sections/",
            "backups/",
            "state/",
            "catalog",
            "repository",
        ];
        let kind = *chance.of(&kinds);
        let of_kind: Vec<&&String> = keys.iter().filter(|key| key.starts_with(kind)).collect();
        let key = **chance.of(&of_kind);
        let damage = Damage::choose(&master.objects, key, &mut chance);
        if let Err(why) = master.examine(key, &damage, &mut chance) {
            failures.push(format!("seed {seed} {key} {damage:?}: {why}"));
        }
    }
    println!("{samples} damaged objects");
    let failed = failures.len();
    assert!(
        failures.is_empty(),
        "{failed} of {samples}:\n{}",
        failures.join("\n")
    );
}

/// Only the newest backup is known to be damaged, but the one before it shares its blobs.
#[test]
fn a_full_after_damage_trusts_no_blob_unread() {
    let bench = bench();
    let repository = ObjectRepository::create_in_memory().unwrap();
    bench.full_to(&repository).unwrap();
    bench.full_to(&repository).unwrap();
    let objects = repository.raw_objects().unwrap();
    for (key, bytes) in objects.iter().filter(|(key, _)| key.starts_with("data/")) {
        let mut flipped = bytes.clone();
        flipped[bytes.len() / 2] ^= 1;
        repository.set_raw_object(key, Some(&flipped)).unwrap();
    }

    let repository = repository.reopen().unwrap();
    let run = Run::new(Silent);
    let report = verify(&repository, &Which::Newest, Depth::Normal, &run).unwrap();
    assert!(!report.is_sound());
    bench.full_to(&repository).unwrap();
    assert_sound(&repository, "every blob is stored again");
}

/// The blobs of a file are stored again by a run that compresses in another way. The backups that
/// name them know the old form.
#[test]
fn a_blob_that_is_stored_again_in_another_form_is_still_proven() {
    let forms = [
        Compression::None,
        Compression::Level(1),
        Compression::Level(9),
    ];
    for (one, other) in [(0, 1), (1, 0), (1, 2)] {
        let bench = bench();
        let plain = ObjectRepository::create_in_memory().unwrap();
        let first = plain.compressing(forms[one]);
        bench.full_to(&first).unwrap();
        let expected = all_restored(&bench, &first);
        for key in first.raw_objects().unwrap().keys() {
            if key.starts_with("data/") {
                first.set_raw_object(key, None).unwrap();
            }
        }
        assert!(!verified(&first).is_sound());

        let second = plain.compressing(forms[other]);
        bench.full_to(&second).unwrap();
        let first = plain.reopen().unwrap();
        assert_sound(&first, &format!("{one} {other}"));
        for (label, bytes) in &expected {
            assert_eq!(restored(&bench, &first, label).unwrap(), *bytes);
        }
    }
}

/// An operator gets rid of a backup that is damaged, whatever of it is.
#[test]
fn a_damaged_backup_can_be_removed() {
    let bench = bench();
    let objects = two_backups(&bench);
    let run = Run::new(Silent);
    for key in objects.keys().filter(|key| key.starts_with("sections/")) {
        let repository = ObjectRepository::of_objects(&objects).unwrap();
        repository.set_raw_object(key, Some(b"damaged")).unwrap();
        let repository = repository.reopen().unwrap();
        let before = labels(&repository);
        repository.would_free(&[&before[0]]).unwrap();
        let writer = repository.writer(&run).unwrap();
        writer.remove(&before[0]).unwrap();
        drop(writer);
        assert_eq!(labels(&repository), before[1..]);
    }
}
