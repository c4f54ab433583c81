//! What is behind the load balancers, as far as they can tell: API servers and workers.

use std::convert::Infallible;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::stream::{self, BoxStream, StreamExt as _};
use http_body_util::StreamBody;
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use rcgen::{CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::ServerConfig;
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use serde_json::json;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio_rustls::TlsAcceptor;

use crate::Result;

/// A certificate authority.
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    /// A new one.
    ///
    /// # Errors
    /// No key can be made.
    pub fn new() -> Result<Authority> {
        let mut params = CertificateParams::new(Vec::new())?;
        params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        params.distinguished_name.push(rcgen::DnType::CommonName, "kubernetes");
        Ok(Authority { issuer: CertifiedIssuer::self_signed(params, KeyPair::generate()?)? })
    }

    /// Its certificate (PEM).
    pub fn pem(&self) -> String {
        self.issuer.pem()
    }

    /// Its key (PEM).
    pub fn key(&self) -> String {
        self.issuer.key().serialize_pem()
    }

    /// A certificate for these names with its key (PEM, key last).
    ///
    /// # Errors
    /// A name that is none.
    pub fn pair(&self, names: &[&str]) -> Result<(rcgen::Certificate, KeyPair)> {
        let names: Vec<String> = names.iter().map(|n| (*n).to_owned()).collect();
        let key = KeyPair::generate()?;
        Ok((CertificateParams::new(names)?.signed_by(&key, &self.issuer)?, key))
    }

    pub(crate) fn acceptor(&self, names: &[&str]) -> Result<TlsAcceptor> {
        let (certificate, key) = self.pair(names)?;
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], key)?;
        Ok(TlsAcceptor::from(Arc::new(config)))
    }
}

pub(crate) type Body = StreamBody<BoxStream<'static, std::result::Result<Frame<Bytes>, Infallible>>>;

pub(crate) fn whole(status: u16, text: impl Into<Bytes>) -> Response<Body> {
    let text = Frame::data(text.into());
    let body: Body = StreamBody::new(stream::iter([Ok(text)]).boxed());
    let mut response = Response::new(body);
    *response.status_mut() = hyper::StatusCode::from_u16(status).unwrap_or_default();
    response
}

/// An API server: `/readyz` as told, `/watch` that is silent for as long as a test wants.
pub struct ApiServer {
    /// Its name.
    pub name: String,
    /// Its address.
    pub address: Ipv4Addr,
    ready: Arc<AtomicBool>,
    event: Arc<Notify>,
}

impl ApiServer {
    /// Listens on port 6443 with a certificate for `kubernetes`, as kubeadm makes it.
    ///
    /// # Errors
    /// The port is taken.
    pub async fn start(name: &str, address: Ipv4Addr, authority: &Authority) -> Result<ApiServer> {
        let acceptor = authority.acceptor(&["kubernetes", &address.to_string()])?;
        let (ready, event) = (Arc::new(AtomicBool::new(true)), Arc::new(Notify::new()));
        let (me, state, told) = (name.to_owned(), ready.clone(), event.clone());
        let listener = TcpListener::bind((address, 6443)).await?;
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, me, state, told) = (acceptor.clone(), me.clone(), state.clone(), told.clone());
                tokio::spawn(async move {
                    let Ok(stream) = acceptor.accept(stream).await else { return };
                    serve(stream, move |request| match request.uri().path() {
                        "/readyz" if state.load(Ordering::Relaxed) => whole(200, "ok"),
                        "/readyz" => whole(500, "[-]etcd failed"),
                        "/watch" => watch(&told),
                        _ => whole(200, me.clone()),
                    })
                    .await;
                });
            }
        });
        Ok(ApiServer { name: name.to_owned(), address, ready, event })
    }

    /// Whether `/readyz` says ok from now on.
    pub fn set_ready(&self, ready: bool) {
        self.ready.store(ready, Ordering::Relaxed);
    }

    /// Sends the event that every open watch waits for.
    pub fn tell(&self) {
        self.event.notify_waiters();
    }
}

/// A first line at once, a second one on the event.
fn watch(told: &Arc<Notify>) -> Response<Body> {
    // Registered now: an event between the two lines is not missed.
    let event = told.clone().notified_owned();
    let first = stream::iter([Ok(Frame::data(Bytes::from_static(b"ADDED\n")))]);
    let second = stream::once(async move {
        event.await;
        Ok(Frame::data(Bytes::from_static(b"MODIFIED\n")))
    });
    Response::new(StreamBody::new(first.chain(second).boxed()))
}

/// A worker: Traefik's three NodePorts, by something that tells what it was asked.
pub struct Worker {
    /// Its name.
    pub name: String,
    /// Its address.
    pub address: Ipv4Addr,
    healthy: Arc<AtomicBool>,
}

impl Worker {
    /// Listens on 30080 (HTTP), 30443 (HTTPS) and 30082 (its health).
    ///
    /// # Errors
    /// A port is taken.
    pub async fn start(name: &str, address: Ipv4Addr, authority: &Authority) -> Result<Worker> {
        let acceptor = authority.acceptor(&["site.example"])?;
        let healthy = Arc::new(AtomicBool::new(true));
        for (port, tls) in [(30080, None), (30443, Some(acceptor)), (30082, None)] {
            let listener = TcpListener::bind((address, port)).await?;
            let (me, healthy) = (name.to_owned(), healthy.clone());
            tokio::spawn(async move {
                while let Ok((stream, peer)) = listener.accept().await {
                    let (me, tls, healthy) = (me.clone(), tls.clone(), healthy.clone());
                    tokio::spawn(connection(stream, peer, me, tls, healthy));
                }
            });
        }
        Ok(Worker { name: name.to_owned(), address, healthy })
    }

    /// Whether its health check passes from now on.
    pub fn set_healthy(&self, healthy: bool) {
        self.healthy.store(healthy, Ordering::Relaxed);
    }
}

async fn connection(
    mut stream: TcpStream,
    peer: SocketAddr,
    me: String,
    tls: Option<TlsAcceptor>,
    healthy: Arc<AtomicBool>,
) {
    let Ok(proxied) = proxied(&mut stream).await else { return };
    let from = json!({ "worker": me, "peer": peer.ip(), "proxied": proxied, "tls": tls.is_some() });
    let answer = move |request: &Request<Incoming>| match request.uri().path() {
        "/ping" if !healthy.load(Ordering::Relaxed) => whole(503, "shutting down"),
        "/ping" => whole(200, "OK"),
        "/download" => download(),
        path => {
            let mut told = from.clone();
            told["path"] = path.into();
            for (name, value) in request.headers() {
                // A header that comes twice is told as a list of both.
                let value = String::from_utf8_lossy(value.as_bytes()).into_owned();
                let slot = &mut told["headers"][name.as_str()];
                let both = slot.as_str().map(|first| format!("{first}, {value}"));
                *slot = both.unwrap_or(value).into();
            }
            whole(200, told.to_string())
        }
    };
    match tls {
        None => serve(stream, answer).await,
        Some(acceptor) => {
            if let Ok(stream) = acceptor.accept(stream).await {
                serve(stream, answer).await;
            }
        }
    }
}

/// How many bytes a download has.
pub const DOWNLOAD: usize = PIECE * PIECES;
const PIECE: usize = 64 << 10;
const PIECES: usize = 400;

/// A download that takes four seconds.
fn download() -> Response<Body> {
    let piece = Bytes::from_static(&[b'x'; PIECE]);
    let pieces = stream::iter(0..PIECES).then(move |_| {
        let piece = piece.clone();
        async move {
            tokio::time::sleep(Duration::from_millis(10)).await;
            Ok(Frame::data(piece))
        }
    });
    Response::new(StreamBody::new(pieces.boxed()))
}

pub(crate) async fn serve(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    answer: impl Fn(&Request<Incoming>) -> Response<Body> + Send + Sync + 'static,
) {
    let answer = Arc::new(answer);
    let service = service_fn(move |request: Request<Incoming>| {
        let response = answer(&request);
        async move { Ok::<_, Infallible>(response) }
    });
    // A client that leaves early is no fault of anybody.
    let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}

/// The client that a PROXY header (version 2) tells of; `None` without one. Traefik takes both from its load
/// balancers.
async fn proxied(stream: &mut TcpStream) -> io::Result<Option<SocketAddr>> {
    const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
    let mut start = [0; 12];
    // Neither a request nor a TLS greeting begins like this, and both are longer.
    loop {
        let n = stream.peek(&mut start).await?;
        if n == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if start[..n] != SIGNATURE[..n] {
            return Ok(None);
        }
        if n == SIGNATURE.len() {
            break;
        }
        tokio::task::yield_now().await;
    }
    let mut header = [0; 16];
    stream.read_exact(&mut header).await?;
    let mut rest = vec![0; usize::from(u16::from_be_bytes([header[14], header[15]]))];
    stream.read_exact(&mut rest).await?;
    // proxy-protocol.txt, section 2.2: 0x11 is TCP over IPv4, then the source address, and so on.
    if header[13] != 0x11 || rest.len() < 12 {
        return Ok(None);
    }
    let port = u16::from_be_bytes([rest[8], rest[9]]);
    Ok(Some((Ipv4Addr::new(rest[0], rest[1], rest[2], rest[3]), port).into()))
}
