//! Stores whose certificate is trusted, and stores whose certificate is not.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::Arc;

use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use super::super::{ObjectUrl, Store, StoreOptions};
use super::{bytes, environment, impatient};
use crate::error::Kind;
use crate::fs;

/// A server that takes every object, and its certificate in PEM.
fn server(name: &str) -> (String, String) {
    let made = rcgen::generate_simple_self_signed(vec![name.to_owned()]).unwrap();
    let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
    let certificates = vec![made.cert.der().clone()];
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(certificates, PrivateKeyDer::Pkcs8(key))
        .unwrap();

    let config = Arc::new(config);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let connection = ServerConnection::new(Arc::clone(&config)).unwrap();
            let mut stream = StreamOwned::new(connection, stream.unwrap());

            // A client that does not trust the certificate goes away here.
            let mut request = [0; 8192];
            if stream.read(&mut request).is_ok() {
                let _ = stream.write_all(
                    b"HTTP/1.1 200 OK\r\netag: \"1\"\r\nconnection: close\r\n\
                      content-length: 0\r\n\r\n",
                );
                stream.conn.send_close_notify();
                let _ = stream.flush();
            }
        }
    });
    (format!("https://localhost:{port}"), made.cert.pem())
}

fn options(endpoint: &str) -> StoreOptions {
    StoreOptions {
        endpoint: Some(endpoint.to_owned()),
        limits: impatient(),
        environment: environment(&[
            ("AWS_ACCESS_KEY_ID", "key"),
            ("AWS_SECRET_ACCESS_KEY", "very-secret"),
        ]),
        ..StoreOptions::default()
    }
}

fn connect(options: &StoreOptions) -> Store {
    Store::connect(&ObjectUrl::parse("s3://bucket").unwrap(), options).unwrap()
}

#[test]
fn a_certificate_of_a_named_authority_is_trusted() {
    let directory = tempfile::tempdir().unwrap();
    let (endpoint, pem) = server("localhost");
    let file = directory.path().join("ca.pem");
    fs::write_durably(&file, pem.as_bytes(), 0o600).unwrap();

    let mut options = options(&endpoint);
    options.ca_file = Some(file);
    connect(&options).put("one", bytes("1")).unwrap();
}

#[test]
fn a_certificate_of_an_unknown_authority_is_told() {
    let (endpoint, _) = server("localhost");
    let error = connect(&options(&endpoint))
        .put("one", bytes("1"))
        .unwrap_err();

    assert_eq!(error.kind(), Kind::Unreachable);
    assert_eq!(
        error.what(),
        "the certificate of the object store is not trusted"
    );
    assert!(error.hints()[0].contains("ca-file="));
}

#[test]
fn a_certificate_for_another_name_is_told() {
    let directory = tempfile::tempdir().unwrap();
    let (endpoint, pem) = server("store.example");
    let file = directory.path().join("ca.pem");
    fs::write_durably(&file, pem.as_bytes(), 0o600).unwrap();

    let mut options = options(&endpoint);
    options.ca_file = Some(file);
    let error = connect(&options).put("one", bytes("1")).unwrap_err();
    assert_eq!(
        error.what(),
        "the certificate of the object store is not trusted"
    );
}

#[test]
fn an_authority_that_is_no_certificate_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("ca.pem");
    fs::write_durably(&file, b"nothing", 0o600).unwrap();

    let mut options = options("https://localhost:1");
    options.ca_file = Some(file);
    let Err(error) = Store::connect(&ObjectUrl::parse("s3://bucket").unwrap(), &options) else {
        panic!("the file was accepted");
    };
    assert_eq!(error.kind(), Kind::Usage);
    assert_eq!(error.what(), "the file holds no certificate");
}
