//! The BLAKE3 of a file, computed cell by cell. BLAKE3 is a tree: the hash of a file follows from
//! the values of its cells, if their length is a power of two. So a file that is cut or that grows
//! needs only its last cell again.

use blake3::hazmat::{self, ChainingValue, HasherExt, Mode};

use crate::manifest::Blake3Hash;

/// The values of the cells of a file so far.
#[derive(Debug, Clone)]
pub(super) struct TreeHash {
    cell_bytes: u64,
    values: Vec<ChainingValue>,
    /// The hash of the first cell if it is the whole file.
    alone: blake3::Hash,
}

static ZEROS: [u8; 64 * 1024] = [0; 64 * 1024];

impl TreeHash {
    /// `cell_bytes` is a power of two, and at least 1024.
    pub(super) fn new(cell_bytes: u64) -> Self {
        Self {
            cell_bytes,
            values: Vec::new(),
            alone: blake3::hash(b""),
        }
    }

    /// Adds the next cell: `bytes`, and `zeros` zeros behind them. Only the last cell of a file may
    /// be shorter than a cell.
    pub(super) fn add(&mut self, bytes: &[u8], mut zeros: u64) {
        let offset = self.cell_bytes.saturating_mul(self.values.len() as u64);
        let mut hasher = blake3::Hasher::new();
        hasher.set_input_offset(offset);
        hasher.update(bytes);
        while zeros > 0 {
            let count = usize::try_from(zeros)
                .unwrap_or(ZEROS.len())
                .min(ZEROS.len());
            hasher.update(ZEROS.get(..count).unwrap_or_default());
            zeros -= count as u64;
        }

        if self.values.is_empty() {
            self.alone = hasher.finalize();
        }
        self.values.push(hasher.finalize_non_root());
    }

    /// Adds `zeros` zeros, cell by cell. The cells so far must be full.
    pub(super) fn add_zeros(&mut self, mut zeros: u64) {
        while zeros > 0 {
            let count = zeros.min(self.cell_bytes);
            self.add(&[], count);
            zeros -= count;
        }
    }

    /// Forgets all cells but the first `count`.
    pub(super) fn truncate(&mut self, count: usize) {
        self.values.truncate(count);
    }

    /// The hash of the whole file.
    pub(super) fn finish(&self) -> Blake3Hash {
        if self.values.len() <= 1 {
            return self.alone_or_empty().into();
        }
        let (left, right) = self.values.split_at(left_of(self.values.len()));
        hazmat::merge_subtrees_root(&merged(left), &merged(right), Mode::Hash).into()
    }

    fn alone_or_empty(&self) -> blake3::Hash {
        if self.values.is_empty() {
            return blake3::hash(b"");
        }
        self.alone
    }
}

/// The value of a subtree with these cells; there is at least one.
fn merged(values: &[ChainingValue]) -> ChainingValue {
    match values {
        [] => ChainingValue::default(),
        [only] => *only,
        _ => {
            let (left, right) = values.split_at(left_of(values.len()));
            hazmat::merge_subtrees_non_root(&merged(left), &merged(right), Mode::Hash)
        }
    }
}

/// How many of `count` cells are in the left subtree: the largest power of two below `count`.
fn left_of(count: usize) -> usize {
    count.div_ceil(2).next_power_of_two()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn hash_in_cells(bytes: &[u8], zeros: u64, cell_bytes: usize) -> Blake3Hash {
        let mut tree = TreeHash::new(cell_bytes as u64);
        let mut zeros = zeros;
        for cell in bytes.chunks(cell_bytes) {
            let fill = zeros.min((cell_bytes - cell.len()) as u64);
            tree.add(cell, fill);
            zeros -= fill;
        }
        tree.add_zeros(zeros);
        tree.finish()
    }

    #[test]
    fn the_left_subtree_is_a_power_of_two() {
        let lefts = [2, 3, 4, 5, 8, 9, 16, 17].map(left_of);
        assert_eq!(lefts, [1, 2, 2, 4, 4, 8, 8, 16]);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]

        #[test]
        fn the_hash_is_that_of_the_whole_file(
            length in prop_oneof![0..3_usize, 1000..1100_usize, 0..70_000_usize],
            zeros in prop_oneof![Just(0_u64), 0..40_000_u64],
            cell in prop_oneof![Just(1024_usize), Just(4096), Just(16_384)],
        ) {
            let bytes: Vec<u8> = (0..=250).cycle().take(length).collect();
            let whole = [bytes.clone(), vec![0; usize::try_from(zeros).unwrap()]].concat();
            prop_assert_eq!(hash_in_cells(&bytes, zeros, cell), Blake3Hash::of(&whole));
        }
    }
}
