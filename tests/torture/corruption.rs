//! Damage anywhere in a repository, and in the source.
