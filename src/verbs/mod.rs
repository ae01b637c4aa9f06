//! One file for each verb. Each turns the options of its verb into calls of the core. The command
//! line and the agent call these files. They print nothing.

pub(crate) mod backup;
pub(crate) mod check;
pub(crate) mod connection;
pub(crate) mod copy;
pub(crate) mod expire;
pub(crate) mod export;
mod given_numbers;
pub(crate) mod import;
pub(crate) mod init;
mod label;
pub(crate) mod list;
pub(crate) mod log;
pub(crate) mod manual;
mod overlap;
pub(crate) mod places;
pub(crate) mod priority;
pub(crate) mod prune;
pub(crate) mod release;
pub(crate) mod repository;
pub(crate) mod restore;
mod scavenging;
mod seen_repositories;
pub(crate) mod show;
pub(crate) mod status;
pub(crate) mod verify;
pub(crate) mod window;
