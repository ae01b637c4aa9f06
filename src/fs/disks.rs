//! Which disks hold a file system.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::error::Result;
use super::mounts::source_of_device;
use super::status::status_of_target;

/// Where the kernel describes its devices.
const KERNEL: &str = "/sys";
/// Devices of devices of devices: an image in a volume on an array on partitions.
const DEEPEST: u32 = 8;

/// Whether two existing paths would be lost with one disk: they are on one file system, or on file
/// systems with a disk in common. Returns false if a path does not exist, and if the kernel does not
/// tell.
pub fn on_same_disk(one: &Path, other: &Path) -> Result<bool> {
    let (Some(one), Some(other)) = (status_of_target(one)?, status_of_target(other)?) else {
        return Ok(false);
    };

    let kernel = Path::new(KERNEL);
    let one = LostTogether::with(one.device, kernel);
    let other = LostTogether::with(other.device, kernel);
    Ok(one.overlaps(&other))
}

/// What a file system is made of. If a part is lost, the file system is lost.
#[derive(Debug, Default)]
struct LostTogether {
    /// Device numbers of the file system itself, and of those that hold it in an image file.
    file_systems: BTreeSet<u64>,
    /// Names of disks. Empty if everything is in memory, in a network, or unknown.
    disks: BTreeSet<String>,
}

impl LostTogether {
    /// Everything below the file system with this device number. `kernel` is the directory in which
    /// the kernel describes its devices.
    fn with(file_system: u64, kernel: &Path) -> Self {
        let mut parts = Self::default();
        parts.add_file_system(file_system, kernel, DEEPEST);
        parts
    }

    fn overlaps(&self, other: &Self) -> bool {
        !self.file_systems.is_disjoint(&other.file_systems) || !self.disks.is_disjoint(&other.disks)
    }

    fn add_file_system(&mut self, device: u64, kernel: &Path, deepest: u32) {
        self.file_systems.insert(device);
        if let Some(directory) = directory_of(device, kernel) {
            self.add_device(&directory, kernel, deepest);
        }
    }

    /// Adds what a block device is made of.
    fn add_device(&mut self, directory: &Path, kernel: &Path, deepest: u32) {
        let whole = whole_device(directory);

        if let Some(deeper) = deepest.checked_sub(1) {
            // A loop device shows a file as a block device.
            if let Some(file_system) = backing_file_system(whole) {
                self.add_file_system(file_system, kernel, deeper);
                return;
            }

            let below = devices_below(whole);
            for device in &below {
                self.add_device(device, kernel, deeper);
            }
            if !below.is_empty() {
                return;
            }
        }

        let name = whole.file_name();
        self.disks
            .extend(name.map(|name| name.to_string_lossy().into_owned()));
    }
}

/// The kernel's directory of a block device. A file system such as btrfs has a device number of its
/// own, so its source is looked up in the list of mounts.
fn directory_of(device: u64, kernel: &Path) -> Option<PathBuf> {
    if let Some(directory) = of_number(device, kernel) {
        return Some(directory);
    }
    let source = std::fs::metadata(source_of_device(device)?).ok()?;
    if source.file_type().is_block_device() {
        return of_number(source.rdev(), kernel);
    }
    None
}

fn of_number(device: u64, kernel: &Path) -> Option<PathBuf> {
    let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
    let link = kernel.join(format!("dev/block/{major}:{minor}"));
    std::fs::canonicalize(link).ok()
}

/// The directory of a partition lies in that of its disk, which says what both are made of.
fn whole_device(directory: &Path) -> &Path {
    match directory.parent() {
        Some(parent) if directory.join("partition").exists() => parent,
        _ => directory,
    }
}

/// The devices that an array or a volume is made of.
fn devices_below(directory: &Path) -> Vec<PathBuf> {
    let mut below = Vec::new();
    let slaves = std::fs::read_dir(directory.join("slaves"));
    for entry in slaves.into_iter().flatten().flatten() {
        below.extend(std::fs::canonicalize(entry.path()));
    }
    below
}

/// The device number of the file system that holds the file behind a loop device. Returns `None`
/// for another device, and if the file cannot be found: it was removed, or this process sees other
/// mounts than the one that set the device up.
fn backing_file_system(directory: &Path) -> Option<u64> {
    let mut path = std::fs::read(directory.join("loop/backing_file")).ok()?;
    if path.last() == Some(&b'\n') {
        path.pop();
    }
    let file = PathBuf::from(OsString::from_vec(path));
    Some(std::fs::metadata(file).ok()?.dev())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

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

    /// A directory like the kernel's.
    struct Kernel(tempfile::TempDir);

    impl Kernel {
        fn new() -> Self {
            Self(tempfile::tempdir().unwrap())
        }

        fn path(&self, name: &str) -> PathBuf {
            self.0.path().join(name)
        }

        fn device(&self, name: &str, number: u64) {
            std::fs::create_dir_all(self.path(name)).unwrap();
            let (major, minor) = (rustix::fs::major(number), rustix::fs::minor(number));
            std::fs::create_dir_all(self.path("dev/block")).unwrap();
            let link = self.path(&format!("dev/block/{major}:{minor}"));
            symlink(self.path(name), link).unwrap();
        }

        fn partition(&self, name: &str, number: u64) {
            self.device(name, number);
            std::fs::write(self.path(name).join("partition"), "1\n").unwrap();
        }

        /// An array or a volume, made of other devices.
        fn made_of(&self, name: &str, number: u64, devices: &[&str]) {
            self.device(name, number);
            let slaves = self.path(name).join("slaves");
            std::fs::create_dir(&slaves).unwrap();
            for device in devices {
                let below = self.path(device);
                symlink(&below, slaves.join(below.file_name().unwrap())).unwrap();
            }
        }

        fn loop_device(&self, name: &str, number: u64, file: &Path) {
            self.device(name, number);
            std::fs::create_dir(self.path(name).join("loop")).unwrap();
            let text = format!("{}\n", file.display());
            std::fs::write(self.path(name).join("loop/backing_file"), text).unwrap();
        }

        fn disks(&self, number: u64) -> Vec<String> {
            let parts = LostTogether::with(number, self.0.path());
            parts.disks.into_iter().collect()
        }
    }

    /// Numbers that no device of this machine has.
    fn number(minor: u32) -> u64 {
        rustix::fs::makedev(4000, minor)
    }

    #[test]
    fn a_partition_a_volume_and_an_array_are_on_their_disks() {
        let kernel = Kernel::new();
        kernel.device("sda", number(1));
        kernel.partition("sda/sda1", number(2));
        kernel.device("sdb", number(3));
        kernel.made_of("md0", number(4), &["sda/sda1", "sdb"]);
        kernel.partition("md0/md0p1", number(5));
        kernel.made_of("dm-0", number(6), &["md0/md0p1"]);

        assert_eq!(kernel.disks(number(1)), ["sda"]);
        assert_eq!(kernel.disks(number(2)), ["sda"]);
        for of_array in [4, 5, 6] {
            assert_eq!(kernel.disks(number(of_array)), ["sda", "sdb"], "{of_array}");
        }
        assert!(kernel.disks(number(7)).is_empty());
    }

    #[test]
    fn a_loop_device_is_on_the_disk_of_its_file() {
        let kernel = Kernel::new();
        let image = kernel.path("an image");
        std::fs::write(&image, "").unwrap();
        let around = image.metadata().unwrap().dev();
        kernel.device("sda", around);

        kernel.loop_device("loop0", number(1), &image);
        kernel.partition("loop0/loop0p1", number(2));
        kernel.made_of("dm-0", number(3), &["loop0/loop0p1"]);
        kernel.loop_device("loop1", number(4), &kernel.path("removed (deleted)"));

        for on_image in [1, 2, 3] {
            assert_eq!(kernel.disks(number(on_image)), ["sda"], "{on_image}");
            // Also if the kernel does not tell the disk of the file system around it.
            let parts = LostTogether::with(number(on_image), kernel.0.path());
            assert!(parts.file_systems.contains(&around), "{on_image}");
        }
        assert_eq!(kernel.disks(number(4)), ["loop1"]);
    }

    /// A device that is made of itself can only be a mistake, but must not stop a backup.
    #[test]
    fn a_circle_of_devices_ends() {
        let kernel = Kernel::new();
        kernel.device("dm-1", number(1));
        kernel.made_of("dm-0", number(2), &["dm-1"]);
        std::fs::create_dir(kernel.path("dm-1/slaves")).unwrap();
        symlink(kernel.path("dm-0"), kernel.path("dm-1/slaves/dm-0")).unwrap();

        assert_eq!(kernel.disks(number(1)).len(), 1);
    }
}
