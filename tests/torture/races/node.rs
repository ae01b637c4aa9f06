//! The node itself gets into trouble during a backup: it starts scavenges, restarts, truncates,
//! elects, falls silent, or replaces its index all the time.

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
    /// A scavenge starts by itself. The first kind is over soon, the second kind never ends.
    ShortScavenge,
    LongScavenge,
    Restart,
    /// The truncate checkpoint is set. It is cleared a moment later, or it stays.
    TruncationComesAndGoes,
    Truncation,
    /// Another node becomes the leader: this node follows, and its log holds a new epoch.
    Election,
    /// An operator resumes the auto-scavenge that kbackup has paused.
    Resumed,
    /// The node answers 503 for a moment, or for longer than kbackup waits.
    Away,
    Gone,
    /// Every other answer is 503 for a while.
    Flapping,
    /// The node replaces `indexmap` all the time. For a moment each time, there is none.
    RestlessIndex,
    /// A table appears again under its old name with the contents of another table.
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

/// Ends the background threads when the run is over.
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

/// The part of a bench that other threads may use.
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

        match trouble {
            Trouble::ShortScavenge => drop(node.start_scavenge(Some(Duration::from_millis(30)))),
            Trouble::LongScavenge => drop(node.start_scavenge(None)),
            Trouble::Restart => node.restart(),
            Trouble::TruncationComesAndGoes => {
                std::fs::write(&truncate, 300_000_i64.to_le_bytes()).unwrap();
                later(
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

                later(
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
                    // The server deletes the old file before it gives the new one its name.
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

/// Does something after so many milliseconds, in another thread.
fn later(pause: u64, what: Box<dyn FnOnce() + Send>) {
    std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(pause));
        what();
    });
}

/// The events that a server would start with now.
fn events(bench: &Bench) -> HashSet<Uuid> {
    let mut log = Log::read(&bench.db).unwrap();
    let end = log.last_boundary();
    log.records.retain(|record| record.end <= end);
    log.event_ids().collect()
}

/// Takes one backup with this trouble at this step. Returns the retries of the backup, or why it
/// failed.
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
            assert!(held.is_subset(&after), "{what}: events of another branch");
            bench.assert_restores(summary, &held);
        }
        Err(error) => assert!(
            allowed.contains(&error.kind()),
            "{what}: {error} {:?}\n{said}",
            error.causes()
        ),
    }

    // After the trouble, the next run works and gives everything back to the node.
    std::thread::sleep(Duration::from_millis(if matches!(trouble, Trouble::Gone) {
        5200
    } else {
        150
    }));
    live.node
        .change_quirks(|quirks| (quirks.status, quirks.state) = (None, None));

    // A truncate checkpoint of -1 asks for nothing.
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
            .list()
            .unwrap()
            .readable
            .is_empty(),
        "{what}: a release record is left"
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
fn a_node_in_trouble_gets_its_scavenging_back() {
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
                // At this step the table changes before kbackup copies it. The backup would be a
                // faithful copy of a source with a wrong index. Only a deep verification finds that.
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
