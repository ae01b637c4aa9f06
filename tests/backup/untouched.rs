//! A backup changes nothing at the node, holds no lock, and needs only the right to read.

use std::collections::BTreeMap;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::bench::{Bench, files, small};

/// Everything that a file system says about a file.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    times: [(i64, i64); 3],
    inode: u64,
    links: u64,
    mode: u32,
    size: u64,
}

fn look(directory: &Path) -> BTreeMap<PathBuf, Seen> {
    let mut seen = BTreeMap::new();
    for entry in walkdir::WalkDir::new(directory) {
        let entry = entry.unwrap();
        let found = entry.metadata().unwrap();
        let times = [
            (found.atime(), found.atime_nsec()),
            (found.mtime(), found.mtime_nsec()),
            (found.ctime(), found.ctime_nsec()),
        ];

        // Listing a directory reads no file, but it may change the directory's access time.
        let times = if found.is_dir() {
            [(0, 0), times[1], times[2]]
        } else {
            times
        };

        let seen_now = Seen {
            times,
            inode: found.ino(),
            links: found.nlink(),
            mode: found.mode(),
            size: found.len(),
        };
        seen.insert(entry.path().to_owned(), seen_now);
    }
    seen
}

fn bytes(directory: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut bytes = BTreeMap::new();
    for entry in walkdir::WalkDir::new(directory) {
        let entry = entry.unwrap();
        if entry.file_type().is_file() {
            bytes.insert(
                entry.path().to_owned(),
                std::fs::read(entry.path()).unwrap(),
            );
        }
    }
    bytes
}

/// Sets an old access time, which any reading would change.
fn age(directory: &Path) {
    for entry in walkdir::WalkDir::new(directory) {
        let entry = entry.unwrap();
        let long_ago =
            std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1_000_000);
        if entry.file_type().is_file() {
            let times = std::fs::FileTimes::new().set_accessed(long_ago);
            std::fs::File::open(entry.path())
                .unwrap()
                .set_times(times)
                .unwrap();
        }
    }
}

#[test]
fn no_file_of_the_node_is_changed() {
    let bench = Bench::new(&small());
    let content = bytes(&bench.db);
    age(&bench.db);

    let before = look(&bench.db);
    bench.full().unwrap();
    bench.take().unwrap();
    assert_eq!(look(&bench.db), before);

    let live = bench.serve();
    bench.live(&live, |_| ()).unwrap();

    // The node that answers reads its own files, which changes their access times.
    let but_for_access = |mut seen: BTreeMap<PathBuf, Seen>| {
        for file in seen.values_mut() {
            file.times[0] = (0, 0);
        }
        seen
    };
    assert_eq!(but_for_access(look(&bench.db)), but_for_access(before));

    assert_eq!(bytes(&bench.db), content);
    assert_eq!(live.node.lock_conflicts(), Vec::<String>::new());
}

#[test]
fn locks_of_other_processes_do_not_disturb_a_backup() {
    let bench = Bench::new(&small());
    let live = bench.serve();

    let mut held = Vec::new();
    for directory in [bench.db.clone(), bench.index()] {
        for path in files(&directory) {
            if path.extension() == Some("chk".as_ref()) {
                continue;
            }

            let file = std::fs::File::open(path).unwrap();
            file.lock().unwrap();
            held.push(file);
        }
    }
    bench.live(&live, |_| ()).unwrap();
}

#[test]
fn the_right_to_read_is_enough() {
    if !rustix::process::geteuid().is_root() {
        return;
    }

    let bench = Bench::new(&small());
    for entry in walkdir::WalkDir::new(&bench.db) {
        let entry = entry.unwrap();
        let mode = if entry.file_type().is_dir() {
            0o555
        } else {
            0o444
        };
        std::fs::set_permissions(entry.path(), std::fs::Permissions::from_mode(mode)).unwrap();
    }

    std::fs::create_dir(bench.db.join("lost+found")).unwrap();
    std::fs::set_permissions(
        bench.db.join("lost+found"),
        std::fs::Permissions::from_mode(0o700),
    )
    .unwrap();
    std::fs::set_permissions(bench.path(""), std::fs::Permissions::from_mode(0o777)).unwrap();

    // Another user may not be able to reach the built executable.
    let program = bench.path("kbackup");
    std::fs::copy(crate::executable::PATH, &program).unwrap();

    let execute = |verb: &str, repository: &str| {
        Command::new(&program)
            .args([verb, "--offline", "--db"])
            .arg(&bench.db)
            .arg("--repo")
            .arg(bench.path(repository))
            .env("HOME", bench.path(""))
            .env("KBACKUP_NEW_REPOSITORY", "true")
            .env("KBACKUP_ACCEPT_SAME_DISK", "true")
            .current_dir("/")
            .uid(65534)
            .gid(65534)
            .output()
            .unwrap()
    };

    for verb in ["full", "diff"] {
        let output = execute(verb, "of-nobody");
        assert_eq!(
            output.status.code(),
            Some(0),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
    }

    // Without the right to read, the exit code and a hint say so.
    std::fs::set_permissions(bench.chunk(1, 0), std::fs::Permissions::from_mode(0o400)).unwrap();
    let output = execute("full", "of-nobody");
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(12), "{text}");
    assert!(
        text.contains("hint:") && text.contains("chunk-000001.000000"),
        "{text}"
    );
}
