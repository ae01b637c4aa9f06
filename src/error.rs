//! The one error that leaves a room upwards: a value for the user.

use std::error::Error as StdError;
use std::fmt;
use std::path::Path;

use crate::fs::IoError;

/// What kind of end a command came to; each kind is one exit code (see the guide's table).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Anything without a code of its own.
    Failed,
    /// The command line, the environment or the configuration file is wrong.
    Usage,
    /// No repository there, or no such backup.
    NotFound,
    /// Another run holds the repository.
    Locked,
    /// Wrong credentials, or permission denied.
    Denied,
    /// Node or storage out of reach after retries.
    Unreachable,
    /// The storage was out of reach for a moment: another attempt may succeed. Where nobody retries,
    /// or no attempt is left, this ends a run as [`Self::Unreachable`] does.
    Transient,
    /// What the repository holds is corrupt.
    StoredCorrupt,
    /// The source is inconsistent or corrupt.
    SourceCorrupt,
    /// The source kept changing, or the node is not fit, beyond the retries.
    Unstable,
    /// Refused for safety.
    Refused,
    /// Told to end; clean.
    Interrupted(Cause),
}

/// Who ends a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// Somebody who sends signals.
    Signal(Signal),
    /// The clock: the hours in which the run is allowed are over.
    WindowClosed,
    /// Scavenging was kept from the node for as long as is allowed.
    PausedTooLong,
}

/// A signal that ends a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// Ctrl-C.
    Interrupt,
    /// What supervisors send.
    Terminate,
}

impl Kind {
    /// The process's exit code.
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
            Self::Unstable | Self::Interrupted(Cause::PausedTooLong) => 22,
            Self::Refused => 23,
            Self::Interrupted(Cause::Signal(Signal::Interrupt)) => 130,
            Self::Interrupted(Cause::Signal(Signal::Terminate) | Cause::WindowClosed) => 143,
        }
    }

    /// The word for this kind in JSON output.
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
            Self::Refused => "refused",
            Self::Interrupted(Cause::Signal(_)) => "interrupted",
            Self::Interrupted(Cause::WindowClosed) => "window-closed",
            Self::Interrupted(Cause::PausedTooLong) => "paused-too-long",
        }
    }
}

/// What failed, on which path or URL, why, and what helps.
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

/// What every room above the formats returns.
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

    /// Names the path it failed on.
    #[must_use]
    pub fn at(self, path: &Path) -> Self {
        self.on(path.display())
    }

    /// Names what it failed on, where that is no path: a URL, a backup's label.
    #[must_use]
    pub fn on(mut self, place: impl fmt::Display) -> Self {
        self.0.on = Some(place.to_string());
        self
    }

    /// Adds why.
    #[must_use]
    pub fn because(mut self, cause: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.0.cause = Some(cause.into());
        self
    }

    /// Adds an option or a command that helps.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.0.hints.push(hint.into());
        self
    }

    /// The kind, and by it the exit code.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.0.kind
    }

    /// What failed, without place, cause and hints.
    #[must_use]
    pub fn what(&self) -> &str {
        &self.0.what
    }

    /// The path, URL or label it failed on.
    #[must_use]
    pub fn place(&self) -> Option<&str> {
        self.0.on.as_deref()
    }

    /// Why, from the outermost cause inwards.
    #[must_use]
    pub fn causes(&self) -> Vec<String> {
        causes(self)
    }

    /// What failed, on what and why, in one line.
    #[must_use]
    pub fn in_words(&self) -> String {
        in_words(self)
    }

    /// What helps.
    #[must_use]
    pub fn hints(&self) -> &[String] {
        &self.0.hints
    }

    /// The same error under another kind: the caller knows what it means here.
    #[must_use]
    pub fn with_kind(mut self, kind: Kind) -> Self {
        self.0.kind = kind;
        self
    }
}

/// An error with its causes, in one line.
#[must_use]
pub fn in_words(error: &dyn StdError) -> String {
    std::iter::once(error.to_string())
        .chain(causes(error))
        .collect::<Vec<_>>()
        .join(": ")
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

/// A cause may quote what was read, and that may be anything of any length.
fn clipped(text: String) -> String {
    const CHARACTERS: usize = 1000;
    match text.char_indices().nth(CHARACTERS) {
        Some((end, _)) => format!(
            "{} … and {} bytes more",
            text.get(..end).unwrap_or_default(),
            text.len() - end
        ),
        None => text,
    }
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
        self.0
            .cause
            .as_deref()
            .map(|cause| cause as &(dyn StdError + 'static))
    }
}

impl From<IoError> for Error {
    fn from(error: IoError) -> Self {
        use std::io::ErrorKind;
        let kind = if error.source.kind() == ErrorKind::PermissionDenied {
            Kind::Denied
        } else {
            Kind::Failed
        };
        let hint = match error.source.kind() {
            ErrorKind::PermissionDenied => {
                Some("run as the user that owns these files, or as root")
            }
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded => {
                Some("free space there; nothing that is listed was harmed")
            }
            ErrorKind::ReadOnlyFilesystem => Some("the file system is mounted read-only"),
            _ if rustix::io::Errno::from_io_error(&error.source) == Some(rustix::io::Errno::IO) => {
                Some(
                    "the disk below it reports a fault: see the kernel's log, and do not trust that disk with the only copy",
                )
            }
            _ => None,
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
