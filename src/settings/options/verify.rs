//! `kbackup verify`.

use std::path::PathBuf;

use clap::Args;

use super::RepositoryArguments;
use super::load::{BackgroundLoadArguments, LoadOptions};

#[derive(Debug, Args)]
pub(in crate::settings) struct VerifyArguments {
    /// Labels of the backups to verify [default: the newest backup]
    #[arg(value_name = "LABEL", conflicts_with = "all")]
    labels: Vec<String>,
    #[command(flatten)]
    repository: RepositoryArguments,
    /// Verify all backups
    #[arg(long, env = "KBACKUP_ALL")]
    all: bool,
    /// Check structure and sizes only, and hash no byte
    #[arg(long, env = "KBACKUP_QUICK", conflicts_with = "deep")]
    quick: bool,
    /// Also compare every entry of every index table with the log
    #[arg(long, env = "KBACKUP_DEEP")]
    deep: bool,
    /// Repair damaged files, in all backups that share them, from another copy of the same bytes in
    /// the repository
    #[arg(long, env = "KBACKUP_REPAIR", conflicts_with = "quick")]
    repair: bool,
    /// With --repair: show what would be repaired, and change nothing
    #[arg(long, env = "KBACKUP_DRY_RUN")]
    dry_run: bool,
    #[command(flatten)]
    load: BackgroundLoadArguments,
}

/// The options of `kbackup verify`.
#[derive(Debug, Clone)]
pub struct VerifyOptions {
    /// The labels that were named.
    pub labels: Vec<String>,
    /// `--repo`.
    pub repository: PathBuf,
    /// `--all`.
    pub all: bool,
    /// `--quick`.
    pub quick: bool,
    /// `--deep`.
    pub deep: bool,
    /// `--repair`.
    pub repair: bool,
    /// `--dry-run`.
    pub dry_run: bool,
    /// How much of the machine the run may take.
    pub load: LoadOptions,
}

impl From<VerifyArguments> for VerifyOptions {
    fn from(arguments: VerifyArguments) -> Self {
        Self {
            labels: arguments.labels,
            repository: arguments.repository.repo,
            all: arguments.all,
            quick: arguments.quick,
            deep: arguments.deep,
            repair: arguments.repair,
            dry_run: arguments.dry_run,
            load: arguments.load.into(),
        }
    }
}
