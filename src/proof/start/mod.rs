//! Would a server start from this directory, and what would it lose, rebuild or refuse? For any
//! data directory, per version line (disk-format §6, O10–O39).

mod facts;
mod simulate;

use serde::Serialize;

use self::simulate::Observation;
use super::depth::Depth;
use super::finding::{Consequence, Effect, Finding, Severity};
use crate::clock::Timestamp;
use crate::error::{Kind, Result};
use crate::manifest::FileSet;
use crate::run::Run;
use crate::server::ServerLine;
use crate::transfer::Paced;

/// What to examine for.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// The line of the server that is to start there. None: every line that can be meant, from the
    /// oldest that the files show on.
    pub version: Option<ServerLine>,
    /// How much is read.
    pub depth: Depth,
    /// A server runs on the directory: what is wrong is the source's (exit code 21), and may be a
    /// change caught half-way.
    pub in_use: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            version: None,
            depth: Depth::Normal,
            in_use: false,
        }
    }
}

/// How a start goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// It starts.
    Starts,
    /// The first start ends with exit code 0, the second stays (O10).
    StartsAfterSecondStart,
    /// It starts, and ends itself within seconds, each time (O17).
    StartsThenDies,
    /// It does not start.
    Refuses,
}

/// The answer in a word, from good to bad.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// A server starts with everything that the log holds.
    Starts,
    /// The same, and it builds something anew first: the index, a filter.
    StartsAndRebuilds,
    /// A server starts with everything, but files are damaged; it does without them.
    Damaged,
    /// A server starts, and events are lost, hidden or shown in part.
    Loses,
    /// A server starts and then ends itself.
    StartsThenDies,
    /// No server starts.
    Refuses,
}

impl Verdict {
    /// The error kind, and by it the exit code, for everything but a start with all events and no
    /// damage.
    #[must_use]
    pub const fn kind(self, in_use: bool) -> Option<Kind> {
        match self {
            Self::Starts | Self::StartsAndRebuilds => None,
            Self::Damaged | Self::Loses | Self::StartsThenDies | Self::Refuses if in_use => {
                Some(Kind::SourceCorrupt)
            }
            Self::Damaged | Self::Loses | Self::StartsThenDies | Self::Refuses => {
                Some(Kind::StoredCorrupt)
            }
        }
    }

    /// The verdict for people.
    #[must_use]
    pub const fn phrase(self) -> &'static str {
        match self {
            Self::Starts => "starts with everything",
            Self::StartsAndRebuilds => "starts with everything, and rebuilds what is derived",
            Self::Damaged => "starts with everything, but files are damaged",
            Self::Loses => "starts, and loses",
            Self::StartsThenDies => "starts, and then ends itself",
            Self::Refuses => "does not start",
        }
    }
}

/// What a server of one line does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct VersionOutcome {
    /// The line.
    pub version: ServerLine,
    /// How its start goes.
    pub outcome: Outcome,
    /// The answer in a word.
    pub verdict: Verdict,
    /// Codes of the findings by which events are lost, hidden or shown in part.
    pub loses: Vec<&'static str>,
    /// Codes of the findings by which something is built anew.
    pub rebuilds: Vec<&'static str>,
    /// Some of this was only read in the server's source, not seen on a real server of this line.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub unproven: bool,
    /// The files show that a newer server wrote them: this line does not count for the verdict.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub older_than_files: bool,
}

/// The log, as far as it could be read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LogSummary {
    /// Bytes of log per chunk number.
    pub chunk_size: u64,
    /// Chunk files that a server uses.
    pub chunks: u64,
    /// What `writer.chk` says, in bytes of log.
    pub writer: i64,
    /// The last place before it where no append is cut, in bytes of log; none where the records
    /// were not read.
    pub position: Option<u64>,
    /// Epochs, as far as they can be followed.
    pub epochs: Option<u64>,
    /// Time of the last event in the chunk that the log ends in.
    pub last_event: Option<Timestamp>,
}

/// The index, as far as it could be read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct IndexSummary {
    /// Tables that `indexmap` names.
    pub tables: u64,
    /// Up to where they reach, in bytes of log.
    pub commit: Option<u64>,
    /// Entries that were compared with the log.
    pub entries_compared: u64,
}

/// The answer, with its reasons.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Examination {
    /// The worst of the lines that count.
    pub verdict: Verdict,
    /// How much was read.
    pub depth: Depth,
    /// A server ran on the directory.
    pub in_use: bool,
    /// Each line, oldest first.
    pub versions: Vec<VersionOutcome>,
    /// Everything found, worst first.
    pub findings: Vec<Finding>,
    /// The log.
    pub log: Option<LogSummary>,
    /// The index.
    pub index: Option<IndexSummary>,
}

impl Examination {
    /// The error kind, and by it the exit code; none where a server starts with everything and
    /// nothing is damaged.
    #[must_use]
    pub fn kind(&self) -> Option<Kind> {
        self.verdict.kind(self.in_use)
    }

    /// What a server of `line` does.
    #[must_use]
    pub fn outcome(&self, line: ServerLine) -> Option<&VersionOutcome> {
        self.versions.iter().find(|outcome| outcome.version == line)
    }
}

/// Examines a data directory. What is wrong with it is in the result.
///
/// Nothing is changed, and no lock is taken. Of a directory that a server runs on, parts may have
/// changed before others were read.
///
/// # Errors
/// What the storage reports, and an interruption.
pub fn examine(files: &dyn FileSet, options: &Options, run: &Run) -> Result<Examination> {
    let gathered = facts::gather(&Paced::new(files, run), options.depth, run)?;
    let lines: Vec<ServerLine> = match options.version {
        Some(line) => vec![line],
        None => ServerLine::ALL.to_vec(),
    };
    let mut findings = Merged {
        findings: gathered.findings,
    };
    let mut versions = Vec::with_capacity(lines.len());
    for line in lines {
        let observations = simulate::start(line, &gathered.facts);
        let older_than_files = options.version.is_none() && line < gathered.oldest;
        versions.push(outcome(
            line,
            &observations,
            findings.has_damage(),
            older_than_files,
        ));
        for observation in observations {
            findings.add(line, observation);
        }
    }
    let counted = versions
        .iter()
        .filter(|version| !version.older_than_files)
        .map(|version| version.verdict);
    let verdict = counted.max().unwrap_or(Verdict::Refuses);
    let findings = findings.finish();
    Ok(Examination {
        verdict,
        depth: options.depth,
        in_use: options.in_use,
        versions,
        findings,
        log: gathered.log,
        index: gathered.index,
    })
}

fn outcome(
    line: ServerLine,
    observations: &[Observation],
    damaged: bool,
    older_than_files: bool,
) -> VersionOutcome {
    let with = |wanted: fn(Effect) -> bool| -> Vec<&'static str> {
        let mut codes: Vec<_> = observations
            .iter()
            .filter(|observation| wanted(observation.effect))
            .map(|observation| observation.code)
            .collect();
        codes.dedup();
        codes
    };
    let has = |effect| {
        observations
            .iter()
            .any(|observation| observation.effect == effect)
    };
    let outcome = if has(Effect::Refuses) {
        Outcome::Refuses
    } else if has(Effect::Dies) {
        Outcome::StartsThenDies
    } else if has(Effect::StartsAgain) {
        Outcome::StartsAfterSecondStart
    } else {
        Outcome::Starts
    };
    let loses = with(Effect::is_loss);
    let rebuilds = with(|effect| matches!(effect, Effect::Rebuilds | Effect::SetsIndexAside));
    let damaged = damaged || observations.iter().any(|observation| observation.damage);
    let verdict = match outcome {
        Outcome::Refuses => Verdict::Refuses,
        Outcome::StartsThenDies => Verdict::StartsThenDies,
        _ if !loses.is_empty() => Verdict::Loses,
        _ if damaged => Verdict::Damaged,
        _ if !rebuilds.is_empty() => Verdict::StartsAndRebuilds,
        _ => Verdict::Starts,
    };
    let unproven = !line.was_run()
        || observations
            .iter()
            .any(|observation| !observation.evidence.proves(line));
    VersionOutcome {
        version: line,
        outcome,
        verdict,
        loses,
        rebuilds,
        unproven,
        older_than_files,
    }
}

/// The findings of all lines, each told once.
struct Merged {
    findings: Vec<Finding>,
}

impl Merged {
    fn has_damage(&self) -> bool {
        self.findings
            .iter()
            .any(|finding| finding.severity == Severity::Error && finding.consequences.is_empty())
    }

    fn add(&mut self, line: ServerLine, observation: Observation) {
        let consequence = Consequence {
            version: line,
            effect: observation.effect,
            unproven: !observation.evidence.proves(line),
        };
        let severity = severity(&observation);
        let same = self.findings.iter_mut().find(|finding| {
            finding.code == observation.code
                && finding.file == observation.file
                && finding.what == observation.what
        });
        match same {
            Some(finding) => {
                finding.severity = finding.severity.max(severity);
                finding.consequences.push(consequence);
            }
            None => self.findings.push(Finding {
                severity,
                code: observation.code,
                file: observation.file,
                what: observation.what,
                consequences: vec![consequence],
                evidence: Some(observation.evidence.source()),
                hint: observation.hint,
            }),
        }
    }

    fn finish(mut self) -> Vec<Finding> {
        self.findings
            .sort_by_key(|finding| std::cmp::Reverse((finding.severity, finding.worst())));
        self.findings
    }
}

fn severity(observation: &Observation) -> Severity {
    match observation.effect {
        Effect::LosesEvents | Effect::ShowsHalfAppend | Effect::Dies | Effect::Refuses => {
            Severity::Error
        }
        _ if observation.damage => Severity::Error,
        Effect::Rebuilds | Effect::SetsIndexAside | Effect::StartsAgain | Effect::MayHideEvents => {
            Severity::Warning
        }
        Effect::Ignores | Effect::Slows | Effect::Deletes => Severity::Info,
    }
}
