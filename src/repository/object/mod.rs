//! The repository in an object store: Amazon S3 and whatever speaks like it, Azure Blob Storage,
//! Google Cloud Storage, or a directory that is used like one.
//!
//! `store` is the only door to the store itself: it reads, creates, replaces, lists and deletes
//! single objects, and counts the requests.

#[cfg_attr(
    not(test),
    expect(
        dead_code,
        unused_imports,
        reason = "the repository above it does not use all of it yet"
    )
)]
mod store;
