//! `manifest.json`: the text of a manifest.
//!
//! ```text
//! {
//!   "format": 1, …               the head; each epoch is `[position,number,"id"]` on a line
//!   "head_checksum": "…",        BLAKE3 of everything before the comma in front of it
//!   "files": [
//!     {…},                       one row a line
//!     {…}
//!   ],
//!   "checksum": "…"              BLAKE3 of everything before the comma in front of it
//! }
//! ```
//!
//! A node of ten terabytes has forty thousand chunks, so `write` and `read` handle a few thousand
//! rows at a time. `head` reads the head and nothing else. `checksum` compares the last field.

mod checksum;
mod head;
mod layout;
mod read;
mod write;

pub use self::layout::FORMAT;
