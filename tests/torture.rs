//! Tortures: tests of the situations that an operator fears. `scripts/torture` runs them, in a long
//! form on request. `docs/reliability.md` holds the figures.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test may end in a panic"
)]

mod corruption;
mod disks;
mod hostility;
mod kill;
mod objects;
mod power;
mod races;
mod scale;
mod subject;

/// The number of repetitions: `short` in every test run, `long` if `scripts/torture NAME long` asks
/// for it.
pub(crate) fn amount(short: usize, long: usize) -> usize {
    if std::env::var_os("KBACKUP_TORTURE").is_some_and(|form| form == "long") {
        long
    } else {
        short
    }
}

/// The seed of all choices. A failure names it, and `KBACKUP_TORTURE_SEED` repeats it.
pub(crate) fn seed() -> u64 {
    let Ok(text) = std::env::var("KBACKUP_TORTURE_SEED") else {
        return 20_261_121;
    };
    text.parse().unwrap_or(20_261_121)
}

/// The peak memory of a process in bytes. Returns `None` if the process has ended.
fn peak_memory(process: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    let kilobytes: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kilobytes * 1024)
}

fn lossy_text(path: &std::path::Path) -> String {
    String::from_utf8_lossy(&std::fs::read(path).unwrap()).into_owned()
}

/// Pseudo-random numbers, the same for the same seed.
pub(crate) struct Chance(u64);

impl Chance {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// A number from 0 up to, but not including, `end`.
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        // SplitMix64.
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % end.max(1)
    }

    /// Any number that fits into an `i64`.
    pub(crate) fn number(&mut self) -> u64 {
        self.below(1 << 63)
    }

    /// Any byte.
    pub(crate) fn byte(&mut self) -> u8 {
        u8::try_from(self.below(256)).unwrap()
    }

    /// An index into something of this length.
    pub(crate) fn place(&mut self, length: usize) -> usize {
        usize::try_from(self.below(length as u64)).unwrap()
    }

    pub(crate) fn of<'a, T>(&mut self, choices: &'a [T]) -> &'a T {
        &choices[self.place(choices.len())]
    }

    /// The next moment to test. In the long form this is the next one. In the short form, after the
    /// first two moments, it is a random one of those to come.
    pub(crate) fn next_moment(&mut self, count: u64, steps: u64) -> u64 {
        let sampled = if count < 2 {
            1
        } else {
            1 + self.place(2 * usize::try_from(steps).unwrap())
        };
        count + amount(sampled, 1) as u64
    }
}
