//! `kbackup init`: makes a repository.

use std::path::PathBuf;

use clap::Args;

use super::RepositoryArguments;

#[derive(Debug, Args)]
pub(in crate::settings) struct InitArguments {
    #[command(flatten)]
    repository: RepositoryArguments,
    /// Also make or accept a repository where kbackup saw another one before: that one is gone for
    /// good, or the disks are exchanged by turns
    #[arg(long, env = "KBACKUP_ANOTHER")]
    another: bool,
}

/// The options of `kbackup init`.
#[derive(Debug, Clone)]
pub struct InitOptions {
    /// `--repo`.
    pub repository: PathBuf,
    /// `--another`.
    pub another: bool,
}

impl From<InitArguments> for InitOptions {
    fn from(arguments: InitArguments) -> Self {
        Self {
            repository: arguments.repository.repo,
            another: arguments.another,
        }
    }
}
