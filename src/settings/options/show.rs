//! `kbackup show`: one backup of a repository.

use std::path::PathBuf;

use clap::Args;

use super::RepositoryArguments;

#[derive(Debug, Args)]
pub(in crate::settings) struct ShowArguments {
    /// Label of the backup; `latest` is the newest one that was not damaged at the source
    #[arg(value_name = "LABEL", default_value = "latest")]
    label: String,
    #[command(flatten)]
    repository: RepositoryArguments,
    /// Also show every file of the backup
    #[arg(long, env = "KBACKUP_FILES")]
    files: bool,
}

/// The options of `kbackup show`.
#[derive(Debug, Clone)]
pub struct ShowOptions {
    /// A backup's label, or `latest`.
    pub label: String,
    /// `--repo`.
    pub repository: PathBuf,
    /// `--files`.
    pub files: bool,
}

impl From<ShowArguments> for ShowOptions {
    fn from(arguments: ShowArguments) -> Self {
        Self {
            label: arguments.label,
            repository: arguments.repository.repo,
            files: arguments.files,
        }
    }
}
