//! `kbackup release`: gives back to nodes what killed runs stopped or paused. This needs no
//! repository.

use std::path::{Path, PathBuf};

use serde::Serialize;

use super::connection::{connection, node_name};
use crate::error::{Error, Kind, Result};
use crate::fs;
use crate::node::{
    Client, Connection, ListedRecord, PlannedRelease, RecordedNode, ReleaseMode, ReleaseRecord,
    ReleaseRecords, UntouchedRecord, plan_release,
};
use crate::repository::Location;
use crate::run::Run;
use crate::settings::options::{GeneralOptions, NodeOptions, RedactedUrl, ReleaseOptions};

/// What was given back, or would be; `kbackup.release/1` of `docs/json.md`.
#[derive(Serialize)]
pub(crate) struct Released {
    /// Whether it was given back, and not only planned.
    pub(crate) released: bool,
    /// Each node with a release record that was chosen.
    pub(crate) nodes: Vec<PlannedRelease>,
    /// The release records that were left as they are.
    pub(crate) untouched: Vec<UntouchedRecord>,
    /// Also what other runs hold was given back (`--force`).
    #[serde(skip)]
    pub(crate) forced: bool,
    /// The directory with the release records.
    #[serde(skip)]
    pub(crate) records: PathBuf,
}

/// Gives back everything that the release records name, or plans it.
///
/// # Errors
/// [`Kind::Usage`] for a wrong address or wrong credentials, also if there is nothing to give back,
/// and for a new address without a node. The first error of a node; the other nodes are served
/// nevertheless.
pub(crate) fn release(
    options: &ReleaseOptions,
    general: &GeneralOptions,
    run: &Run,
) -> Result<Released> {
    let records = general.state_directory()?;
    let release_records = ReleaseRecords::open(&records)?;

    let mode = ReleaseMode {
        force: options.force,
        new_address: options.new_address,
    };
    let endpoint = advertised_endpoint(&options.node);
    let named = match endpoint {
        // The records say how to reach the node.
        Some(_) => None,
        None => connection(&options.node)?,
    };
    if let Some(connection) = &named {
        // A wrong address is an error even if there is nothing to give back.
        Client::new(connection)?;
    }

    let name = node_name(&options.node);
    let mut plan = plan_release(&release_records, name.as_deref(), mode)?;
    match (&named, endpoint) {
        (Some(connection), _) => plan.compare_with(Client::new(connection)?, run)?,
        (None, Some(endpoint)) if options.new_address || plan.nodes().is_empty() => {
            return Err(not_a_url(endpoint));
        }
        (None, None) if options.new_address => {
            return Err(Error::new(Kind::Usage, "no node has the new address")
                .hint("name the node by its new address with `--node`"));
        }
        (None, _) => {}
    }

    let (nodes, untouched) = (plan.nodes(), plan.untouched());
    for record in &untouched {
        // A record that cannot be read may be the one of the named node.
        let is_open = nodes.is_empty() && record.may_be_of_node;
        match &record.node {
            None => run.warn(format!("a release record was not touched: {}", record.why)),
            Some(node) if is_open => run.warn(format!(
                "the release record of {node} was not touched: {}",
                record.why
            )),
            Some(_) => {}
        }
    }
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
        untouched,
        forced: options.force,
        records,
    })
}

/// The node by its advertised `host:port`, if the operator wrote that in place of a URL.
fn advertised_endpoint(options: &NodeOptions) -> Option<&str> {
    let url = &options.url.as_ref()?.0;
    let is_url = options.socket.is_some() || url.contains("://");
    (!is_url).then_some(url)
}

fn not_a_url(endpoint: &str) -> Error {
    Error::new(
        Kind::Usage,
        format!("no release record is about a node with the address `{endpoint}`"),
    )
    .hint(format!(
        "write the node's URL: `--node https://{endpoint}`, or `--node http://{endpoint}` for an \
         insecure node"
    ))
}

/// What interrupted runs stopped at the node of a repository, and nobody has given back: in words,
/// one for each node. Reads only the state directory and the repository. Without a state directory,
/// or with a repository that cannot be read, nothing is known.
///
/// # Errors
/// [`Kind::Denied`] or [`Kind::Failed`] if the records cannot be listed.
pub(crate) fn still_to_be_given_back(
    repository: &Path,
    general: &GeneralOptions,
) -> Result<Vec<String>> {
    let Ok(directory) = general.state_directory() else {
        return Ok(Vec::new());
    };
    if fs::status_of_target(&directory)?.is_none() {
        return Ok(Vec::new());
    }

    let mut stopped = Vec::new();
    for ListedRecord { record, in_use, .. } in ReleaseRecords::open(&directory)?.list()?.readable {
        // A run that still works gives everything back itself.
        if in_use || record.is_empty() || is_of_another_database(&record, repository) {
            continue;
        }

        let node = &record.node;
        if let Some(paused) = &record.auto_scavenge {
            let since = paused.since.strftime("%Y-%m-%d %H:%M:%S");
            stopped.push(format!("auto-scavenge of {node}, since {since} UTC"));
        }
        if let Some(scavenge) = &record.scavenge {
            let since = scavenge.since.strftime("%Y-%m-%d %H:%M:%S");
            stopped.push(format!("the scavenge of {node}, since {since} UTC"));
        }
    }
    Ok(stopped)
}

/// Whether a record is known to be that of a node whose backups are elsewhere. Records of older
/// kbackups do not say whose they are.
fn is_of_another_database(record: &ReleaseRecord, repository: &Path) -> bool {
    let Some(database) = record.node.database else {
        return false;
    };
    let Ok(repository) = Location::parse(repository).and_then(|location| location.open()) else {
        return false;
    };
    let Ok(listed) = repository.list() else {
        return false;
    };

    for backup in listed.into_iter().rev() {
        if let Ok(head) = backup.head {
            return head.source.identity.database != database;
        }
    }
    false
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
