//! The input is a node's answer to any request.

use kbackup::node::{Gossip, NodeInfo, ServerProcess};

pub(crate) fn examine(bytes: &[u8]) {
    if let Ok(info) = serde_json::from_slice::<NodeInfo>(bytes) {
        let _ = (
            info.version(),
            info.is_insecure(),
            info.state
                .as_ref()
                .map(|state| (state.name(), state.is_stable())),
        );
    }

    if let Ok(gossip) = serde_json::from_slice::<Gossip>(bytes) {
        let _ = (gossip.me(), gossip.endpoint());
        for member in &gossip.members {
            let _ = (
                member.endpoint(),
                member.writer(),
                member.chaser(),
                member.indexed(),
                member.epoch_position(),
            );
        }
    }

    let _ = serde_json::from_slice::<ServerProcess>(bytes);
}
