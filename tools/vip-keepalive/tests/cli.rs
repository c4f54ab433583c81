//! vip-keepalive against the lab: the seven laws, and what an operator sees.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "tests fail loudly")]

use lab::hosts::Hosts;
use lab::world::{Boot, Machines as _};
use lab::{Action, Clock, Fault, Window};
use laws::ssh::Site;
use laws::{Case, Trouble, run};
use serde_json::{Value, json};
use stage::Exit;
use vip_keepalive::VipKeepalive;

/// What lb-render leaves, as far as keepalived depends on it.
const HAPROXY: &str = "defaults\n  mode tcp\n  timeout connect 2s\n  timeout client 8h\n  timeout server 8h\n\
frontend api\n  bind *:7643\n  default_backend api\nbackend api\n  server cp-1 127.0.0.1:9\n\
frontend local\n  mode http\n  bind 127.0.0.1:8404\n  monitor-uri /healthz\n";

async fn haproxy(hosts: &Hosts, name: &str) {
    for line in [["apt-get", "update", "-q"].as_slice(), &["apt-get", "install", "-y", "haproxy"]] {
        assert_eq!(hosts.exec(name, line).await.unwrap().exit, 0);
    }
    hosts.find(name).unwrap().machine().fs.put("/etc/haproxy/haproxy.cfg", HAPROXY, 0o644, "root", "root");
    assert_eq!(hosts.exec(name, &["systemctl", "reload", "haproxy"]).await.unwrap().exit, 0);
}

async fn spec(site: &Site) -> Value {
    let mut machines = Vec::new();
    for n in 1..=3 {
        let name = format!("lb-{n}");
        machines.push(site.machine(&name, "load-balancer", 10 + n).await.unwrap());
        haproxy(&site.hosts, &name).await;
    }
    machines.push(site.entry("cp-1", "control-plane", 21));
    json!({
        "vip": { "address": site.address(10), "routerId": 30, "ports": { "http": 7080, "https": 7443, "api": 7643 } },
        "ssh": site.ssh(),
        "machines": machines,
    })
}

async fn case() -> Case {
    let site = Site::new(Clock::ZERO).unwrap();
    let spec = spec(&site).await;
    site.case(spec)
}

fn ssh(matching: &str, action: Action) -> Fault {
    Fault { window: Window::Ssh, matching: matching.into(), skip: 0, times: 1, action }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keeps_the_seven_laws() {
    let trouble = |name, fault, exits: &[Exit]| Trouble { name, fault, exits: exits.to_vec() };
    let transient = [Exit::Transient];
    let refused = || Action::Exit(5, "(/run/kubeline/keepalived.conf: Line 3) no".into());
    let troubles = [
        trouble(
            "keepalived -t refuses",
            ssh("lb-2 /usr/sbin/keepalived -t", refused()),
            &[Exit::Precondition],
        ),
        trouble(
            "a start fails",
            ssh("lb-2 systemctl reload-or-restart", Action::Exit(1, "Job failed.".into())),
            &[Exit::Precondition],
        ),
        trouble("cut before a write", ssh("lb-3 write v1", Action::DropBefore), &transient),
        trouble("cut after a start", ssh("lb-1 systemctl reload-or-restart", Action::DropAfter), &transient),
        trouble("a host hangs", ssh("lb-1 systemctl reload-or-restart", Action::Hang), &transient),
    ];
    let summary = laws::check::<VipKeepalive>(&[], &troubles, case).await.unwrap_or_else(|e| panic!("{e}"));
    println!("{summary}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_machine_holds_it_and_any_failing_check_moves_it() {
    let site = Site::new(Clock::ZERO).unwrap();
    let spec = spec(&site).await;
    let (hosts, vip) = (site.hosts.clone(), site.address(10));
    let case = site.case(spec);
    let said = run::<VipKeepalive>(&case, &["apply"], &[], &case.document, None).await;
    assert_eq!(said.exit, Exit::Done, "{said}");
    assert_eq!(hosts.holders(vip), ["lb-1"]);
    let document: Value = serde_json::from_str(&said.stdout).unwrap();
    assert_eq!(document["status"]["vip-keepalive"]["holder"], "lb-1");
    let said = run::<VipKeepalive>(&case, &["check"], &[], &case.document, None).await;
    assert_eq!(said.exit, Exit::Done, "{said}");

    // HAProxy of the holder ends: the next takes over, and keeps it when the first is well again.
    hosts.exec("lb-1", &["systemctl", "stop", "haproxy"]).await.unwrap();
    assert_eq!(hosts.holders(vip), ["lb-2"]);
    let said = run::<VipKeepalive>(&case, &["check"], &[], &case.document, None).await;
    assert_eq!(said.exit, Exit::Differs, "{said}");
    assert!(said.stdout.contains("lb-1: HAProxy does not answer for itself, so it cannot take"), "{said}");
    hosts.exec("lb-1", &["systemctl", "start", "haproxy"]).await.unwrap();
    assert_eq!(hosts.holders(vip), ["lb-2"]);

    // Another priority on the disk: repaired machine by machine, and the holder stays.
    let file = "/etc/keepalived/keepalived.conf";
    for name in ["lb-1", "lb-2"] {
        let host = hosts.find(name).unwrap();
        let text = host.machine().fs.text(file).replace("priority 1", "priority 2");
        host.machine().fs.put(file, text, 0o644, "root", "root");
    }
    let said = run::<VipKeepalive>(&case, &["apply"], &[], &case.document, None).await;
    assert_eq!(said.exit, Exit::Done, "{said}");
    let loads: Vec<&String> = said.done.iter().filter(|s| s.starts_with("load ")).collect();
    assert!(loads.len() == 2 && loads[1].ends_with("lb-2"), "the holder is last: {loads:?}");
    assert_eq!(hosts.holders(vip), ["lb-2"]);
    assert_eq!(document["status"]["vip-keepalive"]["machines"][2]["priority"], 130);
    assert!(case.journal.unknown().is_empty(), "{:?}", case.journal.unknown());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_address_in_use_is_refused_by_its_mac() {
    let site = Site::new(Clock::ZERO).unwrap();
    let spec = spec(&site).await;
    let vip = site.address(10);
    let mac = "bc:24:11:00:00:99".to_owned();
    let other = Boot { name: "stranger".into(), address: Some(vip), mac: mac.clone(), ..Boot::default() };
    let hosts = site.hosts.clone();
    hosts.add(other);
    site.answers(10).await.unwrap();
    let case = site.case(spec);
    let said = run::<VipKeepalive>(&case, &["apply"], &[], &case.document, None).await;
    assert_eq!(said.exit, Exit::Precondition, "{said}");
    assert!(said.stderr.contains(&format!("the MAC address {mac} answers for it")), "{said}");
    assert!(hosts.holders(vip).is_empty() && said.stdout.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_of_three_dead_and_without_haproxy() {
    let site = Site::new(Clock::ZERO).unwrap();
    let spec = spec(&site).await;
    let (hosts, vip) = (site.hosts.clone(), site.address(10));
    let case = site.case(spec);
    let said = run::<VipKeepalive>(&case, &["apply"], &[], &case.document, None).await;
    assert_eq!(said.exit, Exit::Done, "{said}");
    for name in ["lb-1", "lb-2"] {
        hosts.power_off(hosts.find(name).unwrap().vmid);
    }
    assert_eq!(hosts.holders(vip), ["lb-3"]);
    let said = run::<VipKeepalive>(&case, &["apply"], &[], &said.stdout, None).await;
    assert_eq!(said.exit, Exit::Partial, "{said}");
    let document: Value = serde_json::from_str(&said.stdout).unwrap();
    assert_eq!(document["status"]["vip-keepalive"]["holder"], "lb-3");
    assert_eq!(document["status"]["vip-keepalive"]["held"].as_array().unwrap().len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn destroy_stops_the_holder_last() {
    let site = Site::new(Clock::ZERO).unwrap();
    let spec = spec(&site).await;
    let (hosts, vip) = (site.hosts.clone(), site.address(10));
    let case = site.case(spec);
    let said = run::<VipKeepalive>(&case, &["apply"], &[], &case.document, None).await;
    assert_eq!(said.exit, Exit::Done, "{said}");
    let gone = run::<VipKeepalive>(&case, &["destroy", "--yes"], &[], &said.stdout, None).await;
    assert_eq!(gone.exit, Exit::Done, "{gone}");
    assert!(gone.done.last().unwrap().ends_with("lb-1"), "{:?}", gone.done);
    assert!(hosts.holders(vip).is_empty() && !(case.picture)().contains("vip-keepalive"));
}

#[tokio::test]
async fn refuses_too_few_and_renders_without_ssh() {
    let machine = |n: u8| json!({ "name": format!("m{n}"), "role": "load-balancer", "address": format!("192.0.2.{}", 20 + n) });
    let vip = json!({ "address": "192.0.2.10", "routerId": 7 });
    let case = Site::new(Clock::ZERO).unwrap().case(json!({ "vip": vip, "machines": [machine(1)] }));
    let said = run::<VipKeepalive>(&case, &["render"], &[], &case.document, None).await;
    assert_eq!(said.exit, Exit::Refused, "{said}");
    assert!(said.stderr.contains("spec.machines: holds 1 machines"), "{said}");
    let case =
        Site::new(Clock::ZERO).unwrap().case(json!({ "vip": vip, "machines": [machine(1), machine(2)] }));
    let said = run::<VipKeepalive>(&case, &["render", "m2/keepalived.conf"], &[], &case.document, None).await;
    assert_eq!(said.exit, Exit::Done, "{said}");
    assert!(said.stdout.contains("    unicast_peer {\n        192.0.2.21\n    }\n"), "{said}");
    let said = run::<VipKeepalive>(&case, &["apply"], &[], &case.document, None).await;
    assert_eq!(said.exit, Exit::Refused, "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drill_moves_the_address_and_tells_the_gap() {
    let site = Site::new(Clock::ZERO).unwrap();
    let spec = spec(&site).await;
    let (hosts, vip) = (site.hosts.clone(), site.address(10));
    let case = site.case(spec);
    let said = run::<VipKeepalive>(&case, &["apply"], &[], &case.document, None).await;
    assert_eq!(said.exit, Exit::Done, "{said}");
    let unasked = run::<VipKeepalive>(&case, &["drill"], &[], &case.document, None).await;
    assert_eq!(unasked.exit, Exit::Precondition, "nobody was there to be asked: {unasked}");
    let told = run::<VipKeepalive>(&case, &["drill", "--plan"], &[], &case.document, None).await;
    assert_eq!(told.exit, Exit::Done, "{told}");
    assert!(told.stdout.contains("lb-1 holds") && told.stdout.contains("kills HAProxy on it"), "{told}");
    assert_eq!(hosts.holders(vip), ["lb-1"]);

    for (how, from, to) in [("haproxy", "lb-1", "lb-2"), ("keepalived", "lb-2", "lb-1")] {
        let drill = ["drill", "--yes", "--how", how];
        let said = run::<VipKeepalive>(&case, &drill, &[], &case.document, None).await;
        assert_eq!(said.exit, Exit::Done, "{said}");
        let report: Value = serde_json::from_str(&said.stdout).unwrap();
        assert_eq!((&report["from"], &report["to"]), (&json!(from), &json!(to)), "{said}");
        assert!(report["gapMs"].is_u64() && report["attempts"].as_u64() > Some(20), "{said}");
        assert_eq!(hosts.holders(vip), [to]);
    }
    // With one of the others down it would risk an outage.
    hosts.power_off(hosts.find("lb-3").unwrap().vmid);
    let said = run::<VipKeepalive>(&case, &["drill", "--yes"], &[], &case.document, None).await;
    assert_eq!(said.exit, Exit::Precondition, "{said}");
    assert!(said.stderr.contains("1 machines beside lb-1 are healthy, and 2 have to be"), "{said}");
    assert_eq!(hosts.holders(vip), ["lb-1"]);
}
