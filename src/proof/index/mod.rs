//! The index: the tables that `indexmap` names, their filters, and whether they fit the log
//! (disk-format §5).
//!
//! `examine` is the way in. `tables` and `filter` check each file alone. `table_filter` looks up
//! the streams of a table in its filter. `entries` looks up entries of the tables in the log, `hidden`
//! looks up events of the log in the tables, and `stream_filter` looks up streams of the log in the
//! stream-existence filter. The findings go into the `report`.
//!
//! An index lacks what a server hides anyway. `streams` reads what the server knows of a stream,
//! and `visibility` judges by the server's rules.

mod entries;
mod examine;
mod filter;
mod hidden;
mod report;
mod scope;
mod stream_filter;
mod streams;
mod table_filter;
mod tables;
mod visibility;

pub use entries::contradicting_entry;
pub use examine::examine_index;
pub use report::{HiddenEvents, IndexFault, IndexProblem, IndexProof};
pub use scope::IndexScope;
pub use stream_filter::stream_filter_gap;
pub use table_filter::table_filter_gap;
pub use tables::{CheckedTable, LATEST_ENTRIES};
