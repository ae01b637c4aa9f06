//! The interesting inputs that the fuzzer found for each parser, as ordinary tests. `fuzz/run`
//! searches for more.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test may end in a panic"
)]

use std::io::Read;

mod answers;
mod bloom;
mod checkpoint;
mod chunk;
mod duckdb;
mod epoch;
mod indexmap;
mod label;
mod manifest;
mod names;
mod ptable;
mod record;
mod sqlite;

macro_rules! replayed {
    ($($target:ident),*) => {$(
        #[test]
        fn $target() {
            replay(stringify!($target), $target::examine);
        }
    )*};
}

replayed!(
    answers, bloom, checkpoint, chunk, duckdb, epoch, indexmap, label, manifest, names, ptable,
    record, sqlite
);

/// Runs a target on all its inputs. A target panics if something does not hold.
fn replay(target: &str, examine: fn(&[u8])) {
    let archive =
        std::fs::File::open(kbackup_testnode::fixtures().join(format!("fuzz/{target}.tar.zst")))
            .unwrap();
    let mut archive = tar::Archive::new(zstd::Decoder::new(archive).unwrap());
    let mut inputs = 0;
    for entry in archive.entries().unwrap() {
        let mut input = Vec::new();
        entry.unwrap().read_to_end(&mut input).unwrap();
        examine(&input);
        inputs += 1;
    }
    assert!(inputs > 3, "{inputs} inputs of {target}");
}
