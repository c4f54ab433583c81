//! What comes after the first day: machines leave, are replaced, and get another version.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stderr,
    clippy::indexing_slicing,
    reason = "a test may fail so"
)]

mod site;

use cluster_doc::Exit;
use lab::world::{Kubernetes as _, Machines as _};
use serde_json::{Value, json};
use site::Site;

fn names(picture: &Value) -> Vec<String> {
    picture["nodes"].as_array().unwrap().iter().map(|n| n["name"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn machines_that_left_the_document_leave_the_cluster() {
    let site = Site::running(4, 3, &["cp-4"]).await;
    let id = site.kube.clusters().remove(0);
    // The first control plane and a worker leave, and another control plane comes.
    let document = site.without(&["cp-1", "w-2"], &["cp-1", "w-2"]);
    let plan = site.run(&["plan"], &document).await;
    let at = |what: &str| plan.out.find(what).unwrap_or_else(|| panic!("{what}: {}", plan.out));
    assert!(at("join cp-4") < at("remove the etcd member cp-1"), "{}", plan.out);
    assert!(at("drain cp-1") < at("reset cp-1") && at("reset cp-1") < at("delete the node cp-1"));
    // Within five seconds of a member's start etcd refuses, and is asked again (tests/hosts/tests/etcd.rs).
    site.world.faults.inject(lab::Fault {
        window: lab::Window::Ssh,
        matching: "member remove".into(),
        skip: 0,
        times: 2,
        action: lab::Action::Exit(1, "Error: etcdserver: unhealthy cluster".into()),
    });
    let ran = site.done(&["-v"], &document).await;
    assert_eq!(site.world.faults.left("member remove"), Some(0));
    let picture = site.picture();
    assert_eq!(names(&picture), ["cp-2", "cp-3", "cp-4", "w-1", "w-3"]);
    let mut members: Vec<String> = site.hosts.etcd_members(&id).into_iter().map(|m| m.name).collect();
    members.sort();
    assert_eq!(members, ["cp-2", "cp-3", "cp-4"]);
    for gone in ["cp-1", "w-2"] {
        assert_eq!(picture["machines"][gone]["kubelet"], false, "{gone}");
        assert_eq!(picture["machines"][gone]["member"], false, "{gone}");
    }
    let section: Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!(section["status"]["kadm-bootstrap"]["controlPlanes"], json!(["cp-2", "cp-3", "cp-4"]));
    let mark = site.world.journal.len();
    let again = site.run(&[], &document).await;
    assert_eq!((again.exit, &again.out), (Exit::Done, &ran.out), "{}", again.err);
    assert!(site.changes(mark).is_empty());
    // One that died before it could leave: out of etcd and of the cluster all the same.
    let vmid = site.hosts.find("cp-4").unwrap().vmid;
    site.hosts.power_off(vmid);
    site.silent("cp-4", 24).await;
    let document = site.without(&["cp-1", "cp-4", "w-2"], &["cp-4"]);
    let ran = site.run(&[], &document).await;
    assert_eq!(ran.exit, Exit::Partial, "{}", ran.err);
    assert_eq!(site.hosts.etcd_members(&id).len(), 2);
    assert_eq!(names(&site.picture()), ["cp-2", "cp-3", "w-1", "w-3"]);
    site.nothing_unknown();
}

/// A node of a machine that the document forgot altogether leaves too; somebody else's node stays.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_forgotten_machine_leaves_and_a_foreign_one_stays() {
    let site = Site::made(1, 2, &[]).await;
    let id = site.kube.clusters().remove(0);
    site.kube.put(&id, json!({ "apiVersion": "v1", "kind": "Node", "metadata": { "name": "theirs" } }));
    site.done(&[], &site.without(&["w-2"], &[])).await;
    assert_eq!(names(&site.picture()), ["cp-1", "theirs", "w-1"]);
    site.nothing_unknown();
}

/// The kubelet of a node that leaves may end while its pods are waited for: nobody is there to end them any more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kubelet_that_ends_in_between_holds_no_drain_up() {
    let site = Site::new(1, 2).await;
    assert_eq!(site.run(&[], &site.document()).await.exit, Exit::Done);
    site.network().await;
    let id = site.kube.clusters().remove(0);
    let uid = site.kube.get(&id, "v1", "Node", None, "w-2").unwrap()["metadata"]["uid"].clone();
    site.kube.put(
        &id,
        json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": { "name": "slow", "namespace": "default", "finalizers": ["example.com/slow"],
                "ownerReferences": [
                    { "apiVersion": "v1", "kind": "Node", "name": "w-2", "uid": uid, "controller": true },
                ] },
            "spec": { "nodeName": "w-2", "containers": [{ "name": "c", "image": "i" }] },
        }),
    );
    let document = site.without(&["w-2"], &[]);
    let ready = || {
        let node = site.kube.get(&id, "v1", "Node", None, "w-2").unwrap();
        let all = node["status"]["conditions"].as_array().cloned().unwrap_or_default();
        all.iter().any(|c| c["type"] == "Ready" && c["status"] == "True")
    };
    site.until("the node is ready", ready).await;
    let plan = site.run(&["plan", "--json"], &document).await;
    assert!(plan.out.contains("\"runs\": true"), "{}", plan.out);
    let ends = async {
        let asked = || site.world.journal.since(0).iter().any(|e| e.request.contains("pods/slow/eviction"));
        site.until("the pod is evicted", asked).await;
        let vmid = site.hosts.find("w-2").unwrap().vmid;
        site.hosts.power_off(vmid);
    };
    let (ran, ()) = futures::join!(site.run(&["--drain-timeout", "15"], &document), ends);
    assert_eq!(ran.exit, Exit::Done, "{}", ran.err);
    assert_eq!(names(&site.picture()), ["cp-1", "w-1"]);
    site.nothing_unknown();
}

/// A budget that allows no disruption blocks the drain, is named, and the node stays.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_budget_is_respected_and_named() {
    let site = Site::running(1, 2, &[]).await;
    let id = site.kube.clusters().remove(0);
    site.workload(&id, 1).await;
    let on = site.pod_node(&id).await;
    let document = site.without(&[&on], &[&on]);
    let ran = site.run(&["--drain-timeout", "1"], &document).await;
    assert_eq!(ran.exit, Exit::Transient, "{}", ran.err);
    assert!(ran.err.contains("may not be evicted") && ran.err.contains("disruption budget"), "{}", ran.err);
    assert!(names(&site.picture()).contains(&on));
    // With a second replica elsewhere the budget allows it.
    site.workload(&id, 2).await;
    site.done(&[], &document).await;
    assert!(!names(&site.picture()).contains(&on));
    // A pod that nobody would make anew is not evicted.
    let left = if on == "w-1" { "w-2" } else { "w-1" };
    site.kube.put(
        &id,
        json!({ "apiVersion": "v1", "kind": "Pod", "metadata": { "name": "alone", "namespace": "default" },
            "spec": { "nodeName": left, "containers": [{ "name": "c", "image": "x" }] } }),
    );
    let ran = site.run(&[], &site.without(&["w-1", "w-2"], &["w-1", "w-2"])).await;
    assert_eq!(ran.exit, Exit::Precondition, "{}", ran.err);
    assert!(ran.err.contains("default/alone"), "{}", ran.err);
    site.nothing_unknown();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_version() {
    let site = Site::running(3, 3, &[]).await;
    let mut document = site.document();
    document["spec"]["kubernetes"]["version"] = json!("1.36.3");
    let plan = site.run(&["plan", "--max-unavailable", "2"], &document).await;
    assert!(plan.out.contains("upgrade the control plane on cp-3 to 1.36.3"), "{}", plan.out);
    let mark = site.world.journal.len();
    let ran = site.done(&["-v", "--max-unavailable", "2"], &document).await;
    let picture = site.picture();
    for (name, machine) in picture["machines"].as_object().unwrap() {
        assert_eq!(machine["version"], "1.36.3-1.1", "{name}");
        assert_eq!(machine["held"], true, "{name}");
    }
    let id = site.kube.clusters().remove(0);
    for node in site.kube.list(&id, "v1", "Node") {
        assert_eq!(node["status"]["nodeInfo"]["kubeletVersion"], "v1.36.3");
        assert_ne!(node["spec"]["unschedulable"], true);
        assert!(node["metadata"]["annotations"].get("kubeline/cordoned").is_none());
    }
    let proxy = site.kube.get(&id, "apps/v1", "DaemonSet", Some("kube-system"), "kube-proxy").unwrap();
    assert_eq!(
        proxy["spec"]["template"]["spec"]["containers"][0]["image"],
        "registry.k8s.io/kube-proxy:v1.36.3"
    );
    // Control planes first, one by one; a snapshot before all.
    let order: Vec<String> = site
        .changes(mark)
        .iter()
        .map(|e| e.request.clone())
        .filter(|r| {
            r.contains("kubeadm upgrade") || r.contains("kadm-snapshot") || r.contains("restart kubelet")
        })
        .collect();
    assert!(order[0].contains("kadm-snapshot"), "{order:#?}");
    assert!(order[1].contains("upgrade apply v1.36.3 --yes"), "{order:#?}");
    assert!(order[2].contains("upgrade node") && order[3].contains("upgrade node"), "{order:#?}");
    assert!(order[4].contains("restart kubelet"), "{order:#?}");
    let mark = site.world.journal.len();
    let again = site.run(&[], &document).await;
    assert_eq!((again.exit, &again.out), (Exit::Done, &ran.out), "{}", again.err);
    assert!(site.changes(mark).is_empty());
    // There is no way back.
    let ran = site.run(&[], &site.document()).await;
    assert_eq!(ran.exit, Exit::Precondition, "{}", ran.err);
    assert!(ran.err.contains("no way back"), "{}", ran.err);
    site.nothing_unknown();
}

/// Another operator, with another machine to add, is told who is at work: etcd's members change one at a time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_operators_the_second_waits_for_another_day() {
    let site = Site::made(4, 1, &["cp-3", "cp-4"]).await;
    site.world.faults.inject(lab::Fault {
        window: lab::Window::Ssh,
        matching: "cp-3 kubeadm join".into(),
        skip: 0,
        times: 1,
        action: lab::Action::Hang,
    });
    let (first, second) = (site.without(&["cp-4"], &[]), site.without(&["cp-3"], &[]));
    let later = async {
        let joins = || {
            let all = site.world.journal.since(0);
            all.iter().any(|e| e.target == "cp-3" && e.request.starts_with("kubeadm join"))
        };
        site.until("cp-3 is joining", joins).await;
        let mark = site.world.journal.len();
        let ran = site.run(&[], &second).await;
        (ran, site.changes(mark))
    };
    let (ran, changes) = tokio::select! {
        ran = site.run(&[], &first) => panic!("{}", ran.err),
        later = later => later,
    };
    assert_eq!(ran.exit, Exit::Transient, "{}", ran.err);
    assert!(ran.err.contains("cp-1 is locked by"), "{}", ran.err);
    assert!(changes.is_empty(), "{changes:#?}");
    // The first one was killed by now; its lock went with it.
    site.done(&[], &first).await;
    let id = site.kube.clusters().remove(0);
    assert_eq!(site.hosts.etcd_members(&id).len(), 3);
}

/// An etcd that lost its data begins no cluster of its own, on the first control plane either, and the machine is
/// replaced in place; the lab shows what a manifest as kubeadm writes it would have done.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_etcd_without_its_disk_begins_no_second_cluster() {
    const MANIFEST: &str = "/etc/kubernetes/manifests/etcd.yaml";
    let site = Site::made(3, 1, &[]).await;
    let id = site.kube.clusters().remove(0);
    let before: Vec<u64> = site.hosts.etcd_members(&id).iter().map(|m| m.id).collect();
    let ends = |name: &str| site.hosts.find(name).unwrap().machine().kube.etcd_ends.clone();
    for name in ["cp-1", "cp-2", "cp-3"] {
        assert_eq!(ends(name), None);
    }
    site.lose_etcd("cp-1").await;
    assert!(ends("cp-1").unwrap().contains("cannot fetch cluster info"), "{:?}", ends("cp-1"));
    assert_eq!(site.kube.clusters(), std::slice::from_ref(&id));
    // It could hold data: the operator decides, and is told how.
    let ran = site.run(&[], &site.document()).await;
    assert_eq!(ran.exit, Exit::Precondition, "{}", ran.err);
    assert!(ran.err.contains("/var/lib/etcd/member is missing"), "{}", ran.err);
    assert!(ran.err.contains("kadm-bootstrap --reset-host cp-1"), "{}", ran.err);
    assert_eq!(site.hosts.etcd_members(&id).len(), 3);
    site.done(&["--reset-host", "cp-1"], &site.document()).await;
    assert_eq!(site.kube.clusters(), std::slice::from_ref(&id));
    let after: Vec<u64> = site.hosts.etcd_members(&id).iter().map(|m| m.id).collect();
    assert_eq!((after.len(), after.iter().filter(|m| before.contains(m)).count()), (3, 2));
    assert_eq!(ends("cp-1"), None);
    site.nothing_unknown();
    // A member that was removed while it was away ends when it comes back, and its API server with it.
    let vmid = site.hosts.find("cp-3").unwrap().vmid;
    let boot = site.hosts.find("cp-3").unwrap().machine().boot.clone();
    site.hosts.power_off(vmid);
    site.silent("cp-3", 23).await;
    let ran = site.run(&[], &site.without(&["cp-3"], &["cp-3"])).await;
    assert_eq!(ran.exit, Exit::Partial, "{}", ran.err);
    site.hosts.power_on(boot);
    site.answers("cp-3", 23).await;
    site.until("the removed member ends", || ends("cp-3").is_some_and(|e| e.contains("permanently removed")))
        .await;
    assert_eq!(site.kube.clusters(), std::slice::from_ref(&id));
    // And without the argument that this tool adds.
    {
        let host = site.hosts.find("cp-2").unwrap();
        let mut machine = host.machine();
        let text = machine.fs.text(MANIFEST);
        let only = text.lines().filter(|l| !l.contains("--initial-cluster-state")).map(|l| {
            let (head, _) = l.split_once("--initial-cluster=").unwrap_or((l, ""));
            if head == l {
                format!("{l}\n")
            } else {
                format!("{head}--initial-cluster=cp-2=https://{}:2380\n", site.world.net.host(22))
            }
        });
        let only: String = only.collect();
        machine.fs.put(MANIFEST, only, 0o600, "root", "root");
    }
    site.lose_etcd("cp-2").await;
    assert_eq!(site.kube.clusters().len(), 2, "kubeadm's own manifest begins another cluster");
}
