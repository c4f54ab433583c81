//! HAProxy and keepalived: traffic through the virtual address, and failovers.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr, reason = "a test may fail so")]

mod site;

use std::time::Duration;

use lab::world::Machines;
use site::{Client, Site, until};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

fn haproxy(site: &Site, port: u16) -> String {
    format!(
        "global\n  maxconn 1000\n  stats socket /run/haproxy/admin.sock mode 600 level admin\n\
         defaults\n  mode tcp\n  timeout connect 5s\n  timeout client 1h\n  timeout server 1h\n\
         frontend api\n  bind *:{port}\n  default_backend api\n\
         backend api\n  option tcp-check\n  server cp1 {}:7001 check\n  server cp2 {}:7002 check inter 2s fall 3 rise 2\n\
         frontend health\n  mode http\n  bind 127.0.0.1:8404\n  monitor-uri /healthz\n",
        site.address(21),
        site.address(22),
    )
}

fn keepalived(site: &Site, own: u8, priority: u8) -> String {
    let peers: String =
        [11, 12, 13].iter().filter(|p| **p != own).map(|p| format!("    {}\n", site.address(*p))).collect();
    format!(
        "global_defs {{\n  enable_script_security\n  script_user root\n}}\n\
         vrrp_script haproxy {{\n  script \"/usr/bin/curl -fsS -m 2 http://127.0.0.1:8404/healthz\"\n  interval 2\n  weight 0\n}}\n\
         vrrp_instance VI_1 {{\n  state BACKUP\n  interface eth0\n  virtual_router_id 30\n  priority {priority}\n  advert_int 1\n  nopreempt\n\
         \x20 unicast_src_ip {}\n  unicast_peer {{\n{peers}  }}\n  virtual_ipaddress {{\n    {}/24\n  }}\n  track_script {{\n    haproxy\n  }}\n}}\n",
        site.address(own),
        site.address(10),
    )
}

/// A server that says its name to whoever connects.
async fn greeter(site: &Site, last: u8, port: u16) {
    let listener = TcpListener::bind((site.address(last), port)).await.unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ = stream.write_all(format!("cp{}\n", last - 20).as_bytes()).await;
        }
    });
}

async fn ask(site: &Site, last: u8, port: u16) -> Option<String> {
    // A connection that was taken just before its listener went never gets an answer.
    let answer = async {
        let mut stream = TcpStream::connect((site.address(last), port)).await.ok()?;
        let mut text = String::new();
        stream.read_to_string(&mut text).await.ok()?;
        (!text.is_empty()).then_some(text)
    };
    tokio::time::timeout(Duration::from_secs(2), answer).await.ok()?
}

async fn three(site: &Site) -> Vec<Client> {
    let mut clients = Vec::new();
    for (own, priority) in [(11, 150), (12, 100), (13, 50)] {
        let host = site.machine(&format!("lb-{}", own - 10), own).await;
        host.ok("sudo -n -- apt-get update").await;
        host.ok("sudo -n -- apt-get install -y haproxy keepalived").await;
        host.put("/etc/haproxy/haproxy.cfg", &haproxy(site, 7443)).await;
        host.put("/etc/keepalived/keepalived.conf", &keepalived(site, own, priority)).await;
        let said = host.run("sudo -n -- haproxy -c -V -f /etc/haproxy/haproxy.cfg").await;
        assert_eq!(
            (said.exit, said.out.as_str(), said.err.as_str()),
            (Some(0), "Configuration file is valid\n", "")
        );
        let said = host.run("sudo -n -- keepalived -t -f /etc/keepalived/keepalived.conf").await;
        assert_eq!((said.exit, said.err.as_str()), (Some(0), ""));
        host.ok("sudo -n -- systemctl reload haproxy").await;
        host.ok("sudo -n -- systemctl start keepalived").await;
        clients.push(host);
    }
    clients
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn traffic_follows_the_virtual_address() {
    let site = Site::new();
    greeter(&site, 21, 7001).await;
    let clients = three(&site).await;
    let vip = site.address(10);
    assert_eq!(site.hosts.holders(vip), ["lb-1"]);
    until("the VIP answers", async || ask(&site, 10, 7443).await.as_deref() == Some("cp1\n")).await;
    assert_eq!(
        ask(&site, 12, 7443).await.as_deref(),
        Some("cp1\n"),
        "each machine serves on its own address too"
    );
    let brief = clients[0].ok("ip -br addr show dev eth0").await;
    assert!(brief.contains(&format!("{}/24 {vip}/24 ", site.address(11))), "{brief}");
    assert_eq!(
        clients[1].run(&format!("sudo -n -- arping -D -c 2 -I eth0 {vip}")).await.exit,
        Some(1),
        "not installed"
    );

    // HAProxy gone: the check faults, the next takes over; back: nopreempt leaves it there.
    clients[0].ok("sudo -n -- systemctl stop haproxy").await;
    assert_eq!(site.hosts.holders(vip), ["lb-2"]);
    until("the VIP answers again", async || ask(&site, 10, 7443).await.is_some()).await;
    clients[0].ok("sudo -n -- systemctl start haproxy").await;
    assert_eq!(site.hosts.holders(vip), ["lb-2"]);

    // Power gone: the best of the rest.
    let lb2 = site.hosts.find("lb-2").unwrap().vmid;
    site.hosts.power_off(lb2);
    assert_eq!(site.hosts.holders(vip), ["lb-1"]);
    until("the VIP answers a third time", async || ask(&site, 10, 7443).await.is_some()).await;
    site.nothing_unknown();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn checks_decide_where_traffic_goes() {
    let site = Site::new();
    greeter(&site, 22, 7002).await;
    let host = three(&site).await.remove(0);
    let socket =
        "sudo -n -- sh -c '# kubeline: lb-render-socket v1\n' sh /run/haproxy/admin.sock 'show stat'";
    let status = async |server: &str| {
        let table = host.ok(socket).await;
        let row = table.lines().find(|l| l.starts_with(&format!("api,{server},"))).unwrap().to_string();
        let header: Vec<&str> = table.lines().next().unwrap().split(',').collect();
        let at = header.iter().position(|c| *c == "status").unwrap();
        assert_eq!(row.matches(',').count() + 1, header.len(), "{row}");
        row.split(',').nth(at).unwrap().to_string()
    };
    until("cp1 is seen down", async || status("cp1").await == "DOWN").await;
    assert_eq!(status("cp2").await, "UP");
    assert_eq!(ask(&site, 11, 7443).await.as_deref(), Some("cp2\n"));
    greeter(&site, 21, 7001).await;
    until("cp1 is seen up", async || status("cp1").await == "UP").await;

    // A bad file fails the reload, and what ran goes on.
    host.put("/etc/haproxy/haproxy.cfg", "frontend api\n  bind *:7443\n  timeout conect 5s\n").await;
    let said = host.run("sudo -n -- systemctl reload haproxy").await;
    assert_eq!(said.exit, Some(1));
    assert!(said.err.starts_with("Job for haproxy.service failed.\n"), "{said:?}");
    assert!(ask(&site, 11, 7443).await.is_some());
    let said = host.run("sudo -n -- haproxy -c -f /etc/haproxy/haproxy.cfg").await;
    assert_eq!(said.exit, Some(1));
    assert!(
        said.err.contains("parsing [/etc/haproxy/haproxy.cfg:3] : 'timeout' supports 'client', "),
        "{said:?}"
    );
    site.nothing_unknown();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failover_takes_three_adverts() {
    let site = Site::with_clock(lab::Clock::scaled(0.05));
    greeter(&site, 21, 7001).await;
    let clients = three(&site).await;
    let vip = site.address(10);
    until("somebody holds the VIP", async || site.hosts.holders(vip).len() == 1).await;
    let holder = site.hosts.holders(vip).remove(0);
    let vmid = site.hosts.find(&holder).unwrap().vmid;
    let begun = std::time::Instant::now();
    site.hosts.power_off(vmid);
    assert!(site.hosts.holders(vip).is_empty());
    until("another holds it", async || site.hosts.holders(vip).len() == 1).await;
    assert!(begun.elapsed() >= Duration::from_millis(150), "{:?}", begun.elapsed());
    drop(clients);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tls_ends_at_the_balancer() {
    let site = Site::new();
    greeter(&site, 21, 7001).await;
    let host = site.machine("lb-1", 11).await;
    host.ok("sudo -n -- apt-get update").await;
    host.ok("sudo -n -- apt-get install -y haproxy").await;
    let config = format!(
        "defaults\n  mode tcp\n  timeout connect 5s\n  timeout client 1h\n  timeout server 1h\n\
         listen web\n  bind *:7444 ssl crt /etc/haproxy/certs/site.pem\n  server cp1 {}:7001 check\n",
        site.address(21)
    );
    host.put("/etc/haproxy/haproxy.cfg", &config).await;
    let said = host.run("sudo -n -- haproxy -c -f /etc/haproxy/haproxy.cfg").await;
    assert!(
        said.err.contains("unable to stat SSL certificate from file '/etc/haproxy/certs/site.pem'"),
        "{said:?}"
    );
    let made = rcgen::generate_simple_self_signed(vec![site.address(11).to_string()]).unwrap();
    let pem = format!("{}{}", made.cert.pem(), made.signing_key.serialize_pem());
    host.put("/etc/haproxy/certs/site.pem", &pem).await;
    host.ok("sudo -n -- systemctl reload haproxy").await;
    host.put("/tmp/ca.pem", &made.cert.pem()).await;
    // The greeter speaks no HTTP, so curl reports the answer as none; what counts is that the handshake went through.
    let url = format!("https://{}:7444/", site.address(11));
    until("TLS answers", async || {
        host.run(&format!("curl -sS --cacert /tmp/ca.pem {url}")).await.exit == Some(52)
    })
    .await;
    assert_eq!(host.run(&format!("curl -sS {url}")).await.exit, Some(60), "unknown authority");
    site.nothing_unknown();
}
