//! Several threads at one list of work: few large pieces, or many small ones.

mod few;
mod many;

pub use few::few;
pub use many::{AT_ONCE, many};
