//! Other writers, and hands that remove what keeps them apart.

use std::path::PathBuf;
use std::sync::{Arc, Barrier, Condvar, Mutex};
use std::thread;

use kbackup::error::Kind;
use kbackup::repository::{ObjectRepository, StoreFault};

use super::{assert_sound, bench, empty, faults, head_keys, labels, two_backups};
use crate::backup::bench::{Bench, copy_tree};
use crate::torture::amount;

const WRITERS: usize = 12;

/// Where writers wait for each other.
#[derive(Default)]
struct Meeting {
    /// How many have come, or have ended on their way.
    here: Mutex<usize>,
    all: Condvar,
}

impl Meeting {
    fn wait(&self) {
        let mut here = self.here.lock().unwrap();
        *here += 1;
        self.all.notify_all();
        while *here < WRITERS {
            here = self.all.wait(here).unwrap();
        }
    }

    fn end(&self) {
        *self.here.lock().unwrap() += 1;
        self.all.notify_all();
    }
}

/// A copy of the node's directory: an offline backup locks its source.
fn source_of(bench: &Bench, writer: usize) -> PathBuf {
    let db = bench.path(&format!("db-{writer}"));
    if db.exists() {
        std::fs::remove_dir_all(&db).unwrap();
    }
    copy_tree(&bench.db, &db);
    db
}

/// Nobody ever sees the lease, and all writers come to the head at the same moment.
#[test]
fn of_twelve_writers_exactly_one_makes_the_head() {
    for round in 0..amount(2, 40) {
        let bench = bench();
        let objects = match round % 2 {
            0 => empty(),
            _ => two_backups(&bench),
        };
        let repository = ObjectRepository::of_objects(&objects).unwrap();
        let before = labels(&repository).len();

        let meeting = Arc::new(Meeting::default());
        let outcomes = thread::scope(|scope| {
            let mut writers = Vec::new();
            for number in 0..WRITERS {
                let db = source_of(&bench, number);
                let place = Arc::clone(&meeting);
                let faults = faults(move |request| match (request.kind, request.key) {
                    ("put", "lease") => Some(StoreFault::Forget),
                    ("put", "state/numbers") => {
                        place.wait();
                        None
                    }
                    _ => None,
                });
                let writer = repository.with_faults(faults).unwrap();
                let (bench, meeting) = (&bench, &meeting);
                writers.push(scope.spawn(move || {
                    let outcome = bench.take_from(&db, &writer);
                    meeting.end();
                    outcome
                }));
            }
            let outcomes = writers.into_iter().map(|writer| writer.join().unwrap());
            outcomes.collect::<Vec<_>>()
        });

        let mut made = 0;
        for outcome in outcomes {
            match outcome {
                Ok(summary) => {
                    made += 1;
                    assert_eq!(labels(&repository).last(), Some(&summary.label));
                }
                Err(error) => assert_eq!(error.kind(), Kind::Locked, "{error}"),
            }
        }
        assert_eq!(made, 1, "round {round}");
        assert_eq!(labels(&repository).len(), before + 1);
        assert_sound(&repository, "after the race");

        bench.take_to(&repository).unwrap();
        assert_sound(&repository, "after the next run");
    }
}

/// With the lease as it is, writers end with 11, or come one after the other.
#[test]
fn twelve_writers_that_begin_at_once_make_only_whole_backups() {
    for _ in 0..amount(1, 40) {
        let bench = bench();
        let repository = ObjectRepository::of_objects(&empty()).unwrap();
        let begin = Barrier::new(WRITERS);
        let made = thread::scope(|scope| {
            let mut writers = Vec::new();
            for number in 0..WRITERS {
                let db = source_of(&bench, number);
                let (bench, begin) = (&bench, &begin);
                let writer = repository.reopen().unwrap();
                writers.push(scope.spawn(move || {
                    begin.wait();
                    bench.take_from(&db, &writer)
                }));
            }

            let mut made = Vec::new();
            for writer in writers {
                match writer.join().unwrap() {
                    Ok(summary) => made.push(summary.label),
                    Err(error) => assert_eq!(error.kind(), Kind::Locked, "{error}"),
                }
            }
            made
        });

        made.iter()
            .for_each(|label| assert!(labels(&repository).contains(label), "{label}"));
        assert_eq!(labels(&repository).len(), made.len());
        let objects = repository.raw_objects().unwrap();
        assert_eq!(head_keys(&objects).len(), made.len());
        assert_sound(&repository, "after the race");
    }
}

/// A store that ignores preconditions lets two writers write one head. The one whose head is gone
/// afterwards says so.
#[test]
fn without_preconditions_a_writer_whose_head_is_gone_ends_with_locked() {
    let bench = bench();
    let repository =
        ObjectRepository::create_through(faults(|_| Some(StoreFault::IgnoreCondition))).unwrap();
    bench.full_to(&repository).unwrap();

    let lost = faults(|request| {
        let is_head = request.kind == "put" && request.key == "backups/0000000002";
        is_head.then_some(StoreFault::Forget)
    });
    let outcome = bench.take_to(&repository.with_faults(lost).unwrap());
    assert_eq!(outcome.unwrap_err().kind(), Kind::Locked);
    assert_eq!(labels(&repository).len(), 1);

    bench.take_to(&repository).unwrap();
    assert_sound(&repository, "after the loss");
}
