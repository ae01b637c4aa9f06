//! Expiries that are killed at every operation.

use std::path::Path;
use std::process::Command;

use kbackup::event::Silent;
use kbackup::proof::Depth;
use kbackup::repository::{DirectoryRepository, Repository, remembered};
use kbackup::run::Run;
use kbackup::verify::{self, Which};

use crate::backup::bench::{Bench, small};
use crate::torture::subject::{argument, assert_unlocked, is_well, kbackup, listed, text};
use crate::torture::{Chance, seed};

/// Copies a directory with its links and times.
fn copy(from: &Path, to: &Path) {
    assert!(
        Command::new("cp")
            .arg("-a")
            .args([from, to])
            .status()
            .unwrap()
            .success()
    );
}

#[test]
fn an_expiry_that_dies_anywhere_leaves_each_backup_whole_or_not_listed() {
    let bench = Bench::new(&small());
    let mut before = vec![bench.full().unwrap().label];
    for _ in 0..2 {
        bench.append(50_000);
        before.push(bench.take().unwrap().label);
    }

    let template = bench.path("repository");
    verify::verify(
        &bench.repository,
        &Which::All,
        Depth::Normal,
        &Run::new(Silent),
    )
    .unwrap();

    let mut chance = Chance::new(seed());
    let mut deaths = 0;
    for operation in [
        "create", "write", "truncate", "sync", "rename", "remove", "list", "lock",
    ] {
        let (mut count, mut alive) = (1, false);
        while !alive {
            let (what, repository) = (format!("{operation} {count}"), bench.path("victim"));
            copy(&template, &repository);

            let fault = format!("{operation}:{}:{count}:abort", repository.display());
            let line = [
                "expire",
                "--keep-last",
                "1",
                "--confirm",
                "--repo",
                argument(&repository),
            ];

            alive = is_well(&kbackup(&line, Some(&fault)));
            deaths += usize::from(!alive);

            let left = listed(&repository, Depth::Normal, &what);
            assert!(
                before.ends_with(&left) && !left.is_empty(),
                "{what}: {left:?}"
            );
            assert!(!alive || left.len() == 1, "{what}: {left:?}");
            assert_unlocked(&[&repository.join("state")], &what);

            // The next writer sweeps, whatever it does.
            let output = if chance.below(2) == 0 {
                kbackup(&line, None)
            } else {
                kbackup(
                    &[
                        "diff",
                        "--offline",
                        "--db",
                        argument(&bench.db),
                        "--repo",
                        argument(&repository),
                    ],
                    None,
                )
            };
            assert!(is_well(&output), "{what}: {}", text(&output));
            let opened = DirectoryRepository::open(&repository).unwrap();
            let listed = opened.list().unwrap();
            let after: Vec<_> = listed.into_iter().map(|listed| listed.label).collect();

            if left.len() < before.len() {
                let rest = std::fs::read_dir(repository.join("incoming"))
                    .unwrap()
                    .count();
                assert_eq!(rest, 0, "{what}: files are left");
            }

            for gone in before.iter().filter(|label| !after.contains(label)) {
                assert_eq!(
                    remembered(&opened, gone).unwrap(),
                    None,
                    "{what}: {gone} is gone, but its verification result is not"
                );
            }

            std::fs::remove_dir_all(repository).unwrap();
            count = chance.next_moment(count, 12);
        }
        assert!(count > 1, "no {operation} was seen");
    }

    assert!(deaths >= 8, "{deaths}");
    println!("{deaths} deaths of expire");
}
