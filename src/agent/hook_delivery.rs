//! Delivers one message to one hook: to a command by its standard input, to a web address by POST.

use std::io::{PipeReader, Read, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info};

use crate::error::in_words;
use crate::settings::hook::Hook;
use crate::signals;
use crate::trust::machine_authorities;

/// How long to wait between the attempts to reach a web address.
const PAUSES: [Duration; 4] = [
    Duration::from_secs(1),
    Duration::from_secs(4),
    Duration::from_secs(16),
    Duration::from_secs(64),
];
/// How much of a command's output goes into the log, in bytes.
const MOST_OUTPUT: usize = 16 * 1024;
/// How often to check whether a command has ended, or the agent is to end.
const POLL: Duration = Duration::from_millis(50);
/// How long a delivery may still take when the agent ends.
pub(super) const LAST: Duration = Duration::from_secs(5);
/// Variables of the agent's environment that no command gets.
const PRIVATE: [&str; 6] = [
    "KBACKUP_PASSWORD",
    "KBACKUP_TOKEN",
    "NOTIFY_SOCKET",
    "WATCHDOG_USEC",
    "WATCHDOG_PID",
    "CREDENTIALS_DIRECTORY",
];

/// One message on its way to a hook.
pub(super) struct Delivery {
    pub hook: Hook,
    pub message: Vec<u8>,
    /// How long one attempt may take.
    pub limit: Duration,
    pub runtime: Handle,
    /// Cancelled when the agent is to end.
    pub ending: CancellationToken,
}

impl Delivery {
    /// Delivers the message. Blocks for minutes if a web address cannot be reached.
    pub(super) fn deliver(self) -> Result<(), String> {
        match &self.hook {
            Hook::Command(words) => self.run(words),
            Hook::Web(url) => self.runtime.block_on(self.post(url)),
        }
    }

    async fn post(&self, url: &str) -> Result<(), String> {
        let client = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .timeout(self.limit)
            .user_agent(concat!("kbackup/", env!("CARGO_PKG_VERSION")))
            .tls_certs_only(machine_authorities())
            .build()
            .map_err(|error| in_words(&error.without_url()))?;

        for pause in PAUSES {
            let problem = match self.post_once(&client, url).await {
                Attempt::Delivered => return Ok(()),
                Attempt::Refused(problem) => return Err(problem),
                Attempt::Failed(problem) => problem,
            };
            if self.ending.is_cancelled() {
                return Err(problem);
            }

            debug!("a hook is told again in {} s: {problem}", pause.as_secs());
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = self.ending.cancelled() => {}
            }
        }

        match self.post_once(&client, url).await {
            Attempt::Delivered => Ok(()),
            Attempt::Refused(problem) | Attempt::Failed(problem) => Err(problem),
        }
    }

    async fn post_once(&self, client: &reqwest::Client, url: &str) -> Attempt {
        let request = client
            .post(url)
            .header("content-type", "application/json")
            .body(self.message.clone());

        match request.send().await {
            Ok(answer) if answer.status().is_success() => Attempt::Delivered,
            Ok(answer) => {
                let problem = format!("it answered {}", answer.status());
                if passes(answer.status()) {
                    Attempt::Failed(problem)
                } else {
                    Attempt::Refused(problem)
                }
            }
            // The path of a URL often is a secret.
            Err(error) => Attempt::Failed(in_words(&error.without_url())),
        }
    }

    fn run(&self, words: &[String]) -> Result<(), String> {
        let (mut child, reader) = start(words)?;

        if let Some(mut stdin) = child.stdin.take() {
            let message = self.message.clone();
            // A command need not read all of the message.
            std::thread::spawn(move || drop(stdin.write_all(&message)));
        }
        let (sender, output) = mpsc::channel();
        std::thread::spawn(move || drop(sender.send(read(reader))));

        let (result, text) = self.wait(&mut child, &output);
        for line in text.lines() {
            if !line.trim().is_empty() {
                info!(hook = %self.hook, "{line}");
            }
        }

        result
    }

    /// Waits until the command has ended and its output is closed. Kills the command and all that
    /// it started if that takes too long.
    fn wait(
        &self,
        child: &mut Child,
        output: &mpsc::Receiver<String>,
    ) -> (Result<(), String>, String) {
        let began = Instant::now();
        let mut end = began + self.limit;
        let mut text = None;

        while Instant::now() < end {
            if text.is_none() {
                text = match output.recv_timeout(POLL) {
                    Err(RecvTimeoutError::Timeout) => None,
                    Ok(said) => Some(said),
                    Err(RecvTimeoutError::Disconnected) => Some(String::new()),
                };
            } else if let Some(result) = ended(child) {
                return (result, text.unwrap_or_default());
            } else {
                std::thread::sleep(POLL);
            }

            if self.ending.is_cancelled() {
                end = end.min(Instant::now() + LAST);
            }
        }

        let result = kill(child, began.elapsed());
        if text.is_none() {
            text = output.recv_timeout(Duration::from_secs(1)).ok();
        }
        (result, text.unwrap_or_default())
    }
}

/// The result of one attempt to reach a web address.
enum Attempt {
    Delivered,
    /// The answer is final.
    Refused(String),
    /// The next attempt may succeed.
    Failed(String),
}

/// Whether the next attempt may get another answer.
fn passes(status: reqwest::StatusCode) -> bool {
    status.is_server_error() || matches!(status.as_u16(), 408 | 425 | 429)
}

/// Starts a command in a process group of its own.
fn start(words: &[String]) -> Result<(Child, PipeReader), String> {
    let (program, arguments) = words.split_first().ok_or("it names no program")?;
    let (reader, writer) = std::io::pipe().map_err(|error| cannot_start(&error))?;

    let mut command = Command::new(program);
    command
        .args(arguments)
        .process_group(0)
        .stdin(Stdio::piped())
        .stdout(writer.try_clone().map_err(|error| cannot_start(&error))?)
        .stderr(writer);
    for name in PRIVATE {
        command.env_remove(name);
    }

    // The pipe ends only after all copies of its writing end are closed. The copies of this process
    // are in `command`, which is dropped here.
    let started = signals::start_program(|| command.spawn());
    let child = started.map_err(|error| cannot_start(&error))?;
    Ok((child, reader))
}

fn cannot_start(error: &std::io::Error) -> String {
    format!("cannot start it: {error}")
}

/// How the command ended, if it has.
fn ended(child: &mut Child) -> Option<Result<(), String>> {
    match child.try_wait() {
        Ok(None) => None,
        Ok(Some(status)) if status.success() => Some(Ok(())),
        Ok(Some(status)) => Some(Err(format!("it ended with {status}"))),
        Err(error) => Some(Err(format!("cannot wait for it: {error}"))),
    }
}

fn kill(child: &mut Child, after: Duration) -> Result<(), String> {
    // The agent has not waited for the process yet, so no other process can have its number.
    let killed = kill_process_group(Pid::from_child(child), Signal::KILL);
    let waited = child.wait();

    let after = after.as_secs();
    if killed.is_ok() && waited.is_ok() {
        Err(format!("it was killed after {after} s"))
    } else {
        Err(format!("it cannot be killed after {after} s"))
    }
}

/// The beginning of a command's output. Reads the rest, too, so that the command never blocks on a
/// full pipe.
fn read(mut reader: PipeReader) -> String {
    let mut bytes = Vec::new();
    let mut buffer = [0; 4096];

    while let Ok(count @ 1..) = reader.read(&mut buffer) {
        let room = MOST_OUTPUT.saturating_sub(bytes.len());
        bytes.extend(buffer.iter().take(count.min(room)));
    }

    String::from_utf8_lossy(&bytes).into_owned()
}
