//! Nodes that disappear, change, scavenge or lag behind during a backup.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use kbackup::backup::BackupRequest;
use kbackup::error::Kind;
use kbackup::event::{Event, Step};

use kbackup_testnode::{AutoScavenge, AutoScavengeState, Node};

use super::bench::{Bench, at, begin_scavenge, small};
use crate::stores::in_every_store;

in_every_store! {
    a_node_that_disappears_fails_the_run,
    another_node_behind_the_same_address_fails_the_run,
    scavenges_that_start_again_and_again_fail_the_run,
    a_scavenge_that_starts_during_a_backup_is_stopped_and_given_back,
    a_cycle_of_auto_scavenge_that_begins_during_a_backup_counts_as_a_scavenge,
    a_follower_gets_time_to_catch_up,
}

fn a_node_that_disappears_fails_the_run() {
    let bench = Bench::new(&small());
    let live = bench.serve();
    let node = live.node.clone();

    let error = bench
        .live(
            &live,
            at(Step::Chunks, 1, move || {
                node.change_quirks(|quirks| quirks.status = Some(503));
            }),
        )
        .unwrap_err();

    assert!(
        matches!(
            error.kind(),
            Kind::Unreachable | Kind::Unstable | Kind::Failed
        ),
        "{error} {:?}",
        error.causes()
    );

    assert!(bench.manifests().is_empty());
    live.node.change_quirks(|quirks| quirks.status = None);
    bench.live(&live, |_| ()).unwrap();
    bench.assert_sound();
}

fn another_node_behind_the_same_address_fails_the_run() {
    let bench = Bench::new(&small());
    let live = bench.serve();
    let node = live.node.clone();

    let error = bench
        .live(
            &live,
            at(Step::Chunks, 1, move || {
                node.change_quirks(|quirks| quirks.other_node_every = Some(1));
            }),
        )
        .unwrap_err();

    assert!(
        matches!(error.kind(), Kind::Refused | Kind::Unstable),
        "{error} {:?}",
        error.causes()
    );
    assert!(bench.manifests().is_empty());
}

fn scavenges_that_start_again_and_again_fail_the_run() {
    let bench = Bench::new(&small());
    let live = bench.serve();
    let node = live.node.clone();

    let error = bench
        .live(&live, move |event| {
            if matches!(event, Event::Step(Step::Checkpoints)) {
                begin_scavenge(&node);
            }
        })
        .unwrap_err();

    assert_eq!(error.kind(), Kind::Unstable, "{error}");
    assert_eq!(
        bench.said().matches("retry: ").count(),
        3,
        "{}",
        bench.said()
    );
    assert!(bench.manifests().is_empty());

    bench.live(&live, |_| ()).unwrap();
}

fn a_scavenge_that_starts_during_a_backup_is_stopped_and_given_back() {
    for silent in [false, true] {
        let bench = Bench::new(&small());
        let live = bench.serve();
        live.node.change_quirks(|quirks| {
            quirks.drop_delete_answers = silent;
            quirks.scavenge_duration = Duration::from_secs(60);
        });

        let node = live.node.clone();
        let begun = at(Step::Chunks, 1, move || {
            node.start_scavenge(None).unwrap();
        });

        let summary = bench.live(&live, begun).unwrap();
        assert_eq!(summary.retries, 1, "{}", bench.said());
        assert!(bench.manifest(&summary).scavenging.stopped.is_some());
        assert!(
            live.node.current_scavenge().is_some(),
            "the scavenge goes on"
        );
        assert!(!live.node.owes_scavenge());
        bench.assert_restores(&summary, &bench.events());
    }
}

fn a_cycle_of_auto_scavenge_that_begins_during_a_backup_counts_as_a_scavenge() {
    let becomes = |node: &Node, state: AutoScavengeState| {
        node.change_quirks(|quirks| quirks.auto_scavenge = AutoScavenge::Licensed(state));
    };

    let bench = Bench::new(&small());
    let live = bench.serve();
    live.node
        .change_quirks(|quirks| quirks.next_cycle = Some(Duration::from_secs(86_400)));
    becomes(&live.node, AutoScavengeState::Waiting);
    let summary = bench.live(&live, |_| ()).unwrap();
    assert!(!bench.manifest(&summary).scavenging.auto_paused);
    assert_eq!(summary.retries, 0);

    let node = live.node.clone();
    let begun = at(Step::Chunks, 1, move || {
        becomes(&node, AutoScavengeState::InProgress);
    });
    let summary = bench.live(&live, begun).unwrap();
    assert_eq!(summary.retries, 1, "{}", bench.said());
    assert!(bench.manifest(&summary).scavenging.auto_paused);
    assert_eq!(
        live.node.auto_scavenge(),
        Some(AutoScavengeState::Waiting),
        "it was resumed"
    );
    bench.assert_restores(&summary, &bench.events());
}

fn a_follower_gets_time_to_catch_up() {
    let bench = Bench::new(&small());
    let live = bench.serve();
    bench.live(&live, |_| ()).unwrap();

    let ahead = u64::try_from(bench.get(kbackup_testnode::Checkpoint::Writer)).unwrap() + 5_000;
    let behind = bench
        .live_as(&live, &bench.request, Some(ahead), |_| ())
        .unwrap();
    assert_eq!(behind.missing_bytes, Some(5_000));
    assert_eq!(bench.manifest(&behind).source.missing_bytes, Some(5_000));
    assert!(
        bench
            .said()
            .contains("warning: the leader was 5000 bytes ahead"),
        "{}",
        bench.said()
    );

    let patient = BackupRequest {
        catch_up: Duration::from_secs(20),
        ..bench.request.clone()
    };

    let directory = bench.path("");
    let asked = Mutex::new(None);
    let begun = Instant::now();

    let caught_up = bench
        .live_as(&live, &patient, Some(ahead), move |event| {
            if matches!(event, Event::Step(Step::Checkpoints)) {
                let directory = directory.clone();
                *asked.lock().unwrap() = Some(std::thread::spawn(move || {
                    std::thread::sleep(Duration::from_millis(500));
                    kbackup_testnode::Synthetic::append(directory, 10_000).unwrap();
                }));
            }
        })
        .unwrap();

    assert!(begun.elapsed() < Duration::from_secs(15));
    assert_eq!(caught_up.missing_bytes, None);
    assert!(caught_up.position.get() >= ahead);
    bench.assert_sound();
}
