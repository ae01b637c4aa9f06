//! `kbackup release`: gives back to nodes what killed runs stopped or paused. This needs no
//! repository.

use std::path::PathBuf;

use serde::Serialize;

use super::connection::{connection, node_name};
use crate::error::{Error, Kind, Result};
use crate::node::{Client, Connection, PlannedRelease, RecordedNode, ReleaseRecords, plan_release};
use crate::run::Run;
use crate::settings::options::{GeneralOptions, NodeOptions, RedactedUrl, ReleaseOptions};

/// What was given back, or would be; `kbackup.release/1` of `docs/json.md`.
#[derive(Serialize)]
pub(crate) struct Released {
    /// Whether it was given back, and not only planned.
    pub(crate) released: bool,
    /// Each node with a release record.
    pub(crate) nodes: Vec<PlannedRelease>,
    /// The directory with the release records.
    #[serde(skip)]
    pub(crate) records: PathBuf,
}

/// Gives back everything that the release records name, or plans it.
///
/// # Errors
/// [`Kind::Usage`] for a wrong address or wrong credentials, also if there is nothing to give back.
/// The first error of a node; the other nodes are served nevertheless.
pub(crate) fn release(
    options: &ReleaseOptions,
    general: &GeneralOptions,
    run: &Run,
) -> Result<Released> {
    let records = general.state_directory()?;
    let release_records = ReleaseRecords::open(&records)?;

    let named = connection(&options.node)?;
    if let Some(connection) = &named {
        // A wrong address is an error even if there is nothing to give back.
        Client::new(connection)?;
    }

    let plan = plan_release(&release_records, node_name(&options.node).as_deref())?;
    let nodes = plan.nodes();
    if !options.dry_run {
        plan.execute(
            &release_records,
            |record| connect(&options.node, named.as_ref(), &record.node),
            run,
        )?;
    }

    Ok(Released {
        released: !options.dry_run,
        nodes,
        records,
    })
}

/// A client for the node of a release record. The record holds an address and no credentials: the
/// options give those, as for a backup.
fn connect(
    options: &NodeOptions,
    named: Option<&Connection>,
    recorded: &RecordedNode,
) -> Result<Client> {
    if let Some(connection) = named {
        return Client::new(connection);
    }

    let recorded = NodeOptions {
        url: Some(RedactedUrl(recorded.url.clone())),
        socket: recorded.unix_socket.clone(),
        ..options.clone()
    };
    match connection(&recorded)? {
        Some(connection) => Client::new(&connection),
        None => Err(Error::new(Kind::Usage, "no node is named").hint("name it with `--node`")),
    }
}
