//! Copies backups from one repository into another one of any kind, so that they exist in a second
//! place.
//!
//! A copy is the same backup: label, times, kind, source and files stay. Number, branch, parent and
//! cost are those of the repository that holds it. [`plan`] changes nothing. [`execute`] brings one
//! backup after the other, oldest first, and each is listed in one step.
//!
//! `line` knows the backups of the target, and where a copy belongs among them. An `arrival` has its
//! place there, and becomes a backup when it is proven. `files` brings the files out of another
//! repository, and `filling` what the target has already. The room `archive` brings the files of an
//! archive in the same way.

mod arrival;
mod execute;
mod files;
mod filling;
mod line;
mod plan;
mod report;
mod request;

pub use self::arrival::{Arrival, commit};
pub use self::execute::execute;
pub use self::filling::{Brought, Filling, ingest, is_as_described};
pub use self::plan::{BackupCopyPlan, NotCopied, PlannedCopy, plan};
pub use self::report::{BackupCopyReport, CopiedBackup};
pub use self::request::{BackupsToCopy, CopyRules};
