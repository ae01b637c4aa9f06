//! Checks the lines of a Bloom filter. A server accepts a filter with a few damaged lines.

use super::report::{IndexFault, IndexProof};
use crate::error::Result;
use crate::format::{ReadAt, bloom};
use crate::manifest::{FileSet, RelativePath};
use crate::proof::depth::Depth;

/// A Bloom filter, and what it means if it is damaged.
pub(super) struct FilterFile<'a> {
    pub(super) path: &'a RelativePath,
    pub(super) source: &'a dyn ReadAt,
    pub(super) fault: IndexFault,
}

impl FilterFile<'_> {
    pub(super) fn is_good(
        &self,
        files: &dyn FileSet,
        depth: Depth,
        proof: &mut IndexProof,
    ) -> Result<bool> {
        let inspected = bloom::inspect(self.source);
        let Some(filter) = proof.judge(files, self.path, self.fault, inspected)? else {
            return Ok(false);
        };
        if depth == Depth::Quick {
            return Ok(true);
        }

        let checked = filter.check_lines();
        let Some(lines) = proof.judge(files, self.path, self.fault, checked)? else {
            return Ok(false);
        };
        if !lines.accepted() {
            let what = format!("more than 5 % of its {} lines are damaged", lines.total);
            proof.add_problem(self.path, self.fault, what);
        }
        Ok(lines.accepted())
    }
}
