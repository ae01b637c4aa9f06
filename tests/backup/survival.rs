use std::path::Path;
use std::process::{Command, Output};
use std::sync::{Mutex, mpsc};
use std::time::Duration;

use kbackup::backup::{self, Node, Source};
use kbackup::error::{Cause, Error, Kind};
use kbackup::event::{Event, Interruption, Run, Silent, Step};
use kbackup::manifest::{Directories, Label};
use kbackup::proof::Depth;
use kbackup::repository::{DirectoryRepository, Repository};
use kbackup::verify::{self, Which};

use super::bench::{Bench, small};

fn execute(bench: &Bench, verb: &str, repository: &Path, fault: Option<String>) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kbackup"));
    command.args([verb, "--offline", "--db"]).arg(&bench.db).arg("--repo").arg(repository);
    if let Some(fault) = fault {
        command.env("KBACKUP_FAULT", fault);
    }
    command.output().unwrap()
}

/// The listed backups, each of which verifies.
fn listed(repository: &Path, what: &str) -> Vec<Label> {
    listed_at(repository, what, Depth::Normal)
}

fn listed_at(repository: &Path, what: &str, depth: Depth) -> Vec<Label> {
    let Ok(repository) = DirectoryRepository::open(repository) else { return Vec::new() };
    let labels: Vec<Label> = repository.list().unwrap().into_iter().map(|listed| listed.label).collect();
    if !labels.is_empty() {
        let report = verify::verify(&repository, &Which::All, depth, &Run::new(Silent)).unwrap();
        assert!(report.is_sound(), "{what}: {report:?}");
    }
    labels
}

fn assert_next_run_works(bench: &Bench, repository: &Path, before: &[Label], what: &str) {
    let output = execute(bench, "diff", repository, None);
    assert!(matches!(output.status.code(), Some(0 | 3)), "{what}: {}", String::from_utf8_lossy(&output.stderr));
    let after = listed(repository, what);
    assert!(after.starts_with(before) && after.len() > before.len(), "{what}: {before:?}, {after:?}");
}

const OPERATIONS: [&str; 7] = ["create", "write", "truncate", "sync", "rename", "link", "remove"];

#[test]
fn a_run_that_dies_anywhere_lists_nothing_half_done() {
    let bench = Bench::new(&small());
    for operation in OPERATIONS {
        for verb in ["full", "diff"] {
            // Not at each moment, as each costs several runs; another beginning for each operation.
            let (mut count, mut alive) = (1, false);
            let repository = bench.path(&format!("{operation}-{verb}"));
            while !alive {
                let what = format!("{operation} {verb} {count}");
                let before = listed(&repository, &what);
                let fault = format!("{operation}:{}:{count}:abort", repository.display());
                alive = execute(&bench, verb, &repository, Some(fault)).status.success();
                let after = listed(&repository, &what);
                assert!(after.starts_with(&before), "{what}: an earlier backup is gone");
                if count % 3 == 1 {
                    assert_next_run_works(&bench, &repository, &after, &what);
                }
                count += if count < 4 { 1 } else { 11 };
            }
            assert!(count > 2 || operation == "link", "no {operation} was seen");
            assert_next_run_works(&bench, &repository, &listed(&repository, "end"), "end");
            std::fs::remove_dir_all(repository).unwrap();
        }
    }
}

#[test]
fn a_full_or_broken_disk_fails_the_run_and_nothing_else() {
    let bench = Bench::new(&small());
    let repository = bench.path("disk");
    assert_eq!(execute(&bench, "full", &repository, None).status.code(), Some(0));
    bench.append(30_000);
    for (number, hint) in [(28, "free space"), (5, "disk below it"), (30, "mounted read-only")] {
        for operation in ["create", "write", "sync", "rename", "link"] {
            let (mut count, mut well) = (1, false);
            while !well {
                let what = format!("{operation} {count}: error {number}");
                let before = listed_at(&repository, &what, Depth::Quick);
                let output = execute(&bench, "diff", &repository, Some(format!("{operation}:{}:{count}:{number}", repository.display())));
                let text = String::from_utf8_lossy(&output.stderr).into_owned();
                well = matches!(output.status.code(), Some(0 | 3));
                let after = listed_at(&repository, &what, Depth::Quick);
                if well {
                    assert_eq!(after.len(), before.len() + 1, "{what}");
                } else {
                    assert_eq!(output.status.code(), Some(1), "{what}: {text}");
                    assert!(text.contains("hint:") && text.contains(hint), "{what}: {text}");
                    assert_eq!(after, before, "{what}: {text}");
                }
                count += if count < 3 { 1 } else { 29 };
            }
        }
        assert_next_run_works(&bench, &repository, &listed(&repository, "end"), "end");
    }
}

/// Takes a backup whose window closes when it has come to a step.
fn window_closes_at(bench: &Bench, step: Step) -> Result<backup::Summary, Error> {
    let (reached, closes) = mpsc::channel();
    let (closed, goes_on) = mpsc::channel();
    let goes_on = Mutex::new(goes_on);
    let run = bench.run(move |event| {
        if matches!(event, Event::Step(now) if *now == step) {
            reached.send(()).unwrap();
            goes_on.lock().unwrap().recv().unwrap();
        }
    });
    let source = Source { directories: Directories::new(&bench.db, None), server_version: None, node: Node::Stopped };
    std::thread::scope(|scope| {
        let run = &run;
        scope.spawn(move || {
            closes.recv_timeout(Duration::from_secs(60)).unwrap();
            run.interrupt(Interruption::WindowClosed { window: "22:00-05:00".to_owned(), opens: "22:00".to_owned() });
            closed.send(()).unwrap();
        });
        backup::take(&bench.request, &source, &bench.repository, run)
    })
}

#[test]
fn a_window_that_closes_ends_all_but_the_commit() {
    let bench = Bench::new(&small());
    for step in [Step::Index, Step::Chunks, Step::Prove] {
        let error = window_closes_at(&bench, step).unwrap_err();
        assert_eq!(error.kind(), Kind::Interrupted(Cause::WindowClosed), "{step:?}");
        assert!(bench.manifests().is_empty(), "{step:?}");
    }
    window_closes_at(&bench, Step::Commit).unwrap();
    assert_eq!(bench.manifests().len(), 1);
    bench.assert_sound();
}
