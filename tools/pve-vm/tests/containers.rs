//! Load balancers as containers, built in the lab.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test that cannot go on ends, and tells its figures"
)]

mod support;

use lab::{Action, Fault, Window};
use serde_json::{Value, json};
use stage::Exit;
use support::{Site, site};

const ARCHIVE: &str = "https://mirror.lab.example/images/system/debian-13-standard_13.1-2_amd64.tar.zst";

/// Two containers, and a virtual machine beside them.
fn document(site: &Site) -> Value {
    let mut doc = site.small();
    doc["spec"]["pools"][0]["kind"] = json!("lxc");
    doc["spec"]["proxmox"]["containerTemplate"] =
        json!({ "url": ARCHIVE, "checksum": format!("sha512:{}", "ab".repeat(64)), "storage": "local" });
    doc["spec"]["pools"].as_array_mut().unwrap().truncate(2);
    doc
}

/// Containers alone.
fn containers(site: &Site) -> Value {
    let mut doc = document(site);
    doc["spec"]["pools"].as_array_mut().unwrap().truncate(1);
    doc
}

fn pve(matching: &str, action: Action) -> Fault {
    Fault { window: Window::Pve, matching: matching.into(), skip: 0, times: 1, action }
}

fn config(site: &Site, name: &str) -> std::collections::BTreeMap<String, String> {
    site.guests().into_iter().find(|g| g.name == name).unwrap().config
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn made_kept_and_gone() {
    let site = site().await;
    let doc = document(&site);
    let first = site.run(&[], &doc).await;
    let machines = first.machines(Exit::Done);
    let kinds: Vec<&Value> = machines.iter().map(|m| &m["kind"]).collect();
    assert_eq!(kinds, [&json!("lxc"), &json!("lxc"), &Value::Null]);
    for machine in &machines {
        let name = machine["name"].as_str().unwrap();
        assert_eq!(machine["hostKeys"][0], site.lab.hosts.host_key(name).unwrap().as_str(), "{name}");
        assert_eq!(machine["reachable"], true, "{name}");
        assert!(machine["macs"]["net0"].as_str().unwrap().starts_with("BC:24:11"), "{machine}");
    }
    assert_ne!(machines[0]["node"], machines[1]["node"], "a hard pool keeps apart");
    let made = config(&site, "demo-lb-1");
    assert_eq!((made["unprivileged"].as_str(), made["features"].as_str()), ("1", "nesting=1"));
    assert_eq!(made["tags"], "demo;load-balancer;pve-vm");
    assert!(made["rootfs"].ends_with("size=8G"), "{made:?}");

    let mark = site.lab.world.journal.len();
    let second = site.run_until(&[], &first.stdout, None).await;
    assert_eq!((second.exit, &second.stdout), (Exit::Done, &first.stdout), "{}", second.stderr);
    let check = site.run_until(&["check"], &first.stdout, None).await;
    assert_eq!(check.exit, Exit::Done, "{}", check.stdout);
    assert_eq!(site.changes(mark), Vec::<String>::new());
    let table = site.run_until(&["inventory"], &first.stdout, None).await.stdout;
    assert!(table.lines().nth(1).unwrap().contains("  lxc "), "{table}");
    let ssh = site.run_until(&["inventory", "--format", "ssh-config"], &first.stdout, None).await.stdout;
    assert!(ssh.contains("User root") && ssh.contains("User kubeline"), "{ssh}");

    // Processors, memory and disk grow while it runs; a name server waits for a restart.
    let mut grown = doc.clone();
    for (field, value) in [("cores", json!(2)), ("memory", json!("2Gi")), ("disk", json!("12Gi"))] {
        grown["spec"]["pools"][0][field] = value;
    }
    grown["spec"]["network"]["nameservers"] = json!(["10.30.0.53"]);
    let run = site.run(&[], &grown).await;
    assert_eq!(run.exit, Exit::Done, "{}", run.stderr);
    assert!(run.stdout.contains("changes of nameserver wait for a restart"), "{}", run.stdout);
    let now = config(&site, "demo-lb-1");
    assert_eq!((now["cores"].as_str(), now["memory"].as_str()), ("2", "2048"));
    assert!(now["rootfs"].ends_with("size=12G"), "{now:?}");
    let restarted = site.run(&["--restart"], &grown).await;
    assert_eq!(restarted.exit, Exit::Done, "{}", restarted.stderr);
    assert_eq!(config(&site, "demo-lb-1")["nameserver"], "10.30.0.53");
    let plan = site.run(&["plan"], &grown).await;
    assert!(!plan.stdout.contains("demo-lb-") || plan.stdout.contains("nothing to do"), "{}", plan.stdout);

    let taken = site.run(&["snapshot", "lb", "before"], &grown).await;
    assert_eq!(taken.exit, Exit::Done, "{}", taken.stderr);
    let back = site.run(&["rollback", "lb", "before", "--yes"], &grown).await;
    assert_eq!(back.exit, Exit::Done, "{}", back.stderr);
    let again = site.run(&[], &grown).await.machines(Exit::Done);
    assert!(again.iter().all(|m| m["reachable"] == true), "{again:?}");

    let before = site.lab.hosts.host_key("demo-lb-1").unwrap();
    let anew = site.run(&["replace", "demo-lb-1", "--yes"], &grown).await;
    assert_eq!(anew.exit, Exit::Done, "{}", anew.stderr);
    assert_ne!(site.lab.hosts.host_key("demo-lb-1").unwrap(), before);

    let gone = site.run(&["destroy", "--yes"], &grown).await;
    assert_eq!((gone.exit, site.guests().len()), (Exit::Done, 0), "{}", gone.stderr);
    site.nothing_unknown();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_after_each_step() {
    let site = site().await;
    let doc = containers(&site);
    let base = site.world();
    site.run(&[], &doc).await.doc(Exit::Done);
    let whole = site.world();
    site.run(&["destroy", "--yes"], &doc).await;
    // The archive stays: others may be made of it.
    let empty = site.world();
    assert_eq!(base["guests"], empty["guests"]);
    let mut k = 1;
    loop {
        let killed = site.run_until(&[], &doc.to_string(), Some(k)).await;
        let again = site.run(&[], &doc).await;
        assert_eq!(again.exit, Exit::Done, "k = {k}: {}", again.stderr);
        assert_eq!(site.world(), whole, "k = {k}");
        let mark = site.lab.world.journal.len();
        let third = site.run(&[], &doc).await;
        assert_eq!((third.exit, &third.stdout), (Exit::Done, &again.stdout), "k = {k}");
        assert_eq!(site.changes(mark), Vec::<String>::new(), "k = {k}");
        let gone = site.run(&["destroy", "--yes"], &doc).await;
        assert_eq!(gone.exit, Exit::Done, "k = {k}: {}", gone.stderr);
        assert_eq!(site.world(), empty, "k = {k}");
        if !killed.crashed {
            break;
        }
        k += 1;
    }
    assert!(k > 6, "a container takes more steps than that");
    println!("containers: {} boundaries, {} converged", k - 1, k - 1);
    site.nothing_unknown();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_that_nobody_vouches_for_is_refused() {
    let site = site().await;
    let doc = containers(&site);
    // The task that made it is gone, and with it the log that tells the key.
    site.lab.world.faults.inject(pve("POST /nodes/pve1/lxc", Action::TaskEndAfter("VANISH".into())));
    let run = site.run(&[], &doc).await;
    assert_eq!(run.exit, Exit::Precondition, "{}", run.stderr);
    for told in ["tells no SSH host key", "pct exec 300", "--accept-new-host-keys"] {
        assert!(run.stderr.contains(told), "{told}: {}", run.stderr);
    }
    let key = site.lab.hosts.host_key("demo-lb-1").unwrap();
    assert!(!config(&site, "demo-lb-1")["description"].contains(&key), "its key is not believed");
    let again = site.run(&[], &doc).await;
    assert_eq!(again.exit, Exit::Precondition, "{}", again.stderr);

    // The operator vouches for it.
    let mut vouched = doc.clone();
    vouched["spec"]["ssh"]["knownHostsFile"] = json!(site.dir.path().join("known_hosts"));
    let port = vouched["spec"]["ssh"]["port"].as_u64().unwrap();
    let address = site.lab.world.net.host(11);
    std::fs::write(site.dir.path().join("known_hosts"), format!("[{address}]:{port} {key}\n")).unwrap();
    let machines = site.run(&[], &vouched).await.machines(Exit::Done);
    assert_eq!(machines[0]["hostKeys"][0], key.as_str());
    let plan = site.run(&["plan"], &doc).await;
    assert_eq!(plan.stdout, "pve-vm: nothing to do\n", "the mark knows it now");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_machine_at_its_address_is_not_believed() {
    let site = site().await;
    let doc = containers(&site);
    // Killed before it answers for the first time; then somebody else sits at the address.
    let mut k = 1;
    while !site.guests().iter().any(|g| g.config["description"].contains("SHA256:")) {
        site.run_until(&[], &doc.to_string(), Some(k)).await;
        k += 1;
    }
    let guest = site.guests().into_iter().find(|g| g.config["description"].contains("SHA256:")).unwrap();
    assert!(!guest.running, "killed before its start");
    site.lab.hosts.add(lab::world::Boot {
        name: "somebody".into(),
        address: guest.config["net0"].split("ip=").nth(1).and_then(|ip| ip.split('/').next()?.parse().ok()),
        user: "root".into(),
        container: true,
        ..lab::world::Boot::default()
    });
    let run = site.run(&[], &doc).await;
    assert_eq!(run.exit, Exit::Precondition, "{}", run.stderr);
    assert!(run.stderr.contains("SHA256:"), "{}", run.stderr);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_archive_that_is_there_will_do_and_one_that_is_not_is_told() {
    let site = site().await;
    let mut doc = containers(&site);
    doc["spec"]["proxmox"]["containerTemplate"] = json!({ "volume": "local:vztmpl/debian-13.tar.zst" });
    let run = site.run(&[], &doc).await;
    assert_eq!((run.exit, site.changes(0).len()), (Exit::Precondition, 0), "{}", run.stderr);
    assert!(run.stderr.contains("pveam download local debian-13.tar.zst"), "{}", run.stderr);
    for node in site.lab.pve.nodes() {
        site.lab.pve.add_archive("local", "debian-13.tar.zst", &node);
    }
    assert_eq!(site.run(&[], &doc).await.machines(Exit::Done).len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_virtual_machine_does_not_become_a_container_unasked() {
    let site = site().await;
    let doc = document(&site);
    let mut before = doc.clone();
    before["spec"]["pools"][0]["kind"] = json!("vm");
    site.run(&[], &before).await.doc(Exit::Done);
    let held = site.run(&[], &doc).await;
    assert_eq!(held.exit, Exit::Precondition, "{}", held.stderr);
    assert!(held.stderr.contains("pve-vm replace demo-lb-1"), "{}", held.stderr);
    for name in ["demo-lb-1", "demo-lb-2"] {
        let anew = site.run(&["replace", name, "--yes"], &doc).await;
        assert_eq!(anew.exit, Exit::Done, "{}", anew.stderr);
    }
    let machines = site.run(&[], &doc).await.machines(Exit::Done);
    assert!(machines[..2].iter().all(|m| m["kind"] == "lxc" && m["reachable"] == true), "{machines:?}");
}
