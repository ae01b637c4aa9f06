//! Power loss during backups, verifications and expiries: the repository afterwards.

use std::path::Path;

use kbackup::backup::{self, Source, SourceNode};
use kbackup::error::Kind;
use kbackup::event::Silent;
use kbackup::manifest::{Directories, Label};
use kbackup::proof::{self, Depth};
use kbackup::repository::{DirectoryRepository, Repository, remembered};
use kbackup::restore;
use kbackup::run::Run;
use kbackup::verify::{self, Which};

use super::{Cut, Watched, assert_success, kbackup};
use crate::backup::bench::{Bench, small};
use crate::stores::opened_or_made;

fn run() -> Run {
    Run::new(Silent)
}

fn back_up(bench: &Bench, verb: &str, repository: &Path) -> std::process::Command {
    kbackup(
        &[verb, "--offline"],
        &[("--db", &bench.db), ("--repo", repository)],
    )
}

/// The labels of all backups. Asserts that each of them verifies.
fn listed(repository: &Path, what: &str) -> Vec<Label> {
    let repository = match DirectoryRepository::open(repository) {
        Ok(repository) => repository,
        Err(error) if error.kind() == Kind::NotFound => return Vec::new(),
        Err(error) => panic!("{what}: {error} {:?}", error.causes()),
    };
    let listed = repository
        .list()
        .unwrap_or_else(|error| panic!("{what}: {error}"));

    if !listed.is_empty() {
        let mut report = verify::verify(&repository, &Which::All, Depth::Normal, &run()).unwrap();
        let is_sound = report.is_sound();
        report.backups.retain(|backup| !backup.findings.is_empty());
        assert!(is_sound, "{what}: {:#?}", report.backups);
    }

    listed.into_iter().map(|listed| listed.label).collect()
}

fn assert_restores(bench: &Bench, repository: &Path, label: &Label, target: &Path, what: &str) {
    let repository = DirectoryRepository::open(repository).unwrap();
    let targets = vec![restore::RestoreTarget {
        db: target.to_owned(),
        index: None,
    }];
    let request = restore::RestoreRequest {
        label: Some(label.clone()),
        targets,
        ready: true,
        ..restore::RestoreRequest::default()
    };

    let plan = restore::plan(&repository, &request, &run()).unwrap();
    let report = restore::execute(&repository, &plan, &run()).unwrap();
    assert!(report.failure().is_none(), "{what}: {label}: {report}");

    let options = proof::ExamineOptions {
        version: Some(bench.line),
        ..proof::ExamineOptions::default()
    };
    let examination = proof::examine(&Directories::new(target, None), &options, &run()).unwrap();
    assert_eq!(
        examination.kind(),
        None,
        "{what}: {label}: {:#?}",
        examination.findings
    );

    std::fs::remove_dir_all(target).unwrap();
}

/// Asserts what holds for a repository after a power loss. `before` lists the backups that were
/// committed before the run. If `commits` is set, the run commits one more.
fn assert_repository_survived(bench: &Bench, before: &[Label], commits: bool, cut: &Cut<'_>) {
    let (repository, what) = (cut.disk.join("repository"), cut.what);
    let labels = listed(&repository, what);
    assert!(
        labels.starts_with(before),
        "{what}: of {before:?}, only {labels:?} are left"
    );
    assert!(
        !(cut.complete && commits) || labels.len() > before.len(),
        "{what}: the backup of a successful run is missing"
    );

    for label in &labels {
        assert_restores(bench, &repository, label, &cut.disk.join("restored"), what);
    }

    let source = Source {
        directories: Directories::new(&bench.db, None),
        server_version: None,
        node: SourceNode::Stopped,
    };
    let opened = opened_or_made(&repository)
        .unwrap_or_else(|error| panic!("{what}: {error} {:?}", error.causes()));
    backup::take(&bench.request, &source, &opened, &run())
        .unwrap_or_else(|error| panic!("{what}: {error} {:?}", error.causes()));

    let after = listed(&repository, what);
    assert!(
        after.starts_with(&labels) && after.len() == labels.len() + 1,
        "{what}: {after:?}"
    );

    assert_eq!(
        std::fs::read_dir(repository.join("incoming"))
            .unwrap()
            .count(),
        0,
        "{what}: files are left"
    );
}

/// Neither the repository nor the directories above it exist before the first backup.
#[test]
fn a_power_loss_during_a_first_full_is_survived() {
    let bench = Bench::new(&small());
    let watched = Watched::new(&bench.path("watched"));
    assert_success(&watched.watch(&mut back_up(
        &bench,
        "full",
        &watched.place.join("repository"),
    )));
    watched.lose_power("first full", 16, |cut| {
        assert_repository_survived(&bench, &[], true, cut);
    });
}

/// The diff reuses files, extends an active chunk, and copies new chunks and new tables.
#[test]
fn a_power_loss_during_later_backups_is_survived() {
    let bench = Bench::new(&small());
    let place = bench.path("watched");
    let repository = place.join("repository");
    assert_success(&back_up(&bench, "full", &repository).output().unwrap());
    for (verb, short) in [("diff", 12), ("full", 8)] {
        bench.append(30_000);
        let before = listed(&repository, verb);
        let watched = Watched::new(&place);
        assert_success(&watched.watch(&mut back_up(&bench, verb, &repository)));
        watched.lose_power(verb, short, |cut| {
            assert_repository_survived(&bench, &before, true, cut);
        });
    }
}

/// One run is killed, the next one resumes, and then the power fails. Files that the first run never
/// synced are not durable for the second run either.
#[test]
fn a_power_loss_during_a_resumed_backup_is_survived() {
    let bench = Bench::new(&small());
    for (number, (verb, operation, count)) in [
        ("full", "create", 4),
        ("full", "sync", 9),
        ("full", "sync", 22),
        ("full", "rename", 3),
        ("diff", "sync", 12),
    ]
    .into_iter()
    .enumerate()
    {
        let place = bench.path(&format!("watched-{number}"));
        let repository = place.join("repository");

        let mut before = Vec::new();
        if verb == "diff" {
            assert_success(&back_up(&bench, "full", &repository).output().unwrap());
            bench.append(30_000);
            before = listed(&repository, verb);
        }

        let watched = Watched::new(&place);
        let fault = format!("{operation}:{}:{count}:abort", place.display());
        let killed = watched.watch(back_up(&bench, verb, &repository).env("KBACKUP_FAULT", fault));
        assert!(
            !killed.status.success(),
            "{verb} {operation} {count}: the run was not killed"
        );

        assert_success(&watched.watch(&mut back_up(&bench, verb, &repository)));
        watched.lose_power(
            &format!("{verb} after a kill at {operation} {count}"),
            5,
            |cut| assert_repository_survived(&bench, &before, true, cut),
        );
    }
}

/// The stored result of a verification may be lost without harm.
#[test]
fn a_power_loss_during_a_verification_is_survived() {
    let bench = Bench::new(&small());
    let place = bench.path("watched");
    let repository = place.join("repository");
    assert_success(&back_up(&bench, "full", &repository).output().unwrap());

    let before = listed(&repository, "before");
    let opened = DirectoryRepository::open(&repository).unwrap();
    let watched = Watched::new(&place);
    for depth in [&["verify"][..], &["verify", "--deep"]] {
        assert_success(&watched.watch(&mut kbackup(depth, &[("--repo", &repository)])));
    }

    let kept = remembered(&opened, &before[0]).unwrap().unwrap();

    watched.lose_power("verify", 8, |cut| {
        let repository = DirectoryRepository::open(&cut.disk.join("repository")).unwrap();
        let found = remembered(&repository, &before[0]).unwrap();
        assert!(
            !cut.complete || found.map(|found| found.at) == Some(kept.at),
            "{}: an older result is back",
            cut.what
        );

        assert_repository_survived(&bench, &before, false, cut);
    });
}

/// The power may fail between the removal of a backup from the list and the removal of its last file.
/// Then each backup is whole, or not listed.
#[test]
fn a_power_loss_during_an_expiry_is_survived() {
    let bench = Bench::new(&small());
    let place = bench.path("watched");
    let repository = place.join("repository");
    for verb in ["full", "diff", "diff"] {
        assert_success(&back_up(&bench, verb, &repository).output().unwrap());
        bench.append(50_000);
    }

    let before = listed(&repository, "before");

    let watched = Watched::new(&place);
    let line = ["expire", "--keep-last", "1", "--confirm"];
    // The next run sweeps what a killed run left. It must not assume that the list has durably lost
    // the backup.
    let fault = format!("sync:{}/incoming:1:abort", repository.display());
    assert!(
        !watched
            .watch(kbackup(&line, &[("--repo", &repository)]).env("KBACKUP_FAULT", fault))
            .status
            .success()
    );
    assert_success(&watched.watch(&mut kbackup(&line, &[("--repo", &repository)])));

    watched.lose_power("expire", 12, |cut| {
        let left = listed(&cut.disk.join("repository"), cut.what);
        assert!(
            left.contains(&before[2]) && left.iter().all(|label| before.contains(label)),
            "{}: {left:?}",
            cut.what
        );

        assert!(
            !cut.complete || left.len() == 1,
            "{}: {left:?} are listed again",
            cut.what
        );

        assert_repository_survived(&bench, &left, false, cut);
    });
}
