//! Every verb and every option, declared once.

use std::path::PathBuf;
use std::str::FromStr;

use bytesize::ByteSize;
use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::clock::{Span, Window, Zone};
use crate::pace::Rate;
use crate::schedule::{OnChange, Schedule};
use crate::settings::hook::Hook;

/// Backs up a running KurrentDB / `EventStoreDB` node, and brings it back.
#[derive(Debug, Parser)]
#[command(
    name = "kbackup",
    about = "Backs up a running KurrentDB or EventStoreDB node, and brings it back",
    version,
    max_term_width = 120,
    disable_help_subcommand = true,
    subcommand_required = true
)]
#[command(
    after_help = "Every option can also be set as an environment variable (KBACKUP_REPO for --repo, …) or as a key of the TOML file that --config names; \
    a flag wins over the environment, the environment over the file. Passwords and tokens never go into arguments: see --password-file, KBACKUP_PASSWORD, \
    --token-file, KBACKUP_TOKEN."
)]
pub struct Arguments {
    /// What to do.
    #[command(subcommand)]
    pub verb: Verb,
    /// What every verb understands.
    #[command(flatten)]
    pub general: General,
}

/// What every verb understands.
#[derive(Debug, Clone, Args)]
pub struct General {
    /// TOML file with options; a table such as `[restore]` holds those of one verb
    #[arg(
        long,
        global = true,
        env = "KBACKUP_CONFIG",
        value_name = "FILE",
        help_heading = "General"
    )]
    pub config: Option<PathBuf>,
    /// Print the answer as JSON
    #[arg(long, global = true, env = "KBACKUP_JSON", help_heading = "General")]
    pub json: bool,
    /// What the log on standard error says
    #[arg(long, global = true, env = "KBACKUP_LOG", value_enum, default_value_t = LogLevel::Info, value_name = "LEVEL", help_heading = "General")]
    pub log: LogLevel,
    /// How the log is written
    #[arg(long, global = true, env = "KBACKUP_LOG_FORMAT", value_enum, default_value_t = LogFormat::Text, value_name = "FORMAT", help_heading = "General")]
    pub log_format: LogFormat,
    /// Where kbackup remembers what it owes to nodes [default: /var/lib/kbackup for root, else
    /// ~/.local/state/kbackup]
    #[arg(
        long,
        global = true,
        env = "KBACKUP_STATE_DIR",
        value_name = "DIR",
        help_heading = "General"
    )]
    pub state_dir: Option<PathBuf>,
}

/// How much is said.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogLevel {
    /// Errors only.
    Error,
    /// And warnings.
    Warn,
    /// And what happens.
    Info,
    /// And every file.
    Debug,
}

/// How the log is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// Lines for people.
    Text,
    /// One JSON object a line.
    Json,
}

/// The verbs.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Take a backup that reads every byte of the node's files again
    Full(Backup),
    /// Take a backup that reads only what changed since the newest one
    Diff(Backup),
    /// Write a backup into an empty directory that a server then starts from
    Restore(Restore),
    /// Prove that stored backups are intact and would start
    Verify(Verify),
    /// Tell whether a server would start from a data directory, and what it would lose, rebuild or
    /// refuse
    Check(Check),
    /// Remove the backups that are not to be kept any longer
    Expire(Expire),
    /// List the backups of a repository
    List(List),
    /// Show one backup
    Show(Show),
    /// Give back to a node what a killed backup still owes it
    Release(Release),
    /// Tell whether a node is safe now: from its agent, or from the repository alone
    Status(Status),
    /// Keep a node backed up: run beside it for good, by a schedule and as it changes, and show how
    /// it stands
    Agent(Box<Agent>),
    /// Print the completions of a shell
    Completions(Completions),
    /// Print a manual page, or write all of them into a directory
    Manual(Manual),
}

/// Where backups are kept.
#[derive(Debug, Clone, Args)]
pub struct Repository {
    /// Directory of the repository
    #[arg(long, env = "KBACKUP_REPO", value_name = "DIR")]
    pub repo: PathBuf,
}

/// How much a verb takes of a machine that others work on: one that has time.
#[derive(Debug, Clone, Copy, Args)]
pub struct Unhurried {
    /// How it stands back
    #[arg(long, env = "KBACKUP_PRIORITY", value_enum, default_value_t = Priority::Low, value_name = "LEVEL", help_heading = "Load")]
    pub priority: Priority,
    /// The rate.
    #[command(flatten)]
    pub speed: Speed,
    /// Hours of the day, in local time, in which it may run, such as 22:00-05:00; it ends cleanly
    /// when they are over
    #[arg(
        long,
        env = "KBACKUP_WINDOW",
        value_name = "FROM-TO",
        help_heading = "Load"
    )]
    pub window: Option<Window>,
}

/// How much a verb takes of a machine: one that somebody waits for.
#[derive(Debug, Clone, Copy, Args)]
pub struct Awaited {
    /// How it stands back
    #[arg(long, env = "KBACKUP_PRIORITY", value_enum, default_value_t = Priority::Normal, value_name = "LEVEL", help_heading = "Load")]
    pub priority: Priority,
    /// The rate.
    #[command(flatten)]
    pub speed: Speed,
}

/// How fast a verb may go, and how fast it went.
#[derive(Debug, Clone, Copy, Default, Args)]
pub struct Speed {
    /// Read and copy no more bytes in a second, all threads together, such as 50MiB or 200MB
    /// [default: no limit]
    #[arg(long, env = "KBACKUP_LIMIT_RATE", value_name = "BYTES", value_parser = rate, help_heading = "Load")]
    pub limit_rate: Option<Rate>,
    /// Tell at the end where the time went
    #[arg(long, env = "KBACKUP_TIMINGS", help_heading = "Load")]
    pub timings: bool,
}

fn rate(text: &str) -> Result<Rate, String> {
    let bytes = ByteSize::from_str(text)
        .map_err(|_| format!("{text:?} is no number of bytes such as 50MiB or 200MB"))?;
    Rate::new(bytes.as_u64())
        .ok_or_else(|| format!("at least {} bytes a second are needed", Rate::LOWEST))
}

/// How a run stands back behind what else the machine does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum Priority {
    /// Like any other program
    #[default]
    Normal,
    /// Nice 10, and by it a low level of the best-effort I/O class
    Low,
    /// Only when nothing else wants the processor: nice 19, the idle scheduling policy, and by it
    /// the idle I/O class
    Idle,
}

/// How much a run takes of the machine.
#[derive(Debug, Clone, Copy, Default)]
pub struct Load {
    /// How it stands back.
    pub priority: Priority,
    /// Its highest rate.
    pub rate: Option<Rate>,
    /// The hours in which it may run.
    pub window: Option<Window>,
    /// Tell where the time went.
    pub timings: bool,
}

impl From<Unhurried> for Load {
    fn from(
        Unhurried {
            priority,
            speed,
            window,
        }: Unhurried,
    ) -> Self {
        Self {
            priority,
            rate: speed.limit_rate,
            window,
            timings: speed.timings,
        }
    }
}

impl From<Awaited> for Load {
    fn from(Awaited { priority, speed }: Awaited) -> Self {
        Self {
            priority,
            rate: speed.limit_rate,
            window: None,
            timings: speed.timings,
        }
    }
}

impl Verb {
    /// How much it takes of the machine.
    #[must_use]
    pub fn load(&self) -> Load {
        match self {
            Self::Full(options) | Self::Diff(options) => options.load.into(),
            Self::Verify(options) => options.load.into(),
            Self::Restore(options) => options.load.into(),
            Self::Check(options) => options.load.into(),
            Self::Expire(_)
            | Self::List(_)
            | Self::Show(_)
            | Self::Status(_)
            | Self::Release(_)
            | Self::Agent(_)
            | Self::Completions(_)
            | Self::Manual(_) => Load::default(),
        }
    }
}

/// A node's address as it was written: somebody may have put a password into it.
#[derive(Clone, PartialEq, Eq)]
pub struct Address(pub String);

impl FromStr for Address {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(Self(text.to_owned()))
    }
}

impl std::fmt::Debug for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.0.rsplit_once('@').map_or(&self.0, |(_, host)| host))
    }
}

/// How to reach the node's admin API.
#[derive(Debug, Clone, Args)]
pub struct Node {
    /// The node's address, such as `https://node1.example:2113`
    #[arg(long, env = "KBACKUP_NODE", value_name = "URL", help_heading = "Node")]
    pub node: Option<Address>,
    /// Reach the node through its unix socket (kurrent.sock, eventstore.sock)
    #[arg(
        long,
        env = "KBACKUP_NODE_SOCKET",
        value_name = "PATH",
        help_heading = "Node"
    )]
    pub node_socket: Option<PathBuf>,
    /// PEM file with the certificate authorities to trust, and only those; may be repeated
    #[arg(
        long,
        env = "KBACKUP_CA_FILE",
        value_name = "FILE",
        value_delimiter = ',',
        help_heading = "Node"
    )]
    pub ca_file: Vec<PathBuf>,
    /// PEM file with a client certificate
    #[arg(
        long,
        env = "KBACKUP_CERTIFICATE_FILE",
        value_name = "FILE",
        help_heading = "Node"
    )]
    pub certificate_file: Option<PathBuf>,
    /// PEM file with the client certificate's private key
    #[arg(
        long,
        env = "KBACKUP_KEY_FILE",
        value_name = "FILE",
        help_heading = "Node"
    )]
    pub key_file: Option<PathBuf>,
    /// Name of a user in $ops or $admins; its password comes from --password-file or
    /// KBACKUP_PASSWORD
    #[arg(long, env = "KBACKUP_USER", value_name = "NAME", help_heading = "Node")]
    pub user: Option<String>,
    /// File with the user's password
    #[arg(
        long,
        env = "KBACKUP_PASSWORD_FILE",
        value_name = "FILE",
        help_heading = "Node"
    )]
    pub password_file: Option<PathBuf>,
    /// File with a bearer token (or KBACKUP_TOKEN)
    #[arg(
        long,
        env = "KBACKUP_TOKEN_FILE",
        value_name = "FILE",
        conflicts_with = "user",
        help_heading = "Node"
    )]
    pub token_file: Option<PathBuf>,
    /// Name to expect in the node's certificate, where it is not the address's
    #[arg(
        long,
        env = "KBACKUP_NODE_SERVER_NAME",
        value_name = "NAME",
        help_heading = "Node"
    )]
    pub node_server_name: Option<String>,
    /// How long a single answer of the node may take
    #[arg(
        long,
        env = "KBACKUP_NODE_TIMEOUT",
        value_name = "TIME",
        default_value = "15s",
        help_heading = "Node"
    )]
    pub node_timeout: Span,
    /// How long to go on asking a node that is away, or answers by errors
    #[arg(
        long,
        env = "KBACKUP_NODE_PATIENCE",
        value_name = "TIME",
        default_value = "30s",
        help_heading = "Node"
    )]
    pub node_patience: Span,
}

/// Where the node's files are.
#[derive(Debug, Clone, Args)]
pub struct Places {
    /// The node's db directory, as it is seen here [default: what the node says]
    #[arg(long, env = "KBACKUP_DB", value_name = "DIR", help_heading = "Source")]
    pub db: Option<PathBuf>,
    /// The node's index directory, as it is seen here [default: what the node says, or DB/index]
    #[arg(
        long,
        env = "KBACKUP_INDEX",
        value_name = "DIR",
        help_heading = "Source"
    )]
    pub index: Option<PathBuf>,
}

/// `kbackup full` and `kbackup diff`.
#[derive(Debug, Args)]
pub struct Backup {
    /// The repository.
    #[command(flatten)]
    pub repository: Repository,
    /// The node.
    #[command(flatten)]
    pub node: Node,
    /// The node is stopped, or the directories are a mounted snapshot: ask no node
    #[arg(long, env = "KBACKUP_OFFLINE", conflicts_with_all = ["node", "node_socket"], help_heading = "Source")]
    pub offline: bool,
    /// Its directories.
    #[command(flatten)]
    pub places: Places,
    /// The server's version, where no node can be asked
    #[arg(
        long,
        env = "KBACKUP_SERVER_VERSION",
        value_name = "VERSION",
        help_heading = "Source"
    )]
    pub server_version: Option<String>,
    /// Back up a node that is not up to date and connected
    #[arg(long, env = "KBACKUP_ALLOW_UNFIT", help_heading = "Source")]
    pub allow_unfit: bool,
    /// How long to wait for the node to become fit
    #[arg(
        long,
        env = "KBACKUP_WAIT",
        value_name = "TIME",
        default_value = "1m",
        help_heading = "Source"
    )]
    pub wait: Span,
    /// Do not stop scavenges; only where something else is known to keep them away
    #[arg(long, env = "KBACKUP_NO_QUIESCE", help_heading = "Scavenging")]
    pub no_quiesce: bool,
    /// How long auto-scavenge may take to pause, and a scavenge to stop
    #[arg(
        long,
        env = "KBACKUP_QUIESCE_WAIT",
        value_name = "TIME",
        default_value = "5m",
        help_heading = "Scavenging"
    )]
    pub quiesce_wait: Span,
    /// How long the node may be without its scavenging, in all; then it is given back, and the
    /// backup fails
    #[arg(
        long,
        env = "KBACKUP_MAX_PAUSE",
        value_name = "TIME",
        default_value = "2h",
        help_heading = "Scavenging"
    )]
    pub max_pause: Span,
    /// Threads of a scavenge that is given back; the node does not tell how many it had
    #[arg(
        long,
        env = "KBACKUP_SCAVENGE_THREADS",
        value_name = "N",
        help_heading = "Scavenging"
    )]
    pub scavenge_threads: Option<u32>,
    /// Throttle percentage of a scavenge that is given back
    #[arg(long, env = "KBACKUP_SCAVENGE_THROTTLE", value_name = "PERCENT", value_parser = clap::value_parser!(u32).range(1..=100), help_heading = "Scavenging")]
    pub scavenge_throttle: Option<u32>,
    /// Where the node's log went another way since the newest backup (it was restored, or
    /// truncated): go on beside it
    #[arg(long, env = "KBACKUP_NEW_BRANCH")]
    pub new_branch: bool,
    /// The node has another advertised address than in the newest backup: keep to that one from now
    /// on
    #[arg(long, env = "KBACKUP_NEW_ADDRESS")]
    pub new_address: bool,
    /// Keep a backup whose chunks fail their own MD5, marked as damaged
    #[arg(long, env = "KBACKUP_ACCEPT_DAMAGED")]
    pub accept_damaged: bool,
    /// How often the procedure may start over when the source changes underfoot
    #[arg(long, env = "KBACKUP_ATTEMPTS", value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub attempts: u32,
    /// A diff reads the stream-existence filter again when the stored one is older
    #[arg(
        long,
        env = "KBACKUP_FILTER_MAX_AGE",
        value_name = "TIME",
        default_value = "24h"
    )]
    pub filter_max_age: Span,
    /// How much of what a diff takes over from an earlier backup is hashed again, in turns: bytes
    /// (`512MiB`; a file counts as 1 MiB at least), a percentage (`5%`), or 0
    #[arg(
        long,
        env = "KBACKUP_RECHECK",
        value_name = "SIZE|PERCENT",
        default_value = "1GiB"
    )]
    pub recheck: Share,
    /// Tell what would be copied, and copy nothing
    #[arg(long, env = "KBACKUP_DRY_RUN")]
    pub dry_run: bool,
    /// The load.
    #[command(flatten)]
    pub load: Unhurried,
}

/// `kbackup restore`.
#[derive(Debug, Args)]
pub struct Restore {
    /// Which backup
    #[arg(value_name = "LABEL", default_value = "latest")]
    pub label: String,
    /// The repository.
    #[command(flatten)]
    pub repository: Repository,
    /// Empty directory for the db; repeat it to restore several members of a cluster in one run
    #[arg(
        long,
        env = "KBACKUP_TO",
        value_name = "DIR",
        required = true,
        value_delimiter = ','
    )]
    pub to: Vec<PathBuf>,
    /// Empty directory for the index [default: TO/index]; as many as --to, in the same order
    #[arg(
        long,
        env = "KBACKUP_INDEX_TO",
        value_name = "DIR",
        value_delimiter = ','
    )]
    pub index_to: Vec<PathBuf>,
    /// Leave truncate.chk at -1: the server is up at its first start
    #[arg(long, env = "KBACKUP_READY")]
    pub ready: bool,
    /// User and group of the restored files [default: those of the target directory or of the
    /// backup]
    #[arg(long, env = "KBACKUP_OWNER", value_name = "USER:GROUP")]
    pub owner: Option<String>,
    /// Version of the server that will start there
    #[arg(long, env = "KBACKUP_SERVER_VERSION", value_name = "VERSION")]
    pub server_version: Option<String>,
    /// Restore a backup of an archived node: the server needs the same archive
    #[arg(long, env = "KBACKUP_ARCHIVED")]
    pub archived: bool,
    /// Restore for a server that is older than the one the backup was taken from
    #[arg(long, env = "KBACKUP_OLDER_SERVER")]
    pub older_server: bool,
    /// Leave a target alone in which a database stands, and end well: for a container that restores
    /// before the server starts, each time
    #[arg(long, env = "KBACKUP_UNLESS_RESTORED")]
    pub unless_restored: bool,
    /// Restore although something that would refuse cannot be probed (network file systems)
    #[arg(long, env = "KBACKUP_CONFIRM")]
    pub confirm: bool,
    /// Show the plan, and write nothing
    #[arg(long, env = "KBACKUP_DRY_RUN")]
    pub dry_run: bool,
    /// The load.
    #[command(flatten)]
    pub load: Awaited,
}

/// `kbackup verify`.
#[derive(Debug, Args)]
pub struct Verify {
    /// Which backups [default: the newest]
    #[arg(value_name = "LABEL", conflicts_with = "all")]
    pub labels: Vec<String>,
    /// The repository.
    #[command(flatten)]
    pub repository: Repository,
    /// All backups
    #[arg(long, env = "KBACKUP_ALL")]
    pub all: bool,
    /// Structure and sizes only; no byte is hashed
    #[arg(long, env = "KBACKUP_QUICK", conflicts_with = "deep")]
    pub quick: bool,
    /// Also every entry of every index table against the log
    #[arg(long, env = "KBACKUP_DEEP")]
    pub deep: bool,
    /// Mend what is damaged, in all backups that share it, from another copy of the same bytes in
    /// the repository
    #[arg(long, env = "KBACKUP_REPAIR", conflicts_with = "quick")]
    pub repair: bool,
    /// With --repair: tell what would be mended, and mend nothing
    #[arg(long, env = "KBACKUP_DRY_RUN")]
    pub dry_run: bool,
    /// The load.
    #[command(flatten)]
    pub load: Unhurried,
}

/// `kbackup expire`.
#[derive(Debug, Args)]
pub struct Expire {
    /// The repository.
    #[command(flatten)]
    pub repository: Repository,
    /// The policy.
    #[command(flatten)]
    pub keep: Keep,
    /// Remove without asking; needed where nobody sits at a terminal
    #[arg(long, env = "KBACKUP_CONFIRM")]
    pub confirm: bool,
    /// Show the plan, and remove nothing
    #[arg(long, env = "KBACKUP_DRY_RUN")]
    pub dry_run: bool,
}

/// What to keep of each branch; what no rule keeps goes.
#[derive(Debug, Clone, Args)]
pub struct Keep {
    /// The newest N backups
    #[arg(long, env = "KBACKUP_KEEP_LAST", value_name = "N", value_parser = at_least_one(), help_heading = "Keep, of each branch")]
    pub keep_last: Option<u32>,
    /// The newest backup of each of the last N hours that have one
    #[arg(long, env = "KBACKUP_KEEP_HOURLY", value_name = "N", value_parser = at_least_one(), help_heading = "Keep, of each branch")]
    pub keep_hourly: Option<u32>,
    /// The newest backup of each of the last N days that have one
    #[arg(long, env = "KBACKUP_KEEP_DAILY", value_name = "N", value_parser = at_least_one(), help_heading = "Keep, of each branch")]
    pub keep_daily: Option<u32>,
    /// The newest backup of each of the last N weeks that have one; a week begins on Monday
    #[arg(long, env = "KBACKUP_KEEP_WEEKLY", value_name = "N", value_parser = at_least_one(), help_heading = "Keep, of each branch")]
    pub keep_weekly: Option<u32>,
    /// The newest backup of each of the last N months that have one
    #[arg(long, env = "KBACKUP_KEEP_MONTHLY", value_name = "N", value_parser = at_least_one(), help_heading = "Keep, of each branch")]
    pub keep_monthly: Option<u32>,
    /// The newest backup of each of the last N years that have one
    #[arg(long, env = "KBACKUP_KEEP_YEARLY", value_name = "N", value_parser = at_least_one(), help_heading = "Keep, of each branch")]
    pub keep_yearly: Option<u32>,
    /// All that were finished no longer than this before the newest good backup of the repository
    #[arg(
        long,
        env = "KBACKUP_KEEP_WITHIN",
        value_name = "TIME",
        help_heading = "Keep, of each branch"
    )]
    pub keep_within: Option<Span>,
    /// Where hours, days and all others begin, such as Europe/Berlin
    #[arg(
        long,
        env = "KBACKUP_TIME_ZONE",
        value_name = "ZONE",
        default_value = "system",
        help_heading = "Keep, of each branch"
    )]
    pub time_zone: Zone,
}

fn at_least_one() -> clap::builder::RangedI64ValueParser<u32> {
    clap::value_parser!(u32).range(1..)
}

/// `kbackup check`.
#[derive(Debug, Args)]
pub struct Check {
    /// The db directory
    #[arg(value_name = "DIR")]
    pub directory: PathBuf,
    /// The index directory [default: DIR/index]
    #[arg(long, env = "KBACKUP_INDEX", value_name = "DIR")]
    pub index: Option<PathBuf>,
    /// Version of the server that would start there [default: all known ones]
    #[arg(long, env = "KBACKUP_SERVER_VERSION", value_name = "VERSION")]
    pub server_version: Option<String>,
    /// Structure only; no chunk or table is hashed
    #[arg(long, env = "KBACKUP_QUICK", conflicts_with = "deep")]
    pub quick: bool,
    /// Also every record of the log, and every entry of the index against it
    #[arg(long, env = "KBACKUP_DEEP")]
    pub deep: bool,
    /// The load.
    #[command(flatten)]
    pub load: Awaited,
}

/// `kbackup list`.
#[derive(Debug, Args)]
pub struct List {
    /// The repository.
    #[command(flatten)]
    pub repository: Repository,
}

/// `kbackup show`.
#[derive(Debug, Args)]
pub struct Show {
    /// Which backup
    #[arg(value_name = "LABEL", default_value = "latest")]
    pub label: String,
    /// The repository.
    #[command(flatten)]
    pub repository: Repository,
    /// Every file, too
    #[arg(long, env = "KBACKUP_FILES")]
    pub files: bool,
}

/// `kbackup release`.
#[derive(Debug, Args)]
pub struct Release {
    /// The node; without it, every node that is owed something.
    #[command(flatten)]
    pub node: Node,
    /// Tell what is owed, and give nothing back
    #[arg(long, env = "KBACKUP_DRY_RUN")]
    pub dry_run: bool,
}

/// `kbackup status`.
#[derive(Debug, Args)]
pub struct Status {
    /// Directory of the repository, for where no agent is asked, or none answers
    #[arg(
        long,
        env = "KBACKUP_REPO",
        value_name = "DIR",
        required_unless_present = "agent"
    )]
    pub repo: Option<PathBuf>,
    /// Address of the agent, such as `http://127.0.0.1:2114`
    #[arg(long, env = "KBACKUP_AGENT", value_name = "URL")]
    pub agent: Option<Address>,
    /// User of the agent's page
    #[arg(
        long,
        env = "KBACKUP_AGENT_USER",
        value_name = "NAME",
        requires = "agent_password_file"
    )]
    pub agent_user: Option<String>,
    /// File with the password of the agent's page
    #[arg(long, env = "KBACKUP_AGENT_PASSWORD_FILE", value_name = "FILE")]
    pub agent_password_file: Option<PathBuf>,
    /// PEM file with the certificate authorities to trust for the agent's page; may be repeated
    #[arg(
        long,
        env = "KBACKUP_AGENT_CA_FILE",
        value_name = "FILE",
        value_delimiter = ','
    )]
    pub agent_ca_file: Vec<PathBuf>,
    /// What was written and is in no backup may become so old; an agent has its own limit
    #[arg(
        long,
        env = "KBACKUP_MAX_AGE",
        value_name = "TIME",
        default_value = "26h"
    )]
    pub max_age: Span,
    /// Answer as monitoring systems expect of a plugin: one line, and 0 OK, 1 WARNING, 2 CRITICAL,
    /// 3 UNKNOWN
    #[arg(long, env = "KBACKUP_MONITORING_PLUGIN")]
    pub monitoring_plugin: bool,
}

/// `kbackup agent`. What its runs of `full`, `diff`, `verify` and `expire` are to do stands in
/// their own options.
#[derive(Debug, Clone, Args)]
pub struct Agent {
    /// The repository.
    #[command(flatten)]
    pub repository: Repository,
    /// The node.
    #[command(flatten)]
    pub node: Node,
    /// Its directories.
    #[command(flatten)]
    pub places: Places,
    /// When to take a diff: an interval (`1h`), a cron expression (`30 2 * * *`), `@daily`, or
    /// `off`. The first backup of a repository is a full by itself
    #[arg(
        long,
        env = "KBACKUP_DIFF_SCHEDULE",
        value_name = "SCHEDULE",
        default_value = "1h",
        help_heading = "Schedule"
    )]
    pub diff_schedule: Schedule,
    /// When to read every byte of the node's files again
    #[arg(
        long,
        env = "KBACKUP_FULL_SCHEDULE",
        value_name = "SCHEDULE",
        default_value = "off",
        help_heading = "Schedule"
    )]
    pub full_schedule: Schedule,
    /// When to verify backups: the newest, or what the options of `verify` say
    #[arg(
        long,
        env = "KBACKUP_VERIFY_SCHEDULE",
        value_name = "SCHEDULE",
        default_value = "7d",
        help_heading = "Schedule"
    )]
    pub verify_schedule: Schedule,
    /// When to remove old backups, by the options of `expire`
    #[arg(
        long,
        env = "KBACKUP_EXPIRE_SCHEDULE",
        value_name = "SCHEDULE",
        default_value = "off",
        help_heading = "Schedule"
    )]
    pub expire_schedule: Schedule,
    /// Take a diff when so much was written since the last backup, or so long ago: `64MiB or 5m`,
    /// either of them, or `off`
    #[arg(
        long,
        env = "KBACKUP_ON_CHANGE",
        value_name = "CHANGE",
        default_value = "off",
        help_heading = "Schedule"
    )]
    pub on_change: OnChange,
    /// Zone of the schedules and windows, such as Europe/Berlin
    #[arg(
        long,
        env = "KBACKUP_TIME_ZONE",
        value_name = "ZONE",
        default_value = "system",
        help_heading = "Schedule"
    )]
    pub time_zone: Zone,
    /// Begin up to so much later than the schedule says, so that not all agents begin at once
    #[arg(
        long,
        env = "KBACKUP_JITTER",
        value_name = "TIME",
        default_value = "0s",
        help_heading = "Schedule"
    )]
    pub jitter: Span,
    /// What was written and is in no backup may become so old; then the node is not safe any more
    #[arg(
        long,
        env = "KBACKUP_MAX_AGE",
        value_name = "TIME",
        default_value = "26h",
        help_heading = "Schedule"
    )]
    pub max_age: Span,
    /// Stop a running scavenge at most once in this time; a diff waits for one anyway, as long as
    /// nothing is older than --max-age
    #[arg(
        long,
        env = "KBACKUP_SCAVENGE_REST",
        value_name = "TIME",
        default_value = "24h",
        help_heading = "Schedule"
    )]
    pub scavenge_rest: Span,
    /// In a cluster: whether each node is to be backed up, or one backup for all of them is enough
    #[arg(long, env = "KBACKUP_CLUSTER", value_enum, default_value_t = Cluster::Each, value_name = "WHICH", help_heading = "Cluster")]
    pub cluster: Cluster,
    /// Directory in which the repositories of all members lie side by side, each with an agent of
    /// its own
    #[arg(
        long,
        env = "KBACKUP_CLUSTER_DIR",
        value_name = "DIR",
        help_heading = "Cluster"
    )]
    pub cluster_dir: Option<PathBuf>,
    /// With `--cluster one`: how long each member that goes first is waited for, before the next
    /// one takes its place
    #[arg(
        long,
        env = "KBACKUP_CLUSTER_GRACE",
        value_name = "TIME",
        default_value = "10m",
        help_heading = "Cluster"
    )]
    pub cluster_grace: Span,
    /// Whether members may be backed up at once; read-only replicas go first, then followers, the
    /// leader last
    #[arg(long, env = "KBACKUP_TURNS", value_enum, default_value_t = Turns::AtOnce, value_name = "HOW", help_heading = "Cluster")]
    pub turns: Turns,
    /// Where the status page and the metrics are served, or `off`
    #[arg(
        long,
        env = "KBACKUP_LISTEN",
        value_name = "ADDRESS:PORT",
        default_value = "127.0.0.1:2114",
        help_heading = "Page"
    )]
    pub listen: Listen,
    /// Another name that it answers to, where a proxy passes on the name that it was asked for; may
    /// be repeated. On a loopback address it answers to loopback names only, so that no foreign
    /// page can read it
    #[arg(
        long,
        env = "KBACKUP_LISTEN_HOST",
        value_name = "NAME",
        value_delimiter = ',',
        help_heading = "Page"
    )]
    pub listen_host: Vec<String>,
    /// Name of the user who may read it; the password comes from --listen-password-file or
    /// KBACKUP_LISTEN_PASSWORD [default: everybody]
    #[arg(
        long,
        env = "KBACKUP_LISTEN_USER",
        value_name = "NAME",
        help_heading = "Page"
    )]
    pub listen_user: Option<String>,
    /// File whose first line is that user's password
    #[arg(
        long,
        env = "KBACKUP_LISTEN_PASSWORD_FILE",
        value_name = "FILE",
        help_heading = "Page"
    )]
    pub listen_password_file: Option<PathBuf>,
    /// PEM file with its certificate and those between, to serve it encrypted; a renewed one is
    /// taken without a restart
    #[arg(
        long,
        env = "KBACKUP_LISTEN_CERTIFICATE_FILE",
        value_name = "FILE",
        help_heading = "Page"
    )]
    pub listen_certificate_file: Option<PathBuf>,
    /// PEM file with its private key
    #[arg(
        long,
        env = "KBACKUP_LISTEN_KEY_FILE",
        value_name = "FILE",
        help_heading = "Page"
    )]
    pub listen_key_file: Option<PathBuf>,
    /// Tell of each run that did what it should or found nothing to do: a command (no shell reads
    /// it) that gets JSON on its standard input, or a URL that gets it by POST; may be repeated
    #[arg(
        long,
        env = "KBACKUP_ON_SUCCESS",
        value_name = "COMMAND|URL",
        hide_env_values = true,
        help_heading = "Hooks"
    )]
    pub on_success: Vec<Hook>,
    /// Tell of each run that failed, and of the first one that did not again
    #[arg(
        long,
        env = "KBACKUP_ON_FAILURE",
        value_name = "COMMAND|URL",
        hide_env_values = true,
        help_heading = "Hooks"
    )]
    pub on_failure: Vec<Hook>,
    /// Tell when what is in no backup has become older than --max-age, and when it is well again
    #[arg(
        long,
        env = "KBACKUP_ON_TOO_OLD",
        value_name = "COMMAND|URL",
        hide_env_values = true,
        help_heading = "Hooks"
    )]
    pub on_too_old: Vec<Hook>,
    /// A hook may take so long; then it is killed, with all that it started
    #[arg(
        long,
        env = "KBACKUP_HOOK_TIMEOUT",
        value_name = "TIME",
        default_value = "60s",
        help_heading = "Hooks"
    )]
    pub hook_timeout: Span,
    /// Look at the configuration, tell what would be done, and end
    #[arg(long, env = "KBACKUP_CHECK_CONFIG")]
    pub check_config: bool,
}

/// Which nodes of a cluster are backed up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Cluster {
    /// Every one, by the agent beside it.
    Each,
    /// The one that is preferred among those that live; its backup stands for all.
    One,
}

/// How the members of a cluster follow each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Turns {
    /// Each when it is due.
    AtOnce,
    /// Never two at the same time.
    OneAfterAnother,
}

impl Agent {
    /// Never two members of the cluster are backed up at once.
    #[must_use]
    pub fn takes_turns(&self) -> bool {
        self.cluster == Cluster::One || self.turns == Turns::OneAfterAnother
    }
}

/// Where something is served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Listen {
    /// Nowhere.
    Off,
    /// There.
    At(std::net::SocketAddr),
}

impl FromStr for Listen {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "off" {
            return Ok(Self::Off);
        }
        text.parse().map(Self::At).map_err(|_| {
            format!(
                "{text:?} is no address with a port such as 127.0.0.1:2114 or [::1]:2114, nor `off`"
            )
        })
    }
}

/// `kbackup completions`.
#[derive(Debug, Args)]
pub struct Completions {
    /// Which shell
    #[arg(value_name = "SHELL", value_enum)]
    pub shell: Shell,
}

/// The shells that verbs and options are completed in.
pub use clap_complete::Shell;

/// `kbackup manual`.
#[derive(Debug, Args)]
pub struct Manual {
    /// The page of one verb [default: that of kbackup itself]
    #[arg(value_name = "VERB")]
    pub verb: Option<String>,
    /// Write every page into this directory, as kbackup.1 and kbackup-VERB.1
    #[arg(
        long,
        env = "KBACKUP_INTO",
        value_name = "DIR",
        conflicts_with = "verb"
    )]
    pub into: Option<PathBuf>,
}

/// A share of many bytes as people write it: `512MiB`, `5%`, `0`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Share {
    /// So many bytes.
    Bytes(u64),
    /// So many of a hundred, 0 to 100.
    Percent(u8),
}

impl FromStr for Share {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || {
            format!(
                "{text:?} is neither a number of bytes such as 512MiB nor a percentage such as 5%"
            )
        };
        match text.strip_suffix('%') {
            Some(digits) => digits
                .parse()
                .ok()
                .filter(|percent| *percent <= 100)
                .map(Self::Percent)
                .ok_or_else(wrong),
            None => text
                .parse()
                .map(|size: ByteSize| Self::Bytes(size.as_u64()))
                .map_err(|_| wrong()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates() {
        assert_eq!(rate("50MiB"), Ok(Rate::new(50 << 20).unwrap()));
        assert_eq!(rate("200MB"), Ok(Rate::new(200_000_000).unwrap()));
        assert_eq!(rate("300000"), Ok(Rate::new(300_000).unwrap()));
        for text in ["", "fast", "-1MiB", "0", "10KiB", "50MiB/s"] {
            assert!(rate(text).is_err(), "{text}");
        }
    }

    #[test]
    fn shares() {
        assert_eq!("1GiB".parse(), Ok(Share::Bytes(1 << 30)));
        assert_eq!("0".parse(), Ok(Share::Bytes(0)));
        assert_eq!("100%".parse(), Ok(Share::Percent(100)));
        for text in ["", "%", "-1", "101%", "1.5%", "1XB", "all"] {
            assert!(text.parse::<Share>().is_err(), "{text}");
        }
    }
}
