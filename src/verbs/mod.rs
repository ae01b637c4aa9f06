//! The verbs: from options to what the core does. Whoever runs a verb calls them, the command line
//! or the agent. Nothing is printed here.

pub mod backup;
pub mod check;
pub mod connection;
pub mod expire;
mod label;
pub mod list;
pub mod log;
pub mod priority;
pub mod release;
pub mod restore;
pub mod show;
pub mod status;
pub mod verify;
pub mod window;
