//! Disks that lose writes. A write-back fails, and the kernel goes on showing the pages that the disk
//! never got. The next sync succeeds. So each test repeats what failed, mounts the disk again, and
//! compares what it then holds.

use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use kbackup::manifest::{Blake3Hash, Directories, Label, Role};
use kbackup::proof::Depth;
use kbackup::repository::DirectoryRepository;
use kbackup_testnode::Synthetic;

use super::mounted::{run_interrupted, run_killed, succeeds};
use crate::backup::bench::{Bench, small};
use crate::torture::subject::{
    argument, assert_complete, assert_restores, is_well, kbackup, listed, manifest, text,
};
use crate::torture::{Chance, amount, seed};

/// Chunks that kbackup writes through the page cache, because they are small.
fn many_small_chunks() -> Synthetic {
    Synthetic {
        chunk_size: 256 * 1024,
        completed_chunks: 24,
        ..small()
    }
}

/// An ext4 without a journal, so that it stays mounted when writes fail.
struct FailingDisk {
    /// Where it is mounted.
    place: PathBuf,
    /// The block device that is mounted.
    device: PathBuf,
    image: PathBuf,
    kind: FailureKind,
}

/// How writes of the disk fail.
enum FailureKind {
    /// The image is a file of a file system in memory, which can be made too small for it.
    TooSmall { memory: PathBuf },
    /// `dm-flakey` between image and file system.
    Flakey { name: String, image_device: String },
}

const MEBIBYTES: u64 = 96;

impl FailingDisk {
    /// Every kind that this machine and this user can make. Prints what is left out.
    fn all(bench: &Bench) -> Vec<Self> {
        if !rustix::process::geteuid().is_root() {
            println!("SKIPPED: no disk that loses writes: that needs root");
            return Vec::new();
        }

        let mut disks = Vec::new();
        match Self::too_small(bench) {
            Some(disk) => disks.push(disk),
            None => println!(
                "SKIPPED: no disk that is too small: that needs loop devices and mkfs.ext4"
            ),
        }
        match Self::flakey(bench) {
            Some(disk) => disks.push(disk),
            None => println!(
                "SKIPPED: no disk of dm-flakey: that needs dmsetup and the kernel's flakey"
            ),
        }
        disks
    }

    fn too_small(bench: &Bench) -> Option<Self> {
        let memory = bench.path("memory");
        std::fs::create_dir(&memory).unwrap();
        let size = format!("size={}m", 2 * MEBIBYTES);
        if !succeeds(
            Command::new("mount")
                .args(["-t", "tmpfs", "-o", &size, "tmpfs"])
                .arg(&memory),
        ) {
            return None;
        }

        let image = new_image(&memory.join("image"));
        let disk = Self {
            place: bench.path("too-small"),
            device: image.clone(),
            image,
            kind: FailureKind::TooSmall { memory },
        };
        disk.made_and_mounted()
    }

    fn flakey(bench: &Bench) -> Option<Self> {
        let targets = Command::new("dmsetup").arg("targets").output().ok()?;
        if !String::from_utf8_lossy(&targets.stdout).contains("flakey") {
            return None;
        }

        let image = new_image(&bench.path("flakey.image"));
        let attached = Command::new("losetup")
            .args(["-f", "--show"])
            .arg(&image)
            .output()
            .ok()?;
        let image_device = String::from_utf8_lossy(&attached.stdout).trim().to_owned();
        let name = format!("kbackup-{}", std::process::id());
        let disk = Self {
            place: bench.path("flakey"),
            device: PathBuf::from(format!("/dev/mapper/{name}")),
            image,
            kind: FailureKind::Flakey { name, image_device },
        };
        if !disk.map(&["create"], "linear") {
            return None;
        }
        disk.made_and_mounted()
    }

    fn made_and_mounted(self) -> Option<Self> {
        std::fs::create_dir(&self.place).unwrap();
        self.is_made_and_mounted().then_some(self)
    }

    fn is_made_and_mounted(&self) -> bool {
        let mut make = Command::new("mkfs.ext4");
        make.args(["-q", "-F", "-O", "^has_journal"]);
        succeeds(make.arg(&self.device)) && self.mount()
    }

    /// Makes the disk anew. In an image that was written before, some writes would not fail.
    fn clear(&self) {
        assert!(succeeds(Command::new("umount").arg(&self.place)), "umount");
        if matches!(self.kind, FailureKind::TooSmall { .. }) {
            new_image(&self.image);
        }
        assert!(self.is_made_and_mounted(), "a new file system");
    }

    fn mount(&self) -> bool {
        let mut mount = Command::new("mount");
        if matches!(self.kind, FailureKind::TooSmall { .. }) {
            mount.args(["-o", "loop"]);
        }
        succeeds(mount.arg(&self.device).arg(&self.place))
    }

    /// Lets a `dmsetup` command read the table of a disk that works, or of one whose writes fail.
    fn map(&self, command: &[&str], target: &str) -> bool {
        let FailureKind::Flakey { name, image_device } = &self.kind else {
            return false;
        };
        let sectors = MEBIBYTES << 11;
        let table = match target {
            "flakey" => format!("0 {sectors} flakey {image_device} 0 0 1 1 error_writes"),
            _ => format!("0 {sectors} linear {image_device} 0"),
        };
        succeeds(
            Command::new("dmsetup")
                .args(command)
                .args([name, "--table", &table]),
        )
    }

    /// Gives a disk that is mounted another table.
    fn exchange(&self, name: &str, target: &str) {
        // Nothing is written out before: that would bring the bytes to the disk, or wait for ever.
        let suspend = ["suspend", "--nolockfs", "--noflush", name];
        assert!(succeeds(Command::new("dmsetup").args(suspend)), "suspend");
        assert!(self.map(&["reload"], target), "reload");
        assert!(
            succeeds(Command::new("dmsetup").args(["resume", name])),
            "resume"
        );
    }

    /// From here on, writes to new places fail.
    fn breaks(&self) {
        match &self.kind {
            FailureKind::TooSmall { memory } => {
                // The kernel refuses a size that is too small already, because it wrote meanwhile.
                while !resize(memory, used(memory)) {}
            }
            FailureKind::Flakey { name, .. } => self.exchange(name, "flakey"),
        }
    }

    fn works_again(&self) {
        match &self.kind {
            FailureKind::TooSmall { memory } => {
                assert!(
                    resize(memory, (2 * MEBIBYTES) << 20),
                    "the memory cannot grow"
                );
            }
            FailureKind::Flakey { name, .. } => self.exchange(name, "linear"),
        }
    }

    /// Mounts the disk anew: nothing of it is in memory any more.
    fn remount(&self) {
        assert!(succeeds(Command::new("umount").arg(&self.place)), "umount");
        assert!(self.mount(), "mount");
    }
}

impl Drop for FailingDisk {
    fn drop(&mut self) {
        let _ = succeeds(Command::new("umount").arg("-l").arg(&self.place));
        match &self.kind {
            FailureKind::TooSmall { memory } => {
                let _ = succeeds(Command::new("umount").arg("-l").arg(memory));
            }
            FailureKind::Flakey { name, image_device } => {
                let _ = succeeds(Command::new("dmsetup").args(["remove", "--retry", name]));
                let _ = succeeds(Command::new("losetup").args(["-d", image_device]));
            }
        }
        let _ = std::fs::remove_file(&self.image);
    }
}

fn new_image(path: &Path) -> PathBuf {
    let image = std::fs::File::create(path).unwrap();
    image.set_len(MEBIBYTES << 20).unwrap();
    path.to_owned()
}

/// Bytes of a file system that are in use.
fn used(memory: &Path) -> u64 {
    let found = rustix::fs::statvfs(memory).unwrap();
    (found.f_blocks - found.f_bfree) * found.f_frsize
}

fn resize(memory: &Path, bytes: u64) -> bool {
    let size = format!("remount,size={bytes}");
    succeeds(Command::new("mount").args(["-o", &size]).arg(memory))
}

/// What becomes of a run whose disk breaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ending {
    Error,
    Killed,
}

/// Somebody else syncs every file, and so takes the note of the failed write-back: the next sync of
/// kbackup succeeds.
fn take_the_errors(directory: &Path) {
    for entry in walkdir::WalkDir::new(directory) {
        let _ = std::fs::File::open(entry.unwrap().path()).and_then(|file| file.sync_all());
    }
}

/// Runs kbackup on a disk that breaks before an operation. The run ends with an error, or is killed
/// there.
fn run_on_breaking(disk: &FailingDisk, line: &[&str], fault: &str, ending: Ending, below: &Path) {
    match ending {
        Ending::Error => {
            let output = run_interrupted(line, fault, || disk.breaks());
            assert_eq!(output.status.code(), Some(1), "{fault}: {}", text(&output));
            assert!(
                text(&output).contains("hint:"),
                "{fault}: {}",
                text(&output)
            );
        }
        Ending::Killed => {
            let output = run_killed(line, fault, || disk.breaks());
            assert_eq!(
                output.status.signal(),
                Some(9),
                "{fault}: {}",
                text(&output)
            );
        }
    }
    take_the_errors(below);
    disk.works_again();
}

/// Repeats a verb that failed, and mounts the disk again.
fn repeat_and_remount(disk: &FailingDisk, line: &[&str], what: &str) {
    let output = kbackup(line, None);
    assert!(is_well(&output), "{what}: {}", text(&output));
    disk.remount();
}

/// Asserts that every file of a restored backup has the bytes of its row.
fn assert_every_byte(repository: &Path, label: &Label, target: &Path, what: &str) {
    let directories = Directories::new(target, None);
    let mut wrong = Vec::new();
    for row in &manifest(repository, label).files {
        let bytes = std::fs::read(directories.path_of(&row.path)).unwrap_or_default();
        if row.role != Role::Checkpoint && Blake3Hash::of(&bytes) != row.blake3 {
            wrong.push(row.path.to_string());
        }
    }
    assert_eq!(wrong, Vec::<String>::new(), "{what}");
}

#[test]
fn a_repeated_restore_does_not_trust_what_the_disk_has_lost() {
    let bench = Bench::new(&many_small_chunks());
    let repository = bench.path("repository");
    let label = bench.full().unwrap().label;

    for disk in FailingDisk::all(&bench) {
        let target = disk.place.join("target");
        let restore = [
            "restore",
            label.as_str(),
            "--repo",
            argument(&repository),
            "--to",
            argument(&target),
        ];

        let mut chance = Chance::new(seed());
        for ending in [Ending::Error, Ending::Killed] {
            for _ in 0..amount(2, 12) {
                let moment = 1 + chance.below(20);
                let fault = format!("sync:{}/chunk-:{moment}:stop", target.display());
                let what = format!("{ending:?} at {fault}");

                run_on_breaking(&disk, &restore, &fault, ending, &target);
                repeat_and_remount(&disk, &restore, &what);

                assert_every_byte(&repository, &label, &target, &what);
                assert_complete(&repository, &label, bench.line, &target, &what);
                disk.clear();
            }
        }
    }
}

#[test]
fn a_repeated_backup_does_not_trust_what_the_disk_has_lost() {
    let bench = Bench::new(&many_small_chunks());

    for disk in FailingDisk::all(&bench) {
        let mut chance = Chance::new(seed());
        for ending in [Ending::Error, Ending::Killed] {
            for round in 0..amount(2, 12) {
                let repository = disk.place.join(format!("{ending:?}-{round}"));
                DirectoryRepository::create(&repository).unwrap();
                let full = [
                    "full",
                    "--offline",
                    "--db",
                    argument(&bench.db),
                    "--repo",
                    argument(&repository),
                ];
                let moment = 1 + chance.below(20);
                let fault = format!("sync:{}/incoming/:{moment}:stop", repository.display());
                let what = format!("{ending:?} at {fault}");

                run_on_breaking(&disk, &full, &fault, ending, &repository);
                repeat_and_remount(&disk, &full, &what);

                let labels = listed(&repository, Depth::Deep, &what);
                assert_eq!(labels.len(), 1, "{what}");
                let target = bench.path("restored");
                assert_restores(&repository, &labels[0], bench.line, &target, &what);
                disk.clear();
            }
        }
    }
}
