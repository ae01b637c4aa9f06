//! Several threads for one list of work: a few large pieces ([`for_each`]), or many small ones
//! ([`map`](map())).

mod for_each;
mod map;

pub use for_each::for_each;
pub use map::{AT_ONCE, map};
