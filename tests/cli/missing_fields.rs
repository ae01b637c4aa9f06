//! What a node does not tell is no reason to fail, unless the backup needs it. Then the error names
//! the field and the reply.

use serde_json::Value;

use super::NodeSite;

fn without(path: &'static str, field: &'static str) -> NodeSite {
    let site = NodeSite::new("26.1-append");
    site.node
        .change_quirks(|quirks| quirks.missing_fields = vec![(path, field)]);
    site
}

#[test]
fn a_backup_does_without_what_it_does_not_need() {
    for (path, field) in [
        ("/stats/es", "checksum"),
        ("/stats/proc", "startTime"),
        ("/stats/proc", "id"),
        ("/info", "state"),
        ("/info", "authentication"),
        ("/gossip", "instanceId"),
        ("/gossip", "lastCommitPosition"),
        ("/gossip", "epochId"),
        ("/gossip", "epochPosition"),
        ("/admin/scavenge/last", "scavengeResult"),
        ("/auto-scavenge/enabled", "enabled"),
    ] {
        let site = without(path, field);
        let output = site
            .place
            .kbackup(&site.line("full --repo repo --node URL"))
            .output()
            .unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(
            matches!(output.status.code(), Some(0 | 3)),
            "{path} {field}: {stderr}"
        );
        assert_eq!(site.place.listed().len(), 1, "{path} {field}");
    }
}

#[test]
fn an_error_names_the_field_and_the_reply() {
    for (path, field) in [
        ("/admin/scavenge/current", "scavengeId"),
        ("/gossip", "serverIp"),
        ("/gossip", "isAlive"),
    ] {
        let site = without(path, field);
        let output = site
            .place
            .kbackup(&site.line("full --repo repo --node URL --json"))
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(1), "{path} {field}");

        let error: Value = serde_json::from_slice(&output.stdout).unwrap();
        let (message, place) = (&error["message"], &error["on"]);
        assert!(
            message.as_str().unwrap().contains(&format!("`{field}`")),
            "{error:#}"
        );
        assert!(place.as_str().unwrap().ends_with(path), "{error:#}");
    }
}
