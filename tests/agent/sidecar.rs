//! An agent in its own process, and the status that it shows.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// More time than anything in these tests takes.
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) struct Sidecar {
    child: Child,
    log: Arc<Mutex<String>>,
    address: String,
}

impl Sidecar {
    /// Starts `kbackup agent …` and waits until its status is served.
    pub(crate) fn start(mut command: Command) -> Self {
        command.args(["--listen", "127.0.0.1:0"]);
        Self::start_at_its_address(command)
    }

    /// Starts the command, which names the address itself, and waits until its status is served.
    pub(crate) fn start_at_its_address(mut command: Command) -> Self {
        let mut child = command
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();

        let stderr = BufReader::new(child.stderr.take().unwrap());
        let log = Arc::new(Mutex::new(String::new()));
        let written = Arc::clone(&log);
        std::thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                written.lock().unwrap().extend([line.as_str(), "\n"]);
            }
        });

        let mut sidecar = Self {
            child,
            log,
            address: String::new(),
        };

        sidecar.address = sidecar.soon("its address", |sidecar| {
            let log = sidecar.log();
            let (_, address) = log.split_once("shown at http")?.1.split_once("://")?;
            Some(address.split_once('/')?.0.to_owned())
        });
        sidecar
    }

    /// The host and port of its page.
    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// The number of its process.
    pub(crate) fn process(&self) -> u32 {
        self.child.id()
    }

    /// Makes the agent read its configuration again, and waits until it has.
    pub(crate) fn reload(&self) {
        self.signal(Signal::HUP);
        self.soon("the reload", |sidecar| {
            sidecar
                .log()
                .contains("the configuration was read again")
                .then_some(())
        });
    }

    /// The agent's log until now.
    pub(crate) fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    /// Asks the agent. Returns the head and the body of its answer. `accept` is the wanted content
    /// type.
    pub(crate) fn get(&self, path: &str, accept: &str) -> (String, String) {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        write!(
            stream,
            "GET {path} HTTP/1.1\r\nHost: {}\r\nAccept: {accept}\r\nConnection: close\r\n\r\n",
            self.address
        )
        .unwrap();

        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();

        let (head, body) = answer.split_once("\r\n\r\n").unwrap();

        (head.to_ascii_lowercase(), body.to_owned())
    }

    /// The content of `/status.json`.
    pub(crate) fn status(&self) -> Value {
        let (_, body) = self.get("/status.json", "application/json");
        serde_json::from_str(&body).unwrap_or_else(|error| panic!("{error}: {body}"))
    }

    /// Waits until a run of a job has ended with an outcome.
    pub(crate) fn ran(&self, job: &str, outcome: &str) -> Value {
        let is_it = |run: &Value| run["job"] == job && run["outcome"] == outcome;
        self.shows(&format!("{job} ends as {outcome}"), |status| {
            status["history"].as_array().unwrap().iter().any(is_it)
        })
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Tells the agent to end, and waits until it has.
    pub(crate) fn end(self) -> ExitStatus {
        self.signal(Signal::TERM);
        self.ended()
    }

    /// Waits until the agent has ended.
    fn ended(mut self) -> ExitStatus {
        let began = Instant::now();
        loop {
            if let Some(ended) = self.child.try_wait().unwrap() {
                return ended;
            }

            assert!(
                began.elapsed() < PATIENCE,
                "the agent does not end\n{}",
                self.log()
            );
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// The id of the agent's process.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Tells the agent to end, and expects exit code 0. Returns its log.
    pub(crate) fn ends_well(self) -> String {
        self.signal(Signal::TERM);
        let (status, log) = self.ended_with_log();
        assert_eq!(status.code(), Some(0), "{log}");
        log
    }

    /// Waits until the agent, which was told so, has ended. Returns its whole log, too.
    pub(crate) fn ended_with_log(self) -> (ExitStatus, String) {
        let log = Arc::clone(&self.log);
        let status = self.ended();

        // The thread that reads the log may not have read its end yet.
        while Arc::strong_count(&log) > 1 {
            std::thread::sleep(Duration::from_millis(5));
        }

        let log = log.lock().unwrap().clone();
        (status, log)
    }

    /// Waits until the status fulfils a condition.
    pub(crate) fn shows(&self, what: &str, is_so: impl Fn(&Value) -> bool) -> Value {
        let began = Instant::now();
        loop {
            let status = self.status();
            if is_so(&status) {
                return status;
            }

            assert!(
                began.elapsed() < PATIENCE,
                "never seen: {what}\n{}\n{status:#}",
                self.log()
            );
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    pub(crate) fn soon<T>(&self, what: &str, look: impl Fn(&Self) -> Option<T>) -> T {
        let began = Instant::now();
        loop {
            if let Some(found) = look(self) {
                return found;
            }

            assert!(
                began.elapsed() < PATIENCE,
                "never seen: {what}\n{}",
                self.log()
            );
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// The processor time of the agent.
    pub(crate) fn processor(&self) -> Duration {
        let text = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap();
        let fields: Vec<&str> = text
            .rsplit_once(") ")
            .unwrap()
            .1
            .split_whitespace()
            .collect();
        // utime and stime, in hundredths of a second (proc(5)).
        let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
        Duration::from_millis(ticks * 10)
    }
}

impl Drop for Sidecar {
    fn drop(&mut self) {
        // The agent may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The labels of the good backups in the agent's repository.
pub(crate) fn labels(status: &Value) -> Vec<String> {
    let points = status["repository"]["points"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    points
        .iter()
        .map(|point| point["label"].as_str().unwrap().to_owned())
        .collect()
}
