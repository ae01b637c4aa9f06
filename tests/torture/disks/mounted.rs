//! Disks that are really full: small images of ext4, xfs and btrfs that the tests mount. Only root
//! can mount them.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use kbackup::proof::Depth;
use kbackup_testnode::Synthetic;
use rustix::process::{Pid, Signal, kill_process};

use super::assert_failed_with_hint;
use crate::backup::bench::{Bench, small};
use crate::executable::{kbackup as kbackup_command, kbackup_with_fault};
use crate::torture::subject::{
    argument, assert_guarded_or_complete, assert_restores, is_well, kbackup, listed, text,
};

/// An image under a mount point. Both are removed when it is dropped.
pub(super) struct Disk {
    pub(super) place: PathBuf,
    pub(super) image: PathBuf,
}

impl Disk {
    /// Prints a note and returns `None` if this machine or this user cannot mount.
    pub(super) fn new(bench: &Bench, name: &str, make: &[&str], mebibytes: u64) -> Option<Self> {
        let disk = Self {
            place: bench.path(&format!("{name}-disk")),
            image: bench.path(&format!("{name}.image")),
        };

        std::fs::create_dir(&disk.place).unwrap();
        std::fs::File::create(&disk.image)
            .unwrap()
            .set_len(mebibytes << 20)
            .unwrap();

        let made = rustix::process::geteuid().is_root()
            && succeeds(Command::new(make[0]).args(&make[1..]).arg(&disk.image))
            && succeeds(
                Command::new("mount")
                    .arg("-o")
                    .arg("loop")
                    .arg(&disk.image)
                    .arg(&disk.place),
            );

        if !made {
            println!(
                "SKIPPED: no disk of {name}: that needs root, loop devices and {}",
                make[0]
            );
            return None;
        }
        Some(disk)
    }

    fn remount(&self, how: &str) {
        assert!(
            succeeds(
                Command::new("mount")
                    .args(["-o", &format!("remount,{how}")])
                    .arg(&self.place)
            ),
            "remount,{how}"
        );
    }

    /// Mounts the disk anew: nothing of it is in memory any more.
    pub(super) fn mount_again(&self) {
        assert!(succeeds(Command::new("umount").arg(&self.place)), "umount");
        assert!(mounts_again(self), "mount");
    }

    /// Takes all free space.
    fn fill(&self) {
        let mut file = std::fs::File::create(self.place.join("filler")).unwrap();
        let mut end = 0;
        for size in [1_u64 << 24, 1 << 20, 1 << 16, 1 << 12] {
            while rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), end, size)
                .is_ok()
            {
                end += size;
            }
        }
        // The file system reserves some space for the ends of files.
        let _ = file.write_all(&[1; 1 << 16]).and_then(|()| file.sync_all());
    }

    fn free(&self) {
        std::fs::remove_file(self.place.join("filler")).unwrap();
        // Some file systems give space back only with their next transaction.
        let _ = succeeds(Command::new("sync").arg("-f").arg(&self.place));
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // The loop device goes with the mount.
        let _ = succeeds(Command::new("umount").arg("-l").arg(&self.place));
        let _ = std::fs::remove_file(&self.image);
    }
}

pub(super) fn succeeds(command: &mut Command) -> bool {
    command
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

/// Runs `kbackup` up to an operation, does something to its disk there, and lets it continue.
pub(super) fn run_interrupted(line: &[&str], fault: &str, what: impl FnOnce()) -> Output {
    run_and_send(line, fault, what, Signal::CONT)
}

/// Runs `kbackup` up to an operation, does something to its disk there, and kills it.
pub(super) fn run_killed(line: &[&str], fault: &str, what: impl FnOnce()) -> Output {
    run_and_send(line, fault, what, Signal::KILL)
}

fn run_and_send(line: &[&str], fault: &str, what: impl FnOnce(), signal: Signal) -> Output {
    let mut command = kbackup_with_fault(fault);
    command
        .args(line)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());

    let child = command.spawn().unwrap();

    wait_until_stopped(&child, fault);
    what();

    kill_process(Pid::from_child(&child), signal).unwrap();
    child.wait_with_output().unwrap()
}

fn wait_until_stopped(child: &Child, fault: &str) {
    let end = Instant::now() + Duration::from_secs(60);
    loop {
        let status = std::fs::read_to_string(format!("/proc/{}/stat", child.id())).unwrap();
        match status.rsplit(") ").next().unwrap().chars().next() {
            Some('T') => return,
            Some('Z') => panic!("the run ended before {fault}"),
            _ => assert!(Instant::now() < end, "the run does not reach {fault}"),
        }

        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Tests every verb on a disk of this file system.
fn assert_survives_full_disk(name: &str, make: &[&str], mebibytes: u64) {
    let bench = Bench::new(&Synthetic {
        completed_chunks: 14,
        ..small()
    });
    let Some(disk) = Disk::new(&bench, name, make, mebibytes) else {
        return;
    };
    let repository = disk.place.join("repository");
    let line = |verb| {
        [
            verb,
            "--offline",
            "--db",
            argument(&bench.db),
            "--repo",
            argument(&repository),
        ]
    };

    let works = |verb: &'static str, what: &str| {
        let before = listed(&repository, Depth::Quick, what).len();
        let output = kbackup(&line(verb), None);
        assert!(is_well(&output), "{name}: {what}: {}", text(&output));
        assert_eq!(
            listed(&repository, Depth::Quick, what).len(),
            before + 1,
            "{name}: {what}"
        );
    };
    works("full", "while there is room");

    for (verb, moment) in [("full", 2), ("diff", 3), ("full", 20)] {
        bench.append(200_000);
        let before = listed(&repository, Depth::Quick, name);

        let output = run_interrupted(
            &line(verb),
            &format!("create:{}/incoming:{moment}:stop", repository.display()),
            || disk.fill(),
        );
        assert_failed_with_hint(
            &output,
            "free space",
            &format!("{name}: {verb}: full in the middle"),
        );
        assert_eq!(listed(&repository, Depth::Normal, name), before, "{name}");

        disk.free();
        works("diff", "after space was freed");
    }

    // The disk is full from the start.
    disk.fill();
    let before = listed(&repository, Depth::Quick, name);
    for verb in ["full", "diff"] {
        assert_failed_with_hint(
            &kbackup(&line(verb), None),
            "free space",
            &format!("{name}: {verb}: full before"),
        );
    }
    assert_eq!(listed(&repository, Depth::Normal, name), before, "{name}");

    let newest = before.last().unwrap();
    assert_restores(
        &repository,
        newest,
        bench.line,
        &bench.path("restored"),
        name,
    );

    disk.free();
    works("diff", "after space was freed again");

    // The disk is too small for a restore, which notices it at once or in the middle.
    let (source, target) = (bench.path("repository"), disk.place.join("restored"));
    let summary = bench.full().unwrap();
    let restore = [
        "restore",
        summary.label.as_str(),
        "--repo",
        argument(&source),
        "--to",
        argument(&target),
    ];
    let fault = format!("create:{}:12:stop", target.display());
    assert_failed_with_hint(
        &run_interrupted(&restore, &fault, || disk.fill()),
        "free space",
        &format!("{name}: restore"),
    );

    let again = kbackup(&restore, None);
    assert!(
        !is_well(&again) && text(&again).contains("hint:"),
        "{name}: {}",
        text(&again)
    );

    disk.free();
    assert_guarded_or_complete(&source, &summary.label, bench.line, &target, name);

    // The disk is mounted read-only.
    disk.remount("ro");
    let before = listed_without_writing(&repository);
    assert_failed_with_hint(
        &kbackup(&line("diff"), None),
        "mounted read-only",
        &format!("{name}: read-only"),
    );

    assert!(
        is_well(&kbackup(&["list", "--repo", argument(&repository)], None)),
        "{name}"
    );
    assert_eq!(
        kbackup(&["verify", "--repo", argument(&repository)], None)
            .status
            .code(),
        Some(3),
        "{name}: the result cannot be kept"
    );
    assert_eq!(listed_without_writing(&repository), before, "{name}");

    disk.remount("rw");
    works("diff", "writable again");

    // The disk vanishes in the middle. kbackup must not write below its mount point.
    let before = listed(&repository, Depth::Quick, name);
    let fault = format!("create:{}/incoming:5:stop", repository.display());
    let output = run_interrupted(&line("full"), &fault, || {
        assert!(succeeds(Command::new("umount").arg("-l").arg(&disk.place)));
    });

    assert_eq!(output.status.code(), Some(1), "{name}: {}", text(&output));
    assert_eq!(
        std::fs::read_dir(&disk.place).unwrap().count(),
        0,
        "{name}: something was written below the mount point"
    );

    assert!(mounts_again(&disk), "{name}");
    assert_eq!(listed(&repository, Depth::Normal, name), before, "{name}");
    works("diff", "the disk is back");
}

/// Mounts a disk again. The last user of a lazily unmounted disk needs a moment to end.
fn mounts_again(disk: &Disk) -> bool {
    (0..100).any(|_| {
        std::thread::sleep(Duration::from_millis(20));
        succeeds(
            Command::new("mount")
                .arg("-o")
                .arg("loop")
                .arg(&disk.image)
                .arg(&disk.place),
        )
    })
}

fn listed_without_writing(repository: &Path) -> usize {
    std::fs::read_dir(repository.join("backups"))
        .unwrap()
        .count()
}

#[test]
fn a_full_ext4_loses_nothing() {
    assert_survives_full_disk("ext4", &["mkfs.ext4", "-q", "-F"], 48);
}

#[test]
fn an_ext4_without_free_inodes_loses_nothing() {
    let bench = Bench::new(&small());
    let Some(disk) = Disk::new(&bench, "inodes", &["mkfs.ext4", "-q", "-F", "-N", "64"], 48) else {
        return;
    };
    let repository = disk.place.join("repository");
    let line = [
        "full",
        "--offline",
        "--db",
        argument(&bench.db),
        "--repo",
        argument(&repository),
    ];

    let mut taken = Vec::new();
    let failed = loop {
        let output = kbackup(&line, None);
        if !is_well(&output) {
            break output;
        }
        taken = listed(&repository, Depth::Quick, "inodes");
        assert!(taken.len() < 20, "the disk does not run out of inodes");
    };
    assert_failed_with_hint(&failed, "free space", "inodes");
    assert!(!taken.is_empty());
    assert_eq!(listed(&repository, Depth::Normal, "inodes"), taken);
}

#[test]
fn a_full_xfs_loses_nothing() {
    assert_survives_full_disk("xfs", &["mkfs.xfs", "-q", "-f"], 320);
}

#[test]
fn a_full_btrfs_loses_nothing() {
    assert_survives_full_disk("btrfs", &["mkfs.btrfs", "-q", "-f"], 128);
}

/// The image file lies on the disk of the node, so that both would be lost together.
#[test]
fn a_repository_in_an_image_on_the_nodes_own_disk_is_a_warning() {
    let bench = Bench::new(&small());
    let Some(disk) = Disk::new(&bench, "own", &["mkfs.ext4", "-q", "-F"], 48) else {
        return;
    };
    let repository = disk.place.join("repository");

    let mut full = kbackup_command();
    full.args(["full", "--offline", "--db", argument(&bench.db)])
        .args(["--repo", argument(&repository)])
        .env_remove("KBACKUP_ACCEPT_SAME_DISK");
    let output = full.output().unwrap();

    let said = text(&output);
    assert_eq!(output.status.code(), Some(3), "{said}");
    assert!(said.contains("on the node's own disk"), "{said}");
}
