//! `kbackup import`: an archive becomes a backup.

use std::path::PathBuf;

use clap::Args;

use super::RepositoryArguments;
use super::load::{BackgroundLoadArguments, LoadOptions};

#[derive(Debug, Args)]
pub(in crate::settings) struct ImportArguments {
    #[command(flatten)]
    repository: RepositoryArguments,
    /// Make the repository if there is none, and if kbackup never saw one at this path
    #[arg(long, env = "KBACKUP_NEW_REPOSITORY")]
    new_repository: bool,
    /// Start a new branch if the log of the backup differs from the logs in the repository, because
    /// the node was restored or truncated
    #[arg(long, env = "KBACKUP_NEW_BRANCH")]
    new_branch: bool,
    /// Accept that the node had another address than in the newest backup of the repository
    #[arg(long, env = "KBACKUP_NEW_ADDRESS")]
    new_address: bool,
    #[command(flatten)]
    load: BackgroundLoadArguments,
}

/// The options of `kbackup import`.
#[derive(Debug, Clone)]
pub struct ImportOptions {
    /// `--repo`.
    pub repository: PathBuf,
    /// `--new-repository`.
    pub new_repository: bool,
    /// `--new-branch`.
    pub new_branch: bool,
    /// `--new-address`.
    pub new_address: bool,
    /// How much of the machine the run may take.
    pub load: LoadOptions,
}

impl From<ImportArguments> for ImportOptions {
    fn from(arguments: ImportArguments) -> Self {
        Self {
            repository: arguments.repository.repo,
            new_repository: arguments.new_repository,
            new_branch: arguments.new_branch,
            new_address: arguments.new_address,
            load: arguments.load.into(),
        }
    }
}
