//! Counts requests, because they cost money, and because a forecast must be right.

use std::fmt;
use std::ops::Sub;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};

use serde::Serialize;

/// A store tells this many keys for each request. Where there are no requests, they are counted as
/// if there were.
const KEYS_OF_A_LIST: usize = 1000;
/// No store has told its time yet.
const NO_TIME: i64 = i64::MIN;

/// What providers have different prices for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RequestKind {
    Put,
    /// Also asks for size and version alone.
    Get,
    List,
    Delete,
}

/// How many requests were sent, and how many bytes of objects they carried.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Requests {
    /// Requests that write an object, those included that found it there.
    pub puts: u64,
    /// Requests that read an object, or only its size and version.
    pub gets: u64,
    /// Requests that list objects; a thousand keys usually take one.
    pub lists: u64,
    /// Requests that delete an object.
    pub deletes: u64,
    /// How many of all these were sent because the one before had failed.
    pub repeated: u64,
    /// Bytes of objects sent, those of repeated requests included.
    pub bytes_up: u64,
    /// Bytes of objects received.
    pub bytes_down: u64,
}

impl Sub for Requests {
    type Output = Self;

    /// The requests since `earlier`.
    fn sub(self, earlier: Self) -> Self {
        Self {
            puts: self.puts.saturating_sub(earlier.puts),
            gets: self.gets.saturating_sub(earlier.gets),
            lists: self.lists.saturating_sub(earlier.lists),
            deletes: self.deletes.saturating_sub(earlier.deletes),
            repeated: self.repeated.saturating_sub(earlier.repeated),
            bytes_up: self.bytes_up.saturating_sub(earlier.bytes_up),
            bytes_down: self.bytes_down.saturating_sub(earlier.bytes_down),
        }
    }
}

impl fmt::Display for Requests {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            puts,
            gets,
            lists,
            deletes,
            repeated,
            ..
        } = self;

        let up = bytesize::ByteSize(self.bytes_up);
        let down = bytesize::ByteSize(self.bytes_down);
        write!(
            f,
            "{puts} writes, {gets} reads, {lists} lists, {deletes} deletes, {up} up, {down} down"
        )?;
        if *repeated > 0 {
            write!(f, ", {repeated} requests repeated")?;
        }
        Ok(())
    }
}

/// Counts while requests are sent. All threads share it.
#[derive(Debug)]
pub(super) struct Counter {
    puts: AtomicU64,
    gets: AtomicU64,
    lists: AtomicU64,
    deletes: AtomicU64,
    repeated: AtomicU64,
    bytes_up: AtomicU64,
    bytes_down: AtomicU64,
    /// Whether `http` counts each request that it sends. Else each attempt is one request.
    over_http: AtomicBool,
    has_answered: AtomicBool,
    clock_difference: AtomicI64,
}

impl Default for Counter {
    fn default() -> Self {
        Self {
            puts: AtomicU64::new(0),
            gets: AtomicU64::new(0),
            lists: AtomicU64::new(0),
            deletes: AtomicU64::new(0),
            repeated: AtomicU64::new(0),
            bytes_up: AtomicU64::new(0),
            bytes_down: AtomicU64::new(0),
            over_http: AtomicBool::new(false),
            has_answered: AtomicBool::new(false),
            clock_difference: AtomicI64::new(NO_TIME),
        }
    }
}

impl Counter {
    pub(super) fn requests(&self) -> Requests {
        Requests {
            puts: self.puts.load(Ordering::Relaxed),
            gets: self.gets.load(Ordering::Relaxed),
            lists: self.lists.load(Ordering::Relaxed),
            deletes: self.deletes.load(Ordering::Relaxed),
            repeated: self.repeated.load(Ordering::Relaxed),
            bytes_up: self.bytes_up.load(Ordering::Relaxed),
            bytes_down: self.bytes_down.load(Ordering::Relaxed),
        }
    }

    /// From now on, only requests by HTTP count.
    pub(super) fn count_over_http(&self) {
        self.over_http.store(true, Ordering::Relaxed);
    }

    /// A request is sent by HTTP.
    pub(super) fn requested(&self, kind: RequestKind) {
        self.add(kind, 1);
    }

    /// The store is asked, which is one request where there is no HTTP.
    pub(super) fn attempted(&self, kind: RequestKind) {
        if !self.over_http.load(Ordering::Relaxed) {
            self.add(kind, 1);
        }
    }

    /// A list told this many keys.
    pub(super) fn listed(&self, keys: usize) {
        if !self.over_http.load(Ordering::Relaxed) {
            let further = keys.saturating_sub(1) / KEYS_OF_A_LIST;
            self.add(RequestKind::List, number(further));
        }
    }

    fn add(&self, kind: RequestKind, requests: u64) {
        let counter = match kind {
            RequestKind::Put => &self.puts,
            RequestKind::Get => &self.gets,
            RequestKind::List => &self.lists,
            RequestKind::Delete => &self.deletes,
        };
        counter.fetch_add(requests, Ordering::Relaxed);
    }

    pub(super) fn repeats(&self) {
        self.repeated.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn sends(&self, bytes: usize) {
        self.bytes_up.fetch_add(number(bytes), Ordering::Relaxed);
    }

    pub(super) fn received(&self, bytes: usize) {
        self.bytes_down.fetch_add(number(bytes), Ordering::Relaxed);
    }

    /// The store has answered, with whatever. It may have told how far its clock is ahead.
    pub(super) fn answered(&self, clock_difference: Option<i64>) {
        self.has_answered.store(true, Ordering::Relaxed);
        if let Some(seconds) = clock_difference {
            self.clock_difference.store(seconds, Ordering::Relaxed);
        }
    }

    pub(super) fn has_answered(&self) -> bool {
        self.has_answered.load(Ordering::Relaxed)
    }

    pub(super) fn clock_difference(&self) -> Option<i64> {
        let seconds = self.clock_difference.load(Ordering::Relaxed);
        (seconds != NO_TIME).then_some(seconds)
    }
}

fn number(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}
