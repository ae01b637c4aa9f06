//! Log records and their frames (disk-format §4.1–4.4): forwards, backwards, and one at a position.
//!
//! A scan holds only a window of the file in memory. It skips the data of events and checks
//! everything else. Records borrow from the window, so a scan allocates nothing for each record.
//!
//! `model` says what a record holds, `fields` reads its body, `frame` reads the frame around it,
//! and `scan` and `lookup` find the frames in a chunk.

mod fields;
mod frame;
mod lookup;
mod model;
mod placement;
mod scan;

#[cfg(test)]
mod tests;

pub use self::lookup::Lookup;
pub use self::model::{ByteSpan, Commit, Frame, Prepare, PrepareFlags, Record, System, Ticks};
pub use self::scan::{Backwards, Forwards};

/// The structure that errors name.
const STRUCTURE: &str = "log record";
