//! `kbackup full` and `kbackup diff`.

use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use bytesize::ByteSize;
use clap::{Args, ValueEnum, value_parser};

use super::RepositoryArguments;
use super::load::{BackgroundLoadArguments, LoadOptions};
use super::node::{NodeArguments, NodeOptions, SourceDirectories, SourceDirectoriesArguments};
use crate::clock::Span;
use crate::settings::origin::Origins;

const SOURCE: &str = "Source";
const SCAVENGING: &str = "Scavenging";

/// The options of `full`: those of a diff, and one more.
#[derive(Debug, Args)]
pub(in crate::settings) struct FullArguments {
    #[command(flatten)]
    backup: BackupArguments,
    /// Make the repository if there is none, and if kbackup never saw one at this path
    #[arg(long, env = "KBACKUP_NEW_REPOSITORY")]
    new_repository: bool,
}

#[derive(Debug, Args)]
pub(in crate::settings) struct BackupArguments {
    #[command(flatten)]
    repository: RepositoryArguments,
    #[command(flatten)]
    node: NodeArguments,
    /// Back up the directory of a stopped node, or a mounted snapshot, without asking a node
    #[arg(
        long,
        env = "KBACKUP_OFFLINE",
        conflicts_with_all = ["node", "node_socket"],
        help_heading = SOURCE
    )]
    offline: bool,
    #[command(flatten)]
    directories: SourceDirectoriesArguments,
    /// Version of the server, for --offline; a running node reports its version itself
    #[arg(long, env = "KBACKUP_SERVER_VERSION", value_name = "VERSION", help_heading = SOURCE)]
    server_version: Option<String>,
    /// Back up a node even if it is not up to date and connected to its cluster
    #[arg(long, env = "KBACKUP_ALLOW_UNFIT", help_heading = SOURCE)]
    allow_unfit: bool,
    /// Wait at most this long until the node is up to date and connected
    #[arg(
        long,
        env = "KBACKUP_WAIT",
        value_name = "TIME",
        default_value = "1m",
        help_heading = SOURCE
    )]
    wait: Span,
    /// Do not stop scavenging; only for a node on which something else prevents scavenges
    #[arg(long, env = "KBACKUP_NO_QUIESCE", help_heading = SCAVENGING)]
    no_quiesce: bool,
    /// What to do if a scavenge runs on the node, or a cycle of auto-scavenge in its cluster
    /// [default: stop; for an agent: wait]
    #[arg(
        long,
        env = "KBACKUP_SCAVENGE",
        value_enum,
        value_name = "HOW",
        help_heading = SCAVENGING
    )]
    scavenge: Option<ScavengeManner>,
    /// With `--scavenge wait`: stop a running scavenge at most once in this time [default: 24h]
    #[arg(long, env = "KBACKUP_SCAVENGE_REST", value_name = "TIME", help_heading = SCAVENGING)]
    scavenge_rest: Option<Span>,
    /// With `--scavenge wait`: wait only while the newest good backup is younger than this [default:
    /// 26h]
    #[arg(long, env = "KBACKUP_MAX_AGE", value_name = "TIME", help_heading = SCAVENGING)]
    max_age: Option<Span>,
    /// Wait at most this long until auto-scavenge is paused, and until a scavenge has stopped
    #[arg(
        long,
        env = "KBACKUP_QUIESCE_WAIT",
        value_name = "TIME",
        default_value = "5m",
        help_heading = SCAVENGING
    )]
    quiesce_wait: Span,
    /// Keep scavenging from the node for at most this long in all; after that time kbackup gives it
    /// back, and the backup fails
    #[arg(
        long,
        env = "KBACKUP_MAX_PAUSE",
        value_name = "TIME",
        default_value = "2h",
        help_heading = SCAVENGING
    )]
    max_pause: Span,
    /// Threads of a scavenge that kbackup starts again [default: as many as it had, if the node
    /// tells that (21.10 does), or else 1]
    #[arg(long, env = "KBACKUP_SCAVENGE_THREADS", value_name = "N", help_heading = SCAVENGING)]
    scavenge_threads: Option<u32>,
    /// Throttle percentage of a scavenge that kbackup starts again, 1 to 100 [default: 100]
    #[arg(
        long,
        env = "KBACKUP_SCAVENGE_THROTTLE",
        value_name = "PERCENT",
        value_parser = value_parser!(u32).range(1..=100),
        help_heading = SCAVENGING
    )]
    scavenge_throttle: Option<u32>,
    /// Start a new branch if the node's log differs from the log in the newest backup, because the
    /// node was restored or truncated
    #[arg(long, env = "KBACKUP_NEW_BRANCH")]
    new_branch: bool,
    /// Accept that the node advertises another address than in the newest backup, and expect the
    /// new address from now on
    #[arg(long, env = "KBACKUP_NEW_ADDRESS")]
    new_address: bool,
    /// Keep the backup if chunks of the node fail their own MD5, and mark the backup as damaged
    #[arg(long, env = "KBACKUP_ACCEPT_DAMAGED")]
    accept_damaged: bool,
    /// Do not warn that the repository is on the node's own disk
    #[arg(long, env = "KBACKUP_ACCEPT_SAME_DISK")]
    accept_same_disk: bool,
    /// Start the backup over if the node's files change during it; make at most this many attempts,
    /// 1 to 1000
    #[arg(
        long,
        env = "KBACKUP_ATTEMPTS",
        value_name = "N",
        default_value_t = 10,
        value_parser = value_parser!(u32).range(1..=1000)
    )]
    attempts: u32,
    /// In a diff, read the stream-existence filter again if the stored copy is older than this
    #[arg(
        long,
        env = "KBACKUP_FILTER_MAX_AGE",
        value_name = "TIME",
        default_value = "24h"
    )]
    filter_max_age: Span,
    /// Hash again this many of the bytes that a diff reuses, different files each time: bytes
    /// (`512MiB`; each file counts as at least 1 MiB), a percentage (`5%`), or 0 [default: 1GiB; 0
    /// for a repository in S3, Azure or Google, because downloads cost money]
    #[arg(long, env = "KBACKUP_RECHECK", value_name = "SIZE|PERCENT")]
    recheck: Option<RecheckAmount>,
    /// Show what would be copied, and copy nothing
    #[arg(long, env = "KBACKUP_DRY_RUN")]
    dry_run: bool,
    #[command(flatten)]
    load: BackgroundLoadArguments,
}

/// The options of `kbackup full` and `kbackup diff`.
#[derive(Debug, Clone)]
pub struct BackupOptions {
    /// `--repo`.
    pub repository: PathBuf,
    /// `--new-repository`, of a full.
    pub new_repository: bool,
    /// How to reach the node.
    pub node: NodeOptions,
    /// `--offline`: the node is stopped.
    pub offline: bool,
    /// The directories that the user named.
    pub directories: SourceDirectories,
    /// `--server-version`, for an offline backup.
    pub server_version: Option<String>,
    /// `--allow-unfit`.
    pub allow_unfit: bool,
    /// `--wait`: how long the node may take to become fit.
    pub wait: Duration,
    /// The opposite of `--no-quiesce`: scavenging is stopped for the copy.
    pub quiesce: bool,
    /// `--quiesce-wait`: how long pausing, and stopping, may take each.
    pub quiesce_wait: Duration,
    /// `--max-pause`: how long the node may be without scavenging in all.
    pub max_pause: Duration,
    /// `--scavenge`. `None`: `stop`, and for an agent what its own option says.
    pub scavenge: Option<ScavengeManner>,
    /// `--scavenge-rest`. `None`: a day, and for an agent what its own option says.
    pub scavenge_rest: Option<Duration>,
    /// `--max-age`, as long as a backup may wait for a scavenge. `None`: 26 hours, and for an agent
    /// what its own option says.
    pub max_age: Option<Duration>,
    /// `--scavenge-threads`. `None`: as many as the scavenge had.
    pub scavenge_threads: Option<u32>,
    /// `--scavenge-throttle`, in percent.
    pub scavenge_throttle: Option<u32>,
    /// `--new-branch`.
    pub new_branch: bool,
    /// `--new-address`.
    pub new_address: bool,
    /// `--accept-damaged`.
    pub accept_damaged: bool,
    /// `--accept-same-disk`.
    pub accept_same_disk: bool,
    /// `--attempts`: at least 1.
    pub attempts: u32,
    /// `--filter-max-age`.
    pub filter_max_age: Duration,
    /// `--recheck`. `None`: a gibibyte, and nothing if the repository is reached over a network.
    pub recheck: Option<RecheckAmount>,
    /// `--dry-run`.
    pub dry_run: bool,
    /// How much of the machine the run may take.
    pub load: LoadOptions,
}

impl FullArguments {
    pub(super) fn into_options(self, origins: Origins<'_>) -> BackupOptions {
        BackupOptions {
            new_repository: self.new_repository,
            ..self.backup.into_options(origins)
        }
    }
}

impl BackupArguments {
    pub(super) fn into_options(self, origins: Origins<'_>) -> BackupOptions {
        BackupOptions {
            repository: self.repository.repo,
            new_repository: false,
            node: self.node.into_options(origins),
            offline: self.offline,
            directories: self.directories.into(),
            server_version: self.server_version,
            allow_unfit: self.allow_unfit,
            wait: self.wait.0,
            quiesce: !self.no_quiesce,
            quiesce_wait: self.quiesce_wait.0,
            max_pause: self.max_pause.0,
            scavenge: self.scavenge,
            scavenge_rest: self.scavenge_rest.map(|rest| rest.0),
            max_age: self.max_age.map(|age| age.0),
            scavenge_threads: self.scavenge_threads,
            scavenge_throttle: self.scavenge_throttle,
            new_branch: self.new_branch,
            new_address: self.new_address,
            accept_damaged: self.accept_damaged,
            accept_same_disk: self.accept_same_disk,
            attempts: self.attempts,
            filter_max_age: self.filter_max_age.0,
            recheck: self.recheck,
            dry_run: self.dry_run,
            load: self.load.into(),
        }
    }
}

/// What a backup does if a scavenge runs on the node, or a cycle of auto-scavenge in its cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ScavengeManner {
    /// Wait until it has ended. Once the backups are older than --max-age, stop it, but at most once
    /// in --scavenge-rest
    Wait,
    /// Take no backup
    Skip,
    /// Stop it, and start it again after the backup
    Stop,
}

/// How many of the reused bytes a diff hashes again: `512MiB`, `5%`, `0`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RecheckAmount {
    /// A number of bytes.
    Bytes(u64),
    /// A percentage, 0 to 100.
    Percent(u8),
}

impl FromStr for RecheckAmount {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let amount = match text.strip_suffix('%') {
            Some(digits) => percentage(digits),
            None => match text.parse::<ByteSize>() {
                Ok(size) => Some(Self::Bytes(size.as_u64())),
                Err(_) => None,
            },
        };

        amount.ok_or_else(|| {
            format!(
                "{text:?} is neither a number of bytes such as 512MiB nor a percentage such as 5%"
            )
        })
    }
}

fn percentage(digits: &str) -> Option<RecheckAmount> {
    match digits.parse() {
        Ok(percent @ 0..=100) => Some(RecheckAmount::Percent(percent)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_recheck_amount_is_bytes_or_a_percentage() {
        assert_eq!("1GiB".parse(), Ok(RecheckAmount::Bytes(1 << 30)));
        assert_eq!("0".parse(), Ok(RecheckAmount::Bytes(0)));
        assert_eq!("100%".parse(), Ok(RecheckAmount::Percent(100)));
        for text in ["", "%", "-1", "101%", "1.5%", "1XB", "all"] {
            assert!(text.parse::<RecheckAmount>().is_err(), "{text}");
        }
    }
}
