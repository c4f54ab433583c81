//! The tool against the lab: a cluster from blank machines, and the laws.

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
use lab::world::Kubernetes as _;
use lab::{Action, Fault, Window};
use serde_json::{Value, json};
use site::{Ran, Site};

fn status(ran: &Ran) -> Value {
    let document: Value = serde_json::from_str(&ran.out).unwrap_or_else(|e| panic!("{e}: {}", ran.err));
    document["status"]["kadm-bootstrap"].clone()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_and_six_from_blank_machines() {
    let site = Site::new(3, 6).await;
    let document = site.document();

    let plan = site.run(&["plan"], &document).await;
    assert_eq!(plan.exit, Exit::Done, "{}", plan.err);
    let before = site.world.journal.len();
    let ran = site.done(&["-v"], &document).await;
    site.nothing_unknown();
    assert!(!site.changes(before).is_empty());
    // Law 2: what plan printed is what ran.
    for line in plan.out.lines().filter(|l| l.contains("  # ") || l.contains(" # ")) {
        let step = line
            .split_once(". ")
            .unwrap()
            .1
            .split("  # ")
            .next()
            .unwrap()
            .split(" # ")
            .next()
            .unwrap()
            .trim();
        assert!(ran.err.contains(step), "planned but not run: {step}\n{}", ran.err);
    }
    let section = status(&ran);
    assert_eq!(section["controlPlanes"], json!(["cp-1", "cp-2", "cp-3"]));
    assert_eq!(section["workers"], json!(["w-1", "w-2", "w-3", "w-4", "w-5", "w-6"]));
    assert_eq!(section["version"], "1.36.2");
    assert_eq!(section["kubeletServingCertificates"], true);
    assert!(section["caDigest"].as_str().unwrap().starts_with("sha256:"));
    // Law 4.
    let whole: Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!(whole["status"]["lb-render"], document["status"]["lb-render"]);
    let picture = site.picture();
    assert_eq!(picture["clusters"], 1);
    assert_eq!(picture["tokens"], 0, "{picture:#}");
    assert_eq!(picture["nodes"].as_array().unwrap().len(), 9);
    let node =
        |name: &str| picture["nodes"].as_array().unwrap().iter().find(|n| n["name"] == name).unwrap().clone();
    assert_eq!(node("w-5")["labels"]["environment"], "nonprod");
    assert_eq!(node("w-5")["labels"]["node-role.kubernetes.io/worker"], "");
    assert!(node("w-5")["ours"].as_array().unwrap().contains(&json!("environment=nonprod:NoSchedule")));
    assert!(
        node("cp-2")["taints"]
            .as_array()
            .unwrap()
            .contains(&json!("node-role.kubernetes.io/control-plane:NoSchedule"))
    );
    use std::os::unix::fs::MetadataExt as _;
    assert_eq!(std::fs::metadata(site.path("out/kubeconfig")).unwrap().mode() & 0o777, 0o600);

    // Law 1: twice is once.
    let mark = site.world.journal.len();
    let again = site.run(&[], &document).await;
    assert_eq!(again.exit, Exit::Done, "{}", again.err);
    assert_eq!(again.out, ran.out);
    let changed: Vec<String> = site.changes(mark).iter().map(|e| e.request.clone()).collect();
    assert!(changed.is_empty(), "{changed:#?}");
    let plan = site.run(&["plan"], &document).await;
    assert!(plan.out.starts_with("kadm-bootstrap: nothing to do"), "{}", plan.out);

    // No pod network yet: check says so, and nothing else.
    let check = site.run(&["check", "--json"], &document).await;
    let findings: Value = serde_json::from_str(&check.out).unwrap();
    for finding in findings["findings"].as_array().unwrap() {
        assert!(finding["message"].as_str().unwrap().starts_with("is not ready"), "{finding}");
    }

    // A label and a taint that the document drops go; those of others stay.
    let mut dropped = document.clone();
    let worker =
        dropped["spec"]["machines"].as_array_mut().unwrap().iter_mut().find(|m| m["name"] == "w-5").unwrap();
    worker.as_object_mut().unwrap().remove("labels");
    worker.as_object_mut().unwrap().remove("taints");
    site.done(&[], &dropped).await;
    let picture = site.picture();
    let node = picture["nodes"].as_array().unwrap().iter().find(|n| n["name"] == "w-5").unwrap().clone();
    assert_eq!(node["labels"]["environment"], Value::Null);
    assert!(!node["taints"].as_array().unwrap().contains(&json!("environment=nonprod:NoSchedule")));
    assert!(node["labels"]["kubernetes.io/hostname"].is_string());

    // And everything goes.
    let gone = site.run(&["destroy", "--yes"], &document).await;
    assert_eq!(gone.exit, Exit::Done, "{}", gone.err);
    assert!(!site.path("out/kubeconfig").exists());
    let picture = site.picture();
    for (name, machine) in picture["machines"].as_object().unwrap() {
        assert_eq!(machine["kubelet"], false, "{name}");
        assert_eq!(machine["member"], false, "{name}");
        assert_eq!(machine["manifests"], json!([]), "{name}");
    }
    let again = site.run(&["destroy", "--yes"], &document).await;
    assert_eq!(again.exit, Exit::Done, "{}", again.err);
    site.nothing_unknown();
}

async fn case() -> laws::Case {
    let site = Site::new(3, 1).await;
    let mut document = site.document();
    document["status"] = json!({});
    site.case(document)
}

fn ssh(matching: &str, action: Action) -> Fault {
    Fault { window: Window::Ssh, matching: matching.into(), skip: 0, times: 1, action }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keeps_the_seven_laws() {
    let trouble = |name, fault, exits: &[Exit]| laws::Trouble { name, fault, exits: exits.to_vec() };
    let transient = [Exit::Transient];
    let no_port = "\t[ERROR Port-6443]: Port 6443 is in use\nerror: preflight checks failed\n";
    let troubles = [
        trouble("a look is cut off", ssh("cp-2 kadm-look", Action::DropBefore), &transient),
        trouble(
            "apt fails",
            ssh(
                "w-1 env DEBIAN_FRONTEND=noninteractive apt-get -q -o DPkg::Lock::Timeout=300 install",
                Action::Exit(100, "E: no".into()),
            ),
            &[Exit::Precondition],
        ),
        trouble(
            "containerd refuses",
            ssh("cp-1 containerd --config", Action::Exit(1, "no TOML".into())),
            &[Exit::Precondition],
        ),
        trouble(
            "preflight fails",
            ssh("cp-1 kubeadm init --config", Action::Exit(1, no_port.into())),
            &[Exit::Precondition],
        ),
        trouble(
            "init fails",
            ssh("cp-1 kubeadm init --config", Action::Exit(1, "error: timeout".into())),
            &transient,
        ),
        trouble("cut off after init", ssh("cp-1 kubeadm init --config", Action::DropAfter), &transient),
        trouble(
            "cut off after a control plane's join",
            ssh("cp-2 kubeadm join", Action::DropAfter),
            &transient,
        ),
        trouble("cut off before a worker's join", ssh("w-1 kubeadm join", Action::DropBefore), &transient),
        trouble(
            "cut off after the upload",
            ssh("cp-1 kubeadm init phase upload-certs", Action::DropAfter),
            &transient,
        ),
        trouble(
            "cut off while the secret is removed",
            ssh("cp-3 remove v1 /run/kubeline-kadm-join", Action::DropBefore),
            &transient,
        ),
        trouble(
            "the API restarts",
            Fault {
                window: Window::Kube,
                matching: "GET /readyz".into(),
                skip: 1,
                times: 3,
                action: Action::DropBefore,
            },
            &[Exit::Done, Exit::Transient],
        ),
        trouble(
            "the API is overloaded",
            Fault {
                window: Window::Kube,
                matching: "POST /api/v1/namespaces/kube-system/secrets".into(),
                skip: 0,
                times: 1,
                action: Action::Status(503, "no".into()),
            },
            &transient,
        ),
    ];
    let summary = laws::check::<KadmBootstrap>(&[], &troubles, case).await.unwrap_or_else(|e| panic!("{e}"));
    eprintln!("{summary}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unreachable_machines_are_held() {
    let site = Site::new(1, 2).await;
    let document = site.document();
    site.done(&[], &document).await;
    let vmid = site.hosts.find("w-2").unwrap().vmid;
    lab::world::Machines::power_off(&site.hosts, vmid);
    let ran = site.run(&[], &document).await;
    assert_eq!(ran.exit, Exit::Partial, "{}", ran.err);
    assert!(ran.err.contains("held w-2"), "{}", ran.err);
    assert_eq!(status(&ran)["workers"], json!(["w-1", "w-2"]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn never_a_second_cluster() {
    let site = Site::new(3, 1).await;
    let document = site.document();
    // A control plane that does not answer may know a cluster.
    let vmid = site.hosts.find("cp-3").unwrap().vmid;
    lab::world::Machines::power_off(&site.hosts, vmid);
    let ran = site.run(&[], &document).await;
    assert_eq!(ran.exit, Exit::Precondition, "{}", ran.err);
    assert!(ran.err.contains("--new-cluster") && site.kube.clusters().is_empty(), "{}", ran.err);
    let boot = site.hosts.find("cp-3").unwrap().machine().boot.clone();
    lab::world::Machines::power_on(&site.hosts, boot);
    site.answers("cp-3", 23).await;
    // A kubeconfig speaks of one.
    std::fs::create_dir_all(site.path("out")).unwrap();
    std::fs::write(site.path("out/kubeconfig"), "apiVersion: v1\nkind: Config\n").unwrap();
    let ran = site.run(&[], &document).await;
    assert_eq!(ran.exit, Exit::Precondition, "{}", ran.err);
    assert!(site.kube.clusters().is_empty());
    std::fs::remove_file(site.path("out/kubeconfig")).unwrap();
    // Something that this tool did not begin.
    {
        let host = site.hosts.find("cp-2").unwrap();
        host.machine().fs.put("/etc/kubernetes/admin.conf", "x", 0o600, "root", "root");
    }
    let ran = site.run(&[], &document).await;
    assert_eq!(ran.exit, Exit::Precondition, "{}", ran.err);
    assert!(ran.err.contains("--reset-host cp-2"), "{}", ran.err);
    site.done(&["--reset-host", "cp-2"], &document).await;
    assert_eq!(site.kube.clusters().len(), 1);
}

/// A machine whose disk is gone joins anew, the first one too.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_blank_machine_takes_its_place_again() {
    let site = Site::new(3, 1).await;
    let document = site.document();
    assert_eq!(site.run(&[], &document).await.exit, Exit::Done);
    for (name, last) in [("cp-1", 21), ("w-1", 31)] {
        site.blank(name, last).await;
        site.done(&[], &document).await;
        let picture = site.picture();
        assert_eq!(picture["nodes"].as_array().unwrap().len(), 4, "{picture:#}");
        assert_eq!(picture["clusters"], 1);
    }
    let id = site.kube.clusters().remove(0);
    assert_eq!(site.hosts.etcd_members(&id).len(), 3);
    assert!(site.kube.list(&id, "v1", "Node").len() == 4);
    site.nothing_unknown();
}

/// An init that breaks in the middle was begun here, and is cleaned and done again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broken_init_is_done_again() {
    let site = Site::new(1, 1).await;
    let document = site.document();
    site.world.faults.inject(lab::Fault {
        window: lab::Window::Ssh,
        matching: "cp-1 kubeadm init --config".into(),
        skip: 0,
        times: 1,
        action: lab::Action::DropAfter,
    });
    let ran = site.run(&[], &document).await;
    assert_eq!(ran.exit, Exit::Transient, "{}", ran.err);
    assert!(ran.out.is_empty());
    site.done(&[], &document).await;
    let picture = site.picture();
    assert_eq!(picture["nodes"].as_array().unwrap().len(), 2);
    assert_eq!(picture["tokens"], 0);
    assert_eq!(picture["machines"]["cp-1"]["left"], json!([]));
    assert_eq!(picture["machines"]["cp-1"]["intent"], false);
}
