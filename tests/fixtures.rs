//! The data directories of real nodes, unpacked.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use kbackup_testnode::index::{Entry, read_table};
use md5::{Digest, Md5};
use serde_json::Value;

/// One data directory: a copy that the test may change.
pub(crate) struct DataDirectory {
    /// Such as `26.1-append`.
    pub(crate) name: String,
    /// The facts that an independent checker found.
    pub(crate) facts: Value,
    temporary: tempfile::TempDir,
}

impl DataDirectory {
    /// Unpacks one archive of `fixtures/directories`.
    pub(crate) fn unpack(name: &str) -> Result<Self> {
        let directories = kbackup_testnode::fixtures().join("directories");
        let facts =
            fs::read(directories.join(format!("{name}.json"))).with_context(|| name.to_owned())?;
        let archive = fs::File::open(directories.join(format!("{name}.tar.zst")))
            .with_context(|| name.to_owned())?;
        let temporary = tempfile::tempdir()?;
        tar::Archive::new(zstd::Decoder::new(archive)?).unpack(temporary.path())?;
        Ok(Self {
            name: name.to_owned(),
            facts: serde_json::from_slice(&facts)?,
            temporary,
        })
    }

    /// Unpacks all archives, one after the other.
    pub(crate) fn all() -> Result<impl Iterator<Item = Result<Self>>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(kbackup_testnode::fixtures().join("directories"))? {
            let name = entry?.file_name().to_string_lossy().into_owned();
            names.extend(name.strip_suffix(".tar.zst").map(str::to_owned));
        }
        names.sort();
        anyhow::ensure!(!names.is_empty(), "no fixtures");
        Ok(names.into_iter().map(|name| Self::unpack(&name)))
    }

    /// The server's major and minor version, such as (26, 1). They order by age.
    pub(crate) fn server(&self) -> (u32, u32) {
        let mut numbers = self.name.split(['.', '-']).flat_map(str::parse);
        (
            numbers.next().unwrap_or_default(),
            numbers.next().unwrap_or_default(),
        )
    }

    /// The db directory.
    pub(crate) fn db(&self) -> PathBuf {
        self.temporary.path().join(&self.name)
    }

    /// The index directory.
    pub(crate) fn index(&self) -> PathBuf {
        self.db().join("index")
    }

    /// A checkpoint's value as the checker read it.
    pub(crate) fn checkpoint(&self, name: &str) -> Option<i64> {
        self.facts.get("checkpoints")?.get(name)?.as_i64()
    }

    /// The tables of the index.
    pub(crate) fn tables(&self) -> Result<Vec<PathBuf>> {
        self.index_files(|name| name.len() == 36)
    }

    /// The files of the index directory whose name passes the test.
    pub(crate) fn index_files(&self, wanted: impl Fn(&str) -> bool) -> Result<Vec<PathBuf>> {
        let mut found = Vec::new();
        for entry in fs::read_dir(self.index())? {
            let path = entry?.path();
            if path.is_file()
                && path
                    .file_name()
                    .and_then(|name| name.to_str())
                    .is_some_and(&wanted)
            {
                found.push(path);
            }
        }
        found.sort();
        Ok(found)
    }
}

/// A file's bytes.
pub(crate) fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| path.display().to_string())
}

/// Replaces the MD5 at the end of a file.
pub(crate) fn seal(bytes: &mut [u8]) {
    let (content, place) = bytes.split_at_mut(bytes.len() - 16);
    place.copy_from_slice(&Md5::digest(content));
}

/// Replaces a table by one of an old version, with the entries that `change` leaves.
pub(crate) fn write_old_table(
    path: &Path,
    version: u8,
    change: impl FnOnce(&mut Vec<Entry>),
) -> Result<()> {
    let mut entries = read_table(path)?;
    change(&mut entries);
    if version == 1 {
        for entry in &mut entries {
            entry.hash >>= 32;
        }
    }
    entries.sort_unstable_by(|left, right| right.cmp(left));

    let mut bytes = vec![1, version];
    bytes.resize(128, 0);
    for entry in entries {
        bytes.extend(i32::try_from(entry.number)?.to_le_bytes());
        match version {
            1 => bytes.extend(u32::try_from(entry.hash)?.to_le_bytes()),
            _ => bytes.extend(entry.hash.to_le_bytes()),
        }
        bytes.extend(entry.position.to_le_bytes());
    }
    bytes.extend([0; 16]);
    seal(&mut bytes);

    let filter = path.with_extension("bloomfilter");
    if filter.exists() {
        fs::remove_file(filter)?;
    }
    fs::remove_file(path)?;
    Ok(fs::write(path, bytes)?)
}
