//! The order in which the members of a cluster are backed up.
//!
//! Each agent reads the order from its node's gossip, so the agents need not talk to each other.
//! [`super::siblings`] looks at the members' repositories.

use std::time::Duration;

use jiff::SignedDuration;

use super::facts::NodeFacts;
use crate::clock::Timestamp;

/// The class of members in a state that passes, such as catching up. No member waits for them.
const UNFIT: u8 = 3;

/// This node's rank among the members that could be backed up now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ClusterRank {
    /// The endpoints of the members that go before this node, the first one first.
    before: Vec<String>,
}

impl ClusterRank {
    /// Returns `None` if the node is alone or does not gossip. Then there is no work to share.
    pub(super) fn of(node: &NodeFacts) -> Option<Self> {
        let own_endpoint = node.endpoint.as_deref()?;
        if node.members.len() < 2 {
            return None;
        }

        let own_preference = preference(&node.state, own_endpoint);
        let mut before = Vec::new();
        for member in &node.members {
            if !member.is_alive || member.endpoint == own_endpoint {
                continue;
            }

            let preference = preference(&member.state, &member.endpoint);
            if preference.0 < UNFIT && preference < own_preference {
                before.push(preference);
            }
        }
        before.sort_unstable();

        Some(Self {
            before: before
                .into_iter()
                .map(|(_, endpoint)| endpoint.to_owned())
                .collect(),
        })
    }

    /// The member that this node leaves a backup to that is due at `due`, and until when. The node
    /// waits the time `grace` for each member that goes before it.
    pub(super) fn leaves_to(
        &self,
        due: Timestamp,
        now: Timestamp,
        grace: Duration,
    ) -> Option<(&str, Timestamp)> {
        let first = self.before.first()?;

        let rank = u32::try_from(self.before.len()).unwrap_or(u32::MAX);
        let wait = SignedDuration::try_from(grace.saturating_mul(rank)).ok()?;
        let until = due.checked_add(wait).ok()?;

        (now < until).then_some((first.as_str(), until))
    }
}

/// The place of a member in the order. Members that serve fewer clients go first. Members of one
/// role go by address.
fn preference<'a>(state: &str, endpoint: &'a str) -> (u8, &'a str) {
    let class = match state {
        "readonlyreplica" => 0,
        "follower" => 1,
        "leader" => 2,
        _ => UNFIT,
    };

    (class, endpoint)
}

#[cfg(test)]
mod tests;
