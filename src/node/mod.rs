//! The node: asking it, judging whether it can be backed up, keeping its scavenges away, and seeing
//! whether a server runs on a directory.
//!
//! `client` holds the calls of the admin API, and `transport` sends them. `session` pins a run to
//! one server process. `fitness`, `quiesce` and `running` answer the questions of a backup.
//!
//! What the server answers and means is specified in "http-api"; sections are named as "http-api
//! §3.3", observations of real nodes as "O41".

mod agreement;
mod answers;
mod client;
mod connection;
mod discovery;
mod fitness;
mod offline;
mod open_files;
mod patience;
mod quiesce;
mod release_record;
mod reply;
mod running;
mod session;
mod transport;
mod trust;

pub use agreement::{Agreement, agree};
pub use answers::{
    AutoScavenge, AutoScavengeResume, CurrentScavenge, Gossip, GossipMember, LastScavenge,
    NodeInfo, NodeState, ScavengeEvent, ScavengeExtent, ScavengeStart, ScavengeStop, ServerOptions,
    ServerProcess,
};
pub use client::Client;
pub use connection::{ClientCertificate, Connection, Credentials, TimeLimits};
pub use discovery::{NodeTraits, check_directories, locate};
pub use fitness::{Fitness, FitnessLimits, Unfit, judge, wait_until_fit};
pub use offline::QuiescedOffline;
pub use patience::Patience;
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
pub use trust::machine_authorities;
