//! Copies backups from one repository into another one of any kind, so that they exist in a second
//! place.
//!
//! A copy is the same backup: label, times, kind, source and files stay. Number, branch, parent and
//! cost are those of the repository that holds it. [`plan`] changes nothing. [`execute`] brings one
//! backup after the other, oldest first, and each is listed in one step.
//!
//! `line` knows the backups of the target, and where a copy belongs among them. `files` brings the
//! files of one backup. Every byte that is read from the source repository is proven by its row.

mod execute;
mod files;
mod line;
mod plan;
mod report;
mod request;

pub use self::execute::execute;
pub use self::plan::{BackupCopyPlan, NotCopied, PlannedCopy, plan};
pub use self::report::{BackupCopyReport, CopiedBackup};
pub use self::request::{BackupsToCopy, CopyRules};
