//! `kbackup list`: the backups of a repository.

use std::path::PathBuf;

use clap::Args;

use super::RepositoryArguments;

#[derive(Debug, Args)]
pub(in crate::settings) struct ListArguments {
    #[command(flatten)]
    repository: RepositoryArguments,
}

/// The options of `kbackup list`.
#[derive(Debug, Clone)]
pub struct ListOptions {
    /// `--repo`.
    pub repository: PathBuf,
}

impl From<ListArguments> for ListOptions {
    fn from(arguments: ListArguments) -> Self {
        Self {
            repository: arguments.repository.repo,
        }
    }
}
