//! The node: asking it, judging it, keeping its scavenges away and giving them back, and seeing
//! whether one runs on a directory.
//!
//! What the server answers and means is specified in "http-api"; sections are named as "http-api
//! §3.3", observations of real nodes as "O41".

mod answers;
mod client;
mod connection;
mod debt;
mod discovery;
mod fitness;
mod offline;
mod quiesce;
mod running;
mod session;

pub use answers::{
    AutoScavenge, Current, Extent, Gossip, Info, LastScavenge, Member, NodeState, Options, Process,
    Resume, ScavengeEvent, Start, Stop,
};
pub use client::{Client, Patience, machine_authorities};
pub use connection::{ClientCertificate, Connection, Credentials, TimeLimits};
pub use debt::{Claim, Debt, DebtNode, Ledger, OwedResume, OwedScavenge, Record};
pub use discovery::{Agreement, Traits, agree, locate, plausible};
pub use fitness::{Fitness, FitnessLimits, Unfit, judge, wait_until_fit};
pub use offline::OfflineQuiet;
pub use quiesce::{
    NodeScavenging, OnlineQuiet, PlannedRelease, QuietSettings, ReleasePlan, Stillness,
    look_at_scavenging, plan_release, quiesce,
};
pub use running::{Doubt, Findings, Sign, probe};
pub use session::{Session, Whereabouts};
