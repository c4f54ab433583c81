//! Start order and protection, against the lab.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on ends")]

mod support;

use lab::pve::{Generation, GuestView, ProxmoxConfig};
use serde_json::{Value, json};
use stage::Exit;
use support::{Site, site, site_of};

fn machine(site: &Site, name: &str) -> GuestView {
    site.guests().into_iter().find(|g| g.name == name).unwrap()
}

fn option(site: &Site, name: &str, option: &str) -> Option<String> {
    machine(site, name).config.get(option).cloned()
}

/// Two load balancers that are containers, and an NFS server with a data disk.
fn mixed(site: &Site) -> Value {
    let mut doc = site.small();
    doc["spec"]["pools"].as_array_mut().unwrap().retain(|p| p["name"] != "prod");
    doc["spec"]["pools"][0]["kind"] = json!("lxc");
    doc["spec"]["proxmox"]["containerTemplate"] = json!({
        "url": "https://mirror.lab.example/debian-13-standard_13.1-2_amd64.tar.zst",
        "checksum": format!("sha512:{}", "ab".repeat(64)), "storage": "local" });
    doc
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn set_compared_and_kept() {
    let site = site().await;
    let mut doc = mixed(&site);
    site.run(&[], &doc).await.doc(Exit::Done);
    let is = |name: &str| (option(&site, name, "startup"), option(&site, name, "protection"));
    let said =
        |order: &str, protection: Option<&str>| (Some(order.to_owned()), protection.map(str::to_owned));
    assert_eq!(is("demo-nfs-1"), said("order=1,up=30", Some("1")));
    assert_eq!(is("demo-lb-1"), said("order=3", None));

    // What a person sets stays where the document says nothing; data disks are protected again.
    let (lb, nfs) = (machine(&site, "demo-lb-1").vmid, machine(&site, "demo-nfs-1").vmid);
    site.lab.pve.set_by_root(lb, "startup", Some("order=9"));
    site.lab.pve.set_by_root(lb, "protection", Some("1"));
    site.lab.pve.set_by_root(nfs, "startup", Some("up=30,order=1"));
    site.lab.pve.set_by_root(nfs, "protection", Some("0"));
    let check = site.run(&["check"], &doc).await;
    assert_eq!(check.exit, Exit::Differs, "{}", check.stdout);
    assert!(check.stdout.contains("it is not protected"), "{}", check.stdout);
    let mark = site.lab.world.journal.len();
    site.run(&[], &doc).await.doc(Exit::Done);
    assert_eq!(
        site.changes(mark),
        [format!("POST /nodes/{}/qemu/{nfs}/config", machine(&site, "demo-nfs-1").node)]
    );
    assert_eq!(is("demo-lb-1"), said("order=9", Some("1")));
    assert_eq!(is("demo-nfs-1"), said("up=30,order=1", Some("1")), "another form of the same is the same");

    // What the document says in so many words is so, of machines and containers, without a restart.
    doc["spec"]["pools"][0]["startup"] = json!({ "order": 7, "downSeconds": 60 });
    doc["spec"]["pools"][0]["protection"] = json!(false);
    doc["spec"]["pools"][1]["startup"] = json!({ "order": 2 });
    let run = site.run(&[], &doc).await.doc(Exit::Done);
    assert_eq!(run["status"]["pve-vm"]["held"], json!(null));
    assert_eq!(is("demo-lb-1"), said("order=7,down=60", Some("0")));
    assert_eq!(is("demo-nfs-1"), said("order=2", Some("1")));
    assert_eq!(site.run(&["plan"], &doc).await.stdout, "pve-vm: nothing to do\n");
    site.nothing_unknown();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_protected_machine_goes_only_when_it_is_named() {
    let site = site().await;
    let mut doc = mixed(&site);
    doc["spec"]["pools"][0]["protection"] = json!(true);
    site.run(&[], &doc).await.doc(Exit::Done);
    let names = || site.guests().into_iter().map(|g| g.name).collect::<Vec<_>>();
    let nobody = site.run(&["destroy", "--yes"], &doc).await;
    assert_eq!(nobody.exit, Exit::Precondition, "{}", nobody.stderr);
    assert!(nobody.stderr.contains("the document protects it"), "{}", nobody.stderr);
    assert_eq!(names().len(), 3);
    assert!(site.guests().iter().all(|g| g.config.get("protection").is_some_and(|p| p == "1")));

    // One that is named is made anew, or deleted; killed after each step, another run ends it.
    let replaced = site.run(&["replace", "demo-lb-1", "--yes"], &doc).await;
    assert_eq!(replaced.exit, Exit::Done, "{}", replaced.stderr);
    assert_eq!(option(&site, "demo-lb-1", "protection").as_deref(), Some("1"));
    let args = ["destroy", "--yes", "--delete-data", "demo-lb-1", "--delete-data", "demo-nfs-1"];
    for k in 1.. {
        if !site.run_until(&args, &doc.to_string(), Some(k)).await.crashed {
            break;
        }
        // A run that was to delete, and was given up, leaves nothing open.
        site.run(&[], &doc).await.doc(Exit::Done);
        assert!(
            site.guests().iter().all(|g| g.config.get("protection").is_some_and(|p| p == "1")),
            "k = {k}"
        );
    }
    assert_eq!(names(), ["demo-lb-2"], "not named, not deleted");

    // What a person protects, without the document, is that person's.
    doc["spec"]["pools"][0].as_object_mut().unwrap().remove("protection");
    for args in [&["replace", "demo-lb-2", "--yes"][..], &["destroy", "--yes", "--delete-data", "demo-lb-2"]]
    {
        let held = site.run(args, &doc).await;
        assert_eq!(held.exit, Exit::Precondition, "{}", held.stderr);
        assert!(held.stderr.contains("somebody switched its protection on"), "{}", held.stderr);
        assert!(held.stderr.contains("pct set"), "{}", held.stderr);
    }
    assert_eq!(names(), ["demo-lb-2"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_the_privilege_the_default_is_told_and_the_wish_refused() {
    let rights = ProxmoxConfig::least_rights(Generation::V9, "k8s-prod", "local-lvm", "local");
    let site = site_of(|config| config.rights = Some(rights)).await;
    let mut doc = site.small();
    let built = site.run(&[], &doc).await.doc(Exit::Done);
    let held = &built["status"]["pve-vm"]["held"];
    assert_eq!(held.as_array().unwrap().len(), 1, "{held}");
    assert_eq!(held[0]["what"], "start order");
    assert!(held[0]["hint"].as_str().unwrap().contains("pveum acl modify / --propagate 0"), "{held}");
    assert_eq!(option(&site, "demo-nfs-1", "startup"), None);
    assert_eq!(option(&site, "demo-nfs-1", "protection").as_deref(), Some("1"));
    assert_eq!(site.run(&["check"], &doc).await.exit, Exit::Done, "nobody is told off each night");
    doc["spec"]["proxmox"]["startOrder"] = json!("none");
    assert_eq!(site.run(&[], &doc).await.doc(Exit::Done)["status"]["pve-vm"]["held"], json!(null));
    doc["spec"]["proxmox"]["startOrder"] = json!("by-role");
    let mark = site.lab.world.journal.len();
    let refused = site.run(&[], &doc).await;
    assert_eq!(refused.exit, Exit::Precondition, "{}", refused.stderr);
    assert!(refused.stderr.contains("Sys.Modify"), "{}", refused.stderr);
    assert_eq!(site.changes(mark), Vec::<String>::new());
}
