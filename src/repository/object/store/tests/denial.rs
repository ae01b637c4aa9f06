//! Wrong credentials, missing permissions, missing buckets, and clocks that are wrong.

use super::super::{ObjectUrl, Store, StoreOptions};
use super::object_servers::{self, ObjectServer};
use super::web_server::{Reply, WebServer, error, http};
use super::{bytes, connect, environment, impatient, options};
use crate::error::{Error, Kind};

fn check(error: &Error, kind: Kind, what: &str, hint: &str) {
    assert_eq!(error.what(), what);
    assert_eq!(error.kind(), kind);
    let hints = error.hints().join("; ");
    assert!(hints.contains(hint), "{hints}");
    assert!(!error.in_words().contains("secret"), "{}", error.in_words());
}

fn without_bucket(server: &ObjectServer) -> Store {
    let url = server.url.replace("kbackup-test", "kbackup-missing");
    Store::connect(&ObjectUrl::parse(&url).unwrap(), &options(server)).unwrap()
}

#[test]
fn a_missing_bucket_is_told() {
    for (server, what) in [
        (object_servers::s3(), "there is no such bucket"),
        (object_servers::azure(), "there is no such container"),
    ] {
        let Some(server) = server else { continue };
        let store = without_bucket(&server);
        let errors = [
            store.list("").unwrap_err(),
            store.get("one", 1).unwrap_err(),
            store.create("one", bytes("1")).unwrap_err(),
        ];
        for error in errors {
            check(&error, Kind::NotFound, what, "make it, or check its name");
            assert!(error.place().unwrap().starts_with(store.place().as_str()));
        }
    }
}

#[test]
fn wrong_credentials_are_told() {
    let azure = object_servers::azure().map(|mut server| {
        server.environment[1].1 = "d3Jvbmctc2VjcmV0".to_owned();
        server
    });
    let servers = [
        object_servers::s3_as("kbackup", "wrong-secret"),
        object_servers::s3_as("nobody", "wrong-secret"),
        azure,
    ];

    for server in servers.into_iter().flatten() {
        let store = connect(&server);
        let what = "the object store does not accept these credentials";
        for error in [
            store.list("").unwrap_err(),
            store.put("one", bytes("1")).unwrap_err(),
        ] {
            check(&error, Kind::Denied, what, "check that the key is complete");
        }
        assert_eq!(store.requests().repeated, 0);
    }
}

#[test]
fn what_a_reader_may_not_do_is_told() {
    let Some(server) = object_servers::s3_as("reader", "reader-secret") else {
        return;
    };
    let store = connect(&server);
    assert_eq!(store.get("one", 1).unwrap(), None);
    store.list("").unwrap();

    let error = store.create("one", bytes("1")).unwrap_err();
    let what = "not allowed to write to the object store";
    check(&error, Kind::Denied, what, "s3:PutObject");
    let error = store.delete("one").unwrap_err();
    let what = "not allowed to delete from the object store";
    check(&error, Kind::Denied, what, "s3:DeleteObject");
}

#[test]
fn what_a_writer_may_not_do_is_told() {
    let Some(server) = object_servers::s3_as("writer", "writer-secret") else {
        return;
    };
    let store = connect(&server);
    store.put("one", bytes("1")).unwrap();

    let error = store.list("").unwrap_err();
    let what = "not allowed to list the object store";
    check(&error, Kind::Denied, what, "s3:ListBucket");
    let error = store.get("one", 1).unwrap_err();
    let what = "not allowed to read from the object store";
    check(&error, Kind::Denied, what, "s3:GetObject");
}

#[test]
fn clocks_that_differ_are_told() {
    let by_code = WebServer::start(|_, _| error("403 Forbidden", "RequestTimeTooSkewed"));
    let error = by_code.store().put("one", bytes("1")).unwrap_err();
    assert!(
        error
            .what()
            .starts_with("this machine's clock and the object store's differ")
    );

    let by_date = WebServer::start(|_, _| {
        let date = ("date", "Tue, 01 Dec 2020 03:00:00 GMT");
        http("403 Forbidden", &[date], "")
    });
    let error = by_date.store().put("one", bytes("1")).unwrap_err();
    assert!(
        error
            .what()
            .starts_with("this machine's clock and the object store's differ")
    );
    assert_eq!(error.kind(), Kind::Denied);
    assert!(error.hints()[0].contains("timedatectl"));
}

#[test]
fn a_bucket_of_another_region_is_told() {
    let server = WebServer::start(|_, _| {
        let region = ("x-amz-bucket-region", "eu-central-1");
        http("301 Moved Permanently", &[region], "")
    });
    let error = server.store().list("").unwrap_err();
    let what = "the bucket is in another region";
    check(
        &error,
        Kind::Usage,
        what,
        "add `region=eu-central-1` to the URL",
    );
}

#[test]
fn an_archived_object_is_told() {
    let server = WebServer::start(|_, _| error("403 Forbidden", "InvalidObjectState"));
    let error = server.store().get("one", 1).unwrap_err();
    let what = "the object is in an archive";
    check(
        &error,
        Kind::Refused,
        what,
        "bring it back from the archive",
    );
}

#[test]
fn missing_credentials_are_told() {
    // The service of the machine that gives credentials is not there.
    let nothing = WebServer::start(|_, _| Reply::Close);
    let options = StoreOptions {
        endpoint: Some("http://127.0.0.2:9".to_owned()),
        allow_http: true,
        limits: impatient(),
        environment: environment(&[(
            "AWS_EC2_METADATA_SERVICE_ENDPOINT",
            nothing.address.as_str(),
        )]),
        ..StoreOptions::default()
    };
    let store = Store::connect(&ObjectUrl::parse("s3://bucket").unwrap(), &options).unwrap();

    let error = store.list("").unwrap_err();
    let what = "there are no credentials for the object store";
    check(&error, Kind::Denied, what, "AWS_ACCESS_KEY_ID");
    assert_eq!(store.requests().lists, 0);
}
