//! AWS profiles: the files `credentials` and `config` that Amazon's own tools read. The library
//! does not know them.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use object_store::CredentialProvider;
use object_store::aws::AwsCredential;

use super::options::Environment;
use crate::error::{Error, Kind, Result};
use crate::fs;

const MAX_FILE: u64 = 1024 * 1024;
const KEY: &str = "aws_access_key_id";
const SECRET: &str = "aws_secret_access_key";
const TOKEN: &str = "aws_session_token";
/// What Amazon's tools also understand, and kbackup does not.
const NOT_SUPPORTED: [&str; 5] = [
    "role_arn",
    "sso_session",
    "sso_start_url",
    "credential_process",
    "login_session",
];

/// A profile that an operator may have written.
#[derive(Debug, Clone)]
pub(super) struct Profile {
    name: String,
    /// Whether the operator named it, so that it has to be there.
    is_named: bool,
    credentials_file: Option<PathBuf>,
    config_file: Option<PathBuf>,
}

/// The settings of one profile, with those of both files.
#[derive(Default)]
struct Settings(Vec<(String, String)>);

impl Profile {
    /// The profile that these variables name, or the default one.
    pub(super) fn of(environment: &Environment) -> Self {
        let named = environment.get("AWS_PROFILE");
        let home = environment.get("HOME").map(Path::new);

        let file = |variable: &str, usual: &str| match environment.get(variable) {
            Some(path) => Some(PathBuf::from(path)),
            None => Some(home?.join(usual)),
        };
        Self {
            name: named.unwrap_or("default").to_owned(),
            is_named: named.is_some(),
            credentials_file: file("AWS_SHARED_CREDENTIALS_FILE", ".aws/credentials"),
            config_file: file("AWS_CONFIG_FILE", ".aws/config"),
        }
    }

    /// A setting of the profile, such as its region.
    pub(super) fn setting(&self, name: &str) -> Result<Option<String>> {
        let settings = self.read()?;
        Ok(settings.get(name).map(str::to_owned))
    }

    /// Whether the profile holds a key. A profile that the operator named has to.
    ///
    /// # Errors
    /// `Usage` if a named profile is not there, or needs what kbackup cannot do; `Denied` if a file
    /// is somebody else's.
    pub(super) fn has_key(&self) -> Result<bool> {
        let settings = self.read()?;
        if settings.get(KEY).is_some() && settings.get(SECRET).is_some() {
            return Ok(true);
        }
        if !self.is_named {
            return Ok(false);
        }

        if let Some(name) = NOT_SUPPORTED
            .iter()
            .find(|name| settings.get(name).is_some())
        {
            let what = format!("kbackup does not understand `{name}` in an AWS profile");
            return Err(Error::new(Kind::Usage, what).on(&self.name).hint(
                "export the credentials before: `eval \"$(aws configure export-credentials \
                 --format env)\"`",
            ));
        }
        Err(
            Error::new(Kind::Usage, "the AWS profile holds no credentials")
                .on(&self.name)
                .hint(
                    "check `AWS_PROFILE`, and the files `~/.aws/credentials` and `~/.aws/config`",
                ),
        )
    }

    /// Reads the profile now, so that a key that was exchanged meanwhile counts.
    fn read(&self) -> Result<Settings> {
        let mut settings = Settings::default();
        if let Some(path) = &self.credentials_file {
            settings.add(&text(path)?, &self.name);
        }
        if let Some(path) = &self.config_file {
            let text = text(path)?;
            settings.add(&text, &format!("profile {}", self.name));
            if self.name == "default" {
                settings.add(&text, "default");
            }
        }
        Ok(settings)
    }

    fn credential(&self) -> Result<AwsCredential> {
        let settings = self.read()?;
        let (Some(key), Some(secret)) = (settings.get(KEY), settings.get(SECRET)) else {
            return Err(
                Error::new(Kind::Usage, "the AWS profile holds no credentials").on(&self.name),
            );
        };

        Ok(AwsCredential {
            key_id: key.to_owned(),
            secret_key: secret.to_owned(),
            token: settings.get(TOKEN).map(str::to_owned),
        })
    }
}

#[async_trait]
impl CredentialProvider for Profile {
    type Credential = AwsCredential;

    async fn get_credential(&self) -> object_store::Result<Arc<AwsCredential>> {
        match self.credential() {
            Ok(credential) => Ok(Arc::new(credential)),
            Err(error) => Err(object_store::Error::Generic {
                store: "AWS profile",
                source: Box::new(error),
            }),
        }
    }
}

impl Settings {
    /// Adds the settings of one section. A setting that is there already stays.
    fn add(&mut self, text: &str, section: &str) {
        let mut is_wanted = false;
        for line in text.lines() {
            // Settings of services are indented below their own name.
            let is_nested = line.starts_with([' ', '\t']);
            let line = line.trim();
            if line.starts_with(['#', ';']) || is_nested {
                continue;
            }

            if let Some(header) = line.strip_prefix('[') {
                let name = header.split(']').next().unwrap_or_default();
                let words: Vec<&str> = name.split_whitespace().collect();
                is_wanted = words.join(" ") == section;
            } else if let Some((name, value)) = line.split_once('=')
                && is_wanted
            {
                let name = name.trim().to_ascii_lowercase();
                self.0.push((name, value.trim().to_owned()));
            }
        }
    }

    fn get(&self, name: &str) -> Option<&str> {
        let (_, value) = self.0.iter().find(|(known, _)| known == name)?;
        Some(value)
    }
}

/// The text of a file; nothing if there is none.
fn text(path: &Path) -> Result<String> {
    let Ok(path) = fs::canonical(path) else {
        return Ok(String::new());
    };

    let bytes = fs::read_small(&path, MAX_FILE)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
