//! Why there are no settings: what clap wants to print, or an error of a file or an option.

use crate::error::{Error, Kind};

/// The reason why the settings could not be resolved.
#[derive(Debug)]
pub enum Unresolved {
    /// clap wants to print help, the version, or a usage error.
    Usage(UsageMessage),
    /// An option or the configuration file is wrong.
    Error(Error),
}

impl Unresolved {
    /// The error for a caller without a command line: `what` failed, and clap's message is the
    /// cause.
    #[must_use]
    pub fn into_error(self, what: &str) -> Error {
        match self {
            Self::Error(error) => error,
            Self::Usage(usage) => Error::new(Kind::Usage, what).because(usage.in_one_line()),
        }
    }
}

impl From<Error> for Unresolved {
    fn from(error: Error) -> Self {
        Self::Error(error)
    }
}

impl From<clap::Error> for Unresolved {
    fn from(error: clap::Error) -> Self {
        Self::Usage(UsageMessage(error))
    }
}

/// A text that clap wants to print.
#[derive(Debug)]
pub struct UsageMessage(clap::Error);

impl UsageMessage {
    /// Whether the message is an error, and not the help or the version that the user asked for.
    #[must_use]
    pub fn is_error(&self) -> bool {
        self.0.use_stderr()
    }

    /// The message with the colours of a terminal.
    #[must_use]
    pub fn coloured(&self) -> String {
        self.0.render().ansi().to_string()
    }

    /// The message without colours.
    #[must_use]
    pub fn plain(&self) -> String {
        self.0.render().to_string()
    }

    /// The error itself, without colours and without the usage.
    #[must_use]
    pub fn in_one_line(&self) -> String {
        in_one_line(&self.0)
    }
}

pub(super) fn in_one_line(usage: &clap::Error) -> String {
    let text = usage.to_string();

    let mut lines = Vec::new();
    for line in text.trim_start_matches("error: ").lines() {
        // The usage follows after an empty line.
        if line.is_empty() {
            break;
        }
        lines.push(line.trim());
    }
    lines.join(" ")
}
