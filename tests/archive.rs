//! Archives: what `tar` unpacks is the backup, and an archive that is not complete says so.

#![expect(clippy::unwrap_used, reason = "a test may end in a panic")]

use std::collections::BTreeMap;
use std::io::Read;

use kbackup::archive::{self, ArchiveForm, ExportReport};
use kbackup::error::{Error, Kind};
use kbackup::event::Silent;
use kbackup::manifest::{Directories, Label, Manifest};
use kbackup::proof::{self, Depth, ExamineOptions};
use kbackup::repository::Repository;
use kbackup::run::Run;

use crate::backup::bench::{Bench, small, workplace};
use crate::stores::{in_every_store, in_stores_with_copies};

in_every_store! {
    an_archive_holds_the_manifest_and_every_file,
    a_compressed_archive_is_the_same_archive,
}

in_stores_with_copies! {
    an_archive_of_a_damaged_backup_ends_inside_a_member,
}

fn quiet() -> Run {
    Run::new(Silent)
}

fn exported(
    repository: &dyn Repository,
    label: &Label,
    form: ArchiveForm,
) -> (Vec<u8>, Result<ExportReport, Error>) {
    let mut bytes = Vec::new();
    let report = archive::export(repository, label, form, &mut bytes, &quiet());
    (bytes, report)
}

/// The members of an archive in their order, as the tar crate reads them.
fn members(archive: &[u8]) -> Vec<(String, Vec<u8>)> {
    let mut members = Vec::new();
    for entry in tar::Archive::new(archive).entries().unwrap() {
        let mut entry = entry.unwrap();
        let name = entry.path().unwrap().display().to_string();
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).unwrap();
        members.push((name, bytes));
    }
    members
}

fn an_archive_holds_the_manifest_and_every_file() {
    let bench = Bench::new(&small());
    let full = bench.full().unwrap();
    let manifest = bench.manifest(&full);

    let (archive, report) = exported(&bench.repository, &full.label, ArchiveForm::Plain);
    let report = report.unwrap();
    assert_eq!(report.archive_bytes, archive.len() as u64);
    assert_eq!(
        (report.files, report.bytes),
        (manifest.totals.files, manifest.totals.bytes)
    );

    let mut members = members(&archive);
    let (first, text) = members.remove(0);
    assert_eq!(first, "manifest.json");
    assert_eq!(Manifest::read(&text).unwrap(), manifest);

    let mut wanted = Vec::new();
    for row in &manifest.files {
        let path = row.path.to_string();
        let bytes = bench.repository.read(&full.label, &path);
        wanted.push((path, bytes));
    }
    assert_eq!(members, wanted);
}

fn a_compressed_archive_is_the_same_archive() {
    let bench = Bench::new(&small());
    let full = bench.full().unwrap();
    let (plain, report) = exported(&bench.repository, &full.label, ArchiveForm::Plain);
    report.unwrap();

    let (compressed, report) = exported(&bench.repository, &full.label, ArchiveForm::Zstd);
    assert_eq!(report.unwrap().archive_bytes, compressed.len() as u64);
    assert!(compressed.len() < plain.len());
    assert_eq!(zstd::decode_all(&*compressed).unwrap(), plain);
}

fn an_archive_of_a_damaged_backup_ends_inside_a_member() {
    let bench = Bench::new(&small());
    let full = bench.full().unwrap();
    let manifest = bench.manifest(&full);
    for row in &manifest.files {
        bench.repository.damage(&full.label, &row.path);
        for form in [ArchiveForm::Plain, ArchiveForm::Zstd] {
            let (archive, report) = exported(&bench.repository, &full.label, form);
            let error = report.unwrap_err();
            assert_eq!(error.kind(), Kind::StoredCorrupt, "{error:?}");
            // In memory, files of equal bytes are one.
            let mut damaged = manifest.files.iter().filter(|it| it.blake3 == row.blake3);
            let is_named = damaged.any(|it| error.in_words().contains(it.path.file_name()));
            assert!(is_named, "{error:?}");

            if form == ArchiveForm::Zstd {
                zstd::decode_all(&*archive).unwrap_err();
                continue;
            }
            let place = workplace();
            let unpacked = tar::Archive::new(&*archive).unpack(place.path());
            assert!(unpacked.is_err(), "{}", row.path);
        }
        bench.repository.damage(&full.label, &row.path);
    }
}

#[test]
fn a_server_starts_from_what_tar_unpacks() {
    for name in ["26.1-append", "21.10-append"] {
        let bench = Bench::of(name);
        let full = bench.full().unwrap();
        let (archive, report) = exported(&bench.repository, &full.label, ArchiveForm::Plain);
        report.unwrap();

        let place = workplace();
        tar::Archive::new(&*archive).unpack(place.path()).unwrap();
        let (db, index) = (place.path().join("db"), place.path().join("index"));
        let options = ExamineOptions {
            version: Some(bench.line),
            depth: Depth::Deep,
            in_use: false,
        };
        let directories = Directories::new(db, Some(index));
        let examination = proof::examine(&directories, &options, &quiet()).unwrap();
        assert_eq!(examination.kind(), None, "{:#?}", examination.findings);

        let mut found = BTreeMap::new();
        for row in bench.manifest(&full).files {
            found.insert(
                row.path.to_string(),
                std::fs::read(row.path.under(place.path())).unwrap(),
            );
        }
        for (path, bytes) in found {
            assert_eq!(bytes, bench.repository.read(&full.label, &path), "{path}");
        }
    }
}
