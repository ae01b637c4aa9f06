//! Proves stored backups again: are the files still what they were, and would a server still start
//! from them? `verification.rs` goes through the chosen backups, `backup.rs` looks at one,
//! `known_files.rs` keeps what was learnt of files that backups share, and `repair.rs` mends. Only a
//! repair changes a backup, and only where its bytes are wrong.

mod backup;
mod known_files;
mod repair;
mod report;
mod verification;

pub use self::repair::{Lost, RepairPlan, Repaired, Replacement, plan_repair, repair};
pub use self::report::{VerifiedBackup, VerifyFinding, VerifyReport};
pub use self::verification::{Which, verify};
