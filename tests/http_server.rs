//! A small HTTP/1.1 server that gives the answers of a test, even wrong ones, and the recorded
//! exchanges with real nodes.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test may end in a panic"
)]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::Value;

/// A request as the server received it.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) headers: Vec<(String, String)>,
}

impl Request {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(key, _)| key.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }

    pub(crate) fn is(&self, method: &str, path: &str) -> bool {
        self.method == method && self.path.split('?').next() == Some(path)
    }
}

/// An answer of the server.
#[derive(Debug, Clone)]
pub(crate) enum Answer {
    Reply {
        status: u16,
        headers: Vec<(String, String)>,
        body: String,
    },
    /// Bytes without any change.
    Raw(Vec<u8>),
    /// A body without end.
    Endless,
    /// A body that comes byte by byte, and never ends.
    Drip,
    /// Headers without end.
    Headers,
    /// No answer at all.
    Never,
}

impl Answer {
    pub(crate) fn json(body: impl Into<String>) -> Self {
        Self::Reply {
            status: 200,
            headers: vec![(
                "Content-Type".into(),
                "application/json; charset=utf-8".into(),
            )],
            body: body.into(),
        }
    }

    pub(crate) fn status(status: u16) -> Self {
        Self::Reply {
            status,
            headers: Vec::new(),
            body: String::new(),
        }
    }

    pub(crate) fn text(status: u16, body: &str) -> Self {
        Self::Reply {
            status,
            headers: vec![("Content-Type".into(), "text/plain".into())],
            body: body.into(),
        }
    }

    pub(crate) fn with_header(mut self, name: &str, value: &str) -> Self {
        if let Self::Reply { headers, .. } = &mut self {
            headers.push((name.into(), value.into()));
        }
        self
    }
}

pub(crate) struct Server {
    pub(crate) url: String,
    heard: Arc<Mutex<Vec<Request>>>,
    stop: Arc<AtomicBool>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
    }
}

trait Stream: Read + Write + Send {}
impl<T: Read + Write + Send> Stream for T {}

impl Server {
    pub(crate) fn start(handler: impl Fn(&Request) -> Answer + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        Self::serve(
            url,
            move || {
                listener
                    .accept()
                    .map(|(stream, _)| Box::new(stream) as Box<dyn Stream>)
            },
            handler,
        )
    }

    pub(crate) fn start_tls(
        config: rustls::ServerConfig,
        handler: impl Fn(&Request) -> Answer + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("https://{}", listener.local_addr().unwrap());
        let config = Arc::new(config);
        let accept = move || {
            let (stream, _) = listener.accept()?;
            let connection = rustls::ServerConnection::new(Arc::clone(&config)).unwrap();
            Ok(Box::new(rustls::StreamOwned::new(connection, stream)) as Box<dyn Stream>)
        };
        Self::serve(url, accept, handler)
    }

    pub(crate) fn start_unix(
        socket: &Path,
        handler: impl Fn(&Request) -> Answer + Send + Sync + 'static,
    ) -> Self {
        let listener = UnixListener::bind(socket).unwrap();
        let accept = move || {
            listener
                .accept()
                .map(|(stream, _)| Box::new(stream) as Box<dyn Stream>)
        };
        Self::serve("http://localhost".to_owned(), accept, handler)
    }

    fn serve(
        url: String,
        accept: impl Fn() -> std::io::Result<Box<dyn Stream>> + Send + 'static,
        handler: impl Fn(&Request) -> Answer + Send + Sync + 'static,
    ) -> Self {
        let heard = Arc::new(Mutex::new(Vec::new()));
        let stop = Arc::new(AtomicBool::new(false));
        let server = Self {
            url,
            heard: Arc::clone(&heard),
            stop: Arc::clone(&stop),
        };
        let handler = Arc::new(handler);
        std::thread::spawn(move || {
            while let Ok(stream) = accept() {
                let (handler, heard, stop) =
                    (Arc::clone(&handler), Arc::clone(&heard), Arc::clone(&stop));
                if stop.load(Ordering::SeqCst) {
                    return;
                }
                std::thread::spawn(move || converse(stream, &*handler, &heard, &stop));
            }
        });

        server
    }

    pub(crate) fn heard(&self) -> Vec<Request> {
        self.heard.lock().unwrap().clone()
    }

    pub(crate) fn count(&self, method: &str, path: &str) -> usize {
        self.heard()
            .iter()
            .filter(|request| request.is(method, path))
            .count()
    }
}

fn converse(
    stream: Box<dyn Stream>,
    handler: &dyn Fn(&Request) -> Answer,
    heard: &Mutex<Vec<Request>>,
    stop: &AtomicBool,
) {
    let mut reader = BufReader::new(stream);
    let mut lines = Vec::new();

    loop {
        let mut line = String::new();
        match reader.read_line(&mut line) {
            Ok(0) | Err(_) => return,
            Ok(_) if line.trim().is_empty() => break,
            Ok(_) => lines.push(line.trim().to_owned()),
        }
    }

    let mut words = lines[0].split(' ');
    let request = Request {
        method: words.next().unwrap().to_owned(),
        path: words.next().unwrap().to_owned(),
        headers: lines[1..]
            .iter()
            .filter_map(|line| line.split_once(": "))
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .collect(),
    };
    heard.lock().unwrap().push(request.clone());
    let stream = reader.get_mut();
    let mut send = |bytes: &[u8]| {
        stream
            .write_all(bytes)
            .and_then(|()| stream.flush())
            .is_ok()
    };

    match handler(&request) {
        Answer::Reply {
            status,
            headers,
            body,
        } => {
            let mut text = format!("HTTP/1.1 {status} Some Reason\r\nConnection: close\r\n");
            for (key, value) in headers {
                text.push_str(&format!("{key}: {value}\r\n"));
            }
            if status != 204 {
                text.push_str(&format!("Content-Length: {}\r\n", body.len()));
            }
            send(format!("{text}\r\n{body}").as_bytes());
        }
        Answer::Raw(bytes) => {
            send(&bytes);
        }
        Answer::Endless => {
            let _ = send(
                b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n\r\n",
            );
            let piece = vec![b' '; 1 << 16];
            while !stop.load(Ordering::SeqCst) && send(&piece) {}
        }
        Answer::Drip => {
            let _ = send(
                b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n\r\n",
            );
            while !stop.load(Ordering::SeqCst) && send(b" ") {
                std::thread::sleep(Duration::from_millis(50));
            }
        }
        Answer::Headers => {
            let _ = send(b"HTTP/1.1 200 OK\r\n");
            let line = format!("X-More: {}\r\n", "x".repeat(8000));
            while !stop.load(Ordering::SeqCst) && send(line.as_bytes()) {}
        }
        Answer::Never => {
            while !stop.load(Ordering::SeqCst) {
                std::thread::sleep(Duration::from_millis(20));
            }
        }
    }
}

/// The recorded versions.
pub(crate) const VERSIONS: [&str; 6] = ["20.10", "21.10", "22.10", "23.10", "24.10", "26.1"];

/// The recorded exchanges with one version.
#[derive(Clone)]
pub(crate) struct Exchanges(Arc<Vec<Value>>);

impl Exchanges {
    pub(crate) fn of(version: &str) -> Self {
        let path = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
            .join("fixtures/http")
            .join(format!("{version}.json"));
        let value: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
        Self(Arc::new(value["exchanges"].as_array().unwrap().clone()))
    }

    /// The answer with this name in the recording.
    pub(crate) fn named(&self, name: &str) -> Answer {
        let exchange = self
            .0
            .iter()
            .find(|exchange| exchange["name"] == name)
            .unwrap_or_else(|| panic!("no exchange {name:?}"));
        answer(exchange)
    }

    /// The first answer of a running node to such a request. 404 if the recording has none.
    pub(crate) fn to(&self, request: &Request) -> Answer {
        self.0
            .iter()
            .find(|exchange| {
                let asked = &exchange["request"];
                let up = exchange["name"]
                    .as_str()
                    .is_none_or(|name| !name.ends_with("while preleader"));
                up && asked["method"] == request.method.as_str()
                    && asked["path"] == request.path.as_str()
                    && asked["headers"]["Accept"] == "application/json"
            })
            .map_or_else(|| Answer::status(404), answer)
    }
}

fn answer(exchange: &Value) -> Answer {
    let Some(status) = exchange["status"].as_u64() else {
        return Answer::Never;
    };
    let headers = exchange["headers"]
        .as_array()
        .unwrap()
        .iter()
        .map(|pair| {
            (
                pair[0].as_str().unwrap().to_owned(),
                pair[1].as_str().unwrap().to_owned(),
            )
        })
        .filter(|(name, _)| {
            !["content-length", "transfer-encoding", "connection"]
                .contains(&name.to_lowercase().as_str())
        })
        .collect();

    Answer::Reply {
        status: u16::try_from(status).unwrap(),
        headers,
        body: exchange["body"].as_str().unwrap_or_default().to_owned(),
    }
}
