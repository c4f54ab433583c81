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
    let (site, cluster, mut spec) = start().await;
    spec["cni"] = json!({"policies": {}, "bgp": {"asNumber": 64600, "peers": [{"address": "192.0.2.1", "asNumber": 64601}]}});
    cluster.case(site, spec)
}

/// The same from the publisher's manifest.
async fn without_operator() -> Case {
    let (site, cluster, mut spec) = start().await;
    spec["cni"] = json!({"install": "manifest", "blockSize": 25, "mtu": 1450});
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
    assert!(
        said.stdout.contains(".data.KUBERNETES_SERVICE_PORT belongs to ")
            && said.stdout.contains("--force-conflicts"),
        "{said}"
    );
    let said = run::<CniInstall>(&case, &["check"], &["--force-conflicts"], &case.document, None).await;
    assert!(
        said.stdout.contains(".data.KUBERNETES_SERVICE_PORT: \"1\" -> \"")
            && said.stdout.contains("(set by "),
        "{said}"
    );

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
    let pinned = format!("pinned is {}", "0".repeat(64));
    assert!(said.stderr.contains("has the SHA-256 ") && said.stderr.contains(&pinned), "{said}");
    assert!(!said.stderr.contains(&format!("has the SHA-256 {}", "0".repeat(64))), "{said}");
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keeps_the_seven_laws_without_the_operator() {
    laws::addons::keeps_the_laws::<CniInstall>(Vec::new(), without_operator).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_publishers_manifest_is_adapted_and_what_cannot_change_is_held() {
    let (site, cluster, mut spec) = start().await;
    spec["cni"] =
        json!({"install": "manifest", "blockSize": 25, "mtu": 1450, "autodetect": "interface=ens.*"});
    let kube = cluster.kube.clone();
    let case = cluster.case(site, spec);
    let said = run::<CniInstall>(&case, &["apply"], &[], &case.document, None).await;
    assert_eq!(said.exit, Exit::Done, "{said}");
    use lab::world::Kubernetes as _;
    let pool = kube.get("law", "crd.projectcalico.org/v1", "IPPool", None, "default-ipv4-ippool").unwrap();
    assert_eq!(pool["spec"]["blockSize"], 25);
    assert_eq!(
        (&pool["spec"]["vxlanMode"], &pool["spec"]["ipipMode"]),
        (&json!("CrossSubnet"), &json!("Never"))
    );
    let config = kube.get("law", "v1", "ConfigMap", Some("kube-system"), "calico-config").unwrap();
    assert_eq!(config["data"]["veth_mtu"], "1450");
    let node =
        kube.get("law", "apps/v1", "DaemonSet", Some("kube-system"), "calico-node").unwrap().to_string();
    assert!(node.contains("interface=ens.*") && node.contains("kubernetes-services-endpoint"), "{node}");

    // A pool cannot be changed: nothing is done, and the operator is told what would do.
    let mark = case.journal.len();
    let other = case.document.replace("\"blockSize\": 25", "\"blockSize\": 26");
    let said = run::<CniInstall>(&case, &["apply"], &[], &other, None).await;
    assert_eq!(said.exit, Exit::Precondition, "{said}");
    assert!(said.stderr.contains("blocks of /25") && said.stderr.contains("\"blockSize\": 25"), "{said}");
    assert!(case.journal.changing_since(mark).is_empty());
}

/// The data planes beside a kube-proxy that fits, and one that does not: the operator takes what it is given.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn data_planes_are_installed_beside_the_kube_proxy_that_they_need() {
    use lab::world::Kubernetes as _;
    let (site, cluster, mut spec) = start().await;
    spec["cni"] = json!({"dataplane": "ebpf", "wireguard": true});
    let kube = cluster.kube.clone();
    let case = cluster.case(site, spec);
    let said = run::<CniInstall>(&case, &["apply"], &[], &case.document, None).await;
    assert_eq!(said.exit, Exit::Done, "{said}");
    let felix = kube.get("law", "crd.projectcalico.org/v1", "FelixConfiguration", None, "default").unwrap();
    assert_eq!(felix["spec"]["wireguardEnabled"], true);
    let proxy = kube.get("law", "apps/v1", "DaemonSet", Some("kube-system"), "kube-proxy").unwrap();
    let selector = &proxy["spec"]["template"]["spec"]["nodeSelector"];
    assert_eq!(selector["operator.tigera.io/disable-kube-proxy"], "true");
    let said = run::<CniInstall>(&case, &["destroy", "--plan"], &[], &case.document, None).await;
    assert!(said.stdout.contains("held  kube-proxy: ") && said.stdout.contains("nodeSelector"), "{said}");

    // Not in this mode of kube-proxy: nothing is sent, and the way to the right mode is shown.
    let mark = case.journal.len();
    let other = case.document.replace("\"ebpf\"", "\"nftables\"");
    let said = run::<CniInstall>(&case, &["apply"], &[], &other, None).await;
    assert_eq!(said.exit, Exit::Precondition, "{said}");
    assert!(
        said.stderr.contains("kube-proxy works in iptables mode") && said.stderr.contains("mode: nftables"),
        "{said}"
    );
    assert!(case.journal.changing_since(mark).is_empty());
    let mut map = kube.get("law", "v1", "ConfigMap", Some("kube-system"), "kube-proxy").unwrap();
    map["data"]["config.conf"] = "kind: KubeProxyConfiguration\nmode: nftables\n".into();
    kube.put("law", map);
    // Calico is switched over, and that the operator leaves kube-proxy off is no success.
    let said = run::<CniInstall>(&case, &["apply"], &[], &other, None).await;
    assert_eq!(said.exit, Exit::Precondition, "{said}");
    assert!(said.stderr.contains("it was turned off for eBPF"), "{said}");
    let installation = kube.get("law", "operator.tigera.io/v1", "Installation", None, "default").unwrap();
    assert_eq!(installation["spec"]["calicoNetwork"]["linuxDataplane"], "Nftables");
    let mut proxy = kube.get("law", "apps/v1", "DaemonSet", Some("kube-system"), "kube-proxy").unwrap();
    let selector = proxy["spec"]["template"]["spec"]["nodeSelector"].as_object_mut().unwrap();
    selector.remove("operator.tigera.io/disable-kube-proxy").unwrap();
    kube.put("law", proxy);
    let said = run::<CniInstall>(&case, &["apply"], &[], &other, None).await;
    assert_eq!((said.exit, said.done.len()), (Exit::Done, 0), "{said}");
}

/// What Calico leaves on a node, and what somebody else has there.
const REMAINS: [&str; 3] =
    ["/etc/cni/net.d/10-calico.conflist", "/etc/cni/net.d/calico-kubeconfig", "/var/lib/calico/nodename"];
const THEIRS: &str = "/etc/cni/net.d/99-loopback.conf";

/// A cluster with Calico, and nodes that answer SSH and bear its traces.
async fn with_traces() -> (Case, lab::hosts::Hosts) {
    let (site, cluster, mut spec) = laws::addons::start_with_ssh().await;
    spec["cni"] = json!({});
    let hosts = site.hosts.clone();
    let case = cluster.case(site, spec);
    let said = run::<CniInstall>(&case, &["apply"], &[], &case.document, None).await;
    assert_eq!(said.exit, Exit::Done, "{said}");
    for (name, ..) in laws::addons::NODES {
        let host = hosts.find(name).unwrap();
        for file in REMAINS.iter().chain([&THEIRS]) {
            let _ = host.machine().fs.mkdir_p(file.rsplit_once('/').unwrap().0, 0o755);
            host.machine().fs.put(file, "x", 0o644, "root", "root");
        }
    }
    (case, hosts)
}

fn all_clean(hosts: &lab::hosts::Hosts) {
    for (name, ..) in laws::addons::NODES {
        let host = hosts.find(name).unwrap();
        for file in REMAINS {
            assert!(!host.machine().fs.exists(file), "{name}: {file}");
        }
        assert!(host.machine().fs.exists(THEIRS), "{name}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn destroy_leaves_nodes_clean_and_what_is_not_calicos_alone() {
    let destroy = ["destroy", "--yes"];
    let (case, hosts) = with_traces().await;
    let gone = run::<CniInstall>(&case, &destroy, &["--prune-data"], &case.document, None).await;
    assert_eq!(gone.exit, Exit::Done, "{gone}");
    assert!(gone.done.iter().any(|step| step == "clean w-2 of Calico"), "{:?}", gone.done);
    all_clean(&hosts);
    let again = run::<CniInstall>(&case, &destroy, &["--prune-data"], &case.document, None).await;
    assert_eq!((again.exit, again.done.len()), (Exit::Done, 0), "{again}");

    // Killed after each of its steps, and run again.
    for k in 1..=gone.done.len() {
        let (case, hosts) = with_traces().await;
        let dead = run::<CniInstall>(&case, &destroy, &["--prune-data"], &case.document, Some(k)).await;
        assert!(dead.crashed, "{dead}");
        let again = run::<CniInstall>(&case, &destroy, &["--prune-data"], &case.document, None).await;
        assert_eq!(again.exit, Exit::Done, "killed after step {k}: {again}");
        all_clean(&hosts);
        assert!(case.journal.unknown().is_empty());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn images_and_artifacts_are_listed() {
    let (site, cluster, mut spec) = start().await;
    spec["registry"] = "mirror.example.org/k".into();
    spec["cni"] = json!({"install": "manifest"});
    let case = cluster.case(site, spec);
    let said = run::<CniInstall>(&case, &["images", "--upstream"], &[], &case.document, None).await;
    assert_eq!(said.exit, Exit::Done, "{said}");
    let lines: Vec<&str> = said.stdout.lines().collect();
    assert_eq!(lines.len(), 4, "{said}");
    assert!(
        lines.contains(&"quay.io/calico/node:v3.32.1 mirror.example.org/k/calico/node:v3.32.1"),
        "{said}"
    );
    let said = run::<CniInstall>(&case, &["artifacts"], &[], &case.document, None).await;
    assert!(
        said.stdout.starts_with("calico-vxlan ") && said.stdout.ends_with("/calico-vxlan.yaml\n"),
        "{said}"
    );

    // What another operator than the pinned one chooses, nobody here knows.
    let other = case.document.replace("\"manifest\"", "\"operator\"");
    let said = run::<CniInstall>(&case, &["images"], &[], &other, None).await;
    assert_eq!(said.exit, Exit::Precondition, "{said}");
    assert!(said.stderr.contains("--print-images=list") && said.stdout.is_empty(), "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_probe_tells_what_reaches_what_and_leaves_nothing() {
    let (site, cluster, spec) = start().await;
    let kube = cluster.kube.clone();
    let case = cluster.case(site, spec);
    let said = run::<CniInstall>(&case, &["apply"], &[], &case.document, None).await;
    assert_eq!(said.exit, Exit::Done, "{said}");
    let said = run::<CniInstall>(&case, &["check"], &["--probe"], &case.document, None).await;
    assert_eq!(said.exit, Exit::Done, "{said}");
    assert!(
        said.stderr.contains("\nfrom \\ to  cp-1  w-1  w-2  DNS  API\ncp-1       .     ok   ok   ok   ok\n"),
        "{said}"
    );
    use lab::world::Kubernetes as _;
    assert!(kube.get("law", "v1", "Namespace", None, "kubeline-probe").is_none());
    assert!(case.journal.unknown().is_empty());

    // One way is cut, and names are not found: both are told, by node.
    let cut = Action::Status(417, "{\"errors\": [\"dial tcp 10.244.0.1:8080: i/o timeout\"]}".into());
    case.faults.inject(laws::addons::kube("port=8080", 1, cut));
    case.faults.inject(laws::addons::kube(
        "host=kubernetes",
        1,
        Action::Status(400, "lookup kubernetes: no such host".into()),
    ));
    let said = run::<CniInstall>(&case, &["check"], &["--probe"], &case.document, None).await;
    assert_eq!(said.exit, Exit::Differs, "{said}");
    assert!(said.stdout.contains("does not reach that of") && said.stdout.contains("i/o timeout"), "{said}");
    assert!(
        said.stdout.contains("its pod finds no name: ") && said.stdout.contains("lookup kubernetes"),
        "{said}"
    );
    // What a killed probe leaves is told, and the next one removes it.
    kube.put("law", json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "kubeline-probe"}}));
    let said = run::<CniInstall>(&case, &["check"], &[], &case.document, None).await;
    assert_eq!(said.exit, Exit::Differs, "{said}");
    assert!(said.stdout.contains("has left its namespace"), "{said}");
    let said = run::<CniInstall>(&case, &["check"], &["--probe"], &case.document, None).await;
    assert_eq!(said.exit, Exit::Done, "{said}");
    assert!(kube.get("law", "v1", "Namespace", None, "kubeline-probe").is_none());

    // No other verb makes pods.
    let mark = case.journal.len();
    let said = run::<CniInstall>(&case, &["plan"], &["--probe"], &case.document, None).await;
    assert_eq!(said.exit, Exit::Done, "{said}");
    assert!(case.journal.changing_since(mark).is_empty());
}
