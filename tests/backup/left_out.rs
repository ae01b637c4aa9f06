//! Files that a server can do without: a bad one is left out of the backup, with a warning, and
//! never makes a server refuse to start, lose events or miss streams.

use std::os::unix::fs::{FileExt, PermissionsExt, symlink};
use std::path::PathBuf;

use kbackup::backup::{BackupSummary, RecheckShare};
use kbackup::event::Step;
use kbackup::manifest::{Role, SecondaryIndex};
use kbackup_testnode::{Checkpoint, Synthetic, index};

use super::bench::{Bench, at, files, name, scavenge_state, small, writable};
use crate::stores::{in_every_store, in_stores_with_copies};

in_every_store! {
    a_broken_secondary_index_is_left_out,
    a_scavenge_state_that_is_no_database_is_left_out,
    a_scavenge_state_beyond_the_log_is_left_out,
    a_scavenge_state_of_another_log_is_left_out,
    a_table_filter_that_lacks_streams_is_left_out,
    an_index_that_contradicts_the_log_is_left_out,
}

in_stores_with_copies! {
    a_filter_pair_comes_from_one_moment,
    a_filter_pair_with_a_lost_half_needs_none_on_the_node,
}

fn has(bench: &Bench, summary: &BackupSummary, role: Role) -> bool {
    let manifest = bench.manifest(summary);
    manifest.files.iter().any(|row| row.role == role)
}

fn a_broken_secondary_index_is_left_out() {
    let bench = Bench::of("26.1-append");
    let database = bench.db.join("kurrent.ddb");
    let whole = std::fs::read(&database).unwrap();
    assert!(has(&bench, &bench.full().unwrap(), Role::SecondaryIndex));

    let cut = whole[..3 * 4096 + 100].to_vec();
    let mut wrong_header = whole;
    wrong_header[8..12].fill(0);
    for (what, bytes) in [
        ("empty", Vec::new()),
        ("cut", cut),
        ("wrong header", wrong_header),
    ] {
        std::fs::write(&database, bytes).unwrap();
        std::fs::write(bench.db.join("kurrent.ddb.wal"), b"").unwrap();

        for summary in [bench.full().unwrap(), bench.take().unwrap()] {
            assert!(
                bench.said().contains("leaves kurrent.ddb out"),
                "{what}: {}",
                bench.said()
            );
            assert!(!has(&bench, &summary, Role::SecondaryIndex), "{what}");
            assert_eq!(
                bench.manifest(&summary).contents.secondary_index,
                SecondaryIndex::LeftOut,
                "{what}"
            );
            bench.assert_restores(&summary, &bench.events());
        }
    }
    bench.assert_sound();
}

fn scavenge_state_of(bench: &Bench) -> PathBuf {
    bench.index().join("scavenging/scavenging.db")
}

fn assert_without_scavenge_state(bench: &Bench, what: &str) {
    for summary in [bench.full().unwrap(), bench.take().unwrap()] {
        let said = bench.said();
        assert!(said.contains("leaves scavenging.db out"), "{what}: {said}");
        assert!(!has(bench, &summary, Role::ScavengeState), "{what}");
        bench.assert_restores(&summary, &bench.events());
    }
}

fn a_scavenge_state_that_is_no_database_is_left_out() {
    let bench = Bench::of("26.1-scavenge");
    let state = scavenge_state_of(&bench);
    let whole = std::fs::read(&state).unwrap();
    assert!(has(&bench, &bench.full().unwrap(), Role::ScavengeState));

    let cut = whole[..whole.len() - 5000].to_vec();
    for (what, bytes) in [("garbage", vec![1; 8192]), ("cut", cut)] {
        std::fs::write(&state, bytes).unwrap();
        assert_without_scavenge_state(&bench, what);
    }

    // SQLite takes an empty file for an empty database.
    std::fs::write(&state, b"").unwrap();
    let summary = bench.full().unwrap();
    assert!(has(&bench, &summary, Role::ScavengeState));
    bench.assert_restores(&summary, &bench.events());
    bench.assert_sound();
}

/// O34: the next scavenge of the restored server would remove events that were written since.
fn a_scavenge_state_beyond_the_log_is_left_out() {
    let bench = Bench::new(&small());
    let state = scavenge_state_of(&bench);
    std::fs::create_dir_all(state.parent().unwrap()).unwrap();

    let end = u64::try_from(bench.get(Checkpoint::Writer)).unwrap();
    for point in [end, end + 1, 99_999_999] {
        std::fs::write(&state, scavenge_state(&[point])).unwrap();
        assert_without_scavenge_state(&bench, &point.to_string());
    }
    bench.assert_sound();
}

fn a_scavenge_state_of_another_log_is_left_out() {
    let bench = Bench::new(&small());
    let state = scavenge_state_of(&bench);
    std::fs::create_dir_all(state.parent().unwrap()).unwrap();

    // There is an event in the log, but no scavenge point.
    std::fs::write(&state, scavenge_state(&[64 * 1024])).unwrap();
    assert_without_scavenge_state(&bench, "another log");
    bench.assert_sound();
}

/// The file system may lose lines of a filter, or report them as holes. A line of zeros is a line
/// that holds no stream, and a server takes the filter's word for it.
fn a_table_filter_that_lacks_streams_is_left_out() {
    for source in ["21.10-append", "24.10-scavenge", "26.1-append"] {
        let bench = Bench::of(source);
        let mut filters = files(&bench.index());
        filters.retain(|path| name(path).ends_with(".bloomfilter"));
        let filter = filters.remove(0);
        writable(&filter, |file| {
            file.write_all_at(&[0; 98 * 64], 64).unwrap();
        });

        let summary = bench.full().unwrap();
        assert!(summary.index, "{source}");
        let said = bench.said();
        assert!(said.contains("does not know a stream"), "{source}: {said}");

        let manifest = bench.manifest(&summary);
        let mut names = manifest.files.iter().map(|row| row.path.file_name());
        assert!(!names.any(|stored| stored == name(&filter)), "{source}");
        let kept = manifest
            .files
            .iter()
            .filter(|row| row.role == Role::TableFilter);
        assert_eq!(kept.count(), filters.len(), "{source}");

        bench.assert_restores(&summary, &bench.events());
        bench.assert_sound();
    }
}

fn pair(bench: &Bench) -> [PathBuf; 2] {
    ["chk", "dat"].map(|kind| {
        let place = bench.index().join("stream-existence");
        place.join(format!("streamExistenceFilter.{kind}"))
    })
}

const PAIR: [&str; 2] = [
    "index/stream-existence/streamExistenceFilter.chk",
    "index/stream-existence/streamExistenceFilter.dat",
];

fn a_filter_pair_with_a_lost_half_needs_none_on_the_node() {
    for lost in PAIR {
        for gone in [&[0, 1][..], &[0], &[1]] {
            // A recheck would find the lost half before the run looks for the pair.
            let mut bench = Bench::new(&small());
            bench.request.recheck = RecheckShare::Bytes(0);
            let first = bench.take().unwrap();
            assert!(has(&bench, &first, Role::StreamFilter));

            bench.repository.lose(&first.label, &lost.parse().unwrap());
            for half in gone {
                std::fs::remove_file(&pair(&bench)[*half]).unwrap();
            }

            let second = bench
                .take()
                .unwrap_or_else(|error| panic!("{lost} {gone:?}: {error} {:?}", error.causes()));
            let manifest = bench.manifest(&second);
            for path in PAIR {
                let mut rows = manifest.files.iter();
                assert!(
                    !rows.any(|row| row.path.to_string() == path),
                    "{lost} {gone:?}"
                );
            }
            bench.assert_restores(&second, &bench.events());
        }
    }
}

/// The stored checkpoint is gone. The node's checkpoint is readable in the first attempt, and its
/// filter only in the second. The stored filter belongs to the lost checkpoint, and not to the
/// node's.
fn a_filter_pair_comes_from_one_moment() {
    let bench = Bench::new(&small());
    let first = bench.take().unwrap();
    let [checkpoint, filter] = pair(&bench);

    // Meanwhile the node has put every stream into the filter.
    let end = bench.get(Checkpoint::Writer);
    std::fs::write(&checkpoint, end.to_le_bytes()).unwrap();
    writable(&filter, |file| {
        let lines = file.metadata().unwrap().len() / 64;
        let mut line = [0xff; 64];
        let hash = index::early_xxhash(&line[..60]);
        line[60..].copy_from_slice(&hash.to_le_bytes());
        for number in 1..lines {
            file.write_all_at(&line, number * 64).unwrap();
        }
    });
    let new = std::fs::read(&filter).unwrap();

    bench
        .repository
        .lose(&first.label, &PAIR[0].parse().unwrap());
    let elsewhere = bench.path("elsewhere");
    std::fs::rename(&filter, &elsewhere).unwrap();
    symlink("nowhere", &filter).unwrap();
    let back = at(Step::Index, 2, move || {
        std::fs::remove_file(&filter).unwrap();
        std::fs::rename(&elsewhere, &filter).unwrap();
    });

    let second = bench.take_with(&bench.request, back).unwrap();
    let stored = PAIR.map(|path| bench.repository.read(&second.label, path));
    assert_eq!(stored[0], end.to_le_bytes());
    assert!(
        stored[1] == new,
        "the filter is an older one than its checkpoint"
    );
    bench.assert_restores(&second, &bench.events());
}

/// The active chunk has no MD5 of the server's. Its events are compared with the tables' entries.
fn an_index_that_contradicts_the_log_is_left_out() {
    let bench = Bench::new(&Synthetic {
        table_entries: 30,
        ..small()
    });
    let events = bench.events();
    let indexed = bench.manifest(&bench.full().unwrap()).log.index_commit;
    let begin = 5 * 64 * 1024;
    assert!(
        indexed.unwrap().get() > begin,
        "no entry lies in the active chunk"
    );

    // A letter of the name of the first event's stream in the active chunk is another one.
    let chunk = bench.chunk(5, 0);
    let bytes = std::fs::read(&chunk).unwrap();
    let mut names = bytes.windows(10).enumerate();
    let (at, _) = names.find(|(_, bytes)| *bytes == b"synthetic-").unwrap();
    writable(&chunk, |file| file.write_all_at(b"x", at as u64).unwrap());

    let summary = bench.full().unwrap();
    let said = bench.said();
    assert!(
        !summary.index && said.contains("contradicts the log"),
        "{said}"
    );
    bench.assert_restores(&summary, &events);
    bench.assert_sound();
}

#[test]
fn a_stored_secondary_index_that_no_server_opens_is_found() {
    let bench = Bench::of("26.1-append");
    let summary = bench.full().unwrap();
    bench.assert_sound();

    replace_stored(&bench, &summary, "db/kurrent.ddb", b"not a database");
    let said = bench.findings();
    assert!(
        said.contains("db/kurrent.ddb") && said.contains("O35"),
        "{said}"
    );
}

#[test]
fn a_stored_scavenge_state_that_is_no_database_is_found() {
    let bench = Bench::of("26.1-scavenge");
    let summary = bench.full().unwrap();
    bench.assert_sound();

    let state = "index/scavenging/scavenging.db";
    replace_stored(&bench, &summary, state, &[1; 8192]);
    let said = bench.findings();
    assert!(said.contains(state) && said.contains("SQLite"), "{said}");
}

#[test]
fn a_stored_table_filter_that_lacks_streams_is_found() {
    let bench = Bench::of("26.1-append");
    let summary = bench.full().unwrap();
    bench.assert_sound();

    let manifest = bench.manifest(&summary);
    let mut rows = manifest.files.iter();
    let row = rows.find(|row| row.role == Role::TableFilter).unwrap();
    let path = row.path.to_string();
    let mut bytes = bench.repository.read(&summary.label, &path);
    bytes[64..99 * 64].fill(0);
    replace_stored(&bench, &summary, &path, &bytes);

    let said = bench.findings();
    assert!(
        said.contains(&path) && said.contains("does not know a stream"),
        "{said}"
    );
}

/// Replaces a stored file, and says so in its row: as if kbackup had captured these bytes.
fn replace_stored(bench: &Bench, summary: &BackupSummary, path: &str, bytes: &[u8]) {
    let stored = bench.stored(summary);
    let place = stored.join(path);
    std::fs::set_permissions(&place, PermissionsExt::from_mode(0o644)).unwrap();
    std::fs::write(&place, bytes).unwrap();

    let mut manifest = bench.manifest(summary);
    let mut rows = manifest.files.iter_mut();
    let row = rows.find(|row| row.path.to_string() == path).unwrap();
    row.size = bytes.len() as u64;
    row.blake3 = kbackup::manifest::Blake3Hash::of(bytes);
    manifest.totals = kbackup::manifest::Totals::of(&manifest.files);
    std::fs::write(
        stored.join("manifest.json"),
        crate::conformance::text(&manifest),
    )
    .unwrap();
}
