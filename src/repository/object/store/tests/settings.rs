//! URLs, addresses and classes: what goes into a request, and what is refused before.

use super::super::{Addressing, ObjectUrl, ServerSideEncryption, Store, StoreOptions};
use super::web_server::{WebServer, header, object};
use super::{bytes, environment};
use crate::error::Kind;

#[test]
fn urls_are_read() {
    for (typed, prefix) in [
        ("s3://bucket", ""),
        ("s3://bucket/", ""),
        ("s3://my.bucket-1/kbackup/node-1/", "kbackup/node-1/"),
        ("az://container/a=b+c,d@e", "a=b+c,d@e/"),
        ("gs://bucket_x/prefix", "prefix/"),
        ("object+file:///var/backups/my objects", ""),
    ] {
        let url = ObjectUrl::parse(typed).unwrap();
        assert_eq!(url.place(), typed);
        assert_eq!(url.prefix(), prefix, "{typed}");
    }

    let url = ObjectUrl::parse("object+file:///var/x").unwrap();
    assert_eq!(url.directory().unwrap().to_str(), Some("/var/x"));
    assert_eq!(ObjectUrl::parse("s3://bucket").unwrap().directory(), None);
}

#[test]
fn wrong_urls_are_refused_in_a_sentence() {
    for (typed, what) in [
        ("bucket", "this is no URL of an object store"),
        ("https://bucket", "kbackup knows no object store `https://`"),
        ("s3://", "the URL names no bucket"),
        ("s3:///prefix", "the URL names no bucket"),
        (
            "s3://host:9000/bucket",
            "a URL of an object store holds no host and no port",
        ),
        ("s3://bu cket/x", "the name of the bucket cannot be right"),
        (
            "s3://bucket/a//b",
            "the prefix has an empty part, or `.` or `..`",
        ),
        (
            "s3://bucket/../b",
            "the prefix has an empty part, or `.` or `..`",
        ),
        (
            "s3://bucket/a?x=1",
            "the prefix has a character that kbackup does not use",
        ),
        (
            "s3://bucket/ä",
            "the prefix has a character that kbackup does not use",
        ),
        (
            "object+file://relative",
            "the path of the directory is not absolute",
        ),
    ] {
        let error = ObjectUrl::parse(typed).unwrap_err();
        assert_eq!(error.what(), what);
        assert_eq!(error.kind(), Kind::Usage, "{typed}");
        assert_eq!(error.place(), Some(typed));
        assert_eq!(error.hints().len(), 1, "{typed}");
    }
}

#[test]
fn a_url_with_a_password_is_not_repeated() {
    let error = ObjectUrl::parse("s3://key:secret@bucket/x").unwrap_err();
    assert_eq!(
        error.what(),
        "a URL of an object store holds no credentials"
    );
    assert!(!format!("{error:?}").contains("secret"));

    let options = StoreOptions {
        endpoint: Some("https://key:secret@host".to_owned()),
        ..StoreOptions::default()
    };
    let error = refused("s3://bucket", &options);
    assert!(error.what().contains("holds credentials"));
    assert!(!format!("{error:?}").contains("secret@"));
}

fn refused(url: &str, options: &StoreOptions) -> crate::error::Error {
    match Store::connect(&ObjectUrl::parse(url).unwrap(), options) {
        Ok(_) => panic!("{url} was accepted"),
        Err(error) => error,
    }
}

#[test]
fn an_address_without_tls_has_to_be_allowed() {
    let options = StoreOptions {
        endpoint: Some("http://store.example".to_owned()),
        environment: environment(&[("AZURE_STORAGE_ACCOUNT", "account")]),
        ..StoreOptions::default()
    };
    for url in ["s3://bucket", "az://container", "gs://bucket"] {
        let error = refused(url, &options);
        assert_eq!(error.kind(), Kind::Usage);
        assert!(error.what().contains("without TLS"), "{error}");
    }
}

#[test]
fn an_azure_account_has_to_be_named() {
    let options = StoreOptions {
        environment: environment(&[]),
        ..StoreOptions::default()
    };
    let error = refused("az://container", &options);
    assert_eq!(error.what(), "no storage account is named");
}

#[test]
fn a_directory_that_is_not_there_is_told() {
    let directory = tempfile::tempdir().unwrap();
    let missing = format!("object+file://{}/missing", directory.path().display());
    let error = refused(&missing, &StoreOptions::default());
    assert_eq!(error.kind(), Kind::NotFound);
}

#[test]
fn classes_and_encryption_are_asked_for() {
    let server = WebServer::start(|_, _| object(""));
    let mut options = server.options();
    options.storage_class = Some("STANDARD_IA".to_owned());
    options.encryption = Some(ServerSideEncryption::Kms(Some("the-key".to_owned())));
    options.requester_pays = true;
    let store = Store::connect(&ObjectUrl::parse("s3://bucket/p").unwrap(), &options).unwrap();

    store.create_in_class("blob", bytes("1")).unwrap();
    store.create("head", bytes("1")).unwrap();

    let heads = server.heads();
    assert!(heads[0].starts_with("PUT /bucket/p/blob HTTP/1.1\r\n"));
    let class = header(&heads[0], "x-amz-storage-class");
    assert_eq!(class.as_deref(), Some("STANDARD_IA"));
    assert_eq!(header(&heads[1], "x-amz-storage-class"), None);
    for head in &heads {
        let encryption = header(head, "x-amz-server-side-encryption");
        assert_eq!(encryption.as_deref(), Some("aws:kms"));
        let key = header(head, "x-amz-server-side-encryption-aws-kms-key-id");
        assert_eq!(key.as_deref(), Some("the-key"));
        assert!(header(head, "x-amz-request-payer").is_some());
    }
}

#[test]
fn keys_of_the_store_are_asked_for() {
    let server = WebServer::start(|_, _| object(""));
    let mut options = server.options();
    options.encryption = Some(ServerSideEncryption::Aes256);
    let store = Store::connect(&ObjectUrl::parse("s3://bucket/p").unwrap(), &options).unwrap();

    store.put("one", bytes("1")).unwrap();
    let encryption = header(&server.heads()[0], "x-amz-server-side-encryption");
    assert_eq!(encryption.as_deref(), Some("AES256"));
}

#[test]
fn a_bucket_can_be_in_the_hosts_name() {
    let server = WebServer::start(|_, _| object(""));
    let port = server.address.rsplit(':').next().unwrap().to_owned();
    let mut options = server.options();
    options.endpoint = Some(format!("http://localhost:{port}"));
    options.addressing = Addressing::VirtualHost;
    let store = Store::connect(&ObjectUrl::parse("s3://bucket/p").unwrap(), &options).unwrap();

    // Not every machine resolves names below `localhost`.
    if store.put("one", bytes("1")).is_ok() {
        let head = &server.heads()[0];
        assert!(head.starts_with("PUT /p/one HTTP/1.1\r\n"), "{head}");
        assert_eq!(
            header(head, "host").unwrap(),
            format!("bucket.localhost:{port}")
        );
    }
}

#[test]
fn the_region_is_part_of_the_signature() {
    let server = WebServer::start(|_, _| object(""));
    let mut options = server.options();
    options.region = Some("eu-central-1".to_owned());
    let store = Store::connect(&ObjectUrl::parse("s3://bucket").unwrap(), &options).unwrap();

    store.put("one", bytes("1")).unwrap();
    let signature = header(&server.heads()[0], "authorization").unwrap();
    assert!(
        signature.contains("/eu-central-1/s3/aws4_request"),
        "{signature}"
    );
}

#[test]
fn secrets_are_not_shown() {
    let server = WebServer::start(|_, _| object(""));
    let shown = format!("{:?}", server.options());
    assert!(shown.contains("AWS_SECRET_ACCESS_KEY"));
    assert!(!shown.contains("very-secret"));
}
