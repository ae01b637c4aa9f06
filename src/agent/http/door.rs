//! Lets connections in: so many at a time, for so long, encrypted where wanted. Nobody holds
//! anything by saying nothing.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::{Instant, Sleep};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tracing::{debug, warn};

use crate::agent::{Agent, lock};
use crate::error::{Error, Kind, Result};
use crate::fs;

/// So many connections at a time; who comes later waits.
const PLACES: usize = 64;
/// A connection on which nothing moves for so long is closed.
const SILENCE: Duration = Duration::from_secs(10);
/// And each after so long, however busy: whoever wants more comes again.
const LIFE: Duration = Duration::from_secs(60);
/// The system has no more of something: it is asked again after so long.
const PAUSE: Duration = Duration::from_secs(1);
const MAX_PEM: u64 = 1024 * 1024;

/// Where connections come in.
pub(super) struct Door {
    admitted: mpsc::Receiver<(Connection, SocketAddr)>,
    here: SocketAddr,
}

impl Door {
    /// Opens it.
    pub(super) fn open(listener: TcpListener, agent: Arc<Agent>) -> io::Result<Self> {
        let here = listener.local_addr()?;
        let (admit, admitted) = mpsc::channel(1);
        tokio::spawn(let_in(listener, agent, admit));
        Ok(Self { admitted, here })
    }
}

impl axum::serve::Listener for Door {
    type Io = Connection;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Connection, SocketAddr) {
        match self.admitted.recv().await {
            Some(admitted) => admitted,
            None => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.here)
    }
}

async fn let_in(
    listener: TcpListener,
    agent: Arc<Agent>,
    admit: mpsc::Sender<(Connection, SocketAddr)>,
) {
    let places = Arc::new(Semaphore::new(PLACES));
    let pair = Arc::new(Mutex::new(Pair::default()));
    while let Ok(place) = Arc::clone(&places).acquire_owned().await {
        let (stream, from) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                debug!("a connection cannot be taken: {error}");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        let (agent, pair, admit) = (Arc::clone(&agent), Arc::clone(&pair), admit.clone());
        tokio::spawn(async move {
            match tokio::time::timeout(SILENCE, greet(stream, agent, pair)).await {
                Ok(Ok(stream)) => drop(admit.send((Connection::new(stream, place), from)).await),
                Ok(Err(error)) => debug!("{from}: {error}"),
                Err(_) => debug!("{from}: says nothing"),
            }
        });
    }
}

async fn greet(stream: TcpStream, agent: Arc<Agent>, pair: Arc<Mutex<Pair>>) -> io::Result<Stream> {
    let options = agent.configuration();
    let (Some(certificate), Some(key)) = (
        options.agent.listen_certificate_file.clone(),
        options.agent.listen_key_file.clone(),
    ) else {
        return Ok(Stream::Plain(stream));
    };
    // Files may keep one waiting.
    let load = move || lock(&pair).current(&certificate, &key);
    let server = tokio::task::spawn_blocking(load)
        .await
        .map_err(io::Error::other)?
        .map_err(|error| io::Error::other(error.in_words()))?;
    TlsAcceptor::from(server)
        .accept(stream)
        .await
        .map(|stream| Stream::Encrypted(Box::new(stream)))
}

/// Fails where certificate and key cannot be used.
pub(super) fn check(certificate: &Path, key: &Path) -> Result<()> {
    Pair::default().current(certificate, key).map(drop)
}

/// Certificate and key, as they were when they could be used last.
#[derive(Default)]
struct Pair {
    known: Option<([Vec<u8>; 2], Arc<ServerConfig>)>,
    /// Why the newest cannot be used.
    refused: Option<String>,
}

impl Pair {
    /// What the files hold now, or what they held before where that cannot be used: a renewal may
    /// be half done.
    fn current(&mut self, certificate: &Path, key: &Path) -> Result<Arc<ServerConfig>> {
        let renewed = self.renewed(certificate, key);
        let refused = renewed.as_ref().err().map(Error::in_words);
        if let Some(problem) = refused
            .as_ref()
            .filter(|problem| self.known.is_some() && self.refused.as_ref() != Some(problem))
        {
            warn!("the page's certificate cannot be renewed, the one before goes on: {problem}");
        }
        self.refused = refused;
        match (renewed, &self.known) {
            (Ok(server), _) => Ok(server),
            (Err(_), Some((_, server))) => Ok(Arc::clone(server)),
            (Err(error), None) => Err(error),
        }
    }

    fn renewed(&mut self, certificate: &Path, key: &Path) -> Result<Arc<ServerConfig>> {
        let read = |path: &Path| -> Result<Vec<u8>> {
            // Mounted secrets are links.
            let place: PathBuf = fs::canonical(path).unwrap_or_else(|_| path.to_owned());
            fs::read_small(&place, MAX_PEM)
                .map_err(|error| Error::from(error).with_kind(Kind::Usage))
        };
        let files = [read(certificate)?, read(key)?];
        if let Some((known, server)) = &self.known
            && *known == files
        {
            return Ok(Arc::clone(server));
        }
        let wrong = |path: &Path, why: String| {
            Error::new(Kind::Usage, "the page cannot be encrypted")
                .at(path)
                .because(why)
        };
        let [chain, secret] = &files;
        let chain: Vec<CertificateDer<'_>> = CertificateDer::pem_slice_iter(chain)
            .collect::<std::result::Result<_, _>>()
            .map_err(|error| wrong(certificate, error.to_string()))?;
        let secret =
            PrivateKeyDer::from_pem_slice(secret).map_err(|error| wrong(key, error.to_string()))?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut server = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .and_then(|builder| {
                builder.with_no_client_auth().with_single_cert(
                    chain.into_iter().map(CertificateDer::into_owned).collect(),
                    secret,
                )
            })
            .map_err(|error| wrong(certificate, error.to_string()))?;
        server.alpn_protocols = vec![b"http/1.1".to_vec()];
        let server = Arc::new(server);
        self.known = Some((files, Arc::clone(&server)));
        Ok(server)
    }
}

enum Stream {
    Plain(TcpStream),
    Encrypted(Box<TlsStream<TcpStream>>),
}

/// A connection that ends by itself.
pub(super) struct Connection {
    stream: Stream,
    silence: Pin<Box<Sleep>>,
    life: Pin<Box<Sleep>>,
    _place: OwnedSemaphorePermit,
}

impl Connection {
    fn new(stream: Stream, place: OwnedSemaphorePermit) -> Self {
        let after = |time| Box::pin(tokio::time::sleep(time));
        Self {
            stream,
            silence: after(SILENCE),
            life: after(LIFE),
            _place: place,
        }
    }

    /// Does something with the stream, unless its time is over.
    fn within<T>(
        &mut self,
        context: &mut Context<'_>,
        go: impl FnOnce(Pin<&mut (dyn Both + 'static)>, &mut Context<'_>) -> Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if self.life.as_mut().poll(context).is_ready()
            || self.silence.as_mut().poll(context).is_ready()
        {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        let moved = match &mut self.stream {
            Stream::Plain(stream) => go(Pin::new(stream), context),
            Stream::Encrypted(stream) => go(Pin::new(stream), context),
        };
        if moved.is_ready() {
            self.silence.as_mut().reset(Instant::now() + SILENCE);
        }
        moved
    }
}

trait Both: AsyncRead + AsyncWrite + Unpin {}
impl<T: AsyncRead + AsyncWrite + Unpin> Both for T {}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.within(context, |stream, context| stream.poll_read(context, buffer))
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.within(context, |stream, context| stream.poll_write(context, bytes))
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.within(context, AsyncWrite::poll_flush)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.within(context, AsyncWrite::poll_shutdown)
    }
}
