//! Connects to one of the providers.

use std::path::Path;
use std::sync::Arc;

use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey, Checksum, S3ConditionalPut};
use object_store::azure::AzureConfigKey;
use object_store::local::LocalFileSystem;
use object_store::{ObjectStore, RetryConfig};
use reqwest::Url;

use super::http::Connector;
use super::options::{Addressing, Environment, ServerSideEncryption, StoreOptions};
use super::profile::Profile;
use super::provider::Provider;
use super::requests::Counter;
use super::url::{ObjectUrl, Shelf};
use super::{failure, identity};
use crate::error::{Error, Kind, Result};
use crate::fs;

/// The region that Amazon's tools take if none is named.
const USUAL_REGION: &str = "us-east-1";

/// One provider's store.
pub(super) struct Backend {
    objects: Arc<dyn ObjectStore>,
    provider: Provider,
}

impl Backend {
    #[cfg(feature = "faults")]
    pub(super) fn in_memory() -> Self {
        Self {
            objects: Arc::new(object_store::memory::InMemory::new()),
            provider: Provider::Memory,
        }
    }

    /// The same store, with faults before it.
    #[cfg(feature = "faults")]
    pub(super) fn with_faults(&self, faults: super::StoreFaults) -> Self {
        let objects = super::request_faults::FaultyObjects::new(self.objects.clone(), faults);
        Self {
            objects: Arc::new(objects),
            provider: self.provider,
        }
    }

    pub(super) fn objects(&self) -> &dyn ObjectStore {
        &*self.objects
    }

    pub(super) const fn provider(&self) -> Provider {
        self.provider
    }

    /// Whether the store itself compares versions when it replaces an object.
    pub(super) fn compares_versions(&self) -> bool {
        self.provider != Provider::Directory
    }

    /// Whether the store has classes, or tiers, of different prices.
    pub(super) const fn has_classes(&self) -> bool {
        matches!(
            self.provider,
            Provider::S3 | Provider::Azure | Provider::Google
        )
    }

    /// Whether the store lists its keys in order, so that a list that broke off can go on.
    pub(super) fn lists_in_order(&self) -> bool {
        self.provider != Provider::Directory
    }
}

/// Prepares the connection to the provider that the URL names.
pub(super) fn connect(
    url: &ObjectUrl,
    options: &StoreOptions,
    counter: &Arc<Counter>,
) -> Result<Backend> {
    let (objects, provider) = match url.shelf() {
        Shelf::S3(bucket) => (s3(url, bucket, options, counter)?, Provider::S3),
        Shelf::Azure(container) => (azure(url, container, options, counter)?, Provider::Azure),
        Shelf::Google(bucket) => (google(url, bucket, options, counter)?, Provider::Google),
        Shelf::Directory(path) => (directory(url, path)?, Provider::Directory),
    };
    Ok(Backend { objects, provider })
}

fn s3(
    url: &ObjectUrl,
    bucket: &str,
    options: &StoreOptions,
    counter: &Arc<Counter>,
) -> Result<Arc<dyn ObjectStore>> {
    let environment = &options.environment;
    let profile = Profile::of(environment);
    let region = region(options, &profile)?;

    let mut builder = identity::s3(environment)
        .with_bucket_name(bucket)
        .with_region(&region)
        .with_retry(no_repetition())
        .with_checksum_algorithm(Checksum::SHA256)
        .with_conditional_put(S3ConditionalPut::ETagMatch)
        .with_disable_bulk_delete(true)
        .with_request_payer(options.requester_pays);

    let (endpoint, is_virtual) = match s3_endpoint(options, &profile)? {
        Some(endpoint) => in_host(&endpoint, bucket, options)?,
        // A host's name with a dot in the bucket's part has no certificate.
        None if bucket.contains('.') || options.addressing == Addressing::Path => {
            (format!("https://s3.{region}.amazonaws.com"), false)
        }
        None => (format!("https://{bucket}.s3.{region}.amazonaws.com"), true),
    };
    let host = host_of(&endpoint, options.allow_http)?;
    builder = builder
        .with_endpoint(endpoint)
        .with_virtual_hosted_style_request(is_virtual)
        .with_http_connector(Connector::new(&host, options, counter)?);

    if !identity::names_s3_identity(environment) && profile.has_key()? {
        builder = builder.with_credentials(Arc::new(profile));
    }
    let store = encrypted(builder, options.encryption.as_ref())?.build();
    Ok(Arc::new(store.map_err(|error| unfit(url, &error))?))
}

fn region(options: &StoreOptions, profile: &Profile) -> Result<String> {
    let environment = &options.environment;
    let named = options.region.as_deref();
    let named = named
        .or_else(|| environment.get("AWS_REGION"))
        .or_else(|| environment.get("AWS_DEFAULT_REGION"));

    if let Some(region) = named {
        return Ok(region.to_owned());
    }
    let in_profile = profile.setting("region")?;
    Ok(in_profile.unwrap_or_else(|| USUAL_REGION.to_owned()))
}

fn s3_endpoint(options: &StoreOptions, profile: &Profile) -> Result<Option<String>> {
    let environment = &options.environment;
    let named = options.endpoint.as_deref();
    let named = named
        .or_else(|| environment.get("AWS_ENDPOINT_URL_S3"))
        .or_else(|| environment.get("AWS_ENDPOINT_URL"));

    match named {
        Some(endpoint) => Ok(Some(endpoint.to_owned())),
        None => profile.setting("endpoint_url"),
    }
}

/// The endpoint with the bucket in the host's name, if the operator wants it there.
fn in_host(endpoint: &str, bucket: &str, options: &StoreOptions) -> Result<(String, bool)> {
    if options.addressing != Addressing::VirtualHost {
        return Ok((endpoint.trim_end_matches('/').to_owned(), false));
    }

    let mut url = url_of(endpoint)?;
    let host = format!("{bucket}.{}", url.host_str().unwrap_or_default());
    url.set_host(Some(&host))
        .map_err(|error| wrong_endpoint(endpoint).because(error))?;
    Ok((url.as_str().trim_end_matches('/').to_owned(), true))
}

fn encrypted(
    builder: AmazonS3Builder,
    encryption: Option<&ServerSideEncryption>,
) -> Result<AmazonS3Builder> {
    let (kind, key) = match encryption {
        None => return Ok(builder),
        Some(ServerSideEncryption::Aes256) => ("AES256", None),
        Some(ServerSideEncryption::Kms(key)) => ("aws:kms", key.as_deref()),
    };

    let builder = builder.with_config(setting("aws_server_side_encryption")?, kind);
    match key {
        Some(key) => Ok(builder.with_config(setting("aws_sse_kms_key_id")?, key)),
        None => Ok(builder),
    }
}

/// The library keeps the type of these settings to itself, so they are named by text.
fn setting(name: &str) -> Result<AmazonS3ConfigKey> {
    name.parse().map_err(|error: object_store::Error| {
        Error::new(Kind::Failed, "the library does not know this setting")
            .on(name)
            .because(error)
    })
}

fn azure(
    url: &ObjectUrl,
    container: &str,
    options: &StoreOptions,
    counter: &Arc<Counter>,
) -> Result<Arc<dyn ObjectStore>> {
    let builder = identity::azure(&options.environment);
    let account = builder.get_config_value(&AzureConfigKey::AccountName);
    let Some(account) = account else {
        return Err(Error::new(Kind::Usage, "no storage account is named")
            .on(url.place())
            .hint("set `AZURE_STORAGE_ACCOUNT` to its name"));
    };

    let endpoint = azure_endpoint(&account, &options.endpoint, &options.environment);
    let host = host_of(&endpoint, options.allow_http)?;
    let store = builder
        .with_container_name(container)
        .with_endpoint(endpoint)
        .with_retry(no_repetition())
        .with_http_connector(Connector::new(&host, options, counter)?)
        .build();
    Ok(Arc::new(store.map_err(|error| unfit(url, &error))?))
}

fn azure_endpoint(account: &str, named: &Option<String>, environment: &Environment) -> String {
    let in_environment = environment.get("AZURE_STORAGE_ENDPOINT");
    match named.as_deref().or(in_environment) {
        Some(endpoint) => endpoint.trim_end_matches('/').to_owned(),
        None => format!("https://{account}.blob.core.windows.net"),
    }
}

fn google(
    url: &ObjectUrl,
    bucket: &str,
    options: &StoreOptions,
    counter: &Arc<Counter>,
) -> Result<Arc<dyn ObjectStore>> {
    let endpoint = match &options.endpoint {
        Some(endpoint) => endpoint.trim_end_matches('/'),
        None => "https://storage.googleapis.com",
    };
    let host = host_of(endpoint, options.allow_http)?;

    let store = identity::google(&options.environment)
        .with_bucket_name(bucket)
        .with_base_url(endpoint)
        .with_retry(no_repetition())
        .with_http_connector(Connector::new(&host, options, counter)?)
        .build();
    Ok(Arc::new(store.map_err(|error| unfit(url, &error))?))
}

fn directory(url: &ObjectUrl, path: &Path) -> Result<Arc<dyn ObjectStore>> {
    let Some(status) = fs::status_of_target(path)? else {
        return Err(Error::new(Kind::NotFound, "the directory does not exist")
            .at(path)
            .hint("check the path, and whether its disk is mounted"));
    };
    if status.kind != fs::FileKind::Directory {
        return Err(Error::new(Kind::Usage, "this is no directory").at(path));
    }

    let store = LocalFileSystem::new_with_prefix(path).map_err(|error| unfit(url, &error))?;
    Ok(Arc::new(store.with_fsync(true)))
}

/// Whether something is sent again is decided in `repeat`.
fn no_repetition() -> RetryConfig {
    RetryConfig {
        max_retries: 0,
        ..RetryConfig::default()
    }
}

/// The host of an endpoint, which every request for objects goes to.
fn host_of(endpoint: &str, allow_http: bool) -> Result<String> {
    let url = url_of(endpoint)?;
    if url.scheme() == "http" && !allow_http {
        return Err(Error::new(
            Kind::Usage,
            "the address of the object store is without TLS",
        )
        .on(endpoint)
        .hint("name an address with `https://`")
        .hint("if nobody can listen on the way, add the setting `allow-http` to the URL"));
    }

    match url.host_str() {
        Some(host) => Ok(host.to_owned()),
        None => Err(wrong_endpoint(endpoint)),
    }
}

fn url_of(endpoint: &str) -> Result<Url> {
    let url: Url = endpoint
        .parse()
        .map_err(|error: url::ParseError| wrong_endpoint(endpoint).because(error))?;

    if !matches!(url.scheme(), "http" | "https") {
        return Err(wrong_endpoint(endpoint));
    }
    if !url.username().is_empty() || url.password().is_some() {
        // The address holds a secret, so the message does not repeat it.
        return Err(Error::new(
            Kind::Usage,
            "the address of the object store holds credentials",
        )
        .hint("give credentials by the provider's own variables or files"));
    }
    Ok(url)
}

fn wrong_endpoint(endpoint: &str) -> Error {
    Error::new(Kind::Usage, "this is no address of an object store")
        .on(endpoint)
        .hint("it looks like `https://s3.example.com` or `https://host:9000`")
}

fn unfit(url: &ObjectUrl, error: &object_store::Error) -> Error {
    Error::new(
        Kind::Usage,
        "the settings of the object store cannot be used",
    )
    .on(url.place())
    .because(failure::innermost(error))
}
