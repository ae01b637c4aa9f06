//! Tortures: what an operator fears, done on purpose. `scripts/torture` runs them, in their long
//! form on request; `docs/reliability.md` holds the figures.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test may end in a panic"
)]

mod corruption;
mod disks;
mod hostility;
mod kill;
mod power;
mod races;
mod scale;
mod subject;

/// How often something is done: `short` in every test run, `long` where `scripts/torture NAME long`
/// asks for it.
fn amount(short: usize, long: usize) -> usize {
    if std::env::var_os("KBACKUP_TORTURE").is_some_and(|form| form == "long") {
        long
    } else {
        short
    }
}

/// Where chance begins; a failure names it, and `KBACKUP_TORTURE_SEED` repeats it.
fn seed() -> u64 {
    std::env::var("KBACKUP_TORTURE_SEED")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(20_261_121)
}

/// Numbers that look like chance and are the same for the same seed.
struct Chance(u64);

impl Chance {
    fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// From 0 up to, but not including, `end`.
    fn below(&mut self, end: u64) -> u64 {
        // SplitMix64.
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % end.max(1)
    }

    /// Any number that is not negative as an `i64` either.
    fn number(&mut self) -> u64 {
        self.below(1 << 63)
    }

    /// A place in something of this length.
    fn place(&mut self, length: usize) -> usize {
        usize::try_from(self.below(length as u64)).unwrap()
    }

    fn of<'a, T>(&mut self, choices: &'a [T]) -> &'a T {
        &choices[self.place(choices.len())]
    }

    /// The next moment to look at: the next one in the long form, by chance one of those to come in
    /// the short form, after the first two.
    fn next_moment(&mut self, count: u64, steps: u64) -> u64 {
        let sampled = if count < 2 {
            1
        } else {
            1 + self.place(2 * usize::try_from(steps).unwrap())
        };
        count + amount(sampled, 1) as u64
    }
}
