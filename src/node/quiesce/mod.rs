//! Keeps scavenges from running while files are copied, and gives them back afterwards (design §3;
//! http-api §1, §2; O40–O44).
//!
//! `online` quiesces a running node for a backup. It pauses auto-scavenge (`pause`), stops a
//! running scavenge (`stop`), and gives both back (`give_back`). It records everything before it
//! takes it from the node (`borrowed`). If the run hangs, its `guard` gives back in its place; both
//! share the `custody`. `release` does the same for `kbackup release`, after a
//! crash. All of them wait for the node by one polling type (`poll`).

mod borrowed;
mod custody;
mod give_back;
mod guard;
mod online;
mod pause;
mod poll;
mod release;
mod scavenges;
mod settings;
mod stop;

pub use online::{QuiesceCheck, QuiescedOnline, quiesce};
pub use release::{PlannedRelease, ReleaseMode, ReleasePlan, UntouchedRecord, plan_release};
pub use scavenges::{NodeScavenging, look_at_scavenging, still_scavenging};
pub use settings::QuiesceSettings;
