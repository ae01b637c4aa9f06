//! Many files and many backups with few descriptors, little memory and few rights.

#![expect(
    clippy::print_stdout,
    reason = "the tests print figures, and what they leave out"
)]

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use kbackup::manifest::Label;
use kbackup::proof::Depth;
use kbackup::repository::{DirectoryRepository, Repository};
use kbackup_testnode::Synthetic;
use rustix::process::geteuid;

use super::{amount, lossy_text, peak_memory, subject::listed};
use crate::backup::bench::{Bench, copy_tree, files, small};
use crate::executable;

/// The memory that is enough for every verb, in bytes.
const MEMORY: u64 = 64 << 20;
/// The descriptors that are enough for any number of files, backups and threads.
const DESCRIPTORS: u32 = 64;

/// A run of the executable.
struct Ended {
    code: Option<i32>,
    out: String,
    said: String,
    /// The peak memory in bytes.
    peak: u64,
}

impl Ended {
    #[track_caller]
    fn well(self, what: &str) -> Self {
        assert!(
            matches!(self.code, Some(0 | 3)),
            "{what}: {:?}: {}",
            self.code,
            self.said
        );
        assert!(self.peak <= MEMORY, "{what}: {} KiB", self.peak >> 10);
        self
    }
}

/// Runs the executable with few descriptors, as another user if one is given.
fn limited(executable: &Path, user: Option<(u32, u32)>, line: &[&OsStr]) -> Ended {
    let place = crate::backup::bench::workplace();
    let (out, err) = (place.path().join("out"), place.path().join("err"));
    let mut command = Command::new("sh");
    command
        .arg("-c")
        .arg(format!("ulimit -n {DESCRIPTORS}; exec \"$0\" \"$@\""))
        .arg(executable)
        .args(line);
    command
        .env_clear()
        .envs(executable::ENVIRONMENT)
        .env("HOME", "/nonexistent")
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(std::fs::File::create(&out).unwrap())
        .stderr(std::fs::File::create(&err).unwrap());
    if let Some((user, group)) = user {
        // This user has no state directory, because it has no home.
        command.env_remove("KBACKUP_STATE_DIR").uid(user).gid(group);
    }

    let begun = Instant::now();
    let mut child = command.spawn().unwrap();
    let mut peak = 0;
    let code = loop {
        peak = peak.max(peak_memory(child.id()).unwrap_or(0));
        if let Some(ended) = child.try_wait().unwrap() {
            break ended.code();
        }
        std::thread::sleep(Duration::from_millis(2));
    };

    println!(
        "{:<8} {:>7.2} s {:>6} KiB  {code:?}",
        line[0].to_string_lossy(),
        begun.elapsed().as_secs_f64(),
        peak >> 10
    );
    Ended {
        code,
        out: lossy_text(&out),
        said: lossy_text(&err),
        peak,
    }
}

fn kbackup<'a>(line: impl IntoIterator<Item = &'a (impl AsRef<OsStr> + ?Sized + 'a)>) -> Ended {
    let line: Vec<&OsStr> = line.into_iter().map(AsRef::as_ref).collect();
    limited(Path::new(executable::PATH), None, &line)
}

fn os(text: &str) -> &OsStr {
    OsStr::new(text)
}

/// A source with this many chunks and tables, and a filter that is large enough for threads.
fn many(chunks: usize, tables: usize) -> Bench {
    let (chunk_size, event_bytes) = (8192_u32, 500);
    let events = chunks * usize::try_from(chunk_size / 730).unwrap();
    let synthetic = Synthetic {
        chunk_size,
        completed_chunks: u32::try_from(chunks).unwrap(),
        active_bytes: 3000,
        event_bytes,
        table_entries: events / tables,
        filter_bytes: 40_000_000,
        ..small()
    };
    Bench::new(&synthetic)
}

#[test]
fn many_chunks_and_tables_need_few_descriptors_and_little_memory() {
    let bench = many(amount(1500, 40_000), amount(60, 400));
    let repository = bench.path("repository");
    let (db, repo, target) = (
        bench.db.as_os_str(),
        repository.as_os_str(),
        bench.path("restored"),
    );

    let backup = |verb| {
        vec![
            os(verb),
            os("--offline"),
            os("--db"),
            db,
            os("--repo"),
            repo,
        ]
    };

    let chunks = files(&bench.db)
        .iter()
        .filter(|path| path.file_name().unwrap().as_bytes().starts_with(b"chunk-"))
        .count();
    let tables = bench.tables().len();
    println!("{chunks} chunks, {tables} tables");
    assert!(
        chunks >= amount(1500, 40_000) && tables >= amount(50, 400),
        "{chunks} chunks, {tables} tables"
    );

    kbackup(backup("full")).well("full");

    kbackup(backup("diff")).well("diff without a change");

    bench.append(5 * 8192);
    let mut json = backup("diff");
    json.push(os("--json"));
    let after = kbackup(json).well("diff after appends");
    let summary: serde_json::Value = serde_json::from_str(&after.out).unwrap();

    assert!(
        summary["files_linked"].as_u64().unwrap() >= chunks as u64 - 2,
        "{summary}"
    );
    assert!(summary["files_copied"].as_u64().unwrap() < 20, "{summary}");

    kbackup([os("list"), os("--repo"), repo]).well("list");
    let shown =
        kbackup([os("show"), os("--files"), os("--json"), os("--repo"), repo]).well("show as JSON");
    let shown: serde_json::Value = serde_json::from_str(&shown.out).unwrap();
    assert_eq!(
        Some(shown["files"].as_array().unwrap().len() as u64),
        shown["totals"]["files"].as_u64()
    );
    let shown = kbackup([os("show"), os("--files"), os("--repo"), repo]).well("show");
    assert!(shown.out.lines().count() > chunks + tables);

    kbackup([os("verify"), os("--quick"), os("--repo"), repo]).well("verify --quick");
    kbackup([os("verify"), os("--all"), os("--repo"), repo]).well("verify --all");
    kbackup([
        os("restore"),
        os("latest"),
        os("--repo"),
        repo,
        os("--to"),
        target.as_os_str(),
    ])
    .well("restore");
    kbackup([os("check"), target.as_os_str()]).well("check");

    assert_eq!(
        std::fs::read_dir(&target).unwrap().count(),
        std::fs::read_dir(&bench.db).unwrap().count() + 1,
        "all files and the guard file"
    );
}

#[test]
fn many_backups_in_one_repository_need_little_memory() {
    let bench = Bench::new(&Synthetic {
        completed_chunks: 1,
        ..small()
    });
    let count = amount(60, 2000);

    let mut took = Vec::new();
    for number in 0..count {
        if number % 10 == 0 {
            bench.append(1000);
        }
        let begun = Instant::now();
        bench.take().unwrap();
        took.push(begun.elapsed());
    }

    // For readers only: machines differ too much for an assertion.
    let mean = |range: &[Duration]| {
        range.iter().sum::<Duration>() / u32::try_from(range.len().max(1)).unwrap()
    };
    println!(
        "a diff: {:?} among the first ten, {:?} among the last ten of {count}",
        mean(&took[1..10]),
        mean(&took[count - 10..])
    );

    let (repo, target) = (bench.path("repository"), bench.path("restored"));
    let (db, repo) = (bench.db.as_os_str(), repo.as_os_str());
    let list = kbackup([os("list"), os("--json"), os("--repo"), repo]).well("list");
    let list: serde_json::Value = serde_json::from_str(&list.out).unwrap();
    assert_eq!(list["backups"].as_array().unwrap().len(), count);
    kbackup([
        os("diff"),
        os("--offline"),
        os("--db"),
        db,
        os("--repo"),
        repo,
    ])
    .well("diff");
    kbackup([os("verify"), os("--quick"), os("--repo"), repo]).well("verify --quick");
    kbackup([os("verify"), os("--all"), os("--repo"), repo]).well("verify --all");
    kbackup([
        os("restore"),
        os("latest"),
        os("--repo"),
        repo,
        os("--to"),
        target.as_os_str(),
    ])
    .well("restore");
    assert_eq!(bench.manifests().len(), count + 1);
}

/// The path of this file in the newest backup.
fn newest(repository: &Path, name: &str) -> PathBuf {
    let label = labels(repository).pop().unwrap();
    repository
        .join("backups")
        .join(label.as_str())
        .join("db")
        .join(name)
}

fn labels(repository: &Path) -> Vec<Label> {
    listed(repository, Depth::Normal, "links")
}

fn inode(path: &Path) -> (u64, u64) {
    let status = path.metadata().unwrap();
    (status.ino(), status.nlink())
}

#[test]
fn a_file_that_takes_no_more_links_is_copied_and_linked_again() {
    let bench = Bench::new(&small());
    let repository = bench.path("repository");
    let line = |verb| offline(verb, &bench.db, &repository);
    kbackup(line("full")).well("full");
    let first = newest(&repository, "chunk-000000.000000");

    // The fault is EMLINK, for the first file only.
    let refused = executable::kbackup_with_fault("link:chunk-000000.000000:1:31")
        .args(line("diff"))
        .output()
        .unwrap();
    assert!(
        refused.status.success(),
        "{}",
        String::from_utf8_lossy(&refused.stderr)
    );
    let copied = newest(&repository, "chunk-000000.000000");
    assert_ne!(inode(&copied).0, inode(&first).0);

    kbackup(line("diff")).well("diff");
    let linked = newest(&repository, "chunk-000000.000000");
    assert_eq!(inode(&linked), (inode(&copied).0, 2));

    assert_eq!(labels(&repository).len(), 3);
}

/// A mount that ends when it is dropped.
struct Mount(PathBuf);

impl Mount {
    /// Prints a note and returns `None` if this machine or this user cannot mount.
    fn new(place: PathBuf, what: &str, how: &[&OsStr]) -> Option<Self> {
        std::fs::create_dir_all(&place).unwrap();
        if geteuid().is_root() && succeeds(Command::new("mount").args(how).arg(&place)) {
            return Some(Self(place));
        }
        println!("SKIPPED: {what}: that needs root and mount");
        None
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = succeeds(Command::new("umount").arg("-l").arg(&self.0));
    }
}

fn succeeds(command: &mut Command) -> bool {
    command
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

#[test]
fn ext4_refuses_link_65001_and_the_backup_is_whole() {
    let bench = Bench::new(&small());
    let image = bench.path("image");
    std::fs::File::create(&image)
        .unwrap()
        .set_len(64 << 20)
        .unwrap();
    let _ = succeeds(Command::new("mkfs.ext4").args(["-q", "-F"]).arg(&image));
    let Some(disk) = Mount::new(
        bench.path("disk"),
        "65 000 links on ext4",
        &[os("-o"), os("loop"), image.as_os_str()],
    ) else {
        return;
    };

    let repository = disk.0.join("repository");
    let line = |verb| offline(verb, &bench.db, &repository);
    kbackup(line("full")).well("full");
    let first = newest(&repository, "chunk-000000.000000");

    std::fs::create_dir(disk.0.join("links")).unwrap();
    let refused = (0..)
        .find_map(|number| std::fs::hard_link(&first, disk.0.join(format!("links/{number}"))).err())
        .unwrap();

    assert_eq!(
        (refused.raw_os_error(), inode(&first).1),
        (Some(31), 65_000),
        "{refused}"
    );

    kbackup(line("diff")).well("diff");
    let copied = newest(&repository, "chunk-000000.000000");
    assert_eq!(inode(&copied).1, 1, "the copy is a new file");

    kbackup(line("diff")).well("diff");
    let linked = newest(&repository, "chunk-000000.000000");
    assert_eq!(
        inode(&linked),
        (inode(&copied).0, 2),
        "the new file is linked"
    );
    assert_eq!(
        inode(&newest(&repository, "chunk-000001.000000")).1,
        3,
        "the other files are linked all the time"
    );

    assert_eq!(labels(&repository).len(), 3);
}

#[test]
fn names_that_are_not_utf_8_are_accepted() {
    let bench = Bench::new(&small());
    let odd = |name: &[u8]| OsStr::from_bytes(name).to_owned();
    let top = bench.path("odd").join(odd(b"t\xff\xfe p"));
    let (db, index) = (top.join(odd(b"d\xe9b")), top.join(odd(b"\x80index")));
    let (repository, target) = (top.join(odd(b"r\xc3")), top.join(odd(b"\xffto")));

    std::fs::create_dir_all(&top).unwrap();
    copy_tree(&bench.db, &db);
    std::fs::rename(db.join("index"), &index).unwrap();

    // Odd names lie beside the server's files, in the db directory and in the index.
    for directory in [&db, &index] {
        std::fs::write(directory.join(odd(b"chunk-\xff00000.000000")), b"x").unwrap();
        std::fs::create_dir(directory.join(odd(b"\xfe"))).unwrap();
    }

    let source = [
        os("--offline"),
        os("--db"),
        db.as_os_str(),
        os("--index"),
        index.as_os_str(),
    ];
    let repo = [os("--repo"), repository.as_os_str()];
    let to = [os("--to"), target.as_os_str()];

    let run = |verb: &[&str], options: &[&[&OsStr]]| {
        let line: Vec<&OsStr> = verb
            .iter()
            .map(|word| os(word))
            .chain(options.concat())
            .collect();
        let ended = kbackup(line).well(&verb.join(" "));
        if verb.contains(&"--json") {
            serde_json::from_str::<serde_json::Value>(&ended.out)
                .unwrap_or_else(|error| panic!("{verb:?}: {error}: {}", ended.out));
        }
    };

    run(&["full", "--json"], &[&source, &repo]);
    std::fs::create_dir(repository.join(OsStr::from_bytes(b"backups/\xff"))).unwrap();
    std::fs::write(repository.join(OsStr::from_bytes(b"incoming/\xfe")), b"x").unwrap();
    run(&["diff", "--json"], &[&source, &repo]);
    run(&["diff"], &[&source, &repo]);
    for json in [&["--json"][..], &[]] {
        for verb in ["list", "show", "verify"] {
            run(&[&[verb], json].concat(), &[&repo]);
        }
        run(
            &[&["restore", "latest", "--dry-run"], json].concat(),
            &[&repo, &to],
        );
        run(
            &[&["check"], json].concat(),
            &[&[db.as_os_str(), os("--index"), index.as_os_str()]],
        );
    }
    run(&["restore", "latest", "--json"], &[&repo, &to]);
    run(&["check", "--json"], &[&[target.as_os_str()]]);

    assert!(target.join("chunk-000000.000000").exists());

    // kbackup made its directories under the names that it was given.
    let mut names = std::collections::BTreeSet::<OsString>::new();
    for entry in std::fs::read_dir(&top).unwrap() {
        names.insert(entry.unwrap().file_name());
    }

    assert_eq!(
        names,
        [
            odd(b"d\xe9b"),
            odd(b"\x80index"),
            odd(b"r\xc3"),
            odd(b"\xffto")
        ]
        .into()
    );

    assert_eq!(std::fs::read_dir(bench.path("odd")).unwrap().count(), 1);
    let restored = DirectoryRepository::open(&repository).unwrap();
    assert_eq!(restored.list().unwrap().len(), 3);
}

#[test]
fn a_source_that_is_mounted_read_only_is_backed_up() {
    let bench = Bench::new(&small());
    let Some(source) = Mount::new(
        bench.path("source"),
        "a read-only mount",
        &[os("--bind"), bench.db.as_os_str()],
    ) else {
        return;
    };
    assert!(succeeds(
        Command::new("mount")
            .args(["-o", "remount,bind,ro"])
            .arg(&source.0)
    ));
    assert!(std::fs::write(source.0.join("x"), b"x").is_err());
    assert_works_from(&bench, &source.0, Path::new(executable::PATH), None);
}

/// A backup of a stopped node.
fn offline<'a>(verb: &'a str, db: &'a Path, repository: &'a Path) -> [&'a OsStr; 6] {
    let (db, repository) = (db.as_os_str(), repository.as_os_str());
    [
        os(verb),
        os("--offline"),
        os("--db"),
        db,
        os("--repo"),
        repository,
    ]
}

/// Backs up and restores with the rights of this user.
fn assert_works_from(bench: &Bench, db: &Path, executable: &Path, user: Option<(u32, u32)>) {
    let (repository, target) = (
        bench.path("theirs/repository"),
        bench.path("theirs/restored"),
    );
    std::fs::create_dir(bench.path("theirs")).unwrap();
    if let Some((user, group)) = user {
        std::os::unix::fs::chown(bench.path("theirs"), Some(user), Some(group)).unwrap();
    }

    let run = |line: &[&OsStr]| limited(executable, user, line);
    let backup = |verb| offline(verb, db, &repository);

    run(&backup("full")).well("full");

    bench.append(100_000);
    make_readable(bench, user);
    run(&backup("diff")).well("diff");
    run(&backup("diff")).well("diff");

    // The user may not read what a verification by root keeps, and does without it.
    limited(
        executable,
        None,
        &[
            os("verify"),
            os("--all"),
            os("--repo"),
            repository.as_os_str(),
        ],
    )
    .well("verify by root");
    run(&[os("list"), os("--repo"), repository.as_os_str()]).well("list after root");
    run(&backup("diff")).well("diff after root");

    run(&[
        os("verify"),
        os("--all"),
        os("--deep"),
        os("--repo"),
        repository.as_os_str(),
    ])
    .well("verify");

    run(&[os("check"), db.as_os_str()]).well("check");
    run(&[
        os("restore"),
        os("latest"),
        os("--repo"),
        repository.as_os_str(),
        os("--to"),
        target.as_os_str(),
    ])
    .well("restore");
    run(&[os("check"), target.as_os_str()]).well("check of the target");

    assert_eq!(
        DirectoryRepository::open(&repository)
            .unwrap()
            .list()
            .unwrap()
            .len(),
        4
    );
}

/// Gives completed files the mode 0444, and the others 0640 with the group of the backup's user.
fn make_readable(bench: &Bench, user: Option<(u32, u32)>) {
    let Some((_, group)) = user else { return };
    for entry in walkdir::WalkDir::new(&bench.db) {
        let entry = entry.unwrap();
        let mode = if entry.file_type().is_dir() {
            0o750
        } else if entry.metadata().unwrap().permissions().mode() & 0o200 == 0 {
            0o444
        } else {
            0o640
        };
        std::fs::set_permissions(entry.path(), std::fs::Permissions::from_mode(mode)).unwrap();
        std::os::unix::fs::chown(entry.path(), Some(12_345), Some(group)).unwrap();
    }
}

#[test]
fn a_backup_without_root_needs_only_the_group() {
    if !geteuid().is_root() {
        println!("SKIPPED: another user: that needs root; all other tests have run without it");
        return;
    }
    let user = (65_534, 54_321);
    let bench = Bench::new(&small());

    std::fs::set_permissions(bench.path(""), std::fs::Permissions::from_mode(0o755)).unwrap();
    let executable = bench.path("kbackup");
    std::fs::copy(executable::PATH, &executable).unwrap();

    make_readable(&bench, Some(user));
    assert_works_from(&bench, &bench.db, &executable, Some(user));

    // kbackup says which right is missing.
    let run = |line: &[&OsStr]| limited(&executable, Some(user), line);
    let owned = |wanted: &str| {
        let (repository, target) = (bench.path("theirs/repository"), bench.path("theirs/other"));
        run(&[
            os("restore"),
            os("latest"),
            os("--owner"),
            os(wanted),
            os("--repo"),
            repository.as_os_str(),
            os("--to"),
            target.as_os_str(),
        ])
    };

    let refused = owned("12345:12345");
    assert_eq!(refused.code, Some(23), "{}", refused.said);
    assert!(
        refused.said.contains("cannot give files to user 12345")
            && refused.said.contains("as root"),
        "{}",
        refused.said
    );
    assert!(!bench.path("theirs/other").exists());

    std::fs::set_permissions(
        bench.db.join("writer.chk"),
        std::fs::Permissions::from_mode(0o600),
    )
    .unwrap();

    let (db, repository) = (bench.db.as_os_str(), bench.path("theirs/repository"));
    let denied = run(&[
        os("diff"),
        os("--offline"),
        os("--db"),
        db,
        os("--repo"),
        repository.as_os_str(),
    ]);

    assert!(
        denied.code == Some(12)
            && denied.said.contains("writer.chk")
            && denied.said.contains("hint:"),
        "{:?} {}",
        denied.code,
        denied.said
    );

    assert_eq!(
        DirectoryRepository::open(&repository)
            .unwrap()
            .list()
            .unwrap()
            .len(),
        4
    );
}
