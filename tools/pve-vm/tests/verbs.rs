//! The tool's own verbs, against the lab.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test that cannot go on ends, and tells its figures"
)]

mod support;

use lab::pve::Acl;
use serde_json::json;
use stage::Exit;
use support::{Site, site, site_of};

/// The access rules that `pveum` lines would make.
fn rules(lines: &str) -> Vec<Acl> {
    let mut roles = std::collections::BTreeMap::new();
    let mut all = Vec::new();
    for line in lines.lines().filter(|l| !l.starts_with('#')) {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.as_slice() {
            ["pveum", "role", "add", role, "--privs", ..] => {
                let privileges = line.split('\'').nth(1).unwrap();
                roles.insert((*role).to_owned(), privileges.to_owned());
            }
            ["pveum", "acl", "modify", path, .., "--roles", role] => {
                let privileges = &roles[*role];
                let here = line.contains("--propagate 0");
                all.push(if here { Acl::here(path, privileges) } else { Acl::new(path, privileges) });
            }
            _ => panic!("no line of pveum: {line}"),
        }
    }
    all
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_printed_role_is_enough_and_no_more_is_asked() {
    for (release, generation) in [("8", lab::pve::Generation::V8), ("9", lab::pve::Generation::V9)] {
        let first = site().await;
        // Containers and the HA manager need more.
        let all = |doc: &mut serde_json::Value| {
            doc["spec"]["pools"][0]["kind"] = json!("lxc");
            doc["spec"]["proxmox"]["storage"] = json!("shared");
            doc["spec"]["proxmox"]["ha"] = json!({});
            doc["spec"]["proxmox"]["containerTemplate"] = json!({
                "url": "https://mirror.lab.example/debian-13-standard_13.1-2_amd64.tar.zst",
                "checksum": format!("sha512:{}", "cd".repeat(64)), "storage": "local" });
        };
        let mut doc = first.whole();
        all(&mut doc);
        let said = first.run(&["role", "--release", release], &doc).await;
        assert_eq!((said.exit, first.changes(0).len()), (Exit::Done, 0), "{}", said.stderr);
        assert!(first.lab.world.journal.is_empty(), "nobody is asked");
        let rules = rules(&said.stdout);
        let site = site_of(|config| {
            config.generation = generation;
            config.rights = Some(rules);
            config.shared = Some("shared".into());
        })
        .await;
        let mut doc = site.small();
        all(&mut doc);
        // Templates of its own, in a pool of its own: nothing is there beforehand.
        doc["spec"]["proxmox"]["template"] = json!({ "name": "made-here", "image": {
            "url": "https://cloud.example/images/debian.qcow2", "checksum": format!("sha512:{}", "ab".repeat(64)),
            "storage": "local" } });
        let built = site.run(&[], &doc).await;
        assert_eq!(built.machines(Exit::Done).len(), 4, "{release}");
        let taken = site.run(&["snapshot", "lb", "before"], &doc).await;
        assert_eq!(taken.exit, Exit::Done, "{}", taken.stderr);
        let gone = site.run(&["destroy", "--yes", "--templates", "--delete-data", "demo-nfs-1"], &doc).await;
        assert_eq!(gone.exit, Exit::Done, "{}", gone.stderr);
        let left: Vec<String> = site.lab.pve.view().into_iter().map(|g| g.name).collect();
        assert!(left.iter().all(|name| name == "debian-13-cloud"), "{left:?}");
        site.nothing_unknown();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_inventory_speaks_every_form() {
    let site = site().await;
    let built = site.run(&[], &site.small()).await.stdout;
    let tell = async |form: &str| {
        let said = site.run_until(&["inventory", "--format", form], &built, None).await;
        assert_eq!(said.exit, Exit::Done, "{}", said.stderr);
        said.stdout
    };
    let address = site.lab.world.net.host(11).to_string();
    let table = tell("table").await;
    assert!(table.starts_with("NAME  "), "{table}");
    assert!(
        table
            .lines()
            .any(|l| l.starts_with("demo-lb-1 ") && l.contains(&address) && l.contains("pve1  3000"))
    );
    assert!(tell("hosts").await.contains(&format!("{address} demo-lb-1.lab.example demo-lb-1\n")));
    let config = tell("ssh-config").await;
    assert!(
        config.contains(&format!("Host demo-lb-1\n  HostName {address}\n  User kubeline\n  Port 2222\n")),
        "{config}"
    );
    let known = tell("known-hosts").await;
    let key = site.lab.hosts.host_key("demo-lb-1").unwrap();
    assert!(known.contains(&format!("demo-lb-1,[{address}]:2222 {key}\n")), "{known}");
    let ansible = tell("ansible").await;
    assert!(ansible.contains("    role_load_balancer:\n      hosts:\n        demo-lb-1: {}\n"), "{ansible}");
    let mermaid = tell("mermaid").await;
    assert!(mermaid.starts_with("flowchart TB\n  subgraph n0[\"pve1\"]\n    demo_lb_1["), "{mermaid}");
    assert!(tell("dot").await.contains("\"demo-lb-1\" [label=\"demo-lb-1\\n"));
}

async fn machine(site: &Site, name: &str) -> lab::pve::GuestView {
    site.guests().into_iter().find(|g| g.name == name).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_machine_is_made_anew() {
    let site = site().await;
    let doc = site.small();
    site.run(&[], &doc).await.doc(Exit::Done);
    let world = site.world();
    let args = ["replace", "demo-lb-2", "--yes"];
    let mut k = 1;
    loop {
        let before = site.lab.hosts.host_key("demo-lb-2").unwrap();
        let killed = site.run_until(&args, &doc.to_string(), Some(k)).await;
        let mark = site.lab.world.journal.len();
        let again = site.run(&args, &doc).await;
        assert_eq!(again.exit, Exit::Done, "k = {k}: {}", again.stderr);
        assert_eq!(site.world(), world, "k = {k}: same name, id, node and address");
        assert_ne!(site.lab.hosts.host_key("demo-lb-2").unwrap(), before, "k = {k}");
        assert!(site.changes(mark).iter().all(|c| !c.contains("/qemu/3000/")), "no other is touched");
        if !killed.crashed {
            break;
        }
        k += 1;
    }
    println!("replace: {} boundaries, {} converged", k - 1, k - 1);
    let nobody = site.run(&["replace", "demo-lb-9", "--yes"], &doc).await;
    assert_eq!(nobody.exit, Exit::Refused, "{}", nobody.stderr);
    assert_eq!(site.run(&["plan"], &doc).await.stdout, "pve-vm: nothing to do\n");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_machine_made_anew_keeps_its_data_disks() {
    let site = site().await;
    let doc = site.small();
    site.run(&[], &doc).await.doc(Exit::Done);
    let data = |g: &lab::pve::GuestView| (g.vmid, g.node.clone(), g.config["scsi1"].clone());
    let nfs = machine(&site, "demo-nfs-1").await;
    let (kept, before) = (data(&nfs), site.world());
    let volume = nfs.config["scsi1"].split(',').next().unwrap().to_owned();
    let args = ["replace", "demo-nfs-1", "--yes"];
    let mut k = 1;
    loop {
        let key = site.lab.hosts.host_key("demo-nfs-1").unwrap();
        let killed = site.run_until(&args, &doc.to_string(), Some(k)).await;
        assert_eq!(data(&machine(&site, "demo-nfs-1").await), kept, "k = {k}: never gone, never elsewhere");
        // Killed anywhere, nobody destroys it with its data.
        let held = site.run(&["destroy", "--plan"], &doc).await;
        assert!(held.stdout.contains("--delete-data demo-nfs-1"), "k = {k}: {}", held.stdout);
        // Either the same again, or a plain run, brings it to its end.
        let again = if k % 2 == 0 { site.run(&args, &doc).await } else { site.run(&[], &doc).await };
        assert_eq!(again.exit, Exit::Done, "k = {k}: {}", again.stderr);
        assert_eq!(data(&machine(&site, "demo-nfs-1").await), kept, "k = {k}");
        assert_eq!(site.world(), before, "k = {k}: the same world, and no volume too many");
        if k > 1 || !killed.crashed {
            assert_ne!(site.lab.hosts.host_key("demo-nfs-1").unwrap(), key, "k = {k}");
        }
        if !killed.crashed {
            break;
        }
        k += 1;
    }
    println!("replace with a data disk: {} boundaries, {} converged", k - 1, k - 1);
    assert_eq!(site.lab.pve.volumes(&kept.1).iter().filter(|v| **v == volume).count(), 1);
    assert_eq!(site.run(&["plan"], &doc).await.stdout, "pve-vm: nothing to do\n");
    site.nothing_unknown();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn snapshots_of_a_pool() {
    let site = site().await;
    let doc = site.small();
    site.run(&[], &doc).await.doc(Exit::Done);
    let taken = site.run(&["snapshot", "lb", "before-upgrade"], &doc).await;
    assert_eq!(
        taken.stdout, "the snapshot before-upgrade is taken of demo-lb-1, demo-lb-2\n",
        "{}",
        taken.stderr
    );
    let listed = site.run(&["snapshots"], &doc).await;
    assert!(
        listed.stdout.starts_with("demo-lb-1: before-upgrade\ndemo-lb-2: before-upgrade\ndemo-nfs-1: none\n"),
        "{}{}",
        listed.stdout,
        listed.stderr
    );
    let back = site.run(&["rollback", "lb", "before-upgrade", "--yes"], &doc).await;
    assert_eq!(back.exit, Exit::Done, "{}", back.stderr);
    assert!(machine(&site, "demo-lb-1").await.running);
    let none = site.run(&["rollback", "prod", "before-upgrade", "--yes"], &doc).await;
    assert_eq!(none.exit, Exit::Precondition, "{}", none.stderr);
    let asked = site.run(&["rollback", "lb", "before-upgrade"], &doc).await;
    assert_eq!(asked.exit, Exit::Precondition, "{}", asked.stderr);
    assert_eq!(site.run(&["snapshot", "lb", "current"], &doc).await.exit, Exit::Usage);
    assert_eq!(site.run(&["snapshots", "moon"], &doc).await.exit, Exit::Refused);
    let after = site.run(&[], &doc).await;
    assert!(after.machines(Exit::Done).iter().all(|m| m["reachable"] == true), "no address is lost");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_somebody_moved_is_proposed_to_go_back() {
    let site = site().await;
    let doc = site.whole();
    site.run(&[], &doc).await.doc(Exit::Done);
    let even = site.run(&["rebalance"], &doc).await;
    assert_eq!(even.stdout, "pve-vm: the machines are spread evenly\n", "{}", even.stderr);
    let cp = machine(&site, "demo-cp-1").await;
    site.lab.pve.moved(cp.vmid, "pve2");
    let check = site.run(&["check"], &doc).await;
    assert_eq!(check.exit, Exit::Differs, "{}", check.stdout);
    let said = site.run(&["rebalance"], &doc).await;
    assert_eq!(said.stdout.lines().count(), 2, "{}", said.stdout);
    assert!(
        said.stdout.contains("ssh root@pve2 qm migrate 300") && said.stdout.contains(" pve1 --online"),
        "{}",
        said.stdout
    );
}
