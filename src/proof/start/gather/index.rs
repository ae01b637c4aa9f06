//! The index: turns the result of its examination into facts.

use super::Gathering;
use crate::error::Result;
use crate::format::{LogPosition, WriterPosition};
use crate::log::ChunkSet;
use crate::manifest::RelativePath;
use crate::proof::finding::Severity;
use crate::proof::index::{
    HiddenEvents, IndexFault, IndexProblem, IndexProof, IndexScope, examine_index,
};
use crate::proof::start::facts::{
    FileProblem, HiddenFact, IndexFact, MapFact, StreamFilterFact, TableFact, TableProblem,
};

impl Gathering<'_> {
    /// Reads the index. `writer` is `None` if there is no log.
    pub(super) fn examine_index(
        &mut self,
        set: Option<&ChunkSet>,
        writer: Option<LogPosition>,
    ) -> Result<IndexProof> {
        let scope = IndexScope {
            chunks: set,
            writer: WriterPosition(writer.unwrap_or(LogPosition::ZERO)),
            depth: self.depth,
            hash_tables: true,
        };
        examine_index(self.files, &scope, self.run)
    }

    pub(super) fn index_fact(&mut self, proof: IndexProof) -> IndexFact {
        let map = match proof.map {
            Some(map) => MapFact::Read {
                place: self.place(&RelativePath::index_map()),
                commit: map.commit,
                merge_level: map.max_merge_level.filter(|level| *level < i32::MAX),
            },
            None => MapFact::Absent,
        };
        let mut fact = IndexFact {
            map,
            bad_tables: Vec::new(),
            incomplete_filters: Vec::new(),
            hidden: proof.hidden.as_ref().map(hidden_fact),
        };

        for problem in proof.problems {
            self.note_problem(problem, &mut fact);
        }

        if let Some(first) = proof.unlisted.first() {
            let what = format!(
                "{} files that indexmap does not name, the first of them here; a server deletes \
                 them",
                proof.unlisted.len()
            );
            let place = self.place(first);
            self.tell(Severity::Info, "index-unlisted", Some(place), what);
        }
        fact
    }

    /// Adds a problem to the facts if it changes how a server starts, otherwise to the findings.
    fn note_problem(&mut self, problem: IndexProblem, fact: &mut IndexFact) {
        let place = self.place(&problem.path);
        let what = problem.what;

        match problem.fault {
            IndexFault::Map => fact.map = MapFact::Damaged(FileProblem { place, why: what }),
            IndexFault::TableMissing => fact.bad_tables.push(TableFact {
                place,
                why: TableProblem::Missing,
            }),
            IndexFault::TableDamaged => fact.bad_tables.push(TableFact {
                place,
                why: TableProblem::Damaged(what),
            }),
            IndexFault::TableOld => fact.bad_tables.push(TableFact {
                place,
                why: TableProblem::Old,
            }),
            IndexFault::EntryWrong => {
                self.tell(Severity::Error, "index-entry-wrong", Some(place), what);
            }
            IndexFault::TableFilter => {
                let what = format!("{what}; the server works without the filter, but slower");
                self.tell(Severity::Warning, "table-filter-damaged", Some(place), what);
            }
            IndexFault::TableFilterIncomplete => fact
                .incomplete_filters
                .push(FileProblem { place, why: what }),
            // `stream_filter` turns these into a fact of their own.
            IndexFault::StreamFilter | IndexFault::StreamFilterIncomplete => {}
        }
    }

    pub(super) fn stream_filter(&self, proof: &IndexProof) -> StreamFilterFact {
        if let Some(problem) = self.first_problem(proof, IndexFault::StreamFilterIncomplete) {
            return StreamFilterFact::Incomplete(problem);
        }
        if let Some(problem) = self.first_problem(proof, IndexFault::StreamFilter) {
            return StreamFilterFact::Damaged(problem);
        }
        if proof.has_stream_filter {
            StreamFilterFact::Whole
        } else {
            StreamFilterFact::Absent
        }
    }

    fn first_problem(&self, proof: &IndexProof, fault: IndexFault) -> Option<FileProblem> {
        let mut problems = proof.problems.iter();
        let problem = problems.find(|problem| problem.fault == fault)?;
        Some(FileProblem {
            place: self.place(&problem.path),
            why: problem.what.clone(),
        })
    }
}

fn hidden_fact(hidden: &HiddenEvents) -> HiddenFact {
    HiddenFact {
        missing: hidden.missing,
        sampled: hidden.sampled,
        first: hidden.first,
        unknown: hidden.unknown,
    }
}
