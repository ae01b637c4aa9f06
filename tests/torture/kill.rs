//! Killed at every operation that could be the last one, and at any moment.

mod anytime;
