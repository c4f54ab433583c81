//! NodePorts: real listeners on the nodes' own addresses, so that a load balancer's health checks see what is there.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

use super::{Plant, going, list, services, text};
use crate::kube::store::Store;

/// The listeners that are open.
#[derive(Debug, Default)]
pub(crate) struct NodePorts {
    open: BTreeMap<SocketAddr, CancellationToken>,
}

impl Drop for NodePorts {
    fn drop(&mut self) {
        self.open.values().for_each(CancellationToken::cancel);
    }
}

/// Opens and closes what the services and nodes of now ask for.
pub(crate) fn run(store: &Store, plant: &mut Plant) {
    let mut wanted: Vec<SocketAddr> = Vec::new();
    for service in store.list("services", None) {
        if !matches!(text(service, "/spec/type"), "NodePort" | "LoadBalancer") || going(service) {
            continue;
        }
        let backends = services::backends(store, service);
        let ready: Vec<&Value> = backends.iter().filter(|p| services::serves(service, p)).collect();
        if ready.is_empty() {
            continue;
        }
        let local = service["spec"]["externalTrafficPolicy"] == "Local";
        for machine in plant.machines.values().filter(|m| m.up) {
            let name = machine.kubelet.name.as_str();
            let Some(address) = machine.kubelet.address else { continue };
            let node = store.get("nodes", "", name);
            if !node.is_some_and(|n| super::nodes::is_ready(n))
                || (local && !ready.iter().any(|p| p["spec"]["nodeName"] == name))
            {
                continue;
            }
            for port in list(service, "/spec/ports").iter().filter(|p| p["protocol"] == "TCP") {
                if let Some(number) = port["nodePort"].as_u64().and_then(|n| u16::try_from(n).ok()) {
                    wanted.push(SocketAddr::from((address, number)));
                }
            }
        }
    }
    plant.ports.open.retain(|at, stop| {
        let stays = wanted.contains(at) && !stop.is_cancelled();
        if !stays {
            stop.cancel();
        }
        stays
    });
    for at in wanted {
        plant.ports.open.entry(at).or_insert_with(|| {
            let stop = CancellationToken::new();
            tokio::spawn(listen(at, stop.clone()));
            stop
        });
    }
}

async fn listen(at: SocketAddr, stop: CancellationToken) {
    let listener = loop {
        match TcpListener::bind(at).await {
            Ok(listener) => break listener,
            // The listener before this one may not be closed yet.
            Err(error) => {
                tracing::debug!(%at, %error, "the node port is held");
                let pause = tokio::time::sleep(Duration::from_millis(20));
                tokio::select! { () = stop.cancelled() => return, () = pause => {} }
            }
        }
    };
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            accepted = listener.accept() => {
                if let Ok((stream, _)) = accepted {
                    let over = stop.clone();
                    tokio::spawn(async move {
                        tokio::select! { () = over.cancelled() => {} _ = answer(stream) => {} }
                    });
                }
            }
        }
    }
}

// HTTP/1.1 as Traefik answers without routes: `/ping` is OK, the rest is not found. A PROXY header is skipped; a TLS
// client is let go, since there is no certificate here.
async fn answer(mut stream: TcpStream) -> std::io::Result<()> {
    let mut buffer = Vec::new();
    loop {
        let mut chunk = [0; 4096];
        let n = stream.read(&mut chunk).await?;
        if n == 0 {
            return Ok(());
        }
        buffer.extend_from_slice(&chunk[..n]);
        let request = without_proxy(&buffer);
        if request.first() == Some(&0x16) || buffer.len() > 64 << 10 {
            return Ok(());
        }
        let Some(end) = request.windows(4).position(|w| w == b"\r\n\r\n") else { continue };
        let head = String::from_utf8_lossy(&request[..end]).into_owned();
        let rest = request[end + 4..].to_vec();
        let path = head.split(' ').nth(1).unwrap_or("/");
        let (status, text) = if path.starts_with("/ping") {
            ("200 OK", "OK")
        } else {
            ("404 Not Found", "404 page not found\n")
        };
        let body = if head.starts_with("HEAD ") { "" } else { text };
        let answer = format!(
            "HTTP/1.1 {status}\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {}\r\n\r\n{body}",
            text.len()
        );
        stream.write_all(answer.as_bytes()).await?;
        if head.to_ascii_lowercase().contains("connection: close") || head.contains(" HTTP/1.0") {
            return stream.shutdown().await;
        }
        buffer = rest;
    }
}

fn without_proxy(buffer: &[u8]) -> &[u8] {
    const V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
    if buffer.starts_with(b"PROXY ") {
        return buffer.windows(2).position(|w| w == b"\r\n").map_or(&[], |at| &buffer[at + 2..]);
    }
    if buffer.starts_with(V2) && buffer.len() >= 16 {
        let length = usize::from(u16::from_be_bytes([buffer[14], buffer[15]]));
        return buffer.get(16 + length..).unwrap_or(&[]);
    }
    if V2.starts_with(buffer.get(..buffer.len().min(12)).unwrap_or(&[])) { &[] } else { buffer }
}
