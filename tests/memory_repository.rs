//! What is particular to a store of blobs: it is out of reach at times, may not let a backup go yet,
//! and keeps equal bytes once.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test may end in a panic"
)]

use kbackup::clock::{self, Zone};
use kbackup::error::Kind;
use kbackup::event::{Event, Silent, Step};
use kbackup::expire::{self, KeepRule, Policy};
use kbackup::manifest::{Role, Row};
use kbackup::repository::{MemoryRepository, Repository};
use kbackup::run::Run;

use crate::backup::bench::{Bench, small};
use crate::stores::{self, Store, TestRepository};

/// A stopped node, and a repository in memory.
fn bench() -> (Bench, MemoryRepository) {
    stores::with(Store::Memory, || ());
    let bench = Bench::new(&small());
    let TestRepository::Memory(repository) = bench.repository.reopen() else {
        panic!("the bench was made in memory");
    };
    (bench, repository)
}

fn chunk_of(files: &[Row]) -> &Row {
    files.iter().find(|row| row.role == Role::Chunk).unwrap()
}

#[test]
fn a_store_that_is_out_of_reach_for_a_moment_costs_an_attempt() {
    let (bench, repository) = bench();
    let failing = repository.clone();
    let hook = move |event: &Event| {
        if matches!(event, Event::Step(Step::Checkpoints)) && failing.list().is_ok() {
            failing.fail(1);
        }
    };
    let error = bench.take_with(&bench.request, hook).unwrap_err();
    assert_eq!(
        (error.kind(), error.kind().exit_code()),
        (Kind::Transient, 13)
    );
    assert!(bench.said().contains("retry: "), "{}", bench.said());
    assert!(repository.list().unwrap().is_empty());

    let (failing, once) = (repository.clone(), std::sync::Once::new());
    let hook = move |event: &Event| {
        if matches!(event, Event::Step(Step::Chunks)) {
            once.call_once(|| failing.fail(1));
        }
    };
    let summary = bench.take_with(&bench.request, hook).unwrap();
    assert_eq!(summary.retries, 1);
    bench.assert_sound();
    bench.assert_restores(&summary, &bench.events());
}

#[test]
fn a_backup_that_the_store_retains_is_removed_later() {
    let (bench, repository) = bench();
    let first = bench.full().unwrap();
    bench.append(20_000);
    bench.take().unwrap();
    repository.retain(&first.label);

    let policy = Policy {
        last: 1,
        ..Policy::default()
    };
    let run = Run::new(Silent);
    let plan = expire::plan(&repository, &policy, clock::now(), &Zone::system(), &run).unwrap();
    let report = expire::execute(&repository, &plan, &run).unwrap();
    assert!(report.removed.is_empty() && report.freed == 0, "{report:?}");
    let rules: Vec<KeepRule> = report
        .kept
        .iter()
        .flat_map(|kept| &kept.reasons)
        .map(|reason| reason.rule)
        .collect();
    assert_eq!(rules, [KeepRule::RemovedLater]);
    assert_eq!(repository.list().unwrap().len(), 2);
}

#[test]
fn a_full_shares_equal_blobs_and_repairs_damaged_ones() {
    let (bench, repository) = bench();
    let first = bench.full().unwrap();
    let second = bench.full().unwrap();
    let manifest = bench.manifest(&second);
    let chunk = chunk_of(&manifest.files);
    let copy_id = |label| repository.open(label, chunk).unwrap().copy_id();
    assert_eq!(copy_id(&first.label), copy_id(&second.label));
    assert!(second.bytes_stored < first.bytes_stored / 2, "{second:?}");

    bench.repository.damage(&first.label, &chunk.path);
    let third = bench.take().unwrap();
    assert_ne!(copy_id(&third.label), copy_id(&first.label));
    assert!(bench.said().contains("is damaged in"), "{}", bench.said());
    bench.assert_restores(&third, &bench.events());
}
