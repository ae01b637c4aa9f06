//! How a node is quiesced, as the operator chose it.

use std::time::Duration;

/// How far quiescing goes, how long it may take, and how a stopped scavenge is started again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuiesceSettings {
    /// False for `--no-quiesce`: leave scavenges alone, and say so in the manifest.
    pub quiesce: bool,
    /// How long auto-scavenge may take to pause (`--quiesce-wait`). Its leader stops a running
    /// scavenge first.
    pub pause_within: Duration,
    /// How long a scavenge may take to stop (`--quiesce-wait`). The server completes the chunk that
    /// it works on.
    pub stop_within: Duration,
    /// How long the node may be without its scavenging (`--max-pause`). Then the run is interrupted
    /// and gives everything back. The time begins with the first thing that the run stops.
    pub max_pause: Duration,
    /// Threads of a scavenge that is given back.
    pub threads: u32,
    /// Throttle of a scavenge that is given back, in percent; only one thread can be throttled.
    pub throttle_percent: u32,
}

impl Default for QuiesceSettings {
    fn default() -> Self {
        Self {
            quiesce: true,
            pause_within: Duration::from_secs(600),
            stop_within: Duration::from_secs(300),
            max_pause: Duration::from_secs(7200),
            threads: 1,
            throttle_percent: 100,
        }
    }
}
