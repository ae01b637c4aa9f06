//! Proves stored backups again: do the files still have their bytes, and would a server still start
//! from them?
//!
//! `verification.rs` goes through the chosen backups, and `backup.rs` verifies one of them.
//! `from_disk.rs` reads stored files from the disk, and `known_files.rs` remembers the hashes of
//! files that backups share. `repair.rs` replaces damaged files by intact copies, and separates
//! names that lead to one file. `pass.rs` notes what was proven, so that an
//! interrupted verification continues. Only a repair changes a backup.

mod backup;
mod from_disk;
mod known_files;
mod pass;
mod repair;
mod report;
mod verification;
mod which;

pub use self::pass::{VerifyPass, VerifySubject};
pub use self::repair::{
    Lost, RepairPlan, Repaired, Replacement, continue_repair, plan_repair, repair,
};
pub use self::report::{Unread, VerifiedBackup, VerifyFinding, VerifyReport};
pub use self::verification::{continue_verification, verify};
pub use self::which::Which;
