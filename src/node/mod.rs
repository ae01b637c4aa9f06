//! The node: asking it, judging it, keeping its scavenges away and giving them back, and seeing
//! whether one runs on a directory.
//!
//! What the server answers and means is specified in "http-api"; sections are named as "http-api
//! §3.3", observations of real nodes as "O41".

mod answers;
mod client;
mod connection;
mod discovery;
mod fitness;
mod offline;
mod quiesce;
mod release_record;
mod running;
mod session;

pub use answers::{
    AutoScavenge, AutoScavengeResume, CurrentScavenge, Gossip, GossipMember, LastScavenge,
    NodeInfo, NodeOptions, NodeState, ScavengeEvent, ScavengeExtent, ScavengeStart, ScavengeStop,
    ServerProcess,
};
pub use client::{Client, Patience, machine_authorities};
pub use connection::{ClientCertificate, Connection, Credentials, TimeLimits};
pub use discovery::{Agreement, Traits, agree, locate, plausible};
pub use fitness::{Fitness, FitnessLimits, Unfit, judge, wait_until_fit};
pub use offline::QuiescedOffline;
pub use quiesce::{
    NodeScavenging, PlannedRelease, QuiesceCheck, QuiesceSettings, QuiescedOnline, ReleasePlan,
    look_at_scavenging, plan_release, quiesce,
};
pub use release_record::{
    HeldRecord, ListedRecord, PausedAutoScavenge, RecordedNode, ReleaseRecord, ReleaseRecords,
    StoppedScavenge,
};
pub use running::{ProbeDoubt, ProbeFindings, RunningSign, probe};
pub use session::{Session, Whereabouts};
