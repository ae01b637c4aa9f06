//! The working copy of one run: what the incoming backup holds, and what its parent could give.
//!
//! [`Capture`] (`working_copy`) knows the captured files and whether they still belong into the
//! backup. `adopt` reuses files of the parent and checks them, and `copy` brings in files of the
//! source.

mod adopt;
mod captured_file;
mod copy;
mod working_copy;

pub(super) use adopt::differs;
pub(super) use captured_file::ReadRecords;
pub(super) use copy::{CopyRequest, StoredFile, StoredMode};
pub(super) use working_copy::Capture;
