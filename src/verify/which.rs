//! Which backups a verification is about.

use serde::{Deserialize, Serialize};

use crate::manifest::Label;

/// Which backups to verify.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Which {
    /// The backup with the highest sequence number.
    Newest,
    /// The backups with these labels.
    Named(Vec<Label>),
    /// Every listed backup.
    All,
}
