//! Everything that kbackup does with a node: it asks the node, judges whether the node can be
//! backed up, stops its scavenges, and finds out whether a server uses a directory.
//!
//! `client` holds the calls of the admin API, and `answers` the types of their answers. `transport`
//! sends the requests, and `http_reply` holds what comes back. `session` pins a run to one server
//! process. `fitness`, `quiesce` and `running` answer the questions of a backup. `release_record`,
//! `release_records`, `held_record`, `same_node` and `recognition` remember what has to be given
//! back, and to whom.
//!
//! The specification "http-api" says what the server answers and what that means. Comments name its
//! sections as "http-api §3.3", and observations of real nodes as "O41".

mod agreement;
mod answers;
mod client;
mod connection;
mod database_sign;
mod discovery;
mod fitness;
mod held_record;
mod http_reply;
mod last_stop;
mod offline;
mod open_files;
mod patience;
mod quiesce;
mod recognition;
mod record_names;
mod release_record;
mod release_records;
mod running;
mod same_node;
mod session;
mod time_span;
mod transport;
mod trust;

pub use agreement::{Agreement, agree};
pub use answers::{
    AutoScavenge, AutoScavengeResume, AutoScavengeStatus, CurrentScavenge, Gossip, GossipMember,
    LastScavenge, NodeInfo, NodeState, ScavengeEvent, ScavengeExtent, ScavengeParameters,
    ScavengeStart, ScavengeStop, ServerOptions, ServerProcess,
};
pub use client::Client;
pub use connection::{ClientCertificate, Connection, Credentials, TimeLimits};
pub use database_sign::{database_around, sign_of_database, state_inside_node};
pub use discovery::{
    NodeTraits, check_directories, check_index_directory, locate, refuse_empty_index,
};
pub use fitness::{Fitness, FitnessLimits, Unfit, judge, wait_until_fit};
pub use held_record::HeldRecord;
pub use offline::QuiescedOffline;
pub use patience::Patience;
pub use quiesce::{
    NodeScavenging, PlannedRelease, QuiesceCheck, QuiesceSettings, QuiescedOnline, ReleaseMode,
    ReleasePlan, UntouchedRecord, look_at_scavenging, plan_release, quiesce, still_scavenging,
};
pub use release_record::{
    NodeFiles, PausedAutoScavenge, RecordedNode, ReleaseRecord, StoppedScavenge,
};
pub use release_records::{
    ListedRecord, RecordListing, ReleaseRecords, UnreadableRecord, check_state_directory,
    create_state_directory,
};
pub use running::{ProbeDoubt, ProbeFindings, RunningSign, probe};
pub use session::{Session, Whereabouts};
