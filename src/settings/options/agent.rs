//! `kbackup agent`: its own options. The options of `full`, `diff`, `verify` and `expire` say what
//! its jobs do.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::{Args, ValueEnum};

use super::RepositoryArguments;
use super::backup::ScavengeManner;
use super::node::{NodeArguments, NodeOptions, SourceDirectories, SourceDirectoriesArguments};
use crate::clock::{Span, Zone};
use crate::schedule::{OnChange, Schedule};
use crate::settings::SecretSource;
use crate::settings::hook::Hook;
use crate::settings::origin::Origins;

const SCHEDULE: &str = "Schedule";
const CLUSTER: &str = "Cluster";
const PAGE: &str = "Page";
const HOOKS: &str = "Hooks";

#[derive(Debug, Args)]
pub(in crate::settings) struct AgentArguments {
    #[command(flatten)]
    repository: RepositoryArguments,
    /// Make the repository if there is none, and if kbackup never saw one at this path
    #[arg(long, env = "KBACKUP_NEW_REPOSITORY")]
    new_repository: bool,
    /// Do not warn that the repository is on the node's own disk
    #[arg(long, env = "KBACKUP_ACCEPT_SAME_DISK")]
    accept_same_disk: bool,
    #[command(flatten)]
    node: NodeArguments,
    #[command(flatten)]
    directories: SourceDirectoriesArguments,
    /// When to take a diff: an interval (`1h`), a cron expression (`30 2 * * *`), `@daily`, or
    /// `off`. The first backup of a repository is always a full
    #[arg(
        long,
        env = "KBACKUP_DIFF_SCHEDULE",
        value_name = "SCHEDULE",
        default_value = "1h",
        help_heading = SCHEDULE
    )]
    diff_schedule: Schedule,
    /// When to take a full, which reads every byte of the node's files again
    #[arg(
        long,
        env = "KBACKUP_FULL_SCHEDULE",
        value_name = "SCHEDULE",
        default_value = "off",
        help_heading = SCHEDULE
    )]
    full_schedule: Schedule,
    /// When to verify backups: the newest backup, or those that the options of `verify` name
    #[arg(
        long,
        env = "KBACKUP_VERIFY_SCHEDULE",
        value_name = "SCHEDULE",
        default_value = "7d",
        help_heading = SCHEDULE
    )]
    verify_schedule: Schedule,
    /// When to remove old backups by the options of `expire`
    #[arg(
        long,
        env = "KBACKUP_EXPIRE_SCHEDULE",
        value_name = "SCHEDULE",
        default_value = "off",
        help_heading = SCHEDULE
    )]
    expire_schedule: Schedule,
    /// Also take a diff when this much was written since the last backup, or when the oldest write
    /// that is in no backup is this old: `64MiB or 5m`, either of the two, or `off`
    #[arg(
        long,
        env = "KBACKUP_ON_CHANGE",
        value_name = "CHANGE",
        default_value = "off",
        help_heading = SCHEDULE
    )]
    on_change: OnChange,
    /// Time zone of the schedules and windows, such as Europe/Berlin
    #[arg(
        long,
        env = "KBACKUP_TIME_ZONE",
        value_name = "ZONE",
        default_value = "system",
        help_heading = SCHEDULE
    )]
    time_zone: Zone,
    /// Begin up to this much later than the schedule says, so that not all agents begin at once
    #[arg(
        long,
        env = "KBACKUP_JITTER",
        value_name = "TIME",
        default_value = "0s",
        help_heading = SCHEDULE
    )]
    jitter: Span,
    /// Longest time that data may be in no backup; after that the node is not safe
    #[arg(
        long,
        env = "KBACKUP_MAX_AGE",
        value_name = "TIME",
        default_value = "26h",
        help_heading = SCHEDULE
    )]
    max_age: Span,
    /// What a backup does if a scavenge runs on the node, or a cycle of auto-scavenge in its cluster
    #[arg(
        long,
        env = "KBACKUP_SCAVENGE",
        value_enum,
        default_value_t = ScavengeManner::Wait,
        value_name = "HOW",
        help_heading = SCHEDULE
    )]
    scavenge: ScavengeManner,
    /// With `--scavenge wait`: stop a running scavenge at most once in this time. Otherwise a backup
    /// waits until the scavenge has ended, as long as --max-age allows
    #[arg(
        long,
        env = "KBACKUP_SCAVENGE_REST",
        value_name = "TIME",
        default_value = "24h",
        help_heading = SCHEDULE
    )]
    scavenge_rest: Span,
    /// In a cluster: back up each node, or take one backup for all nodes
    #[arg(
        long,
        env = "KBACKUP_CLUSTER",
        value_enum,
        default_value_t = ClusterMode::Each,
        value_name = "WHICH",
        help_heading = CLUSTER
    )]
    cluster: ClusterMode,
    /// Directory that holds the repositories of all members side by side; each member has its own
    /// agent
    #[arg(long, env = "KBACKUP_CLUSTER_DIR", value_name = "DIR", help_heading = CLUSTER)]
    cluster_dir: Option<PathBuf>,
    /// With `--cluster one`: wait this long for each preferred member before the next member takes
    /// its place
    #[arg(
        long,
        env = "KBACKUP_CLUSTER_GRACE",
        value_name = "TIME",
        default_value = "10m",
        help_heading = CLUSTER
    )]
    cluster_grace: Span,
    /// Whether several members may be backed up at the same time. The order is: read-only replicas,
    /// followers, the leader
    #[arg(
        long,
        env = "KBACKUP_TURNS",
        value_enum,
        default_value_t = ClusterTurns::AtOnce,
        value_name = "HOW",
        help_heading = CLUSTER
    )]
    turns: ClusterTurns,
    /// Serve the status page and the metrics at this address, or `off`
    #[arg(
        long,
        env = "KBACKUP_LISTEN",
        value_name = "ADDRESS:PORT",
        default_value = "127.0.0.1:2114",
        help_heading = PAGE
    )]
    listen: ListenAddress,
    /// Also answer to this host name, if a proxy forwards the host name of its request; may be
    /// repeated. At a loopback address the agent answers to loopback names only, so that no foreign
    /// web page can read it
    #[arg(
        long,
        env = "KBACKUP_LISTEN_HOST",
        value_name = "NAME",
        value_delimiter = ',',
        help_heading = PAGE
    )]
    listen_host: Vec<String>,
    /// Name of the user who may read the page; the password comes from --listen-password-file or
    /// KBACKUP_LISTEN_PASSWORD [default: no user and no password]
    #[arg(long, env = "KBACKUP_LISTEN_USER", value_name = "NAME", help_heading = PAGE)]
    listen_user: Option<String>,
    /// File whose first line is the password of that user
    #[arg(long, env = "KBACKUP_LISTEN_PASSWORD_FILE", value_name = "FILE", help_heading = PAGE)]
    listen_password_file: Option<PathBuf>,
    /// PEM file with the certificate of the page and its intermediate certificates, to serve the
    /// page encrypted; a renewed file is read without a restart
    #[arg(
        long,
        env = "KBACKUP_LISTEN_CERTIFICATE_FILE",
        value_name = "FILE",
        help_heading = PAGE
    )]
    listen_certificate_file: Option<PathBuf>,
    /// PEM file with the private key of that certificate
    #[arg(long, env = "KBACKUP_LISTEN_KEY_FILE", value_name = "FILE", help_heading = PAGE)]
    listen_key_file: Option<PathBuf>,
    /// Tell this command or URL of each run that succeeded or found nothing to do. A command (run
    /// without a shell) gets JSON on its standard input, a URL gets it by POST; may be repeated
    #[arg(
        long,
        env = "KBACKUP_ON_SUCCESS",
        value_name = "COMMAND|URL",
        hide_env_values = true,
        help_heading = HOOKS
    )]
    on_success: Vec<Hook>,
    /// Tell this command or URL of each run that failed, and of the first success after it
    #[arg(
        long,
        env = "KBACKUP_ON_FAILURE",
        value_name = "COMMAND|URL",
        hide_env_values = true,
        help_heading = HOOKS
    )]
    on_failure: Vec<Hook>,
    /// Tell this command or URL when data has been in no backup for longer than --max-age, and when
    /// the node is safe again
    #[arg(
        long,
        env = "KBACKUP_ON_TOO_OLD",
        value_name = "COMMAND|URL",
        hide_env_values = true,
        help_heading = HOOKS
    )]
    on_too_old: Vec<Hook>,
    /// Kill a hook, and everything that it started, after this time
    #[arg(
        long,
        env = "KBACKUP_HOOK_TIMEOUT",
        value_name = "TIME",
        default_value = "60s",
        help_heading = HOOKS
    )]
    hook_timeout: Span,
    /// Check the configuration, show what the agent would do, and exit
    #[arg(long, env = "KBACKUP_CHECK_CONFIG")]
    check_config: bool,
}

/// The options of `kbackup agent`.
#[derive(Debug, Clone)]
pub struct AgentOptions {
    /// `--repo`.
    pub repository: PathBuf,
    /// `--new-repository`.
    pub new_repository: bool,
    /// `--accept-same-disk`.
    pub accept_same_disk: bool,
    /// How to reach the node.
    pub node: NodeOptions,
    /// The directories that the user named.
    pub directories: SourceDirectories,
    /// `--diff-schedule`.
    pub diff_schedule: Schedule,
    /// `--full-schedule`.
    pub full_schedule: Schedule,
    /// `--verify-schedule`.
    pub verify_schedule: Schedule,
    /// `--expire-schedule`.
    pub expire_schedule: Schedule,
    /// `--on-change`.
    pub on_change: OnChange,
    /// `--time-zone`.
    pub time_zone: Zone,
    /// `--jitter`.
    pub jitter: Duration,
    /// `--max-age`.
    pub max_age: Duration,
    /// `--scavenge`.
    pub scavenge: ScavengeManner,
    /// `--scavenge-rest`.
    pub scavenge_rest: Duration,
    /// `--cluster`.
    pub cluster: ClusterMode,
    /// `--cluster-dir`.
    pub cluster_dir: Option<PathBuf>,
    /// `--cluster-grace`.
    pub cluster_grace: Duration,
    /// `--turns`.
    pub turns: ClusterTurns,
    /// `--listen`.
    pub listen: ListenAddress,
    /// `--listen-host`.
    pub listen_hosts: Vec<String>,
    /// `--listen-user`.
    pub listen_user: Option<String>,
    /// `--listen-password-file` or `KBACKUP_LISTEN_PASSWORD`.
    pub listen_password: SecretSource,
    /// `--listen-certificate-file`.
    pub listen_certificate_file: Option<PathBuf>,
    /// `--listen-key-file`.
    pub listen_key_file: Option<PathBuf>,
    /// `--on-success`.
    pub on_success: Vec<Hook>,
    /// `--on-failure`.
    pub on_failure: Vec<Hook>,
    /// `--on-too-old`.
    pub on_too_old: Vec<Hook>,
    /// `--hook-timeout`.
    pub hook_timeout: Duration,
    /// `--check-config`.
    pub check_config: bool,
}

impl AgentArguments {
    pub(super) fn into_options(self, origins: Origins<'_>) -> AgentOptions {
        AgentOptions {
            repository: self.repository.repo,
            new_repository: self.new_repository,
            accept_same_disk: self.accept_same_disk,
            node: self.node.into_options(origins),
            directories: self.directories.into(),
            diff_schedule: self.diff_schedule,
            full_schedule: self.full_schedule,
            verify_schedule: self.verify_schedule,
            expire_schedule: self.expire_schedule,
            on_change: self.on_change,
            time_zone: self.time_zone,
            jitter: self.jitter.0,
            max_age: self.max_age.0,
            scavenge: self.scavenge,
            scavenge_rest: self.scavenge_rest.0,
            cluster: self.cluster,
            cluster_dir: self.cluster_dir,
            cluster_grace: self.cluster_grace.0,
            turns: self.turns,
            listen: self.listen,
            listen_hosts: self.listen_host,
            listen_user: self.listen_user,
            listen_password: SecretSource::new(
                self.listen_password_file,
                origins.of("listen_password_file"),
                "KBACKUP_LISTEN_PASSWORD",
            ),
            listen_certificate_file: self.listen_certificate_file,
            listen_key_file: self.listen_key_file,
            on_success: self.on_success,
            on_failure: self.on_failure,
            on_too_old: self.on_too_old,
            hook_timeout: self.hook_timeout.0,
            check_config: self.check_config,
        }
    }
}

impl AgentOptions {
    /// Whether two members of the cluster are never backed up at the same time.
    #[must_use]
    pub fn takes_turns(&self) -> bool {
        self.cluster == ClusterMode::One || self.turns == ClusterTurns::OneAfterAnother
    }
}

/// Which nodes of a cluster are backed up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ClusterMode {
    /// Each node, by the agent beside it
    Each,
    /// The preferred node of those that are up; its backup counts for all
    One,
}

/// Whether several members of a cluster may be backed up at the same time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ClusterTurns {
    /// Each member when it is due
    AtOnce,
    /// Never two members at the same time
    OneAfterAnother,
}

/// Where the agent serves its page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ListenAddress {
    /// The agent serves no page.
    Off,
    /// The address and the port of the page.
    At(SocketAddr),
}

impl FromStr for ListenAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "off" {
            return Ok(Self::Off);
        }
        match text.parse() {
            Ok(address) => Ok(Self::At(address)),
            Err(_) => Err(format!(
                "{text:?} is neither `off` nor an address with a port such as 127.0.0.1:2114 or \
                 [::1]:2114"
            )),
        }
    }
}
