//! A manifest's head for unit tests of other rooms. A test changes the fields that it is about.

use serde_json::json;
use uuid::Uuid;

use super::Head;

/// The head of a first full whose log ends at `position`, in chunks of 64 KiB, without epochs and
/// files.
pub(crate) fn head(position: u64) -> Head {
    let checkpoints = json!({
        "writer": position,
        "chaser": position,
        "epoch": null,
        "proposal": null,
    });
    let head = json!({
        "format": 1,
        "label": "20261121T060000Z-full",
        "sequence": 1,
        "kind": "full",
        "parent": null,
        "branch": 1,
        "tool": "kbackup",
        "started": "2026-11-21T06:00:00Z",
        "finished": "2026-11-21T06:00:00Z",
        "source": {
            "server_version": null,
            "identity": { "database": Uuid::nil(), "endpoint": null },
            "instance": null,
            "state": null,
            "db": "/db",
            "index": "/db/index",
            "owner": null,
            "online": true,
            "restored": null,
            "missing_bytes": null,
        },
        "log": {
            "chunk_size": 65536,
            "position": position,
            "last_event": null,
            "lineage": [],
            "read": checkpoints,
            "stored": { "epoch": null, "proposal": null },
            "index_commit": null,
        },
        "scavenging": { "quiet": "offline", "stopped": null, "auto_paused": false },
        "contents": { "index": true, "secondary_index": "absent", "archive": false, "damaged": [] },
        "cost": {
            "bytes_read": 0,
            "bytes_stored": 0,
            "files_copied": 0,
            "files_linked": 0,
            "retries": 0,
        },
        "totals": { "files": 0, "bytes": 0 },
    });
    serde_json::from_value(head).unwrap()
}
