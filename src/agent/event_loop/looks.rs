//! The looks at the node, the repository and the other members, and the reads of the writer
//! position. Each blocks a thread of its own until a disk or the network answers.

use std::sync::Arc;
use std::time::Duration;

use tracing::{error, info};

use super::EventLoop;
use crate::agent::facts::not_known_since;
use crate::agent::look_schedule::Subject;
use crate::agent::observation::{Look, LookRequest};
use crate::agent::report::{Report, report_result_of};
use crate::agent::writer_probe::WriterReading;
use crate::clock;

impl EventLoop {
    pub(super) fn begin_looks_that_are_due(&mut self) {
        for subject in self.look_schedules.begin() {
            let request = LookRequest {
                configuration: Arc::clone(&self.state.configuration),
                known_repository: self.state.journal.repository(),
                is_running: self.worker.is_some(),
                before: self.state.observation.clone(),
            };
            let look = move || Box::new(request.look(subject));
            report_result_of(look, &self.reporter, move |look| Report::Looked {
                subject,
                look,
            });
        }
    }

    /// Forgets what a look found that is too old, and says so.
    pub(super) fn notice_silence(&mut self) {
        for (subject, age) in self.look_schedules.newly_lost() {
            let (now, age) = (clock::now(), Duration::from_secs(age.as_secs()));
            let since = now.checked_sub(age).unwrap_or(now);
            self.state.observation.lose_sight(subject, since);

            let silence = not_known_since(since);
            error!("the state of {} is {silence}", subject.name());
        }
    }

    /// Remembers what a look found. If the look panicked, nothing is new.
    pub(super) fn look_ended(&mut self, subject: Subject, look: Option<Box<Look>>) {
        let is_well = look.as_ref().is_some_and(|look| look.is_well());
        if self.look_schedules.ended(subject, is_well) {
            info!("the state of {} is known again", subject.name());
        }
        let Some(look) = look else { return };

        let db = self.state.observation.db.clone();
        self.state.observe(*look);
        if self.state.observation.db != db {
            // The other members' backups count only if they hold the log of this directory.
            self.look_schedules.forget_one(Subject::Cluster);
        }
        self.write_journal();

        if self.worker.is_none()
            && let Some(record) = self.state.newly_covered()
        {
            self.remember(record);
        }
        if subject == Subject::Node {
            self.watch_directory();
            self.read_writer_position();
        }
    }

    /// Makes the watcher watch the node's directory, if changes there may make a backup due.
    fn watch_directory(&self) {
        let on_change = &self.state.configuration.agent.on_change;
        let directory = if on_change.is_off() {
            None
        } else {
            self.state.observation.db.clone()
        };

        self.watcher.watch(directory);
    }

    pub(super) fn read_writer_position(&mut self) {
        if self.writer_probe.is_stuck() {
            self.state.writer_history.lose_sight();
        }
        let Some(db) = &self.state.observation.db else {
            return;
        };

        let (db, notes) = (db.clone(), self.state.notes_to_follow());
        if self.writer_probe.begins() {
            let read = move || WriterReading::of(&db, notes);
            report_result_of(read, &self.reporter, |position| {
                Report::WriterPosition(position.flatten())
            });
        }
    }

    pub(super) fn writer_position_was_read(&mut self, reading: Option<WriterReading>) {
        self.writer_probe.ended();
        self.state.observe_writer(reading);
    }
}
