//! `kbackup release`: gives back to nodes what killed runs left on record.

use super::borrowed::Borrowed;
use super::give_back::{GIVE_BACK_LIMIT, give_back};
use crate::error::Result;
use crate::node::release_record::{ListedRecord, ReleaseRecord, ReleaseRecords};
use crate::node::{Client, Session};
use crate::run::Run;

/// What `kbackup release` is going to do.
#[derive(Debug, Clone)]
pub struct ReleasePlan {
    records: Vec<ListedRecord>,
}

/// One node in a [`ReleasePlan`], for people and for JSON.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct PlannedRelease {
    /// The node's URL or socket.
    pub node: String,
    /// The advertised `host:port`.
    pub endpoint: Option<String>,
    /// Id of the scavenge to start again.
    pub scavenge: Option<String>,
    /// True if auto-scavenge is to be resumed.
    pub auto_scavenge: bool,
    /// True if another run holds the record. That run gives everything back itself, so the plan
    /// skips this node.
    pub in_use: bool,
}

impl PlannedRelease {
    /// What is given back, in words.
    #[must_use]
    pub fn what(&self) -> String {
        match (&self.scavenge, self.auto_scavenge) {
            (Some(id), true) => format!("scavenge {id} and auto-scavenge"),
            (Some(id), false) => format!("scavenge {id}"),
            (None, true) => "auto-scavenge".to_owned(),
            (None, false) => String::new(),
        }
    }
}

impl From<&ListedRecord> for PlannedRelease {
    fn from(listed: &ListedRecord) -> Self {
        let record = &listed.record;
        Self {
            node: record.node.to_string(),
            endpoint: record.node.endpoint.clone(),
            scavenge: record.scavenge.as_ref().map(|stopped| stopped.id.clone()),
            auto_scavenge: record.auto_scavenge.is_some(),
            in_use: listed.in_use,
        }
    }
}

/// Plans to give back to all nodes, or to the one that `node` names (URL, socket or advertised
/// endpoint). If nothing is on record, the plan is empty.
///
/// # Errors
/// As [`ReleaseRecords::records`].
pub fn plan_release(records: &ReleaseRecords, node: Option<&str>) -> Result<ReleasePlan> {
    let mut records = records.records()?;
    if let Some(node) = node {
        records.retain(|listed| listed.record.is_of(node));
    }

    Ok(ReleasePlan { records })
}

impl ReleasePlan {
    /// The nodes, in the order in which they are served.
    #[must_use]
    pub fn nodes(&self) -> Vec<PlannedRelease> {
        self.records.iter().map(PlannedRelease::from).collect()
    }

    /// Gives back to each node that is not in use. `connect` finds a node again; the record holds
    /// no credentials.
    ///
    /// # Errors
    /// The first error. The other nodes are served nevertheless, and what could not be given back
    /// stays on record.
    pub fn execute(
        &self,
        records: &ReleaseRecords,
        connect: impl Fn(&ReleaseRecord) -> Result<Client>,
        run: &Run,
    ) -> Result<()> {
        let mut first_error = None;
        for listed in &self.records {
            if listed.in_use {
                continue;
            }

            run.check()?;
            let Err(error) = release_node(records, listed, &connect, run) else {
                continue;
            };
            if first_error.is_none() {
                first_error = Some(error);
            } else {
                run.warn(error.to_string());
            }
        }

        match first_error {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }
}

fn release_node(
    records: &ReleaseRecords,
    listed: &ListedRecord,
    connect: impl Fn(&ReleaseRecord) -> Result<Client>,
    run: &Run,
) -> Result<()> {
    // Another run may have given everything back since the plan was made.
    let Some(held) = records.hold_listed(listed)? else {
        return Ok(());
    };

    let client = connect(held.record())?;
    let session = Session::open(client, run)?;
    let mut borrowed = Borrowed::new(held, run);
    give_back(
        session.client(),
        session.version(),
        &mut borrowed,
        GIVE_BACK_LIMIT,
    )
}
