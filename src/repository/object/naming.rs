//! Names of blobs and sections: a keyed hash of their plain bytes, so that a name proves its bytes.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Kind};

/// The key of a repository that names its blobs and sections.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(super) struct NamingKey([u8; blake3::KEY_LEN]);

/// The name of a blob or section.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(super) struct ObjectName([u8; blake3::OUT_LEN]);

impl NamingKey {
    /// A new key of random bytes.
    pub(super) fn random() -> Self {
        let mut key = [0; blake3::KEY_LEN];
        let (first, last) = key.split_at_mut(16);
        first.copy_from_slice(uuid::Uuid::new_v4().as_bytes());
        last.copy_from_slice(uuid::Uuid::new_v4().as_bytes());
        // A random UUID has six fixed bits, so the key is a hash of two.
        Self(*blake3::hash(&key).as_bytes())
    }

    /// The name of these bytes.
    pub(super) fn name(&self, plain: &[u8]) -> ObjectName {
        ObjectName(*blake3::keyed_hash(&self.0, plain).as_bytes())
    }
}

impl ObjectName {
    pub(super) const fn as_bytes(&self) -> &[u8; blake3::OUT_LEN] {
        &self.0
    }
}

impl fmt::Debug for NamingKey {
    /// A later format keeps the key secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NamingKey")
    }
}

impl From<NamingKey> for String {
    fn from(key: NamingKey) -> Self {
        blake3::Hash::from(key.0).to_hex().as_str().to_owned()
    }
}

impl TryFrom<String> for NamingKey {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        match blake3::Hash::from_hex(text) {
            Ok(key) => Ok(Self(*key.as_bytes())),
            Err(_) => Err("a naming key has 64 hexadecimal digits"),
        }
    }
}

impl fmt::Display for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&blake3::Hash::from(self.0).to_hex())
    }
}

impl FromStr for ObjectName {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match blake3::Hash::from_hex(text) {
            Ok(name) => Ok(Self(*name.as_bytes())),
            Err(_) => Err("a name has 64 hexadecimal digits"),
        }
    }
}

impl From<ObjectName> for String {
    fn from(name: ObjectName) -> Self {
        name.to_string()
    }
}

impl TryFrom<String> for ObjectName {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

/// The error for a stored object that is not what its name or its hash says.
pub(super) fn damaged(place: impl fmt::Display, why: impl Into<String>) -> Error {
    Error::new(Kind::StoredCorrupt, "a stored object is damaged")
        .on(place)
        .because(why.into())
}
