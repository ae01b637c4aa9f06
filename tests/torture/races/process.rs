//! A real kbackup process that is stopped before one of its operations, and continues after a change
//! of the world around it.

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};

/// More time than any run here takes.
const PATIENCE: Duration = Duration::from_secs(90);

/// The state of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    Stopped,
    Ended(i32),
}

pub(super) struct Process {
    id: Pid,
    /// `waitpid` waits by the id, because a stopped process has not ended.
    _child: std::process::Child,
    log: PathBuf,
    ended: bool,
}

/// A kbackup command that works in `place` and ignores all settings around it.
pub(super) fn kbackup(place: &Path, line: &[&str]) -> Command {
    let mut command = crate::executable::kbackup();
    command
        .args(line)
        .env("KBACKUP_STATE_DIR", place.join("state"))
        .current_dir(place)
        .stdin(Stdio::null());
    command
}

/// Stops the command before its n-th operation on a path with this part in it.
pub(super) fn stop_at(command: &mut Command, operation: &str, part: &str, number: usize) {
    command.env("KBACKUP_FAULT", format!("{operation}:{part}:{number}:stop"));
}

impl Process {
    /// Starts the command. Its output goes to the file `log`.
    pub(super) fn start(command: &mut Command, log: &Path) -> Self {
        let file = std::fs::File::create(log).unwrap();
        // Its own process group, so that no signal of a terminal reaches it.
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

    /// Waits until the process stops itself, or ends.
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
                let code = match status.exit_status() {
                    Some(code) => code,
                    None => -status.terminating_signal().unwrap_or(0),
                };
                return State::Ended(code);
            }
            assert!(
                begun.elapsed() < PATIENCE,
                "the process neither ends nor stops: {}",
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
