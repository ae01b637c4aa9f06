//! Where other file systems are mounted. What is mounted inside a directory is somebody else's, even
//! if it is a part of the same file system (a bind mount).

use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::error::{IoError, Operation, Result};
use super::gate::attempt;

const MOUNTS: &str = "/proc/self/mountinfo";

/// A mount point at or below `top`. Returns `None` if there is none, or if `top` does not exist.
pub fn mount_inside(top: &Path) -> Result<Option<PathBuf>> {
    attempt(Operation::Inspect, top, || {
        let real = match std::fs::canonicalize(top) {
            Ok(real) => real,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };

        match std::fs::read(MOUNTS) {
            Ok(text) => Ok(mount_points(&text).find(|point| point.starts_with(&real))),
            // A sandbox may hide `/proc`. Then only other file systems are found.
            Err(_) => other_device(&real),
        }
    })
}

/// Fails if something is mounted at or below a directory that is to be removed.
pub(super) fn refuse_mounts(top: &Path) -> Result<()> {
    match mount_inside(top)? {
        None => Ok(()),
        Some(path) => Err(IoError {
            operation: Operation::Remove,
            path,
            source: io::Error::new(
                io::ErrorKind::ResourceBusy,
                "another file system is mounted there",
            ),
        }),
    }
}

/// What is mounted with this device number, such as `/dev/sda2`. Returns `None` if that is unknown.
pub(super) fn source_of_device(device: u64) -> Option<PathBuf> {
    let text = std::fs::read(MOUNTS).ok()?;
    let number = format!(
        "{}:{}",
        rustix::fs::major(device),
        rustix::fs::minor(device)
    );

    for line in text.split(|byte| *byte == b'\n') {
        let mut fields = line.split(|byte| *byte == b' ');
        if fields.nth(2) != Some(number.as_bytes()) {
            continue;
        }
        // The source is the second field behind a dash.
        let source = fields.skip_while(|field| *field != b"-").nth(2)?;
        return Some(PathBuf::from(OsString::from_vec(unescaped(source))));
    }
    None
}

/// The mount points that the kernel lists, one in each line (`proc_pid_mountinfo(5)`).
fn mount_points(text: &[u8]) -> impl Iterator<Item = PathBuf> {
    text.split(|byte| *byte == b'\n').filter_map(mount_point)
}

/// The fifth field of a line.
fn mount_point(line: &[u8]) -> Option<PathBuf> {
    let field = line.split(|byte| *byte == b' ').nth(4)?;
    Some(PathBuf::from(OsString::from_vec(unescaped(field))))
}

/// The kernel writes a space, a tab, a line break and a backslash as a backslash with three octal
/// digits.
fn unescaped(field: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((first, after)) = rest.split_first() {
        let digits = after
            .get(..3)
            .and_then(|digits| std::str::from_utf8(digits).ok());
        let escaped = digits.and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match escaped {
            Some(byte) if *first == b'\\' => {
                bytes.push(byte);
                rest = after.get(3..).unwrap_or_default();
            }
            _ => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    bytes
}

/// A directory at or below `top` on another device than the directory above it.
fn other_device(top: &Path) -> io::Result<Option<PathBuf>> {
    let above = std::fs::metadata(top.parent().unwrap_or(top))?.dev();
    let mut directories = vec![(top.to_owned(), above)];

    while let Some((directory, above)) = directories.pop() {
        let status = std::fs::symlink_metadata(&directory)?;
        if status.dev() != above {
            return Ok(Some(directory));
        }
        if !status.is_dir() {
            continue;
        }
        for entry in std::fs::read_dir(&directory)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                directories.push((entry.path(), status.dev()));
            }
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mount_points_are_found_in_the_list_of_the_kernel() {
        let text = b"22 1 0:21 / /proc rw,nosuid - proc proc rw\n\
            23 1 8:1 / / rw - ext4 /dev/sda1 rw\n\
            24 23 8:1 /data /backup\\040of\\134it/in rw - ext4 /dev/sda1 rw\n\n";
        let found: Vec<PathBuf> = mount_points(text).collect();
        assert_eq!(
            found,
            ["/proc", "/", "/backup of\\it/in"].map(PathBuf::from)
        );
    }

    #[test]
    fn a_directory_that_is_no_mount_point_holds_none() {
        let place = tempfile::tempdir().unwrap();
        std::fs::create_dir(place.path().join("below")).unwrap();
        assert_eq!(mount_inside(place.path()).unwrap(), None);
        assert_eq!(other_device(place.path()).unwrap(), None);
        assert_eq!(mount_inside(&place.path().join("none")).unwrap(), None);
    }

    #[test]
    fn the_kernels_own_mounts_are_found() {
        assert_eq!(
            mount_inside(Path::new("/proc")).unwrap(),
            Some(PathBuf::from("/proc"))
        );
        assert_eq!(
            other_device(Path::new("/proc")).unwrap(),
            Some(PathBuf::from("/proc"))
        );
        assert!(refuse_mounts(Path::new("/proc")).is_err());
    }
}
