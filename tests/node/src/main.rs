//! The test node's executable.

fn main() {}
