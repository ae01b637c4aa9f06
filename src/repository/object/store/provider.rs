//! The kinds of object stores.

/// Who keeps the objects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Provider {
    S3,
    Azure,
    Google,
    Directory,
    #[cfg(feature = "faults")]
    Memory,
}
