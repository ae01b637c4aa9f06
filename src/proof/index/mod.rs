//! The index: the tables that `indexmap` names, their filters, and whether they fit the log
//! (disk-format §5).
//!
//! `examine` leads through it. `tables` and `filter` check the files by themselves. `entries`
//! compares the tables with the log, `hidden` the log with the tables, and `stream_filter` the log
//! with the stream-existence filter. What they find goes into the `report`.

mod entries;
mod examine;
mod filter;
mod hidden;
mod report;
mod scope;
mod stream_filter;
mod tables;

pub use examine::examine_index;
pub use report::{HiddenEvents, IndexFault, IndexProblem, IndexProof};
pub use scope::IndexScope;
pub use stream_filter::stream_filter_gap;
