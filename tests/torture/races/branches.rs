//! A node that goes back more than once. Its branches lie side by side in one repository, and are
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

/// A node with its backups, and the events of each backup.
struct Story {
    bench: Bench,
    events: BTreeMap<String, HashSet<Uuid>>,
}

impl Story {
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

    /// Takes a backup that is refused until the operator allows a new branch.
    fn take_on_new_branch(&mut self) -> BackupSummary {
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

    /// Adds an election, and events that only this branch has.
    fn continue_with(&self, number: u64, id: u128, bytes: u64) {
        let writer = self.bench.get(Checkpoint::Writer);
        if writer % CHUNK > CHUNK - 400 {
            // The election's record does not fit into the active chunk any more.
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
fn two_branches_are_distinguished_shown_and_restored() {
    let mut told = Story::begin();
    let trunk = told.take();
    told.continue_with(1, 11, 5_000);
    let first = told.take();

    restore_over(&told.bench, &trunk);
    told.continue_with(1, 22, 70_000);
    let second = told.take_on_new_branch();
    assert_eq!(
        (second.branch, second.kind, second.parent.as_ref()),
        (2, BackupKind::Full, None)
    );

    // Alternately on both branches: the first backup after a restore proves everything, and the next
    // one is built on its own branch.
    let (mut heads, mut ends) = ([first, second], [11, 22]);

    for round in 0..super::amount(4, 40) {
        let branch = round % 2;
        restore_over(&told.bench, &heads[branch]);
        ends[branch] += 100;
        told.continue_with(2 + round as u64, ends[branch], 9_000);
        let full = told.take();

        assert_eq!(
            (usize::try_from(full.branch).unwrap(), full.kind),
            (branch + 1, BackupKind::Full),
            "{}",
            told.bench.said()
        );

        told.bench.append_other(4_000, round as u64);
        heads[branch] = told.take();
        assert_eq!(
            (heads[branch].branch, heads[branch].kind),
            (full.branch, BackupKind::Diff),
            "{}",
            told.bench.said()
        );
        assert_eq!(heads[branch].parent.as_ref(), Some(&full.label));

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
        "the two branches of this test are the same"
    );

    // This is what an operator sees.
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

/// A backup of the restored node, before the node wrote anything, holds the common beginning of both
/// branches. It must not join them.
#[test]
fn a_backup_between_restore_and_election_joins_no_branches() {
    let mut told = Story::begin();
    let trunk = told.take();
    told.continue_with(1, 11, 5_000);
    let first = told.take();

    restore_over(&told.bench, &trunk);
    let between = told.take();
    assert_eq!(between.branch, 1);
    told.continue_with(1, 22, 7_000);
    let second = told.take_on_new_branch();
    assert_eq!(second.branch, 2);
    told.bench.append_other(3_000, 22);
    let third = told.take();
    assert_eq!((third.branch, third.kind), (2, BackupKind::Diff));

    // The first branch has not lost its own events.
    restore_over(&told.bench, &first);

    told.continue_with(2, 33, 3_000);
    let fourth = told.take();
    assert_eq!(fourth.branch, 1);

    for summary in [&trunk, &first, &between, &second, &third, &fourth] {
        told.prove(summary);
    }
    told.bench.assert_sound();
}

/// Forks of forks: the node is set back to any backup. Each backup holds the events of its node, and
/// each branch forks at the right position.
#[test]
fn branches_of_branches_are_kept_apart() {
    let mut chance = Chance::new(super::seed());
    for _ in 0..super::amount(2, 40) {
        let mut told = Story::begin();
        let mut taken = vec![told.take()];
        let mut epoch = 0;

        // The position where each branch forked.
        let mut forks: BTreeMap<u32, u64> = BTreeMap::new();
        for turn in 0..8_u64 {
            epoch += 1;
            let id = chance.number();
            if chance.below(3) == 0 {
                told.continue_with(epoch, u128::from(id), 2_000 + id % 9_000);
                taken.push(told.take());
                continue;
            }
            let back_to = taken[chance.place(taken.len())].clone();
            restore_over(&told.bench, &back_to);
            if chance.below(4) == 0 {
                // This node has not yet had an election.
                taken.push(told.take());
            }
            told.continue_with(epoch, u128::from(id), 2_000 + id % 30_000);
            let summary = match told.bench.take() {
                Ok(summary) => told.note(summary),
                Err(error) => {
                    assert_eq!(error.kind(), Kind::Refused, "turn {turn}: {error}");
                    let summary = told.take_on_new_branch();
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
