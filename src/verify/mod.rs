//! Proves stored backups again: do the files still have their bytes, and would a server still start
//! from them?
//!
//! `verification.rs` goes through the chosen backups, and `backup.rs` verifies one of them.
//! `known_files.rs` remembers the hashes of files that backups share. `repair.rs` replaces damaged
//! files by intact copies. Only a repair changes a backup, and only its damaged files.

mod backup;
mod known_files;
mod repair;
mod report;
mod verification;

pub use self::repair::{Lost, RepairPlan, Repaired, Replacement, plan_repair, repair};
pub use self::report::{VerifiedBackup, VerifyFinding, VerifyReport};
pub use self::verification::{Which, verify};
