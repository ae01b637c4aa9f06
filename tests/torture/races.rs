//! A source that changes between any two steps, clocks that jump, and two runs at once.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    reason = "a test may end in a panic, and prints its figures"
)]

mod branches;
mod clock;
mod node;
mod process;
mod source;
mod timing;
mod two;

use super::{Chance, amount, seed};
