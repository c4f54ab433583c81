//! From bare machines to a service, and changes of it while clients are there.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "tests fail loudly")]

use std::os::unix::fs::PermissionsExt as _;
use std::time::{Duration, Instant};

use hosts::site::address;
use hosts::standins::DOWNLOAD;
use hosts::stranger::Stranger;
use hosts::{Rounds, Site, alone, until};
use laws::{Case, Said, run};
use lb_render::LbRender;
use serde_json::{Value, json};
use stage::{Exit, Tool};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use vip_keepalive::VipKeepalive;

async fn apply<T: Tool>(case: &Case, document: &str) -> Said {
    run::<T>(case, &["apply"], &[], document, None).await
}

/// What a program of the test's own side says.
async fn local(argv: &[&str]) {
    let said = tokio::process::Command::new(argv[0]).args(&argv[1..]).output().await.unwrap();
    assert!(said.status.success(), "{argv:?}: {}", String::from_utf8_lossy(&said.stderr));
}

/// Reads from the API through the shared address until nothing comes for now; TLS without a look at the certificate's
/// issuer is not needed: the authority is known.
async fn tls(site: &Site) -> tokio_rustls::client::TlsStream<TcpStream> {
    let mut roots = rustls::RootCertStore::empty();
    let pem = site.authority.pem();
    let body: String = pem.lines().filter(|l| !l.starts_with("-----")).collect();
    let der = base64::Engine::decode(&base64::engine::general_purpose::STANDARD, body).unwrap();
    roots.add(der.into()).unwrap();
    let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let stream = TcpStream::connect((site.vip, 6443)).await.unwrap();
    let name = rustls_pki_types::ServerName::try_from("kubernetes").unwrap();
    tokio_rustls::TlsConnector::from(std::sync::Arc::new(config)).connect(name, stream).await.unwrap()
}

async fn get(at: (std::net::Ipv4Addr, u16), path: &str) -> std::io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(at).await?;
    stream
        .write_all(format!("GET {path} HTTP/1.1\r\nHost: it\r\nConnection: close\r\n\r\n").as_bytes())
        .await?;
    let mut all = Vec::new();
    stream.read_to_end(&mut all).await?;
    Ok(all)
}

#[test]
fn from_bare_machines() {
    alone("from_bare_machines", 3, async |site| {
        let case = site.case(&site.spec());

        // A machine that is none of ours has the address: refused by its MAC, before anything of keepalived's is live.
        local(&["ip", "address", "add", &format!("{}/24", site.vip), "dev", "br0"]).await;
        let said = apply::<LbRender>(&case, &case.document).await;
        assert_eq!(said.exit, Exit::Done, "{said}");
        let refused = apply::<VipKeepalive>(&case, &said.stdout).await;
        assert_eq!(refused.exit, Exit::Precondition, "{refused}");
        assert!(refused.stderr.contains("is in use on the segment already"), "{refused}");
        assert!(refused.stderr.contains("the MAC address "), "{refused}");
        local(&["ip", "address", "del", &format!("{}/24", site.vip), "dev", "br0"]).await;

        // Neither may another cluster on the segment have the router id.
        let stranger = Stranger::start(address(77), 30).unwrap();
        let refused = apply::<VipKeepalive>(&case, &said.stdout).await;
        assert_eq!(refused.exit, Exit::Precondition, "{refused}");
        assert!(refused.stderr.contains("10.99.0.77 sends VRRP adverts with it"), "{refused}");
        drop(stranger);

        let first = apply::<VipKeepalive>(&case, &said.stdout).await;
        assert_eq!(first.exit, Exit::Done, "{first}");
        let rounds = Rounds::new(&site).await.unwrap();
        let document: Value = serde_json::from_str(&first.stdout).unwrap();
        let holder = document["status"]["vip-keepalive"]["holder"].as_str().unwrap().to_owned();
        assert!(site.machine(&holder).holds(site.vip).await);
        own_to_the_machine(&site, &holder).await;

        // What check says of three healthy machines, by keepalived's own account.
        let said = run::<VipKeepalive>(&case, &["check"], &[], &first.stdout, None).await;
        println!("{}", said.stdout);
        assert_eq!(said.exit, Exit::Done, "{said}");
        let rows: Vec<Vec<&str>> = said
            .stdout
            .lines()
            .filter(|l| l.starts_with("lb-"))
            .map(|l| l.split_whitespace().collect())
            .collect();
        assert_eq!(rows.len(), 3, "{said}");
        for (n, row) in rows.iter().enumerate() {
            let (state, held) = if row[0] == holder { ("MASTER", "10.99.0.10") } else { ("BACKUP", "-") };
            let priority = (150 - 10 * n).to_string();
            assert_eq!(row[1..5], [state, priority.as_str(), held, "serves"], "{said}");
        }

        // Nothing to do: the same bytes, nothing touched, and how long that takes.
        let before = (case.picture)();
        for _ in 0..3 {
            let begun = Instant::now();
            let lb = apply::<LbRender>(&case, &first.stdout).await;
            let (lb_took, begun) = (begun.elapsed(), Instant::now());
            let vip = apply::<VipKeepalive>(&case, &lb.stdout).await;
            println!("nothing to do: lb-render {lb_took:?}, vip-keepalive {:?}", begun.elapsed());
            assert_eq!((lb.exit, vip.exit), (Exit::Done, Exit::Done), "{lb}\n{vip}");
            assert!(lb.done.is_empty() && vip.done.is_empty(), "{lb}\n{vip}");
            assert_eq!(vip.stdout, first.stdout);
        }
        assert_eq!(before, (case.picture)());
        for check in [
            run::<LbRender>(&case, &["check"], &[], &first.stdout, None).await,
            run::<VipKeepalive>(&case, &["check"], &[], &first.stdout, None).await,
        ] {
            assert_eq!(check.exit, Exit::Done, "{check}");
        }

        changes_under_way(&site, &case, &first.stdout).await;
        refused_by_haproxy(&site, &case, &rounds).await;
        an_api_server_that_is_not_ready(&site, &case, &rounds).await;
        a_cluster_that_comes_to_be(&site, &case).await;

        // Gone again, without a trace of ours.
        for said in [
            run::<VipKeepalive>(&case, &["destroy", "--yes"], &[], &case.document, None).await,
            run::<LbRender>(&case, &["destroy", "--yes"], &[], &case.document, None).await,
        ] {
            assert_eq!(said.exit, Exit::Done, "{said}");
        }
        let left = (case.picture)();
        assert!(!left.contains("kubeline"), "{left}");
        for machine in &site.machines {
            assert!(!machine.holds(site.vip).await);
        }
    });
}

/// Statistics and metrics answer at the machine's own address and not at the shared one; the admin socket is root's alone.
async fn own_to_the_machine(site: &Site, holder: &str) {
    let machine = site.machine(holder);
    for path in ["/stats", "/metrics", "/healthz"] {
        let said = get((machine.address, 8404), path).await.unwrap();
        assert!(said.starts_with(b"HTTP/1.1 200") || said.starts_with(b"HTTP/1.0 200"), "{path}");
        let refused = get((site.vip, 8404), path).await.unwrap_err();
        assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused, "{path} at the shared address");
    }
    let socket = machine.ok(&["stat", "-c", "%a %U %F", lb_render::config::SOCKET]).await.unwrap();
    assert_eq!(socket.trim(), "600 root socket");
    until("the package's own socket is closed", Duration::from_secs(10), async || {
        let open = machine.ok(&["ss", "-xlH"]).await.unwrap();
        open.contains(lb_render::config::SOCKET) && !open.contains("/run/haproxy/admin.sock")
    })
    .await
    .unwrap();
}

/// A backend is added while a large download and a silent watch run through the holder: both survive the reload.
async fn changes_under_way(site: &Site, case: &Case, document: &str) {
    let vip = site.vip;
    let download = tokio::spawn(async move { get((vip, 80), "/download").await.unwrap() });
    let mut watch = tls(site).await;
    watch.write_all(b"GET /watch HTTP/1.1\r\nHost: kubernetes\r\n\r\n").await.unwrap();
    let mut said = vec![0; 4096];
    let n = watch.read(&mut said).await.unwrap();
    assert!(n > 0);
    let mut other: Value = serde_json::from_str(document).unwrap();
    let machines = other["spec"]["machines"].as_array_mut().unwrap();
    machines.push(json!({ "name": "w-4", "role": "worker", "address": address(39) }));
    let changed = apply::<LbRender>(case, &other.to_string()).await;
    assert_eq!(changed.exit, Exit::Done, "{changed}");
    assert_eq!(changed.done.len(), 6, "tested and loaded on each of three: {changed}");
    assert!(!download.is_finished(), "the download was to outlast the reload");
    let all = download.await.unwrap();
    assert!(all.len() >= DOWNLOAD, "{} bytes of {DOWNLOAD}", all.len());
    site.api.iter().for_each(hosts::standins::ApiServer::tell);
    let mut told = String::from_utf8_lossy(&said[..n]).into_owned();
    while !told.contains("MODIFIED") {
        let n = tokio::time::timeout(Duration::from_secs(5), watch.read(&mut said)).await.unwrap().unwrap();
        assert!(n > 0, "the watch was cut: {told}");
        told.push_str(&String::from_utf8_lossy(&said[..n]));
    }
    let back = apply::<LbRender>(case, document).await;
    assert_eq!(back.exit, Exit::Done, "{back}");
}

/// A certificate that HAProxy cannot use: exit 4 with its own words, and clients notice nothing.
async fn refused_by_haproxy(site: &Site, case: &Case, rounds: &Rounds<'_>) {
    let file = site.dir.join("bad.pem");
    let pem = "-----BEGIN CERTIFICATE-----\nbm9uZQ==\n-----END CERTIFICATE-----\n\
        -----BEGIN PRIVATE KEY-----\nbm9uZQ==\n-----END PRIVATE KEY-----\n";
    std::fs::write(&file, pem).unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
    let mut spec = site.spec();
    spec["loadBalancer"] = json!({ "mode": "terminate", "certificates": ["bad.pem"] });
    let live = |site: &Site| -> Vec<String> {
        let read = |m: &hosts::Machine| std::fs::read_to_string(m.file("/etc/haproxy/haproxy.cfg")).unwrap();
        site.machines.iter().map(read).collect()
    };
    let (before, begun) = (live(site), Instant::now());
    let said = apply::<LbRender>(case, &site.document(&spec)).await;
    assert_eq!(said.exit, Exit::Precondition, "{said}");
    assert!(said.stderr.contains("nothing live was touched"), "{said}");
    assert!(
        said.stderr.contains("[ALERT]") && said.stderr.contains("unable to load"),
        "HAProxy's own words: {said}"
    );
    assert_eq!(before, live(site));
    let noticed = rounds.gaps().since(begun);
    assert!(noticed.lost == 0 && noticed.clients > 0, "{noticed:?}");
    // What it left beside the live file is of no use to anybody: the next good run clears it.
    let good = apply::<LbRender>(case, &case.document).await;
    assert_eq!(good.exit, Exit::Done, "{good}");
}

/// The kubeconfig appears: API servers are verified by the CA in it. One of another cluster, as after the cluster was made
/// anew: none of them is believed. Gone again: nothing is verified.
async fn a_cluster_that_comes_to_be(site: &Site, case: &Case) {
    use base64::Engine as _;
    let file = site.dir.join("kubeconfig");
    let other = hosts::standins::Authority::new().unwrap();
    for (authority, exit, words) in [
        (Some(&site.authority), Exit::Done, "healthy"),
        (Some(&other), Exit::Differs, "cp-1: api is down as seen by lb-1 (L6RSP)"),
        (None, Exit::Done, "healthy"),
    ] {
        match authority {
            Some(authority) => {
                let data = base64::engine::general_purpose::STANDARD.encode(authority.pem());
                let text =
                    format!("clusters:\n- name: k\n  cluster:\n    certificate-authority-data: {data}\n");
                std::fs::write(&file, text).unwrap();
                std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
            }
            None => std::fs::remove_file(&file).unwrap(),
        }
        let said = apply::<LbRender>(case, &case.document).await;
        assert_eq!(said.exit, Exit::Done, "{said}");
        assert_eq!(said.done.len(), 6, "another CA is another configuration, on all three: {said}");
        until(words, Duration::from_secs(20), async || {
            let said = run::<LbRender>(case, &["check"], &[], &case.document, None).await;
            said.exit == exit && said.stdout.contains(words)
        })
        .await
        .unwrap();
    }
}

/// One API server fails `/readyz`: no client gets it, `check` names it, and the address stays where it is.
async fn an_api_server_that_is_not_ready(site: &Site, case: &Case, rounds: &Rounds<'_>) {
    let holder = rounds.holders().await[0].name.clone();
    site.api[1].set_ready(false);
    until("check names cp-2", Duration::from_secs(15), async || {
        let said = run::<LbRender>(case, &["check"], &[], &case.document, None).await;
        said.exit == Exit::Differs && said.stdout.contains("cp-2: api is down as seen by lb-1 (L7STS)")
    })
    .await
    .unwrap();
    for _ in 0..12 {
        let mut stream = tls(site).await;
        stream
            .write_all(b"GET /name HTTP/1.1\r\nHost: kubernetes\r\nConnection: close\r\n\r\n")
            .await
            .unwrap();
        let mut said = String::new();
        let _ = stream.read_to_string(&mut said).await;
        assert!(said.contains("cp-1") || said.contains("cp-3"), "{said}");
    }
    let said = run::<VipKeepalive>(case, &["check"], &[], &case.document, None).await;
    assert_eq!(said.exit, Exit::Done, "a backend is no reason to move the address: {said}");
    assert_eq!(rounds.holders().await[0].name, holder);
    site.api[1].set_ready(true);
    until("cp-2 is back", Duration::from_secs(15), async || {
        run::<LbRender>(case, &["check"], &[], &case.document, None).await.exit == Exit::Done
    })
    .await
    .unwrap();
}
