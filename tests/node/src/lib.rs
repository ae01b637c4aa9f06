//! A test node for kbackup. It replays the recording of a real node into a directory, step by step or
//! at a chosen speed, and serves that version's admin API over real HTTP. It does not use kbackup:
//! its knowledge of the server's formats was written a second time, so that the two prove each other.
//!
//! ```no_run
//! use kbackup_testnode::{Mark, Node, Recording, Speed};
//! # fn main() -> anyhow::Result<()> {
//! let node = Node::start(Recording::named("26.1-append")?, "/tmp/node")?;
//! node.advance_to_mark(Mark::Ready)?;
//! let server = node.serve()?;
//! println!("{} {}", server.url(), node.db().display());
//! node.run(Speed::Times(2.0));
//! # Ok(())
//! # }
//! ```

pub mod api;
pub mod appender;
pub mod index;
pub mod log;
pub mod node;
pub mod quirks;
pub mod recording;
mod replay;
mod streams;
pub mod synthetic;
mod templates;

pub use api::{Listen, Request, Server};
pub use appender::{Appender, Latencies};
pub use node::{Node, Outcome, Parameters, Phase, Speed};
pub use quirks::{AutoScavenge, AutoScavengeState, Credentials, Member, Quirks};
pub use recording::{Acknowledged, Action, Checkpoint, Mark, Recording, Step, Version, fixtures};
pub use synthetic::{Made, Synthetic};
