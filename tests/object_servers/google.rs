//! A store that speaks like Google Cloud Storage, in the memory of the test, because no emulator
//! enforces generations. It knows what kbackup uses of the XML interface: objects with generations,
//! and lists in pages. It shows that kbackup sends the right requests; how the real store behaves,
//! it cannot show.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};

const PAGE: usize = 1000;

/// The objects by name, each with its generation.
type Objects = BTreeMap<String, (u64, Vec<u8>)>;

#[derive(Default)]
struct Bucket {
    objects: Objects,
    generation: u64,
}

struct Request {
    method: String,
    path: String,
    query: BTreeMap<String, String>,
    headers: BTreeMap<String, String>,
    body: Vec<u8>,
}

struct Answer {
    status: &'static str,
    headers: Vec<(&'static str, String)>,
    body: Vec<u8>,
}

/// Starts the store, and returns its address. It ends with the process.
pub(super) fn start() -> std::io::Result<String> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = format!("http://{}", listener.local_addr()?);
    let bucket: Arc<Mutex<Bucket>> = Arc::default();

    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let bucket = Arc::clone(&bucket);
            std::thread::spawn(move || serve(stream, &bucket));
        }
    });
    Ok(address)
}

/// Answers all requests of one connection.
fn serve(mut stream: TcpStream, bucket: &Mutex<Bucket>) {
    while let Some(request) = read(&mut stream) {
        let answer = {
            let mut bucket = bucket.lock().unwrap_or_else(PoisonError::into_inner);
            answer(&mut bucket, &request)
        };

        let mut text = format!("HTTP/1.1 {}\r\n", answer.status);
        for (name, value) in &answer.headers {
            text.push_str(&format!("{name}: {value}\r\n"));
        }
        text.push_str(&format!("content-length: {}\r\n\r\n", answer.body.len()));

        let mut bytes = text.into_bytes();
        if request.method != "HEAD" {
            bytes.extend_from_slice(&answer.body);
        }
        if stream.write_all(&bytes).is_err() {
            return;
        }
    }
}

fn read(stream: &mut TcpStream) -> Option<Request> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte).ok()?;
        head.extend_from_slice(&byte);
    }

    let head = String::from_utf8(head).ok()?;
    let mut lines = head.lines();
    let mut words = lines.next()?.split(' ');
    let method = words.next()?.to_owned();
    let target = words.next()?;
    let (path, query) = target.split_once('?').unwrap_or((target, ""));

    let mut headers = BTreeMap::new();
    for line in lines {
        if let Some((name, value)) = line.split_once(':') {
            headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
        }
    }
    let length = headers
        .get("content-length")
        .map_or(Ok(0), |text| text.parse());
    let mut body = vec![0; length.ok()?];
    stream.read_exact(&mut body).ok()?;

    Some(Request {
        method,
        path: decoded(path),
        query: query
            .split('&')
            .filter_map(|pair| pair.split_once('='))
            .map(|(name, value)| (name.to_owned(), decoded(value)))
            .collect(),
        headers,
        body,
    })
}

/// The text behind `%2F` and its like.
fn decoded(text: &str) -> String {
    let mut pieces = text.split('%');
    let mut decoded = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        let (code, rest) = piece.split_at_checked(2).unwrap_or((piece, ""));
        decoded.push(u8::from_str_radix(code, 16).map_or('?', char::from));
        decoded.push_str(rest);
    }
    decoded
}

fn answer(bucket: &mut Bucket, request: &Request) -> Answer {
    let Some(path) = request.path.strip_prefix("/kbackup-test") else {
        return error("404 Not Found", "NoSuchBucket");
    };
    let Some(key) = path.strip_prefix('/').filter(|key| !key.is_empty()) else {
        return list(&bucket.objects, request);
    };

    match request.method.as_str() {
        "PUT" => put(bucket, key, request),
        "DELETE" => match bucket.objects.remove(key) {
            Some(_) => plain("204 No Content"),
            None => error("404 Not Found", "NoSuchKey"),
        },
        _ => match bucket.objects.get(key) {
            Some((generation, body)) => found(*generation, body),
            None => error("404 Not Found", "NoSuchKey"),
        },
    }
}

fn put(bucket: &mut Bucket, key: &str, request: &Request) -> Answer {
    // Generation 0 stands for an object that does not exist.
    let now = bucket
        .objects
        .get(key)
        .map_or(0, |(generation, _)| *generation);
    if let Some(wanted) = request.headers.get("x-goog-if-generation-match")
        && *wanted != now.to_string()
    {
        return error("412 Precondition Failed", "PreconditionFailed");
    }

    bucket.generation += 1;
    let generation = bucket.generation;
    let object = (generation, request.body.clone());
    bucket.objects.insert(key.to_owned(), object);
    found(generation, b"")
}

fn found(generation: u64, body: &[u8]) -> Answer {
    Answer {
        status: "200 OK",
        headers: vec![
            ("etag", format!("\"{generation}\"")),
            ("last-modified", now()),
            ("x-goog-generation", generation.to_string()),
        ],
        body: body.to_vec(),
    }
}

/// Every object is as young as its newest answer.
fn now() -> String {
    let now = jiff::Timestamp::now().to_zoned(jiff::tz::TimeZone::UTC);
    jiff::fmt::rfc2822::to_string(&now).unwrap_or_default()
}

/// The list of keys, a page of it. The token of the next page is the last key of this one.
fn list(objects: &Objects, request: &Request) -> Answer {
    let of = |name: &str| request.query.get(name).map(String::as_str);
    let prefix = of("prefix").unwrap_or_default();
    let after = of("continuation-token").or(of("start-after"));
    let after = after.unwrap_or_default();

    let mut body = String::from("<ListBucketResult>");
    let mut told = 0;
    let mut last = "";
    for (key, (generation, bytes)) in objects {
        if !key.starts_with(prefix) || key.as_str() <= after {
            continue;
        }
        if told == PAGE {
            body.push_str(&format!(
                "<NextContinuationToken>{last}</NextContinuationToken>"
            ));
            break;
        }

        body.push_str(&format!(
            "<Contents><Key>{key}</Key><LastModified>2026-12-01T03:00:00.000Z</LastModified>\
             <ETag>\"{generation}\"</ETag><Size>{}</Size></Contents>",
            bytes.len()
        ));
        told += 1;
        last = key;
    }
    body.push_str("</ListBucketResult>");

    Answer {
        body: body.into_bytes(),
        ..plain("200 OK")
    }
}

fn error(status: &'static str, code: &str) -> Answer {
    Answer {
        body: format!("<Error><Code>{code}</Code></Error>").into_bytes(),
        ..plain(status)
    }
}

const fn plain(status: &'static str) -> Answer {
    Answer {
        status,
        headers: Vec::new(),
        body: Vec::new(),
    }
}
