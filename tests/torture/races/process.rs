//! A real kbackup that is stopped before any one of its operations, while somebody else changes the
//! world, and then goes on.

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};

/// Longer than any run here takes.
const PATIENCE: Duration = Duration::from_secs(90);

/// Where a run stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    Stopped,
    Ended(i32),
}

pub(super) struct Process {
    id: Pid,
    /// Waited for by its id: a stopped one has not ended.
    _child: std::process::Child,
    log: PathBuf,
    ended: bool,
}

/// A kbackup with this command line, whose working directory is `place`, and that ignores all
/// settings around it.
pub(super) fn kbackup(place: &Path, line: &[&str]) -> Command {
    let mut command = crate::executable::kbackup();
    command
        .args(line)
        .env("KBACKUP_STATE_DIR", place.join("state"))
        .current_dir(place)
        .stdin(Stdio::null());
    command
}

/// Before the n-th operation on a path with this part in it.
pub(super) fn stop_at(command: &mut Command, operation: &str, part: &str, number: usize) {
    command.env("KBACKUP_FAULT", format!("{operation}:{part}:{number}:stop"));
}

impl Process {
    /// Starts it; what it says goes to the file `log`.
    pub(super) fn start(command: &mut Command, log: &Path) -> Self {
        let file = std::fs::File::create(log).unwrap();
        // Its own group, so that no terminal's signal reaches it.
        let child = command
            .stdout(file.try_clone().unwrap())
            .stderr(file)
            .process_group(0)
            .spawn()
            .unwrap();
        Self {
            id: Pid::from_child(&child),
            _child: child,
            log: log.to_owned(),
            ended: false,
        }
    }

    /// Waits until it stops itself, or ends.
    pub(super) fn wait(&mut self) -> State {
        let begun = Instant::now();
        loop {
            if let Some((_, status)) =
                waitpid(Some(self.id), WaitOptions::UNTRACED | WaitOptions::NOHANG).unwrap()
            {
                if status.stopped() {
                    return State::Stopped;
                }
                self.ended = true;
                return State::Ended(
                    status
                        .exit_status()
                        .unwrap_or_else(|| -status.terminating_signal().unwrap_or(0)),
                );
            }
            assert!(
                begun.elapsed() < PATIENCE,
                "it neither ends nor stops: {}",
                self.said()
            );
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    pub(super) fn go_on(&self) {
        kill_process(self.id, Signal::CONT).unwrap();
    }

    pub(super) fn said(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if !self.ended {
            // A stopped process would outlive the test.
            let _ = kill_process(self.id, Signal::KILL);
            let _ = waitpid(Some(self.id), WaitOptions::empty());
        }
    }
}
