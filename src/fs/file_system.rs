//! Facts about a whole file system: its free space, and whether other machines use it too.

use std::path::Path;

use super::error::{Operation, Result};
use super::gate::attempt;

/// Bytes that may still be written to the file system of `path`.
pub fn free_space(path: &Path) -> Result<u64> {
    let statistics = attempt(Operation::Inspect, path, || Ok(rustix::fs::statvfs(path)?))?;
    Ok(statistics.f_bavail.saturating_mul(statistics.f_frsize))
}

/// The kind of the network file system that holds `path`. Other machines may use the same files,
/// and their locks may not be seen. Returns `None` if it is no network file system.
pub fn network_file_system(path: &Path) -> Result<Option<&'static str>> {
    let statistics = attempt(Operation::Inspect, path, || Ok(rustix::fs::statfs(path)?))?;

    // The numbers are those of statfs(2); they may be signed or not.
    Ok(match u32::try_from(statistics.f_type).unwrap_or_default() {
        0x6969 => Some("NFS"),
        0x517b => Some("SMB"),
        0xff53_4d42 => Some("CIFS"),
        0xfe53_4d42 => Some("SMB2"),
        0x6573_5546 => Some("FUSE"),
        0x0102_1997 => Some("9p"),
        0x00c3_6400 => Some("Ceph"),
        0x0bd0_0bd0 => Some("Lustre"),
        0x0116_1970 => Some("GFS2"),
        0x7461_636f => Some("OCFS2"),
        _ => None,
    })
}
