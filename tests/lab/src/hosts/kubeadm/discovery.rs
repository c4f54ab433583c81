//! How a join finds its cluster and comes to trust it.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustls_pki_types::ServerName;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::config::{Config, Join};
use super::{objects, pki};
use crate::hosts::haproxy::tls;
use crate::hosts::programs::Ctx;

/// Opens a connection to `host:port` as a program on this machine.
///
/// # Errors
/// Go's words for what failed.
pub async fn reach(ctx: &Ctx, address: &str) -> Result<TcpStream, String> {
    let dial = |text: &str| format!("dial tcp {address}: connect: {text}");
    let (host, port) = address
        .rsplit_once(':')
        .ok_or_else(|| format!("dial tcp: address {address}: missing port in address"))?;
    let port: u16 = port.parse().map_err(|_| format!("dial tcp: address {address}: invalid port"))?;
    let target = ctx.hosts.route(&ctx.host, host, u32::from(port));
    let Some(target) = target else { return Err(dial("no route to host")) };
    let SocketAddr::V4(v4) = target else { return Err(dial("no route to host")) };
    if !ctx.hosts.in_use(*v4.ip()) {
        return Err(dial("no route to host"));
    }
    TcpStream::connect(target).await.map_err(|_| dial("connection refused"))
}

async fn cluster_info(ctx: &Ctx, endpoint: &str) -> Result<Value, String> {
    let path = "/api/v1/namespaces/kube-public/configmaps/cluster-info?timeout=10s";
    let failed = |e: String| {
        format!("failed to request the cluster-info ConfigMap: Get \"https://{endpoint}{path}\": {e}")
    };
    let stream = reach(ctx, endpoint).await.map_err(failed)?;
    let host = endpoint.rsplit_once(':').map_or(endpoint, |(h, _)| h).to_string();
    let name = ServerName::try_from(host.clone()).map_err(|e| failed(e.to_string()))?;
    let connector = tls::connector(None).ok_or_else(|| failed("tls".into()))?;
    let mut stream = connector.connect(name, stream).await.map_err(|_| failed("EOF".into()))?;
    let request = format!(
        "GET {path} HTTP/1.1\r\nhost: {endpoint}\r\naccept: application/json\r\nconnection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await.map_err(|_| failed("EOF".into()))?;
    let mut all = Vec::new();
    // A server that closes without a TLS goodbye still delivered what it sent.
    let _ = stream.read_to_end(&mut all).await;
    let (status, body) = answer(&all).ok_or_else(|| failed("EOF".into()))?;
    if status != 200 {
        let message =
            serde_json::from_slice::<Value>(&body).ok().and_then(|v| v["message"].as_str().map(String::from));
        return Err(format!(
            "failed to request the cluster-info ConfigMap: {}",
            message.unwrap_or_else(|| format!("status {status}"))
        ));
    }
    serde_json::from_slice(&body).map_err(|e| failed(e.to_string()))
}

/// The status and body of an HTTP/1.1 answer, of known length or chunked.
fn answer(all: &[u8]) -> Option<(u16, Vec<u8>)> {
    let at = all.windows(4).position(|w| w == b"\r\n\r\n")?;
    let head = String::from_utf8_lossy(&all[..at]).to_lowercase();
    let status = head.split_whitespace().nth(1)?.parse().ok()?;
    let mut rest = &all[at + 4..];
    if !head.contains("transfer-encoding: chunked") {
        return Some((status, rest.to_vec()));
    }
    let mut body = Vec::new();
    loop {
        let line = rest.windows(2).position(|w| w == b"\r\n")?;
        let size = usize::from_str_radix(String::from_utf8_lossy(&rest[..line]).trim(), 16).ok()?;
        if size == 0 {
            return Some((status, body));
        }
        body.extend_from_slice(rest.get(line + 2..line + 2 + size)?);
        rest = rest.get(line + 4 + size..)?;
    }
}

/// What discovery finds: the CA certificate and the cluster's server.
pub struct Found {
    /// Its authority (PEM).
    pub ca: String,
    /// Its id, which follows from its authority.
    pub id: String,
    /// The server that the kubeconfig of the cluster-info names.
    pub server: String,
}

/// Finds the cluster that the configuration names, and checks that it is that one.
///
/// # Errors
/// kubeadm's text.
pub async fn discover(ctx: &Ctx, config: &Config, join: &Join) -> Result<Found, String> {
    let wrap = |e: String| {
        format!("error execution phase preflight: couldn't validate the identity of the API Server: {e}")
    };
    for hash in &join.hashes {
        let hex = hash.strip_prefix("sha256:").unwrap_or(hash);
        if hex.len() != 64 {
            let text = format!(
                "invalid discovery token CA certificate hash: invalid hash \"{hash}\", expected a 32 byte SHA-256 hash, found {} bytes",
                hex.len() / 2
            );
            return Err(wrap(text));
        }
    }
    let (token_id, secret) = join.token.split_once('.').unwrap_or_default();
    // At least a second of real time: the load balancers' checks are real.
    let limit = ctx
        .hosts
        .world()
        .clock
        .real(Duration::from_secs_f64(config.discovery_seconds))
        .max(Duration::from_secs(1));
    let deadline = Instant::now() + limit;
    loop {
        let failure = match cluster_info(ctx, &join.endpoint).await {
            Err(e) => e,
            Ok(map) => {
                let kubeconfig = map["data"]["kubeconfig"].as_str().unwrap_or_default();
                let signed = map["data"][format!("jws-kubeconfig-{token_id}")].as_str();
                let read = |key: &str| {
                    kubeconfig
                        .lines()
                        .find_map(|l| l.trim().strip_prefix(key))
                        .unwrap_or_default()
                        .trim()
                        .to_string()
                };
                let ca = STANDARD
                    .decode(read("certificate-authority-data:"))
                    .ok()
                    .and_then(|c| String::from_utf8(c).ok())
                    .unwrap_or_default();
                let id = pki::key_hash(&ca).unwrap_or_default();
                let known = objects::tokens(&ctx.hosts, &id)
                    .into_iter()
                    .any(|t| t.id == token_id && t.secret == secret && !t.past());
                match signed {
                    Some(signed) if known && signed == objects::signature(kubeconfig, token_id, secret) => {
                        let pin = format!("sha256:{id}");
                        if !join.unsafe_skip && !join.hashes.contains(&pin) {
                            let text = format!(
                                "cluster CA found in cluster-info ConfigMap is invalid: none of the public keys \"{pin}\" are pinned"
                            );
                            return Err(wrap(text));
                        }
                        return Ok(Found { ca, id, server: read("server:") });
                    }
                    _ => format!(
                        "could not find a JWS signature in the cluster-info ConfigMap for token ID \"{token_id}\""
                    ),
                }
            }
        };
        if Instant::now() >= deadline {
            return Err(wrap(failure));
        }
        let pause = ctx.hosts.world().clock.real(Duration::from_secs(5)).max(Duration::from_millis(50));
        tokio::time::sleep(pause.min(limit)).await;
    }
}
