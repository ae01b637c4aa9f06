//! Gives back what a run keeps from a node if the run itself cannot: a disk, or somebody who should
//! read its output, blocks its thread.
//!
//! The guard has a thread of its own. It waits until the time limit of the pause is over, or until
//! the run is told to end, gives the run a moment to do it, and then does it in its place. It
//! waits for no disk before the node has everything back, and reports only afterwards.

use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::borrowed::Borrowed;
use super::custody::Custody;
use super::give_back::{GIVE_BACK_LIMIT, give_back};
use crate::error::{Error, Kind, Result};
use crate::event::{Event, Observer};
use crate::node::held_record::HeldRecord;
use crate::node::{Client, Session};
use crate::run::{Reporter, Run};
use crate::server::ServerVersion;

/// How soon the guard notices that the run was told to end.
const NOTICED: Duration = Duration::from_millis(100);

/// The guard's thread. It ends when this is dropped.
#[derive(Debug)]
pub(super) struct Guard {
    _end: mpsc::Sender<()>,
}

impl Guard {
    /// Starts the guard of a run.
    ///
    /// # Errors
    /// [`Kind::Failed`] if the system gives no thread for it.
    pub(super) fn start(custody: Arc<Custody>, session: &Session, run: &Run) -> Result<Self> {
        let (end, ended) = mpsc::channel();
        let mut watch = Watch {
            custody,
            client: session.client().clone(),
            version: session.version().clone(),
            told_to_end: run.cancelled().clone(),
            saw_end: false,
            reporter: run.reporter(),
        };

        std::thread::Builder::new()
            .name("give back".to_owned())
            .spawn(move || {
                while ended.recv_timeout(NOTICED) == Err(RecvTimeoutError::Timeout) {
                    watch.look();
                }
            })
            .map_err(|error| Error::new(Kind::Failed, "cannot guard the pause").because(error))?;
        Ok(Self { _end: end })
    }
}

struct Watch {
    custody: Arc<Custody>,
    client: Client,
    version: ServerVersion,
    told_to_end: CancellationToken,
    saw_end: bool,
    reporter: Reporter,
}

impl Watch {
    fn look(&mut self) {
        if self.told_to_end.is_cancelled() && !self.saw_end {
            self.saw_end = true;
            self.custody.told_to_end();
        }

        let Some(record) = self.custody.take_if_due() else {
            return;
        };
        for event in self.give_back(record) {
            self.reporter.emit(event);
        }
    }

    /// Gives back, and returns what there is to report.
    fn give_back(&self, record: HeldRecord) -> Vec<Event> {
        // The run may hang while it gives back itself. Giving back twice is harmless.
        let _turn = self.custody.try_turn();

        let events = Arc::new(LaterEvents::default());
        let run = Run::new(Arc::clone(&events));
        let mut borrowed = Borrowed::new(record, &run);
        borrowed.forget_what_others_gave_back();
        let result = give_back(&self.client, &self.version, &mut borrowed, GIVE_BACK_LIMIT);
        self.custody.guard_has_given_back(borrowed.into_held());

        let outcome = match result {
            Ok(()) => Event::Warning(
                "the run hung, and the node got back what was stopped all the same: check that \
                 the disks of the repository and of the node answer"
                    .to_owned(),
            ),
            Err(error) => Event::Warning(format!(
                "the run hung, and the node has not got everything back ({}): \
                 run `kbackup release`",
                error.in_words()
            )),
        };
        let mut events = events.take();
        events.push(outcome);
        events
    }
}

/// Keeps events until they can be reported.
#[derive(Default)]
struct LaterEvents(Mutex<Vec<Event>>);

impl LaterEvents {
    fn take(&self) -> Vec<Event> {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Observer for LaterEvents {
    fn observe(&self, event: &Event) {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(event.clone());
    }
}
