//! A run that writes to a repository or reads a backup, as an object says it: for a politeness that
//! nothing depends on. Such an object counts only for a while, because a run may die.

use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::clock::{self, Timestamp};
use crate::fs;
use crate::users;

const MAX_BYTES: u64 = 64 * 1024;

/// A run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Holder {
    /// Tells this run from all others.
    pub(super) id: Uuid,
    pid: u32,
    /// Tells the process from an earlier one with its number.
    process: String,
    host: String,
    user: String,
    command: String,
    since: Timestamp,
    /// Until when the run holds, unless it says so again.
    pub(super) until: Timestamp,
}

impl Holder {
    /// This run, which holds for so long.
    pub(super) fn this_run(length: Duration) -> Self {
        let host = fs::read_small(Path::new("/proc/sys/kernel/hostname"), MAX_BYTES);
        let host = host.unwrap_or_default();
        let pid = std::process::id();
        let since = clock::now();
        Self {
            id: clock::identifier(),
            pid,
            process: process(pid).unwrap_or_default(),
            host: String::from_utf8_lossy(&host).trim().to_owned(),
            user: users::this_user(),
            // The verb only: the rest of the command line may be long, or private.
            command: std::env::args().nth(1).unwrap_or_default(),
            since,
            until: later(since, length),
        }
    }

    /// The same run, which says now that it holds for so long.
    pub(super) fn renewed(&self, length: Duration) -> Self {
        Self {
            until: later(clock::now(), length),
            ..self.clone()
        }
    }

    /// Whether the run holds now. A run of this machine that has ended holds no longer.
    pub(super) fn holds(&self) -> bool {
        if self.until <= clock::now() {
            return false;
        }
        let here = Self::this_run(Duration::ZERO);
        self.host != here.host || process(self.pid).is_some_and(|process| process == self.process)
    }

    /// The run, in words.
    pub(super) fn in_words(&self) -> String {
        let Self {
            pid,
            host,
            user,
            command,
            since,
            ..
        } = self;
        format!("`{command}` by {user} on {host}, process {pid}, since {since}")
    }
}

fn later(time: Timestamp, length: Duration) -> Timestamp {
    time.checked_add(length).unwrap_or(time)
}

/// What tells a process of this machine from all others that had or will have its number: the start
/// of the machine, and its own. `None` if there is no such process.
fn process(pid: u32) -> Option<String> {
    let status = fs::read_small(Path::new(&format!("/proc/{pid}/stat")), MAX_BYTES).ok()?;
    let status = String::from_utf8_lossy(&status);
    // The name of the program, in parentheses, may hold blanks. The start is the 20th field behind.
    let (_, fields) = status.rsplit_once(')')?;
    // A process that nobody has waited for is a zombie. It does nothing any more.
    let has_ended = matches!(fields.split_whitespace().next(), Some("Z" | "X"));
    if has_ended {
        return None;
    }
    let start = fields.split_whitespace().nth(19)?;

    let boot = fs::read_small(Path::new("/proc/sys/kernel/random/boot_id"), MAX_BYTES);
    let boot = boot.unwrap_or_default();
    Some(format!("{} {start}", String::from_utf8_lossy(&boot).trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_holds_while_it_lives_and_for_its_time() {
        let mine = Holder::this_run(Duration::from_secs(60));
        assert!(mine.holds());
        assert!(
            !Holder::this_run(Duration::ZERO).holds(),
            "its time is over"
        );

        let mut earlier = mine.clone();
        earlier.process = "another start".to_owned();
        assert!(!earlier.holds(), "an earlier process had this number");

        let mut elsewhere = earlier;
        elsewhere.host = "elsewhere".to_owned();
        assert!(elsewhere.holds(), "nobody here knows of other machines");
        assert!(mine.in_words().contains(&std::process::id().to_string()));
    }

    #[test]
    fn a_killed_run_that_nobody_has_waited_for_holds_no_longer() {
        let mut child = std::process::Command::new("true").spawn().unwrap();
        while process(child.id()).is_some() {
            std::thread::yield_now();
        }
        // It is a zombie until now.
        let status = format!("/proc/{}/stat", child.id());
        assert!(fs::read_small(Path::new(&status), MAX_BYTES).is_ok());
        child.wait().unwrap();
    }
}
