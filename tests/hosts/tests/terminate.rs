//! TLS that ends at the load balancers, and the PROXY protocol: what clients and workers see.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "tests fail loudly")]

use std::net::Ipv4Addr;
use std::os::unix::fs::PermissionsExt as _;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use hosts::{Site, alone, until};
use laws::run;
use lb_render::LbRender;
use serde_json::{Value, json};
use stage::Exit;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

/// A TLS connection to a load balancer itself, with these protocols offered.
async fn tls(site: &Site, at: Ipv4Addr, alpn: &[&str]) -> TlsStream<TcpStream> {
    let mut roots = rustls::RootCertStore::empty();
    let pem = site.authority.pem();
    let body: String = pem.lines().filter(|l| !l.starts_with("-----")).collect();
    roots.add(base64::engine::general_purpose::STANDARD.decode(body).unwrap().into()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|p| p.as_bytes().to_vec()).collect();
    let stream = TcpStream::connect((at, 443)).await.unwrap();
    let name = rustls_pki_types::ServerName::try_from("site.example").unwrap();
    tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, stream).await.unwrap()
}

/// The head and the body of the answer; the body is what a worker tells of the request.
async fn get(mut stream: impl AsyncRead + AsyncWrite + Unpin, path: &str) -> (String, Value) {
    let lie = "X-Forwarded-For: 6.6.6.6\r\nX-Forwarded-Proto: gopher\r\nX-Forwarded-Anything: x\r\nForwarded: for=6.6.6.6\r\n";
    let request = format!("GET {path} HTTP/1.1\r\nHost: site.example\r\n{lie}Connection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut all = Vec::new();
    // A peer that closes without TLS's good-bye has said all the same.
    let _ = stream.read_to_end(&mut all).await;
    let text = String::from_utf8_lossy(&all).into_owned();
    let (head, rest) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer: {text:?}"));
    let body = rest.find('{').and_then(|from| serde_json::from_str(&rest[from..=rest.rfind('}')?]).ok());
    (head.to_lowercase(), body.unwrap_or_default())
}

async fn served(site: &Site, spec: &Value) {
    let case = site.case(spec);
    let said = run::<LbRender>(&case, &["apply"], &[], &case.document, None).await;
    assert_eq!(said.exit, Exit::Done, "{said}");
    until("the workers are seen up", Duration::from_secs(15), async || {
        run::<LbRender>(&case, &["check"], &[], &case.document, None).await.exit == Exit::Done
    })
    .await
    .unwrap();
}

#[test]
fn clients_and_workers_see_what_they_should() {
    alone("clients_and_workers_see_what_they_should", 1, async |site| {
        let at = site.machines[0].address;
        let client = "10.99.0.1";

        // Passed through: the worker's own TLS, and the client's address by the PROXY protocol once it is on.
        let mut spec = site.spec();
        served(&site, &spec).await;
        let (_, told) = get(tls(&site, at, &[]).await, "/through").await;
        assert_eq!((&told["tls"], &told["proxied"], &told["peer"]), (&json!(true), &Value::Null, &json!(at)));
        spec["loadBalancer"] = json!({ "proxyProtocol": true });
        served(&site, &spec).await;
        for port in [80, 443] {
            let (_, told) = match port {
                80 => get(TcpStream::connect((at, 80)).await.unwrap(), "/through").await,
                _ => get(tls(&site, at, &[]).await, "/through").await,
            };
            let proxied = told["proxied"].as_str().unwrap_or_default().to_owned();
            assert!(proxied.starts_with(client), "port {port}: {told}");
        }

        // Terminated.
        let (certificate, key) = site.authority.pair(&["site.example"]).unwrap();
        let file = site.dir.join("site.pem");
        std::fs::write(&file, certificate.pem() + &key.serialize_pem()).unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
        spec["loadBalancer"] = json!({
            "mode": "terminate", "certificates": ["site.pem"], "hstsSeconds": 600,
            "listeners": [{ "name": "plain", "mode": "http", "port": 8080, "targetPort": 30080, "role": "worker" }],
        });
        served(&site, &spec).await;
        let (head, told) = get(tls(&site, at, &["http/1.1"]).await, "/app").await;
        let headers = &told["headers"];
        assert!(head.contains("strict-transport-security: max-age=600"), "{head}");
        assert_eq!(
            (&headers["x-forwarded-for"], &headers["x-forwarded-proto"]),
            (&json!(client), &json!("https")),
            "{told}"
        );
        assert_eq!(headers["x-forwarded-host"], "site.example");
        assert!(headers["forwarded"].is_null() && headers["x-forwarded-anything"].is_null(), "{told}");
        let h2 = tls(&site, at, &["h2", "http/1.1"]).await;
        assert_eq!(h2.get_ref().1.alpn_protocol(), Some(b"h2".as_slice()));

        // 80 leads to 443, but for the challenges of certificate authorities.
        let plain = async |path: &str| get(TcpStream::connect((at, 80)).await.unwrap(), path).await;
        let (head, _) = plain("/app?x=1").await;
        assert!(head.contains(" 301 ") && head.contains("location: https://site.example/app?x=1"), "{head}");
        let (head, told) = plain("/.well-known/acme-challenge/token").await;
        assert!(head.contains(" 200 "), "{head}");
        assert_eq!(told["headers"]["x-forwarded-for"], client, "{told}");
        assert_eq!(told["headers"]["x-forwarded-proto"], "http", "{told}");

        // A port of the operator's own.
        let (_, told) = get(TcpStream::connect((at, 8080)).await.unwrap(), "/own").await;
        assert_eq!(told["headers"]["x-forwarded-for"], client, "{told}");
        assert_eq!(told["headers"]["x-forwarded-proto"], "http", "{told}");

        // The key lies there for root alone.
        let mode = site.machines[0]
            .ok(&["stat", "-c", "%a %U", "/etc/haproxy/kubeline-certs/site.pem"])
            .await
            .unwrap();
        assert_eq!(mode.trim(), "600 root");
    });
}
