//! Requests that are the last ones of a run, whose answers are lost, or that a store cannot serve.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use kbackup::error::{Error, Kind};
use kbackup::event::Silent;
use kbackup::repository::{ObjectRepository, Removal, Repository, StoreFault, StoreFaults};
use kbackup::run::Run;

use super::{
    Objects, after_death, all_restored, assert_sound, bench, counting, empty, faults, head_keys,
    labels, restored, two_backups,
};
use crate::backup::bench::Bench;
use crate::torture::{Chance, amount, seed};

/// What a run does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Act {
    FirstFull,
    Full,
    Diff,
    /// The removal of the first backup.
    Remove,
}

const ACTS: [Act; 4] = [Act::FirstFull, Act::Full, Act::Diff, Act::Remove];

impl Act {
    /// The repository that the run finds.
    fn before(self, bench: &Bench) -> Objects {
        match self {
            Self::FirstFull => empty(),
            _ => two_backups(bench),
        }
    }

    fn perform(self, bench: &Bench, repository: &ObjectRepository) -> Result<(), Error> {
        match self {
            Self::FirstFull | Self::Full => bench.full_to(repository).map(drop),
            Self::Diff => bench.take_to(repository).map(drop),
            Self::Remove => {
                let run = Run::new(Silent);
                let first = repository.list()?.remove(0).label;
                let removal = repository.writer(&run)?.remove(&first)?;
                assert_eq!(removal, Removal::LeftToPrune);
                Ok(())
            }
        }
    }

    /// How many backups are listed after it.
    fn backups(self) -> usize {
        match self {
            Self::FirstFull | Self::Remove => 1,
            Self::Full | Self::Diff => 3,
        }
    }
}

/// How many requests a run makes.
fn requests_of(act: Act, bench: &Bench, objects: &Objects) -> u64 {
    let (faults, count) = counting();
    let repository = ObjectRepository::of_objects(objects).unwrap();
    act.perform(bench, &repository.with_faults(faults).unwrap())
        .unwrap();
    assert_sound(&repository, "undisturbed");
    count.load(Ordering::SeqCst)
}

/// The n-th request is the last one that the store gets, or the last one before it.
fn ends_at(last: u64, is_done: bool) -> StoreFaults {
    faults(move |request| match request.number {
        number if number < last => None,
        number if number == last && is_done => Some(StoreFault::FailAfter),
        _ => Some(StoreFault::Fail),
    })
}

#[test]
fn a_run_that_ends_at_any_request_is_never_listed_incomplete() {
    let mut chance = Chance::new(seed());
    let mut ends = 0;
    for act in ACTS {
        let bench = bench();
        let objects = act.before(&bench);
        let requests = requests_of(act, &bench, &objects);
        let first = ObjectRepository::of_objects(&objects).unwrap();
        let before = labels(&first);
        let bytes = all_restored(&bench, &first);

        let mut last = 1;
        while last <= requests {
            let is_done = chance.below(2) == 0;
            let what = format!("{act:?} ends at {last} of {requests}, done: {is_done}");
            let repository = ObjectRepository::of_objects(&objects).unwrap();
            let cut = repository.with_faults(ends_at(last, is_done)).unwrap();
            let outcome = act.perform(&bench, &cut);
            drop(cut);
            ends += 1;

            // The list is what it was, or what it should be.
            let repository = after_death(&repository);
            let after = labels(&repository);
            match act {
                Act::Remove => assert!(after == before || after == before[1..], "{what}"),
                _ => assert!(after.starts_with(&before), "{what}: {after:?}"),
            }
            if outcome.is_ok() {
                assert_eq!(after.len(), act.backups(), "{what}");
            }
            assert!(after.len() <= before.len() + 1, "{what}: {after:?}");
            assert_sound(&repository, &what);
            for label in &after {
                if chance.below(3) == 0
                    && let Some(bytes) = bytes.get(label)
                {
                    assert_eq!(
                        restored(&bench, &repository, label).unwrap(),
                        *bytes,
                        "{what}"
                    );
                }
            }

            // The next run succeeds.
            let next = match act {
                Act::Remove if after.len() == before.len() => act.perform(&bench, &repository),
                _ => bench.take_to(&repository).map(drop),
            };
            next.unwrap_or_else(|error| panic!("{what}: {error} {:?}", error.causes()));
            assert_sound(&repository, &what);
            let newest = labels(&repository).pop().unwrap();
            restored(&bench, &repository, &newest).unwrap();

            last += 1 + chance.below(amount(16, 1) as u64);
        }
    }
    println!("{ends} runs that ended at a request");
}

#[test]
fn an_answer_that_is_lost_at_any_request_changes_nothing() {
    let mut chance = Chance::new(seed());
    let mut lost = 0;
    for act in ACTS {
        let bench = bench();
        let objects = act.before(&bench);
        let requests = requests_of(act, &bench, &objects);

        let mut at = 1;
        while at <= requests {
            let what = format!("{act:?} loses the answer to {at} of {requests}");
            let repository = ObjectRepository::of_objects(&objects).unwrap();
            let losing =
                faults(move |request| (request.number == at).then_some(StoreFault::LoseAnswer));
            act.perform(&bench, &repository.with_faults(losing).unwrap())
                .unwrap_or_else(|error| panic!("{what}: {error} {:?}", error.causes()));
            lost += 1;

            assert_eq!(labels(&repository).len(), act.backups(), "{what}");
            assert_sound(&repository, &what);
            let found = repository.raw_objects().unwrap();
            assert!(
                !found.contains_key("lease"),
                "{what}: the place stays taken"
            );
            at += 1 + chance.below(amount(16, 1) as u64);
        }
    }
    println!("{lost} lost answers");
}

#[test]
fn every_request_may_be_answered_late_twice_or_not_at_all() {
    for act in ACTS {
        for (what, fault, each) in [
            ("a storm of refusals", StoreFault::Busy, 3),
            ("lost answers", StoreFault::LoseAnswer, 4),
            ("everything twice", StoreFault::Twice, 1),
        ] {
            let bench = bench();
            let objects = act.before(&bench);
            let repository = ObjectRepository::of_objects(&objects).unwrap();
            let storm = faults(move |request| {
                let is_hit = request.number % each == 0;
                (is_hit && (fault != StoreFault::Twice || request.kind == "put")).then_some(fault)
            });
            act.perform(&bench, &repository.with_faults(storm).unwrap())
                .unwrap_or_else(|error| panic!("{what}: {error} {:?}", error.causes()));

            assert_eq!(labels(&repository).len(), act.backups(), "{act:?}: {what}");
            assert_sound(&repository, what);
            let found = repository.raw_objects().unwrap();
            assert_eq!(
                head_keys(&found).len(),
                act.backups().max(head_keys(&objects).len())
            );
        }
    }
}

#[test]
fn a_repository_is_made_although_answers_are_lost() {
    let (counted, count) = counting();
    ObjectRepository::create_through(counted).unwrap();
    let requests = count.load(Ordering::SeqCst);
    assert!(requests >= 5, "{requests}");

    for at in 1..=requests {
        let losing =
            faults(move |request| (request.number == at).then_some(StoreFault::LoseAnswer));
        let repository = ObjectRepository::create_through(losing)
            .unwrap_or_else(|error| panic!("{at}: {error} {:?}", error.causes()));
        let objects = repository.raw_objects().unwrap();
        let keys: Vec<&String> = objects.keys().collect();
        assert_eq!(keys, ["repository"], "{at}");
    }
}

#[test]
fn a_list_that_lags_costs_no_backup() {
    let bench = bench();
    let objects = two_backups(&bench);
    for (what, prefix) in [("heads", "backups"), ("journals", "journal"), ("all", "")] {
        let repository = ObjectRepository::of_objects(&objects).unwrap();
        let before = labels(&repository);
        let lagging = faults(move |request| {
            let is_hit = request.kind == "list" && request.key.starts_with(prefix);
            is_hit.then_some(StoreFault::HideNewest)
        });
        let outcome = bench.take_to(&repository.with_faults(lagging).unwrap());
        if let Err(error) = outcome {
            assert_eq!(error.kind(), Kind::Locked, "{what}: {error}");
        }

        let after = labels(&repository);
        assert!(after.starts_with(&before), "{what}: {after:?}");
        assert_sound(&repository, what);
        bench.take_to(&repository).unwrap();
        assert_sound(&repository, what);
        assert!(labels(&repository).len() > after.len(), "{what}");
    }
}

/// A run goes on as long as the store comes back in time.
#[test]
fn a_store_that_is_away_for_a_moment_is_waited_for() {
    let bench = bench();
    let repository = ObjectRepository::of_objects(&empty()).unwrap();
    let away = Arc::new(AtomicU64::new(0));
    let counter = Arc::clone(&away);
    let faults = faults(move |request| {
        let is_away = request.number > 40 && counter.fetch_add(1, Ordering::SeqCst) < 5;
        is_away.then_some(StoreFault::Busy)
    });
    bench
        .full_to(&repository.with_faults(faults).unwrap())
        .unwrap();
    assert!(away.load(Ordering::SeqCst) >= 5);
    assert_sound(&repository, "after an outage");
}
