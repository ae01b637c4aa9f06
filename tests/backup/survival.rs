//! A window that closes during a backup.

use std::sync::{Mutex, mpsc};
use std::time::Duration;

use kbackup::backup::{self, Source, SourceNode};
use kbackup::error::{Cause, Error, Kind};
use kbackup::event::{Event, Step};
use kbackup::manifest::Directories;
use kbackup::run::Interruption;

use super::bench::{Bench, small};

/// Takes a backup whose window closes at a step.
fn window_closes_at(bench: &Bench, step: Step) -> Result<backup::BackupSummary, Error> {
    let (reached, closes) = mpsc::channel();
    let (closed, goes_on) = mpsc::channel();
    let goes_on = Mutex::new(goes_on);
    let run = bench.run(move |event| {
        if matches!(event, Event::Step(now) if *now == step) {
            reached.send(()).unwrap();
            goes_on.lock().unwrap().recv().unwrap();
        }
    });

    let source = Source {
        directories: Directories::new(&bench.db, None),
        server_version: None,
        node: SourceNode::Stopped,
    };

    std::thread::scope(|scope| {
        let run = &run;
        scope.spawn(move || {
            closes.recv_timeout(Duration::from_secs(60)).unwrap();
            run.interrupt(Interruption::WindowClosed {
                window: "22:00-05:00".to_owned(),
                opens: "22:00".to_owned(),
            });
            closed.send(()).unwrap();
        });
        backup::take(&bench.request, &source, &bench.repository, run)
    })
}

#[test]
fn a_window_that_closes_ends_every_step_but_the_commit() {
    let bench = Bench::new(&small());
    for step in [Step::Index, Step::Chunks, Step::Prove] {
        let error = window_closes_at(&bench, step).unwrap_err();
        assert_eq!(
            error.kind(),
            Kind::Interrupted(Cause::WindowClosed),
            "{step:?}"
        );
        assert!(bench.manifests().is_empty(), "{step:?}");
    }

    window_closes_at(&bench, Step::Commit).unwrap();
    assert_eq!(bench.manifests().len(), 1);
    bench.assert_sound();
}
