//! Tortures: what an operator fears, done on purpose. `scripts/torture` runs them, in their long form on request; `docs/reliability.md` holds the figures.

mod corruption;
mod disks;
mod hostility;
mod kill;
mod power;
mod races;
mod scale;
mod subject;

/// How often something is done: `short` in every test run, `long` where `scripts/torture NAME long` asks for it.
fn amount(short: usize, long: usize) -> usize {
    if std::env::var_os("KBACKUP_TORTURE").is_some_and(|form| form == "long") { long } else { short }
}

/// Where chance begins; a failure names it, and `KBACKUP_TORTURE_SEED` repeats it.
fn seed() -> u64 {
    std::env::var("KBACKUP_TORTURE_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(20_261_121)
}
