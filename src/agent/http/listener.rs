//! Accepts connections: a limited number at a time, each for a limited time, encrypted if that is
//! configured. A reader that sends nothing loses its place.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::{Instant, Sleep};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tracing::debug;

use super::tls::KeyPairCache;
use crate::agent::published::Published;

/// How many connections there may be at a time. More of them wait.
const PLACES: usize = 64;
/// A connection on which nothing moves for this long is closed.
const SILENCE: Duration = Duration::from_secs(10);
/// Each connection is closed after this long, however busy it is.
const LIFE: Duration = Duration::from_secs(60);
/// How long to wait if the system is out of a resource, such as file descriptors.
const PAUSE: Duration = Duration::from_secs(1);

/// A listener with these limits.
pub(super) struct LimitedListener {
    accepted: mpsc::Receiver<(HttpConnection, SocketAddr)>,
    here: SocketAddr,
}

impl LimitedListener {
    /// Begins to accept connections.
    pub(super) fn new(listener: TcpListener, published: Published) -> io::Result<Self> {
        let here = listener.local_addr()?;
        let (accept, accepted) = mpsc::channel(1);
        tokio::spawn(accept_all(listener, published, accept));

        Ok(Self { accepted, here })
    }
}

impl axum::serve::Listener for LimitedListener {
    type Io = HttpConnection;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (HttpConnection, SocketAddr) {
        match self.accepted.recv().await {
            Some(accepted) => accepted,
            None => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.here)
    }
}

async fn accept_all(
    listener: TcpListener,
    published: Published,
    accept: mpsc::Sender<(HttpConnection, SocketAddr)>,
) {
    let places = Arc::new(Semaphore::new(PLACES));
    let key_pair = Arc::new(Mutex::new(KeyPairCache::default()));

    while let Ok(place) = Arc::clone(&places).acquire_owned().await {
        let (stream, from) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                debug!("a connection cannot be accepted: {error}");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };

        let greeting = greet(stream, published.clone(), Arc::clone(&key_pair));
        let accept = accept.clone();
        tokio::spawn(async move {
            match tokio::time::timeout(SILENCE, greeting).await {
                Ok(Ok(stream)) => drop(
                    accept
                        .send((HttpConnection::new(stream, place), from))
                        .await,
                ),
                Ok(Err(error)) => debug!("{from}: {error}"),
                Err(_) => debug!("{from}: sent nothing in time"),
            }
        });
    }
}

/// Encrypts the connection, if that is configured.
async fn greet(
    stream: TcpStream,
    published: Published,
    key_pair: Arc<Mutex<KeyPairCache>>,
) -> io::Result<Stream> {
    let configuration = published.now().configuration.clone();
    let options = &configuration.agent;
    let (Some(certificate), Some(key)) = (
        options.listen_certificate_file.clone(),
        options.listen_key_file.clone(),
    ) else {
        return Ok(Stream::Plain(stream));
    };

    // The read of the files may block.
    let read = move || {
        let mut key_pair = key_pair.lock().unwrap_or_else(PoisonError::into_inner);
        key_pair.current(&certificate, &key)
    };
    let server = tokio::task::spawn_blocking(read)
        .await
        .map_err(io::Error::other)?
        .map_err(|error| io::Error::other(error.in_words()))?;

    let stream = TlsAcceptor::from(server).accept(stream).await?;
    Ok(Stream::Encrypted(Box::new(stream)))
}

enum Stream {
    Plain(TcpStream),
    Encrypted(Box<TlsStream<TcpStream>>),
}

/// A connection that ends after a time of silence, or at the end of its life.
pub(super) struct HttpConnection {
    stream: Stream,
    silence: Pin<Box<Sleep>>,
    life: Pin<Box<Sleep>>,
    _place: OwnedSemaphorePermit,
}

impl HttpConnection {
    fn new(stream: Stream, place: OwnedSemaphorePermit) -> Self {
        Self {
            stream,
            silence: Box::pin(tokio::time::sleep(SILENCE)),
            life: Box::pin(tokio::time::sleep(LIFE)),
            _place: place,
        }
    }

    /// Does something with the stream, unless the connection's time is over.
    fn within<T>(
        &mut self,
        context: &mut Context<'_>,
        act: impl FnOnce(ByteStreamPin<'_>, &mut Context<'_>) -> Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if self.life.as_mut().poll(context).is_ready()
            || self.silence.as_mut().poll(context).is_ready()
        {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }

        let moved = match &mut self.stream {
            Stream::Plain(stream) => act(Pin::new(stream), context),
            Stream::Encrypted(stream) => act(Pin::new(stream), context),
        };
        if moved.is_ready() {
            self.silence.as_mut().reset(Instant::now() + SILENCE);
        }

        moved
    }
}

/// Either kind of stream.
type ByteStreamPin<'a> = Pin<&'a mut (dyn ByteStream + 'static)>;

trait ByteStream: AsyncRead + AsyncWrite + Unpin {}
impl<T: AsyncRead + AsyncWrite + Unpin> ByteStream for T {}

impl AsyncRead for HttpConnection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.within(context, |stream, context| stream.poll_read(context, buffer))
    }
}

impl AsyncWrite for HttpConnection {
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
