//! Object repositories whose store, network or neighbours do the worst. Faults happen between kbackup
//! and a store in memory, or end the executable over a directory.

#![expect(clippy::unwrap_used, reason = "a test may end in a panic")]

mod damage;
mod executable;
mod hostile;
mod neighbours;
mod requests;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use kbackup::error::Error;
use kbackup::event::Silent;
use kbackup::manifest::Label;
use kbackup::proof::Depth;
use kbackup::repository::{ObjectRepository, Repository, StoreFault, StoreFaults, StoreRequest};
use kbackup::run::Run;
use kbackup::verify::{VerifyReport, Which, verify};
use kbackup_testnode::Synthetic;

use super::corruption::restore_into;
use crate::backup::bench::{Bench, small};
use crate::restore::handmade::contents;

/// All objects of a repository.
type Objects = BTreeMap<String, Vec<u8>>;
/// The files that a restore writes.
type Restored = BTreeMap<String, Vec<u8>>;

/// A small node, beside a repository of objects.
fn bench() -> Bench {
    Bench::new(&Synthetic {
        completed_chunks: 2,
        streams: 5,
        table_entries: 80,
        ..small()
    })
}

/// A new repository, and its objects.
fn empty() -> Objects {
    let repository = ObjectRepository::create_in_memory().unwrap();
    repository.raw_objects().unwrap()
}

/// The objects of a repository with a full and a diff of the bench, which has grown since.
fn two_backups(bench: &Bench) -> Objects {
    let repository = ObjectRepository::create_in_memory().unwrap();
    bench.full_to(&repository).unwrap();
    bench.append(9000);
    bench.take_to(&repository).unwrap();
    bench.append(5000);
    repository.raw_objects().unwrap()
}

/// The same repository, as another process would open it after the one that wrote has died.
fn after_death(repository: &ObjectRepository) -> ObjectRepository {
    // This process lives, so its place would count as taken.
    repository.set_raw_object("lease", None).unwrap();
    repository.reopen().unwrap()
}

fn faults(
    of: impl Fn(&StoreRequest<'_>) -> Option<StoreFault> + Send + Sync + 'static,
) -> StoreFaults {
    Arc::new(of)
}

/// No faults, but a count of the requests.
fn counting() -> (StoreFaults, Arc<AtomicU64>) {
    let count = Arc::new(AtomicU64::new(0));
    let counter = Arc::clone(&count);
    let counting = faults(move |request| {
        counter.fetch_max(request.number, Ordering::SeqCst);
        None
    });
    (counting, count)
}

fn verified(repository: &dyn Repository) -> VerifyReport {
    verify(repository, &Which::All, Depth::Deep, &Run::new(Silent)).unwrap()
}

/// What a restore of the backup writes.
fn restored(bench: &Bench, repository: &dyn Repository, label: &Label) -> Result<Restored, Error> {
    let target = bench.path("restored");
    let outcome = restore_of(repository, label, &target);
    if target.exists() {
        std::fs::remove_dir_all(&target).unwrap();
    }
    outcome
}

fn restore_of(
    repository: &dyn Repository,
    label: &Label,
    target: &Path,
) -> Result<Restored, Error> {
    let (outcome, target) = restore_into(repository, label, target);
    outcome?;
    let mut found = contents(&target);
    found.remove("kbackup-restore.json");
    Ok(found)
}

/// What each listed backup restores to.
fn all_restored(bench: &Bench, repository: &dyn Repository) -> BTreeMap<Label, Restored> {
    let labels = labels(repository);
    let restores = labels.into_iter().map(|label| {
        let found = restored(bench, repository, &label).unwrap();
        (label, found)
    });
    restores.collect()
}

/// The labels of all listed backups. Each head can be read and has a number of its own.
fn labels(repository: &dyn Repository) -> Vec<Label> {
    let mut labels = Vec::new();
    let mut numbers = BTreeSet::new();
    for listed in repository.list().unwrap() {
        let head = listed.head.unwrap();
        assert_eq!(head.label, listed.label);
        assert!(numbers.insert(head.sequence), "{} is taken", head.sequence);
        assert!(!labels.contains(&head.label), "{} twice", head.label);
        labels.push(head.label);
    }
    labels
}

/// Asserts that every backup is sound, and that no two share a number or a label.
fn assert_sound(repository: &dyn Repository, what: &str) {
    labels(repository);
    let report = verified(repository);
    assert!(report.is_sound(), "{what}: {:#?}", report.backups);
}

/// The keys of the heads, which are numbers.
fn head_keys(objects: &Objects) -> Vec<String> {
    let keys = objects.keys().filter(|key| key.starts_with("backups/"));
    keys.cloned().collect()
}
