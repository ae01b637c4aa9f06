//! Queues the messages for hooks: commands and web addresses that are told what happens.
//!
//! The loop owns the queues. Each hook gets one message at a time, in order, from a thread of its
//! own ([`super::hook_delivery`]). No backup waits for a hook.

use std::collections::{BTreeMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::hook_delivery::Delivery;
use super::report::Report;
use crate::settings::hook::Hook;

/// How many messages may wait for a slow hook. One more, and the oldest is lost.
const WAITING: usize = 16;

/// The queues of all hooks.
#[derive(Debug)]
pub(super) struct HookQueues {
    queues: BTreeMap<Hook, HookQueue>,
    reports: mpsc::UnboundedSender<Report>,
    runtime: Handle,
    ending: CancellationToken,
}

/// The messages for one hook.
#[derive(Debug, Default)]
struct HookQueue {
    waiting: VecDeque<Message>,
    /// Whether a message is being delivered.
    is_busy: bool,
    /// Why the last message could not be delivered.
    problem: Option<String>,
}

#[derive(Debug)]
struct Message {
    bytes: Vec<u8>,
    /// How long one attempt to deliver it may take.
    limit: Duration,
}

impl HookQueues {
    pub(super) fn new(reports: mpsc::UnboundedSender<Report>, runtime: Handle) -> Self {
        Self {
            queues: BTreeMap::new(),
            reports,
            runtime,
            ending: CancellationToken::new(),
        }
    }

    /// Queues a message. Each attempt to deliver it may take as long as `limit`.
    pub(super) fn add(&mut self, hook: &Hook, bytes: Vec<u8>, limit: Duration) {
        let queue = self.queues.entry(hook.clone()).or_default();
        queue.waiting.push_back(Message { bytes, limit });
        if queue.waiting.len() > WAITING {
            queue.waiting.pop_front();
            warn!(hook = %hook, "the hook is too slow: a message is lost");
        }

        self.deliver_next(hook);
    }

    /// A hook got its message, or could not be told.
    pub(super) fn told(&mut self, hook: &Hook, result: Result<(), String>) {
        match &result {
            Ok(()) => debug!(hook = %hook, "was told"),
            Err(problem) => warn!(hook = %hook, "could not be told: {problem}"),
        }

        let queue = self.queues.entry(hook.clone()).or_default();
        queue.is_busy = false;
        queue.problem = result.err();

        self.deliver_next(hook);
    }

    fn deliver_next(&mut self, hook: &Hook) {
        let queue = self.queues.entry(hook.clone()).or_default();
        if queue.is_busy {
            return;
        }
        let Some(message) = queue.waiting.pop_front() else {
            return;
        };

        let delivery = Delivery {
            hook: hook.clone(),
            message: message.bytes,
            limit: message.limit,
            runtime: self.runtime.clone(),
            ending: self.ending.clone(),
        };
        let reports = self.reports.clone();
        let started = std::thread::Builder::new()
            .name("hook".to_owned())
            .spawn(move || {
                let hook = delivery.hook.clone();
                let deliver = AssertUnwindSafe(|| delivery.deliver());
                let result = catch_unwind(deliver)
                    .unwrap_or_else(|_| Err("it met a defect of kbackup".to_owned()));
                // If the loop has ended, no reader is left.
                drop(reports.send(Report::HookTold { hook, result }));
            });

        match started {
            Ok(_) => queue.is_busy = true,
            Err(error) => queue.problem = Some(format!("cannot start a thread for it: {error}")),
        }
    }

    /// What is wrong with those of `hooks` that could not be told last time.
    pub(super) fn problems<'a>(&self, hooks: impl Iterator<Item = &'a Hook>) -> Vec<String> {
        let mut problems = Vec::new();
        for hook in hooks {
            let Some(queue) = self.queues.get(hook) else {
                continue;
            };
            if let Some(problem) = &queue.problem {
                problems.push(format!("{hook}: {problem}"));
            }
        }

        problems.dedup();
        problems
    }

    /// The agent ends: what is being delivered has a few seconds left, and no attempt is repeated.
    pub(super) fn end(&self) {
        self.ending.cancel();
    }

    /// Whether a message is being delivered.
    pub(super) fn are_busy(&self) -> bool {
        self.queues.values().any(|queue| queue.is_busy)
    }
}
