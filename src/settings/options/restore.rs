//! `kbackup restore`.

use std::path::PathBuf;

use clap::Args;

use super::RepositoryArguments;
use super::load::{ForegroundLoadArguments, LoadOptions};

#[derive(Debug, Args)]
pub(in crate::settings) struct RestoreArguments {
    /// Label of the backup; `latest` is the newest one that was not damaged at the source
    #[arg(value_name = "LABEL", default_value = "latest")]
    label: String,
    #[command(flatten)]
    repository: RepositoryArguments,
    /// Empty directory for the db; repeat it to restore several members of a cluster in one run
    #[arg(
        long,
        env = "KBACKUP_TO",
        value_name = "DIR",
        required = true,
        value_delimiter = ','
    )]
    to: Vec<PathBuf>,
    /// Empty directory for the index; one for each --to, in the same order [default: TO/index]
    #[arg(
        long,
        env = "KBACKUP_INDEX_TO",
        value_name = "DIR",
        value_delimiter = ','
    )]
    index_to: Vec<PathBuf>,
    /// Write -1 into truncate.chk, so that the server is up after its first start
    #[arg(long, env = "KBACKUP_READY")]
    ready: bool,
    /// User and group of the restored files, by name or number [default: those of the target
    /// directory, or those in the backup]
    #[arg(long, env = "KBACKUP_OWNER", value_name = "USER:GROUP")]
    owner: Option<String>,
    /// Version of the server that will start from the restored files
    #[arg(long, env = "KBACKUP_SERVER_VERSION", value_name = "VERSION")]
    server_version: Option<String>,
    /// Restore a backup of a node with an archive; the server then needs the same archive
    #[arg(long, env = "KBACKUP_ARCHIVED")]
    archived: bool,
    /// Restore for a server that is older than the server of the backup
    #[arg(long, env = "KBACKUP_OLDER_SERVER")]
    older_server: bool,
    /// If a target already holds a database, do not change it, and succeed; for a container that
    /// restores before each start of its server
    #[arg(long, env = "KBACKUP_UNLESS_RESTORED")]
    unless_restored: bool,
    /// Restore although kbackup cannot prove that no server uses the target, as on a network file
    /// system
    #[arg(long, env = "KBACKUP_CONFIRM")]
    confirm: bool,
    /// Show the plan, and write nothing
    #[arg(long, env = "KBACKUP_DRY_RUN")]
    dry_run: bool,
    #[command(flatten)]
    load: ForegroundLoadArguments,
}

/// The options of `kbackup restore`.
#[derive(Debug, Clone)]
pub struct RestoreOptions {
    /// A backup's label, or `latest`.
    pub label: String,
    /// `--repo`.
    pub repository: PathBuf,
    /// `--to`: the db directories of the targets.
    pub to: Vec<PathBuf>,
    /// `--index-to`: none, or one for each target.
    pub index_to: Vec<PathBuf>,
    /// `--ready`.
    pub ready: bool,
    /// `--owner`: `user:group`.
    pub owner: Option<String>,
    /// `--server-version`.
    pub server_version: Option<String>,
    /// `--archived`.
    pub archived: bool,
    /// `--older-server`.
    pub older_server: bool,
    /// `--unless-restored`.
    pub unless_restored: bool,
    /// `--confirm`.
    pub confirm: bool,
    /// `--dry-run`.
    pub dry_run: bool,
    /// How much of the machine the run may take.
    pub load: LoadOptions,
}

impl From<RestoreArguments> for RestoreOptions {
    fn from(arguments: RestoreArguments) -> Self {
        Self {
            label: arguments.label,
            repository: arguments.repository.repo,
            to: arguments.to,
            index_to: arguments.index_to,
            ready: arguments.ready,
            owner: arguments.owner,
            server_version: arguments.server_version,
            archived: arguments.archived,
            older_server: arguments.older_server,
            unless_restored: arguments.unless_restored,
            confirm: arguments.confirm,
            dry_run: arguments.dry_run,
            load: arguments.load.into(),
        }
    }
}
