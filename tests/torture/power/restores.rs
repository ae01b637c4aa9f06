//! Power loss during restores: what a server finds in the target afterwards.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use kbackup::event::Silent;
use kbackup::manifest::{Manifest, RestoreMark};
use kbackup::repository::{DirectoryRepository, Repository};
use kbackup::restore::{RestoreRequest, RestoreTarget, execute, plan};
use kbackup::run::Run;

use super::{Cut, Watched, assert_success, kbackup};
use crate::backup::bench::{Bench, small};
use crate::restore::handmade::contents;
use crate::restore::start::{Start, start};

/// A backup that is restored again and again.
struct RepeatedRestore {
    bench: Bench,
    repository: DirectoryRepository,
    manifest: Manifest,
}

/// The options of a restore, with paths below the watched directory.
struct Options {
    db: &'static str,
    index: Option<&'static str>,
    ready: bool,
}

impl RepeatedRestore {
    fn new() -> Self {
        let bench = Bench::new(&small());
        let place = bench.path("source");
        assert_success(
            &kbackup(
                &["full", "--offline"],
                &[("--db", &bench.db), ("--repo", &place)],
            )
            .output()
            .unwrap(),
        );

        let repository = DirectoryRepository::open(&place).unwrap();
        let label = repository.list().unwrap().remove(0).label;
        let manifest = repository.manifest(&label).unwrap();
        Self {
            bench,
            repository,
            manifest,
        }
    }

    fn command(&self, options: &Options, top: &Path) -> Command {
        let (repository, db) = (PathBuf::from(self.repository.place()), top.join(options.db));
        let mut command = kbackup(&["restore"], &[("--repo", &repository), ("--to", &db)]);
        if let Some(index) = options.index {
            command.arg("--index-to").arg(top.join(index));
        }

        if options.ready {
            command.arg("--ready");
        }
        if let Some((user, group)) = owner() {
            command.args(["--owner", &format!("{user}:{group}")]);
        }

        command
    }

    /// Runs the same restore as [`command`](Self::command), but in this process.
    fn restore(&self, options: &Options, top: &Path) -> Result<(), String> {
        let targets = vec![RestoreTarget {
            db: top.join(options.db),
            index: options.index.map(|index| top.join(index)),
        }];
        let label = Some(self.manifest.label.clone());
        let request = RestoreRequest {
            label,
            targets,
            ready: options.ready,
            owner: owner(),
            ..RestoreRequest::default()
        };

        let run = Run::new(Silent);
        let plan = plan(&self.repository, &request, &run)
            .map_err(|error| format!("{error} {:?}", error.causes()))?;

        let report = execute(&self.repository, &plan, &run).map_err(|error| error.to_string())?;
        report
            .failure()
            .map_or(Ok(()), |error| Err(format!("{error} {:?}", error.causes())))
    }

    fn lose_power(&self, name: &str, options: &Options, watched: &Watched, short: usize) {
        let expected = restored(options, &watched.place);
        let end = self.manifest.log.position.position().to_signed();
        watched.lose_power(name, short, |cut| {
            self.assert_target_survived(options, &expected, end, cut);
        });
    }

    /// Asserts what holds for a target after a power loss.
    fn assert_target_survived(
        &self,
        options: &Options,
        expected: &Restored,
        end: i64,
        cut: &Cut<'_>,
    ) {
        let (db, what) = (cut.disk.join(options.db), cut.what);
        match start(&db, &self.manifest) {
            Start::Opened { writer, .. } if writer == end => {
                assert_same(&restored(options, cut.disk), expected, what);
                let refused = self.restore(options, cut.disk).unwrap_err();
                assert!(
                    refused.contains("the target holds a restored database"),
                    "{what}: {refused}"
                );
            }

            started => {
                assert!(
                    !cut.complete,
                    "{what}: the restore had succeeded, but the server finds {started:?}"
                );

                if started != Start::Refused {
                    let found = contents(cut.disk);
                    // The state directory is beside the target, and no part of it.
                    let lost = found.keys().find(|name| {
                        !name.starts_with("state/")
                            && !name.ends_with("/writer.chk")
                            && !name.ends_with(".tmp")
                    });
                    assert_eq!(
                        lost, None,
                        "{what}: a server starts there, and files can be lost"
                    );
                }

                self.restore(options, cut.disk)
                    .unwrap_or_else(|error| panic!("{what}: {error}"));
                assert_same(&restored(options, cut.disk), expected, what);
            }
        }
    }
}

/// An owner that only root can set.
fn owner() -> Option<(u32, u32)> {
    rustix::process::geteuid().is_root().then_some((1001, 1002))
}

/// Every file and directory that a server uses, with its bytes, its mode and its owner.
type Restored = BTreeMap<PathBuf, (Vec<u8>, u32, u32, u32)>;

fn restored(options: &Options, top: &Path) -> Restored {
    let mut found = Restored::new();
    for directory in std::iter::once(options.db).chain(options.index) {
        for entry in walkdir::WalkDir::new(top.join(directory))
            .into_iter()
            .flatten()
        {
            let (status, path) = (entry.metadata().unwrap(), entry.path());
            // The guard file holds a time.
            let bytes = if status.is_file() && entry.file_name() != RestoreMark::NAME {
                std::fs::read(path).unwrap()
            } else {
                Vec::new()
            };

            found.insert(
                path.strip_prefix(top).unwrap().to_owned(),
                (bytes, status.mode(), status.uid(), status.gid()),
            );
        }
    }
    found
}

fn assert_same(found: &Restored, expected: &Restored, what: &str) {
    assert_eq!(
        found.keys().collect::<Vec<_>>(),
        expected.keys().collect::<Vec<_>>(),
        "{what}"
    );

    for (path, content) in expected {
        let (found_bytes, found_mode, found_user, found_group) = &found[path];
        let (bytes, mode, user, group) = content;
        assert!(
            found_bytes == bytes,
            "{what}: {} has other bytes",
            path.display()
        );
        assert_eq!(
            (found_mode, found_user, found_group),
            (mode, user, group),
            "{what}: {}",
            path.display()
        );
    }
}

const DOCUMENTED: Options = Options {
    db: "db",
    index: None,
    ready: false,
};
const READY: Options = Options {
    db: "new/below/db",
    index: Some("elsewhere/index"),
    ready: true,
};

#[test]
fn a_power_loss_during_a_restore_is_survived() {
    let repeated = RepeatedRestore::new();
    for (name, options, short) in [("restore", DOCUMENTED, 20), ("restore --ready", READY, 20)] {
        let watched = Watched::new(&repeated.bench.path(name));
        assert_success(&watched.watch(&mut repeated.command(&options, &watched.place)));
        repeated.lose_power(name, &options, &watched, short);
    }
}

/// A restore is killed and resumed, and then the power fails. Files that the first run never synced
/// are not durable for the second run either.
#[test]
fn a_power_loss_during_a_resumed_restore_is_survived() {
    let repeated = RepeatedRestore::new();
    let kills = [
        ("create", 2),
        ("create", 5),
        ("rename", 2),
        ("sync", 3),
        ("sync", 12),
        ("sync", 25),
        ("write", 8),
        ("setowner", 3),
    ];

    for (number, (operation, count)) in kills.into_iter().enumerate() {
        let options = if number % 2 == 0 { READY } else { DOCUMENTED };
        let watched = Watched::new(&repeated.bench.path(&format!("resumed-{number}")));
        let fault = format!("{operation}:{}:{count}:abort", watched.place.display());

        let killed = watched.watch(
            repeated
                .command(&options, &watched.place)
                .env("KBACKUP_FAULT", fault),
        );

        let killable = operation != "setowner" || owner().is_some();
        assert!(
            !killed.status.success() || !killable,
            "{operation} {count}: the run was not killed"
        );

        if killable {
            assert_success(&watched.watch(&mut repeated.command(&options, &watched.place)));
        }
        repeated.lose_power(
            &format!("restore after a kill at {operation} {count}"),
            &options,
            &watched,
            5,
        );
    }
}
