//! The options that every verb understands.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use crate::error::{Error, Kind, Result};

const HEADING: &str = "General";

#[derive(Debug, Args)]
pub(in crate::settings) struct GeneralArguments {
    /// Read options from this TOML file; a table such as `[restore]` holds the options of one verb
    #[arg(long, global = true, env = "KBACKUP_CONFIG", value_name = "FILE", help_heading = HEADING)]
    config: Option<PathBuf>,
    /// Print the answer as JSON
    #[arg(long, global = true, env = "KBACKUP_JSON", help_heading = HEADING)]
    json: bool,
    /// Write messages of this level and of the more urgent levels to standard error
    #[arg(
        long,
        global = true,
        env = "KBACKUP_LOG",
        value_enum,
        default_value_t = LogLevel::Info,
        value_name = "LEVEL",
        help_heading = HEADING
    )]
    log: LogLevel,
    /// Format of the log
    #[arg(
        long,
        global = true,
        env = "KBACKUP_LOG_FORMAT",
        value_enum,
        default_value_t = LogFormat::Text,
        value_name = "FORMAT",
        help_heading = HEADING
    )]
    log_format: LogFormat,
    /// Directory for release records, which say what has to be given back to nodes, and for the ids
    /// of the repositories that kbackup saw [default: /var/lib/kbackup for root, else
    /// ~/.local/state/kbackup]
    #[arg(
        long,
        global = true,
        env = "KBACKUP_STATE_DIR",
        value_name = "DIR",
        help_heading = HEADING
    )]
    state_dir: Option<PathBuf>,
}

/// The options that every verb understands.
#[derive(Debug, Clone)]
pub struct GeneralOptions {
    /// `--json`: the answer is printed as JSON.
    pub json: bool,
    /// `--log`.
    pub log: LogLevel,
    /// `--log-format`.
    pub log_format: LogFormat,
    /// `--state-dir`.
    state_dir: Option<PathBuf>,
}

impl From<GeneralArguments> for GeneralOptions {
    fn from(arguments: GeneralArguments) -> Self {
        // `config` is read before clap parses anything.
        Self {
            json: arguments.json,
            log: arguments.log,
            log_format: arguments.log_format,
            state_dir: arguments.state_dir,
        }
    }
}

impl GeneralOptions {
    /// The directory for release records on this machine.
    ///
    /// # Errors
    /// [`Kind::Usage`] if there is neither the option nor a home directory.
    pub fn state_directory(&self) -> Result<PathBuf> {
        if let Some(directory) = &self.state_dir {
            return Ok(directory.clone());
        }
        if rustix::process::geteuid().is_root() {
            return Ok(PathBuf::from("/var/lib/kbackup"));
        }

        if let Some(state) = directory_in("XDG_STATE_HOME") {
            return Ok(state.join("kbackup"));
        }
        if let Some(home) = directory_in("HOME") {
            return Ok(home.join(".local/state/kbackup"));
        }
        Err(
            Error::new(Kind::Usage, "no directory for release records is known")
                .hint("name one with `--state-dir`"),
        )
    }
}

fn directory_in(variable: &str) -> Option<PathBuf> {
    match std::env::var_os(variable) {
        Some(path) if !path.is_empty() => Some(path.into()),
        _ => None,
    }
}

/// The least urgent messages that the log holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogLevel {
    /// Errors only
    Error,
    /// Errors and warnings
    Warn,
    /// Also what the run does
    Info,
    /// Also each step, each file and each option
    Debug,
}

/// The format of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// Lines for people
    Text,
    /// One JSON object per line
    Json,
}
