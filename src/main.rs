//! The `kbackup` executable: parse, run, exit code; nothing else.

fn main() {}
