//! Archives: what `tar` unpacks is the backup, an archive that is not complete says so, and an import
//! believes nothing.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test may end in a panic"
)]

use std::collections::BTreeMap;
use std::io::Read;
use std::sync::{Arc, Mutex, Weak};

use kbackup::archive::{self, ArchiveForm, ExportReport, ImportReport, IncomingArchive};
use kbackup::copy::CopyRules;
use kbackup::error::{Error, Kind, Signal};
use kbackup::event::{Event, Observer, Silent};
use kbackup::manifest::{Directories, Label, Manifest};
use kbackup::proof::{self, Depth, ExamineOptions};
use kbackup::repository::{MemoryRepository, Repository};
use kbackup::run::Run;
use kbackup::verify::{self, Which};
use proptest::prelude::*;
use tar::{EntryType, Header};

use crate::backup::bench::{Bench, small, workplace};
use crate::stores::{TestRepository, in_every_store, in_stores_with_copies};

in_every_store! {
    an_archive_holds_the_manifest_and_every_file,
    a_compressed_archive_is_the_same_archive,
    an_imported_archive_is_the_same_backup,
    an_import_reuses_what_its_parent_has,
    what_is_there_already_is_not_imported_again,
    an_archive_that_lies_is_refused_and_leaves_nothing,
    an_archive_that_ends_anywhere_is_refused_and_leaves_nothing,
    an_interrupted_import_is_resumed,
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

fn imported(archive: &[u8], to: &dyn Repository) -> Result<ImportReport, Error> {
    imported_by(archive, to, &quiet())
}

fn imported_by(archive: &[u8], to: &dyn Repository, run: &Run) -> Result<ImportReport, Error> {
    IncomingArchive::open(archive, run)?.import(to, CopyRules::default())
}

fn second(bench: &Bench, name: &str) -> TestRepository {
    TestRepository::create(&bench.path(name))
}

fn assert_holds(to: &dyn Repository, original: &Manifest) {
    let there = to.manifest(&original.label).unwrap();
    assert!(there.is_copy_of(original));
    let report = verify::verify(to, &Which::All, Depth::Deep, &quiet()).unwrap();
    assert!(report.is_sound(), "{:#?}", report.backups);
}

fn assert_nothing_is_there(to: &dyn Repository, what: &str) {
    assert!(to.list().unwrap().is_empty(), "{what}");
    let left = to.interrupted().unwrap().unwrap_or_default();
    assert_eq!(left.files, 0, "{what}");
}

fn an_imported_archive_is_the_same_backup() {
    let bench = Bench::new(&small());
    let full = bench.full().unwrap();
    for (form, name) in [(ArchiveForm::Plain, "plain"), (ArchiveForm::Zstd, "zstd")] {
        let (archive, report) = exported(&bench.repository, &full.label, form);
        report.unwrap();

        let to = second(&bench, name);
        let report = imported(&archive, &to).unwrap();
        assert!(!report.already_there);
        assert_eq!(report.imported.unwrap().sequence, 1);
        assert_holds(&to, &bench.manifest(&full));

        // It can go on as an archive.
        let (again, report) = exported(&to, &full.label, ArchiveForm::Plain);
        report.unwrap();
        let files = |archive: &[u8]| members(archive).split_off(1);
        let (plain, _) = exported(&bench.repository, &full.label, ArchiveForm::Plain);
        assert_eq!(files(&again), files(&plain));
    }
}

fn an_import_reuses_what_its_parent_has() {
    let bench = Bench::new(&small());
    let full = bench.full().unwrap();
    bench.append(5_000);
    let diff = bench.take().unwrap();
    let to = second(&bench, "second");
    for summary in [&full, &diff] {
        let (archive, report) = exported(&bench.repository, &summary.label, ArchiveForm::Plain);
        report.unwrap();
        imported(&archive, &to).unwrap();
        assert_holds(&to, &bench.manifest(summary));
    }
    let head = to.manifest(&diff.label).unwrap().head;
    assert_eq!((head.sequence, head.parent), (2, Some(full.label)));
    assert!(head.cost.files_linked > 5, "{:?}", head.cost);
}

fn what_is_there_already_is_not_imported_again() {
    let bench = Bench::new(&small());
    let full = bench.full().unwrap();
    let (archive, report) = exported(&bench.repository, &full.label, ArchiveForm::Plain);
    report.unwrap();
    let report = imported(&archive, &bench.repository).unwrap();
    assert!(report.already_there);
    assert_eq!(report.imported, None);

    // An older one would count as newer.
    bench.append(5_000);
    let diff = bench.take().unwrap();
    let to = second(&bench, "second");
    let (newer, report) = exported(&bench.repository, &diff.label, ArchiveForm::Plain);
    report.unwrap();
    imported(&newer, &to).unwrap();
    let error = imported(&archive, &to).unwrap_err();
    assert_eq!(error.kind(), Kind::Refused);
}

/// The members of an archive with their headers, to be changed.
type Members = Vec<(Header, Vec<u8>)>;

fn taken_apart(archive: &[u8]) -> Members {
    let mut members = Vec::new();
    for entry in tar::Archive::new(archive).entries().unwrap() {
        let mut entry = entry.unwrap();
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).unwrap();
        members.push((entry.header().clone(), bytes));
    }
    members
}

/// Puts members together, whatever their headers say.
fn put_together(members: &Members) -> Vec<u8> {
    let mut archive = Vec::new();
    for (header, bytes) in members {
        archive.extend(header.as_bytes());
        archive.extend(bytes);
        archive.resize(archive.len().next_multiple_of(512), 0);
    }
    archive.extend([0; 1024]);
    archive
}

/// Gives a header another name, as no program would.
fn rename(header: &mut Header, name: &str) {
    let old = header.as_old_mut();
    old.name.fill(0);
    old.name[..name.len()].copy_from_slice(name.as_bytes());
    header.set_cksum();
}

fn an_archive_that_lies_is_refused_and_leaves_nothing() {
    let bench = Bench::new(&small());
    let full = bench.full().unwrap();
    let (archive, report) = exported(&bench.repository, &full.label, ArchiveForm::Plain);
    report.unwrap();
    let to = second(&bench, "second");
    let refused = |what: &str, why: &str, change: &dyn Fn(&mut Members)| {
        let mut members = taken_apart(&archive);
        change(&mut members);
        let error = imported(&put_together(&members), &to).unwrap_err();
        assert_eq!(error.kind(), Kind::StoredCorrupt, "{what}: {error:?}");
        assert!(error.in_words().contains(why), "{what}: {error:?}");
        assert_nothing_is_there(&to, what);
    };

    for name in [
        "/etc/passwd",
        "db/../../x",
        "../x",
        "db/./x",
        "x",
        "db\\x",
        "",
    ] {
        refused(name, "no file of a backup", &|members| {
            rename(&mut members[3].0, name);
        });
    }
    refused("unknown", "does not know", &|members| {
        rename(&mut members[3].0, "db/chunk-000099.000000");
    });
    refused("twice", "twice", &|members| {
        let again = members[3].clone();
        members.push(again);
    });
    for kind in [
        EntryType::Symlink,
        EntryType::Link,
        EntryType::Directory,
        EntryType::Char,
        EntryType::Fifo,
        EntryType::GNULongName,
        EntryType::XHeader,
        EntryType::GNUSparse,
    ] {
        refused("kind", "not a plain file", &|members| {
            members[3].0.set_entry_type(kind);
            members[3].0.set_cksum();
        });
    }
    refused("shorter", "not as long", &|members| {
        members[3].1.pop();
        let size = members[3].1.len() as u64;
        members[3].0.set_size(size);
        members[3].0.set_cksum();
    });
    refused("longer than it is", "not as long", &|members| {
        members[3].0.set_size(u64::MAX);
        members[3].0.set_cksum();
    });
    refused("missing", "lacks a file", &|members| drop(members.pop()));
    refused(
        "manifest second",
        "does not begin with the manifest",
        &|members| members.swap(0, 1),
    );
    refused("endless manifest", "too long", &|members| {
        members[0].0.set_size(u64::MAX);
        members[0].0.set_cksum();
    });
    refused("manifest", "manifest", &|members| members[0].1[100] ^= 1);
    refused("header", "checksum", &|members| {
        members[3].0.as_old_mut().mode[6] ^= 1;
    });
    let count = taken_apart(&archive).len();
    for number in 1..count {
        refused("damaged", "BLAKE3", &|members| {
            let middle = members[number].1.len() / 2;
            members[number].1[middle] ^= 1;
        });
    }

    let behind = [&archive[..], &[1]].concat();
    let error = imported(&behind, &to).unwrap_err();
    assert!(error.in_words().contains("behind its end"), "{error:?}");
    assert_nothing_is_there(&to, "behind its end");

    imported(&archive, &to).unwrap();
    assert_holds(&to, &bench.manifest(&full));
}

fn an_archive_that_ends_anywhere_is_refused_and_leaves_nothing() {
    let bench = Bench::new(&small());
    let full = bench.full().unwrap();
    let to = second(&bench, "second");
    for form in [ArchiveForm::Plain, ArchiveForm::Zstd] {
        let (archive, report) = exported(&bench.repository, &full.label, form);
        report.unwrap();
        let mut lengths: Vec<usize> = (0..archive.len()).step_by(archive.len() / 12).collect();
        lengths.extend([
            1,
            3,
            4,
            511,
            512,
            513,
            archive.len() - 1024,
            archive.len() - 1,
        ]);
        for length in lengths {
            let error = imported(&archive[..length], &to).unwrap_err();
            assert_eq!(
                error.kind(),
                Kind::StoredCorrupt,
                "{form:?} {length}: {error:?}"
            );
            assert_nothing_is_there(&to, &format!("{form:?} {length}"));
        }
    }
}

/// Ends its run after so many files.
struct Impatient {
    run: Weak<Run>,
    files: Mutex<usize>,
}

impl Observer for Impatient {
    fn observe(&self, event: &Event) {
        if !matches!(event, Event::Copied { .. }) {
            return;
        }
        let mut files = self.files.lock().unwrap();
        *files = files.saturating_sub(1);
        if let (0, Some(run)) = (*files, self.run.upgrade()) {
            run.interrupt(Signal::Terminate);
        }
    }
}

fn an_interrupted_import_is_resumed() {
    let bench = Bench::new(&small());
    let full = bench.full().unwrap();
    let (archive, report) = exported(&bench.repository, &full.label, ArchiveForm::Plain);
    report.unwrap();
    let to = second(&bench, "second");

    let run = Arc::new_cyclic(|run| {
        Run::new(Impatient {
            run: run.clone(),
            files: Mutex::new(4),
        })
    });
    let error = imported_by(&archive, &to, &run).unwrap_err();
    assert_eq!(error.kind().exit_code(), 143, "{error:?}");
    assert!(to.list().unwrap().is_empty());

    let report = imported(&archive, &to).unwrap().imported.unwrap();
    assert!(report.files_resumed > 0, "{report:?}");
    assert_holds(&to, &bench.manifest(&full));
}

/// No member is read that the manifest does not know, so their number does not matter.
#[test]
fn a_million_members_are_refused_at_the_first() {
    let bench = Bench::new(&small());
    let full = bench.full().unwrap();
    let (archive, report) = exported(&bench.repository, &full.label, ArchiveForm::Plain);
    report.unwrap();
    let mut members = taken_apart(&archive);
    members.truncate(1);
    let mut many = put_together(&members);
    many.truncate(many.len() - 1024);
    let mut header = Header::new_ustar();
    rename(&mut header, "db/chunk-000099.000000");
    let endless = std::iter::repeat_n(*header.as_bytes(), 1_000_000);
    let mut endless = endless
        .flatten()
        .collect::<std::collections::VecDeque<u8>>();

    let run = quiet();
    let input = many.as_slice().chain(&mut endless);
    let archive = IncomingArchive::open(input, &run).unwrap();
    let error = archive
        .import(&MemoryRepository::create(), CopyRules::default())
        .unwrap_err();
    assert_eq!(error.kind(), Kind::StoredCorrupt);
    assert!(endless.len() > 511_000_000, "{}", endless.len());
}

/// An archive, and the backup in it.
fn sample() -> &'static (Vec<u8>, Manifest) {
    static SAMPLE: std::sync::OnceLock<(Vec<u8>, Manifest)> = std::sync::OnceLock::new();
    SAMPLE.get_or_init(|| {
        let bench = Bench::new(&small());
        let full = bench.full().unwrap();
        let (archive, report) = exported(&bench.repository, &full.label, ArchiveForm::Plain);
        report.unwrap();
        (archive, bench.manifest(&full))
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    /// Whatever is changed in an archive: it is refused, or the change was of no consequence.
    #[test]
    fn a_changed_archive_is_never_another_backup(
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        near_headers in any::<bool>(),
        end in proptest::option::of(any::<prop::sample::Index>()),
    ) {
        let (archive, original) = sample();
        let mut changed = archive.clone();
        for (at, byte) in changes {
            let mut at = at.index(changed.len());
            if near_headers {
                at = at / 512 * 512 + at % 157;
            }
            if let Some(changed) = changed.get_mut(at) {
                *changed = byte;
            }
        }
        if let Some(end) = end {
            changed.truncate(end.index(changed.len()));
        }

        let to = MemoryRepository::create();
        match imported(&changed, &to) {
            Ok(_) => prop_assert!(to.manifest(&original.label).unwrap().is_copy_of(original)),
            Err(_) => prop_assert!(to.list().unwrap().is_empty()),
        }
    }
}
