//! One SSH connection, from the TCP port to the log-in.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use russh::ChannelStream;
use russh::client::{self, Handle, Msg};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use crate::auth;
use crate::check::{Broken, Check};
use crate::error::Error;
use crate::hostkeys::{Shown, Trust};
use crate::target::Target;

const KEEPALIVE: Duration = Duration::from_secs(15);
const KEEPALIVE_MISSES: usize = 3;

/// A connection that is logged in.
pub(crate) struct Link {
    pub(crate) handle: Handle<Check>,
    /// The host key that was believed.
    pub(crate) shown: Shown,
}

/// A way in that a jump host makes.
pub(crate) type Through = Pin<Box<dyn Future<Output = Result<Tunnel, Error>> + Send>>;

/// Connects and logs in, through the jump host when there is one, within the target's time.
pub(crate) async fn open(target: &Target, through: Option<Through>) -> Result<Link, Error> {
    let identity = auth::identity(target)?;
    let trust = Trust::of(target)?;
    let config = Arc::new(config(&trust));
    let shown = trust.shown();
    let whole = async {
        let check = Check { trust };
        let connected = match through {
            Some(tunnel) => client::connect_stream(config, tunnel.await?, check).await,
            None => {
                let socket = TcpStream::connect((target.host.as_str(), target.port))
                    .await
                    .map_err(|e| unreachable(target, Box::new(e)))?;
                // Small packets that wait for each other: without it each costs Nagle's delay.
                if let Err(e) = socket.set_nodelay(true) {
                    tracing::debug!(host = target.name, "TCP_NODELAY: {e}");
                }
                client::connect_stream(config, socket, check).await
            }
        };
        let mut handle = connected.map_err(|broken| failed(target, broken))?;
        auth::log_in(&mut handle, target, identity).await?;
        Ok(Link { handle, shown })
    };
    match tokio::time::timeout(target.connect_timeout, whole).await {
        Ok(result) => result,
        Err(_) => {
            let why = format!("no connection within {:?}", target.connect_timeout);
            Err(unreachable(target, Box::new(io::Error::new(io::ErrorKind::TimedOut, why))))
        }
    }
}

fn config(trust: &Trust) -> client::Config {
    let mut config = client::Config {
        keepalive_interval: Some(KEEPALIVE),
        keepalive_max: KEEPALIVE_MISSES,
        ..client::Config::default()
    };
    config.preferred.key = trust.prefer(&config.preferred.key).into();
    config
}

fn unreachable(target: &Target, source: Box<dyn std::error::Error + Send + Sync>) -> Error {
    Error::Unreachable { host: target.name.clone(), address: target.address(), source }
}

fn failed(target: &Target, broken: Broken) -> Error {
    use russh::Error as E;
    match broken {
        Broken::Judged(e) => *e,
        // A machine that boots or goes down takes the connection and drops it.
        Broken::Protocol(
            e @ (E::IO(_)
            | E::HUP
            | E::Disconnect
            | E::ConnectionTimeout
            | E::KeepaliveTimeout
            | E::InactivityTimeout
            | E::Elapsed(_)
            | E::SendError
            | E::RecvError
            | E::Join(_)),
        ) => unreachable(target, Box::new(e)),
        Broken::Protocol(e) => {
            Error::Handshake { host: target.name.clone(), address: target.address(), source: Box::new(e) }
        }
    }
}

/// A TCP connection made by the host, carried over SSH.
pub struct Tunnel {
    stream: ChannelStream<Msg>,
    // The connection lives as long as what it carries.
    _link: Arc<Link>,
}

impl Tunnel {
    pub(crate) fn new(stream: ChannelStream<Msg>, link: Arc<Link>) -> Tunnel {
        Tunnel { stream, _link: link }
    }
}

impl AsyncRead for Tunnel {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Tunnel {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
