//! The configuration of kubelets and of kube-proxy: as the cluster is made with it, and as it changes.

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
use kadm_bootstrap::fields;
use kadm_bootstrap::kubelet::{CONFIG, CONFIGURING};
use lab::hosts::kubeadm::kubelet::SERVING;
use lab::world::Kubernetes as _;
use lab::{Action, Fault, Window};
use laws::sweep::{Table, sweep};
use serde_json::{Value, json};
use site::Site;

/// How many steps of each are swept by default.
const AT_MOST: usize = 6;

fn with(site: &Site, fields: Value) -> Value {
    let mut document = site.document();
    document["spec"]["kubernetes"]["kubelet"] = fields;
    document
}

fn map(site: &Site, name: &str) -> Value {
    let id = site.kube.clusters().remove(0);
    site.kube.get(&id, "v1", "ConfigMap", Some("kube-system"), name).unwrap_or_default()["data"].clone()
}

/// A field of a node's own file.
fn field(site: &Site, node: &str, name: &str) -> Value {
    let text = site.hosts.find(node).unwrap().machine().fs.text(CONFIG);
    fields::read(&text).remove(name).unwrap_or_default()
}

/// The nodes whose kubelets were restarted by this tool, in their order.
fn restarted(site: &Site, mark: usize) -> Vec<String> {
    let all = site.world.journal.since(mark);
    let restarts = all.iter().filter(|e| e.request.contains("kadm-restart"));
    restarts.map(|e| e.target.clone()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fields_of_the_document_reach_every_kubelet_and_go_again() {
    let site = Site::new(3, 1).await;
    let document = with(&site, json!({ "maxPods": 200, "evictionPressureTransitionPeriod": "120s" }));
    site.done(&[], &document).await;
    site.network().await;
    assert_eq!(field(&site, "cp-1", "maxPods"), 200);
    assert_eq!(field(&site, "w-1", "evictionPressureTransitionPeriod"), "2m0s");
    assert_eq!(field(&site, "w-1", "serverTLSBootstrap"), true);
    let plan = site.run(&["plan"], &document).await;
    assert!(plan.out.starts_with("kadm-bootstrap: nothing to do"), "{}", plan.out);

    // Another value, a new field, and one that goes: one node after the other, control planes first.
    let document = with(&site, json!({ "maxPods": 150, "systemReserved": { "cpu": "500m" } }));
    let check = site.run(&["check"], &document).await;
    assert_eq!(check.exit, Exit::Differs, "{}", check.out);
    let mark = site.world.journal.len();
    site.done(&[], &document).await;
    assert_eq!(restarted(&site, mark), ["cp-1", "cp-2", "cp-3", "w-1"]);
    for node in ["cp-1", "cp-2", "cp-3", "w-1"] {
        assert_eq!(field(&site, node, "maxPods"), 150);
        assert_eq!(field(&site, node, "systemReserved"), json!({ "cpu": "500m" }));
        assert_eq!(field(&site, node, "evictionPressureTransitionPeriod"), Value::Null);
        assert!(!site.hosts.find(node).unwrap().machine().fs.exists(CONFIGURING));
    }
    assert_eq!(map(&site, "kubeline-kubelet")["fields"], "maxPods systemReserved");
    let mark = site.world.journal.len();
    let again = site.run(&[], &document).await;
    assert_eq!((again.exit, site.changes(mark).len()), (Exit::Done, 0), "{}", again.err);

    // A machine that joins later has them at once.
    site.blank("w-1", 31).await;
    let ran = site.run(&[], &document).await;
    assert_eq!((ran.exit, field(&site, "w-1", "maxPods")), (Exit::Done, json!(150)), "{}", ran.err);
    site.nothing_unknown();
}

/// A field that no kubelet knows ends the run at the first node, whose kubelet goes on as it was.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_kubeadm_leaves_out_or_a_kubelet_dies_of_stops_at_the_first_node() {
    let site = Site::running(1, 1, &[]).await;
    let mark = site.world.journal.len();
    let ran = site.run(&[], &with(&site, json!({ "maxPodz": 200 }))).await;
    assert_eq!(ran.exit, Exit::Precondition, "{}", ran.err);
    assert!(ran.err.contains("left out or wrote otherwise: maxPodz"), "{}", ran.err);
    assert_eq!(restarted(&site, mark), [""; 0]);
    assert!(!site.hosts.find("w-1").unwrap().machine().fs.exists(CONFIGURING));
    // Corrected, the next run goes on: the note knows the field that is to go.
    site.done(&[], &site.document()).await;
    assert!(!map(&site, "kubelet-config")["kubelet"].as_str().unwrap().contains("maxPodz"));

    // cp-1's kubelet ends at once: w-1 is not touched, and the next run begins where this one ended.
    let document = with(&site, json!({ "maxPods": 99 }));
    site.world.faults.inject(Fault {
        window: Window::Ssh,
        matching: "cp-1 kadm-restart".into(),
        skip: 0,
        times: 1,
        action: Action::DropBefore,
    });
    let ran = site.run(&[], &document).await;
    assert_eq!(ran.exit, Exit::Transient, "{}", ran.err);
    assert_eq!(field(&site, "w-1", "maxPods"), Value::Null);
    let plan = site.run(&["plan"], &document).await;
    assert!(plan.out.contains("its change was not seen through"), "{}", plan.out);
    let ran = site.run(&[], &document).await;
    assert_eq!((ran.exit, field(&site, "w-1", "maxPods")), (Exit::Done, json!(99)), "{}", ran.err);
    site.nothing_unknown();
}

/// Makes the cluster one that was made without `serverTLSBootstrap`: its kubelets sign for themselves.
async fn of_before(site: &Site) {
    let id = site.kube.clusters().remove(0);
    let mut config = site.kube.get(&id, "v1", "ConfigMap", Some("kube-system"), "kubelet-config").unwrap();
    let text = config["data"]["kubelet"].as_str().unwrap().replace("serverTLSBootstrap: true\n", "");
    config["data"]["kubelet"] = json!(text);
    site.kube.put(&id, config);
    for node in site.kube.list(&id, "v1", "Node") {
        let name = node["metadata"]["name"].as_str().unwrap();
        {
            let host = site.hosts.find(name).unwrap();
            let mut machine = host.machine();
            let text = machine.fs.text(CONFIG).replace("serverTLSBootstrap: true\n", "");
            machine.fs.put(CONFIG, text, 0o644, "root", "root");
            machine.fs.remove_all(SERVING);
        }
        assert_eq!(site.hosts.exec(name, &["systemctl", "restart", "kubelet"]).await.unwrap().exit, 0);
    }
    for request in site.kube.list(&id, "certificates.k8s.io/v1", "CertificateSigningRequest") {
        let name = request["metadata"]["name"].as_str().unwrap();
        site.kube.delete(&id, "certificates.k8s.io/v1", "CertificateSigningRequest", None, name);
    }
    let ready = || site.kube.list(&id, "v1", "Node").iter().all(|n| kadm_bootstrap::node::read(n).ready);
    site.until("all nodes are ready", ready).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_of_before_is_moved_to_certificates_of_its_own() {
    let site = Site::running(1, 2, &[]).await;
    of_before(&site).await;
    let plan = site.run(&["plan"], &site.document()).await;
    assert!(
        plan.out.contains("change the configuration of all kubelets: serverTLSBootstrap=true"),
        "{}",
        plan.out
    );
    let mark = site.world.journal.len();
    let ran = site.done(&[], &site.document()).await;
    assert_eq!(restarted(&site, mark), ["cp-1", "w-1", "w-2"]);
    let document: Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!(document["status"]["kadm-bootstrap"]["kubeletServingCertificates"], true);
    for name in ["cp-1", "w-1", "w-2"] {
        assert!(site.hosts.find(name).unwrap().machine().fs.exists(SERVING), "{name}");
    }
    let check = site.run(&["check"], &site.document()).await;
    assert_eq!(check.exit, Exit::Done, "{}", check.out);
    site.nothing_unknown();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kube_proxy_works_in_the_mode_of_the_data_plane() {
    let site = Site::new(1, 1).await;
    let mut document = site.document();
    document["spec"]["cni"] = json!({ "dataplane": "nftables" });
    site.done(&[], &document).await;
    assert!(map(&site, "kube-proxy")["config.conf"].as_str().unwrap().contains("mode: nftables"));
    let plan = site.run(&["plan"], &document).await;
    assert!(plan.out.starts_with("kadm-bootstrap: nothing to do"), "{}", plan.out);
    // The other way on a cluster that runs: its pods are started anew.
    let id = site.kube.clusters().remove(0);
    let pods = || -> Vec<String> {
        let all = site.kube.list(&id, "v1", "Pod");
        let names = all.iter().filter_map(|p| p["metadata"]["name"].as_str());
        names.filter(|n| n.starts_with("kube-proxy-")).map(str::to_owned).collect()
    };
    let before = pods();
    // Cut off between the configuration and the pods: the next run sees that they were not told.
    site.world.faults.inject(Fault {
        window: Window::Kube,
        matching: "PATCH /apis/apps/v1/namespaces/kube-system/daemonsets/kube-proxy".into(),
        skip: 0,
        times: 1,
        action: Action::DropBefore,
    });
    let ran = site.run(&[], &site.document()).await;
    assert_eq!((ran.exit, pods()), (Exit::Transient, before.clone()), "{}", ran.err);
    let plan = site.run(&["plan"], &site.document()).await;
    assert!(plan.out.contains("its pods have not been started anew"), "{}", plan.out);
    site.done(&[], &site.document()).await;
    assert!(map(&site, "kube-proxy")["config.conf"].as_str().unwrap().contains("mode: iptables"));
    let now = pods();
    assert!(now.len() == 2 && now.iter().all(|p| !before.contains(p)), "{before:?} {now:?}");
    // What a machine's kernel cannot do is said before anything is touched.
    site.hosts.find("w-1").unwrap().machine().fs.put(
        "/proc/sys/kernel/osrelease",
        "5.10.0-30-amd64\n",
        0o444,
        "root",
        "root",
    );
    let mark = site.world.journal.len();
    let ran = site.run(&[], &document).await;
    assert_eq!(ran.exit, Exit::Precondition, "{}", ran.err);
    assert!(ran.err.contains("older than 5.13") && site.changes(mark).is_empty(), "{}", ran.err);
    site.nothing_unknown();
}

/// A kernel with cgroup v1 alone: found, then allowed by the document and warned of.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cgroup_v1_is_a_finding_and_then_a_warning() {
    let site = Site::new(1, 1).await;
    site.hosts.find("w-1").unwrap().machine().fs.remove_all("/sys/fs/cgroup/cgroup.controllers");
    let ran = site.run(&[], &site.document()).await;
    assert_eq!(ran.exit, Exit::Precondition, "{}", ran.err);
    assert!(ran.err.contains("cgroup v1 alone") && ran.err.contains("failCgroupV1"), "{}", ran.err);
    let mut document = with(&site, json!({ "failCgroupV1": false }));
    let ran = site.run(&[], &document).await;
    assert_eq!(ran.exit, Exit::Precondition, "{}", ran.err);
    document["spec"]["kubernetes"]["ignorePreflightErrors"] = json!(["SystemVerification"]);
    let ran = site.done(&[], &document).await;
    assert_eq!(ran.err.matches("warning: w-1: its kernel has cgroup v1 alone").count(), 1, "{}", ran.err);
    let check = site.run(&["check"], &document).await;
    assert!(
        check.out.contains("w-1 its kernel has cgroup v1 alone") || check.out.contains("cgroup v1"),
        "{}",
        check.out
    );
    site.nothing_unknown();
}

fn plain(mut document: Value) -> Value {
    document["status"].as_object_mut().unwrap().remove("lb-render");
    document
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_step_of_a_change_may_be_the_last() {
    let begun = std::time::Instant::now();
    let mut rows = Vec::new();
    let none: &[&str] = &[];
    let configure = async || {
        let site = Site::of(1, 2, |s| with(s, json!({ "maxPods": 200, "podPidsLimit": 100 }))).await;
        site.network().await;
        let document = plain(with(&site, json!({ "maxPods": 150, "seccompDefault": true })));
        site.case(document)
    };
    rows.push(sweep::<KadmBootstrap>("configure", none, AT_MOST, configure).await);
    let serving = async || {
        let site = Site::running(1, 1, &[]).await;
        of_before(&site).await;
        let document = plain(site.document());
        site.case(document)
    };
    rows.push(sweep::<KadmBootstrap>("serving", none, AT_MOST, serving).await);
    let proxy = async || {
        let site = Site::running(1, 1, &[]).await;
        let mut document = plain(site.document());
        document["spec"]["cni"] = json!({ "dataplane": "nftables" });
        site.case(document)
    };
    rows.push(sweep::<KadmBootstrap>("kube-proxy", none, AT_MOST, proxy).await);
    let rows: Vec<_> = rows.into_iter().map(|r| r.unwrap_or_else(|e| panic!("{e}"))).collect();
    eprintln!("{}swept in {:.1} s", Table(&rows), begun.elapsed().as_secs_f64());
    for row in rows {
        assert_eq!((row.kills, row.broken.len()), (row.converged, 0), "{}", row.held().unwrap_err());
    }
}
