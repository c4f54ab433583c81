//! What passes by itself, word for word on the wire: Retry-After, an API server that restarts, an answer that breaks off.

#![allow(clippy::unwrap_used, reason = "a test may")]

use kube_apply::{Class, Cluster};
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

const VERSION: &str = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 24\r\nConnection: close\r\n\r\n{\"gitVersion\":\"v1.36.2\"}";

fn overloaded(seconds: u64) -> String {
    let body = r#"{"kind":"Status","status":"Failure","message":"too many requests, please try again later","reason":"TooManyRequests","code":429}"#;
    format!(
        "HTTP/1.1 429 Too Many Requests\r\nRetry-After: {seconds}\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    )
}

async fn answer(listener: &TcpListener, text: &str) {
    let (mut stream, _) = listener.accept().await.unwrap();
    let mut request = [0; 4096];
    let _ = stream.read(&mut request).await;
    let _ = stream.write_all(text.as_bytes()).await;
}

/// A cluster at an address without TLS: what is on the wire is what is written here.
async fn cluster(folder: &tempfile::TempDir, at: SocketAddr) -> Cluster {
    use std::os::unix::fs::OpenOptionsExt;
    let text = format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: t\ncontexts: [{{name: t, context: {{cluster: t, user: t}}}}]\n\
         clusters: [{{name: t, cluster: {{server: \"http://{at}\"}}}}]\nusers: [{{name: t, user: {{}}}}]\n"
    );
    let path = folder.path().join("kubeconfig");
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path).unwrap();
    std::io::Write::write_all(&mut file, text.as_bytes()).unwrap();
    Cluster::connect(&path, "kubeline-test").await.unwrap().patience(Duration::from_secs(8))
}

#[tokio::test]
async fn the_pause_that_the_server_asks_for_is_kept() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let cluster = cluster(&folder, listener.local_addr().unwrap()).await;
    let serving = async {
        answer(&listener, &overloaded(2)).await;
        answer(&listener, VERSION).await;
    };
    let begun = Instant::now();
    let (version, ()) = tokio::join!(cluster.version(), serving);
    assert_eq!(version.unwrap(), "v1.36.2");
    assert!(begun.elapsed() >= Duration::from_secs(2), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn a_pause_longer_than_the_patience_ends_it_at_once() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let cluster = cluster(&folder, listener.local_addr().unwrap()).await;
    let begun = Instant::now();
    let text = overloaded(60);
    let (version, ()) = tokio::join!(cluster.version(), answer(&listener, &text));
    let error = version.unwrap_err();
    assert_eq!(error.class(), Class::Transient);
    assert!(error.to_string().contains("429 (TooManyRequests)"), "{error}");
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn an_api_server_that_restarts_is_waited_for() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let cluster = cluster(&folder, at).await;
    let serving = async {
        // It goes in the middle of an answer, is away for a while, and says at first that it is not ready yet.
        answer(&listener, &VERSION[..60]).await;
        drop(listener);
        tokio::time::sleep(Duration::from_millis(700)).await;
        let listener = TcpListener::bind(at).await.unwrap();
        answer(
            &listener,
            "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
        )
        .await;
        answer(&listener, VERSION).await;
    };
    let (version, ()) = tokio::join!(cluster.version(), serving);
    assert_eq!(version.unwrap(), "v1.36.2");
}
