//! `kbackup verify`.

use std::fmt::Write;

use super::Session;
use super::output::{count, size};
use crate::error::{Kind, Result};
use crate::manifest::Label;
use crate::proof::Depth;
use crate::repository::{Location, Repository};
use crate::settings::arguments;
use crate::verbs;
use crate::verify::{self, Lost, Replacement, Report, Which};

pub(super) fn run(options: &arguments::Verify, session: &Session) -> Result<u8> {
    let which = verbs::verify::which(options)?;
    let repository = Location::parse(&options.repository.repo)?.open()?;
    let depth = verbs::verify::depth(options);
    if options.repair {
        return repair(&*repository, &which, depth, options.dry_run, session);
    }
    let report = verify::verify(&*repository, &which, depth, &session.run)?;
    session.output.answer(
        "kbackup.verify/1",
        &session.with_warnings(&report)?,
        &text(&report),
    )?;
    Ok(if report.is_sound() {
        session.done()
    } else {
        Kind::StoredCorrupt.exit_code()
    })
}

fn repair(
    repository: &dyn Repository,
    which: &Which,
    depth: Depth,
    dry_run: bool,
    session: &Session,
) -> Result<u8> {
    let run = &*session.run;
    let sound = if dry_run {
        let plan = verify::plan_repair(repository, which, depth, run)?;
        let text =
            mended(&plan.replacements, "would be mended") + &lost(&plan.lost) + &text(&plan.found);
        session.output.answer(
            "kbackup.repair-plan/1",
            &session.with_warnings(&plan)?,
            &text,
        )?;
        plan.found.is_sound()
    } else {
        let repaired = verify::repair(repository, which, depth, run)?;
        let text =
            mended(&repaired.replaced, "mended") + &lost(&repaired.lost) + &text(&repaired.report);
        session.output.answer(
            "kbackup.repair/1",
            &session.with_warnings(&repaired)?,
            &text,
        )?;
        repaired.report.is_sound()
    };
    Ok(if sound {
        session.done()
    } else {
        Kind::StoredCorrupt.exit_code()
    })
}

fn mended(replacements: &[Replacement], how: &str) -> String {
    let mut text = String::new();
    for Replacement {
        path, from, into, ..
    } in replacements
    {
        let _ = writeln!(text, "{path}: {how} from {from}, in {}", labels(into));
    }
    text
}

fn lost(lost: &[Lost]) -> String {
    let mut text = String::new();
    for Lost { path, backups } in lost {
        let _ = writeln!(
            text,
            "{path}: no right copy is left, in {}",
            labels(backups)
        );
    }
    if !lost.is_empty() {
        text.push_str(
            "take a `kbackup diff`, which reads from the node what is damaged here, then repair again; what is damaged still is lost\n",
        );
    }
    text
}

fn labels(labels: &[Label]) -> String {
    labels
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(", ")
}

fn text(report: &Report) -> String {
    let mut text = String::new();
    for backup in &report.backups {
        if backup.findings.is_empty() {
            let _ = writeln!(
                text,
                "{}: intact, {}",
                backup.label,
                count(backup.files, "file")
            );
        } else {
            let _ = writeln!(text, "{}: DAMAGED", backup.label);
        }
        for finding in &backup.findings {
            let _ = writeln!(text, "  {finding}");
        }
    }
    let _ = match report.depth {
        Depth::Quick => writeln!(text, "only structure and sizes were looked at"),
        Depth::Normal | Depth::Deep => writeln!(
            text,
            "{} hashed; what several backups share, once",
            size(report.bytes_hashed)
        ),
    };
    text
}
