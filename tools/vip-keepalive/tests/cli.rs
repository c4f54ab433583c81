//! vip-keepalive against the lab: the seven laws, and what an operator sees.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "tests fail loudly")]

use lab::hosts::Hosts;
use lab::world::{Boot, Machines as _};
use lab::{Action, Clock};
use laws::balancers::{offline, ssh, trouble, troubles};
use laws::ssh::Site;
use laws::{Case, run};
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
    let spec = laws::balancers::spec(site).await;
    for n in 1..=3 {
        haproxy(&site.hosts, &format!("lb-{n}")).await;
    }
    spec
}

async fn case() -> Case {
    let site = Site::new(Clock::ZERO).unwrap();
    let spec = spec(&site).await;
    site.case(spec)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keeps_the_seven_laws() {
    let words = "(/run/kubeline/keepalived.conf: Line 3) no";
    let refused = ssh("lb-2 /usr/sbin/keepalived -t", Action::Exit(5, words.into()));
    let mut troubles = troubles();
    troubles.push(trouble("keepalived -t refuses", refused, Exit::Precondition));
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
    let vip_text = vip.to_string();
    let row = said.stdout.lines().find(|l| l.starts_with("lb-1 ")).unwrap_or_default().to_owned();
    let cells: Vec<&str> = row.split_whitespace().take(5).collect();
    assert_eq!(cells, ["lb-1", "MASTER", "150", &vip_text, "serves"], "{said}");

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

/// What may be wrong with one machine; `Fine` first.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Ill {
    Fine,
    /// systemd told that HAProxy ended.
    Ended,
    /// HAProxy runs and does not answer for itself.
    Silent,
    /// keepalived does not run.
    Stopped,
}

/// Makes a machine so.
async fn make(hosts: &Hosts, name: &str, ill: Ill) {
    let silent = HAPROXY.replace("  monitor-uri /healthz\n", "");
    let put = |path: &str, text: &str| {
        hosts.find(name).unwrap().machine().fs.put(path, text, 0o644, "root", "root");
    };
    put(vip_keepalive::config::ENDED, if ill == Ill::Ended { "1\n" } else { "0\n" });
    put("/etc/haproxy/haproxy.cfg", if ill == Ill::Silent { &silent } else { HAPROXY });
    let verb = if ill == Ill::Stopped { "stop" } else { "start" };
    for line in [["systemctl", "reload", "haproxy"], ["systemctl", verb, "keepalived"]] {
        assert_eq!(hosts.exec(name, &line).await.unwrap().exit, 0);
    }
    hosts.settle();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_combination_of_failures_leaves_two_holders_or_none() {
    const ILLS: [Ill; 4] = [Ill::Fine, Ill::Ended, Ill::Silent, Ill::Stopped];
    let site = Site::new(Clock::ZERO).unwrap();
    let spec = spec(&site).await;
    let (hosts, vip) = (site.hosts.clone(), site.address(10));
    let case = site.case(spec);
    let said = run::<VipKeepalive>(&case, &["apply"], &[], &case.document, None).await;
    assert_eq!(said.exit, Exit::Done, "{said}");
    let names = ["lb-1", "lb-2", "lb-3"];
    // From each single holder into each combination: who is well and holds it keeps it, else one who is well takes it.
    for (n, holder) in names.iter().enumerate() {
        for combination in 0..ILLS.len().pow(3) {
            let ills = [combination % 4, combination / 4 % 4, combination / 16].map(|i| ILLS[i]);
            for (other, name) in names.iter().enumerate() {
                make(&hosts, name, if other == n { Ill::Fine } else { Ill::Stopped }).await;
            }
            assert_eq!(hosts.holders(vip), [*holder]);
            // The others come first: the holder then falls among those that are as they will be.
            let order = (0..3).filter(|i| *i != n).chain([n]);
            for i in order {
                make(&hosts, names[i], ills[i]).await;
            }
            let well: Vec<&str> = (0..3).filter(|i| ills[*i] == Ill::Fine).map(|i| names[i]).collect();
            let holders = hosts.holders(vip);
            match well.contains(holder) {
                true => assert_eq!(holders, [*holder], "{ills:?}: who holds it and is well keeps it"),
                false => {
                    assert_eq!(holders.len(), well.len().min(1), "from {holder} into {ills:?}: {holders:?}");
                    assert!(holders.iter().all(|h| well.contains(&h.as_str())), "{ills:?}: {holders:?}");
                }
            }
        }
    }
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
    let case = offline(json!({ "vip": vip, "machines": [machine(1)] }));
    let said = run::<VipKeepalive>(&case, &["render"], &[], &case.document, None).await;
    assert_eq!(said.exit, Exit::Refused, "{said}");
    assert!(said.stderr.contains("spec.machines: holds 1 machines"), "{said}");
    let case = offline(json!({ "vip": vip, "machines": [machine(1), machine(2)] }));
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
