//! `kbackup manual`: the manual pages.

use std::path::PathBuf;

use clap::Args;

#[derive(Debug, Args)]
pub(in crate::settings) struct ManualArguments {
    /// Print the page of this verb [default: the page of kbackup itself]
    #[arg(value_name = "VERB")]
    verb: Option<String>,
    /// Write all pages into this directory, as kbackup.1 and kbackup-VERB.1
    #[arg(
        long,
        env = "KBACKUP_INTO",
        value_name = "DIR",
        conflicts_with = "verb"
    )]
    into: Option<PathBuf>,
}

/// The options of `kbackup manual`.
#[derive(Debug, Clone)]
pub struct ManualOptions {
    /// The verb whose page is wanted.
    pub verb: Option<String>,
    /// `--into`.
    pub into: Option<PathBuf>,
}

impl From<ManualArguments> for ManualOptions {
    fn from(arguments: ManualArguments) -> Self {
        Self {
            verb: arguments.verb,
            into: arguments.into,
        }
    }
}
