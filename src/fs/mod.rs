//! The one door to the file system. Every error says what was tried and on which path. Every
//! durable step is an explicit call.
//!
//! The room has a file for each subject: open files, opening, directories, names, durable writing,
//! status, mounts and disks, and facts about the whole file system. No other room calls `std::fs`.

#![expect(clippy::disallowed_methods, reason = "this is the door")]

mod beneath;
mod change;
mod directory;
mod disks;
mod durable;
mod error;
mod file;
mod file_system;
mod gate;
mod mounts;
mod names;
mod open;
mod spellings;
mod stamp;
mod status;
mod walk;

pub use beneath::Beneath;
pub use directory::{
    DirectoryEntry, create_directory, has_name, list, list_by, names, parent, sync_directory,
};
pub use disks::on_same_disk;
pub use durable::{
    create_directories_durably, remove_stale_staging, write_durably, write_durably_by,
    write_durably_for,
};
pub use error::{IoError, Operation, Result};
pub use file::{File, ReadAt};
pub use file_system::{free_space, network_file_system};
pub use mounts::mount_inside;
pub use names::{
    canonical, hard_link, link_target, remove_file, remove_tree, rename, set_mode, set_owner,
};
pub use open::{create_new, open, open_for_writing, open_or_create, open_source, read_small};
pub use spellings::{real, spellings};
pub use stamp::{CopyId, Stamp};
pub use status::{FileKind, FileStatus, can_execute, status, status_of_target};
pub use walk::files_below;

#[cfg(feature = "faults")]
mod faults;
#[cfg(feature = "faults")]
mod recording;

#[cfg(not(feature = "faults"))]
mod recording {
    use std::io;

    pub(super) fn around<T>(
        _: &super::change::Change<'_>,
        run: impl FnOnce() -> io::Result<T>,
    ) -> io::Result<T> {
        run()
    }

    #[expect(
        clippy::unnecessary_wraps,
        reason = "the same signature as with faults"
    )]
    pub(super) fn made(_: &std::path::Path) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(not(feature = "faults"))]
mod faults {
    #[expect(
        clippy::unnecessary_wraps,
        reason = "the same signature as with faults"
    )]
    pub(super) fn gate(_: super::Operation, _: &std::path::Path) -> std::io::Result<()> {
        Ok(())
    }
}
