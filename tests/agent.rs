//! The agent, in its own process beside test nodes.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test may end in a panic"
)]

mod change;
mod cluster;
mod configuration;
mod days;
mod hooks;
mod metrics;
mod page;
mod prune;
mod reading;
mod refusals;
mod scavenging;
mod sidecar;
mod silence;
mod soak;
mod systemd;
mod verification;

pub(crate) use self::page::states::all as states;
