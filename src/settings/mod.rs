//! What the user said: flags over environment over file, resolved once into plain values that know
//! where they came from.
//!
//! Each option is declared once, in [`arguments`]: its flag, its variable `KBACKUP_*` and its key
//! in the TOML file all follow from there.

pub mod arguments;
mod file;
pub mod hook;
mod parse;

pub use parse::{
    Origin, Setting, Settings, Unresolved, command, in_one_line, resolve, resolve_as, wants_json,
    wants_plugin,
};
