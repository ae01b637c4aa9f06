//! The node itself is in trouble in mid-backup: scavenges that start by themselves, restarts,
//! truncations, elections, silence, an index that never rests.

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use kbackup::backup::BackupRequest;
use kbackup::error::Kind;
use kbackup::event::{Event, Step};
use kbackup::node::ReleaseRecords;
use kbackup_testnode::log::Log;
use kbackup_testnode::{AutoScavenge, AutoScavengeState, Checkpoint, Node, Synthetic};
use uuid::Uuid;

use super::Chance;
use crate::backup::bench::{Bench, elect, files, name, small};

#[derive(Debug, Clone, Copy)]
enum Trouble {
    /// A scavenge starts by itself; the first is over soon, the second would go on for ever.
    ShortScavenge,
    LongScavenge,
    Restart,
    /// T is set, and gone again a moment later; or stays.
    TruncationComesAndGoes,
    Truncation,
    /// Another leader: this node follows, and an epoch is in its log.
    Election,
    /// An operator resumes what kbackup has paused.
    Resumed,
    /// 503 for a moment, and for longer than anybody waits.
    Away,
    Gone,
    /// Every other answer is 503 for a while.
    Flapping,
    /// `indexmap` is replaced all the time, with a moment in which there is none.
    RestlessIndex,
    /// A table that is made again under its old name, with what another one held.
    OtherTable,
    Appends,
}

const TROUBLES: [Trouble; 13] = [
    Trouble::ShortScavenge,
    Trouble::LongScavenge,
    Trouble::Restart,
    Trouble::TruncationComesAndGoes,
    Trouble::Truncation,
    Trouble::Election,
    Trouble::Resumed,
    Trouble::Away,
    Trouble::Gone,
    Trouble::Flapping,
    Trouble::RestlessIndex,
    Trouble::OtherTable,
    Trouble::Appends,
];

const STEPS: [Step; 6] = [
    Step::Quiesce,
    Step::Index,
    Step::Checkpoints,
    Step::Chunks,
    Step::Prove,
    Step::Commit,
];

/// Ends whatever goes on in the background when the run is over.
#[derive(Clone, Default)]
struct Over(Arc<AtomicBool>);

impl Over {
    fn background(&self, pause: Duration, mut what: impl FnMut(usize) + Send + 'static) {
        let over = Arc::clone(&self.0);
        std::thread::spawn(move || {
            let mut count = 0;
            while !over.load(Ordering::SeqCst) {
                what(count);
                count += 1;
                std::thread::sleep(pause);
            }
        });
    }
}

/// The part of a bench that may go to other threads.
#[derive(Clone)]
struct World {
    root: PathBuf,
    node: Node,
    over: Over,
    seed: u64,
}

impl World {
    fn begin(&self, trouble: Trouble) {
        let (node, db) = (self.node.clone(), self.root.join("db"));
        let truncate = db.join(Checkpoint::Truncate.file_name());
        let after = |pause: u64, what: Box<dyn FnOnce() + Send>| {
            std::thread::spawn(move || {
                std::thread::sleep(Duration::from_millis(pause));
                what();
            });
        };
        match trouble {
            Trouble::ShortScavenge => drop(node.start_scavenge(Some(Duration::from_millis(30)))),
            Trouble::LongScavenge => drop(node.start_scavenge(None)),
            Trouble::Restart => node.restart(),
            Trouble::TruncationComesAndGoes => {
                std::fs::write(&truncate, 300_000_i64.to_le_bytes()).unwrap();
                after(
                    80,
                    Box::new(move || std::fs::write(&truncate, (-1_i64).to_le_bytes()).unwrap()),
                );
            }
            Trouble::Truncation => std::fs::write(&truncate, 300_000_i64.to_le_bytes()).unwrap(),
            Trouble::Election => {}
            Trouble::Resumed => {
                node.change_quirks(|quirks| {
                    quirks.auto_scavenge = AutoScavenge::Licensed(AutoScavengeState::Waiting);
                });
            }
            Trouble::Away | Trouble::Gone => {
                node.change_quirks(|quirks| quirks.status = Some(503));
                let pause = if matches!(trouble, Trouble::Away) {
                    700
                } else {
                    5000
                };
                after(
                    pause,
                    Box::new(move || node.change_quirks(|quirks| quirks.status = None)),
                );
            }
            Trouble::Flapping => self
                .over
                .background(Duration::from_millis(40), move |count| {
                    node.change_quirks(|quirks| {
                        quirks.status = count.is_multiple_of(2).then_some(503);
                    });
                }),
            Trouble::RestlessIndex => {
                let map = db.join("index/indexmap");
                let bytes = std::fs::read(&map).unwrap();
                self.over.background(Duration::from_millis(2), move |_| {
                    // As the server does: the old one is deleted before the new one has its name.
                    std::fs::remove_file(&map).unwrap();
                    std::thread::sleep(Duration::from_millis(1));
                    std::fs::write(map.with_extension("tmp"), &bytes).unwrap();
                    std::fs::rename(map.with_extension("tmp"), &map).unwrap();
                });
            }
            Trouble::OtherTable => {
                let mut tables: Vec<PathBuf> = files(&db.join("index"))
                    .into_iter()
                    .filter(|path| Uuid::parse_str(name(path)).is_ok())
                    .collect();
                tables.sort();
                std::fs::copy(&tables[1], db.join("index/new")).unwrap();
                std::fs::rename(db.join("index/new"), &tables[0]).unwrap();
            }
            Trouble::Appends => {
                Synthetic::append_seeded(&self.root, 30_000, self.seed).unwrap();
            }
        }
    }
}

fn events(bench: &Bench) -> HashSet<Uuid> {
    let mut log = Log::read(&bench.db).unwrap();
    let end = log.last_boundary();
    log.records.retain(|record| record.end <= end);
    log.event_ids().collect()
}

/// One backup with this trouble at this step. Returns how it ended.
fn survive(trouble: Trouble, step: Step, chance: &mut Chance) -> Result<u32, Kind> {
    let what = format!("seed {}, {trouble:?} at {step:?}", super::seed());
    let bench = Bench::new(&small());
    let live = bench.serve();
    live.node.change_quirks(|quirks| {
        quirks.auto_scavenge = AutoScavenge::Licensed(AutoScavengeState::Waiting);
        quirks.scavenge_duration = Duration::from_secs(600);
    });
    bench.live(&live, |_| ()).unwrap();
    let before = events(&bench);
    let world = World {
        root: bench.path(""),
        node: live.node.clone(),
        over: Over::default(),
        seed: chance.number(),
    };
    let pending = Mutex::new(Some(world.clone()));
    let root = bench.path("");
    let hook = move |event: &Event| {
        if matches!(event, Event::Step(begun) if *begun == step)
            && let Some(world) = pending.lock().unwrap().take()
        {
            if matches!(trouble, Trouble::Election) {
                elect(&root.join("db"), 1, 77);
                world
                    .node
                    .change_quirks(|quirks| quirks.state = Some("Follower".to_owned()));
            } else {
                world.begin(trouble);
            }
        }
    };
    let result = bench.live_as(
        &live,
        &BackupRequest {
            attempts: 5,
            ..bench.request.clone()
        },
        None,
        hook,
    );
    world.over.0.store(true, Ordering::SeqCst);
    let said = bench.said();
    let allowed = [
        Kind::Unstable,
        Kind::Unreachable,
        Kind::Refused,
        Kind::SourceCorrupt,
    ];
    match &result {
        Ok(summary) => {
            let after = events(&bench);
            let held: HashSet<Uuid> = Log::read(&bench.stored(summary).join("db"))
                .unwrap()
                .event_ids()
                .collect();
            assert!(
                before.is_subset(&held),
                "{what}: events that were acknowledged are missing"
            );
            assert!(held.is_subset(&after), "{what}: events of another history");
            bench.assert_restores(summary, &held);
        }
        Err(error) => assert!(
            allowed.contains(&error.kind()),
            "{what}: {error} {:?}\n{said}",
            error.causes()
        ),
    }
    // When the trouble is over, the next run works, and nothing is owed to the node any more.
    std::thread::sleep(Duration::from_millis(if matches!(trouble, Trouble::Gone) {
        5200
    } else {
        150
    }));
    live.node
        .change_quirks(|quirks| (quirks.status, quirks.state) = (None, None));
    // -1 again.
    bench.set(Checkpoint::Truncate, u64::MAX);
    if matches!(trouble, Trouble::OtherTable) {
        std::fs::remove_dir_all(&bench.db).unwrap();
        drop(live);
        return result
            .map(|summary| summary.retries)
            .map_err(|error| error.kind());
    }
    let next = bench
        .live(&live, |_| ())
        .unwrap_or_else(|error| panic!("{what}, the run after it: {error} {:?}", error.causes()));
    bench.assert_restores(&next, &events(&bench));
    bench.assert_sound();
    assert!(
        !live.node.owes_scavenge(),
        "{what}: the scavenge was not given back"
    );
    assert_eq!(
        live.node.auto_scavenge(),
        Some(AutoScavengeState::Waiting),
        "{what}: auto-scavenge was not given back"
    );
    assert!(
        ReleaseRecords::open(&bench.path("state"))
            .unwrap()
            .records()
            .unwrap()
            .is_empty(),
        "{what}: something is owed"
    );
    if matches!(trouble, Trouble::LongScavenge) {
        assert!(
            live.node.current_scavenge().is_some(),
            "{what}: the scavenge does not go on"
        );
    }
    result
        .map(|summary| summary.retries)
        .map_err(|error| error.kind())
}

#[test]
fn a_node_in_trouble_gets_back_what_is_its_own() {
    let mut chance = Chance::new(super::seed());
    let (mut good, mut failed) = (0, 0);
    let every_step = super::amount(0, 1) == 1;
    for round in 0..super::amount(1, 4) {
        for (count, trouble) in TROUBLES.into_iter().enumerate() {
            let steps: Vec<Step> = if every_step {
                STEPS.to_vec()
            } else {
                vec![*chance.of(&STEPS)]
            };
            for step in steps {
                // Before the index is copied, this would be a faithful copy of a source whose index
                // is wrong: only a deep verification tells.
                if matches!(
                    (trouble, step),
                    (Trouble::OtherTable, Step::Quiesce | Step::Index)
                ) {
                    continue;
                }
                match survive(trouble, step, &mut chance) {
                    Ok(retries) => {
                        eprintln!(
                            "{round}.{count} {trouble:?} at {step:?}: a backup after {retries} retries"
                        );
                        good += 1;
                    }
                    Err(kind) => {
                        eprintln!("{round}.{count} {trouble:?} at {step:?}: {kind:?}");
                        failed += 1;
                    }
                }
            }
        }
    }
    assert!(good > failed, "{good} backups, {failed} failures");
}
