//! Which disks hold a file system.

use std::collections::BTreeSet;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::error::Result;
use super::mounts::source_of_device;
use super::status::status_of_target;

const BLOCK_DEVICES: &str = "/sys/dev/block";
/// Devices of devices of devices: volumes on an array on partitions.
const DEEPEST: u32 = 8;

/// Whether two existing paths would be lost with one disk: they are on one file system, or on file
/// systems with a disk in common. Returns false if a path does not exist, and if the kernel does not
/// tell.
pub fn on_same_disk(one: &Path, other: &Path) -> Result<bool> {
    let (Some(one), Some(other)) = (status_of_target(one)?, status_of_target(other)?) else {
        return Ok(false);
    };
    if one.device == other.device {
        return Ok(true);
    }
    Ok(!disks(one.device).is_disjoint(&disks(other.device)))
}

/// The names of the disks below a file system. Empty if it is in memory, in a network, or unknown.
fn disks(device: u64) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    if let Some(directory) = directory_of(device) {
        add_disks(&directory, DEEPEST, &mut found);
    }
    found
}

/// The kernel's directory of a block device. A file system such as btrfs has a device number of its
/// own, so its source is looked up in the list of mounts.
fn directory_of(device: u64) -> Option<PathBuf> {
    if let Some(directory) = of_number(device) {
        return Some(directory);
    }
    let source = std::fs::metadata(source_of_device(device)?).ok()?;
    if source.file_type().is_block_device() {
        return of_number(source.rdev());
    }
    None
}

fn of_number(device: u64) -> Option<PathBuf> {
    let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
    let link = Path::new(BLOCK_DEVICES).join(format!("{major}:{minor}"));
    std::fs::canonicalize(link).ok()
}

/// Adds the disks that a block device is made of.
fn add_disks(directory: &Path, deepest: u32, found: &mut BTreeSet<String>) {
    let mut below = Vec::new();
    for entry in std::fs::read_dir(directory.join("slaves"))
        .into_iter()
        .flatten()
    {
        below.extend(
            entry
                .ok()
                .and_then(|entry| std::fs::canonicalize(entry.path()).ok()),
        );
    }

    if !below.is_empty() && deepest > 0 {
        for device in below {
            add_disks(&device, deepest - 1, found);
        }
        return;
    }

    // The directory of a partition lies in that of its disk.
    let is_partition = directory.join("partition").exists();
    let disk = if is_partition {
        directory.parent()
    } else {
        Some(directory)
    };
    let name = disk.and_then(Path::file_name);
    found.extend(name.map(|name| name.to_string_lossy().into_owned()));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_file_system_is_on_one_disk() {
        let place = tempfile::tempdir().unwrap();
        let below = place.path().join("below");
        assert!(!on_same_disk(place.path(), &below).unwrap());
        std::fs::create_dir(&below).unwrap();
        assert!(on_same_disk(place.path(), &below).unwrap());
        assert!(!on_same_disk(place.path(), Path::new("/proc")).unwrap());
    }

    #[test]
    fn a_partition_and_a_volume_are_on_their_disk() {
        let place = tempfile::tempdir().unwrap();
        let kernel = place.path();
        std::fs::create_dir_all(kernel.join("sda/sda1")).unwrap();
        std::fs::write(kernel.join("sda/sda1/partition"), "1").unwrap();
        std::fs::create_dir_all(kernel.join("dm-0/slaves")).unwrap();
        std::os::unix::fs::symlink(kernel.join("sda/sda1"), kernel.join("dm-0/slaves/sda1"))
            .unwrap();

        for device in ["sda", "sda/sda1", "dm-0"] {
            let mut found = BTreeSet::new();
            add_disks(&kernel.join(device), DEEPEST, &mut found);
            assert_eq!(found, BTreeSet::from(["sda".to_owned()]), "{device}");
        }
    }
}
