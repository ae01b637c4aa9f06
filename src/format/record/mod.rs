//! Log records and their frames (disk-format §4.1–4.4): forwards, backwards, and one at a position.
//!
//! A scan holds a window of the file, never more: event data is skipped, and all that describes it
//! is checked. Records borrow from the window, so that nothing is allocated for each of them.
//!
//! `model` says what a record holds, `fields` reads its body, `frame` reads the frame around it, and
//! `scan` and `lookup` find the frames in a chunk.

mod fields;
mod frame;
mod lookup;
mod model;
mod placement;
mod scan;

#[cfg(test)]
mod tests;

pub use self::lookup::Lookup;
pub use self::model::{Commit, Flags, Frame, Prepare, Record, Span, System, Ticks};
pub use self::scan::{Backwards, Forwards};

/// The structure that errors name.
const STRUCTURE: &str = "log record";
