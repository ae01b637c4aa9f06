//! Who goes first among the members of a cluster.
//!
//! Each agent works this out from its node's gossip, so that the agents need not talk to each
//! other. What the members' repositories hold is in [`super::siblings`].

use std::time::Duration;

use jiff::SignedDuration;

use super::facts::NodeFacts;
use crate::clock::Timestamp;

/// The class of members that are in a state that passes: they cannot be backed up, or not for long.
const UNFIT: u8 = 3;

/// This node's rank among the members that could be backed up now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ClusterRank {
    /// The endpoints of the members that go before this node, the first one first.
    before: Vec<String>,
}

impl ClusterRank {
    /// Returns `None` if the node is alone or does not gossip: then there is nothing to share.
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

    /// The member that a backup due at `due` is left to, and until when: each member that goes
    /// before this one has `grace`.
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

/// The order in which members are backed up: the one that serves the fewest clients first, then by
/// address.
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
