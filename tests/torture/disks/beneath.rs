//! Bytes that change on the disk while the page cache goes on showing the old ones. What kbackup says
//! of stored files is said of the disk.

use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use kbackup::proof::Depth;
use kbackup::repository::{DirectoryRepository, Repository};

use super::mounted::{Disk, succeeds};
use crate::backup::bench::{Bench, small};
use crate::torture::subject::{argument, is_well, kbackup, listed, text};

/// No block of an ext4 is smaller.
const BLOCK: usize = 1024;
const CHUNK: &str = "db/chunk-000002.000000";

/// A repository on a disk of its own.
struct OnDisk {
    bench: Bench,
    disk: Disk,
    repository: DirectoryRepository,
}

impl OnDisk {
    /// Takes this many stored.
    fn with_fulls(count: usize) -> Option<Self> {
        let bench = Bench::new(&small());
        let disk = Disk::new(&bench, "ext4", &["mkfs.ext4", "-q", "-F"], 48)?;
        let repository = DirectoryRepository::create(&disk.place.join("repository")).unwrap();
        let made = Self {
            bench,
            disk,
            repository,
        };
        for _ in 0..count {
            let output = made.kbackup("full", &["--offline", "--db", argument(&made.bench.db)]);
            assert_eq!(output.status.code(), Some(0), "{}", text(&output));
        }
        Some(made)
    }

    fn kbackup(&self, verb: &str, options: &[&str]) -> std::process::Output {
        let place = self.repository.place();
        let mut line = vec![verb, "--repo", &place];
        line.extend(options);
        kbackup(&line, None)
    }

    /// Changes six bytes of a file of one backup on the disk, below the file system. Whoever reads
    /// the file through the page cache sees the old bytes.
    fn change_beneath(&self, path: &str, offset: usize) {
        assert!(succeeds(
            Command::new("sync").arg("-f").arg(&self.disk.place)
        ));
        let place = PathBuf::from(self.repository.place()).join("backups");
        let backups = self.repository.list().unwrap();
        let paths = backups
            .iter()
            .map(|backup| place.join(backup.label.as_str()).join(path));
        let paths: Vec<PathBuf> = paths.collect();
        let cached: Vec<Vec<u8>> = paths
            .iter()
            .map(|path| std::fs::read(path).unwrap())
            .collect();

        let start = offset - offset % BLOCK;
        let bytes = &cached[0];
        let end = bytes.len().min(start + BLOCK);
        let block = self.disk.place_of(&bytes[start..end]);
        let changed: Vec<u8> = bytes[offset..offset + 6].iter().map(|byte| !byte).collect();
        let image = std::fs::OpenOptions::new()
            .write(true)
            .open(&self.disk.image)
            .unwrap();
        image
            .write_all_at(&changed, block + (offset - start) as u64)
            .unwrap();

        for (path, bytes) in paths.iter().zip(cached) {
            assert!(
                std::fs::read(path).unwrap() == bytes,
                "a page has left the cache"
            );
        }
    }
}

impl Disk {
    /// Where a block lies on the disk. If several files have the same bytes, it is any one of them.
    fn place_of(&self, block: &[u8]) -> u64 {
        let image = std::fs::read(&self.image).unwrap();
        let mut blocks = image.chunks(BLOCK);
        let place = blocks.position(|other| other.starts_with(block));
        (place.unwrap() * BLOCK) as u64
    }
}

#[test]
fn a_verification_reads_the_disk_and_not_the_page_cache() {
    // The middle of a chunk, its header, and the manifest.
    let changes = [
        (CHUNK, 9_000, "--deep"),
        (CHUNK, 9_000, "--all"),
        (CHUNK, 2, "--quick"),
        ("manifest.json", 2_000, "--quick"),
    ];
    for (path, offset, option) in changes {
        let Some(stored) = OnDisk::with_fulls(1) else {
            return;
        };
        let before = stored.kbackup("verify", &[option]);
        assert_eq!(before.status.code(), Some(0), "{option}: {}", text(&before));

        stored.change_beneath(path, offset);
        let output = stored.kbackup("verify", &[option, "--json"]);
        let what = format!("{option} {path}: {}", text(&output));
        assert_eq!(output.status.code(), Some(20), "{what}");
    }
}

#[test]
fn a_recheck_reads_the_disk_and_not_the_page_cache() {
    let Some(stored) = OnDisk::with_fulls(1) else {
        return;
    };
    stored.change_beneath(CHUNK, 9_000);

    let options = [
        "--offline",
        "--recheck",
        "100%",
        "--db",
        argument(&stored.bench.db),
    ];
    let output = stored.kbackup("diff", &options);
    assert_eq!(output.status.code(), Some(3), "{}", text(&output));
    assert!(
        text(&output).contains(&format!("{CHUNK} is damaged in")),
        "{}",
        text(&output)
    );
}

#[test]
fn a_repair_reads_the_disk_and_not_the_page_cache() {
    let Some(stored) = OnDisk::with_fulls(2) else {
        return;
    };
    stored.change_beneath(CHUNK, 9_000);

    let output = stored.kbackup("verify", &["--all", "--repair"]);
    assert!(is_well(&output), "{}", text(&output));
    stored.disk.mount_again();
    let place = stored.repository.place();
    assert_eq!(
        listed(Path::new(&place), Depth::Deep, "after a repair").len(),
        2
    );
}
