//! The verbs: from options to what the core does. Whoever runs a verb calls them, the command line
//! or the agent. Nothing is printed here.

pub(crate) mod backup;
pub(crate) mod check;
pub(crate) mod connection;
pub(crate) mod expire;
mod label;
pub(crate) mod list;
pub(crate) mod log;
pub(crate) mod manual;
pub(crate) mod priority;
pub(crate) mod release;
pub(crate) mod restore;
pub(crate) mod show;
pub(crate) mod status;
pub(crate) mod verify;
pub(crate) mod window;
