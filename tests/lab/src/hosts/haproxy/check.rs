//! Health checks: a TCP connection, or a GET over TLS or without.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls_pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

use super::{Backend, Verdict, guard, tls};
use crate::hosts::Hosts;

// Real intervals, not HAProxy's: short, so that a test does not wait, and longer while all is well.
const WHILE_UP: Duration = Duration::from_millis(300);
const WHILE_DOWN: Duration = Duration::from_millis(60);
const AGAIN: Duration = Duration::from_millis(15);

/// Checks a server until HAProxy stops or loads anew.
pub async fn watch(hosts: Hosts, backend: Arc<Backend>, stop: CancellationToken) {
    // HAProxy starts a server as up with one failed check to go (its health is `rise` at start).
    let (mut good, mut bad) = (0, backend.server.fall.saturating_sub(1));
    loop {
        let verdict = tokio::select! {
            () = stop.cancelled() => return,
            verdict = once(&backend) => verdict,
        };
        let fine = verdict.word == "L4OK" || verdict.word == "L6OK" || verdict.word == "L7OK";
        *guard(&backend.last) = verdict;
        if fine {
            (good, bad) = (good + 1, 0);
        } else {
            (good, bad) = (0, bad + 1);
        }
        let up = backend.up.load(std::sync::atomic::Ordering::Relaxed);
        let turns = match up {
            true => bad >= backend.server.fall,
            false => good >= backend.server.rise,
        };
        if turns && backend.mark(!up) {
            hosts.settle();
        }
        let pause = match (fine, up != turns) {
            (true, true) => WHILE_UP,
            (false, false) => WHILE_DOWN,
            _ => AGAIN,
        };
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
    }
}

async fn once(backend: &Backend) -> Verdict {
    let begun = Instant::now();
    let (word, code) = match tokio::time::timeout(Duration::from_secs(2), probe(backend)).await {
        Ok(outcome) => outcome,
        Err(_) => ("L4TOUT", None),
    };
    Verdict { word, code, took: u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX) }
}

async fn probe(backend: &Backend) -> (&'static str, Option<u16>) {
    let Some(address) = backend.server.address else { return ("L4CON", None) };
    let port = backend.server.check_port.unwrap_or(backend.server.port);
    let Ok(mut stream) = TcpStream::connect(SocketAddr::from((address, port))).await else {
        return ("L4CON", None);
    };
    if backend.server.send_proxy > 0 && backend.server.check_port.is_none() {
        let _ = stream.write_all(b"PROXY UNKNOWN\r\n").await;
    }
    let ask = backend.ask.as_ref();
    if backend.server.check_tls {
        let Some(connector) = tls::connector(backend.ca.as_deref()) else { return ("L6RSP", None) };
        let Ok(mut stream) = connector.connect(ServerName::IpAddress(address.into()), stream).await else {
            return ("L6RSP", None);
        };
        return match ask {
            None => ("L6OK", None),
            Some((path, expect)) => judge(get(&mut stream, path).await, *expect),
        };
    }
    match ask {
        None => ("L4OK", None),
        Some((path, expect)) => judge(get(&mut stream, path).await, *expect),
    }
}

fn judge(status: Option<u16>, expect: Option<u16>) -> (&'static str, Option<u16>) {
    match (status, expect) {
        (None, _) => ("L7RSP", None),
        (Some(got), Some(want)) if got == want => ("L7OK", Some(got)),
        (Some(got), None) if (200..400).contains(&got) => ("L7OK", Some(got)),
        (Some(got), _) => ("L7STS", Some(got)),
    }
}

async fn get(stream: &mut (impl AsyncReadExt + AsyncWriteExt + Unpin), path: &str) -> Option<u16> {
    let request = format!("GET {path} HTTP/1.0\r\n\r\n");
    stream.write_all(request.as_bytes()).await.ok()?;
    let mut head = Vec::new();
    let mut buffer = [0; 512];
    while !head.contains(&b'\n') {
        match stream.read(&mut buffer).await {
            Ok(0) | Err(_) => break,
            Ok(n) => head.extend_from_slice(&buffer[..n]),
        }
    }
    String::from_utf8_lossy(&head).split_whitespace().nth(1)?.parse().ok()
}
