//! Would a server start from this directory, and what would it lose, rebuild or refuse? The answer
//! holds for any data directory and is given for each version line (disk-format §6, O10–O39).
//!
//! `gather` reads the directory into `facts`. `simulate` runs the start of each version line on
//! these facts and makes observations. [`examine`] merges them into an [`Examination`].

mod examination;
mod facts;
mod gather;
mod observation;
mod simulate;

pub use self::examination::{
    Examination, IndexSummary, LogSummary, StartOutcome, StartVerdict, VersionOutcome,
};
use self::gather::Gathered;
use self::observation::StartObservation;
use super::depth::Depth;
use super::finding::{Consequence, Effect, Finding, Severity};
use crate::error::Result;
use crate::manifest::FileSet;
use crate::run::Run;
use crate::server::ServerLine;
use crate::transfer::Paced;

/// What to examine for.
#[derive(Debug, Clone, Copy)]
pub struct ExamineOptions {
    /// The line of the server that is to start there. `None` for all lines: those count that are
    /// not older than the oldest line that can have written the files.
    pub version: Option<ServerLine>,
    /// How much is read.
    pub depth: Depth,
    /// Whether a server runs on the directory. Then damage counts as the source's (exit code 21),
    /// and it may only be a change that was seen halfway.
    pub in_use: bool,
}

impl Default for ExamineOptions {
    fn default() -> Self {
        Self {
            version: None,
            depth: Depth::Normal,
            in_use: false,
        }
    }
}

/// Examines a data directory. The result holds everything that is wrong with it.
///
/// It changes nothing and takes no lock. If a server runs on the directory, some files may change
/// before others are read.
///
/// # Errors
/// What the storage reports, and an interruption. Damage is not an error.
pub fn examine(files: &dyn FileSet, options: &ExamineOptions, run: &Run) -> Result<Examination> {
    let Gathered {
        facts,
        findings,
        oldest,
        log,
        index,
    } = gather::gather(&Paced::new(files, run), options.depth, run)?;

    let lines = match options.version {
        Some(line) => vec![line],
        None => ServerLine::ALL.to_vec(),
    };
    let mut findings = MergedFindings { findings };
    let mut versions = Vec::with_capacity(lines.len());
    for line in lines {
        let observations = simulate::start(line, &facts);
        let mut outcome = outcome(line, &observations, findings.has_damage());
        outcome.older_than_files = options.version.is_none() && line < oldest;
        versions.push(outcome);
        for observation in observations {
            findings.add(line, observation);
        }
    }

    let counted = versions.iter().filter(|version| !version.older_than_files);
    let worst = counted.map(|version| version.verdict).max();
    Ok(Examination {
        verdict: worst.unwrap_or(StartVerdict::Refuses),
        depth: options.depth,
        in_use: options.in_use,
        versions,
        findings: findings.worst_first(),
        log,
        index,
    })
}

/// Sums up what servers of one line do. `is_damaged` is true if files are damaged for every server
/// version.
fn outcome(
    line: ServerLine,
    observations: &[StartObservation],
    is_damaged: bool,
) -> VersionOutcome {
    let outcome = start_outcome(observations);
    let loses = codes(observations, Effect::is_loss);
    let rebuilds = codes(observations, Effect::is_rebuild);

    let is_damaged = is_damaged || observations.iter().any(|observation| observation.damage);
    let verdict = match outcome {
        StartOutcome::Refuses => StartVerdict::Refuses,
        StartOutcome::StartsThenDies => StartVerdict::StartsThenDies,
        _ if !loses.is_empty() => StartVerdict::Loses,
        _ if is_damaged => StartVerdict::Damaged,
        _ if !rebuilds.is_empty() => StartVerdict::StartsAndRebuilds,
        _ => StartVerdict::Starts,
    };

    let all_proven = observations
        .iter()
        .all(|observation| observation.evidence.proves(line));
    VersionOutcome {
        version: line,
        outcome,
        verdict,
        loses,
        rebuilds,
        unproven: !line.was_run() || !all_proven,
        older_than_files: false,
    }
}

fn start_outcome(observations: &[StartObservation]) -> StartOutcome {
    let mut outcome = StartOutcome::Starts;
    for observation in observations {
        let of_this = match observation.effect {
            Effect::Refuses => StartOutcome::Refuses,
            Effect::Dies => StartOutcome::StartsThenDies,
            Effect::StartsAgain => StartOutcome::StartsAfterSecondStart,
            _ => StartOutcome::Starts,
        };
        outcome = outcome.max(of_this);
    }
    outcome
}

/// The codes of the observations whose effect is wanted.
fn codes(observations: &[StartObservation], is_wanted: fn(Effect) -> bool) -> Vec<&'static str> {
    let mut codes = Vec::new();
    for observation in observations {
        if is_wanted(observation.effect) {
            codes.push(observation.code);
        }
    }
    codes.dedup();
    codes
}

/// The findings of all lines, without repetition.
struct MergedFindings {
    findings: Vec<Finding>,
}

impl MergedFindings {
    /// Whether files are damaged for every server version.
    fn has_damage(&self) -> bool {
        self.findings
            .iter()
            .any(|finding| finding.severity == Severity::Error && finding.consequences.is_empty())
    }

    fn add(&mut self, line: ServerLine, observation: StartObservation) {
        let severity = severity(&observation);
        let consequence = Consequence {
            version: line,
            effect: observation.effect,
            unproven: !observation.evidence.proves(line),
        };

        let same = self.findings.iter_mut().find(|finding| {
            finding.code == observation.code
                && finding.file == observation.file
                && finding.what == observation.what
        });
        if let Some(finding) = same {
            finding.severity = finding.severity.max(severity);
            finding.consequences.push(consequence);
            return;
        }

        self.findings.push(Finding {
            severity,
            code: observation.code,
            file: observation.file,
            what: observation.what,
            consequences: vec![consequence],
            evidence: Some(observation.evidence.source()),
            hint: observation.hint,
        });
    }

    fn worst_first(mut self) -> Vec<Finding> {
        self.findings
            .sort_by_key(|finding| std::cmp::Reverse((finding.severity, finding.worst())));
        self.findings
    }
}

fn severity(observation: &StartObservation) -> Severity {
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
