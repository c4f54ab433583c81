//! lb-render against the lab: the seven laws, and what an operator sees.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "tests fail loudly")]

use lab::world::Machines as _;
use lab::{Action, Clock, Fault};
use laws::balancers::{offline, spec, ssh, trouble, troubles};
use laws::ssh::Site;
use laws::{Case, run};
use lb_render::LbRender;
use serde_json::{Value, json};
use stage::Exit;

async fn case() -> Case {
    let site = Site::new(Clock::ZERO).unwrap();
    let spec = spec(&site).await;
    site.case(spec)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keeps_the_seven_laws() {
    let apt = "lb-1 env DEBIAN_FRONTEND=noninteractive apt-get install";
    let apt = Fault { times: 2, ..ssh(apt, Action::Exit(100, "E: no".into())) };
    let refused = ssh("lb-2 /usr/sbin/haproxy -c", Action::Exit(1, "[ALERT] no".into()));
    let mut troubles = troubles();
    troubles.push(trouble("apt fails twice", apt, Exit::Precondition));
    troubles.push(trouble("haproxy -c refuses", refused, Exit::Precondition));
    let summary = laws::check::<LbRender>(&[], &troubles, case).await.unwrap_or_else(|e| panic!("{e}"));
    println!("{summary}");
}

/// Load balancers that serve one certificate and are to serve another; both are the same in every world.
async fn renewed() -> Case {
    use std::os::unix::fs::PermissionsExt as _;
    static PEMS: std::sync::LazyLock<[String; 2]> = std::sync::LazyLock::new(|| {
        [(); 2].map(|()| {
            let key = rcgen::KeyPair::generate().unwrap();
            let names = vec!["site.example".to_owned()];
            let made = rcgen::CertificateParams::new(names).unwrap().self_signed(&key).unwrap();
            made.pem() + &key.serialize_pem()
        })
    });
    let site = Site::new(Clock::ZERO).unwrap();
    let mut spec = spec(&site).await;
    for (name, pem) in ["old.pem", "new.pem"].iter().zip(PEMS.iter()) {
        std::fs::write(site.dir.join(name), pem).unwrap();
        std::fs::set_permissions(site.dir.join(name), std::fs::Permissions::from_mode(0o600)).unwrap();
    }
    spec["loadBalancer"] = json!({ "mode": "terminate", "certificates": ["old.pem"] });
    let mut case = site.case(spec);
    let said = run::<LbRender>(&case, &["apply"], &[], &case.document, None).await;
    assert_eq!(said.exit, Exit::Done, "{said}");
    case.document = case.document.replace("old.pem", "new.pem");
    let key = PEMS[1].lines().skip_while(|line| !line.contains("PRIVATE KEY")).nth(1);
    case.secrets.extend(key.map(str::to_owned));
    case
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keeps_the_seven_laws_while_a_certificate_changes() {
    let refused = ssh("lb-2 /usr/sbin/haproxy -c", Action::Exit(1, "[ALERT] no".into()));
    let refused = trouble("haproxy -c refuses", refused, Exit::Precondition);
    let lost = trouble(
        "cut after it was cleared",
        ssh("lb-1 lb-render-tidy v1", Action::DropAfter),
        Exit::Transient,
    );
    let summary =
        laws::check::<LbRender>(&[], &[refused, lost], renewed).await.unwrap_or_else(|e| panic!("{e}"));
    println!("{summary}");
    let case = renewed().await;
    assert!((case.picture)().contains("/certs/old.pem"), "it begins with the old one");
    let said = run::<LbRender>(&case, &["apply"], &[], &case.document, None).await;
    assert_eq!(said.exit, Exit::Done, "{said}");
    let picture = (case.picture)();
    assert_eq!(picture.matches("/certs/new.pem 600 root:root").count(), 3, "{picture}");
    assert!(!picture.contains("/certs/old.pem"), "{picture}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_configuration_touches_nothing_live() {
    let case = case().await;
    let first = run::<LbRender>(&case, &["apply"], &[], &case.document, None).await;
    assert_eq!(first.exit, Exit::Done, "{first}");
    let before = (case.picture)();
    let other = case.document.replace("\"http\": 7080", "\"http\": 7081");
    case.faults.inject(ssh(
        "lb-3 /usr/sbin/haproxy -c",
        Action::Exit(1, "[ALERT] config : words of HAProxy".into()),
    ));
    let said = run::<LbRender>(&case, &["apply"], &[], &other, None).await;
    assert_eq!(said.exit, Exit::Precondition, "{said}");
    assert!(
        said.stderr.contains("words of HAProxy") && said.stderr.contains("nothing live was touched"),
        "{said}"
    );
    assert!(said.stdout.is_empty(), "{said}");
    assert_eq!(before, (case.picture)(), "files and what runs are as before, on all three");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_reload_puts_the_old_file_back() {
    let case = case().await;
    let first = run::<LbRender>(&case, &["apply"], &[], &case.document, None).await;
    assert_eq!(first.exit, Exit::Done, "{first}");
    let other = case.document.replace("\"http\": 7080", "\"http\": 7081");
    let fault =
        ssh("lb-1 systemctl reload-or-restart", Action::Exit(1, "Job for haproxy.service failed.".into()));
    case.faults.inject(fault);
    let said = run::<LbRender>(&case, &["apply"], &[], &other, None).await;
    assert_eq!(said.exit, Exit::Precondition, "{said}");
    assert!(said.stderr.contains("the old one was put back"), "{said}");
    assert!(said.stdout.is_empty());
    let picture = (case.picture)();
    assert_eq!(picture.matches("bind *:7080").count(), 3, "the old file is live everywhere");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_machine_is_held_and_a_foreign_file_kept() {
    let site = Site::new(Clock::ZERO).unwrap();
    let spec = spec(&site).await;
    let (hosts, dead) = (site.hosts.clone(), site.hosts.find("lb-3").unwrap().vmid);
    hosts.power_off(dead);
    let case = site.case(spec);
    let said = run::<LbRender>(&case, &["apply"], &[], &case.document, None).await;
    assert_eq!(said.exit, Exit::Partial, "{said}");
    let document: Value = serde_json::from_str(&said.stdout).unwrap();
    assert_eq!(document["status"]["lb-render"]["held"][0]["what"], "lb-3");
    assert_eq!(document["status"]["lb-render"]["machines"].as_array().unwrap().len(), 2);

    // Somebody's own file: held, and not touched.
    hosts.find("lb-1").unwrap().machine().fs.put(
        "/etc/haproxy/haproxy.cfg",
        "# mine\n",
        0o644,
        "root",
        "root",
    );
    let said = run::<LbRender>(&case, &["apply"], &[], &case.document, None).await;
    assert_eq!(said.exit, Exit::Precondition, "{said}");
    assert_eq!(hosts.find("lb-1").unwrap().machine().fs.text("/etc/haproxy/haproxy.cfg"), "# mine\n");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn check_names_what_is_down_and_destroy_removes_what_is_ours() {
    let case = case().await;
    let first = run::<LbRender>(&case, &["apply"], &[], &case.document, None).await;
    assert_eq!(first.exit, Exit::Done, "{first}");
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
    loop {
        let said = run::<LbRender>(&case, &["check"], &[], &case.document, None).await;
        assert_eq!(said.exit, Exit::Differs, "{said}");
        if said.stdout.contains("cp-2: api is down as seen by lb-1 (L4CON), lb-2 (L4CON), lb-3 (L4CON)") {
            break;
        }
        assert!(std::time::Instant::now() < deadline, "{said}");
    }
    let gone = run::<LbRender>(&case, &["destroy", "--yes"], &[], &first.stdout, None).await;
    assert_eq!(gone.exit, Exit::Done, "{gone}");
    assert!(!gone.stdout.contains("lb-render"), "{gone}");
    let picture = (case.picture)();
    assert!(
        !picture.contains("kubeline (lb-render)") && !picture.contains("unit haproxy is active"),
        "{picture}"
    );
    let again = run::<LbRender>(&case, &["destroy", "--yes"], &[], &gone.stdout, None).await;
    assert_eq!(again.exit, Exit::Done, "{again}");
    assert!(again.done.is_empty());
}

#[tokio::test]
async fn renders_without_ssh_and_refuses_to_apply() {
    let case = offline(json!({
        "vip": { "address": "192.0.2.10", "routerId": 7 },
        "machines": [
            { "name": "a", "role": "load-balancer", "address": "192.0.2.11" },
            { "name": "k", "role": "control-plane", "address": "192.0.2.21" },
        ],
    }));
    let said = run::<LbRender>(&case, &["render"], &[], &case.document, None).await;
    assert_eq!(said.exit, Exit::Done, "{said}");
    assert!(said.stdout.contains("server k 192.0.2.21:6443 check check-ssl verify none\n"), "{said}");
    assert!(!said.stdout.contains("frontend https"), "{said}");
    let said = run::<LbRender>(&case, &["apply"], &[], &case.document, None).await;
    assert_eq!(said.exit, Exit::Refused, "{said}");
    assert!(said.stderr.contains("spec.ssh: is missing"), "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_that_comes_to_be_is_verified() {
    use base64::Engine as _;
    use std::os::unix::fs::PermissionsExt as _;
    let case = case().await;
    let first = run::<LbRender>(&case, &["apply"], &[], &case.document, None).await;
    assert_eq!(first.exit, Exit::Done, "{first}");
    let key = rcgen::KeyPair::generate().unwrap();
    let ca =
        rcgen::CertificateParams::new(vec!["kubernetes".into()]).unwrap().self_signed(&key).unwrap().pem();
    let data = base64::engine::general_purpose::STANDARD.encode(&ca);
    let text = format!("clusters:\n- name: k\n  cluster:\n    certificate-authority-data: {data}\n");
    let file = case.dir.join("kubeconfig");
    std::fs::write(&file, text).unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).unwrap();
    let said = run::<LbRender>(&case, &["plan"], &[], &first.stdout, None).await;
    assert_eq!(said.exit, Exit::Precondition, "a kubeconfig that others can read: {said}");
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
    let said = run::<LbRender>(&case, &["apply"], &[], &first.stdout, None).await;
    assert_eq!(said.exit, Exit::Done, "{said}");
    assert_eq!(said.done.len(), 6, "tested and loaded on each of three: {:?}", said.done);
    let picture = (case.picture)();
    assert_eq!(picture.matches("verify required ca-file /etc/haproxy/kubeline/").count(), 9);
    assert_eq!(picture.matches(ca.as_str()).count(), 3);
    let document: Value = serde_json::from_str(&said.stdout).unwrap();
    assert_eq!(document["status"]["lb-render"]["apiVerified"], true);

    // A file that is there and cannot be read must not switch verification off.
    std::fs::write(&file, "clusters: []\n").unwrap();
    let said = run::<LbRender>(&case, &["apply"], &[], &said.stdout, None).await;
    assert_eq!(said.exit, Exit::Precondition, "{said}");
    std::fs::remove_file(&file).unwrap();
    let said = run::<LbRender>(&case, &["apply"], &[], &case.document, None).await;
    assert_eq!(said.exit, Exit::Done, "{said}");
    assert!(!(case.picture)().contains("/etc/haproxy/kubeline/"));
}

#[tokio::test]
async fn refuses_listeners_that_lead_nowhere() {
    let case = |listener: Value| {
        offline(json!({
            "vip": { "address": "192.0.2.10", "routerId": 7 },
            "machines": [
                { "name": "a", "role": "load-balancer", "address": "192.0.2.11" },
                { "name": "k", "role": "control-plane", "address": "192.0.2.21" },
            ],
            "loadBalancer": { "listeners": [listener] },
        }))
    };
    for (listener, why) in [
        (
            json!({ "name": "x", "port": 25 }),
            "listeners[0]: chooses no machines; write role, labels, or both",
        ),
        (
            json!({ "name": "x", "port": 25, "role": "nfs" }),
            "listeners[0]: chooses no machine of the document",
        ),
        (
            json!({ "name": "x", "port": 25, "role": "control-plane", "checkPath": "/a bind" }),
            "listeners[0].checkPath: is no path",
        ),
        (
            json!({ "name": "x", "port": 6443, "role": "control-plane" }),
            "listeners[0].port: port 6443 belongs to spec.vip.ports.api already",
        ),
    ] {
        let case = case(listener);
        let said = run::<LbRender>(&case, &["render"], &[], &case.document, None).await;
        assert_eq!(said.exit, Exit::Refused, "{said}");
        assert!(said.stderr.contains(why) && said.stdout.is_empty(), "{why}: {said}");
    }
}
