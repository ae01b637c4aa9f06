//! `kbackup release`.

use clap::Args;

use super::node::{NodeArguments, NodeOptions};
use crate::settings::origin::Origins;

#[derive(Debug, Args)]
pub(in crate::settings) struct ReleaseArguments {
    #[command(flatten)]
    node: NodeArguments,
    /// Give back although another run holds the release record, because that run hangs
    #[arg(long, env = "KBACKUP_FORCE")]
    force: bool,
    /// Say that the node of `--node` is the one of the release record, with a new address or
    /// directory
    #[arg(long, env = "KBACKUP_NEW_ADDRESS")]
    new_address: bool,
    /// Show what has to be given back, and give nothing back
    #[arg(long, env = "KBACKUP_DRY_RUN")]
    dry_run: bool,
}

/// The options of `kbackup release`.
#[derive(Debug, Clone)]
pub struct ReleaseOptions {
    /// The only node to release; if none is named, every node with a release record.
    pub node: NodeOptions,
    /// `--force`.
    pub force: bool,
    /// `--new-address`.
    pub new_address: bool,
    /// `--dry-run`.
    pub dry_run: bool,
}

impl ReleaseArguments {
    pub(super) fn into_options(self, origins: Origins<'_>) -> ReleaseOptions {
        ReleaseOptions {
            node: self.node.into_options(origins),
            force: self.force,
            new_address: self.new_address,
            dry_run: self.dry_run,
        }
    }
}
