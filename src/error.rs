//! The error that a room hands to the rooms above it: a value for the user, which says what failed,
//! on what, why, and what helps. Its kind decides the exit code.

use std::error::Error as StdError;
use std::fmt;
use std::io::ErrorKind;
use std::path::Path;

use rustix::io::Errno;

use crate::fs::{self, IoError};
use crate::users;

/// Why a command failed. Each kind is one exit code (the table is in the guide).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Any failure that has no exit code of its own.
    Failed,
    /// The command line, the environment or the configuration file is wrong.
    Usage,
    /// There is no repository, or no such backup.
    NotFound,
    /// Another run holds the repository, or works on the node.
    Locked,
    /// Wrong credentials, or permission denied.
    Denied,
    /// The node or the storage cannot be reached, also after retries.
    Unreachable,
    /// The storage could not be reached for a moment, and another attempt may succeed. If no
    /// attempt is left, the run ends as with [`Self::Unreachable`].
    Transient,
    /// Stored data is damaged.
    StoredCorrupt,
    /// The node's files are inconsistent or corrupt.
    SourceCorrupt,
    /// The source kept changing, or the node is not fit, also after retries.
    Unstable,
    /// A scavenge runs, and the run may not stop it.
    Scavenging,
    /// Refused for safety.
    Refused,
    /// The run was told to end, and ended cleanly.
    Interrupted(Cause),
}

/// Why a run was told to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// A signal.
    Signal(Signal),
    /// The hours in which the run is allowed are over.
    WindowClosed,
    /// The node was without scavenging for as long as is allowed.
    PausedTooLong,
    /// A backup is due, and goes before a verification.
    BackupDue,
}

/// A signal that ends a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// SIGINT, which Ctrl-C sends.
    Interrupt,
    /// SIGTERM, which supervisors send.
    Terminate,
}

impl Kind {
    /// The exit code of the process.
    #[must_use]
    pub const fn exit_code(self) -> u8 {
        match self {
            Self::Failed => 1,
            Self::Usage => 2,
            Self::NotFound => 10,
            Self::Locked => 11,
            Self::Denied => 12,
            Self::Unreachable | Self::Transient => 13,
            Self::StoredCorrupt => 20,
            Self::SourceCorrupt => 21,
            Self::Unstable | Self::Scavenging | Self::Interrupted(Cause::PausedTooLong) => 22,
            Self::Refused => 23,
            Self::Interrupted(Cause::Signal(Signal::Interrupt)) => 130,
            Self::Interrupted(
                Cause::Signal(Signal::Terminate) | Cause::WindowClosed | Cause::BackupDue,
            ) => 143,
        }
    }

    /// The name of this kind in JSON output.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Failed => "failed",
            Self::Usage => "usage",
            Self::NotFound => "not-found",
            Self::Locked => "locked",
            Self::Denied => "denied",
            Self::Unreachable | Self::Transient => "unreachable",
            Self::StoredCorrupt => "stored-corrupt",
            Self::SourceCorrupt => "source-corrupt",
            Self::Unstable => "unstable",
            Self::Scavenging => "scavenging",
            Self::Refused => "refused",
            Self::Interrupted(Cause::Signal(_)) => "interrupted",
            Self::Interrupted(Cause::WindowClosed) => "window-closed",
            Self::Interrupted(Cause::BackupDue) => "backup-due",
            Self::Interrupted(Cause::PausedTooLong) => "paused-too-long",
        }
    }
}

/// An error for the user: what failed, on which path or URL, why, and what helps.
#[derive(Debug)]
pub struct Error(Box<Inner>);

#[derive(Debug)]
struct Inner {
    kind: Kind,
    what: String,
    on: Option<String>,
    cause: Option<Box<dyn StdError + Send + Sync>>,
    hints: Vec<String>,
}

/// The result of every room above `format`.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// An error that says what failed: "cannot read the writer checkpoint".
    pub fn new(kind: Kind, what: impl Into<String>) -> Self {
        Self(Box::new(Inner {
            kind,
            what: what.into(),
            on: None,
            cause: None,
            hints: Vec::new(),
        }))
    }

    /// Adds the path on which it failed.
    #[must_use]
    pub fn at(self, path: &Path) -> Self {
        self.on(path.display())
    }

    /// Adds what it failed on if that is not a path, such as a URL or a backup's label.
    #[must_use]
    pub fn on(mut self, place: impl fmt::Display) -> Self {
        self.0.on = Some(place.to_string());
        self
    }

    /// Adds the cause.
    #[must_use]
    pub fn because(mut self, cause: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.0.cause = Some(cause.into());
        self
    }

    /// Adds a hint: an instruction that the operator can follow now.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.0.hints.push(hint.into());
        self
    }

    /// The error of a read. If a store of kbackup's own gave it, it stays what it is: see
    /// [`Self::passed_on`].
    pub fn of_read(what: impl Into<String>, error: std::io::Error) -> Self {
        match Self::passed_on(error) {
            Ok(error) => error,
            Err(error) => Self::new(Kind::Failed, what).because(error),
        }
    }

    /// The error of a store of kbackup that came through an [`std::io::Error`]: a file of an object
    /// store is read like every other file. Gives the error of the operating system back.
    ///
    /// # Errors
    /// The given error, if it is not kbackup's own.
    pub fn passed_on(error: std::io::Error) -> std::result::Result<Self, std::io::Error> {
        error.downcast()
    }

    /// The kind, which decides the exit code.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.0.kind
    }

    /// What failed, without place, cause and hints.
    #[must_use]
    pub fn what(&self) -> &str {
        &self.0.what
    }

    /// The path, URL or label on which it failed.
    #[must_use]
    pub fn place(&self) -> Option<&str> {
        self.0.on.as_deref()
    }

    /// The causes, from the outermost inwards.
    #[must_use]
    pub fn causes(&self) -> Vec<String> {
        causes(self)
    }

    /// What failed, on what and why, in one line.
    #[must_use]
    pub fn in_words(&self) -> String {
        in_words(self)
    }

    /// The hints, in the order in which they were added.
    #[must_use]
    pub fn hints(&self) -> &[String] {
        &self.0.hints
    }

    /// The same error with another first sentence, for a caller that knows better what failed:
    /// "cannot read the configuration file" instead of "cannot open".
    #[must_use]
    pub fn with_what(mut self, what: impl Into<String>) -> Self {
        self.0.what = what.into();
        self
    }

    /// The same error without its hints, for a caller that has better ones.
    #[must_use]
    pub fn without_hints(mut self) -> Self {
        self.0.hints.clear();
        self
    }

    /// The same error with another kind, for a caller that knows better what the failure means.
    #[must_use]
    pub fn with_kind(mut self, kind: Kind) -> Self {
        self.0.kind = kind;
        self
    }
}

/// An error with its causes, in one line.
#[must_use]
pub fn in_words(error: &dyn StdError) -> String {
    let mut parts = vec![error.to_string()];
    parts.extend(causes(error));
    parts.join(": ")
}

fn causes(error: &dyn StdError) -> Vec<String> {
    let mut causes = Vec::new();
    let mut next = error.source();
    while let Some(cause) = next {
        causes.push(clipped(cause.to_string()));
        next = cause.source();
    }
    causes
}

/// The beginning of a cause. A cause may quote what was read, which may have any length.
fn clipped(text: String) -> String {
    const CHARACTERS: usize = 1000;

    let Some((end, _)) = text.char_indices().nth(CHARACTERS) else {
        return text;
    };
    let beginning = text.get(..end).unwrap_or_default();
    format!("{beginning} … and {} bytes more", text.len() - end)
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.what)?;
        match &self.0.on {
            Some(place) => write!(f, ": `{place}`"),
            None => Ok(()),
        }
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        let cause = self.0.cause.as_deref()?;
        Some(cause)
    }
}

impl From<IoError> for Error {
    fn from(error: IoError) -> Self {
        let kind = match error.source.kind() {
            ErrorKind::PermissionDenied => Kind::Denied,
            _ => Kind::Failed,
        };
        let hint = match kind {
            Kind::Denied => Some(whose(&error.path)),
            _ => hint_for(&error.source).map(str::to_owned),
        };

        let result = Self::new(kind, format!("cannot {}", error.operation))
            .at(&error.path)
            .because(error.source);
        match hint {
            Some(hint) => result.hint(hint),
            None => result,
        }
    }
}

/// Says whose file it is that this user may not use: the file itself, or the nearest directory above
/// it that this user can see.
fn whose(path: &Path) -> String {
    for place in path.ancestors() {
        let Ok(Some(status)) = fs::status(place) else {
            continue;
        };
        if status.user == rustix::process::geteuid().as_raw() {
            break;
        }
        let owner = users::user_name(status.user).unwrap_or_else(|| status.user.to_string());
        let who = match status.user {
            0 => "as root".to_owned(),
            _ => format!("as {owner}, or as root"),
        };
        return format!(
            "`{}` belongs to {owner}, and kbackup runs as {}: run kbackup {who}",
            place.display(),
            users::this_user()
        );
    }
    "run kbackup as the user that owns these files, or as root".to_owned()
}

fn hint_for(error: &std::io::Error) -> Option<&'static str> {
    match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => {
            Some("free space there; no listed backup was harmed")
        }
        ErrorKind::ReadOnlyFilesystem => {
            Some("the file system is mounted read-only: mount it so that kbackup can write to it")
        }
        _ if Errno::from_io_error(error) == Some(Errno::IO) => Some(
            "the disk reports a fault: read the kernel's log, and do not trust this disk with the \
             only copy",
        ),
        _ => None,
    }
}
