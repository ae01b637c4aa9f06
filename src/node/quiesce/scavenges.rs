//! What a node reports about its scavenges, on old and new servers.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::error::{Error, Kind, Result};
use crate::format::names;
use crate::fs;
use crate::node::{
    AutoScavenge, Client, CurrentScavenge, LastScavenge, Patience, ScavengeEvent,
    ScavengeParameters, Session,
};

/// The scavenging on a node now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeScavenging {
    /// What runs on this node. It is [`CurrentScavenge::AdminDisabled`] if the node cannot be
    /// asked, and never [`CurrentScavenge::NotSupported`].
    pub current: CurrentScavenge,
    /// The cluster's auto-scavenge; `None` while there is no leader that knows it.
    pub auto: Option<AutoScavenge>,
}

impl NodeScavenging {
    /// What scavenges on the node or in its cluster, in words. Returns `None` if nothing does.
    #[must_use]
    pub fn at_work(&self) -> Option<String> {
        match (&self.current, &self.auto) {
            (CurrentScavenge::Running(id), _) => Some(format!("scavenge {id} runs")),
            (_, Some(auto)) if auto.is_at_work() => Some(auto_at_work(auto)),
            _ => None,
        }
    }
}

/// Says that auto-scavenge runs a cycle. It may scavenge any node of the cluster next.
pub(super) fn auto_at_work(state: &AutoScavenge) -> String {
    format!("auto-scavenge runs a cycle in the cluster (it is {state})")
}

/// Looks at a node's scavenging. Changes neither the node nor a release record.
///
/// # Errors
/// [`Kind::Unreachable`] or [`Kind::Denied`] if the node cannot be asked.
pub fn look_at_scavenging(client: &Client, patience: Patience<'_>) -> Result<NodeScavenging> {
    let auto = match client.auto_scavenge(patience) {
        // Between two leaders (http-api §2.3).
        Err(error) if error.kind() == Kind::Failed => None,
        result => Some(result?),
    };

    Ok(NodeScavenging {
        current: current_scavenge(client, patience)?,
        auto,
    })
}

/// The scavenge that runs.
pub(super) fn current_scavenge(client: &Client, patience: Patience<'_>) -> Result<CurrentScavenge> {
    match client.current_scavenge(patience)? {
        CurrentScavenge::NotSupported => client.current_scavenge_of_old_server(patience),
        current => Ok(current),
    }
}

/// How a scavenge was started, as far as the node tells. It tells so only in a stream, which may be
/// missing or behind. Then nothing is known.
pub(super) fn parameters_of(
    client: &Client,
    scavenge: &str,
    patience: Patience<'_>,
) -> ScavengeParameters {
    for event in client.scavenge_events(patience).unwrap_or_default() {
        if event.scavenge == scavenge && event.result.is_none() {
            return event.parameters;
        }
    }

    ScavengeParameters::default()
}

/// The error for a node that scavenges while the run may not stop that. `what` says what runs.
#[must_use]
pub fn still_scavenging(client: &Client, what: impl Into<String>) -> Error {
    Error::new(Kind::Scavenging, what)
        .on(client.place())
        .hint(
            "run the same command again when it has ended, or let kbackup wait: `--scavenge wait`",
        )
        .hint("`--scavenge stop` stops it for the backup, and starts it again afterwards")
}

/// Whether a scavenge has finished with success, as far as the node reports it.
pub(super) fn has_succeeded(
    client: &Client,
    scavenge: &str,
    patience: Patience<'_>,
) -> Result<bool> {
    if let Some(last) = client.last_scavenge(patience)? {
        return Ok(last.scavenge_id == scavenge && last.scavenge_result == "Success");
    }

    let events = client.scavenge_events(patience).unwrap_or_default();
    Ok(events
        .iter()
        .any(|event| event.scavenge == scavenge && event.result.as_deref() == Some("Success")))
}

/// The scavenges that the node remembers. Two of these show whether one ran between them (http-api
/// §1.9).
#[derive(Debug, Default)]
pub(super) struct RememberedScavenges {
    last: Option<LastScavenge>,
    /// The newest one that started, on a node that does not report the last one.
    newest: Option<String>,
}

impl RememberedScavenges {
    pub(super) fn ask(session: &Session, patience: Patience<'_>) -> Result<Self> {
        let client = session.client();
        if let Some(last) = client.last_scavenge(patience)? {
            return Ok(Self {
                last: Some(last),
                newest: None,
            });
        }

        // These servers report it only in a stream, and a cluster without a leader writes no entry.
        let events = match client.scavenge_events(patience) {
            Err(error) if matches!(error.kind(), Kind::Failed | Kind::Denied) => Vec::new(),
            result => result?,
        };
        let endpoint = session.whereabouts().endpoint.as_deref();
        Ok(Self {
            last: None,
            newest: newest_start(&events, endpoint),
        })
    }

    /// Whether a scavenge ran between `earlier` and this answer.
    pub(super) fn differ_from(&self, earlier: &Self) -> bool {
        // The newest entry of this node can drop off the first page of the stream. So a missing
        // entry says nothing, and only another one does.
        let another_started = self.newest.is_some() && self.newest != earlier.newest;

        self.last != earlier.last || another_started
    }
}

/// The newest scavenge that started on the node with this endpoint.
fn newest_start(events: &[ScavengeEvent], endpoint: Option<&str>) -> Option<String> {
    for event in events {
        let is_start = event.result.is_none();
        let is_here = match endpoint {
            Some(endpoint) => event.endpoint == endpoint,
            None => true,
        };
        if is_start && is_here {
            return Some(event.scavenge.clone());
        }
    }

    None
}

/// A file in the db directory that only a running scavenge writes (http-api §1.6).
pub(super) fn fresh_scavenge_output(db: &Path) -> Result<Option<PathBuf>> {
    const FRESH: Duration = Duration::from_secs(60);

    for entry in fs::list(db)? {
        if !names::is_written_by_scavenge(&entry.name.to_string_lossy()) {
            continue;
        }
        // The clock may have been set back since the file was written.
        let age = match entry.status.modified.elapsed() {
            Ok(age) => age,
            Err(ahead) => ahead.duration(),
        };
        if age < FRESH {
            return Ok(Some(db.join(entry.name)));
        }
    }

    Ok(None)
}
