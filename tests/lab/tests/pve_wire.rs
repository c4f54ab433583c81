//! HTTP as pveproxy speaks it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

mod pve_support;

use std::time::{Duration, Instant};

use lab::Clock;
use lab::pve::ProxmoxConfig;
use pve_support::{quick, read, site};

#[tokio::test]
async fn errors_are_in_the_reason_phrase_and_in_the_message() {
    let site = quick();
    let got = site.call("GET", "/cluster/nextid", &[("vmid", "5")]).await;
    assert_eq!((got.status, got.reason.as_str(), got.closes), (400, "Parameter verification failed.", true));
    assert_eq!(got.body["message"], "Parameter verification failed.\n");
    assert_eq!(got.body["errors"]["vmid"], "invalid format - value does not look like a valid VM ID\n");
    let good = site.call("GET", "/cluster/nextid", &[]).await;
    assert_eq!((good.closes, good.data()), (false, "100".into()));
    let strange = site.call("GET", "/nodes/pve9/status", &[]).await;
    assert_eq!(strange.status, 500);
    assert!(strange.reason.starts_with("hostname lookup 'pve9' failed - failed to get address info for: "));

    let old =
        pve_support::site(ProxmoxConfig { message_field: false, ..ProxmoxConfig::default() }, Clock::ZERO);
    let got = old.call("GET", "/nodes/pve1/lxc/5/nope", &[]).await;
    assert_eq!(got.text, r#"{"data":null}"#);
    assert_eq!(got.reason, "Method 'GET /nodes/pve1/lxc/5/nope' not implemented");
    assert_eq!(old.world.journal.unknown().len(), 1);
}

#[tokio::test]
async fn forms_are_split_at_semicolons_too() {
    let site = quick();
    site.proxmox.add_template(9000, "t", "pve1", "local-lvm");
    let clone = [("newid", "3001"), ("pool", "k8s-prod")];
    assert_eq!(site.task("POST", "/nodes/pve1/qemu/9000/clone", &clone).await, "OK");
    let path = "/nodes/pve1/qemu/3001/config";
    let raw = |body: &'static str| {
        let request =
            site.request("PUT", "pve1", path).header("content-type", "application/x-www-form-urlencoded");
        request.body(body).send()
    };
    let got = read(raw("tags=a;b").await.unwrap()).await;
    assert_eq!(
        got.body["errors"]["b"],
        "property is not defined in schema and the schema does not allow additional properties"
    );
    read(raw("description=x=y").await.unwrap()).await.data();
    assert_eq!(site.get(path).await["description"], "x\n", "cut at the second equals sign");
    let json =
        site.request("PUT", "pve1", path).json(&serde_json::json!({ "onboot": true, "tags": ["b", "a"] }));
    read(json.send().await.unwrap()).await.data();
    let config = site.get(path).await;
    assert_eq!((config["onboot"].clone(), config["tags"].clone()), (1.into(), "a;b".into()));
    let twice = site.call("PUT", path, &[("vmid", "5")]).await;
    assert_eq!(
        twice.body["errors"]["vmid"],
        "duplicate parameter (already defined in URI) with conflicting values!"
    );
}

#[tokio::test]
async fn what_the_server_cannot_read_is_501() {
    let site = quick();
    let body = site.request("DELETE", "pve1", "/nodes/pve1/qemu/5").body("purge=1").send().await.unwrap();
    let got = read(body).await;
    assert_eq!((got.status, got.reason.as_str()), (501, "Unexpected content for method 'DELETE'"));
    let parts = futures::stream::iter([Ok::<_, std::io::Error>("poolid=x")]);
    let form =
        site.request("POST", "pve1", "/pools").header("content-type", "application/x-www-form-urlencoded");
    let got = read(form.body(reqwest::Body::wrap_stream(parts)).send().await.unwrap()).await;
    assert_eq!((got.status, got.text.as_str()), (501, "chunked transfer encoding not supported"));
    let big = "x".repeat(513 << 10);
    let got =
        read(site.request("POST", "pve1", "/pools").form(&[("comment", big)]).send().await.unwrap()).await;
    assert_eq!((got.status, got.text.as_str()), (501, "for data too large"));
    let got = read(
        site.request("POST", "pve1", "/pools")
            .header("content-type", "text/xml")
            .body("<a/>")
            .send()
            .await
            .unwrap(),
    )
    .await;
    assert_eq!(got.status, 506);
}

#[tokio::test]
async fn tokens_and_tickets() {
    let mut site = site(ProxmoxConfig::default(), Clock::scaled(0.05));
    let url = site.proxmox.url("pve2").unwrap();
    let started = Instant::now();
    let none = read(site.client.get(format!("{url}/api2/json/version")).send().await.unwrap()).await;
    assert_eq!((none.status, none.reason.as_str(), none.text.as_str()), (401, "No ticket", ""));
    assert!(started.elapsed() >= Duration::from_millis(150), "every 401 is late");

    let login = [("username", "kubeline@pve"), ("password", "kubeline-in-the-lab")];
    let with_token = site.call("POST", "/access/ticket", &login).await;
    assert_eq!(with_token.status, 200, "the ticket endpoint asks nobody who they are");
    let post = |path: &str| site.client.post(format!("{url}/api2/json{path}"));
    let wrong = read(post("/access/ticket").form(&[login[0], ("password", "x")]).send().await.unwrap()).await;
    assert_eq!((wrong.status, wrong.reason.as_str()), (401, "authentication failure"));
    let ticket = read(post("/access/ticket").form(&login).send().await.unwrap()).await.data();
    let cookie = format!("PVEAuthCookie={}", ticket["ticket"].as_str().unwrap());
    let read_with = site.client.get(format!("{url}/api2/json/version")).header("cookie", &cookie);
    assert_eq!(read(read_with.send().await.unwrap()).await.data()["version"], "9.1.1");
    let bare =
        read(post("/pools").header("cookie", &cookie).form(&[("poolid", "x")]).send().await.unwrap()).await;
    assert_eq!((bare.status, bare.reason.as_str()), (401, "Permission denied - invalid csrf token"));
    let csrf = ticket["CSRFPreventionToken"].as_str().unwrap();
    let guarded = post("/pools").header("cookie", &cookie).header("CSRFPreventionToken", csrf);
    assert_eq!(read(guarded.form(&[("poolid", "x")]).send().await.unwrap()).await.status, 403);

    site.token = "kubeline@pve!cli=00000000-0000-0000-0000-000000000000".into();
    let bad = site.call("GET", "/version", &[]).await;
    assert_eq!((bad.status, bad.reason.as_str()), (401, "Authentication failed!"));
    let changing = site.world.journal.changing_since(0);
    assert_eq!(changing.len(), 2, "logging in changes nothing: {changing:?}");
}

#[tokio::test]
async fn certificates_and_fingerprints() {
    let site = quick();
    let nodes = site.get("/nodes").await;
    assert_eq!(nodes[0]["ssl_fingerprint"], site.proxmox.fingerprint("pve1").unwrap());
    assert_ne!(site.proxmox.fingerprint("pve1"), site.proxmox.fingerprint("pve2"));
    let stranger = reqwest::Client::builder().tls_certs_only([]).no_proxy().build().unwrap();
    assert!(stranger.get(site.proxmox.url("pve1").unwrap()).send().await.is_err(), "the CA is private");
    assert_eq!(std::fs::read_to_string(site.proxmox.ca_file()).unwrap(), site.proxmox.ca_pem());
    let token = std::fs::read_to_string(site.proxmox.token_file()).unwrap();
    assert_eq!(token.trim(), site.token);
}

#[tokio::test]
async fn statistics_lag_behind() {
    let site = site(ProxmoxConfig::default(), Clock::scaled(0.2));
    site.proxmox.add_template(9000, "t", "pve1", "local-lvm");
    let clone = [("newid", "3001"), ("name", "new"), ("pool", "k8s-prod")];
    assert_eq!(site.task("POST", "/nodes/pve1/qemu/9000/clone", &clone).await, "OK");
    let find = |list: serde_json::Value| {
        list.as_array().unwrap().iter().find(|g| g["vmid"] == 3001).cloned().unwrap()
    };
    let young = find(site.get("/cluster/resources?type=vm").await);
    assert_eq!((young["status"].clone(), young.get("name")), ("unknown".into(), None));
    let live = find(site.get("/nodes/pve1/qemu").await);
    assert_eq!(live["name"], "new");
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let old = find(site.get("/cluster/resources?type=vm").await);
        if (old["status"].clone(), old["name"].clone()) == ("stopped".into(), "new".into()) {
            return;
        }
        assert!(Instant::now() < deadline, "{old}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn an_idle_connection_is_cut_after_five_seconds() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let site = quick();
    let mut roots = rustls::RootCertStore::empty();
    for certificate in rustls_pemfile::certs(&mut site.proxmox.ca_pem().as_bytes()) {
        roots.add(certificate.unwrap()).unwrap();
    }
    let tls = rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    let address = site.proxmox.url("pve1").unwrap().trim_start_matches("https://").to_owned();
    let socket = tokio::net::TcpStream::connect(&address).await.unwrap();
    let name = rustls::pki_types::ServerName::try_from("pve1.lab.example").unwrap();
    let connector = tokio_rustls::TlsConnector::from(std::sync::Arc::new(tls));
    let mut stream = connector.connect(name, socket).await.unwrap();
    let request = format!(
        "GET /api2/json/version HTTP/1.1\r\nHost: pve1\r\nAuthorization: PVEAPIToken={}\r\n\r\n",
        site.token
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut buffer = vec![0; 4096];
    let read = stream.read(&mut buffer).await.unwrap();
    assert!(buffer[..read].starts_with(b"HTTP/1.1 200 OK"));
    let started = Instant::now();
    let mut rest = Vec::new();
    let end = tokio::time::timeout(Duration::from_secs(20), stream.read_to_end(&mut rest)).await;
    assert!(end.is_ok() && rest.is_empty(), "cut without a word: {end:?}");
    assert!(started.elapsed() >= Duration::from_millis(4500), "{:?}", started.elapsed());
}
