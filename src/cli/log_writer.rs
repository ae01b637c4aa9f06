//! Writes the log to standard error without ever waiting for its reader.
//!
//! A pipe that nobody reads, or a terminal that stands still, would block the thread that logs, and
//! with it the run that has to give scavenging back to the node. So lines wait in a queue, and a
//! thread of its own writes them. If the queue is full, lines are dropped and counted.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tracing_subscriber::fmt::MakeWriter;

/// Bytes of lines that wait at most.
const LONGEST_QUEUE: usize = 4 * 1024 * 1024;
/// How long the end of the program waits for the reader of the last lines.
const LAST_LINES: Duration = Duration::from_secs(2);

/// The log. All clones write into one queue.
#[derive(Clone)]
pub(super) struct LogWriter {
    shared: Arc<Shared>,
}

struct Shared {
    queue: Mutex<Queue>,
    changed: Condvar,
    /// Makes the line that says how many lines are missing.
    tell_dropped: fn(u64) -> String,
}

#[derive(Default)]
struct Queue {
    lines: VecDeque<Vec<u8>>,
    bytes: usize,
    dropped: u64,
    is_writing: bool,
}

impl LogWriter {
    /// Starts the thread that writes into `sink`.
    ///
    /// # Errors
    /// If the system gives no thread.
    pub(super) fn start(
        mut sink: impl Write + Send + 'static,
        tell_dropped: fn(u64) -> String,
    ) -> io::Result<Self> {
        let writer = Self {
            shared: Arc::new(Shared {
                queue: Mutex::default(),
                changed: Condvar::new(),
                tell_dropped,
            }),
        };

        let shared = Arc::clone(&writer.shared);
        std::thread::Builder::new()
            .name("log".to_owned())
            .spawn(move || {
                loop {
                    let line = shared.next();
                    // If the reader is gone, the exit code still tells the result.
                    let _ = sink.write_all(&line);
                    shared.written();
                }
            })?;
        Ok(writer)
    }

    /// Adds text that is never dropped, such as the error at the end.
    pub(super) fn say(&self, text: &str) {
        let mut queue = self.shared.queue();
        queue.add(text.as_bytes());
        self.shared.changed.notify_all();
    }

    /// Waits until everything is written, or until the reader has taken nothing for some time.
    pub(super) fn finish(&self) {
        let mut queue = self.shared.queue();
        let (mut left, mut since) = (queue.lines.len(), Instant::now());

        while queue.has_work() {
            if queue.lines.len() != left {
                (left, since) = (queue.lines.len(), Instant::now());
            }
            let Some(time) = LAST_LINES.checked_sub(since.elapsed()) else {
                return;
            };

            let waited = self.shared.changed.wait_timeout(queue, time);
            (queue, _) = waited.unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Shared {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for the next line.
    fn next(&self) -> Vec<u8> {
        let mut queue = self.queue();
        loop {
            if let Some(line) = queue.take() {
                queue.is_writing = true;
                return line;
            }
            if queue.dropped > 0 {
                let dropped = std::mem::take(&mut queue.dropped);
                queue.is_writing = true;
                return (self.tell_dropped)(dropped).into_bytes();
            }

            queue = self
                .changed
                .wait(queue)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn written(&self) {
        self.queue().is_writing = false;
        self.changed.notify_all();
    }
}

impl Queue {
    fn add(&mut self, line: &[u8]) {
        self.bytes += line.len();
        self.lines.push_back(line.to_owned());
    }

    fn take(&mut self) -> Option<Vec<u8>> {
        let line = self.lines.pop_front()?;
        self.bytes = self.bytes.saturating_sub(line.len());
        Some(line)
    }

    fn has_work(&self) -> bool {
        self.is_writing || self.dropped > 0 || !self.lines.is_empty()
    }
}

impl<'a> MakeWriter<'a> for LogWriter {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

impl Write for LogWriter {
    /// Takes one line. The log hands over each line as a whole.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let mut queue = self.shared.queue();
        // Once lines are missing, the count of them comes before the next line.
        if queue.dropped > 0 || queue.bytes + line.len() > LONGEST_QUEUE {
            queue.dropped += 1;
        } else {
            queue.add(line);
        }

        self.shared.changed.notify_all();
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    /// A reader that takes a line only when it is told to.
    struct Sink {
        go: mpsc::Receiver<()>,
        written: mpsc::Sender<String>,
    }

    impl Write for Sink {
        fn write(&mut self, line: &[u8]) -> io::Result<usize> {
            self.go.recv().map_err(io::Error::other)?;
            let text = String::from_utf8_lossy(line).into_owned();
            self.written.send(text).map_err(io::Error::other)?;
            Ok(line.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_log_that_nobody_reads_loses_lines_and_says_how_many() {
        let (allow, go) = mpsc::channel();
        let (written, lines) = mpsc::channel();
        let tell = |dropped| format!("{dropped} are missing");
        let mut log = LogWriter::start(Sink { go, written }, tell).unwrap();

        // The first line goes to the reader, and three fill the queue.
        let line = "x".repeat(LONGEST_QUEUE / 3);
        log.write_all(b"first").unwrap();
        allow.send(()).unwrap();
        assert_eq!(lines.recv().unwrap(), "first");
        log.write_all(b"stuck").unwrap();
        while log.shared.queue().is_writing && !log.shared.queue().lines.is_empty() {
            std::thread::yield_now();
        }
        for _ in 0..10 {
            log.write_all(line.as_bytes()).unwrap();
        }
        let dropped = log.shared.queue().dropped;
        assert!(dropped >= 7, "{dropped}");
        log.finish();

        for _ in 0..20 {
            allow.send(()).unwrap();
        }
        let mut last = String::new();
        for _ in 0..(1 + 10 - dropped + 1) {
            last = lines.recv().unwrap();
        }
        assert_eq!(last, format!("{dropped} are missing"));

        log.say("the end");
        log.finish();
        assert_eq!(lines.recv().unwrap(), "the end");
    }
}
