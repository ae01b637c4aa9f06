//! How a node is quiesced, as the operator chose it.

use std::time::Duration;

/// How far quiescing goes, how long it may take, and how a stopped scavenge is started again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuiesceSettings {
    /// False for `--no-quiesce`: leave scavenges alone, and say so in the manifest.
    pub quiesce: bool,
    /// Whether a scavenge that runs may be stopped, and a cycle of auto-scavenge interrupted
    /// (`--scavenge`). If not, quiescing fails with
    /// [`Kind::Scavenging`](crate::error::Kind::Scavenging).
    pub may_stop_scavenges: bool,
    /// How long the copy will take, as far as kbackup can tell. An auto-scavenge whose next cycle
    /// is further away is left alone.
    pub copy_takes: Duration,
    /// How long auto-scavenge may take to pause (`--quiesce-wait`). Its leader stops a running
    /// scavenge first.
    pub pause_within: Duration,
    /// How long a scavenge may take to stop (`--quiesce-wait`). The server completes the chunk that
    /// it works on.
    pub stop_within: Duration,
    /// How long the node may be without its scavenging (`--max-pause`). Then the run is interrupted
    /// and gives everything back. The time begins with the first thing that the run stops. A pause
    /// of an auto-scavenge that waits counts only from the moment at which its cycle would begin.
    pub max_pause: Duration,
    /// Threads of a scavenge that is given back (`--scavenge-threads`). `None`: as many as it had,
    /// if the node tells that, or else one.
    pub threads: Option<u32>,
    /// Throttle of a scavenge that is given back, in percent (`--scavenge-throttle`). `None`: no
    /// throttle. Only one thread can be throttled.
    pub throttle_percent: Option<u32>,
}

impl Default for QuiesceSettings {
    fn default() -> Self {
        Self {
            quiesce: true,
            may_stop_scavenges: true,
            copy_takes: Duration::from_secs(600),
            pause_within: Duration::from_secs(600),
            stop_within: Duration::from_secs(300),
            max_pause: Duration::from_secs(7200),
            threads: None,
            throttle_percent: None,
        }
    }
}

impl QuiesceSettings {
    /// Threads and throttle in percent for a scavenge that is given back, if it had `told` threads.
    /// A server refuses a throttle together with more than one thread (http-api §1.4).
    pub(super) fn restart_with(&self, told: Option<u32>) -> (u32, u32) {
        const NO_THROTTLE: u32 = 100;

        let throttle = self.throttle_percent.unwrap_or(NO_THROTTLE);
        let threads = match self.threads {
            Some(threads) => threads,
            None if throttle < NO_THROTTLE => 1,
            None => told.unwrap_or(1).max(1),
        };
        (threads, throttle)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scavenge_gets_the_threads_that_it_had_unless_the_operator_said_otherwise() {
        let settings = |threads, throttle_percent| QuiesceSettings {
            threads,
            throttle_percent,
            ..QuiesceSettings::default()
        };

        assert_eq!(settings(None, None).restart_with(Some(4)), (4, 100));
        assert_eq!(settings(None, None).restart_with(None), (1, 100));
        assert_eq!(settings(None, Some(50)).restart_with(Some(4)), (1, 50));
        assert_eq!(settings(Some(2), None).restart_with(Some(4)), (2, 100));
        assert_eq!(settings(None, None).restart_with(Some(0)), (1, 100));
    }
}
