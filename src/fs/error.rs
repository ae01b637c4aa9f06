//! What can go wrong at the file system, as a value: what was tried, on which path, and why it
//! failed.

use std::fmt;
use std::io;
use std::path::PathBuf;

use rustix::io::Errno;

/// What was tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "each is the name of a system call's purpose")]
pub enum Operation {
    Open,
    Create,
    Read,
    Write,
    Truncate,
    Sync,
    Rename,
    Link,
    Remove,
    List,
    Inspect,
    Seek,
    SetMode,
    SetOwner,
    SetTime,
    Lock,
    Clone,
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verb = match self {
            Self::Open => "open",
            Self::Create => "create",
            Self::Read => "read",
            Self::Write => "write",
            Self::Truncate => "set the length of",
            Self::Sync => "sync",
            Self::Rename => "rename",
            Self::Link => "link",
            Self::Remove => "remove",
            Self::List => "list",
            Self::Inspect => "inspect",
            Self::Seek => "find data and holes of",
            Self::SetMode => "set the mode of",
            Self::SetOwner => "set the owner of",
            Self::SetTime => "set the time of",
            Self::Lock => "lock",
            Self::Clone => "clone",
        };

        f.write_str(verb)
    }
}

/// A failed operation on a path.
#[derive(Debug, thiserror::Error)]
#[error("cannot {operation} `{}`", path.display())]
pub struct IoError {
    /// What was tried.
    pub operation: Operation,
    /// The path that it was tried on.
    pub path: PathBuf,
    /// Why it failed.
    pub source: io::Error,
}

impl IoError {
    /// The path, or a part of it, does not exist.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        self.source.kind() == io::ErrorKind::NotFound
    }

    /// The path names a link, a directory, a pipe or a socket, but a plain file was wanted.
    #[must_use]
    pub fn is_no_plain_file(&self) -> bool {
        let is_other_kind = matches!(
            self.source.kind(),
            io::ErrorKind::InvalidInput
                | io::ErrorKind::IsADirectory
                | io::ErrorKind::NotADirectory
        );
        let is_link_or_socket = matches!(
            Errno::from_io_error(&self.source),
            Some(Errno::LOOP | Errno::NXIO)
        );

        is_other_kind || is_link_or_socket
    }
}

/// What this module's functions return.
pub type Result<T> = std::result::Result<T, IoError>;
