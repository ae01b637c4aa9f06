//! The commit record of a backup: what it holds, where it came from, what was proven.
//! `docs/manifest.md` explains every field.

mod file_set;
mod fork;
mod hash;
mod label;
mod path;
mod record;
mod restored;
mod server_files;
mod text;

pub use file_set::{Directories, FileEntry, FileSet};
pub use fork::{Fork, forks};
pub use hash::Blake3Hash;
pub use label::{BackupKind, Label};
pub use path::{InvalidPath, RelativePath, Root};
pub use record::*;
pub use restored::{RestoreMark, RestoreState};
pub use text::FORMAT;
