//! `kbackup expire`.

use std::path::PathBuf;
use std::time::Duration;

use clap::builder::RangedI64ValueParser;
use clap::{Args, value_parser};

use super::RepositoryArguments;
use crate::clock::{Span, Zone};

const HEADING: &str = "Keep, of each branch";

#[derive(Debug, Args)]
pub(in crate::settings) struct ExpireArguments {
    #[command(flatten)]
    repository: RepositoryArguments,
    #[command(flatten)]
    retention: RetentionArguments,
    /// Remove without a question; required if there is no terminal to ask at
    #[arg(long, env = "KBACKUP_CONFIRM")]
    confirm: bool,
    /// Show the plan, and remove nothing
    #[arg(long, env = "KBACKUP_DRY_RUN")]
    dry_run: bool,
}

#[derive(Debug, Args)]
struct RetentionArguments {
    /// The newest N backups
    #[arg(
        long,
        env = "KBACKUP_KEEP_LAST",
        value_name = "N",
        value_parser = at_least_one(),
        help_heading = HEADING
    )]
    keep_last: Option<u32>,
    /// The newest backup of each of the last N hours that have a backup
    #[arg(
        long,
        env = "KBACKUP_KEEP_HOURLY",
        value_name = "N",
        value_parser = at_least_one(),
        help_heading = HEADING
    )]
    keep_hourly: Option<u32>,
    /// The newest backup of each of the last N days that have a backup
    #[arg(
        long,
        env = "KBACKUP_KEEP_DAILY",
        value_name = "N",
        value_parser = at_least_one(),
        help_heading = HEADING
    )]
    keep_daily: Option<u32>,
    /// The newest backup of each of the last N weeks that have a backup; a week begins on Monday
    #[arg(
        long,
        env = "KBACKUP_KEEP_WEEKLY",
        value_name = "N",
        value_parser = at_least_one(),
        help_heading = HEADING
    )]
    keep_weekly: Option<u32>,
    /// The newest backup of each of the last N months that have a backup
    #[arg(
        long,
        env = "KBACKUP_KEEP_MONTHLY",
        value_name = "N",
        value_parser = at_least_one(),
        help_heading = HEADING
    )]
    keep_monthly: Option<u32>,
    /// The newest backup of each of the last N years that have a backup
    #[arg(
        long,
        env = "KBACKUP_KEEP_YEARLY",
        value_name = "N",
        value_parser = at_least_one(),
        help_heading = HEADING
    )]
    keep_yearly: Option<u32>,
    /// All backups that finished at most this long before the newest good backup of the repository
    #[arg(long, env = "KBACKUP_KEEP_WITHIN", value_name = "TIME", help_heading = HEADING)]
    keep_within: Option<Span>,
    /// Time zone in which hours, days, weeks, months and years begin, such as Europe/Berlin
    #[arg(
        long,
        env = "KBACKUP_TIME_ZONE",
        value_name = "ZONE",
        default_value = "system",
        help_heading = HEADING
    )]
    time_zone: Zone,
}

fn at_least_one() -> RangedI64ValueParser<u32> {
    value_parser!(u32).range(1..)
}

/// The options of `kbackup expire`.
#[derive(Debug, Clone)]
pub struct ExpireOptions {
    /// `--repo`.
    pub repository: PathBuf,
    /// Which backups to keep.
    pub retention: RetentionOptions,
    /// `--confirm`.
    pub confirm: bool,
    /// `--dry-run`.
    pub dry_run: bool,
}

/// How many backups of each branch each rule keeps; 0 if the rule is not used. Backups that no rule
/// keeps are removed.
#[derive(Debug, Clone)]
pub struct RetentionOptions {
    /// `--keep-last`.
    pub last: u32,
    /// `--keep-hourly`.
    pub hourly: u32,
    /// `--keep-daily`.
    pub daily: u32,
    /// `--keep-weekly`.
    pub weekly: u32,
    /// `--keep-monthly`.
    pub monthly: u32,
    /// `--keep-yearly`.
    pub yearly: u32,
    /// `--keep-within`.
    pub within: Option<Duration>,
    /// `--time-zone`.
    pub time_zone: Zone,
}

impl RetentionOptions {
    /// Whether any rule keeps a backup. Without one, `expire` refuses to work.
    #[must_use]
    pub const fn has_rule(&self) -> bool {
        let counts = [
            self.last,
            self.hourly,
            self.daily,
            self.weekly,
            self.monthly,
            self.yearly,
        ];
        !matches!(counts, [0, 0, 0, 0, 0, 0]) || self.within.is_some()
    }
}

impl From<ExpireArguments> for ExpireOptions {
    fn from(arguments: ExpireArguments) -> Self {
        Self {
            repository: arguments.repository.repo,
            retention: arguments.retention.into(),
            confirm: arguments.confirm,
            dry_run: arguments.dry_run,
        }
    }
}

impl From<RetentionArguments> for RetentionOptions {
    fn from(arguments: RetentionArguments) -> Self {
        Self {
            last: arguments.keep_last.unwrap_or_default(),
            hourly: arguments.keep_hourly.unwrap_or_default(),
            daily: arguments.keep_daily.unwrap_or_default(),
            weekly: arguments.keep_weekly.unwrap_or_default(),
            monthly: arguments.keep_monthly.unwrap_or_default(),
            yearly: arguments.keep_yearly.unwrap_or_default(),
            within: arguments.keep_within.map(|within| within.0),
            time_zone: arguments.time_zone,
        }
    }
}
