//! `kbackup` backs up the files of a KurrentDB / `EventStoreDB` node while the node runs, and
//! restores a directory from which a server starts.
//!
//! This library exists for the `kbackup` program and its tests. It is **not a stable API**: any
//! version may change anything in it. Programs should run the executable, whose exit codes, options
//! and JSON output are kept stable.
//!
//! # Ideas
//!
//! * A **node** is one server process with its data directory: a *log* of chunk files, five
//!   checkpoints, and an *index*.
//! * A **backup** is one complete restore point of a node, named by a [`Label`]. Its [`Manifest`]
//!   has a row for every file. A *full* reads every byte again. A *diff* reuses files of an earlier
//!   backup, its *parent*, as far as it can prove that they are unchanged. Each backup can be
//!   restored, and removed, alone.
//! * A **repository** keeps the backups of one node. [`Location`] is the way to a repository, and
//!   [`Repository`] is what it can do. A backup becomes visible when its manifest is written, which
//!   is the last step.
//! * The log of a backup ends at the **last consistent position** before the writer's position, so
//!   that no append is cut. In code this is a [`Boundary`], which only a scan of the log can make.
//! * **Proven** means that there is evidence: hashes, structure, position. Only [`proof`] makes a
//!   [`Proven`] value, and only a proven manifest can be committed.
//! * A **run** ([`Run`]) accompanies every long operation. It holds the observer of events, the
//!   rate limit, the warnings so far, and the way to interrupt the operation.
//!
//! Modules are layers: each uses only the modules below it. `docs/architecture.md` shows the
//! layers, and a test checks them.
//!
//! # Back up a stopped node
//!
//! A diff of an empty repository is a full. The program `examples/offline_backup.rs` does the same.
//!
//! ```
//! use std::path::Path;
//! use std::time::Duration;
//!
//! use kbackup::backup::{self, BackupRequest, BackupSummary, RecheckShare, Source, SourceNode};
//! use kbackup::error::Result;
//! use kbackup::event::Silent;
//! use kbackup::manifest::{BackupKind, Directories};
//! use kbackup::repository::Location;
//! use kbackup::run::Run;
//!
//! fn back_up(db: &Path, repository: &Path) -> Result<BackupSummary> {
//!     let source = Source {
//!         directories: Directories::new(db.to_owned(), None),
//!         server_version: None,
//!         node: SourceNode::Stopped,
//!     };
//!     let request = BackupRequest {
//!         kind: BackupKind::Diff,
//!         attempts: 3,
//!         filter_max_age: Duration::from_hours(24),
//!         catch_up: Duration::ZERO,
//!         accept_damaged: false,
//!         new_branch: false,
//!         new_address: false,
//!         recheck: RecheckShare::Percent(5),
//!     };
//!
//!     let repository = Location::parse(repository)?.create()?;
//!     backup::take(&request, &source, &*repository, &Run::new(Silent))
//! }
//! # use kbackup_testnode::Synthetic;
//! # let directory = tempfile::tempdir().unwrap();
//! # let small = Synthetic { filter_bytes: 10_000, ..Synthetic::of_size(1 << 20, 256 << 10) };
//! # let node = small.make(directory.path().join("node")).unwrap();
//! # let summary = back_up(&node.db, &directory.path().join("repository")).unwrap();
//! # assert!(summary.files_copied > 0);
//! ```
//!
//! # List and verify backups
//!
//! A damaged manifest does not hide the other backups: the listing holds its error. The program
//! `examples/list_and_verify.rs` does the same.
//!
//! ```
//! use std::path::Path;
//!
//! use kbackup::error::Result;
//! use kbackup::event::Silent;
//! use kbackup::proof::Depth;
//! use kbackup::repository::Location;
//! use kbackup::run::Run;
//! use kbackup::verify::{self, Which};
//!
//! /// Returns the number of intact manifests, and whether all stored bytes are intact.
//! fn list_and_verify(repository: &Path) -> Result<(usize, bool)> {
//!     let repository = Location::parse(repository)?.open()?;
//!
//!     let listed = repository.list()?;
//!     let readable = listed.iter().filter(|backup| backup.head.is_ok()).count();
//!
//!     let run = Run::new(Silent);
//!     let report = verify::verify(&*repository, &Which::All, Depth::Normal, &run)?;
//!     Ok((readable, report.is_sound()))
//! }
//! # let directory = tempfile::tempdir().unwrap();
//! # let empty = directory.path().join("repository");
//! # Location::parse(&empty).unwrap().create().unwrap();
//! # assert_eq!(list_and_verify(&empty).unwrap(), (0, true));
//! ```
//!
//! [`Boundary`]: format::Boundary
//! [`Label`]: manifest::Label
//! [`Location`]: repository::Location
//! [`Manifest`]: manifest::Manifest
//! [`Proven`]: proof::Proven
//! [`Repository`]: repository::Repository
//! [`Run`]: run::Run

pub mod agent;
pub mod archive;
pub mod backup;
pub mod cli;
pub mod clock;
pub mod copy;
pub mod error;
pub mod event;
pub mod expire;
pub mod format;
pub mod fs;
pub mod log;
pub mod manifest;
pub mod md5;
pub mod node;
pub mod pace;
pub mod parallel;
pub mod proof;
pub mod prune;
pub mod pulse;
pub mod repository;
pub mod restore;
pub mod run;
pub mod schedule;
pub mod server;
pub mod settings;
mod signals;
pub mod timings;
pub mod transfer;
mod trust;
mod users;
mod verbs;
pub mod verify;
