//! `kbackup agent`: runs beside a node for months, keeps it backed up, and shows its state.
//!
//! One loop (`event_loop`) owns all state. It plans the jobs, starts one run at a time on a
//! thread of its own, and looks at the node and the repository in between. After each event it
//! publishes a [`Status`]. The page, the metrics and the health check read the published status
//! only.
//!
//! | subject | modules |
//! |---|---|
//! | the loop and its state | `event_loop`, `state`, `report`, `published` |
//! | observations | `observation`, `siblings`, `facts`, `writer_probe`, `change` |
//! | when to look | `look_schedule`, `retry_pause` |
//! | what is due | `planner`, `exposure`, `cluster`, `configuration` |
//! | runs | `worker`, `perform`, `run_recorder`, `run_record`, `stillness`, `turns`, `turn_lock`, `journal` |
//! | the status | `status`, `last_known`, `assessment`, `verdict` |
//! | its readers | `http`, `access`, `page`, `metrics`, `announcements`, `hooks`, `systemd` |

mod access;
mod announcements;
mod assessment;
mod change;
mod cluster;
mod configuration;
mod event_loop;
mod exposure;
mod facts;
mod hook_delivery;
mod hooks;
mod http;
mod journal;
mod last_known;
mod look_schedule;
mod metrics;
mod observation;
pub mod page;
mod perform;
mod planner;
mod published;
mod report;
mod retry_pause;
mod run_record;
mod run_recorder;
mod run_totals;
mod scavenge_notes;
mod siblings;
mod state;
mod status;
mod stillness;
mod systemd;
mod turn_lock;
mod turns;
mod verdict;
mod worker;
mod writer_probe;

use std::sync::Arc;

pub use self::configuration::Configuration;
pub use self::exposure::Exposure;
pub use self::facts::{
    BackupFacts, ClusterFacts, ClusterMember, LookResult, NodeFacts, RepositoryFacts, RestorePoint,
    SiblingBackup,
};
pub use self::journal::Journal;
pub use self::last_known::{BackupTimes, LastKnown};
pub use self::observation::{RepositoryLook, look_at_repository};
pub use self::planner::JobPlan;
pub use self::run_record::{Job, Pause, RunOutcome, RunRecord, Trigger};
pub use self::status::{AgentFacts, JobStatus, RunningJob, Status, StatusInput};
pub use self::verdict::{Concern, Level, Verdict, roughly};
use crate::error::{Error, Kind, Result};
use crate::settings::Settings;

/// Reads the settings again, from the same arguments, environment and file as at the start.
pub type Reread = Arc<dyn Fn() -> Result<Settings> + Send + Sync>;

/// Keeps a node backed up until a signal ends the agent.
///
/// # Errors
/// [`Kind::Usage`] if the configuration or the address of the page cannot be used.
/// [`Kind::Failed`] if the state directory or the system does not let the agent begin. Later
/// problems are part of the status, and the agent tries again.
pub fn run(settings: &Settings, reread: Reread) -> Result<()> {
    let configuration = Configuration::of(settings)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .map_err(|error| Error::new(Kind::Failed, "cannot start the agent").because(error))?;

    let result = runtime.block_on(event_loop::keep(configuration, reread));

    // Do not wait for a look at a node that does not answer.
    runtime.shutdown_background();
    result
}
