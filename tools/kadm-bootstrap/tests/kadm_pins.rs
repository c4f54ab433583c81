//! Programs as their publishers' files: pinned by the document, checked on the machine, upgraded like packages.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stderr,
    clippy::indexing_slicing,
    reason = "a test may fail so"
)]

mod site;

use cluster_doc::Exit;
use kadm_bootstrap::KadmBootstrap;
use kadm_bootstrap::certificate::sha256;
use lab::hosts::programs::net::release;
use laws::sweep::{Table, sweep};
use serde_json::{Value, json};
use site::Site;

const AT_MOST: usize = 6;

fn artefact(name: &str, url: &str) -> Value {
    json!({ "name": name, "url": url, "sha256": sha256(release(url).unwrap().as_bytes()) })
}

/// The artefacts of Kubernetes in this version.
fn kubernetes(version: &str) -> Vec<Value> {
    let github = "https://github.com";
    let mut all: Vec<Value> = ["kubeadm", "kubelet", "kubectl"]
        .iter()
        .map(|n| artefact(n, &format!("https://dl.k8s.io/release/v{version}/bin/linux/amd64/{n}")))
        .collect();
    let crictl = "kubernetes-sigs/cri-tools/releases/download/v1.36.0/crictl-v1.36.0-linux-amd64.tar.gz";
    all.push(artefact("crictl", &format!("{github}/{crictl}")));
    let cni = "containernetworking/plugins/releases/download/v1.8.0/cni-plugins-linux-amd64-v1.8.0.tgz";
    all.push(artefact("cni-plugins", &format!("{github}/{cni}")));
    all
}

fn runtime() -> Vec<Value> {
    let containerd = "https://github.com/containerd/containerd/releases/download/v2.3.1/containerd-2.3.1-linux-amd64.tar.gz";
    let runc = "https://github.com/opencontainers/runc/releases/download/v1.3.3/runc.amd64";
    vec![artefact("containerd", containerd), artefact("runc", runc)]
}

fn pinned(site: &Site, version: &str, with_runtime: bool) -> Value {
    let mut document = site.document();
    document["status"] = json!({});
    document["spec"]["kubernetes"]["version"] = json!(version);
    let mut all = kubernetes(version);
    if with_runtime {
        all.extend(runtime());
    }
    document["spec"]["artifacts"] = all.into();
    document
}

fn text(site: &Site, node: &str, path: &str) -> String {
    site.hosts.find(node).unwrap().machine().fs.text(path)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_of_pinned_files_is_made_and_upgraded() {
    let site = Site::new(1, 1).await;
    let document = pinned(&site, "1.36.2", true);
    site.done(&[], &document).await;
    site.network().await;
    for node in ["cp-1", "w-1"] {
        assert_eq!(text(&site, node, "/usr/local/bin/kubelet"), "lab's kubelet v1.36.2\n");
        assert_eq!(text(&site, node, "/usr/local/sbin/runc"), "lab's runc v1.3.3\n");
        assert!(text(&site, node, "/etc/systemd/system/kubelet.service").contains("/usr/local/bin/kubelet "));
        assert_eq!(text(&site, node, "/etc/apt/sources.list.d/kubeline-kubernetes.list"), "");
        let host = site.hosts.find(node).unwrap();
        assert!(["kubelet", "containerd"].iter().all(|p| host.machine().packages.package(p).is_none()));
    }
    let mark = site.world.journal.len();
    let again = site.run(&[], &document).await;
    assert_eq!((again.exit, site.changes(mark).len()), (Exit::Done, 0), "{}", again.err);

    // Another version is an upgrade, by the steps of one.
    let document = pinned(&site, "1.36.3", true);
    let plan = site.run(&["plan"], &document).await;
    assert!(
        plan.out.contains("install https://dl.k8s.io/release/v1.36.3/bin/linux/amd64/kubeadm on cp-1"),
        "{}",
        plan.out
    );
    site.done(&[], &document).await;
    assert_eq!(text(&site, "w-1", "/usr/local/bin/kubelet"), "lab's kubelet v1.36.3\n");
    assert!(site.picture()["nodes"].as_array().unwrap().iter().all(|n| n["version"] == "v1.36.3"));
    // Who drops them and wants another version as well is told to do one after the other.
    let mut dropped = site.document();
    dropped["spec"]["kubernetes"]["version"] = json!("1.36.4");
    let mark = site.world.journal.len();
    let ran = site.run(&[], &dropped).await;
    assert_eq!((ran.exit, site.changes(mark).len()), (Exit::Precondition, 0), "{}", ran.err);
    assert!(ran.err.contains("set spec.kubernetes.version to \"1.36.3\" and run"), "{}", ran.err);
    site.nothing_unknown();
}

/// What must stay while programs change: the runtime and its containers, etcd, what kubeadm and the kubelet wrote.
fn kept_of(site: &Site, name: &str) -> Value {
    let host = site.hosts.find(name).unwrap();
    let machine = host.machine();
    let files = ["/etc/kubernetes", "/var/lib/kubelet", "/var/lib/etcd"].map(|d| machine.fs.walk(d));
    let texts: Vec<(String, String)> =
        files.concat().into_iter().map(|f| (f.clone(), machine.fs.text(&f))).collect();
    let runtime = (
        machine.packages.version("containerd").map(str::to_owned),
        machine.fs.text("/etc/containerd/config.toml"),
    );
    json!([texts, runtime, machine.kube.stops])
}

fn kept(site: &Site) -> Value {
    let id = site.kube.clusters().remove(0);
    let members: Vec<u64> = site.hosts.etcd_members(&id).iter().map(|m| m.id).collect();
    json!([site.kube.clusters(), members, kept_of(site, "cp-1"), kept_of(site, "w-1")])
}

/// Node by node, at the version that runs, both ways; nothing else changes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn programs_go_from_packages_to_files_and_back() {
    let site = Site::running(1, 2, &[]).await;
    let id = site.kube.clusters().remove(0);
    site.workload(&id, 2).await;
    let before = kept(&site);
    let document = pinned(&site, "1.36.2", false);
    let plan = site.run(&["plan"], &document).await;
    let at = |what: &str| plan.out.find(what).unwrap_or_else(|| panic!("{what}: {}", plan.out));
    assert!(
        at("drain cp-1") < at("programs of Kubernetes on cp-1 to their publishers' files"),
        "{}",
        plan.out
    );
    assert!(at("uncordon cp-1") < at("drain w-1") && at("uncordon w-1") < at("drain w-2"), "{}", plan.out);
    let ran = site.done(&[], &document).await;
    for node in ["cp-1", "w-1", "w-2"] {
        let host = site.hosts.find(node).unwrap();
        let machine = host.machine();
        assert!(
            ["kubeadm", "kubelet", "kubectl"].iter().all(|p| machine.packages.package(p).is_none()),
            "{node}"
        );
        assert!(machine.packages.package("kubernetes-cni").is_some(), "{node}");
        assert_eq!(machine.fs.text("/usr/local/bin/kubelet"), "lab's kubelet v1.36.2\n", "{node}");
        assert!(machine.services.active("kubelet"), "{node}");
        assert!(!machine.fs.exists("/usr/lib/systemd/system/kubelet.service.d/10-kubeadm.conf"), "{node}");
    }
    assert_eq!(kept(&site), before);
    let mark = site.world.journal.len();
    let again = site.run(&[], &document).await;
    assert_eq!(
        (again.exit, &again.out, site.changes(mark).len()),
        (Exit::Done, &ran.out, 0),
        "{}",
        again.err
    );
    // And back, by the same document as before.
    let ran = site.done(&[], &site.document()).await;
    for node in ["cp-1", "w-1", "w-2"] {
        let host = site.hosts.find(node).unwrap();
        let machine = host.machine();
        for program in ["kubeadm", "kubelet", "kubectl"] {
            assert_eq!(machine.packages.package(program), Some("1.36.2-1.1"), "{node}");
            assert!(machine.packages.is_held(program), "{node}");
            assert!(!machine.fs.exists(&format!("/usr/local/bin/{program}")), "{node}");
        }
        assert_eq!(machine.fs.list("/var/lib/kubeline/pinned").unwrap(), Vec::<String>::new(), "{node}");
        assert!(!machine.fs.exists("/etc/systemd/system/kubelet.service"), "{node}");
        assert!(machine.services.active("kubelet"), "{node}");
    }
    assert_eq!(kept(&site), before);
    let mark = site.world.journal.len();
    let again = site.run(&[], &site.document()).await;
    assert_eq!(
        (again.exit, &again.out, site.changes(mark).len()),
        (Exit::Done, &ran.out, 0),
        "{}",
        again.err
    );
    let picture = site.picture();
    assert!(picture["nodes"].as_array().unwrap().iter().all(|n| n["cordoned"] == false), "{picture:#}");
    site.nothing_unknown();
}

/// A process killed at any request while it changes a node's programs; the next run ends in the same world.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_of_programs_killed_at_any_request_is_seen_through() {
    let every = if std::env::var(laws::sweep::ALL).is_ok_and(|v| v == "all") { 1 } else { 5 };
    let site = Site::running(1, 0, &[]).await;
    let documents = [pinned(&site, "1.36.2", false), site.document()];
    let mut due: [Option<Value>; 2] = [None, None];
    let (mut killed, mut k) = (0, 0);
    for turn in 0.. {
        // There and back in turn; the first two runs are undisturbed.
        let (document, due) = (&documents[turn % 2], &mut due[turn % 2]);
        let cut = turn >= 2 && site.kill_at(&[], document, k).await;
        killed += usize::from(cut);
        site.done(&[], document).await;
        let looks = json!([site.picture(), kept_of(&site, "cp-1")]);
        let first = due.get_or_insert_with(|| looks.clone());
        assert_eq!(looks, *first, "killed at request {k}");
        if turn >= 2 && !cut && turn % 2 == 1 {
            break;
        }
        k += if turn >= 2 && turn % 2 == 1 { every } else { 0 };
    }
    eprintln!("killed {killed} times, the same world each time");
    assert!(killed > 4, "only {killed} kills");
    site.nothing_unknown();
}

/// Nothing is put in place that is not what the document says.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_digest_or_version_is_refused_on_the_machine() {
    let site = Site::new(1, 1).await;
    let mut document = pinned(&site, "1.36.2", false);
    document["spec"]["artifacts"][1]["sha256"] = json!("0".repeat(64));
    let ran = site.run(&[], &document).await;
    assert_eq!(ran.exit, Exit::Precondition, "{}", ran.err);
    assert!(ran.err.contains("Hash Sum mismatch") && ran.err.contains("kubelet.sha256"), "{}", ran.err);
    // The right digest of a file that is another version.
    let mut document = pinned(&site, "1.36.2", false);
    document["spec"]["artifacts"][1] = kubernetes("1.36.1")[1].clone();
    let ran = site.run(&[], &document).await;
    assert_eq!(ran.exit, Exit::Precondition, "{}", ran.err);
    assert!(ran.err.contains("is kubelet v1.36.1, and not v1.36.2"), "{}", ran.err);
    assert_eq!(text(&site, "w-1", "/usr/local/bin/kubelet"), "");
    assert!(site.kube.clusters().is_empty());
    // Those that come together: the missing one is named, with the way to its digest.
    let mut document = pinned(&site, "1.36.2", false);
    document["spec"]["artifacts"].as_array_mut().unwrap().remove(2);
    let ran = site.run(&["plan"], &document).await;
    assert_eq!(ran.exit, Exit::Refused, "{}", ran.err);
    assert!(ran.err.contains("lacks \"kubectl\"") && ran.err.contains("kubectl.sha256"), "{}", ran.err);
    // Somebody's own program stays.
    let document = pinned(&site, "1.36.2", false);
    site.hosts.find("w-1").unwrap().machine().fs.put("/usr/local/bin/kubectl", "mine", 0o755, "root", "root");
    let ran = site.run(&[], &document).await;
    assert_eq!(ran.exit, Exit::Precondition, "{}", ran.err);
    assert!(ran.err.contains("/usr/local/bin/kubectl is somebody's own"), "{}", ran.err);
    assert_eq!(text(&site, "w-1", "/usr/local/bin/kubectl"), "mine");
    site.nothing_unknown();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_step_of_a_pinned_set_up_may_be_the_last() {
    let mut rows = Vec::new();
    let none: &[&str] = &[];
    let init = async || {
        let site = Site::new(1, 1).await;
        let document = pinned(&site, "1.36.2", true);
        site.case(document)
    };
    rows.push(sweep::<KadmBootstrap>("pinned", none, AT_MOST, init).await);
    let upgrade = async || {
        let site = Site::of(1, 1, |site| pinned(site, "1.36.2", true)).await;
        site.network().await;
        let document = pinned(&site, "1.36.3", true);
        site.case(document)
    };
    rows.push(sweep::<KadmBootstrap>("upgrade", none, AT_MOST, upgrade).await);
    let exchange = async || {
        let site = Site::running(1, 1, &[]).await;
        let document = pinned(&site, "1.36.2", false);
        site.case(document)
    };
    rows.push(sweep::<KadmBootstrap>("to files", none, 4, exchange).await);
    let back = async || {
        let site = Site::running(1, 1, &[]).await;
        site.done(&[], &pinned(&site, "1.36.2", false)).await;
        let mut document = site.document();
        document["status"] = json!({});
        site.case(document)
    };
    rows.push(sweep::<KadmBootstrap>("back", none, 4, back).await);
    let rows: Vec<_> = rows.into_iter().map(|r| r.unwrap_or_else(|e| panic!("{e}"))).collect();
    eprintln!("{}", Table(&rows));
    for row in rows {
        assert_eq!((row.kills, row.broken.len()), (row.converged, 0), "{}", row.held().unwrap_err());
    }
}
