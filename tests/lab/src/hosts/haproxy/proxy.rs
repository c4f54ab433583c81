//! Listeners and forwarding.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

use super::config::Bind;
use super::{Backend, Proxy, Running, guard, stats, tls};
use crate::Window;
use crate::hosts::server::{Cut, listen};
use crate::hosts::{Host, Hosts};

/// Opens and closes ports so that they are those of the running configurations and of the held addresses.
pub fn settle(hosts: &Hosts) {
    let mut wanted: BTreeSet<(u32, SocketAddr)> = BTreeSet::new();
    for host in hosts.all() {
        let held = hosts.held_by(host.vmid);
        let machine = host.machine();
        let Some(running) = machine.haproxy.as_ref().filter(|_| machine.up) else { continue };
        let addresses: Vec<Ipv4Addr> =
            machine.boot.address.into_iter().chain(held.into_iter().map(|(a, _)| a)).collect();
        for bind in running.config.proxies.iter().flat_map(|p| &p.binds) {
            let at = addresses.iter().filter(|a| bind.address.is_none_or(|b| b == **a));
            wanted.extend(at.map(|a| (host.vmid, SocketAddr::from((*a, bind.port)))));
        }
    }
    let mut listeners = hosts.listeners();
    let gone: Vec<_> = listeners.open.keys().filter(|k| !wanted.contains(k)).copied().collect();
    for key in gone {
        if let Some(token) = listeners.open.remove(&key) {
            token.cancel();
        }
    }
    for (vmid, address) in wanted {
        if listeners.open.contains_key(&(vmid, address)) {
            continue;
        }
        let Some(host) = hosts.host(vmid) else { continue };
        let Some(power) = host.machine().power.clone() else { continue };
        let token = power.child_token();
        listeners.open.insert((vmid, address), token.clone());
        hosts.runtime().spawn(accept(hosts.clone(), host, address, token, power));
    }
}

async fn accept(
    hosts: Hosts,
    host: Arc<Host>,
    address: SocketAddr,
    token: CancellationToken,
    power: CancellationToken,
) {
    let mut tries = 0;
    let listener = loop {
        let bound = tokio::select! {
            () = token.cancelled() => return,
            bound = listen(address) => bound,
        };
        // Who held the address before may not have closed its port yet on a busy machine: as long as this one is to have
        // it, it goes on trying. Otherwise nobody would listen there until something else happens.
        match bound {
            Ok(listener) => break listener,
            Err(_) if tries < 10 => tries += 1,
            Err(e) if tries == 10 => {
                tries += 1;
                let text = format!("haproxy cannot listen on {address}: {e}");
                host.machine().log("haproxy.service", text.clone());
                hosts.world().journal.record_unknown(Window::Ssh, &host.name(), &text);
            }
            Err(_) => {}
        }
    };
    loop {
        let accepted = tokio::select! {
            // In this order: a port that is to be closed takes nobody in any more.
            biased;
            () = token.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        let Ok((stream, peer)) = accepted else {
            // No descriptor is free, for example: the next moment may have one.
            tokio::time::sleep(Duration::from_millis(10)).await;
            continue;
        };
        let running = host.machine().haproxy.clone();
        let Some(running) = running else { return };
        let _ = stream.set_nodelay(true);
        // Established connections outlive a reload and a lost address, not a power cut.
        let stream = Cut { stream, cancelled: Box::pin(power.clone().cancelled_owned()) };
        tokio::spawn(connection(running, stream, address, peer));
    }
}

fn frontend(running: &Running, at: SocketAddr) -> Option<(&Proxy, &Bind)> {
    let IpAddr::V4(address) = at.ip() else { return None };
    let fits = |exact: bool| {
        running.config.proxies.iter().find_map(|p| {
            let bind = p.binds.iter().find(|b| {
                b.port == at.port() && if exact { b.address == Some(address) } else { b.address.is_none() }
            });
            bind.map(|b| (p, b))
        })
    };
    fits(true).or_else(|| fits(false))
}

async fn connection(running: Arc<Running>, stream: Cut<TcpStream>, at: SocketAddr, peer: SocketAddr) {
    running.connections.fetch_add(1, Ordering::Relaxed);
    let Some((proxy, bind)) = frontend(&running, at) else { return };
    match bind.tls.as_ref().and_then(|path| running.acceptors.get(path)) {
        None => forward(&running, proxy, stream, at, peer).await,
        Some(acceptor) => {
            if let Ok(stream) = acceptor.accept(stream).await {
                forward(&running, proxy, stream, at, peer).await;
            }
        }
    }
}

async fn forward(
    running: &Running,
    proxy: &Proxy,
    mut stream: impl Stream,
    at: SocketAddr,
    peer: SocketAddr,
) {
    let mut head = Vec::new();
    if proxy.http {
        let mut buffer = [0; 2048];
        while !head.windows(4).any(|w| w == b"\r\n\r\n") && head.len() < 65536 {
            match stream.read(&mut buffer).await {
                Ok(0) | Err(_) => return,
                Ok(n) => head.extend_from_slice(&buffer[..n]),
            }
        }
        let text = String::from_utf8_lossy(&head).into_owned();
        let path = text.split_whitespace().nth(1).unwrap_or_default();
        if let Some((status, body)) = own_answer(running, proxy, path) {
            let _ = stream.write_all(http(status, &body).as_bytes()).await;
            let _ = stream.shutdown().await;
            return;
        }
    }
    let name = proxy.default_backend.as_ref().unwrap_or(&proxy.name);
    let Some((backend, mut server)) = dial(running, name).await else {
        if proxy.http {
            let _ = stream.write_all(http(503, NO_SERVER).as_bytes()).await;
        }
        return;
    };
    backend.sessions.fetch_add(1, Ordering::Relaxed);
    let cut = guard(&backend.cut).clone();
    let greeting = match backend.server.send_proxy {
        1 => format!("PROXY TCP4 {} {} {} {}\r\n", peer.ip(), at.ip(), peer.port(), at.port()).into_bytes(),
        2 => proxy_v2(peer, at),
        _ => Vec::new(),
    };
    if server.write_all(&greeting).await.is_err() {
        return;
    }
    let mut server: Box<dyn Stream> = match (backend.server.tls, backend.server.address) {
        (true, Some(address)) => {
            let Some(connector) = tls::connector(backend.ca.as_deref()) else { return };
            match connector.connect(ServerName::IpAddress(address.into()), server).await {
                Ok(server) => Box::new(server),
                Err(_) => return,
            }
        }
        _ => Box::new(server),
    };
    if server.write_all(&head).await.is_err() || server.flush().await.is_err() {
        return;
    }
    tokio::select! {
        () = cut.cancelled() => {}
        _ = tokio::io::copy_bidirectional(&mut stream, &mut server) => {}
    }
}

/// What bytes flow through, with TLS or without.
trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

const NO_SERVER: &str = "<html><body><h1>503 Service Unavailable</h1>\nNo server is available to handle this request.\n</body></html>\n";

/// Connects to a usable server in turn; one that refuses is passed over, as `option redispatch` does.
async fn dial(running: &Running, name: &str) -> Option<(Arc<Backend>, TcpStream)> {
    let proxy = running.config.proxies.iter().find(|p| p.name == name && p.kind != "frontend")?;
    let all: Vec<_> = proxy
        .servers
        .iter()
        .filter_map(|s| running.servers.get(&(proxy.name.clone(), s.name.clone())))
        .collect();
    let (main, spare): (Vec<_>, Vec<_>) =
        all.into_iter().filter(|b| b.usable()).partition(|b| !b.server.backup);
    let usable = if main.is_empty() { spare } else { main };
    if usable.is_empty() {
        return None;
    }
    let first = usize::try_from(running.next.fetch_add(1, Ordering::Relaxed)).unwrap_or(0);
    for turn in 0..usable.len() {
        let backend = usable[(first + turn) % usable.len()];
        let Some(address) = backend.server.address else { continue };
        if let Ok(stream) = TcpStream::connect(SocketAddr::from((address, backend.server.port))).await {
            let _ = stream.set_nodelay(true);
            return Some((backend.clone(), stream));
        }
    }
    None
}

fn own_answer(running: &Running, proxy: &Proxy, path: &str) -> Option<(u16, String)> {
    let plain = path.split('?').next().unwrap_or_default();
    if proxy.monitor.as_deref() == Some(plain) {
        let dead = |name: &String| !running.servers.iter().any(|((b, _), s)| b == name && s.usable());
        return Some(match proxy.monitor_fail.iter().any(dead) {
            true => (503, "<html><body><h1>503 Service Unavailable</h1>\nNo server is available to handle this request.\n</body></html>\n".into()),
            false => (200, "<html><body><h1>200 OK</h1>\nService ready.\n</body></html>\n".into()),
        });
    }
    if proxy.metrics.as_deref() == Some(plain) {
        return Some((200, stats::metrics(running)));
    }
    if let Some(stats_path) = proxy.stats.as_deref()
        && path.starts_with(stats_path.split('?').next().unwrap_or_default())
    {
        return Some((
            200,
            if path.ends_with(";csv") {
                stats::stat(running)
            } else {
                "<html><body>Statistics Report</body></html>\n".into()
            },
        ));
    }
    None
}

/// What HAProxy on a machine itself answers to `GET http://ADDRESS:PORT/PATH` from that machine: the status.
///
/// `None` when nothing of it listens there; a backend's answer is not asked for.
pub fn answer(
    running: &Running,
    own: Option<Ipv4Addr>,
    address: Ipv4Addr,
    port: u16,
    path: &str,
) -> Option<(u16, String)> {
    let fits = |b: &&Bind| {
        b.port == port
            && b.address.is_none_or(|a| a == address || (address.is_loopback() && own == Some(address)))
    };
    let proxy = running.config.proxies.iter().find(|p| p.binds.iter().any(|b| fits(&b)))?;
    own_answer(running, proxy, path).or_else(|| {
        let name = proxy.default_backend.as_ref().unwrap_or(&proxy.name);
        let alive = running.servers.iter().any(|((b, _), s)| b == name && s.usable());
        Some((if alive { 200 } else { 503 }, String::new()))
    })
}

fn http(status: u16, body: &str) -> String {
    let reason = if status == 200 { "OK" } else { "Service Unavailable" };
    format!(
        "HTTP/1.1 {status} {reason}\r\ncontent-length: {}\r\ncontent-type: text/plain\r\nconnection: close\r\n\r\n{body}",
        body.len()
    )
}

/// The binary PROXY header, version 2 (proxy-protocol.txt, section 2.2).
fn proxy_v2(peer: SocketAddr, at: SocketAddr) -> Vec<u8> {
    let mut header = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c".to_vec();
    for ip in [peer.ip(), at.ip()] {
        if let IpAddr::V4(v4) = ip {
            header.extend_from_slice(&v4.octets());
        }
    }
    header.extend_from_slice(&peer.port().to_be_bytes());
    header.extend_from_slice(&at.port().to_be_bytes());
    header
}
