//! Wakes the agent soon after its node has written: by the kernel's word where it gives one, and by
//! looking where it does not.

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

/// The agent is woken no more often, however much is written.
const REST: Duration = Duration::from_secs(1);
/// The checkpoint is looked at so often though nothing was heard: on some network mounts nothing
/// ever is, and the directory may be another one by now.
const LOOK: Duration = Duration::from_secs(2);

/// Somebody who watches a node's directory. It is heard, never touched: no file of it stays open,
/// and none is locked.
pub(super) struct Watch {
    messages: Sender<Message>,
    woken: Arc<Notify>,
}

enum Message {
    /// This directory is the one to watch; none: there is nothing to watch.
    Directory(Option<PathBuf>),
    /// Something in it was changed.
    Changed,
    /// Nobody listens any more.
    End,
}

impl Watch {
    /// Begins to watch nothing.
    ///
    /// # Errors
    /// [`Kind::Failed`] where there is no thread to be had.
    pub(super) fn start() -> Result<Self> {
        Self::start_with::<RecommendedWatcher>()
    }

    fn start_with<W: Watcher + Send>() -> Result<Self> {
        let (messages, received) = channel();
        let woken = Arc::new(Notify::new());
        let (heard, wake) = (messages.clone(), Arc::clone(&woken));
        std::thread::Builder::new()
            .name("watch".to_owned())
            .spawn(move || Watchman::<W>::new(heard, wake).keep(&received))
            .map_err(|error| Error::new(Kind::Failed, "cannot start a thread").because(error))?;
        Ok(Self { messages, woken })
    }

    /// Watches this db directory from now on; none: nothing.
    pub(super) fn directory(&self, directory: Option<PathBuf>) {
        // Where the thread is gone, the agent's own looks remain.
        drop(self.messages.send(Message::Directory(directory)));
    }

    /// Waits until more was written; what was written since the last call counts.
    pub(super) async fn changed(&self) {
        self.woken.notified().await;
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        drop(self.messages.send(Message::End));
    }
}

struct Watchman<W> {
    /// None where the kernel has no watcher left for us.
    watcher: notify::Result<W>,
    directory: Option<PathBuf>,
    /// The writer checkpoint as it was read last.
    writer: Option<RawCheckpoint>,
    woken: Arc<Notify>,
    /// Why nothing is heard of the directory.
    deaf: Option<String>,
}

impl<W: Watcher> Watchman<W> {
    fn new(heard: Sender<Message>, woken: Arc<Notify>) -> Self {
        let listener = move |event: notify::Result<notify::Event>| {
            // To be read is no change; a backup reads everything.
            if !matches!(&event, Ok(event) if matches!(event.kind, EventKind::Access(_))) {
                drop(heard.send(Message::Changed));
            }
        };
        Self {
            watcher: W::new(listener, Config::default()),
            directory: None,
            writer: None,
            woken,
            deaf: None,
        }
    }

    /// The directory is given up with the first thing that is heard of it, and watched again after
    /// a rest: a node that appends thousands of times a second is heard once. Each time it is
    /// looked at afterwards, so that nothing falls between.
    fn keep(mut self, messages: &Receiver<Message>) {
        loop {
            let began = Instant::now();
            self.listen();
            self.look();
            let mut next = match messages.recv_timeout(if self.directory.is_some() {
                LOOK
            } else {
                Duration::MAX
            }) {
                Err(RecvTimeoutError::Disconnected) => return,
                Err(RecvTimeoutError::Timeout) => None,
                Ok(message) => Some(message),
            };
            self.cease();
            while let Some(message) = next {
                match message {
                    Message::Directory(directory) if directory == self.directory => {}
                    Message::Directory(directory) => {
                        (self.directory, self.writer, self.deaf) = (directory, None, None)
                    }
                    Message::Changed => std::thread::sleep(REST.saturating_sub(began.elapsed())),
                    Message::End => return,
                }
                next = messages.try_recv().ok();
            }
        }
    }

    fn listen(&mut self) {
        let Some(directory) = &self.directory else {
            return;
        };
        let deaf = match &mut self.watcher {
            Ok(watcher) => watcher.watch(directory, RecursiveMode::NonRecursive).err(),
            Err(error) => Some(notify::Error::generic(&error.to_string())),
        };
        let deaf = deaf.map(|error| error.to_string());
        if deaf != self.deaf {
            match &deaf {
                Some(why) => info!(
                    "changes of `{}` are not heard of, but looked for: {why}",
                    directory.display()
                ),
                None => info!("changes of `{}` are heard of again", directory.display()),
            }
            self.deaf = deaf;
        }
    }

    fn cease(&mut self) {
        if let (Some(directory), Ok(watcher)) = (&self.directory, &mut self.watcher) {
            // It may be gone, and its watch with it.
            drop(watcher.unwatch(directory));
        }
    }

    fn look(&mut self) {
        let Some(directory) = &self.directory else {
            return;
        };
        let Ok(writer) = RawCheckpoint::in_directory(directory, Checkpoint::Writer) else {
            return;
        };
        if writer != RawCheckpoint::Missing && Some(writer) != self.writer {
            self.writer = Some(writer);
            self.woken.notify_one();
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

    /// How long it took to be woken; none where it was not.
    fn woken(watch: &Watch, patience: Duration) -> Option<Duration> {
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

    fn watching<W: Watcher + Send>(db: &Path) -> Watch {
        let watch = Watch::start_with::<W>().unwrap();
        watch.directory(Some(db.to_owned()));
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
        assert_eq!(woken(&watch, LOOK * 2), None, "nothing was written");
    }

    #[test]
    fn what_is_written_is_heard_of() {
        awaken::<RecommendedWatcher>();
    }

    #[test]
    fn where_nothing_is_heard_it_is_seen() {
        awaken::<NullWatcher>();
    }

    #[test]
    fn what_is_heard_is_not_waited_for() {
        let db = tempfile::tempdir().unwrap();
        write(db.path(), 1);
        let watch = watching::<RecommendedWatcher>(db.path());
        woken(&watch, PATIENCE).unwrap();
        // Looks alone would take one second on the average, and two at times.
        let quickest = (2..6).map(|position| {
            std::thread::sleep(REST + Duration::from_millis(100));
            write(db.path(), position);
            woken(&watch, PATIENCE).unwrap()
        });
        assert!(quickest.min().unwrap() < Duration::from_millis(300));
    }

    #[test]
    fn much_wakes_once_a_second_and_its_end_is_seen() {
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
        // The first look and the first word come at once.
        let most = u32::try_from(began.elapsed().as_secs()).unwrap() + 3;
        assert!((2..=most).contains(&wakes), "{wakes} of {most}");
        // The last word may have come just now.
        write(db.path(), position + 1);
        assert!(woken(&watch, PATIENCE).is_some(), "the last of it");
    }

    #[test]
    fn a_directory_that_comes_back_is_watched_again() {
        let place = tempfile::tempdir().unwrap();
        let db = place.path().join("db");
        let watch = watching::<RecommendedWatcher>(&db);
        assert_eq!(woken(&watch, LOOK), None, "there is none yet");
        for (round, position) in [(1, 7), (2, 9)] {
            fs::create_directory(&db, 0o700).unwrap();
            write(&db, position);
            assert!(woken(&watch, PATIENCE).is_some(), "it came {round} times");
            write(&db, position + 1);
            assert!(
                woken(&watch, PATIENCE).is_some(),
                "it is another inode, and written to"
            );
            if round == 1 {
                fs::rename(&db, &place.path().join("before")).unwrap();
            }
        }
        write(&place.path().join("before"), 99);
        assert_eq!(
            woken(&watch, LOOK * 2),
            None,
            "this is not the directory any more"
        );
    }

    #[test]
    fn another_directory_is_watched_when_told() {
        let (first, second) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        write(first.path(), 1);
        write(second.path(), 1);
        let watch = watching::<RecommendedWatcher>(first.path());
        woken(&watch, PATIENCE).unwrap();
        watch.directory(Some(second.path().to_owned()));
        assert!(woken(&watch, PATIENCE).is_some(), "the first look at it");
        write(first.path(), 2);
        assert_eq!(woken(&watch, LOOK * 2), None);
        watch.directory(None);
        write(second.path(), 2);
        drop(watch);
    }
}
