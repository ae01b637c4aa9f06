//! Several threads at one list of work: few large pieces, or many small ones.

mod for_each;
mod map;

pub use for_each::for_each;
pub use map::{AT_ONCE, map};
