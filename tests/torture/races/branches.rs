//! A node that went back, more than once: the histories lie side by side in one repository, and are
//! never mixed.

use std::collections::{BTreeMap, HashSet};

use kbackup::backup::{BackupRequest, BackupSummary};
use kbackup::error::Kind;
use kbackup::manifest::BackupKind;
use kbackup_testnode::{Checkpoint, Synthetic};
use serde_json::Value;
use uuid::Uuid;

use super::Chance;
use crate::backup::bench::{Bench, elect, restore_over, small};
use crate::executable::kbackup;

/// Bytes of log in a chunk of [`small`].
const CHUNK: i64 = 64 * 1024;

fn answer(bench: &Bench, line: &str) -> Value {
    let output = kbackup()
        .args(line.split_whitespace())
        .args(["--json", "--repo"])
        .arg(bench.path("repository"))
        .current_dir(bench.path(""))
        .output()
        .unwrap();
    assert_eq!(
        output.status.code(),
        Some(0),
        "{line}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    serde_json::from_slice(&output.stdout).unwrap()
}

/// What a story has seen so far.
struct Told {
    bench: Bench,
    events: BTreeMap<String, HashSet<Uuid>>,
}

impl Told {
    fn begin() -> Self {
        Self {
            bench: Bench::new(&Synthetic {
                active_bytes: 3_000,
                ..small()
            }),
            events: BTreeMap::new(),
        }
    }

    fn note(&mut self, summary: BackupSummary) -> BackupSummary {
        self.events
            .insert(summary.label.to_string(), self.bench.events());
        summary
    }

    fn take(&mut self) -> BackupSummary {
        let taken = self.bench.take().unwrap();
        self.note(taken)
    }

    /// It must be refused until the operator says that the other way is meant.
    fn take_other_way(&mut self) -> BackupSummary {
        let error = self.bench.take().unwrap_err();
        assert_eq!(error.kind(), Kind::Refused, "{error}");
        assert!(
            error.what().contains("they part at log position"),
            "{error}"
        );
        let taken = self
            .bench
            .take_with(
                &BackupRequest {
                    new_branch: true,
                    ..self.bench.request.clone()
                },
                |_| (),
            )
            .unwrap();
        self.note(taken)
    }

    /// Another election, and events that only this way has.
    fn live_on(&self, number: u64, id: u128, bytes: u64) {
        let writer = self.bench.get(Checkpoint::Writer);
        if writer % CHUNK > CHUNK - 400 {
            // The election's record finds no room in the active chunk any more.
            self.bench.append_other(500, 0);
        }
        elect(&self.bench.db, number, id);
        self.bench.append_other(bytes, u64::try_from(id).unwrap());
    }

    fn prove(&self, summary: &BackupSummary) {
        self.bench
            .assert_restores(summary, &self.events[summary.label.as_str()]);
    }
}

#[test]
fn two_branches_are_told_apart_shown_and_restored() {
    let mut told = Told::begin();
    let trunk = told.take();
    told.live_on(1, 11, 5_000);
    let first = told.take();
    restore_over(&told.bench, &trunk);
    told.live_on(1, 22, 70_000);
    let second = told.take_other_way();
    assert_eq!(
        (second.branch, second.kind, second.parent.as_ref()),
        (2, BackupKind::Full, None)
    );

    // Alternately on both: the first backup after a restore proves everything, the next one is
    // built on its own branch.
    let (mut heads, mut ends) = ([first, second], [11, 22]);
    for round in 0..super::amount(4, 40) {
        let way = round % 2;
        restore_over(&told.bench, &heads[way]);
        ends[way] += 100;
        told.live_on(2 + round as u64, ends[way], 9_000);
        let full = told.take();
        assert_eq!(
            (usize::try_from(full.branch).unwrap(), full.kind),
            (way + 1, BackupKind::Full),
            "{}",
            told.bench.said()
        );
        told.bench.append_other(4_000, round as u64);
        heads[way] = told.take();
        assert_eq!(
            (heads[way].branch, heads[way].kind),
            (full.branch, BackupKind::Diff),
            "{}",
            told.bench.said()
        );
        assert_eq!(heads[way].parent.as_ref(), Some(&full.label));
        for head in &heads {
            told.prove(head);
        }
    }
    told.prove(&trunk);
    let [one, two] = [&heads[0], &heads[1]].map(|head| &told.events[head.label.as_str()]);
    let trunk_events = &told.events[trunk.label.as_str()];
    assert!(
        one.intersection(two)
            .all(|event| trunk_events.contains(event)),
        "the test's two histories are the same"
    );

    // What an operator sees of it.
    let list = answer(&told.bench, "list");
    for backup in list["backups"].as_array().unwrap() {
        let fork = &backup["forked_from"];
        if backup["branch"] == 1 {
            assert_eq!(*fork, Value::Null);
        } else {
            assert_eq!(
                (&fork["branch"], &fork["position"]),
                (&1.into(), &trunk.position.get().into())
            );
            assert_eq!(fork["label"], trunk.label.as_str());
        }
    }
    let text = kbackup()
        .args(["list", "--repo"])
        .arg(told.bench.path("repository"))
        .output()
        .unwrap();
    let text = String::from_utf8(text.stdout).unwrap();
    let note = format!(
        "branch 2 parts from 1 at {}, after {}",
        trunk.position, trunk.label
    );
    assert_eq!(text.matches(&note).count(), 1, "{text}");
    let newest = &heads[1];
    let plan = answer(&told.bench, "restore latest --to elsewhere --dry-run");
    assert_eq!(
        (&plan["backup"]["label"], &plan["backup"]["branch"]),
        (&newest.label.as_str().into(), &2.into())
    );
    assert_eq!(plan["other_branches"][0]["newest"], heads[0].label.as_str());
    assert_eq!(plan["other_branches"][0]["branch"], 1);
    told.bench.assert_sound();
}

/// A backup of the restored node before it wrote anything holds what both ways have in common, and
/// must not make one branch of them.
#[test]
fn a_backup_between_restore_and_election_joins_no_histories() {
    let mut told = Told::begin();
    let trunk = told.take();
    told.live_on(1, 11, 5_000);
    let first = told.take();
    restore_over(&told.bench, &trunk);
    let between = told.take();
    assert_eq!(between.branch, 1);
    told.live_on(1, 22, 7_000);
    let second = told.take_other_way();
    assert_eq!(second.branch, 2);
    told.bench.append_other(3_000, 22);
    let third = told.take();
    assert_eq!((third.branch, third.kind), (2, BackupKind::Diff));
    // And the first way still has its own.
    restore_over(&told.bench, &first);
    told.live_on(2, 33, 3_000);
    let fourth = told.take();
    assert_eq!(fourth.branch, 1);
    for summary in [&trunk, &first, &between, &second, &third, &fourth] {
        told.prove(summary);
    }
    told.bench.assert_sound();
}

/// Forks of forks: whatever backup the node is set back to, each backup holds what its node had,
/// and each branch parts where it did.
#[test]
fn a_tree_of_histories_keeps_them_apart() {
    let mut chance = Chance::new(super::seed());
    for _ in 0..super::amount(2, 40) {
        let mut told = Told::begin();
        let mut taken = vec![told.take()];
        let mut epoch = 0;
        // Where each branch left which.
        let mut forks: BTreeMap<u32, u64> = BTreeMap::new();
        for turn in 0..8_u64 {
            epoch += 1;
            let id = chance.number();
            if chance.below(3) == 0 {
                told.live_on(epoch, u128::from(id), 2_000 + id % 9_000);
                taken.push(told.take());
                continue;
            }
            let back_to = taken[chance.place(taken.len())].clone();
            restore_over(&told.bench, &back_to);
            if chance.below(4) == 0 {
                // It is in no hurry.
                taken.push(told.take());
            }
            told.live_on(epoch, u128::from(id), 2_000 + id % 30_000);
            let summary = match told.bench.take() {
                Ok(summary) => told.note(summary),
                Err(error) => {
                    assert_eq!(error.kind(), Kind::Refused, "turn {turn}: {error}");
                    let summary = told.take_other_way();
                    forks.insert(summary.branch, back_to.position.get());
                    summary
                }
            };
            taken.push(summary);
        }
        for summary in &taken {
            told.prove(summary);
        }
        let list = answer(&told.bench, "list");
        for backup in list["backups"].as_array().unwrap() {
            let branch = u32::try_from(backup["branch"].as_u64().unwrap()).unwrap();
            assert_eq!(
                backup["forked_from"]["position"].as_u64(),
                forks.get(&branch).copied(),
                "seed {}: {list:#}",
                super::seed()
            );
        }
        told.bench.assert_sound();
    }
}
