//! One backup as one file: a plain tar in the layout of a backup, for pipes, air gaps and CI.
//!
//! ```text
//! manifest.json     the manifest of the backup, always first
//! db/…  index/…     one member for each row, in the order of the rows
//! ```
//!
//! `tar x` unpacks it without kbackup. The stored `truncate.chk` is −1, so a server starts from what
//! is unpacked, as from a backup that was copied with `cp`. Holes are written as zeros, because no
//! two programs agree on sparse files; zstd makes nothing of them. `export` writes archives, `import`
//! reads them into a repository, and `stream` believes nothing that it reads.

mod export;
mod import;
mod member;
mod stream;

pub use self::export::{ArchiveForm, ExportReport, export};
pub use self::import::{ImportReport, IncomingArchive};
