//! `kbackup copy`: backups of one repository, copied into another one.

use std::path::PathBuf;

use clap::Args;

use super::load::{BackgroundLoadArguments, LoadOptions};

#[derive(Debug, Args)]
pub(in crate::settings) struct CopyArguments {
    /// Labels of the backups to copy [default: the newest one that was not damaged at the source]
    #[arg(value_name = "LABEL", conflicts_with = "all")]
    labels: Vec<String>,
    /// Repository to read
    #[arg(long, env = "KBACKUP_FROM", value_name = "REPO")]
    from: PathBuf,
    /// Repository to copy into; it keeps the backups of the same node
    #[arg(long, env = "KBACKUP_TO", value_name = "REPO")]
    to: PathBuf,
    /// Copy all backups that the target lacks and that are newer than its newest one, oldest first
    #[arg(long, env = "KBACKUP_ALL")]
    all: bool,
    /// Make the target if there is none, and if kbackup never saw a repository at this path
    #[arg(long, env = "KBACKUP_NEW_REPOSITORY")]
    new_repository: bool,
    /// Start a new branch in the target if the log of a backup differs from the logs there, because
    /// the node was restored or truncated
    #[arg(long, env = "KBACKUP_NEW_BRANCH")]
    new_branch: bool,
    /// Accept that the node had another address than in the newest backup of the target
    #[arg(long, env = "KBACKUP_NEW_ADDRESS")]
    new_address: bool,
    /// Show what would be copied and what that costs, and write nothing
    #[arg(long, env = "KBACKUP_DRY_RUN")]
    dry_run: bool,
    #[command(flatten)]
    load: BackgroundLoadArguments,
}

/// The options of `kbackup copy`.
#[derive(Debug, Clone)]
pub struct CopyOptions {
    /// The labels that were named.
    pub labels: Vec<String>,
    /// `--from`.
    pub from: PathBuf,
    /// `--to`.
    pub to: PathBuf,
    /// `--all`.
    pub all: bool,
    /// `--new-repository`.
    pub new_repository: bool,
    /// `--new-branch`.
    pub new_branch: bool,
    /// `--new-address`.
    pub new_address: bool,
    /// `--dry-run`.
    pub dry_run: bool,
    /// How much of the machine the run may take.
    pub load: LoadOptions,
}

impl From<CopyArguments> for CopyOptions {
    fn from(arguments: CopyArguments) -> Self {
        Self {
            labels: arguments.labels,
            from: arguments.from,
            to: arguments.to,
            all: arguments.all,
            new_repository: arguments.new_repository,
            new_branch: arguments.new_branch,
            new_address: arguments.new_address,
            dry_run: arguments.dry_run,
            load: arguments.load.into(),
        }
    }
}
