//! The SSH server of one machine.

use super::machine::home;
use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use russh::server::{Auth, ChannelOpenHandle, Config, Handler, Msg, Session, VerifiedPublicKey};
use russh::{Channel, ChannelId, ChannelMsg, MethodKind, MethodSet};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use super::programs::{Ctx, Input};
use super::{Host, Hosts, words};
use crate::{Action, Window};

/// Binds an address that a machine just switched off may still be leaving.
pub async fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let mut last = io::Error::other("not tried");
    for _ in 0..200 {
        match TcpListener::bind(address).await {
            Ok(listener) => return Ok(listener),
            Err(e) => last = e,
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    Err(last)
}

/// Serves SSH until the machine is switched off.
pub async fn serve(hosts: Hosts, host: Arc<Host>, listener: TcpListener, power: CancellationToken) {
    let key = host.machine().host_key.clone();
    let config = Arc::new(Config {
        keys: vec![key],
        server_id: russh::SshId::Standard("SSH-2.0-OpenSSH_10.0p2 Debian-7".into()),
        methods: MethodSet::from(&[MethodKind::PublicKey][..]),
        auth_rejection_time: Duration::ZERO,
        auth_rejection_time_initial: Some(Duration::ZERO),
        nodelay: true,
        inactivity_timeout: None,
        ..Config::default()
    });
    loop {
        let stream = tokio::select! {
            () = power.cancelled() => return,
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(_) => continue,
            },
        };
        let cut = power.child_token();
        let session = Ssh {
            hosts: hosts.clone(),
            host: host.clone(),
            cut: cut.clone(),
            user: String::new(),
            channels: BTreeMap::new(),
        };
        let config = config.clone();
        tokio::spawn(async move {
            let _ = stream.set_nodelay(true);
            let stream = Cut { stream, cancelled: Box::pin(cut.clone().cancelled_owned()) };
            if let Ok(running) = russh::server::run_stream(config, stream, session).await {
                let _ = running.await;
            }
            cut.cancel();
        });
    }
}

/// A stream that breaks as soon as its token is cancelled, like one whose peer lost power.
pub struct Cut<S> {
    /// The stream under it.
    pub stream: S,
    /// Resolves at the break.
    pub cancelled: Pin<Box<WaitForCancellationFutureOwned>>,
}

impl<S: AsyncRead + Unpin> AsyncRead for Cut<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.cancelled.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Cut<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if self.cancelled.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

struct Ssh {
    hosts: Hosts,
    host: Arc<Host>,
    cut: CancellationToken,
    user: String,
    channels: BTreeMap<ChannelId, Channel<Msg>>,
}

impl Handler for Ssh {
    type Error = russh::Error;

    async fn auth_publickey(&mut self, user: &str, key: VerifiedPublicKey<'_>) -> Result<Auth, Self::Error> {
        let machine = self.host.machine();
        if user != machine.boot.user || (user == "root" && !machine.boot.container) || user.is_empty() {
            return Ok(Auth::reject());
        }
        let allowed = machine.fs.text(&format!("{}/.ssh/authorized_keys", home(user)));
        let known = allowed
            .lines()
            .filter_map(|line| russh::keys::PublicKey::from_openssh(line.trim()).ok())
            .any(|allowed| allowed.key_data() == key.public_key.key_data());
        if !known {
            return Ok(Auth::reject());
        }
        self.user = user.into();
        Ok(Auth::Accept)
    }

    async fn channel_open_session(
        &mut self,
        channel: Channel<Msg>,
        reply: ChannelOpenHandle,
        _session: &mut Session,
    ) -> Result<(), Self::Error> {
        self.channels.insert(channel.id(), channel);
        reply.accept().await;
        Ok(())
    }

    async fn channel_open_direct_tcpip(
        &mut self,
        channel: Channel<Msg>,
        host_to_connect: &str,
        port_to_connect: u32,
        _originator_address: &str,
        _originator_port: u32,
        reply: ChannelOpenHandle,
        _session: &mut Session,
    ) -> Result<(), Self::Error> {
        let address = self.hosts.route(&self.host, host_to_connect, port_to_connect);
        let target = format!("direct-tcpip {host_to_connect}:{port_to_connect}");
        let Some(address) = address else {
            self.hosts.world().journal.record_unknown(Window::Ssh, &self.host.name(), &target);
            reply.reject(russh::ChannelOpenFailure::AdministrativelyProhibited).await;
            return Ok(());
        };
        let cut = self.cut.clone();
        tokio::spawn(async move {
            match TcpStream::connect(address).await {
                Ok(stream) => {
                    reply.accept().await;
                    let mut stream = Cut { stream, cancelled: Box::pin(cut.cancelled_owned()) };
                    let mut channel = channel.into_stream();
                    let _ = tokio::io::copy_bidirectional(&mut channel, &mut stream).await;
                }
                Err(_) => reply.reject(russh::ChannelOpenFailure::ConnectFailed).await,
            }
        });
        Ok(())
    }

    async fn exec_request(
        &mut self,
        id: ChannelId,
        data: &[u8],
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        let Some(channel) = self.channels.remove(&id) else {
            session.channel_failure(id)?;
            return Ok(());
        };
        session.channel_success(id)?;
        let line = String::from_utf8_lossy(data).into_owned();
        let call = Call {
            hosts: self.hosts.clone(),
            host: self.host.clone(),
            user: self.user.clone(),
            cut: self.cut.clone(),
        };
        // The command lives as long as the machine runs, not as long as the connection: without a terminal
        // sshd leaves the process alone when the client vanishes.
        let power = self.host.machine().power.clone().unwrap_or_default();
        tokio::spawn(async move {
            tokio::select! {
                () = power.cancelled() => {}
                () = call.run(line, channel) => {}
            }
        });
        Ok(())
    }

    async fn shell_request(&mut self, id: ChannelId, session: &mut Session) -> Result<(), Self::Error> {
        self.hosts.world().journal.record_unknown(Window::Ssh, &self.host.name(), "an interactive shell");
        session.channel_failure(id)
    }

    async fn subsystem_request(
        &mut self,
        id: ChannelId,
        name: &str,
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        self.hosts.world().journal.record_unknown(
            Window::Ssh,
            &self.host.name(),
            &format!("subsystem {name}"),
        );
        session.channel_failure(id)
    }
}

struct Call {
    hosts: Hosts,
    host: Arc<Host>,
    user: String,
    cut: CancellationToken,
}

impl Call {
    async fn run(self, line: String, channel: Channel<Msg>) {
        let (mut reader, writer) = channel.split();
        let (sender, input) = mpsc::unbounded_channel();
        let gone = self.cut.clone();
        tokio::spawn(async move {
            loop {
                let message = tokio::select! {
                    () = gone.cancelled() => return,
                    message = reader.wait() => message,
                };
                match message {
                    Some(ChannelMsg::Data { data }) => {
                        if sender.send(data).is_err() {
                            return;
                        }
                    }
                    Some(ChannelMsg::Eof | ChannelMsg::Close) | None => return,
                    Some(_) => {}
                }
            }
        });
        let (output, mut outputs) = mpsc::unbounded_channel::<Vec<u8>>();
        let mut ctx =
            Ctx::new(self.hosts.clone(), self.host.clone(), self.user, Input::Live(input), Some(output));
        let cut = self.cut;
        let name = self.host.name();
        let world = self.hosts.world().clone();
        let words = words::split(&line);
        let request = match &words {
            Ok(words) => super::programs::request(words),
            Err(_) => line.clone(),
        };
        let fault = world.faults.take(Window::Ssh, &name, &request);
        let seq = world.journal.record_call(
            &name,
            &request,
            words.as_deref().unwrap_or(std::slice::from_ref(&line)),
        );
        match &fault {
            Some(Action::DropBefore | Action::Status(..) | Action::TaskEnd(_)) => return cut.cancel(),
            Some(Action::Hang) => return cut.cancelled().await,
            Some(Action::Delay(time)) => world.clock.wait(*time).await,
            _ => {}
        }
        let run = async {
            match (&fault, &words) {
                (Some(Action::Exit(code, text)), _) => super::programs::Output::fail(*code, text),
                (_, Ok(words)) => ctx.call(words).await,
                (_, Err(why)) => ctx.refuse(format!("sh: 1: Syntax error: {why}"), 127),
            }
        };
        let forward = async {
            while let Some(data) = outputs.recv().await {
                let _ = writer.data_bytes(data).await;
            }
        };
        let result = tokio::select! {
            result = run => result,
            () = async { forward.await; std::future::pending::<()>().await } => return,
        };
        while let Ok(data) = outputs.try_recv() {
            let _ = writer.data_bytes(data).await;
        }
        world.journal.amend(seq, ctx.changing, ctx.unknown);
        if ctx.changing {
            self.hosts.settle();
        }
        if matches!(fault, Some(Action::DropAfter | Action::StatusAfter(..))) {
            return cut.cancel();
        }
        if !result.stdout.is_empty() {
            let _ = writer.data_bytes(result.stdout).await;
        }
        if !result.stderr.is_empty() {
            let _ = writer.extended_data_bytes(1, result.stderr).await;
        }
        let _ = writer.exit_status(u32::try_from(result.exit).unwrap_or(255)).await;
        let _ = writer.eof().await;
        let _ = writer.close().await;
    }
}

/// Where a name or address that a machine dials leads; `None` outside this lab's network.
pub fn route(host: &Host, net: &crate::Subnet, name: &str, port: u32) -> Option<SocketAddr> {
    let port = u16::try_from(port).ok()?;
    let address = match name {
        "localhost" | "127.0.0.1" => host.machine().boot.address?,
        name => name.parse::<Ipv4Addr>().ok()?,
    };
    let inside = address.octets()[..3] == net.host(0).octets()[..3];
    inside.then_some(SocketAddr::new(IpAddr::V4(address), port))
}
