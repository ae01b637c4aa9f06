//! Is this the node of a release record? kbackup gives back to that node alone, whatever its
//! address is now.
//!
//! The server process is certain. Otherwise the database and the directory tell: they stay when the
//! node gets another address, and they differ if two nodes advertise the same one. Another database
//! is another node, whatever the operator says. An address alone is believed only if nothing better
//! is known. What stays open is for the operator to say. `recognition` asks the node.

use uuid::Uuid;

use super::Gossip;
use super::release_record::RecordedNode;

/// How a node compares with the node of a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Comparison {
    /// It is the same node, at the same address.
    Same,
    /// It is the same node, at another address.
    Moved,
    /// It may be the same node. The text says what differs.
    Unproven(String),
    /// It is another node. The text says why.
    Another(String),
}

/// What a node shows of itself.
#[derive(Debug, Clone)]
pub(super) struct ShownNode {
    /// Its database and its directory are given as far as they are proven.
    pub(super) node: RecordedNode,
    /// The process of the node was seen to work in that directory. Without that, two idle members
    /// of one cluster cannot be told apart by their files.
    pub(super) is_seen_at_work: bool,
    /// Why the node does not seem to work in the directory of the record.
    pub(super) doubt: Option<String>,
    neighbours: Vec<Neighbour>,
}

/// Another living member of the node's cluster.
#[derive(Debug, Clone)]
struct Neighbour {
    endpoint: String,
    process: Option<Uuid>,
}

impl ShownNode {
    pub(super) fn new(node: RecordedNode, gossip: Option<&Gossip>) -> Self {
        Self {
            node,
            is_seen_at_work: false,
            doubt: None,
            neighbours: living_neighbours(gossip),
        }
    }

    fn neighbour_at(&self, endpoint: &str) -> Option<&Neighbour> {
        self.neighbours
            .iter()
            .find(|neighbour| neighbour.endpoint == endpoint)
    }

    /// The neighbour that is the recorded server process.
    fn neighbour_with_process(&self, recorded: &RecordedNode) -> Option<&Neighbour> {
        self.neighbours
            .iter()
            .find(|neighbour| neighbour.process.is_some() && neighbour.process == recorded.instance)
    }
}

/// Whether both are one server process.
pub(super) fn is_same_process(recorded: &RecordedNode, here: &RecordedNode) -> bool {
    recorded.instance.is_some() && recorded.instance == here.instance
}

/// Compares a running node with the node of a record.
pub(super) fn compare(recorded: &RecordedNode, shown: &ShownNode) -> Comparison {
    let here = &shown.node;
    if is_same_process(recorded, here) {
        let has_moved = recorded.endpoint != here.endpoint;
        return if has_moved {
            Comparison::Moved
        } else {
            Comparison::Same
        };
    }
    if let Some(neighbour) = shown.neighbour_with_process(recorded) {
        let endpoint = &neighbour.endpoint;
        return Comparison::Another(format!(
            "its process is another member of the cluster, {endpoint}"
        ));
    }
    if let (Some(recorded), Some(here)) = (recorded.database, here.database)
        && recorded != here
    {
        return Comparison::Another(format!(
            "the database of the release record is {recorded}, that of the node {here}"
        ));
    }
    if let Some(difference) = difference_of_directories(recorded, here) {
        return Comparison::Unproven(difference);
    }
    if let Some(doubt) = &shown.doubt {
        return Comparison::Unproven(doubt.clone());
    }

    compare_addresses(recorded, shown)
}

/// Compares two nodes whose files do not tell them apart.
fn compare_addresses(recorded: &RecordedNode, shown: &ShownNode) -> Comparison {
    let here = &shown.node;
    let has_same_files = recorded.database.is_some()
        && recorded.database == here.database
        && recorded.directory.is_some()
        && recorded.directory == here.directory;

    match (&recorded.endpoint, &here.endpoint) {
        (Some(recorded), Some(here)) if recorded != here => {
            // Members of one cluster may have swapped their addresses. Or this is the neighbour.
            let is_taken = shown.neighbour_at(recorded).is_some();
            if has_same_files && (shown.is_seen_at_work || !is_taken) {
                Comparison::Moved
            } else if is_taken {
                Comparison::Unproven(format!(
                    "the release record is for {recorded}, which is another member of its cluster \
                     now; {here} answers"
                ))
            } else {
                Comparison::Unproven(format!(
                    "the release record is for {recorded}, {here} answers"
                ))
            }
        }

        _ if has_same_files || recorded.is_reached_as(here) => Comparison::Same,
        _ => Comparison::Unproven(format!("the release record is for {recorded}, not {here}")),
    }
}

/// In what the directories of the two nodes differ. `None` if they do not, as far as is known.
fn difference_of_directories(recorded: &RecordedNode, here: &RecordedNode) -> Option<String> {
    if let (Some(recorded), Some(here)) = (&recorded.directory, &here.directory)
        && recorded != here
    {
        let (recorded, here) = (recorded.display(), here.display());
        return Some(format!(
            "the db directory of the release record is `{recorded}`, that of the node `{here}`"
        ));
    }
    if let (Some(recorded), Some(here)) = (&recorded.own_directory, &here.own_directory)
        && recorded != here
    {
        return Some(format!(
            "the node of the release record calls its db directory `{recorded}`, \
             this node calls it `{here}`"
        ));
    }

    None
}

/// The other members that are alive.
fn living_neighbours(gossip: Option<&Gossip>) -> Vec<Neighbour> {
    let Some(gossip) = gossip else {
        return Vec::new();
    };

    let own = gossip.endpoint();
    let mut neighbours = Vec::new();
    for member in &gossip.members {
        let endpoint = member.endpoint();
        if member.is_alive && endpoint != own {
            neighbours.push(Neighbour {
                endpoint,
                process: member.instance_id,
            });
        }
    }
    neighbours
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(endpoint: &str, database: u128, directory: &str) -> RecordedNode {
        RecordedNode {
            url: format!("http://{endpoint}"),
            unix_socket: None,
            endpoint: Some(endpoint.to_owned()),
            instance: None,
            database: Some(Uuid::from_u128(database)),
            directory: Some(directory.into()),
            own_directory: None,
        }
    }

    fn without_files(node: RecordedNode) -> RecordedNode {
        RecordedNode {
            database: None,
            directory: None,
            ..node
        }
    }

    fn shown(node: RecordedNode) -> ShownNode {
        ShownNode::new(node, None)
    }

    /// A node in a cluster with another member.
    fn beside(node: RecordedNode, endpoint: &str, process: Option<Uuid>) -> ShownNode {
        let neighbour = Neighbour {
            endpoint: endpoint.to_owned(),
            process,
        };
        ShownNode {
            neighbours: vec![neighbour],
            ..shown(node)
        }
    }

    fn compared(recorded: &RecordedNode, here: &RecordedNode) -> Comparison {
        compare(recorded, &shown(here.clone()))
    }

    #[test]
    fn files_tell_nodes_apart_that_advertise_one_address() {
        let ours = node("127.0.0.1:2113", 1, "/one");
        assert_eq!(compared(&ours, &ours), Comparison::Same);

        let found = compared(&ours, &node("127.0.0.1:2113", 2, "/one"));
        assert!(matches!(found, Comparison::Another(_)), "{found:?}");
        let found = compared(&ours, &node("127.0.0.1:2113", 1, "/two"));
        assert!(matches!(found, Comparison::Unproven(_)), "{found:?}");
    }

    #[test]
    fn a_new_address_is_the_same_node_if_the_files_are() {
        let (before, now) = (node("10.0.0.1:1", 1, "/db"), node("10.0.0.2:1", 1, "/db"));
        assert_eq!(compared(&before, &now), Comparison::Moved);
    }

    #[test]
    fn members_that_swapped_addresses_are_told_apart_by_what_their_processes_do() {
        let process = Some(Uuid::from_u128(7));
        let before = RecordedNode {
            instance: process,
            ..node("10.0.0.1:1", 1, "/db")
        };
        let now = node("10.0.0.2:1", 1, "/db");

        // The files of two idle members look alike, so the operator has to say it.
        let swapped = beside(now.clone(), "10.0.0.1:1", None);
        let found = compare(&before, &swapped);
        assert!(matches!(found, Comparison::Unproven(_)), "{found:?}");

        let seen = ShownNode {
            is_seen_at_work: true,
            ..swapped
        };
        assert_eq!(compare(&before, &seen), Comparison::Moved);

        // The recorded process lives, and is another member.
        for endpoint in ["10.0.0.1:1", "10.0.0.3:1"] {
            let found = compare(&before, &beside(now.clone(), endpoint, process));
            assert!(matches!(found, Comparison::Another(_)), "{found:?}");
        }
    }

    #[test]
    fn a_record_without_files_needs_the_same_address_and_url() {
        let old = without_files(node("10.0.0.1:1", 1, "/db"));
        let now = node("10.0.0.1:1", 1, "/db");
        assert_eq!(compared(&old, &now), Comparison::Same);

        let moved = RecordedNode {
            url: old.url.clone(),
            ..node("10.0.0.2:1", 1, "/db")
        };
        let elsewhere = RecordedNode {
            url: "http://other".to_owned(),
            ..now
        };
        for other in [moved, elsewhere] {
            let found = compared(&old, &other);
            assert!(matches!(found, Comparison::Unproven(_)), "{found:?}");
        }
    }

    #[test]
    fn a_server_process_is_certain() {
        let instance = Some(Uuid::from_u128(7));
        let before = RecordedNode {
            instance,
            ..without_files(node("10.0.0.1:1", 1, "/db"))
        };
        let now = RecordedNode {
            instance,
            ..node("10.0.0.2:1", 2, "/other")
        };
        assert_eq!(compared(&before, &now), Comparison::Moved);
        assert_eq!(compared(&before, &before), Comparison::Same);
    }
}
