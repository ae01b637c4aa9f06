//! Integration tests: one binary, a module per verb.

#![expect(clippy::disallowed_methods, reason = "tests look at the disk past the door")]

mod fixtures;
mod format_index;
