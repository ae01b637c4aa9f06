//! `kbackup prune`.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::RepositoryArguments;
use crate::clock::Span;

#[derive(Debug, Args)]
pub(in crate::settings) struct PruneArguments {
    #[command(flatten)]
    repository: RepositoryArguments,
    /// Delete an object only if it was marked as unneeded at least this long ago, such as 24h or 3d
    #[arg(
        long,
        env = "KBACKUP_GRACE",
        value_name = "TIME",
        default_value = "24h"
    )]
    grace: Span,
    /// Delete without a question; required if there is no terminal to ask at
    #[arg(long, env = "KBACKUP_CONFIRM")]
    confirm: bool,
    /// Show the plan, and change nothing
    #[arg(long, env = "KBACKUP_DRY_RUN")]
    dry_run: bool,
}

/// The options of `kbackup prune`.
#[derive(Debug, Clone)]
pub struct PruneOptions {
    /// `--repo`.
    pub repository: PathBuf,
    /// `--grace`.
    pub grace: Duration,
    /// `--confirm`.
    pub confirm: bool,
    /// `--dry-run`.
    pub dry_run: bool,
}

impl From<PruneArguments> for PruneOptions {
    fn from(arguments: PruneArguments) -> Self {
        Self {
            repository: arguments.repository.repo,
            grace: arguments.grace.0,
            confirm: arguments.confirm,
            dry_run: arguments.dry_run,
        }
    }
}
