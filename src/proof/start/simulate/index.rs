//! The index: the server uses it, or sets it aside and builds a new one (disk-format §5.4).

use super::state::ServerStart;
use crate::format::LogPosition;
use crate::proof::finding::Effect;
use crate::proof::start::facts::{
    FileProblem, HiddenFact, MapFact, StreamFilterFact, TableFact, TableProblem,
};
use crate::proof::start::observation::StartObservation;
use crate::server::facts::{HAS_FILTERS, REFUSES_OLD_TABLES};
use crate::server::{Evidence, observed};

/// Before a server builds a new index, it copies the whole old one aside. This hint saves that.
const REMOVE_INDEX: &str = "remove the files of the index directory: the server builds the index \
                            anew either way, but then copies nothing aside";

impl ServerStart<'_> {
    /// Loads the index. Returns the position from which the server reads the log again: the end of
    /// the index, or 0 without an index.
    pub(super) fn index(&mut self) -> i64 {
        let facts = self.facts;
        let seen_before = self.seen.len();

        let commit = match &facts.index.map {
            MapFact::Absent => {
                self.no_index();
                return 0;
            }
            MapFact::Damaged(problem) => {
                let evidence = Evidence::Read("disk-format §5.4");
                let damaged = set_aside("index-map-damaged", &problem.why, evidence);
                self.see(damaged.on(&problem.place).damage());
                None
            }
            MapFact::Read {
                place,
                commit,
                merge_level,
            } => {
                self.index_ahead(place, *commit);
                self.merge_level(place, *merge_level);
                *commit
            }
        };
        for table in &facts.index.bad_tables {
            self.bad_table(table);
        }

        // Each of these problems makes the server build the index from the start of the log.
        let is_set_aside = self.seen.len() > seen_before;
        if is_set_aside {
            return 0;
        }
        for filter in &facts.index.incomplete_filters {
            self.incomplete_filter(filter);
        }
        if let Some(hidden) = &facts.index.hidden {
            self.hidden_events(hidden);
        }
        let indexed = commit.map_or(0, LogPosition::to_signed);
        indexed.min(self.chaser)
    }

    fn no_index(&mut self) {
        if self.writer <= 0 {
            return;
        }
        let what = "there is no index; a full rebuild takes long on a large database";
        let evidence = Evidence::Seen(observed::O18);
        self.see(StartObservation::new(
            "index-absent",
            what,
            Effect::Rebuilds,
            evidence,
        ));
    }

    fn index_ahead(&mut self, place: &str, commit: Option<LogPosition>) {
        let Some(commit) = commit else { return };
        if commit.to_signed() < self.chaser {
            return;
        }
        let what = format!(
            "the index reaches to {commit}, not below chaser.chk at {}",
            self.chaser
        );
        let ahead = set_aside("index-ahead", what, Evidence::Seen(observed::O18));
        self.see(ahead.on(place).hint(REMOVE_INDEX));
    }

    fn merge_level(&mut self, place: &str, level: Option<i32>) {
        let Some(level) = level else { return };
        let what = format!(
            "tables are merged up to level {level} only; a server without that setting rebuilds \
             the index"
        );
        let evidence = Evidence::Read("disk-format §5.1");
        self.see(set_aside("index-merge-level", what, evidence).on(place));
    }

    fn bad_table(&mut self, table: &TableFact) {
        let observation = match &table.why {
            TableProblem::Missing => {
                let what = "indexmap names this table, and it is missing";
                set_aside("index-table-missing", what, Evidence::Seen(observed::O18)).damage()
            }
            TableProblem::Damaged(why) => {
                set_aside("index-table-damaged", why, Evidence::Seen(observed::O18)).damage()
            }
            TableProblem::Old => {
                if !self.line.has(REFUSES_OLD_TABLES) {
                    return;
                }
                let what =
                    format!("servers {REFUSES_OLD_TABLES} refuse tables of format version 1");
                set_aside("index-table-old", what, Evidence::Read("disk-format §5.2"))
            }
        };

        self.see(observation.on(&table.place).hint(REMOVE_INDEX));
    }

    /// The server does not look for a stream in a table whose filter does not know it.
    fn incomplete_filter(&mut self, filter: &FileProblem) {
        if !self.line.has(HAS_FILTERS) {
            return;
        }
        let evidence = Evidence::Read("disk-format §5.3");
        let hint = "remove this file while the server is stopped: it does without the filter, only \
                    slower";
        self.see(
            StartObservation::new(
                "table-filter-incomplete",
                &filter.why,
                Effect::LosesEvents,
                evidence,
            )
            .on(&filter.place)
            .hint(hint)
            .damage(),
        );
    }

    /// The server answers from the index, so nobody finds an event that the index lacks (O39).
    fn hidden_events(&mut self, hidden: &HiddenFact) {
        let HiddenFact {
            missing,
            unknown,
            sampled,
            first,
        } = hidden;

        let (what, effect, hint) = if *missing > 0 {
            (
                format!(
                    "{missing} of {sampled} events that the log holds are not in the index, the \
                     first at {first}; the metadata of their streams does not hide them"
                ),
                Effect::LosesEvents,
                "the index is from after a scavenge, the chunks from before it: remove the index \
                 directory's files",
            )
        } else {
            (
                format!(
                    "{unknown} of {sampled} events that the log holds are not in the index, the \
                     first at {first}; the metadata of their streams was changed after a scavenge"
                ),
                Effect::MayHideEvents,
                "that scavenge can explain it; if this directory was put together from copies, \
                 remove the index directory's files",
            )
        };
        let evidence = Evidence::Seen(observed::O39);
        self.see(StartObservation::new("index-hides-events", what, effect, evidence).hint(hint));
    }

    /// The stream-existence filter tells which streams there are (disk-format §5.3).
    pub(super) fn stream_filter(&mut self) {
        if !self.line.has(HAS_FILTERS) || self.writer <= 0 {
            return;
        }

        let observation = match &self.facts.stream_filter {
            StreamFilterFact::Whole => return,
            StreamFilterFact::Absent => {
                let what = "there is no stream-existence filter; the server builds it from the \
                            index";
                let evidence = Evidence::Seen(observed::O18);
                StartObservation::new("stream-filter-absent", what, Effect::Rebuilds, evidence)
            }
            StreamFilterFact::Damaged(problem) => {
                let effect = Effect::Rebuilds;
                let evidence = Evidence::Seen(observed::O18);
                StartObservation::new("stream-filter-damaged", &problem.why, effect, evidence)
                    .on(&problem.place)
            }
            StreamFilterFact::Incomplete(problem) => {
                let effect = Effect::LosesEvents;
                let evidence = Evidence::Read("disk-format §5.3");
                let hint = "remove the files in index/stream-existence: the server builds the \
                            filter anew";
                StartObservation::new("stream-filter-incomplete", &problem.why, effect, evidence)
                    .on(&problem.place)
                    .hint(hint)
                    .damage()
            }
        };
        self.see(observation);
    }
}

/// The server copies the index aside and builds a new one.
fn set_aside(code: &'static str, what: impl Into<String>, evidence: Evidence) -> StartObservation {
    StartObservation::new(code, what, Effect::SetsIndexAside, evidence)
}
