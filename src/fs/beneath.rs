//! Walks paths below a directory, and never leaves it.
//!
//! An attacker could plant a link below the directory that leads anywhere. The kernel refuses to
//! follow it (`openat2` with `RESOLVE_BENEATH`, Linux 5.6), in one step without a race. If the
//! kernel does not have that call, or a sandbox forbids it, kbackup inspects each part of the path
//! before it uses it.

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Component, Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use super::error::{IoError, Operation, Result};
use super::file::File;
use super::gate::attempt;
use super::open::{expect_plain_file, open_source};
use super::status::{FileKind, status};

/// The kernel has refused `openat2` once. It is not asked again.
static IS_REFUSED: AtomicBool = AtomicBool::new(false);

/// A directory below which paths are walked.
#[derive(Debug)]
pub struct Beneath {
    directory: OwnedFd,
    path: PathBuf,
}

impl Beneath {
    /// Opens the directory itself, which must not be a link.
    ///
    /// # Errors
    /// `NotADirectory` if it is a link, or no directory.
    pub fn new(path: &Path) -> Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let directory = attempt(Operation::Open, path, || {
            Ok(rustix::fs::open(path, flags, Mode::empty())?)
        })?;
        Ok(Self {
            directory,
            path: path.to_owned(),
        })
    }

    /// Opens a regular file for reading. No part of `below` may be a link.
    ///
    /// # Errors
    /// [`IoError::is_not_found`] if a part of the path does not exist;
    /// [`IoError::is_no_plain_file`] if a part of it is a link, or the file is not a regular one.
    pub fn open(&self, below: &Path) -> Result<File> {
        let path = self.path.join(below);
        if !IS_REFUSED.load(Ordering::Relaxed)
            && let Some(opened) = self.ask_kernel(below, &path)
        {
            return opened;
        }
        self.look_and_open(below, &path)
    }

    /// Lets the kernel walk the path. `None` if it cannot.
    fn ask_kernel(&self, below: &Path, path: &Path) -> Option<Result<File>> {
        let opened = attempt(Operation::Open, path, || {
            let opened = match self.openat2(below, OFlags::NOATIME) {
                // Only the owner of a file may leave its access time alone.
                Err(Errno::PERM) => self.openat2(below, OFlags::empty()),
                opened => opened,
            };
            opened.map_err(io::Error::from)
        });

        match opened {
            Err(error) if is_refused(&error) => {
                IS_REFUSED.store(true, Ordering::Relaxed);
                None
            }
            Err(error) => Some(Err(error)),
            Ok(file) => Some(File::new(file.into(), path).and_then(expect_plain_file)),
        }
    }

    fn openat2(&self, below: &Path, extra: OFlags) -> rustix::io::Result<OwnedFd> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC | extra;
        let resolve =
            ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        let open = || rustix::fs::openat2(&self.directory, below, flags, Mode::empty(), resolve);
        rustix::io::retry_on_intr(open)
    }

    /// Looks at each directory on the way, and then opens the file.
    fn look_and_open(&self, below: &Path, path: &Path) -> Result<File> {
        let mut directory = self.path.clone();
        let mut parts = below.components().peekable();
        while let Some(part) = parts.next() {
            let Component::Normal(name) = part else {
                return Err(failed(path, io::ErrorKind::InvalidInput));
            };
            if parts.peek().is_none() {
                break;
            }

            directory.push(name);
            match status(&directory)? {
                Some(status) if status.kind == FileKind::Directory => {}
                Some(_) => return Err(failed(path, io::ErrorKind::NotADirectory)),
                None => return Err(failed(path, io::ErrorKind::NotFound)),
            }
        }
        open_source(path)
    }
}

/// The kernel does not know `openat2`, or a sandbox forbids it.
fn is_refused(error: &IoError) -> bool {
    matches!(
        Errno::from_io_error(&error.source),
        Some(Errno::NOSYS | Errno::PERM)
    )
}

fn failed(path: &Path, kind: io::ErrorKind) -> IoError {
    IoError {
        operation: Operation::Open,
        path: path.to_owned(),
        source: kind.into(),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    /// The result of both ways for a path: the file's length, or what is wrong.
    fn opened(beneath: &Beneath, below: &str) -> [std::result::Result<u64, &'static str>; 2] {
        let below = Path::new(below);
        let path = beneath.path.join(below);
        let by_kernel = beneath.ask_kernel(below, &path);
        let by_looking = beneath.look_and_open(below, &path);

        let both = [by_kernel.unwrap_or_else(|| beneath.open(below)), by_looking];
        both.map(|opened| match opened {
            Ok(file) => Ok(file.found().size),
            Err(error) if error.is_not_found() => Err("gone"),
            Err(error) if error.is_no_plain_file() => Err("not plain"),
            Err(error) => {
                assert_eq!(
                    Errno::from_io_error(&error.source),
                    Some(Errno::XDEV),
                    "{error}"
                );
                Err("not plain")
            }
        })
    }

    #[test]
    fn no_path_leads_out_of_the_directory() {
        let place = tempfile::tempdir().unwrap();
        let top = place.path().join("top");
        std::fs::create_dir_all(top.join("db/index")).unwrap();
        std::fs::write(top.join("db/chunk"), "events").unwrap();
        std::fs::write(place.path().join("secret"), "secret").unwrap();
        symlink("db", top.join("link")).unwrap();
        symlink("chunk", top.join("db/also")).unwrap();
        symlink(place.path(), top.join("out")).unwrap();

        let beneath = Beneath::new(&top).unwrap();
        assert_eq!(opened(&beneath, "db/chunk"), [Ok(6), Ok(6)]);
        for gone in ["db/none", "none/chunk"] {
            assert_eq!(opened(&beneath, gone), [Err("gone"); 2], "{gone}");
        }
        let wrong = [
            "link/chunk",
            "db/also",
            "out/secret",
            "../secret",
            "db/index",
            "db/chunk/x",
        ];
        for wrong in wrong {
            assert_eq!(opened(&beneath, wrong), [Err("not plain"); 2], "{wrong}");
        }
    }

    #[test]
    fn the_directory_itself_is_no_link() {
        let place = tempfile::tempdir().unwrap();
        symlink(place.path(), place.path().join("link")).unwrap();
        assert!(Beneath::new(&place.path().join("link")).is_err());
        assert!(
            Beneath::new(&place.path().join("none"))
                .unwrap_err()
                .is_not_found()
        );
    }
}
