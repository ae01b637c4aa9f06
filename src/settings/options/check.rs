//! `kbackup check`.

use std::path::PathBuf;

use clap::Args;

use super::load::{ForegroundLoadArguments, LoadOptions};

#[derive(Debug, Args)]
pub(in crate::settings) struct CheckArguments {
    /// The db directory of a server
    #[arg(value_name = "DIR")]
    directory: PathBuf,
    /// The index directory [default: DIR/index]
    #[arg(long, env = "KBACKUP_INDEX", value_name = "DIR")]
    index: Option<PathBuf>,
    /// Version of the server that would start from the directory [default: all versions that
    /// kbackup knows]
    #[arg(long, env = "KBACKUP_SERVER_VERSION", value_name = "VERSION")]
    server_version: Option<String>,
    /// Check the structure only, and hash no chunk and no table
    #[arg(long, env = "KBACKUP_QUICK", conflicts_with = "deep")]
    quick: bool,
    /// Also read every record of the log, and compare every entry of the index with the log
    #[arg(long, env = "KBACKUP_DEEP")]
    deep: bool,
    #[command(flatten)]
    load: ForegroundLoadArguments,
}

/// The options of `kbackup check`.
#[derive(Debug, Clone)]
pub struct CheckOptions {
    /// The db directory.
    pub directory: PathBuf,
    /// `--index`.
    pub index: Option<PathBuf>,
    /// `--server-version`.
    pub server_version: Option<String>,
    /// `--quick`.
    pub quick: bool,
    /// `--deep`.
    pub deep: bool,
    /// How much of the machine the run may take.
    pub load: LoadOptions,
}

impl From<CheckArguments> for CheckOptions {
    fn from(arguments: CheckArguments) -> Self {
        Self {
            directory: arguments.directory,
            index: arguments.index,
            server_version: arguments.server_version,
            quick: arguments.quick,
            deep: arguments.deep,
            load: arguments.load.into(),
        }
    }
}
