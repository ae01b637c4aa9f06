//! Names of the files in a data directory (disk-format §1).

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// An index table's identity, which is its file name: 36 characters, lower case (disk-format §1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TableId(pub Uuid);

impl fmt::Display for TableId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.hyphenated().fmt(f)
    }
}

impl FromStr for TableId {
    type Err = &'static str;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        const WRONG: &str = "a table is named by a lower-case GUID of 36 characters";
        let id = Uuid::try_parse(name).map_err(|_| WRONG)?;
        // Other spellings of the same GUID would be other files.
        if id.hyphenated().to_string() == name { Ok(Self(id)) } else { Err(WRONG) }
    }
}
