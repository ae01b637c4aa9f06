//! The bytes that a backup reads, and the memory that it needs.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use kbackup::backup::BackupSummary;
use kbackup::manifest::{BackupKind, Role};
use kbackup_testnode::{Made, Synthetic};

use super::bench::{Bench, elect, small};
use crate::executable::{kbackup, kbackup_with_fault, stderr};
use crate::stores::in_stores_of_this_process;

in_stores_of_this_process! {
    a_diff_reads_little_more_than_the_appended_bytes,
    a_filter_is_read_again_when_it_is_due,
    a_diff_does_not_read_each_old_epoch_again,
}

/// The bytes that a diff may read beyond the new ones, for a source of this size
/// (docs/procedure.md).
fn fixed_rest(bench: &Bench, summary: &BackupSummary) -> u64 {
    let manifest = bench.manifest(summary);
    let count = |role| manifest.files.iter().filter(|row| row.role == role).count() as u64;
    let map = manifest
        .files
        .iter()
        .find(|row| row.role == Role::IndexMap)
        .map_or(0, |row| row.size);
    512 * count(Role::Chunk) + 272 * count(Role::Table) + 64 * 1024 + 2 * map + 4 * 80 + 4096
}

/// The padding, footer and header of each chunk that is new or completed. A diff reads them too.
fn around(chunks: u64) -> u64 {
    chunks * (4096 + 256)
}

fn assert_cost(bench: &Bench, summary: &BackupSummary, chunks: u64) {
    assert_eq!(summary.kind, BackupKind::Diff);
    let most = summary.log_bytes_added + around(chunks) + fixed_rest(bench, summary);
    assert!(
        summary.bytes_read <= most,
        "{} bytes were read, {most} would be enough",
        summary.bytes_read
    );
}

fn a_diff_reads_little_more_than_the_appended_bytes() {
    let (bench, Made { writer, .. }) = Bench::made(&Synthetic {
        filter_bytes: 256_000_000,
        ..small()
    });

    let full = bench.take().unwrap();
    assert!(full.bytes_read > writer + 256_000_000);

    let nothing = bench.take().unwrap();
    assert_eq!(nothing.log_bytes_added, 0);
    assert_cost(&bench, &nothing, 0);
    assert_eq!(nothing.files_copied, 6, "indexmap, and five checkpoints");

    for (bytes, chunks) in [(5_000, 0), (20_000, 1), (100_000, 2), (64 * 1024, 2)] {
        bench.append(bytes);
        let diff = bench.take().unwrap();
        assert!(diff.log_bytes_added >= bytes);
        assert_cost(&bench, &diff, chunks);
    }
    bench.assert_sound();
}

fn a_diff_does_not_read_each_old_epoch_again() {
    let bench = Bench::new(&Synthetic {
        active_bytes: 2_000,
        ..small()
    });
    for number in 1..=100 {
        elect(&bench.db, number, 1000 + u128::from(number));
    }
    bench.append(1_000);
    bench.take().unwrap();

    let nothing = bench.take().unwrap();
    assert_eq!(nothing.log_bytes_added, 0);
    assert_cost(&bench, &nothing, 0);

    elect(&bench.db, 101, 1101);
    bench.append(1_000);
    let diff = bench.take().unwrap();
    assert_cost(&bench, &diff, 0);
    let epochs = bench.manifest(&diff).log.lineage.epochs().to_vec();
    assert_eq!(epochs.len(), 102);
    assert_eq!(epochs.last().map(|epoch| epoch.number), Some(101));
    bench.assert_sound();
}

fn a_filter_is_read_again_when_it_is_due() {
    let mut bench = Bench::new(&Synthetic {
        filter_bytes: 5_000_000,
        ..small()
    });
    bench.take().unwrap();
    bench.request.filter_max_age = std::time::Duration::ZERO;
    std::thread::sleep(std::time::Duration::from_millis(1100));
    assert!(bench.take().unwrap().bytes_read > 5_000_000);
}

/// The bytes that a process has read, its peak memory in bytes, and its answer.
struct Used {
    read: u64,
    memory: u64,
    answer: serde_json::Value,
}

fn execute(verb: &str, db: &Path, repository: &Path) -> Used {
    let answer = repository.with_extension("answer");
    let mut child = kbackup()
        .args([verb, "--offline", "--json", "--log", "error", "--db"])
        .arg(db)
        .arg("--repo")
        .arg(repository)
        .stdout(std::fs::File::create(&answer).unwrap())
        .stdin(Stdio::null())
        .spawn()
        .unwrap();

    let place = PathBuf::from(format!("/proc/{}", child.id()));
    let field = |file: &str, name: &str| -> Option<u64> {
        let text = std::fs::read_to_string(place.join(file)).ok()?;
        let line = text.lines().find_map(|line| line.strip_prefix(name))?;
        line.split_whitespace().next()?.parse().ok()
    };

    let (mut read, mut memory) = (0, 0);
    loop {
        read = field("io", "rchar:").unwrap_or(read);
        memory = field("status", "VmHWM:").unwrap_or(memory);

        // The kernel keeps these numbers until the parent waits for the process.
        if std::fs::read_to_string(place.join("stat"))
            .unwrap()
            .contains(") Z ")
        {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(1));
    }

    read = field("io", "rchar:").unwrap_or(read);
    let status = child.wait().unwrap();
    assert!(matches!(status.code(), Some(0 | 3)), "{status}");

    Used {
        read,
        memory: memory * 1024,
        answer: serde_json::from_slice(&std::fs::read(answer).unwrap()).unwrap(),
    }
}

/// The copy shows header and footer of a chunk. After that, kbackup opens the stored file only
/// once, to set its attributes.
#[test]
fn a_copied_chunk_is_not_read_again() {
    let bench = Bench::new(&small());
    // So that no path of the source looks like one of the repository.
    let source = bench.path("data");
    std::fs::rename(&bench.db, &source).unwrap();

    for (opened, code) in [(2, 1), (3, 0)] {
        let output = kbackup_with_fault(format!("open:/db/chunk-000001.000000:{opened}:5"))
            .args(["full", "--offline", "--db"])
            .arg(&source)
            .arg("--repo")
            .arg(bench.path(&format!("repository-{opened}")))
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(code), "{}", stderr(&output));
    }
}

/// The bytes that a process reads for itself: libraries, the locale, /proc for the probes, and the
/// repository's own files.
const OF_ITSELF: u64 = 6 << 20;
const MEMORY: u64 = 64 << 20;

#[test]
fn large_chunks_cost_no_memory_and_are_read_once() {
    let big = Synthetic {
        chunk_size: 256 << 20,
        completed_chunks: 2,
        active_bytes: 60 << 20,
        event_bytes: 1 << 20,
        most_events_in_append: 2,
        streams: 3,
        table_entries: 100,
        filter_bytes: 256_000_000,
        ..Synthetic::default()
    };
    let (bench, made) = Bench::made(&big);

    let repository = bench.path("repository");
    let full = execute("full", &bench.db, &repository);
    assert!(
        full.memory < MEMORY,
        "{} bytes of memory for a full",
        full.memory
    );

    let told = full.answer["bytes_read"].as_u64().unwrap();
    let filter = bench
        .index()
        .join("stream-existence/streamExistenceFilter.dat")
        .metadata()
        .unwrap()
        .len();

    let completed: u64 = (0..2)
        .map(|number| bench.chunk(number, 0).metadata().unwrap().len())
        .sum();
    let all = completed + made.writer % (256 << 20) + filter;

    assert!(told >= all && told < all + 1_000_000, "{told} of {all}");

    // The process reads each byte once from the node. If the kernel copies or shares the blocks, it
    // reads them once from the repository too, to check the records.
    assert!(
        full.read >= told && full.read < 2 * told + OF_ITSELF,
        "{} against {told}",
        full.read
    );

    let diff = execute("diff", &bench.db, &repository);
    let told = diff.answer["bytes_read"].as_u64().unwrap();

    assert!(
        diff.memory < MEMORY,
        "{} bytes of memory for a diff",
        diff.memory
    );

    assert!(told < 200_000, "{told}");

    // Nothing was appended, so all files are linked, the active chunk too. The stored bytes are fewer
    // than the share that is hashed again.
    let rechecked = completed + filter + (60 << 20);
    assert!(diff.read < rechecked + OF_ITSELF, "{} were read", diff.read);
    assert!(
        diff.answer["bytes_stored"].as_u64().unwrap() < 100_000,
        "{}",
        diff.answer
    );

    bench.append(3_000_000);

    let grown = execute("diff", &bench.db, &repository);
    let told = grown.answer["bytes_read"].as_u64().unwrap();
    assert!((3_000_000..5_000_000).contains(&told), "{told}");

    // The first 60 MiB of the active chunk are read once more: they are copied within the
    // repository, and proven.
    assert!(
        grown.read < rechecked + (70 << 20) + OF_ITSELF,
        "{} were read",
        grown.read
    );
}

#[test]
fn thousands_of_chunks_cost_no_memory() {
    let tiny = Synthetic {
        chunk_size: 8192,
        completed_chunks: 1500,
        active_bytes: 2000,
        event_bytes: 3000,
        most_events_in_append: 1,
        ..small()
    };

    let (bench, _) = Bench::made(&tiny);
    let repository = bench.path("repository");
    let full = execute("full", &bench.db, &repository);

    let diff = execute("diff", &bench.db, &repository);
    assert!(
        full.memory < MEMORY && diff.memory < MEMORY,
        "{} and {} bytes of memory",
        full.memory,
        diff.memory
    );

    let told = diff.answer["bytes_read"].as_u64().unwrap();
    assert!(told < 512 * 1501 + 64 * 1024 + 200_000, "{told}");
    assert_eq!(diff.answer["files_linked"].as_u64().unwrap() / 1500, 1);
}
