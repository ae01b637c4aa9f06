//! What each server version does and needs.
//!
//! kbackup groups server versions into *lines*: versions that start alike. [`ServerLine`] lists
//! them. [`facts`] lists everything that some servers do and others do not, with the release in
//! which it began. [`Evidence`] tells what was seen on a real server, and what was only read in its
//! source.
//!
//! To add a server release, add a line in `line.rs`. If the server does what no server did before,
//! also add a fact in `facts.rs`, and ask for it where it matters: `proof/start/simulate` plays a
//! start, and `restore/outcome.rs` tells the first start after a restore. If you ran the server,
//! add its line in `evidence.rs`. No other room names a version.

mod evidence;
pub mod facts;
mod line;
mod release;
mod version;

pub use evidence::{Evidence, Observation, observed};
pub use facts::VersionFact;
pub use line::ServerLine;
pub use release::ReleaseNumber;
pub use version::ServerVersion;
