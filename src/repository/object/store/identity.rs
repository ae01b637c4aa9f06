//! The environment variables of each provider that kbackup heeds: credentials first of all.

use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey as S3Key};
use object_store::azure::{AzureConfigKey as AzureKey, MicrosoftAzureBuilder};
use object_store::gcp::{GoogleCloudStorageBuilder, GoogleConfigKey as GoogleKey};

use super::options::Environment;

const S3: [(&str, S3Key); 11] = [
    ("AWS_ACCESS_KEY_ID", S3Key::AccessKeyId),
    ("AWS_SECRET_ACCESS_KEY", S3Key::SecretAccessKey),
    ("AWS_SESSION_TOKEN", S3Key::Token),
    ("AWS_WEB_IDENTITY_TOKEN_FILE", S3Key::WebIdentityTokenFile),
    ("AWS_ROLE_ARN", S3Key::RoleArn),
    ("AWS_ROLE_SESSION_NAME", S3Key::RoleSessionName),
    ("AWS_ENDPOINT_URL_STS", S3Key::StsEndpoint),
    (
        "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
        S3Key::ContainerCredentialsRelativeUri,
    ),
    (
        "AWS_CONTAINER_CREDENTIALS_FULL_URI",
        S3Key::ContainerCredentialsFullUri,
    ),
    (
        "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",
        S3Key::ContainerAuthorizationTokenFile,
    ),
    ("AWS_EC2_METADATA_SERVICE_ENDPOINT", S3Key::MetadataEndpoint),
];

const AZURE: [(&str, AzureKey); 11] = [
    ("AZURE_STORAGE_ACCOUNT", AzureKey::AccountName),
    ("AZURE_STORAGE_ACCOUNT_NAME", AzureKey::AccountName),
    ("AZURE_STORAGE_KEY", AzureKey::AccessKey),
    ("AZURE_STORAGE_ACCOUNT_KEY", AzureKey::AccessKey),
    ("AZURE_STORAGE_SAS_TOKEN", AzureKey::SasKey),
    ("AZURE_CLIENT_ID", AzureKey::ClientId),
    ("AZURE_CLIENT_SECRET", AzureKey::ClientSecret),
    ("AZURE_TENANT_ID", AzureKey::AuthorityId),
    ("AZURE_FEDERATED_TOKEN_FILE", AzureKey::FederatedTokenFile),
    ("AZURE_AUTHORITY_HOST", AzureKey::AuthorityHost),
    ("IDENTITY_ENDPOINT", AzureKey::MsiEndpoint),
];

const GOOGLE: [(&str, GoogleKey); 3] = [
    (
        "GOOGLE_APPLICATION_CREDENTIALS",
        GoogleKey::ApplicationCredentials,
    ),
    ("GOOGLE_SERVICE_ACCOUNT_KEY", GoogleKey::ServiceAccountKey),
    ("GOOGLE_BEARER_TOKEN", GoogleKey::BearerToken),
];

/// An S3 builder with the credentials of the environment.
pub(super) fn s3(environment: &Environment) -> AmazonS3Builder {
    let mut builder = AmazonS3Builder::new();
    for (name, key) in S3 {
        if let Some(value) = environment.get(name) {
            builder = builder.with_config(key, value);
        }
    }
    builder
}

/// Whether the environment itself names an identity for S3, before any profile.
pub(super) fn names_s3_identity(environment: &Environment) -> bool {
    let has = |name: &str| environment.get(name).is_some();
    has("AWS_ACCESS_KEY_ID") || has("AWS_WEB_IDENTITY_TOKEN_FILE") && has("AWS_ROLE_ARN")
}

/// An Azure builder with the credentials of the environment.
pub(super) fn azure(environment: &Environment) -> MicrosoftAzureBuilder {
    let mut builder = MicrosoftAzureBuilder::new();
    for (name, key) in AZURE {
        if let Some(value) = environment.get(name) {
            builder = builder.with_config(key, value);
        }
    }
    builder
}

/// A Google builder with the credentials of the environment.
pub(super) fn google(environment: &Environment) -> GoogleCloudStorageBuilder {
    let mut builder = GoogleCloudStorageBuilder::new();
    for (name, key) in GOOGLE {
        if let Some(value) = environment.get(name) {
            builder = builder.with_config(key, value);
        }
    }
    builder
}
