//! Settings of an object store in the query of its URL, such as
//! `s3://bucket/prefix?endpoint=https://s3.example.com&region=eu`. So each repository carries its
//! own settings, also when a backup is copied from one store to another. Credentials are never among
//! them.

use std::path::PathBuf;

use super::compression::Compression;
use super::store::{Addressing, ServerSideEncryption, StoreOptions};
use crate::error::{Error, Kind, Result};

const NAMES: &str = "the settings are `endpoint`, `region`, `ca-file`, `path-style`, `allow-http`, \
                     `storage-class`, `sse`, `requester-pays` and `compression`";

/// What the query of a URL says.
#[derive(Debug, Clone, Default)]
pub(super) struct UrlOptions {
    pub(super) store: StoreOptions,
    pub(super) compression: Compression,
}

impl UrlOptions {
    /// Reads the query of a URL, without its question mark.
    ///
    /// # Errors
    /// `Usage` for a setting that there is not, and for a value that it cannot have. The message
    /// does not repeat a value that may be a secret.
    pub(super) fn parse(query: &str) -> Result<Self> {
        let mut options = Self::default();
        for (name, value) in url::form_urlencoded::parse(query.as_bytes()) {
            options.set(&name, &value)?;
        }
        Ok(options)
    }

    fn set(&mut self, name: &str, value: &str) -> Result<()> {
        let store = &mut self.store;
        match name {
            "endpoint" => store.endpoint = Some(value.to_owned()),
            "region" => store.region = Some(value.to_owned()),
            "ca-file" => store.ca_file = Some(PathBuf::from(value)),
            "storage-class" => store.storage_class = Some(value.to_owned()),
            "allow-http" => store.allow_http = is_on(name, value)?,
            "requester-pays" => store.requester_pays = is_on(name, value)?,
            "path-style" => {
                store.addressing = match is_on(name, value)? {
                    true => Addressing::Path,
                    false => Addressing::VirtualHost,
                };
            }
            "sse" => store.encryption = Some(encryption(value)?),
            "compression" => self.compression = value.parse()?,
            _ => {
                let what = format!("an object store has no setting `{name}`");
                return Err(Error::new(Kind::Usage, what).hint(NAMES));
            }
        }
        Ok(())
    }
}

fn is_on(name: &str, value: &str) -> Result<bool> {
    match value {
        "" | "true" => Ok(true),
        "false" => Ok(false),
        _ => {
            let what = format!("`{name}` is `true` or `false`");
            Err(Error::new(Kind::Usage, what))
        }
    }
}

fn encryption(value: &str) -> Result<ServerSideEncryption> {
    match value.split_once(':') {
        None if value == "AES256" => Ok(ServerSideEncryption::Aes256),
        Some(("aws", "kms")) => Ok(ServerSideEncryption::Kms(None)),
        Some(("aws", rest)) if rest.starts_with("kms:") => {
            let key = rest.trim_start_matches("kms:");
            Ok(ServerSideEncryption::Kms(Some(key.to_owned())))
        }
        _ => Err(
            Error::new(Kind::Usage, "`sse` is `AES256`, `aws:kms` or `aws:kms:KEY`")
                .hint("the store encrypts with a key that it holds itself"),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_read_from_the_query() {
        let query = "endpoint=http://127.0.0.1:8333&region=eu&allow-http&path-style=true\
                     &sse=aws:kms:key/1&storage-class=GLACIER_IR&requester-pays=false&compression=6";
        let options = UrlOptions::parse(query).unwrap();
        let store = &options.store;
        assert_eq!(store.endpoint.as_deref(), Some("http://127.0.0.1:8333"));
        assert_eq!(store.region.as_deref(), Some("eu"));
        assert!(store.allow_http && !store.requester_pays);
        assert_eq!(store.addressing, Addressing::Path);
        let key = ServerSideEncryption::Kms(Some("key/1".to_owned()));
        assert_eq!(store.encryption, Some(key));
        assert_eq!(options.compression, Compression::Level(6));

        assert!(UrlOptions::parse("").unwrap().store.endpoint.is_none());
    }

    #[test]
    fn what_is_not_known_is_refused() {
        for query in [
            "colour=red",
            "secret-access-key=x",
            "allow-http=maybe",
            "sse=rot13",
            "compression=40",
            "compression=fast",
        ] {
            let error = UrlOptions::parse(query).unwrap_err();
            assert_eq!(error.kind(), Kind::Usage, "{query}");
        }
    }
}
