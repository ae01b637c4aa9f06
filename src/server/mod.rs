//! What each server version does and needs.
//!
//! kbackup knows servers by *lines*: versions that start alike. [`ServerLine`] lists them, and
//! [`facts`] lists everything that some servers do and others do not, each with the release it
//! began in and the evidence for it. [`evidence`] tells what was seen on a real server and what was
//! only read in its source.
//!
//! A new server release is entered here: a line in `line.rs`, a fact in `facts.rs` if it does what
//! no server did before, and its line in `evidence.rs` if it was run. No other room names a
//! version.

pub mod evidence;
pub mod facts;
mod line;
mod release;
mod version;

pub use evidence::Evidence;
pub use facts::VersionFact;
pub use line::ServerLine;
pub use release::ReleaseNumber;
pub use version::ServerVersion;
