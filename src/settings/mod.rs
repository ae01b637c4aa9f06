//! Resolves the options: flags win over the environment, and the environment wins over the
//! configuration file. The results are plain values.
//!
//! This is the only room that knows clap. Each option is declared once, in [`options`]: its flag,
//! its variable `KBACKUP_*` and its key in the TOML file follow from that declaration. A file of
//! [`options`] also holds the plain struct that verbs and agent take. [`resolve`] reads the three
//! sources; manual pages and completion scripts come from the same declarations.

mod command;
mod completions;
mod file;
mod file_check;
pub mod hook;
mod layers;
mod manual;
pub mod options;
mod origin;
mod resolve;
mod secret;
mod switches;
mod usage;

pub use command::command;
pub use completions::completion_script;
pub(crate) use manual::{ManualPage, manual_pages};
pub use origin::{Origin, Setting};
pub use resolve::{Settings, resolve, resolve_as};
pub use secret::SecretSource;
pub(crate) use switches::{wants_json, wants_plugin};
pub use usage::{Unresolved, UsageMessage};
