//! A small web server that answers as a test says, with the lies and the silence that real stores
//! show only in bad hours.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::super::{ObjectUrl, Store, StoreOptions};
use super::{environment, impatient};

/// What the server does with a request.
pub(super) enum Reply {
    /// Sends these bytes, and closes the connection.
    Bytes(Vec<u8>),
    /// Closes the connection without an answer.
    Close,
    /// Keeps the connection, and never answers.
    Silence,
}

pub(super) struct WebServer {
    pub(super) address: String,
    heads: Arc<Mutex<Vec<String>>>,
}

impl WebServer {
    /// A server that answers the n-th request by `reply(n, head)`.
    pub(super) fn start(reply: impl Fn(usize, &str) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let heads: Arc<Mutex<Vec<String>>> = Arc::default();
        let seen = Arc::clone(&heads);
        let reply = Arc::new(reply);
        let count = Arc::new(AtomicUsize::new(0));

        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (reply, seen) = (Arc::clone(&reply), Arc::clone(&seen));
                let count = Arc::clone(&count);
                std::thread::spawn(move || {
                    let mut stream = stream.unwrap();
                    let Some(head) = read_request(&mut stream) else {
                        return;
                    };
                    let number = count.fetch_add(1, Ordering::SeqCst);
                    seen.lock().unwrap().push(head.clone());
                    answer(&mut stream, reply(number, &head));
                });
            }
        });
        Self { address, heads }
    }

    /// The heads of all requests so far.
    pub(super) fn heads(&self) -> Vec<String> {
        self.heads.lock().unwrap().clone()
    }

    /// A store of S3 at this server, for somebody in a hurry.
    pub(super) fn store(&self) -> Store {
        let url = ObjectUrl::parse("s3://bucket/prefix").unwrap();
        Store::connect(&url, &self.options()).unwrap()
    }

    pub(super) fn options(&self) -> StoreOptions {
        StoreOptions {
            endpoint: Some(self.address.clone()),
            allow_http: true,
            limits: impatient(),
            environment: environment(&[
                ("AWS_ACCESS_KEY_ID", "key"),
                ("AWS_SECRET_ACCESS_KEY", "very-secret"),
            ]),
            ..StoreOptions::default()
        }
    }
}

/// Reads a whole request, and returns its head.
fn read_request(stream: &mut TcpStream) -> Option<String> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte).ok()?;
        head.push(byte[0]);
    }

    let head = String::from_utf8(head).unwrap();
    let length = header(&head, "content-length").unwrap_or_default();
    let mut body = vec![0; length.parse().unwrap_or(0)];
    stream.read_exact(&mut body).ok()?;
    Some(head)
}

/// The value of a header.
pub(super) fn header(head: &str, name: &str) -> Option<String> {
    head.lines().find_map(|line| {
        let (found, value) = line.split_once(':')?;
        found
            .eq_ignore_ascii_case(name)
            .then(|| value.trim().to_owned())
    })
}

fn answer(stream: &mut TcpStream, reply: Reply) {
    match reply {
        Reply::Bytes(bytes) => {
            // The client may have gone.
            let _ = stream.write_all(&bytes);
        }
        Reply::Close => {}
        Reply::Silence => {
            // Ends when the client closes.
            stream
                .set_read_timeout(Some(Duration::from_secs(60)))
                .unwrap();
            let _ = stream.read(&mut [0]);
        }
    }
}

/// An answer with this status, these headers and this body.
pub(super) fn http(status: &str, headers: &[(&str, &str)], body: &str) -> Reply {
    let mut text = format!("HTTP/1.1 {status}\r\nconnection: close\r\n");
    for (name, value) in headers {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    text.push_str(&format!("content-length: {}\r\n\r\n{body}", body.len()));
    Reply::Bytes(text.into_bytes())
}

/// The answer to a successful request for an object.
pub(super) fn object(body: &str) -> Reply {
    http("200 OK", &OBJECT, body)
}

/// An error as S3 tells it.
pub(super) fn error(status: &str, code: &str) -> Reply {
    let body = format!("<Error><Code>{code}</Code><Message>told so</Message></Error>");
    http(status, &[("content-type", "application/xml")], &body)
}

pub(super) const OBJECT: [(&str, &str); 2] = [
    ("etag", "\"1\""),
    ("last-modified", "Tue, 01 Dec 2026 03:00:00 GMT"),
];
