//! TLS that ends at the load balancers, and the PROXY protocol: what clients and workers see.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "tests fail loudly")]

use std::net::Ipv4Addr;
use std::os::unix::fs::PermissionsExt as _;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use hosts::standins::Authority;
use hosts::vault::{self, Vault};
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

/// The path of the certificate with its key on the machine: the only set that is there.
fn key_file(site: &Site) -> String {
    let folder = site.machines[0].file("/etc/haproxy/kubeline");
    let sets: Vec<_> = std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(sets.len(), 1, "the sets of files before this one are gone: {sets:?}");
    format!("/etc/haproxy/kubeline/{}/certs/site.pem", sets[0].to_string_lossy())
}

/// A certificate that HAProxy cannot use, where TLS is terminated already: refused, and a restart of HAProxy, as by a
/// boot, still finds the set that it was tested with.
async fn a_refused_certificate_is_not_left_where_a_boot_finds_it(site: &Site, spec: &Value) {
    let bad = "-----BEGIN CERTIFICATE-----\nbm9uZQ==\n-----END CERTIFICATE-----\n\
        -----BEGIN PRIVATE KEY-----\nbm9uZQ==\n-----END PRIVATE KEY-----\n";
    let file = site.dir.join("bad.pem");
    std::fs::write(&file, bad).unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
    let before = key_file(site);
    let mut spec = spec.clone();
    spec["loadBalancer"]["certificates"] = json!(["site.pem", "bad.pem"]);
    let case = site.case(&spec);
    let said = run::<LbRender>(&case, &["apply"], &[], &case.document, None).await;
    assert_eq!(said.exit, Exit::Precondition, "{said}");
    assert_eq!(key_file(site), before);
    site.machines[0].ok(&["systemctl", "restart", "haproxy"]).await.unwrap();
    let (head, _) = get(tls(site, site.machines[0].address, &["http/1.1"]).await, "/again").await;
    assert!(head.contains(" 200 "), "{head}");
}

/// Who answers at the port of Vault; nothing when the connection leads nowhere. The certificate is Vault's own.
async fn vault(site: &Site, authority: &Authority) -> Option<String> {
    let mut roots = rustls::RootCertStore::empty();
    let pem = authority.pem();
    let body: String = pem.lines().filter(|l| !l.starts_with("-----")).collect();
    roots.add(base64::engine::general_purpose::STANDARD.decode(body).unwrap().into()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let stream = TcpStream::connect((site.machines[0].address, 8200)).await.ok()?;
    let name = rustls_pki_types::ServerName::try_from("vault.example").unwrap();
    let mut stream = tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, stream).await.ok()?;
    stream.write_all(b"GET /who HTTP/1.1\r\nHost: vault.example\r\nConnection: close\r\n\r\n").await.ok()?;
    let mut said = String::new();
    let _ = stream.read_to_string(&mut said).await;
    said.lines().find(|line| line.starts_with("vault-")).map(str::to_owned)
}

/// Three Vault servers: whoever is active gets the connections, none goes to the others, whatever they are; and none at
/// all to servers whose certificate the document's authority did not sign.
async fn vault_is_reached_where_it_is_active(site: &Site) {
    let authority = Authority::new().unwrap();
    let mut servers = Vec::new();
    for (n, api) in site.api.iter().enumerate() {
        let name = format!("vault-{}", n + 1);
        servers.push(Vault::start(&name, api.address, &authority, &["vault.example"]).await.unwrap());
    }
    let document = |pem: &str| {
        std::fs::write(site.dir.join("vault-ca.pem"), pem).unwrap();
        let mut spec = site.spec();
        let addresses: Vec<Ipv4Addr> = servers.iter().map(|s| s.address).collect();
        spec["loadBalancer"]["vault"] =
            json!({ "servers": addresses, "caFile": "vault-ca.pem", "serverName": "vault.example" });
        site.case(&spec)
    };
    servers[0].set_health(vault::ACTIVE);
    let case = document(&authority.pem());
    let said = run::<LbRender>(&case, &["apply"], &[], &case.document, None).await;
    assert_eq!(said.exit, Exit::Done, "{said}");
    let down = async |name: &str, why: &str| {
        let said = run::<LbRender>(&case, &["check"], &[], &case.document, None).await;
        said.stdout.contains(&format!("{name}: vault is down as seen by lb-1 ({why})"))
    };
    until("the standbys are down", Duration::from_secs(20), async || {
        down("vault-2", "L7STS").await && down("vault-3", "L7STS").await && !down("vault-1", "L7STS").await
    })
    .await
    .unwrap();

    // Whatever else a server is, it gets nothing.
    for pair in vault::OTHERS.chunks(2) {
        servers[1].set_health(pair[0]);
        servers[2].set_health(pair[1]);
        until("both were asked", Duration::from_secs(20), async || {
            servers[1].asked() >= 3 && servers[2].asked() >= 3
        })
        .await
        .unwrap();
        for _ in 0..6 {
            assert_eq!(vault(site, &authority).await.as_deref(), Some("vault-1"), "{pair:?}");
        }
    }

    // Another one becomes active; who was with the first is sent away (on-marked-down shutdown-sessions).
    let mut staying = TcpStream::connect((site.machines[0].address, 8200)).await.unwrap();
    staying.write_all(b"\x16").await.unwrap();
    servers[0].set_health(vault::STANDBY);
    servers[1].set_health(vault::ACTIVE);
    until("the new active one answers", Duration::from_secs(20), async || {
        vault(site, &authority).await.as_deref() == Some("vault-2") && down("vault-1", "L7STS").await
    })
    .await
    .unwrap();
    for _ in 0..6 {
        assert_eq!(vault(site, &authority).await.as_deref(), Some("vault-2"));
    }
    let cut = tokio::time::timeout(Duration::from_secs(5), staying.read(&mut [0; 1])).await;
    assert!(matches!(cut, Ok(Ok(0) | Err(_))), "a connection to what is no longer active goes on: {cut:?}");

    // Somebody else's servers: not by this authority.
    let case = document(&Authority::new().unwrap().pem());
    let said = run::<LbRender>(&case, &["apply"], &[], &case.document, None).await;
    assert_eq!(said.exit, Exit::Done, "{said}");
    until("no server is believed", Duration::from_secs(20), async || {
        let said = run::<LbRender>(&case, &["check"], &[], &case.document, None).await;
        ["vault-1", "vault-2", "vault-3"]
            .iter()
            .all(|name| said.stdout.contains(&format!("{name}: vault is down")))
            && said.stdout.contains("(L6RSP)")
    })
    .await
    .unwrap();
    assert_eq!(vault(site, &authority).await, None);
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
        let mode = site.machines[0].ok(&["stat", "-c", "%a %U", &key_file(&site)]).await.unwrap();
        assert_eq!(mode.trim(), "600 root");

        a_refused_certificate_is_not_left_where_a_boot_finds_it(&site, &spec).await;
        vault_is_reached_where_it_is_active(&site).await;
    });
}
