//! The `kbackup` executable: parse, run, exit code; nothing else.

use std::process::ExitCode;

fn main() -> ExitCode {
    ExitCode::from(kbackup::cli::run(std::env::args_os()))
}
