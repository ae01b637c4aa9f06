//! Whether the work of a run goes on. Its threads beat between any two pieces of work, and while
//! they wait on purpose. Whoever watches the run asks from time to time. A thread that hangs on a
//! disk does not beat.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// The pulse of a run. All clones share it.
#[derive(Debug, Clone, Default)]
pub struct Pulse {
    has_beaten: Arc<AtomicBool>,
}

impl Pulse {
    /// Says that the work goes on.
    pub fn beat(&self) {
        // Threads beat very often, and one that only reads does not slow down the others.
        if !self.has_beaten.load(Ordering::Relaxed) {
            self.has_beaten.store(true, Ordering::Relaxed);
        }
    }

    /// Whether the work went on since this was asked last.
    #[must_use]
    pub fn has_beaten(&self) -> bool {
        self.has_beaten.swap(false, Ordering::Relaxed)
    }
}
