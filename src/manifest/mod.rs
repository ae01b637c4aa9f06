//! The manifest: the commit record of a backup. It says what the backup holds, where it came from
//! and what was proven. `docs/manifest.md` explains every field.
//!
//! `model` holds the fields, and `text` writes and reads them as `manifest.json`. `path` and
//! `server_files` name the files of a data directory, and `file_set` reads them, wherever they are
//! kept. `fork` compares the manifests of a repository. `restore_mark` is the note that a restore
//! leaves in a directory.

mod file_set;
mod fork;
mod hash;
mod label;
mod model;
mod path;
mod restore_mark;
#[cfg(test)]
pub(crate) mod samples;
mod server_files;
mod text;

pub use file_set::{Directories, FileEntry, FileSet};
pub use fork::{Fork, forks};
pub use hash::Blake3Hash;
pub use label::{BackupKind, Label};
pub use model::*;
pub use path::{InvalidPath, RelativePath, Root};
pub use restore_mark::{RestoreMark, RestoreState};
pub use text::FORMAT;
