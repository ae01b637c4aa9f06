//! `kbackup completions`: the script for a shell.

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
