//! The removal of backups: which ones expire, which ones stay whatever the rules say, and that the
//! others are not damaged.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test may end in a panic"
)]

use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use kbackup::backup::BackupSummary;
use kbackup::clock::{self, Zone};
use kbackup::error::{Error, Kind};
use kbackup::event::{Event, Silent, Step};
use kbackup::expire::{self, ExpirePlan, ExpireReport, KeepRule, Policy};
use kbackup::manifest::Label;
use kbackup::proof::Depth;
use kbackup::repository::{Repository, remember_damage, remembered};
use kbackup::restore;
use kbackup::run::Run;
use kbackup::verify::{self, Which};

use crate::backup::bench::{Bench, at, small};
use crate::stores::in_every_store;

in_every_store! {
    an_expiry_without_a_rule_is_refused,
    a_damaged_backup_does_not_count_for_a_rule,
    the_last_verified_backup_stays,
    every_removal_is_decided_again_before_it_happens,
    a_backup_stays_while_it_is_restored,
    a_restore_of_a_backup_that_was_removed_after_its_plan_writes_nothing,
    a_backup_stays_while_it_is_verified_and_a_removed_one_is_skipped,
    an_expiry_during_a_backup_is_locked_out,
}

fn last(last: u32) -> Policy {
    Policy {
        last,
        ..Policy::default()
    }
}

fn plan(repository: &dyn Repository, policy: &Policy) -> ExpirePlan {
    expire::plan(
        repository,
        policy,
        clock::now(),
        &Zone::system(),
        &Run::new(Silent),
    )
    .unwrap()
}

fn execute(repository: &dyn Repository, plan: &ExpirePlan) -> ExpireReport {
    expire::execute(repository, plan, &Run::new(Silent)).unwrap()
}

fn goes(plan: &ExpirePlan) -> Vec<Label> {
    plan.goes
        .iter()
        .map(|leaving| leaving.backup.label.clone())
        .collect()
}

fn rules(plan: &ExpirePlan, label: &Label) -> Vec<KeepRule> {
    let mut rules = Vec::new();
    for staying in &plan.stays {
        if staying.backup.label == *label {
            rules.extend(staying.reasons.iter().map(|reason| reason.rule));
        }
    }
    rules
}

fn labels(repository: &dyn Repository) -> Vec<Label> {
    let listed = repository.list().unwrap();
    listed.into_iter().map(|listed| listed.label).collect()
}

fn labels_of(summaries: &[BackupSummary]) -> Vec<Label> {
    summaries
        .iter()
        .map(|summary| summary.label.clone())
        .collect()
}

/// A full and diffs, each with new events.
fn history(count: usize) -> (Bench, Vec<BackupSummary>) {
    let bench = Bench::new(&small());

    let mut summaries = vec![bench.full().unwrap()];
    for _ in 1..count {
        bench.append(50_000);
        summaries.push(bench.take().unwrap());
    }
    (bench, summaries)
}

/// The disk usage as `du` measures it: blocks, and each inode once.
fn disk_usage(place: &Path) -> u64 {
    let mut inodes = BTreeSet::new();
    let mut bytes = 0;
    for entry in walkdir::WalkDir::new(place) {
        let status = entry.unwrap().metadata().unwrap();
        if inodes.insert((status.dev(), status.ino())) {
            bytes += status.blocks() * 512;
        }
    }
    bytes
}

fn backups(repository: &dyn Repository) -> PathBuf {
    Path::new(&repository.place()).join("backups")
}

#[test]
fn an_expiry_frees_what_it_planned_and_the_other_backups_restore() {
    let (bench, summaries) = history(5);
    let repository = &bench.repository;
    verify::verify(repository, &Which::All, Depth::Normal, &Run::new(Silent)).unwrap();
    let planned = plan(repository, &last(2));
    assert_eq!(goes(&planned), labels_of(&summaries[..3]));
    assert_eq!(rules(&planned, &summaries[3].label), [KeepRule::Last]);
    assert_eq!(
        rules(&planned, &summaries[4].label),
        [
            KeepRule::Last,
            KeepRule::LastGood,
            KeepRule::LastVerified,
            KeepRule::Newest
        ]
    );

    let (before, inodes_kept) = (
        disk_usage(&backups(repository)),
        inodes(&backups(repository).join(summaries[4].label.as_str())),
    );

    let report = execute(repository, &planned);
    let removed: Vec<Label> = report.removed.iter().map(|one| one.label.clone()).collect();
    assert_eq!(removed, goes(&planned));

    // The directory of all backups may have become smaller too.
    assert_eq!(before - disk_usage(&backups(repository)), planned.frees);
    assert_eq!(report.freed, planned.frees);

    assert!(
        planned.frees > 0 && planned.goes.iter().all(|leaving| leaving.frees > 0),
        "{planned:#?}"
    );
    let all: u64 = summaries[..3].iter().map(|summary| summary.bytes).sum();
    assert!(
        planned.frees < all / 2,
        "most files are shared with the other backups: {} of {all}",
        planned.frees
    );

    assert_eq!(
        inodes(&backups(repository).join(summaries[4].label.as_str())),
        inodes_kept,
        "a byte, a mode or a time of another backup has changed"
    );
    let state = Path::new(&repository.place()).join("state");
    let mut stored = Vec::new();
    for entry in std::fs::read_dir(state).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        if name.starts_with("verified-") {
            stored.push(name);
        }
    }
    assert_eq!(stored.len(), 2, "{stored:?}");
    assert_eq!(
        std::fs::read_dir(Path::new(&repository.place()).join("incoming"))
            .unwrap()
            .count(),
        0
    );
    bench.assert_sound();
    bench.assert_restores(&summaries[4], &bench.events());
    assert!(
        plan(repository, &last(2)).goes.is_empty(),
        "a second run removes no more"
    );

    bench.append(20_000);
    let next = bench.take().unwrap();
    assert_eq!(next.parent.as_ref(), Some(&summaries[4].label));
    bench.assert_sound();
}

/// The inode, mode, time and length of each file.
fn inodes(backup: &Path) -> Vec<(PathBuf, u64, u32, i64, u64)> {
    let mut inodes = Vec::new();
    for entry in walkdir::WalkDir::new(backup).sort_by_file_name() {
        let entry = entry.unwrap();
        let status = entry.metadata().unwrap();
        inodes.push((
            entry.into_path(),
            status.ino(),
            status.mode(),
            status.mtime(),
            status.len(),
        ));
    }
    inodes
}

fn an_expiry_without_a_rule_is_refused() {
    let (bench, _) = history(1);
    let error = expire::plan(
        &bench.repository,
        &Policy::default(),
        clock::now(),
        &Zone::system(),
        &Run::new(Silent),
    )
    .unwrap_err();
    assert_eq!((error.kind(), error.hints().len()), (Kind::Usage, 1));
}

fn a_damaged_backup_does_not_count_for_a_rule() {
    let (bench, summaries) = history(4);
    remember_damage(&bench.repository, &summaries[2].label).unwrap();
    let planned = plan(&bench.repository, &last(2));
    assert_eq!(goes(&planned), [summaries[0].label.clone()]);
    assert_eq!(rules(&planned, &summaries[1].label), [KeepRule::Last]);

    // When two newer backups are good, the damaged one expires too.
    bench.append(10_000);
    bench.take().unwrap();
    assert_eq!(
        goes(&plan(&bench.repository, &last(2))),
        labels_of(&summaries[..3])
    );
}

#[test]
fn nothing_expires_while_the_newest_backup_is_damaged_or_unreadable() {
    for unreadable in [false, true] {
        let (bench, summaries) = history(3);
        let newest = &summaries[2].label;
        let manifest = backups(&bench.repository)
            .join(newest.as_str())
            .join("manifest.json");
        if unreadable {
            std::fs::write(manifest, "{").unwrap();
        } else {
            remember_damage(&bench.repository, newest).unwrap();
        }

        let run = bench.run(|_| ());
        let planned = expire::plan(
            &bench.repository,
            &last(1),
            clock::now(),
            &Zone::system(),
            &run,
        )
        .unwrap();

        assert!(goes(&planned).is_empty(), "{planned:#?}");
        assert_eq!(
            rules(&planned, &summaries[0].label),
            [KeepRule::NewestNotGood]
        );
        assert!(
            bench.said().contains(&format!(
                "nothing is removed while the newest backup, {newest}, is not good"
            )),
            "{}",
            bench.said()
        );
        assert!(
            !unreadable || rules(&planned, newest) == [KeepRule::Unreadable],
            "{planned:#?}"
        );

        assert!(execute(&bench.repository, &planned).removed.is_empty());
        assert_eq!(labels(&bench.repository).len(), 3);
    }
}

#[test]
fn an_unreadable_backup_is_left_alone_and_named() {
    let (bench, summaries) = history(3);
    std::fs::write(
        backups(&bench.repository)
            .join(summaries[0].label.as_str())
            .join("manifest.json"),
        "{",
    )
    .unwrap();
    let run = bench.run(|_| ());
    let planned = expire::plan(
        &bench.repository,
        &last(1),
        clock::now(),
        &Zone::system(),
        &run,
    )
    .unwrap();
    assert_eq!(
        (goes(&planned), rules(&planned, &summaries[0].label)),
        (vec![summaries[1].label.clone()], vec![KeepRule::Unreadable])
    );
    assert!(
        bench.said().contains("is left alone, unreadable"),
        "{}",
        bench.said()
    );
    execute(&bench.repository, &planned);
    assert_eq!(
        labels(&bench.repository),
        [summaries[0].label.clone(), summaries[2].label.clone()]
    );
}

/// A quick verification proves nothing about the bytes.
fn the_last_verified_backup_stays() {
    let (bench, summaries) = history(3);
    let look = |number: usize, depth| {
        let which = Which::Named(vec![summaries[number].label.clone()]);
        verify::verify(&bench.repository, &which, depth, &Run::new(Silent)).unwrap();
    };
    look(0, Depth::Normal);
    look(1, Depth::Quick);

    let planned = plan(&bench.repository, &last(1));
    assert_eq!(
        (goes(&planned), rules(&planned, &summaries[0].label)),
        (
            vec![summaries[1].label.clone()],
            vec![KeepRule::LastVerified]
        )
    );

    look(2, Depth::Normal);
    assert_eq!(
        goes(&plan(&bench.repository, &last(1))),
        [summaries[0].label.clone(), summaries[1].label.clone()]
    );
}

/// Damage that is found between the plan and its execution counts.
fn every_removal_is_decided_again_before_it_happens() {
    let (bench, summaries) = history(3);
    let planned = plan(&bench.repository, &last(1));
    assert_eq!(planned.goes.len(), 2);

    remember_damage(&bench.repository, &summaries[2].label).unwrap();
    let report = execute(&bench.repository, &planned);
    assert_eq!(
        (report.removed.len(), report.kept.len(), report.freed),
        (0, 2, 0)
    );
    assert_eq!(report.kept[0].reasons[0].rule, KeepRule::NewestNotGood);

    let other = Bench::new(&small());
    assert_eq!(
        expire::execute(&other.repository, &planned, &Run::new(Silent))
            .unwrap_err()
            .kind(),
        Kind::Refused
    );
}

fn restore_request(bench: &Bench, label: &Label) -> restore::RestoreRequest {
    let targets = vec![restore::RestoreTarget {
        db: bench.path("restored"),
        index: None,
    }];
    restore::RestoreRequest {
        label: Some(label.clone()),
        targets,
        ready: true,
        ..restore::RestoreRequest::default()
    }
}

type Planned = Arc<Mutex<Option<Result<ExpirePlan, Error>>>>;

/// When a run comes to this event, plans, and executes a plan that was made before. Returns the run,
/// and where the new plan will be.
fn expiring_at(
    bench: &Bench,
    is_it: impl Fn(&Event) -> bool + Send + Sync + 'static,
) -> (Run, Planned) {
    let repository = bench.repository.reopen();
    let (before, seen) = (plan(&repository, &last(1)), Planned::default());
    let planned = Arc::clone(&seen);
    let run = bench.run(move |event| {
        let mut planned = planned.lock().unwrap();
        if planned.is_none() && is_it(event) {
            let now = expire::plan(
                &repository,
                &last(1),
                clock::now(),
                &Zone::system(),
                &Run::new(Silent),
            );
            let report = execute(&repository, &before);
            assert_eq!(report.kept.len(), 1, "{report:#?}");
            *planned = Some(now);
        }
    });
    (run, seen)
}

fn a_backup_stays_while_it_is_restored() {
    let (bench, summaries) = history(3);
    let first = &summaries[0].label;
    let (run, planned) = expiring_at(&bench, |event| matches!(event, Event::Step(Step::Place)));

    let restore = restore::plan(&bench.repository, &restore_request(&bench, first), &run).unwrap();
    let report = restore::execute(&bench.repository, &restore, &run).unwrap();
    assert!(report.failure().is_none(), "{report}");

    let planned = planned.lock().unwrap().take().unwrap().unwrap();
    assert_eq!(
        (goes(&planned), rules(&planned, first)),
        (vec![summaries[1].label.clone()], vec![KeepRule::InUse])
    );
    assert_eq!(
        labels(&bench.repository),
        [first.clone(), summaries[2].label.clone()]
    );

    execute(&bench.repository, &plan(&bench.repository, &last(1)));
    assert_eq!(labels(&bench.repository), [summaries[2].label.clone()]);
}

fn a_restore_of_a_backup_that_was_removed_after_its_plan_writes_nothing() {
    let (bench, summaries) = history(2);
    let run = Run::new(Silent);
    let restore = restore::plan(
        &bench.repository,
        &restore_request(&bench, &summaries[0].label),
        &run,
    )
    .unwrap();

    execute(&bench.repository, &plan(&bench.repository, &last(1)));
    let error = restore::execute(&bench.repository, &restore, &run).unwrap_err();
    assert_eq!(error.kind(), Kind::NotFound, "{error}");
    assert!(!bench.path("restored").exists());
}

fn a_backup_stays_while_it_is_verified_and_a_removed_one_is_skipped() {
    let (bench, summaries) = history(3);
    let (run, planned) = expiring_at(&bench, |event| matches!(event, Event::Progress { .. }));
    let report = verify::verify(&bench.repository, &Which::All, Depth::Normal, &run).unwrap();
    assert!(report.is_sound(), "{report:#?}");

    let planned = planned.lock().unwrap().take().unwrap().unwrap();
    assert_eq!(rules(&planned, &summaries[0].label), [KeepRule::InUse]);

    // The second backup was removed while the first was read.
    let verified: Vec<&Label> = report.backups.iter().map(|backup| &backup.label).collect();
    assert_eq!(verified, [&summaries[0].label, &summaries[2].label]);

    assert!(
        bench
            .said()
            .contains(&format!("{} was removed meanwhile", summaries[1].label)),
        "{}",
        bench.said()
    );
    assert_eq!(
        remembered(&bench.repository, &summaries[1].label).unwrap(),
        None,
        "the verification result of a removed backup is gone"
    );
}

fn an_expiry_during_a_backup_is_locked_out() {
    let (bench, _) = history(2);
    let repository = bench.repository.reopen();
    let planned = plan(&repository, &last(1));
    let seen = Arc::new(Mutex::new(None));
    let kind = Arc::clone(&seen);
    let hook = at(Step::Chunks, 1, move || {
        *kind.lock().unwrap() = expire::execute(&repository, &planned, &Run::new(Silent))
            .err()
            .map(|error| error.kind());
    });
    bench.take_with(&bench.request, hook).unwrap();
    assert_eq!(*seen.lock().unwrap(), Some(Kind::Locked));
    assert_eq!(labels(&bench.repository).len(), 3);
}

/// kbackup asks the user at a terminal.
#[test]
fn an_expiry_asks_at_a_terminal() {
    use std::io::Write;
    for (answer, left) in [("n\n", 2), ("\n", 2), ("y\n", 1)] {
        let (bench, _) = history(2);
        let line = format!(
            "{} expire --keep-last 1 --repo {}",
            crate::executable::PATH,
            bench.repository.place()
        );
        let mut command = std::process::Command::new("script");
        command
            .args(["-qefc", &line, "/dev/null"])
            .envs(crate::executable::ENVIRONMENT)
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped());
        let mut process = match command.spawn() {
            Ok(process) => process,
            Err(error) => panic!("`script` of util-linux makes a terminal: {error}"),
        };

        process
            .stdin
            .take()
            .unwrap()
            .write_all(answer.as_bytes())
            .unwrap();

        let output = process.wait_with_output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(
            text.contains("Remove 1 backup? [y/N]") && output.status.success(),
            "{text}"
        );
        assert_eq!(labels(&bench.repository).len(), left, "{answer:?}: {text}");
    }
}
