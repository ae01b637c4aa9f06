//! `kbackup export`: one backup as one file.

use std::path::PathBuf;

use clap::Args;

use super::RepositoryArguments;
use super::load::{BackgroundLoadArguments, LoadOptions};

#[derive(Debug, Args)]
pub(in crate::settings) struct ExportArguments {
    /// Label of the backup; `latest` is the newest one that was not damaged at the source
    #[arg(value_name = "LABEL", default_value = "latest")]
    label: String,
    #[command(flatten)]
    repository: RepositoryArguments,
    /// Compress the archive with zstd
    #[arg(long, env = "KBACKUP_ZSTD")]
    zstd: bool,
    #[command(flatten)]
    load: BackgroundLoadArguments,
}

/// The options of `kbackup export`.
#[derive(Debug, Clone)]
pub struct ExportOptions {
    /// A backup's label, or `latest`.
    pub label: String,
    /// `--repo`.
    pub repository: PathBuf,
    /// `--zstd`.
    pub zstd: bool,
    /// How much of the machine the run may take.
    pub load: LoadOptions,
}

impl From<ExportArguments> for ExportOptions {
    fn from(arguments: ExportArguments) -> Self {
        Self {
            label: arguments.label,
            repository: arguments.repository.repo,
            zstd: arguments.zstd,
            load: arguments.load.into(),
        }
    }
}
