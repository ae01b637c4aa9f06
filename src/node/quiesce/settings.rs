//! How a node is quiesced, as the operator chose it.

use std::time::Duration;

/// How far quiescing goes, how long it may take, and how a stopped scavenge goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuiesceSettings {
    /// False: leave scavenges alone, and say so in the manifest (`--no-quiesce`).
    pub quiesce: bool,
    /// How long auto-scavenge may take to pause; its leader stops a running scavenge first.
    pub pausing: Duration,
    /// How long a scavenge may take to stop; completing a chunk cannot be interrupted.
    pub stopping: Duration,
    /// How long the node may be without its scavenging, from the first thing that is taken. After
    /// that the run is interrupted, and everything is given back.
    pub longest: Duration,
    /// Threads of a scavenge that is given back.
    pub threads: u32,
    /// Throttle of a scavenge that is given back, in percent; only one thread can be throttled.
    pub throttle_percent: u32,
}

impl Default for QuiesceSettings {
    fn default() -> Self {
        Self {
            quiesce: true,
            pausing: Duration::from_secs(600),
            stopping: Duration::from_secs(300),
            longest: Duration::from_secs(7200),
            threads: 1,
            throttle_percent: 100,
        }
    }
}
