//! Tells somebody: a command by its standard input, a place on the web by POST. In the background:
//! nothing waits for it, and each hook is told in order.

use std::collections::{BTreeMap, VecDeque};
use std::io::{PipeReader, Read, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::lock;
use crate::error::in_words;
use crate::node::machine_authorities;
use crate::settings::hook::Hook;

/// So many messages wait for a hook that is slow; of more, the oldest is lost.
const WAITING: usize = 16;
/// Pauses between the attempts to reach a place on the web.
const PAUSES: [Duration; 4] = [
    Duration::from_secs(1),
    Duration::from_secs(4),
    Duration::from_secs(16),
    Duration::from_secs(64),
];
/// So much of what a command says is written into the log, in bytes.
const MOST_OUTPUT: usize = 16 * 1024;
/// Whoever waits for a command looks so often whether the agent is to end.
const GLANCE: Duration = Duration::from_millis(50);
/// What is under way when the agent ends has so much time left.
const LAST: Duration = Duration::from_secs(5);
/// What no command needs to know of the agent.
const PRIVATE: [&str; 6] = [
    "KBACKUP_PASSWORD",
    "KBACKUP_TOKEN",
    "NOTIFY_SOCKET",
    "WATCHDOG_USEC",
    "WATCHDOG_PID",
    "CREDENTIALS_DIRECTORY",
];

/// Everybody who is told something.
#[derive(Debug, Clone)]
pub(super) struct Hooks {
    runtime: Handle,
    lanes: Arc<Mutex<BTreeMap<Hook, Lane>>>,
    ending: CancellationToken,
}

/// One hook's messages.
#[derive(Debug, Default)]
struct Lane {
    waiting: VecDeque<Vec<u8>>,
    is_busy: bool,
    problem: Option<String>,
}

impl Hooks {
    pub(super) fn new(runtime: Handle) -> Self {
        Self {
            runtime,
            lanes: Arc::default(),
            ending: CancellationToken::new(),
        }
    }

    /// Tells a hook, soon; each attempt may take as long as `limit`.
    pub(super) fn tell(&self, hook: &Hook, message: Vec<u8>, limit: Duration) {
        let mut lanes = lock(&self.lanes);
        let lane = lanes.entry(hook.clone()).or_default();
        lane.waiting.push_back(message);
        if lane.waiting.len() > WAITING {
            lane.waiting.pop_front();
            warn!(hook = %hook, "the hook is slower than there is something to tell: a message is lost");
        }
        if lane.is_busy {
            return;
        }
        let (here, of) = (self.clone(), hook.clone());
        match std::thread::Builder::new()
            .name("hook".to_owned())
            .spawn(move || here.serve(&of, limit))
        {
            Ok(_) => lane.is_busy = true,
            Err(error) => lane.problem = Some(format!("there is no thread for it: {error}")),
        }
    }

    /// What is wrong with those of these hooks that could not be told last time.
    pub(super) fn problems<'a>(&self, hooks: impl Iterator<Item = &'a Hook>) -> Vec<String> {
        let lanes = lock(&self.lanes);
        let mut problems: Vec<String> = hooks
            .filter_map(|hook| Some(format!("{hook}: {}", lanes.get(hook)?.problem.as_ref()?)))
            .collect();
        problems.dedup();
        problems
    }

    /// Gives what is under way a last chance, and waits for it. Nothing is tried again.
    pub(super) fn end(&self) {
        self.ending.cancel();
        let began = Instant::now();
        while lock(&self.lanes).values().any(|lane| lane.is_busy)
            && began.elapsed() < LAST + Duration::from_secs(1)
        {
            std::thread::sleep(GLANCE);
        }
    }

    fn serve(&self, hook: &Hook, limit: Duration) {
        loop {
            let message = {
                let mut lanes = lock(&self.lanes);
                let lane = lanes.entry(hook.clone()).or_default();
                let Some(message) = lane.waiting.pop_front() else {
                    lane.is_busy = false;
                    return;
                };
                message
            };
            let told = match hook {
                Hook::Command(words) => self.run(hook, words, message, limit),
                Hook::Web(url) => self.runtime.block_on(self.post(url, &message, limit)),
            };
            match &told {
                Ok(()) => debug!(hook = %hook, "was told"),
                Err(problem) => warn!(hook = %hook, "could not be told: {problem}"),
            }
            lock(&self.lanes).entry(hook.clone()).or_default().problem = told.err();
        }
    }

    async fn post(&self, url: &str, message: &[u8], limit: Duration) -> Result<(), String> {
        let client = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .timeout(limit)
            .user_agent(concat!("kbackup/", env!("CARGO_PKG_VERSION")))
            .tls_certs_only(machine_authorities())
            .build()
            .map_err(|error| in_words(&error.without_url()))?;
        let mut pauses = PAUSES.into_iter();
        loop {
            let request = client
                .post(url)
                .header("content-type", "application/json")
                .body(message.to_vec());
            let problem = match request.send().await {
                Ok(answer) if answer.status().is_success() => return Ok(()),
                Ok(answer) if is_passing(answer.status()) => {
                    format!("it answered {}", answer.status())
                }
                Ok(answer) => return Err(format!("it answered {}", answer.status())),
                Err(error) => in_words(&error.without_url()),
            };
            let Some(pause) = pauses.next().filter(|_| !self.ending.is_cancelled()) else {
                return Err(problem);
            };
            debug!("a hook is told again in {} s: {problem}", pause.as_secs());
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = self.ending.cancelled() => {}
            }
        }
    }

    fn run(
        &self,
        hook: &Hook,
        words: &[String],
        message: Vec<u8>,
        limit: Duration,
    ) -> Result<(), String> {
        let cannot = |error: std::io::Error| format!("cannot start it: {error}");
        let (program, arguments) = words.split_first().ok_or("it names no program")?;
        let (reader, writer) = std::io::pipe().map_err(cannot)?;
        let mut command = Command::new(program);
        command
            .args(arguments)
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(writer.try_clone().map_err(cannot)?)
            .stderr(writer);
        for name in PRIVATE {
            command.env_remove(name);
        }
        let mut child = command.spawn().map_err(cannot)?;
        // The pipe ends when nobody else holds its other end.
        drop(command);
        if let Some(mut stdin) = child.stdin.take() {
            // Whoever does not read all of it has read enough.
            std::thread::spawn(move || drop(stdin.write_all(&message)));
        }
        let (said, output) = mpsc::channel();
        std::thread::spawn(move || drop(said.send(read(reader))));
        let result = self.wait(&mut child, &output, limit);
        let text = result.1;
        text.lines()
            .filter(|line| !line.trim().is_empty())
            .for_each(|line| info!(hook = %hook, "{line}"));
        result.0
    }

    /// A command is over when it has ended and its output has, too; what is not over in time is
    /// killed, with all that it started.
    fn wait(
        &self,
        child: &mut Child,
        output: &mpsc::Receiver<String>,
        limit: Duration,
    ) -> (Result<(), String>, String) {
        let began = Instant::now();
        let mut end = began + limit;
        let mut text = None;
        loop {
            if text.is_none() {
                text = match output.recv_timeout(GLANCE) {
                    Err(RecvTimeoutError::Timeout) => None,
                    said => Some(said.unwrap_or_default()),
                };
            } else {
                match child.try_wait() {
                    Ok(Some(status)) if status.success() => {
                        return (Ok(()), text.unwrap_or_default());
                    }
                    Ok(Some(status)) => {
                        return (
                            Err(format!("it ended with {status}")),
                            text.unwrap_or_default(),
                        );
                    }
                    Ok(None) => std::thread::sleep(GLANCE),
                    Err(error) => {
                        return (
                            Err(format!("cannot wait for it: {error}")),
                            text.unwrap_or_default(),
                        );
                    }
                }
            }
            if self.ending.is_cancelled() {
                end = end.min(Instant::now() + LAST);
            }
            if Instant::now() >= end {
                break;
            }
        }
        // Its process was not waited for, so its number is nobody else's.
        let killed = kill_process_group(Pid::from_child(child), Signal::KILL);
        let waited = child.wait();
        let text = text
            .or_else(|| output.recv_timeout(Duration::from_secs(1)).ok())
            .unwrap_or_default();
        let took = began.elapsed().as_secs();
        match (killed, waited) {
            (Ok(()), Ok(_)) => (Err(format!("it was killed after {took} s")), text),
            _ => (Err(format!("it cannot be killed after {took} s")), text),
        }
    }
}

/// The beginning of what there is to read; the rest is read, too, so that nobody waits to write it.
fn read(mut reader: PipeReader) -> String {
    let mut bytes = Vec::new();
    let mut buffer = [0; 4096];
    while let Ok(count @ 1..) = reader.read(&mut buffer) {
        let room = MOST_OUTPUT.saturating_sub(bytes.len());
        bytes.extend(buffer.iter().take(count.min(room)));
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Whether it may be otherwise next time.
fn is_passing(status: reqwest::StatusCode) -> bool {
    status.is_server_error() || matches!(status.as_u16(), 408 | 425 | 429)
}
