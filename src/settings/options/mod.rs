//! Every verb and every option, declared once.
//!
//! Each file holds the options of the verb that it is named after; `full` and `diff` share
//! `backup`. Three files hold options that several verbs share: `general` (all verbs), `node` (how
//! to reach the node, and where its files are) and `load` (how much of the machine a run may use).
//!
//! clap fills the type `…Arguments`, which holds flag, variable, unit, default and help text. Verbs
//! and agent take the type `…Options` beside it, which holds plain, resolved values.

mod agent;
mod backup;
mod check;
mod completions;
mod copy;
mod expire;
mod export;
mod general;
mod import;
mod init;
mod list;
mod load;
mod manual;
mod node;
mod prune;
mod release;
mod restore;
mod show;
mod status;
mod verify;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

pub use agent::{AgentOptions, ClusterMode, ClusterTurns, ListenAddress};
pub use backup::{BackupOptions, RecheckAmount, ScavengeManner};
pub use check::CheckOptions;
pub use completions::{CompletionsOptions, Shell};
pub use copy::CopyOptions;
pub use expire::{ExpireOptions, RetentionOptions};
pub use export::ExportOptions;
pub use general::{GeneralOptions, LogFormat, LogLevel};
pub use import::ImportOptions;
pub use init::InitOptions;
pub use list::ListOptions;
pub use load::{LoadOptions, Priority};
pub use manual::ManualOptions;
pub use node::{NodeOptions, RedactedUrl, SourceDirectories};
pub use prune::PruneOptions;
pub use release::ReleaseOptions;
pub use restore::RestoreOptions;
pub use show::ShowOptions;
pub use status::StatusOptions;
pub use verify::VerifyOptions;

use super::origin::Origins;

/// The whole command line.
#[derive(Debug, Parser)]
#[command(
    name = "kbackup",
    about = "Backs up a running KurrentDB or EventStoreDB node, and restores it",
    version,
    max_term_width = 120,
    disable_help_subcommand = true,
    subcommand_required = true,
    after_help = "Every option can also be set by an environment variable (KBACKUP_REPO for \
                  --repo, …) or by a key of the TOML file that --config names. A flag wins over \
                  the environment, the environment over the file. Passwords and tokens are never \
                  arguments: see --password-file, KBACKUP_PASSWORD, --token-file, KBACKUP_TOKEN."
)]
pub(super) struct Arguments {
    #[command(subcommand)]
    pub verb: VerbArguments,
    #[command(flatten)]
    pub general: general::GeneralArguments,
}

/// The verbs, as clap reads them.
#[derive(Debug, Subcommand)]
pub(super) enum VerbArguments {
    /// Make a repository, which keeps the backups of one node
    Init(init::InitArguments),
    /// Take a backup that reads every byte of the node's files again
    Full(backup::FullArguments),
    /// Take a backup that reads only what changed since the newest backup
    Diff(backup::BackupArguments),
    /// Write a backup into an empty directory from which a server can start
    Restore(restore::RestoreArguments),
    /// Prove that stored backups are intact and that a server would start from them
    Verify(verify::VerifyArguments),
    /// Examine a data directory: would a server start from it, and what would the server lose,
    /// rebuild or refuse
    Check(check::CheckArguments),
    /// Copy backups into another repository, so that they exist in a second place
    Copy(copy::CopyArguments),
    /// Write one backup as a tar to standard output
    Export(export::ExportArguments),
    /// Read a tar of `kbackup export` from standard input into a repository
    Import(import::ImportArguments),
    /// Remove the backups that no retention rule keeps
    Expire(expire::ExpireArguments),
    /// Delete what removed backups and interrupted runs left in an object store
    Prune(prune::PruneArguments),
    /// List the backups of a repository
    List(list::ListArguments),
    /// Show one backup
    Show(show::ShowArguments),
    /// Give back to a node, or to every node, what a killed backup stopped or paused
    Release(release::ReleaseArguments),
    /// Tell whether a node is safe now: ask its agent, or look only at the repository
    Status(status::StatusArguments),
    /// Keep a node backed up: run beside the node, take backups by a schedule and after changes,
    /// and serve a status page
    Agent(Box<agent::AgentArguments>),
    /// Print the script with which a shell completes verbs and options
    Completions(completions::CompletionsArguments),
    /// Print a manual page, or write all manual pages into a directory
    Manual(manual::ManualArguments),
}

/// A verb with its options.
#[derive(Debug)]
pub enum Verb {
    /// `kbackup init`.
    Init(InitOptions),
    /// `kbackup full`.
    Full(BackupOptions),
    /// `kbackup diff`.
    Diff(BackupOptions),
    /// `kbackup restore`.
    Restore(RestoreOptions),
    /// `kbackup verify`.
    Verify(VerifyOptions),
    /// `kbackup check`.
    Check(CheckOptions),
    /// `kbackup copy`.
    Copy(CopyOptions),
    /// `kbackup export`.
    Export(ExportOptions),
    /// `kbackup import`.
    Import(ImportOptions),
    /// `kbackup expire`.
    Expire(ExpireOptions),
    /// `kbackup prune`.
    Prune(PruneOptions),
    /// `kbackup list`.
    List(ListOptions),
    /// `kbackup show`.
    Show(ShowOptions),
    /// `kbackup release`.
    Release(ReleaseOptions),
    /// `kbackup status`.
    Status(StatusOptions),
    /// `kbackup agent`.
    Agent(Box<AgentOptions>),
    /// `kbackup completions`.
    Completions(CompletionsOptions),
    /// `kbackup manual`.
    Manual(ManualOptions),
}

impl VerbArguments {
    /// The verb with plain options. Where a secret is read from depends on the origins.
    pub(super) fn into_options(self, origins: Origins<'_>) -> Verb {
        match self {
            Self::Init(arguments) => Verb::Init(arguments.into()),
            Self::Full(arguments) => Verb::Full(arguments.into_options(origins)),
            Self::Diff(arguments) => Verb::Diff(arguments.into_options(origins)),
            Self::Restore(arguments) => Verb::Restore(arguments.into()),
            Self::Verify(arguments) => Verb::Verify(arguments.into()),
            Self::Check(arguments) => Verb::Check(arguments.into()),
            Self::Copy(arguments) => Verb::Copy(arguments.into()),
            Self::Export(arguments) => Verb::Export(arguments.into()),
            Self::Import(arguments) => Verb::Import(arguments.into()),
            Self::Expire(arguments) => Verb::Expire(arguments.into()),
            Self::Prune(arguments) => Verb::Prune(arguments.into()),
            Self::List(arguments) => Verb::List(arguments.into()),
            Self::Show(arguments) => Verb::Show(arguments.into()),
            Self::Release(arguments) => Verb::Release(arguments.into_options(origins)),
            Self::Status(arguments) => Verb::Status(arguments.into()),
            Self::Agent(arguments) => Verb::Agent(Box::new(arguments.into_options(origins))),
            Self::Completions(arguments) => Verb::Completions(arguments.into()),
            Self::Manual(arguments) => Verb::Manual(arguments.into()),
        }
    }
}

impl Verb {
    /// How much of the machine the verb may take.
    #[must_use]
    pub fn load(&self) -> LoadOptions {
        match self {
            Self::Full(options) | Self::Diff(options) => options.load,
            Self::Verify(options) => options.load,
            Self::Restore(options) => options.load,
            Self::Check(options) => options.load,
            Self::Copy(options) => options.load,
            Self::Export(options) => options.load,
            Self::Import(options) => options.load,
            Self::Init(_)
            | Self::Expire(_)
            | Self::Prune(_)
            | Self::List(_)
            | Self::Show(_)
            | Self::Status(_)
            | Self::Release(_)
            | Self::Agent(_)
            | Self::Completions(_)
            | Self::Manual(_) => LoadOptions::default(),
        }
    }
}

/// The repository, for every verb that needs one.
#[derive(Debug, Args)]
struct RepositoryArguments {
    /// The repository: a directory, or a URL such as `s3://BUCKET/PREFIX`
    #[arg(long, env = "KBACKUP_REPO", value_name = "REPO")]
    repo: PathBuf,
}
