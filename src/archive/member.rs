//! The header of a member: 512 bytes in the format of POSIX (ustar), which every tar reads. A path
//! that does not fit into it is none of a server's files, so no archive needs longer names.

use tar::{EntryType, Header};

use crate::clock::Timestamp;
use crate::error::{Error, Kind, Result};
use crate::manifest::{Owner, Row};

/// Members begin and end at a multiple of this many bytes.
pub(super) const BLOCK: usize = 512;
/// The name of the first member.
pub(super) const MANIFEST: &str = "manifest.json";
/// The mode of the manifest.
const MANIFEST_MODE: u32 = 0o644;

/// The header of the manifest.
pub(super) fn of_manifest(size: u64, finished: Timestamp) -> Result<Header> {
    encode(MANIFEST, size, MANIFEST_MODE, finished, None)
}

/// The header of a file.
pub(super) fn of_file(row: &Row, owner: Option<&Owner>) -> Result<Header> {
    // The owner can always read what is unpacked.
    let mode = row.mode & 0o777 | 0o400;
    encode(&row.path.to_string(), row.size, mode, row.modified, owner)
}

fn encode(
    name: &str,
    size: u64,
    mode: u32,
    modified: Timestamp,
    owner: Option<&Owner>,
) -> Result<Header> {
    let mut header = Header::new_ustar();
    header.set_entry_type(EntryType::Regular);
    header.set_path(name).map_err(|error| {
        Error::new(Kind::Failed, "this path has no place in an archive")
            .on(name)
            .because(error)
    })?;

    header.set_size(size);
    header.set_mode(mode);
    header.set_mtime(u64::try_from(modified.as_second()).unwrap_or(0));
    if let Some(owner) = owner {
        header.set_uid(owner.user.into());
        header.set_gid(owner.group.into());
        set_names(&mut header, owner);
    }
    header.set_cksum();
    Ok(header)
}

/// The names win over the numbers when root unpacks. One that does not fit is left out.
fn set_names(header: &mut Header, owner: &Owner) {
    if let Some(name) = &owner.user_name {
        let _ = header.set_username(name);
    }
    if let Some(name) = &owner.group_name {
        let _ = header.set_groupname(name);
    }
}

/// The bytes that fill a member of so many bytes up to the next block.
pub(super) fn padding(size: u64) -> u64 {
    let over = size % BLOCK as u64;
    if over == 0 { 0 } else { BLOCK as u64 - over }
}
