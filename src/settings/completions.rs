//! Scripts with which shells complete verbs and options.

use super::command;
use super::options::Shell;

/// The script that a shell has to read to complete the arguments of `kbackup`.
#[must_use]
pub fn completion_script(shell: Shell) -> String {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut command(), "kbackup", &mut script);
    String::from_utf8_lossy(&script).into_owned()
}
