//! Credentials and settings from AWS profiles.

use std::path::Path;

use super::super::{Environment, ObjectUrl, Store, StoreOptions};
use super::web_server::{WebServer, header, object};
use super::{bytes, environment};
use crate::error::{Error, Kind};
use crate::fs;

const CREDENTIALS: &str = "\
# A comment
[default]
aws_access_key_id = default-key
aws_secret_access_key = default-secret

[node]
aws_access_key_id=node-key
aws_secret_access_key=node-secret
aws_session_token=node-token
";
const CONFIG: &str = "\
[default]
region = eu-west-1
s3 =
    region = nested

[profile node]
region = eu-north-1

[profile single-sign-on]
sso_session = company
";

fn home(directory: &Path) -> String {
    let files = directory.join(".aws");
    fs::create_directory(&files, 0o700).unwrap();
    write(&files.join("credentials"), CREDENTIALS);
    write(&files.join("config"), CONFIG);
    directory.to_str().unwrap().to_owned()
}

fn write(path: &Path, text: &str) {
    fs::write_durably(path, text.as_bytes(), 0o600).unwrap();
}

fn with(server: &WebServer, environment: Environment) -> StoreOptions {
    StoreOptions {
        environment,
        ..server.options()
    }
}

fn connect(options: &StoreOptions) -> Result<Store, Error> {
    Store::connect(&ObjectUrl::parse("s3://bucket").unwrap(), options)
}

/// The signature of a request in this environment, and its session token.
fn signed(variables: &[(&str, &str)]) -> (String, Option<String>) {
    let server = WebServer::start(|_, _| object(""));
    let store = connect(&with(&server, environment(variables))).unwrap();
    store.put("one", bytes("1")).unwrap();

    let head = server.heads().remove(0);
    let signature = header(&head, "authorization").unwrap();
    (signature, header(&head, "x-amz-security-token"))
}

#[test]
fn the_default_profile_is_used() {
    let directory = tempfile::tempdir().unwrap();
    let home = home(directory.path());

    let (signature, token) = signed(&[("HOME", &home)]);
    assert!(signature.contains("Credential=default-key/"), "{signature}");
    assert!(signature.contains("/eu-west-1/s3/"), "{signature}");
    assert_eq!(token, None);
}

#[test]
fn a_named_profile_is_used() {
    let directory = tempfile::tempdir().unwrap();
    let home = home(directory.path());

    let (signature, token) = signed(&[("HOME", &home), ("AWS_PROFILE", "node")]);
    assert!(signature.contains("Credential=node-key/"), "{signature}");
    assert!(signature.contains("/eu-north-1/s3/"), "{signature}");
    assert_eq!(token.as_deref(), Some("node-token"));
}

#[test]
fn variables_count_before_profiles() {
    let directory = tempfile::tempdir().unwrap();
    let home = home(directory.path());

    let (signature, _) = signed(&[
        ("HOME", &home),
        ("AWS_ACCESS_KEY_ID", "variable-key"),
        ("AWS_SECRET_ACCESS_KEY", "variable-secret"),
        ("AWS_REGION", "us-west-2"),
    ]);
    assert!(
        signature.contains("Credential=variable-key/"),
        "{signature}"
    );
    assert!(signature.contains("/us-west-2/s3/"), "{signature}");
}

#[test]
fn files_can_be_elsewhere() {
    let directory = tempfile::tempdir().unwrap();
    let credentials = directory.path().join("elsewhere");
    write(&credentials, CREDENTIALS);

    let path = credentials.to_str().unwrap();
    let (signature, _) = signed(&[("AWS_SHARED_CREDENTIALS_FILE", path)]);
    assert!(signature.contains("Credential=default-key/"), "{signature}");
}

#[test]
fn a_key_that_was_exchanged_counts_at_once() {
    let directory = tempfile::tempdir().unwrap();
    let home = home(directory.path());
    let server = WebServer::start(|_, _| object(""));
    let store = connect(&with(&server, environment(&[("HOME", &home)]))).unwrap();

    store.put("one", bytes("1")).unwrap();
    let exchanged = CREDENTIALS.replace("default-key", "another-key");
    write(&directory.path().join(".aws/credentials"), &exchanged);
    store.put("one", bytes("1")).unwrap();

    let heads = server.heads();
    assert!(heads[0].contains("Credential=default-key/"));
    assert!(heads[1].contains("Credential=another-key/"));
}

#[test]
fn a_profile_that_is_not_there_is_told() {
    let directory = tempfile::tempdir().unwrap();
    let home = home(directory.path());
    let server = WebServer::start(|_, _| object(""));

    for (profile, what) in [
        ("missing", "the AWS profile holds no credentials"),
        (
            "single-sign-on",
            "kbackup does not understand `sso_session` in an AWS profile",
        ),
    ] {
        let environment = environment(&[("HOME", &home), ("AWS_PROFILE", profile)]);
        let Err(error) = connect(&with(&server, environment)) else {
            panic!("{profile} was accepted");
        };
        assert_eq!(error.kind(), Kind::Usage);
        assert_eq!(error.what(), what);
        assert_eq!(error.place(), Some(profile));
    }
}
