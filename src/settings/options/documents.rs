//! `kbackup completions` and `kbackup manual`: texts about kbackup itself.

use std::path::PathBuf;

use clap::Args;
/// The shells for which there are completion scripts.
pub use clap_complete::Shell;

#[derive(Debug, Args)]
pub(in crate::settings) struct CompletionsArguments {
    /// The shell that will read the script
    #[arg(value_name = "SHELL", value_enum)]
    shell: Shell,
}

/// The options of `kbackup completions`.
#[derive(Debug, Clone)]
pub struct CompletionsOptions {
    /// The shell that will read the script.
    pub shell: Shell,
}

impl From<CompletionsArguments> for CompletionsOptions {
    fn from(arguments: CompletionsArguments) -> Self {
        Self {
            shell: arguments.shell,
        }
    }
}

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
