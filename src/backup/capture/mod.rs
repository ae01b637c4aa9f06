//! The working copy of one run: the files of the incoming backup, and the parent's files that it
//! may reuse.
//!
//! [`Capture`] (`working_copy`) knows the captured files, and which of them belong in the backup.
//! `reuse` reuses files of the parent and checks them. `copy` brings in files of the source.

mod captured_file;
mod copy;
mod reuse;
mod working_copy;

pub(super) use captured_file::ReadRecords;
pub(super) use copy::{CopyRequest, StoredFile, StoredMode};
pub(super) use reuse::differs;
pub(super) use working_copy::Capture;
