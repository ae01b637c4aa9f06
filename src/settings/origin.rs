//! Where the value of an option came from.

use std::collections::BTreeMap;
use std::fmt;

/// The source of an option's value; a later variant wins over an earlier one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    /// The option was not set.
    Default,
    /// The TOML file that `--config` names.
    File,
    /// A variable `KBACKUP_*`.
    Environment,
    /// The command line.
    Flag,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Default => "default",
            Self::File => "file",
            Self::Environment => "environment",
            Self::Flag => "flag",
        })
    }
}

/// The value of one option, without secrets, and its origin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting {
    /// The value as it was written; several values are joined by commas.
    pub value: String,
    /// The source of the value.
    pub origin: Origin,
}

/// The origins of all options, for conversions that depend on them.
#[derive(Clone, Copy)]
pub(super) struct Origins<'a>(pub &'a BTreeMap<String, Setting>);

impl Origins<'_> {
    /// Where the value of an option came from, by the option's id (`password_file`).
    pub(super) fn of(self, option: &str) -> Origin {
        match self.0.get(option) {
            Some(setting) => setting.origin,
            None => Origin::Default,
        }
    }
}
