//! Wakes the agent soon after its node has written.
//!
//! The kernel reports changes of the node's directory (inotify). If it does not, the thread polls
//! the writer checkpoint. The thread never writes to the directory, never locks a file there, and
//! keeps no file open.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use notify::{Config, EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::Notify;
use tracing::info;

use crate::error::{Error, Kind, Result};
use crate::format::checkpoint::Checkpoint;
use crate::log::RawCheckpoint;

/// The agent is woken at most once in this time, however much is written.
const REST: Duration = Duration::from_secs(1);
/// How often the thread reads the checkpoint although the kernel reported nothing. On some network
/// mounts the kernel never reports anything, and the directory may have been replaced.
const POLL: Duration = Duration::from_secs(2);

/// The loop's end of a thread that watches the node's directory.
pub(super) struct ChangeWatcher {
    messages: Sender<ChangeMessage>,
    changed: Arc<Notify>,
}

enum ChangeMessage {
    /// Watch this directory from now on, or nothing.
    Watch(Option<PathBuf>),
    /// Something in the directory has changed.
    Changed,
    /// The agent ends.
    End,
}

impl ChangeWatcher {
    /// Starts the thread. It watches nothing yet.
    ///
    /// # Errors
    /// [`Kind::Failed`] if the system has no thread left.
    pub(super) fn start() -> Result<Self> {
        Self::start_with::<RecommendedWatcher>()
    }

    fn start_with<W: Watcher + Send>() -> Result<Self> {
        let (messages, received) = channel();
        let changed = Arc::new(Notify::new());

        let (reported, wake) = (messages.clone(), Arc::clone(&changed));
        std::thread::Builder::new()
            .name("watch".to_owned())
            .spawn(move || WatcherThread::<W>::new(reported, wake).run(&received))
            .map_err(|error| Error::new(Kind::Failed, "cannot start a thread").because(error))?;

        Ok(Self { messages, changed })
    }

    /// Watches this db directory from now on, or nothing.
    pub(super) fn watch(&self, directory: Option<PathBuf>) {
        // If the thread has ended, the agent's timer still reads the position.
        drop(self.messages.send(ChangeMessage::Watch(directory)));
    }

    /// Waits until the node has written more. Writes since the last call count, too.
    pub(super) async fn changed(&self) {
        self.changed.notified().await;
    }
}

impl Drop for ChangeWatcher {
    fn drop(&mut self) {
        drop(self.messages.send(ChangeMessage::End));
    }
}

struct WatcherThread<W> {
    /// Holds an error if the kernel has no watcher left.
    watcher: notify::Result<W>,
    directory: Option<PathBuf>,
    /// The writer checkpoint, as it was read last.
    writer: Option<RawCheckpoint>,
    changed: Arc<Notify>,
    /// Why the kernel does not report changes of the directory.
    watch_error: Option<String>,
}

impl<W: Watcher> WatcherThread<W> {
    fn new(messages: Sender<ChangeMessage>, changed: Arc<Notify>) -> Self {
        let report = move |event: notify::Result<notify::Event>| {
            // A read changes nothing, and a backup reads every file.
            if let Ok(event) = &event
                && matches!(event.kind, EventKind::Access(_))
            {
                return;
            }
            drop(messages.send(ChangeMessage::Changed));
        };

        Self {
            watcher: W::new(report, Config::default()),
            directory: None,
            writer: None,
            changed,
            watch_error: None,
        }
    }

    /// Stops watching after the first report, and watches again after a rest. So a node that
    /// appends thousands of times a second wakes the agent once. The thread reads the checkpoint
    /// each time it begins to watch, so that it misses no change in between.
    fn run(mut self, messages: &Receiver<ChangeMessage>) {
        loop {
            let began = Instant::now();
            self.begin_watch();
            self.read_checkpoint();

            let patience = if self.directory.is_some() {
                POLL
            } else {
                Duration::MAX
            };
            let mut next = match messages.recv_timeout(patience) {
                Ok(message) => Some(message),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => return,
            };
            self.end_watch();

            while let Some(message) = next {
                match message {
                    ChangeMessage::Watch(directory) => self.change_directory(directory),
                    ChangeMessage::Changed => {
                        std::thread::sleep(REST.saturating_sub(began.elapsed()));
                    }
                    ChangeMessage::End => return,
                }
                next = messages.try_recv().ok();
            }
        }
    }

    fn change_directory(&mut self, directory: Option<PathBuf>) {
        if directory == self.directory {
            return;
        }

        (self.directory, self.writer, self.watch_error) = (directory, None, None);
    }

    fn begin_watch(&mut self) {
        let Some(directory) = &self.directory else {
            return;
        };

        let result = match &mut self.watcher {
            Ok(watcher) => watcher.watch(directory, RecursiveMode::NonRecursive),
            Err(error) => Err(notify::Error::generic(&error.to_string())),
        };
        let problem = result.err().map(|error| error.to_string());
        if problem == self.watch_error {
            return;
        }

        let name = directory.display();
        match &problem {
            Some(why) => info!("changes of `{name}` are not reported, so kbackup polls: {why}"),
            None => info!("changes of `{name}` are reported again"),
        }
        self.watch_error = problem;
    }

    fn end_watch(&mut self) {
        if let (Some(directory), Ok(watcher)) = (&self.directory, &mut self.watcher) {
            // If the directory is gone, its watch is gone, too.
            drop(watcher.unwatch(directory));
        }
    }

    /// Wakes the agent if the writer position has changed.
    fn read_checkpoint(&mut self) {
        let Some(directory) = &self.directory else {
            return;
        };

        let Ok(writer) = RawCheckpoint::in_directory(directory, Checkpoint::Writer) else {
            return;
        };
        if writer != RawCheckpoint::Missing && Some(writer) != self.writer {
            self.writer = Some(writer);
            self.changed.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use notify::NullWatcher;

    use super::*;
    use crate::fs;

    /// Longer than anything here takes.
    const PATIENCE: Duration = Duration::from_secs(20);

    fn write(db: &Path, position: u64) {
        let file = fs::open_or_create(&Checkpoint::Writer.under(db), 0o600).unwrap();
        file.write_all_at(0, &position.to_le_bytes()).unwrap();
    }

    /// How long it took until the watcher woke this test. `None` if it did not.
    fn woken(watch: &ChangeWatcher, patience: Duration) -> Option<Duration> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .unwrap();
        let began = Instant::now();
        runtime
            .block_on(async { tokio::time::timeout(patience, watch.changed()).await })
            .ok()
            .map(|()| began.elapsed())
    }

    fn watching<W: Watcher + Send>(db: &Path) -> ChangeWatcher {
        let watch = ChangeWatcher::start_with::<W>().unwrap();
        watch.watch(Some(db.to_owned()));
        watch
    }

    fn awaken<W: Watcher + Send>() {
        let db = tempfile::tempdir().unwrap();
        write(db.path(), 1);
        let watch = watching::<W>(db.path());
        assert!(woken(&watch, PATIENCE).is_some(), "the first look");
        for position in 2..4 {
            write(db.path(), position);
            assert!(woken(&watch, PATIENCE).is_some());
        }
        assert_eq!(woken(&watch, POLL * 2), None, "nothing was written");
    }

    #[test]
    fn a_write_wakes_the_agent() {
        awaken::<RecommendedWatcher>();
    }

    #[test]
    fn without_reports_of_the_kernel_a_poll_wakes_the_agent() {
        awaken::<NullWatcher>();
    }

    #[test]
    fn a_report_wakes_the_agent_before_the_next_poll() {
        let db = tempfile::tempdir().unwrap();
        write(db.path(), 1);
        let watch = watching::<RecommendedWatcher>(db.path());
        woken(&watch, PATIENCE).unwrap();
        // Polls alone would take one second on average, and up to two.
        let quickest = (2..6).map(|position| {
            std::thread::sleep(REST + Duration::from_millis(100));
            write(db.path(), position);
            woken(&watch, PATIENCE).unwrap()
        });
        assert!(quickest.min().unwrap() < Duration::from_millis(300));
    }

    #[test]
    fn many_writes_wake_once_a_second_and_the_last_one_counts() {
        let db = tempfile::tempdir().unwrap();
        let watch = watching::<RecommendedWatcher>(db.path());
        let began = Instant::now();
        let (mut wakes, mut position) = (0, 0);
        while began.elapsed() < REST * 4 {
            for _ in 0..100 {
                position += 1;
                write(db.path(), position);
            }
            wakes += u32::from(woken(&watch, Duration::from_millis(1)).is_some());
        }
        // The first read and the first report wake at once.
        let most = u32::try_from(began.elapsed().as_secs()).unwrap() + 3;
        assert!((2..=most).contains(&wakes), "{wakes} of {most}");
        // The last report may have come just now.
        write(db.path(), position + 1);
        assert!(woken(&watch, PATIENCE).is_some(), "the last write");
    }

    #[test]
    fn a_directory_that_comes_back_is_watched_again() {
        let place = tempfile::tempdir().unwrap();
        let db = place.path().join("db");
        let watch = watching::<RecommendedWatcher>(&db);
        assert_eq!(woken(&watch, POLL), None, "the directory is missing");

        for (round, position) in [(1, 7), (2, 9)] {
            fs::create_directory(&db, 0o700).unwrap();
            write(&db, position);
            assert!(woken(&watch, PATIENCE).is_some(), "round {round}");
            write(&db, position + 1);
            assert!(
                woken(&watch, PATIENCE).is_some(),
                "a write to the new directory"
            );
            if round == 1 {
                fs::rename(&db, &place.path().join("before")).unwrap();
            }
        }

        write(&place.path().join("before"), 99);
        assert_eq!(
            woken(&watch, POLL * 2),
            None,
            "the old directory is not watched any more"
        );
    }

    #[test]
    fn another_directory_is_watched_when_told() {
        let (first, second) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        write(first.path(), 1);
        write(second.path(), 1);
        let watch = watching::<RecommendedWatcher>(first.path());
        woken(&watch, PATIENCE).unwrap();
        watch.watch(Some(second.path().to_owned()));
        assert!(woken(&watch, PATIENCE).is_some(), "the first look at it");
        write(first.path(), 2);
        assert_eq!(woken(&watch, POLL * 2), None);
        watch.watch(None);
        write(second.path(), 2);
        drop(watch);
    }
}
