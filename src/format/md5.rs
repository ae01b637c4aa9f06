//! MD5s that a server wrote into its files.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// An MD5 that the server wrote, or one that was computed to compare with it. Shown as lower-case
/// hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Md5Hash(pub [u8; 16]);

impl fmt::Display for Md5Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl FromStr for Md5Hash {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const WRONG: &str = "an MD5 has 32 hexadecimal digits";
        if text.len() != 32 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(WRONG);
        }
        match u128::from_str_radix(text, 16) {
            Ok(number) => Ok(Self(number.to_be_bytes())),
            Err(_) => Err(WRONG),
        }
    }
}

impl TryFrom<String> for Md5Hash {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Md5Hash> for String {
    fn from(hash: Md5Hash) -> Self {
        hash.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_back_in_either_case() {
        let hash: Md5Hash = "00FF10a0000000000000000000000001".parse().unwrap();
        assert_eq!(hash.to_string(), "00ff10a0000000000000000000000001");
        assert!(
            "+0ff10a0000000000000000000000001"
                .parse::<Md5Hash>()
                .is_err()
        );
        assert!("00ff".parse::<Md5Hash>().is_err());
    }
}
