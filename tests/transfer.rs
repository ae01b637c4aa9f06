//! A copy has the bytes, the holes and the hashes of its source, whichever method copied it.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test may end in a panic"
)]

use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use kbackup::error::{Error, Kind, Signal};
use kbackup::event::{Event, Observer, Silent};
use kbackup::fs::{self, ReadAt};
use kbackup::manifest::Blake3Hash;
use kbackup::pace::Rate;
use kbackup::run::Run;
use kbackup::transfer::{self, Copied, CopyFailure, CopyPlan, Digest, Follow, Segment};
use proptest::prelude::*;

const KIB: usize = 1024;

/// A file as it is made: what it reads as, and which ranges were written.
#[derive(Debug, Clone)]
struct Sparse {
    bytes: Vec<u8>,
    written: Vec<std::ops::Range<usize>>,
}

impl Sparse {
    fn store(&self, path: &Path) {
        let file = std::fs::File::create(path).unwrap();
        file.set_len(self.bytes.len() as u64).unwrap();
        for range in &self.written {
            file.write_all_at(&self.bytes[range.clone()], range.start as u64)
                .unwrap();
        }
    }
}

/// Runs of data, of written zeros, and of holes, at lengths that fit no block and some that do.
fn sparse() -> impl Strategy<Value = Sparse> {
    let length = prop_oneof![
        1..9000_usize,
        (1..5_usize).prop_map(|blocks| blocks * 64 * KIB),
        Just(1024 * KIB),
        1..400 * KIB
    ];
    proptest::collection::vec((0..3_u8, length, any::<u8>()), 0..8).prop_map(|runs| {
        let mut made = Sparse {
            bytes: Vec::new(),
            written: Vec::new(),
        };

        for (kind, length, seed) in runs {
            let start = made.bytes.len();
            let byte = |index: usize| {
                if kind == 0 {
                    u8::try_from(index % 251).unwrap().wrapping_add(seed) | 1
                } else {
                    0
                }
            };
            made.bytes.extend((0..length).map(byte));
            if kind < 2 {
                made.written.push(start..start + length);
            }
        }

        made
    })
}

fn silent() -> Run {
    Run::new(Silent)
}

fn digest(bytes: &[u8]) -> Digest {
    let md5 = <md5::Md5 as md5::Digest>::digest(&bytes[..bytes.len().saturating_sub(16)]);
    Digest {
        size: bytes.len() as u64,
        blake3: Blake3Hash::of(bytes),
        md5: Some(kbackup::format::Md5Hash(md5.into())),
    }
}

/// Directories on one file system and, if there is another, on that.
fn targets() -> Vec<tempfile::TempDir> {
    let mut targets = vec![tempfile::tempdir().unwrap()];
    targets.extend(tempfile::tempdir_in("/dev/shm"));
    targets
}

fn copy_whole(
    source: &dyn ReadAt,
    length: u64,
    full_length: u64,
    reads_every_byte: bool,
    target: &fs::File,
) -> Result<Copied, CopyFailure> {
    let segments = [Segment {
        source,
        place: "source",
        end: length,
        reads_every_byte,
        whole: None,
    }];
    transfer::copy(
        &CopyPlan {
            segments: &segments,
            full_length,
            md5: true,
        },
        target,
        None,
        &silent(),
    )
}

/// Bytes that are not in a hole.
fn allocated(path: &Path) -> u64 {
    std::fs::metadata(path).unwrap().blocks() * 512
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn a_copy_is_its_source(
        sparse in sparse(),
        cut: proptest::sample::Index,
        more in 0..300_000_usize,
        reads_every_byte: bool,
    ) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("source");
        sparse.store(&path);
        let length = cut.index(sparse.bytes.len() + 1);
        let full = (length + more) as u64;
        let mut expected = sparse.bytes[..length].to_vec();
        expected.resize(length + more, 0);

        for place in targets() {
            let copy = place.path().join("copy");
            let target = fs::create_new(&copy, 0o600).unwrap();
            let source = fs::open_source(&path).unwrap();
            let copied = copy_whole(&source, length as u64, full, reads_every_byte, &target).unwrap();
            prop_assert!(std::fs::read(&copy).unwrap() == expected);
            prop_assert_eq!(copied.digest, digest(&expected));
            prop_assert!(copied.written <= copied.read && copied.read <= length as u64);
            prop_assert!(allocated(&copy) <= length as u64 + 8 * 1024);
        }

        prop_assert!(std::fs::read(&path).unwrap() == sparse.bytes, "the source is as it was");
    }

    #[test]
    fn a_source_that_is_no_file_is_copied_too(sparse in sparse()) {
        let directory = tempfile::tempdir().unwrap();
        let copy = directory.path().join("copy");
        let target = fs::create_new(&copy, 0o600).unwrap();
        let size = sparse.bytes.len() as u64;
        let copied = copy_whole(&sparse.bytes, size, size, false, &target).unwrap();
        prop_assert!(std::fs::read(&copy).unwrap() == sparse.bytes);
        prop_assert_eq!(copied.digest, digest(&sparse.bytes));
        prop_assert_eq!(copied.read, size);
    }

    #[test]
    fn an_extended_file_is_a_whole_copy(
        sparse in sparse(),
        cut: proptest::sample::Index,
        longer in 0..200_000_usize,
        wrong: bool,
    ) {
        let directory = tempfile::tempdir().unwrap();
        let names = ["held", "whole", "copy"];
        let (held, whole, copy) = names.map(|name| directory.path().join(name)).into();
        sparse.store(&whole);
        let prefix = cut.index(sparse.bytes.len() + 1);
        let mut old = sparse.bytes[..prefix].to_vec();
        old.resize(prefix + longer, 7);
        std::fs::write(&held, &old).unwrap();
        let (held, whole) = (fs::open(&held).unwrap(), fs::open_source(&whole).unwrap());
        let target = fs::create_new(&copy, 0o600).unwrap();
        let size = sparse.bytes.len() as u64;
        let hash = Blake3Hash::of(if wrong { b"other" } else { &old });
        let segments = [
            Segment {
                source: &held,
                place: "held",
                end: prefix as u64,
                reads_every_byte: false,
                whole: Some(hash),
            },
            Segment {
                source: &whole,
                place: "whole",
                end: size,
                reads_every_byte: true,
                whole: None,
            },
        ];
        let plan = CopyPlan {
            segments: &segments,
            full_length: size,
            md5: true,
        };
        let copied = transfer::copy(&plan, &target, None, &silent());

        if wrong {
            let failure = copied.unwrap_err();
            prop_assert!(
                matches!(&failure, CopyFailure::Other { place, .. } if place == "held"),
                "{failure:?}"
            );
            return Ok(());
        }
        let copied = copied.unwrap();

        prop_assert!(std::fs::read(&copy).unwrap() == sparse.bytes);
        prop_assert_eq!(copied.digest, digest(&sparse.bytes));
    }

    #[test]
    fn a_file_hashes_to_what_its_bytes_hash_to(sparse in sparse()) {
        let hashed = transfer::hash_file(&sparse.bytes, true, &silent()).unwrap();
        prop_assert_eq!(hashed, digest(&sparse.bytes));
        let plain = transfer::hash_file(&sparse.bytes, false, &silent()).unwrap();
        prop_assert_eq!(plain, Digest { md5: None, ..digest(&sparse.bytes) });
    }
}

#[test]
fn holes_stay_holes() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("source");
    let mut made = Sparse {
        bytes: vec![0; 16 * KIB * KIB],
        written: vec![0..70 * KIB, 8 * KIB * KIB..8 * KIB * KIB + 100],
    };
    for range in made.written.clone() {
        made.bytes[range].fill(3);
    }
    made.store(&path);

    for place in targets() {
        for reads_every_byte in [false, true] {
            let copy = place.path().join(format!("copy-{reads_every_byte}"));
            let source = fs::open_source(&path).unwrap();
            let copied = copy_whole(
                &source,
                source.size(),
                20 << 20,
                reads_every_byte,
                &fs::create_new(&copy, 0o600).unwrap(),
            )
            .unwrap();
            assert!(
                allocated(&copy) < 1024 * 1024,
                "{reads_every_byte}: {}",
                allocated(&copy)
            );
            assert!(
                reads_every_byte || copied.read < 1024 * 1024,
                "holes are not read: {}",
                copied.read
            );
            assert_eq!(copied.digest.size, 20 << 20);
        }
    }
}

/// A file of a store that fails or ends too early.
struct Failing {
    size: u64,
    good: u64,
    error: Option<i32>,
}

impl ReadAt for Failing {
    fn size(&self) -> u64 {
        self.size
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> std::io::Result<usize> {
        let count = usize::try_from(self.good.saturating_sub(offset))
            .unwrap()
            .min(buffer.len());
        buffer[..count].fill(1);
        match self.error {
            Some(error) if count == 0 => Err(std::io::Error::from_raw_os_error(error)),
            _ => Ok(count),
        }
    }
}

#[test]
fn trouble_with_the_source_differs_from_trouble_with_the_target() {
    let directory = tempfile::tempdir().unwrap();
    let fail = |source: &Failing, name: &str| {
        let target = fs::create_new(&directory.path().join(name), 0o600).unwrap();
        copy_whole(source, source.size, source.size, false, &target).unwrap_err()
    };
    let short = fail(
        &Failing {
            size: 5_000_000,
            good: 3_000_000,
            error: None,
        },
        "short",
    );
    assert!(
        matches!(
            &short,
            CopyFailure::Short { wanted: 5_000_000, found: 3_000_000, place } if place == "source"
        ),
        "{short:?}"
    );
    assert_eq!(Error::from(short).kind(), Kind::Unstable);

    let broken = fail(
        &Failing {
            size: 5_000_000,
            good: 3_000_000,
            error: Some(5),
        },
        "broken",
    );
    assert_eq!(broken.source_place(), Some("source"));
    assert_eq!(Error::from(broken).kind(), Kind::Failed);

    let stale = fail(
        &Failing {
            size: 5_000_000,
            good: 3_000_000,
            error: Some(116),
        },
        "stale",
    );
    assert_eq!(Error::from(stale).kind(), Kind::Unstable);

    let full = fs::open_for_writing(Path::new("/dev/full")).unwrap();
    let source = vec![1; 100];
    assert!(matches!(
        copy_whole(&source, 100, 100, false, &full).unwrap_err(),
        CopyFailure::Target(_)
    ));
}

#[test]
fn a_source_that_was_cut_is_short_also_in_its_holes() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("source");
    Sparse {
        bytes: vec![0; 3 * KIB * KIB],
        written: Vec::new(),
    }
    .store(&path);
    for reads_every_byte in [false, true] {
        let source = fs::open_source(&path).unwrap();
        let target =
            fs::create_new(&directory.path().join(format!("{reads_every_byte}")), 0o600).unwrap();
        let failure = copy_whole(&source, 4 << 20, 4 << 20, reads_every_byte, &target).unwrap_err();
        assert!(
            matches!(failure, CopyFailure::Short { found, .. } if found == 3 << 20),
            "{failure:?}"
        );
    }
}

#[derive(Default)]
struct Counting {
    bytes: AtomicU64,
    stop_at: Option<u64>,
    run: Mutex<Option<Arc<Run>>>,
}

struct Shared(Arc<Counting>);

impl Observer for Shared {
    fn observe(&self, event: &Event) {
        let Event::Progress { bytes } = event else {
            return;
        };
        let sum = self.0.bytes.fetch_add(*bytes, Ordering::SeqCst) + bytes;
        if self.0.stop_at.is_some_and(|stop| sum >= stop) {
            self.0
                .run
                .lock()
                .unwrap()
                .as_ref()
                .unwrap()
                .interrupt(Signal::Interrupt);
        }
    }
}

fn counting(stop_at: Option<u64>) -> (Arc<Run>, Arc<Counting>) {
    let counting = Arc::new(Counting {
        stop_at,
        ..Counting::default()
    });
    let run = Arc::new(Run::new(Shared(counting.clone())));
    *counting.run.lock().unwrap() = Some(run.clone());
    (run, counting)
}

#[test]
fn progress_adds_up_and_an_interruption_ends_soon() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("source");
    std::fs::write(&path, vec![5; 20_000_000]).unwrap();
    let source = fs::open_source(&path).unwrap();

    for reads_every_byte in [false, true] {
        let segments = [Segment {
            source: &source,
            place: "source",
            end: 20_000_000,
            reads_every_byte,
            whole: None,
        }];
        let plan = CopyPlan {
            segments: &segments,
            full_length: 20_000_000,
            md5: true,
        };
        let target = |name: &str| {
            fs::create_new(
                &directory.path().join(format!("{name}-{reads_every_byte}")),
                0o600,
            )
            .unwrap()
        };

        let (run, count) = counting(None);
        transfer::copy(&plan, &target("all"), None, &run).unwrap();
        assert_eq!(count.bytes.load(Ordering::SeqCst), 20_000_000);

        let (run, count) = counting(Some(8_000_000));
        let failure = transfer::copy(&plan, &target("part"), None, &run).unwrap_err();
        assert_eq!(Error::from(failure).kind().exit_code(), 130);
        assert!(count.bytes.load(Ordering::SeqCst) < 16_000_000);
    }

    let (run, count) = counting(None);
    transfer::hash_file(&source, true, &run).unwrap();
    assert_eq!(count.bytes.load(Ordering::SeqCst), 20_000_000);
}

/// Blocks are shared only on some file systems; run the tests with TMPDIR on one of them.
#[test]
fn a_copy_does_not_change_with_its_source() {
    let directory = tempfile::tempdir().unwrap();
    let (from, to) = (directory.path().join("from"), directory.path().join("to"));
    std::fs::write(&from, vec![1; 300_000]).unwrap();
    let source = fs::open_for_writing(&from).unwrap();
    let target = fs::create_new(&to, 0o600).unwrap();
    copy_whole(&source, 100_001, 200_000, false, &target).unwrap();
    source.write_all_at(0, &[2; 300_000]).unwrap();
    assert_eq!(
        std::fs::read(&to).unwrap(),
        [vec![1; 100_001], vec![0; 99_999]].concat()
    );
}

/// Whenever it is called, reads what is new, and a bit of what it has seen.
struct Watching {
    expected: Vec<u8>,
    seen: Arc<Mutex<Vec<u64>>>,
}

impl Follow for Watching {
    fn follow(&mut self, stored: &dyn ReadAt, end: u64) {
        let mut seen = self.seen.lock().unwrap();
        let begin = seen
            .last()
            .copied()
            .unwrap_or_default()
            .saturating_sub(70_000);
        let mut bytes = vec![0; usize::try_from(end - begin).unwrap()];
        stored.read_exact_at(begin, &mut bytes).unwrap();
        assert!(
            bytes == self.expected[usize::try_from(begin).unwrap()..usize::try_from(end).unwrap()],
            "{begin} to {end}"
        );
        assert_eq!(stored.size(), self.expected.len() as u64);
        seen.push(end);
    }

    /// The store calls this. If the copy did, the test would see nothing.
    fn finish(&mut self, _: &dyn ReadAt) {
        self.seen.lock().unwrap().clear();
    }
}

#[test]
fn a_follower_sees_the_whole_copy() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("source");

    // With a hole, with zeros that become one, and with an end that fits no block.
    let data = |seed: usize, length: usize| -> Vec<u8> {
        (0..length)
            .map(|index| u8::try_from((index * 7 + seed) % 251).unwrap() | 1)
            .collect()
    };
    let sparse = Sparse {
        bytes: [
            data(1, 3_000_000),
            vec![0; 1_000_000],
            data(2, 2_500_000),
            vec![0; 200_000],
            data(3, 12_345),
        ]
        .concat(),
        written: vec![0..3_000_000, 4_000_000..6_712_345],
    };
    sparse.store(&path);
    let source = fs::open_source(&path).unwrap();

    for place in targets() {
        for reads_every_byte in [false, true] {
            let target = fs::create_new(
                &place.path().join(format!("copy-{reads_every_byte}")),
                0o600,
            )
            .unwrap();
            let size = sparse.bytes.len() as u64;
            let segments = [Segment {
                source: &source,
                place: "source",
                end: size,
                reads_every_byte,
                whole: None,
            }];
            let mut expected = sparse.bytes.clone();
            expected.resize(sparse.bytes.len() + 5000, 0);
            let seen = Arc::default();
            let mut watching = Watching {
                expected,
                seen: Arc::clone(&seen),
            };
            let plan = CopyPlan {
                segments: &segments,
                full_length: size + 5000,
                md5: true,
            };
            let copied = transfer::copy(&plan, &target, Some(&mut watching), &silent()).unwrap();
            assert_eq!(copied.digest, digest(&watching.expected));
            assert_eq!(seen.lock().unwrap().last(), Some(&size));
        }
    }
}

/// Copies, and says how many bytes were read.
fn copied(source: &Path, target: &Path, reads_every_byte: bool, run: &Run) -> u64 {
    let source = fs::open_source(source).unwrap();
    let segment = Segment {
        source: &source,
        place: "source",
        end: source.size(),
        reads_every_byte,
        whole: None,
    };
    let plan = CopyPlan {
        segments: &[segment],
        full_length: source.size(),
        md5: true,
    };
    transfer::copy(&plan, &fs::create_new(target, 0o600).unwrap(), None, run)
        .unwrap()
        .read
}

/// A directory in memory, where the kernel copies, and one wherever temporary files are.
fn two_places() -> [tempfile::TempDir; 2] {
    [
        tempfile::tempdir_in("/dev/shm").unwrap(),
        tempfile::tempdir().unwrap(),
    ]
}

#[test]
fn every_method_of_copying_keeps_to_the_pace() {
    const SIZE: usize = 3 << 20;
    const RATE: u64 = 8 << 20;

    for place in two_places() {
        let source = place.path().join("source");
        std::fs::write(&source, vec![7; SIZE]).unwrap();

        for (name, reads_every_byte) in [
            ("by kernel, or past the cache", false),
            ("by reading", true),
        ] {
            let run = silent().limited_to(Rate::new(RATE));
            let started = Instant::now();

            // Two threads have one budget.
            let read: u64 = std::thread::scope(|scope| {
                let copy = |number: u8| {
                    copied(
                        &source,
                        &place.path().join(format!("{name} {number}")),
                        reads_every_byte,
                        &run,
                    )
                };
                let threads = [1, 2].map(|number| scope.spawn(move || copy(number)));
                threads
                    .into_iter()
                    .map(|thread| thread.join().unwrap())
                    .sum()
            });
            assert_eq!(read, 2 * SIZE as u64);

            // An eighth of a second is what may have been saved up.
            let least = Duration::from_millis(read * 1000 / RATE - 125);
            assert!(
                started.elapsed() >= least,
                "{name}: {:?} instead of {least:?}",
                started.elapsed()
            );
        }
    }
}

#[test]
fn a_copy_at_a_slow_pace_can_be_interrupted() {
    let place = tempfile::tempdir().unwrap();
    let source = place.path().join("source");
    std::fs::write(&source, vec![7; 64 << 20]).unwrap();
    let run = silent().limited_to(Rate::new(Rate::LOWEST));
    let source = fs::open_source(&source).unwrap();
    let segment = Segment {
        source: &source,
        place: "source",
        end: source.size(),
        reads_every_byte: false,
        whole: None,
    };
    let plan = CopyPlan {
        segments: &[segment],
        full_length: source.size(),
        md5: false,
    };
    let target = fs::create_new(&place.path().join("target"), 0o600).unwrap();
    let result = std::thread::scope(|scope| {
        let copy = scope.spawn(|| transfer::copy(&plan, &target, None, &run));
        std::thread::sleep(Duration::from_millis(300));
        run.interrupt(Signal::Terminate);
        copy.join().unwrap()
    });

    assert!(matches!(result, Err(CopyFailure::Stopped(_))), "{result:?}");
}

/// Bytes of a file that are in the page cache. Returns `None` if nobody can tell.
fn cached(path: &Path) -> Option<u64> {
    let output = std::process::Command::new("fincore")
        .args(["--noheadings", "--bytes", "--output", "RES"])
        .arg(path)
        .output()
        .ok()?;
    String::from_utf8(output.stdout)
        .ok()?
        .split_whitespace()
        .next()?
        .parse()
        .ok()
}

fn evict(path: &Path) {
    let file = std::fs::File::open(path).unwrap();
    file.sync_all().unwrap();
    rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).unwrap();
}

/// A copy brings nothing into the cache that the node has not read, and leaves there what it has.
#[test]
fn a_copy_does_not_change_the_page_cache_of_the_source() {
    const SIZE: usize = 8 << 20;

    let place = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let [cold, hot] = ["cold", "hot"].map(|name| place.path().join(name));
    for path in [&cold, &hot] {
        std::fs::write(path, vec![7; SIZE]).unwrap();
        evict(path);
    }
    let probe = fs::open_source(&cold).unwrap();
    probe.read_once_at(0, &mut [0; 4096]).unwrap();
    let (Some(before), true) = (cached(&cold), probe.reads_once()) else {
        eprintln!("skipped: no fincore here, or a kernel or a file system without RWF_DONTCACHE");
        return;
    };

    // Other programs push files out of the cache, but nobody pulls them in.
    std::fs::read(&hot).unwrap();

    for reads_every_byte in [false, true] {
        copied(
            &cold,
            &place.path().join(format!("copy {reads_every_byte}")),
            reads_every_byte,
            &silent(),
        );
        copied(
            &hot,
            &place.path().join(format!("hot copy {reads_every_byte}")),
            reads_every_byte,
            &silent(),
        );
        transfer::hash_file(&fs::open_source(&cold).unwrap(), true, &silent()).unwrap();
    }

    let after = cached(&cold).unwrap();
    assert!(
        after <= before.max(SIZE as u64 / 4),
        "{after} of {SIZE} bytes are cached, {before} were before"
    );
    assert!(
        cached(&hot).unwrap() >= SIZE as u64 * 3 / 4,
        "hot pages were dropped"
    );
}
