//! The executable under test, and the functions that run it.
//!
//! It is built with the feature `faults`, so that `KBACKUP_FAULT` can make it fail or die.

use std::path::Path;
use std::process::{Command, Output};

/// The path of the executable.
pub(crate) const PATH: &str = env!("CARGO_BIN_EXE_kbackup");

/// What most tests need beside the command line. Their first full makes the repository, everything
/// is on one disk, and no test writes into this machine's own state directory.
pub(crate) const ENVIRONMENT: [(&str, &str); 3] = [
    ("KBACKUP_NEW_REPOSITORY", "true"),
    ("KBACKUP_ACCEPT_SAME_DISK", "true"),
    (
        "KBACKUP_STATE_DIR",
        concat!(env!("CARGO_TARGET_TMPDIR"), "/state"),
    ),
];

/// A `kbackup` command, without this machine's environment.
pub(crate) fn kbackup() -> Command {
    let mut command = Command::new(PATH);
    command.env_clear().envs(ENVIRONMENT);
    command
}

/// A `kbackup` command that fails, stops or dies at the operation that the fault names
/// (`operation:path part:n:effect`).
pub(crate) fn kbackup_with_fault(fault: impl AsRef<str>) -> Command {
    let mut command = kbackup();
    command.env("KBACKUP_FAULT", fault.as_ref());
    command
}

/// The text on standard error.
pub(crate) fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A path as an argument.
pub(crate) fn argument(path: &Path) -> &str {
    path.to_str().unwrap_or_default()
}
