//! Certificates renewed; a cluster saved, and made again on the same machines and on new ones.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stderr,
    clippy::indexing_slicing,
    reason = "a test may fail so"
)]

mod site;

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use cluster_doc::Exit;
use lab::world::Kubernetes as _;
use laws::sweep::{Row, Table};
use serde_json::{Value, json};
use site::Site;

fn note(site: &Site, name: &str) {
    let id = site.kube.clusters().remove(0);
    site.kube.put(
        &id,
        json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": name, "namespace": "default" } }),
    );
}

fn has(site: &Site, name: &str) -> bool {
    let id = site.kube.clusters().remove(0);
    site.kube.get(&id, "v1", "ConfigMap", Some("default"), name).is_some()
}

async fn back_up(site: &Site) -> (PathBuf, PathBuf) {
    let (key, recipient) = site.identity();
    let ran = site.done(&["backup", "saved", "--recipient", &recipient], &site.document()).await;
    let file = PathBuf::from(ran.out.trim());
    (file, key)
}

fn members(site: &Site) -> Vec<String> {
    let id = site.kube.clusters().remove(0);
    let mut all: Vec<String> = site.hosts.etcd_members(&id).into_iter().map(|m| m.name).collect();
    all.sort();
    all
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_is_encrypted_and_verified() {
    let site = Site::made(1, 1, &[]).await;
    // Without a recipient nothing is taken.
    let ran = site.run(&["backup", "saved"], &site.document()).await;
    assert_eq!(ran.exit, Exit::Usage, "{}", ran.err);
    let (file, key) = back_up(&site).await;
    assert_eq!(std::fs::metadata(&file).unwrap().mode() & 0o777, 0o600);
    let sealed = std::fs::read(&file).unwrap();
    assert!(sealed.starts_with(b"age-encryption.org/v1"));
    let beside: PathBuf = file.to_str().unwrap().replace(".tar.age", ".json").into();
    let manifest: Value = serde_json::from_slice(&std::fs::read(&beside).unwrap()).unwrap();
    assert_eq!(manifest["sha256"], kadm_bootstrap::certificate::sha256(&sealed));
    assert!(manifest["snapshot"]["totalKey"].as_u64().unwrap() > 0);
    assert!(manifest["clusterConfiguration"].as_str().unwrap().contains("controlPlaneEndpoint"));
    // Nothing of it stays on the machine.
    let left = site.picture()["machines"]["cp-1"]["kubeline"].clone();
    assert_eq!(left, json!([]), "{left}");
    // A backup that was cut is refused before anything is connected.
    let cut = site.path("cut.tar.age");
    std::fs::write(&cut, &sealed[..sealed.len() / 2]).unwrap();
    std::fs::copy(&beside, site.path("cut.json")).unwrap();
    let mark = site.world.journal.len();
    let restore = |file: &Path, key: &Path| {
        ["restore", file.to_str().unwrap(), "--identity", key.to_str().unwrap(), "--yes"].map(str::to_owned)
    };
    let args = restore(&cut, &key);
    let ran = site.run(&args.each_ref().map(String::as_str), &site.document()).await;
    assert_eq!(ran.exit, Exit::Precondition, "{}", ran.err);
    assert!(ran.err.contains("cut or changed"), "{}", ran.err);
    // As is another key, and one that others can read.
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o644)).unwrap();
    let args = restore(&file, &key);
    let ran = site.run(&args.each_ref().map(String::as_str), &site.document()).await;
    assert!(ran.exit == Exit::Precondition && ran.err.contains("chmod 600"), "{}", ran.err);
    assert_eq!(site.world.journal.len(), mark);
    site.nothing_unknown();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_is_restored_on_its_own_machines() {
    let site = Site::made(3, 1, &[]).await;
    note(&site, "before");
    let (file, key) = back_up(&site).await;
    note(&site, "after");
    let args = ["restore", file.to_str().unwrap(), "--identity", key.to_str().unwrap(), "--yes"];
    let plan = site.run(&[&args[..4], &["--plan"]].concat(), &site.document()).await;
    assert!(plan.out.contains("put etcd's data on cp-2 aside"), "{}", plan.out);
    let ran = site.done(&args, &site.document()).await;
    assert!(has(&site, "before") && !has(&site, "after"));
    assert_eq!(members(&site), ["cp-1", "cp-2", "cp-3"]);
    let picture = site.picture();
    assert_eq!(picture["nodes"].as_array().unwrap().len(), 4);
    assert_eq!(picture["tokens"], 0);
    for plane in ["cp-1", "cp-2", "cp-3"] {
        let host = site.hosts.find(plane).unwrap();
        let manifest = host.machine().fs.text("/etc/kubernetes/manifests/etcd.yaml");
        assert!(manifest.contains("--initial-cluster-state=existing"), "{plane}: {manifest}");
        assert!(host.machine().fs.exists("/var/lib/kubeline/etcd-aside/snap/db"), "{plane}");
        assert!(!host.machine().fs.exists("/var/lib/kubeline/restore.tar"));
    }
    // Restored is restored: again changes nothing, and neither does apply.
    let mark = site.world.journal.len();
    let again = site.run(&args, &site.document()).await;
    assert_eq!((again.exit, &again.out), (Exit::Done, &ran.out), "{}", again.err);
    let apply = site.run(&[], &site.document()).await;
    assert_eq!(apply.exit, Exit::Done, "{}", apply.err);
    assert!(site.changes(mark).is_empty(), "{:#?}", site.changes(mark));
    site.nothing_unknown();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_is_restored_on_new_machines_with_new_addresses() {
    let old = Site::made(3, 2, &[]).await;
    note(&old, "before");
    let (file, key) = back_up(&old).await;
    let new = Site::new(3, 1).await;
    assert_ne!(old.world.net.cidr(), new.world.net.cidr());
    let args = ["restore", file.to_str().unwrap(), "--identity", key.to_str().unwrap(), "--yes"];
    // Not with a Kubernetes of another minor than the one that stored it.
    let manifest = file.to_str().unwrap().replace(".tar.age", ".json");
    let text = std::fs::read_to_string(&manifest).unwrap();
    std::fs::write(&manifest, text.replace("\"v1.36.2\"", "\"v1.35.9\"")).unwrap();
    let mark = new.world.journal.len();
    let ran = new.run(&args, &new.document()).await;
    assert_eq!(ran.exit, Exit::Precondition, "{}", ran.err);
    assert!(
        ran.err.contains("the backup is of Kubernetes v1.35.9, the document wants 1.36.2"),
        "{}",
        ran.err
    );
    assert!(new.changes(mark).is_empty());
    std::fs::write(&manifest, text).unwrap();
    // A control plane that does not answer may know the cluster from before.
    let mark = new.world.journal.len();
    new.done(&args, &new.document()).await;
    // Where kubeadm's join would look for etcd, nobody from before is left by then.
    let changes: Vec<String> =
        new.changes(mark).iter().map(|e| format!("{} {}", e.target, e.request)).collect();
    let at = |what: &str| {
        let found = changes.iter().position(|c| c.contains(what));
        found.unwrap_or_else(|| panic!("{what}: {changes:#?}"))
    };
    for name in ["cp-2", "cp-3"] {
        assert!(
            at(&format!("DELETE /api/v1/namespaces/kube-system/pods/etcd-{name}")) < at("cp-2 kubeadm join")
        );
        assert!(at(&format!("DELETE /api/v1/nodes/{name}")) < at("cp-2 kubeadm join"));
    }
    assert!(has(&new, "before"));
    assert_eq!(members(&new), ["cp-1", "cp-2", "cp-3"]);
    let nodes: Vec<Value> = new.picture()["nodes"].as_array().unwrap().clone();
    let names: Vec<&str> = nodes.iter().map(|n| n["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["cp-1", "cp-2", "cp-3", "w-1"], "the worker that is no more left");
    let apply = new.run(&[], &new.document()).await;
    assert_eq!(apply.exit, Exit::Done, "{}", apply.err);
    new.nothing_unknown();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certificates_are_renewed_one_control_plane_at_a_time() {
    let site = Site::made(3, 1, &[]).await;
    let document = site.document();
    let table = site.run(&["certs"], &document).await;
    assert_eq!(table.exit, Exit::Done, "{}", table.err);
    assert!(table.out.contains("cp-2") && table.out.contains("apiserver-etcd-client"), "{}", table.out);
    site.age_certificate("cp-1");
    site.age_certificate("cp-3");
    let check = site.run(&["check"], &document).await;
    assert!(check.out.contains("ends in 9 days") || check.out.contains("ends in 10 days"), "{}", check.out);
    assert_eq!(site.run(&["certs"], &document).await.exit, Exit::Differs);
    // Cut off in the middle: the next run goes on.
    site.world.faults.inject(lab::Fault {
        window: lab::Window::Ssh,
        matching: "cp-1 kubeadm certs renew all".into(),
        skip: 0,
        times: 1,
        action: lab::Action::DropAfter,
    });
    let ran = site.run(&["certs", "--renew", "--yes"], &document).await;
    assert_eq!(ran.exit, Exit::Transient, "{}", ran.err);
    let mark = site.world.journal.len();
    site.done(&["certs", "--renew", "--yes"], &document).await;
    let renewed: Vec<String> = site
        .changes(mark)
        .iter()
        .map(|e| format!("{} {}", e.target, e.request))
        .filter(|r| r.contains("renew all"))
        .collect();
    assert_eq!(renewed.len(), 2, "{renewed:#?}");
    assert_eq!(site.run(&["certs"], &document).await.exit, Exit::Done);
    // An authority whose key is elsewhere is not kubeadm's to renew from: it exits 0 and leaves all as it was.
    site.age_certificate("cp-2");
    let key = {
        let host = site.hosts.find("cp-2").unwrap();
        let mut machine = host.machine();
        let key = machine.fs.text("/etc/kubernetes/pki/ca.key");
        let _ = machine.fs.remove("/etc/kubernetes/pki/ca.key");
        key
    };
    let ran = site.run(&["certs", "--renew", "--yes"], &document).await;
    assert_eq!(ran.exit, Exit::Precondition, "{}", ran.err);
    assert!(ran.err.contains("an authority whose key is elsewhere"), "{}", ran.err);
    site.hosts.find("cp-2").unwrap().machine().fs.put(
        "/etc/kubernetes/pki/ca.key",
        key,
        0o600,
        "root",
        "root",
    );
    assert_eq!(site.run(&["certs", "--renew", "--yes"], &document).await.exit, Exit::Done);
    let mark = site.world.journal.len();
    let again = site.run(&["certs", "--renew", "--yes"], &document).await;
    assert_eq!(again.exit, Exit::Done, "{}", again.err);
    assert!(site.changes(mark).is_empty());
    site.nothing_unknown();
}

/// Killed after each step of a restore and run again: the same cluster.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_step_of_a_restore_may_be_the_last() {
    let all = std::env::var(laws::sweep::ALL).is_ok_and(|v| v == "all");
    let mut row = Row { what: "restore", steps: 0, kills: 0, converged: 0, broken: Vec::new() };
    let mut due = String::new();
    let mut k = 0;
    loop {
        let site = Site::made(3, 1, &[]).await;
        note(&site, "before");
        let (file, key) = back_up(&site).await;
        note(&site, "after");
        let args = ["restore", file.to_str().unwrap(), "--identity", key.to_str().unwrap(), "--yes"];
        let base = site.world.net.cidr().rsplit_once('.').unwrap().0.to_owned();
        let crash = (k > 0).then_some(k);
        let first = site.run_until(&args, &site.document(), crash).await;
        if k > 0 && !first.crashed {
            break;
        }
        let ran = if k > 0 { site.run(&args, &site.document()).await } else { first };
        let picture = format!("{:#} {:?}", site.picture(), (has(&site, "before"), has(&site, "after")));
        let picture = picture.replace(&base, "127.x.y");
        if k == 0 {
            assert_eq!(ran.exit, Exit::Done, "{}", ran.err);
            due = picture;
        } else {
            row.kills += 1;
            assert_eq!((ran.exit, &picture), (Exit::Done, &due), "killed after step {k}: {}", ran.err);
            row.converged += 1;
        }
        row.steps = row.steps.max(k);
        // An API that is down is waited for at each look: by default every third step is taken.
        k += if all || k == 0 { 1 } else { 3 };
    }
    eprintln!("{}", Table(&[row]));
}

/// A timer saves etcd on the control planes when the document asks for it, and goes when it does not any more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_timer_saves_etcd() {
    let site = Site::new(1, 1).await;
    let mut document = site.document();
    let mut nfs = document["spec"]["machines"][0].clone();
    nfs["name"] = json!("nfs-1");
    nfs["role"] = json!("nfs");
    nfs["address"] = json!(site.world.net.host(90));
    document["spec"]["machines"].as_array_mut().unwrap().push(nfs);
    let (_, recipient) = site.identity();
    document["spec"]["backup"] = json!({ "etcd": { "schedule": "daily", "keep": 7, "export": "/srv/etcd",
        "recipient": recipient } });
    let ran = site.done(&[], &document).await;
    let timer = "/etc/systemd/system/kubeline-etcd-backup.timer";
    let on = |name: &str| {
        let host = site.hosts.find(name).unwrap();
        let machine = host.machine();
        (machine.fs.exists(timer), machine.services.active("kubeline-etcd-backup.timer"))
    };
    assert_eq!((on("cp-1"), on("w-1")), ((true, true), (false, false)));
    let script = {
        let host = site.hosts.find("cp-1").unwrap();
        let machine = host.machine();
        machine.fs.text("/usr/local/lib/kubeline/etcd-backup")
    };
    assert!(script.contains(&recipient) && script.contains("head -n -7"), "{script}");
    // The system's own shell reads it.
    let status = std::process::Command::new("sh").args(["-n", "-c", &script]).status().unwrap();
    assert!(status.success());
    let mark = site.world.journal.len();
    let again = site.run(&[], &document).await;
    assert_eq!((again.exit, &again.out), (Exit::Done, &ran.out), "{}", again.err);
    assert!(site.changes(mark).is_empty());
    let mut wrong = document.clone();
    wrong["spec"]["backup"]["etcd"]["recipient"] = json!("age1';reboot;'");
    let ran = site.run(&[], &wrong).await;
    assert_eq!(ran.exit, Exit::Refused, "{}", ran.err);
    document["spec"].as_object_mut().unwrap().remove("backup");
    site.done(&[], &document).await;
    assert_eq!(on("cp-1"), (false, false));
    site.nothing_unknown();
}
