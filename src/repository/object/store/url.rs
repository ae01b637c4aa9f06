//! What an operator types for a repository in an object store.

use std::path::{Path, PathBuf};

use crate::error::{Error, Kind, Result};

const FORMS: &str = "write `s3://BUCKET/PREFIX`, `az://CONTAINER/PREFIX`, `gs://BUCKET/PREFIX` or \
                     `object+file:///PATH`";

/// The URL of a repository in an object store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::repository) struct ObjectUrl {
    typed: String,
    shelf: Shelf,
    prefix: String,
}

/// What holds the objects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Shelf {
    /// A bucket of Amazon S3, or of a store that speaks like it.
    S3(String),
    /// A container of Azure Blob Storage.
    Azure(String),
    /// A bucket of Google Cloud Storage.
    Google(String),
    /// A directory of this machine, as an absolute path.
    Directory(PathBuf),
}

impl ObjectUrl {
    /// Reads `s3://bucket/prefix`, `az://container/prefix`, `gs://bucket/prefix` or
    /// `object+file:///path`. The prefix may be missing.
    ///
    /// # Errors
    /// `Usage` for anything else.
    pub(in crate::repository) fn parse(typed: &str) -> Result<Self> {
        let Some((scheme, rest)) = typed.split_once("://") else {
            return Err(usage("this is no URL of an object store", typed).hint(FORMS));
        };
        if scheme == "object+file" {
            return directory(typed, rest);
        }

        let (name, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        let shelf = match scheme {
            "s3" => Shelf::S3(name.to_owned()),
            "az" => Shelf::Azure(name.to_owned()),
            "gs" => Shelf::Google(name.to_owned()),
            _ => {
                let what = format!("kbackup knows no object store `{scheme}://`");
                return Err(usage(what, typed).hint(FORMS));
            }
        };

        check_name(typed, name)?;
        Ok(Self {
            typed: typed.to_owned(),
            shelf,
            prefix: prefix_of(typed, prefix)?,
        })
    }

    /// What the operator typed.
    pub(in crate::repository) fn place(&self) -> &str {
        &self.typed
    }

    pub(super) fn shelf(&self) -> &Shelf {
        &self.shelf
    }

    /// The beginning of each key: nothing, or names that end with `/`.
    pub(super) fn prefix(&self) -> &str {
        &self.prefix
    }

    /// The directory, if the objects are kept in one.
    pub(in crate::repository) fn directory(&self) -> Option<&Path> {
        match &self.shelf {
            Shelf::Directory(path) => Some(path),
            Shelf::S3(_) | Shelf::Azure(_) | Shelf::Google(_) => None,
        }
    }
}

fn directory(typed: &str, path: &str) -> Result<ObjectUrl> {
    if !path.starts_with('/') {
        return Err(usage("the path of the directory is not absolute", typed)
            .hint("write three slashes: `object+file:///var/backups/objects`"));
    }

    Ok(ObjectUrl {
        typed: typed.to_owned(),
        shelf: Shelf::Directory(PathBuf::from(path)),
        prefix: String::new(),
    })
}

fn check_name(typed: &str, name: &str) -> Result<()> {
    if name.is_empty() {
        return Err(usage("the URL names no bucket", typed).hint(FORMS));
    }
    if name.contains('@') {
        // The URL may hold a password, so the message does not repeat it.
        return Err(
            Error::new(Kind::Usage, "a URL of an object store holds no credentials")
                .hint("give credentials by the provider's own variables or files"),
        );
    }
    if name.contains(':') {
        return Err(
            usage("a URL of an object store holds no host and no port", typed)
                .hint("name the bucket alone, and the store by `?endpoint=https://HOST:PORT`"),
        );
    }

    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    if !name.bytes().all(is_plain) {
        return Err(usage("the name of the bucket cannot be right", typed)
            .hint("it has only letters, digits, `-`, `_` and `.`"));
    }
    Ok(())
}

/// The prefix of all keys. It is plain, so that every store keeps it as it is.
fn prefix_of(typed: &str, prefix: &str) -> Result<String> {
    let prefix = prefix.trim_end_matches('/');
    if prefix.is_empty() {
        return Ok(String::new());
    }

    for part in prefix.split('/') {
        if matches!(part, "" | "." | "..") {
            return Err(usage("the prefix has an empty part, or `.` or `..`", typed)
                .hint("write names with single slashes between them"));
        }
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.=+,@".contains(&byte);
        if !part.bytes().all(is_plain) {
            return Err(usage(
                "the prefix has a character that kbackup does not use",
                typed,
            )
            .hint("use letters, digits, and `-`, `_`, `.`, `=`, `+`, `,`, `@`"));
        }
    }
    Ok(format!("{prefix}/"))
}

fn usage(what: impl Into<String>, typed: &str) -> Error {
    Error::new(Kind::Usage, what).on(typed)
}
