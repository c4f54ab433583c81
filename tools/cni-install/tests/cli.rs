//! cni-install against the lab: the seven laws, and what an operator sees.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail by panicking")]

use cni_install::CniInstall;
use lab::{Action, Fault, Window};
use laws::addons::kube;
use laws::cluster::Cluster;
use laws::ssh::Site;
use laws::{Case, Trouble, run};
use serde_json::{Value, json};
use stage::Exit;

/// A cluster as kadm-bootstrap leaves it: three nodes that wait for a pod network.
async fn start() -> (Site, Cluster, Value) {
    let (site, cluster, mut spec) = laws::addons::start().await;
    spec["cni"] = json!({});
    (site, cluster, spec)
}

async fn case() -> Case {
    let (site, cluster, spec) = start().await;
    cluster.case(site, spec)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keeps_the_seven_laws() {
    let trouble = |name, fault, exits: &[Exit]| Trouble { name, fault, exits: exits.to_vec() };
    let troubles = vec![
        trouble(
            "the artefact's site fails",
            Fault {
                window: Window::Artefacts,
                matching: "GET".into(),
                skip: 0,
                times: 2,
                action: Action::Status(502, "no".into()),
            },
            &[Exit::Done],
        ),
        trouble("the API hangs", kube("installations", 1, Action::Hang), &[Exit::Transient, Exit::Done]),
    ];
    laws::addons::keeps_the_laws::<CniInstall>(troubles, case).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn installs_and_says_what_is_off() {
    let (site, cluster, spec) = start().await;
    let kube = cluster.kube.clone();
    let case = cluster.case(site, spec);
    let said = run::<CniInstall>(&case, &["apply"], &[], &case.document, None).await;
    assert_eq!(said.exit, Exit::Done, "{said}");
    let document: Value = serde_json::from_str(&said.stdout).unwrap();
    assert_eq!(document["status"]["cni-install"]["encapsulation"], "VXLANCrossSubnet");
    let said = run::<CniInstall>(&case, &["check"], &[], &case.document, None).await;
    assert_eq!(said.exit, Exit::Done, "{said}");

    // Somebody changes what is ours: check names it, apply says whose it is.
    use lab::world::Kubernetes as _;
    let endpoint = ("v1", "ConfigMap", Some("tigera-operator"), "kubernetes-services-endpoint");
    let mut changed = kube.get("law", endpoint.0, endpoint.1, endpoint.2, endpoint.3).unwrap();
    changed["data"]["KUBERNETES_SERVICE_PORT"] = "1".into();
    kube.put("law", changed);
    let said = run::<CniInstall>(&case, &["check"], &[], &case.document, None).await;
    assert_eq!(said.exit, Exit::Differs, "{said}");
    assert!(said.stdout.contains("KUBERNETES_SERVICE_PORT"), "{said}");

    let gone = run::<CniInstall>(&case, &["destroy", "--yes"], &["--prune-data"], &case.document, None).await;
    assert_eq!(gone.exit, Exit::Done, "{gone}");
    assert!(kube.get("law", "apps/v1", "Deployment", Some("tigera-operator"), "tigera-operator").is_none());
    let again =
        run::<CniInstall>(&case, &["destroy", "--yes"], &["--prune-data"], &case.document, None).await;
    assert_eq!((again.exit, again.done.len()), (Exit::Done, 0), "{again}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_node_is_held_and_the_rest_is_done() {
    let (site, cluster, spec) = start().await;
    cluster.silent("w-2");
    let lost =
        |c: &Cluster| c.get("v1", "Node", None, "w-2").is_some_and(|n| n.to_string().contains("\"Unknown\""));
    cluster.until("w-2 is lost", lost).await.unwrap();
    let case = cluster.case(site, spec);
    let said = run::<CniInstall>(&case, &["apply"], &["--timeout", "30s"], &case.document, None).await;
    assert_eq!(said.exit, Exit::Partial, "{said}");
    let document: Value = serde_json::from_str(&said.stdout).unwrap();
    assert_eq!(document["status"]["cni-install"]["held"][0]["what"], "w-2");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_cluster_it_plans_and_refuses_to_apply() {
    let (site, cluster, spec) = start().await;
    std::fs::remove_file(site.dir.join("kubeconfig")).unwrap();
    let case = cluster.case(site, spec);
    let said = run::<CniInstall>(&case, &["plan"], &[], &case.document, None).await;
    assert_eq!(said.exit, Exit::Done, "{said}");
    assert!(said.stdout.contains("create Installation default"), "{said}");
    let said = run::<CniInstall>(&case, &["apply"], &[], &case.document, None).await;
    assert_eq!(said.exit, Exit::Precondition, "{said}");
    assert!(said.stderr.contains("kadm-bootstrap") && said.stdout.is_empty(), "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_clusters_kubeconfig_and_a_wrong_digest_are_refused() {
    let (site, cluster, mut spec) = start().await;
    spec["vip"]["ports"]["api"] = 7443.into();
    let case = cluster.case(site, spec);
    let said = run::<CniInstall>(&case, &["apply"], &[], &case.document, None).await;
    assert_eq!(said.exit, Exit::Precondition, "{said}");
    assert!(said.stderr.contains("shared address is https://"), "{said}");

    let (site, cluster, mut spec) = start().await;
    for artefact in spec["artifacts"].as_array_mut().unwrap() {
        artefact["sha256"] = "0".repeat(64).into();
    }
    let case = cluster.case(site, spec);
    let said = run::<CniInstall>(&case, &["apply"], &[], &case.document, None).await;
    assert_eq!(said.exit, Exit::Precondition, "{said}");
    assert!(said.stderr.contains(&"0".repeat(64)), "{said}");
    assert!(case.journal.changing_since(0).is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_operator_is_told_and_a_killed_one_is_outlived() {
    let (site, cluster, spec) = start().await;
    let lease = |renewed: &str| {
        json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
            "metadata": {"name": "kubeline-cni-install", "namespace": "kube-system"},
            "spec": {"holderIdentity": "cni-install run by ann", "leaseDurationSeconds": 15, "renewTime": renewed}})
    };
    cluster.put(lease("2999-01-01T00:00:00.000000Z"));
    let kube = cluster.kube.clone();
    let case = cluster.case(site, spec);
    let renewing = tokio::spawn(async move {
        use lab::world::Kubernetes as _;
        for n in 1.. {
            tokio::time::sleep(std::time::Duration::from_secs(1)).await;
            kube.put("law", lease(&format!("2999-01-01T00:00:{n:02}.000000Z")));
        }
    });
    let said = run::<CniInstall>(&case, &["apply"], &[], &case.document, None).await;
    renewing.abort();
    assert_eq!(said.exit, Exit::Transient, "{said}");
    assert!(said.stderr.contains("run by ann holds the Lease") && said.stdout.is_empty(), "{said}");
    let said = run::<CniInstall>(&case, &["apply"], &[], &case.document, None).await;
    assert_eq!(said.exit, Exit::Done, "{said}");
}
