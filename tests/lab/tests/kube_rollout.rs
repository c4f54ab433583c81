//! Workloads become ready, move and go, as far as a tool can see.
#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "helpers of tests fail by panicking and say what they skip"
)]

mod kube_support;

use std::time::{Duration, Instant};

use kube_support::Lab;
use lab::kube::artefacts;
use lab::world::Kubernetes as _;
use lab::{Action, Fault, Window};
use serde_json::{Value, json};

fn condition(object: &Value, kind: &str) -> String {
    let all = object["status"]["conditions"].as_array().cloned().unwrap_or_default();
    all.iter().find(|c| c["type"] == kind).map_or("-".into(), |c| c["status"].as_str().unwrap().to_owned())
}

fn documents(text: &str) -> Vec<Value> {
    text.lines().filter_map(|l| serde_json::from_str(l).ok()).collect()
}

async fn calico(lab: &Lab) {
    for object in documents(&artefacts::tigera_operator()) {
        let (code, answer) = lab.apply(&object).await;
        assert!(code == 200 || code == 201, "{code} {answer}");
    }
    let installation = json!({"apiVersion": "operator.tigera.io/v1", "kind": "Installation", "metadata": {"name": "default"},
        "spec": {"calicoNetwork": {"ipPools": [{"cidr": "10.244.0.0/16", "encapsulation": "VXLANCrossSubnet"}]}}});
    let (code, answer) = lab.apply(&installation).await;
    assert_eq!(code, 201, "{answer}");
    lab.until("Calico is available", async || {
        condition(&lab.get("operator.tigera.io/v1", "TigeraStatus", "", "calico"), "Available") == "True"
    })
    .await;
}

fn deployment(name: &str, replicas: i64, image: &str) -> Value {
    json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name, "namespace": "default"},
        "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": name}}, "template": {"metadata": {"labels": {"app": name}},
            "spec": {"containers": [{"name": "c", "image": image, "ports": [{"containerPort": 80, "name": "web"}]}]}}}})
}

async fn cluster() -> Lab {
    let lab = Lab::start().await;
    lab.node("cp1", 21, true);
    lab.node("w1", 31, false);
    lab.node("w2", 32, false);
    lab.until("the nodes are there", async || lab.kube.list("test", "v1", "Node").len() == 3).await;
    lab
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_wait_for_the_network_plugin() {
    let lab = cluster().await;
    lab.until("kube-proxy runs everywhere", async || {
        lab.get("apps/v1", "DaemonSet", "kube-system", "kube-proxy")["status"]["numberReady"] == 3
    })
    .await;
    let node = lab.get("v1", "Node", "", "w1");
    assert_eq!(condition(&node, "Ready"), "False");
    assert!(node.to_string().contains("cni plugin not initialized"));
    assert_eq!(condition(&lab.get("apps/v1", "Deployment", "kube-system", "coredns"), "Available"), "False");
    let start = Instant::now();
    calico(&lab).await;
    for name in ["cp1", "w1", "w2"] {
        lab.until(name, async || condition(&lab.get("v1", "Node", "", name), "Ready") == "True").await;
    }
    lab.until("CoreDNS", async || {
        lab.get("apps/v1", "Deployment", "kube-system", "coredns")["status"]["availableReplicas"] == 2
    })
    .await;
    eprintln!("Calico and CoreDNS in {:?}", start.elapsed());
    let worker = lab.get("v1", "Node", "", "w1");
    assert!(worker["spec"].get("taints").is_none(), "{worker}");
    let plane = lab.get("v1", "Node", "", "cp1");
    assert_eq!(
        plane["spec"]["taints"],
        json!([{"key": "node-role.kubernetes.io/control-plane", "effect": "NoSchedule"}])
    );
    let pool = lab.get("crd.projectcalico.org/v1", "IPPool", "", "default-ipv4-ippool");
    assert_eq!(pool["spec"]["vxlanMode"], "CrossSubnet");
    assert!(lab.world.journal.unknown().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deployment_rolls_serves_and_survives_a_node() {
    let lab = cluster().await;
    calico(&lab).await;
    let ready = async |n: i64| {
        let d = lab.get("apps/v1", "Deployment", "default", "web");
        d["status"]["availableReplicas"] == n
            && d["status"]["updatedReplicas"] == n
            && d["status"]["replicas"] == n
            && d["status"]["observedGeneration"] == d["metadata"]["generation"]
    };
    lab.apply(&deployment("web", 4, "web:1")).await;
    lab.until("four replicas", async || ready(4).await).await;
    // Applied again: nothing changes, not even the resource version, though controllers wrote in between.
    let before = lab.get("apps/v1", "Deployment", "default", "web")["metadata"]["resourceVersion"].clone();
    let (code, answer) = lab.apply(&deployment("web", 4, "web:1")).await;
    assert_eq!((code, &answer["metadata"]["resourceVersion"]), (200, &before));

    let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web", "namespace": "default"},
        "spec": {"type": "NodePort", "selector": {"app": "web"}, "ports": [{"name": "web", "port": 80, "targetPort": "web", "nodePort": 30080}]}});
    lab.apply(&service).await;
    let ping = async |last: u8| {
        let url = format!("http://{}:30080/ping", lab.world.net.host(last));
        match lab.nobody.get(url).timeout(Duration::from_secs(2)).send().await {
            Ok(answer) => answer.text().await.unwrap() == "OK",
            Err(_) => false,
        }
    };
    lab.until("the node port answers", async || ping(31).await && ping(32).await).await;
    let endpoints = lab.get("v1", "Endpoints", "default", "web");
    assert_eq!(endpoints["subsets"][0]["addresses"].as_array().unwrap().len(), 4);

    lab.apply(&deployment("web", 4, "web:2")).await;
    lab.until("the new image", async || {
        ready(4).await
            && lab
                .kube
                .list("test", "v1", "Pod")
                .iter()
                .filter(|p| p["metadata"]["labels"]["app"] == "web")
                .all(|p| p["spec"]["containers"][0]["image"] == "web:2")
    })
    .await;
    let sets = lab.kube.list("test", "apps/v1", "ReplicaSet");
    assert_eq!(
        sets.iter().filter(|s| s["metadata"]["name"].as_str().unwrap().starts_with("web-")).count(),
        2
    );

    lab.kube.kubelet_down("test", "w1");
    lab.until("w1 is NotReady", async || condition(&lab.get("v1", "Node", "", "w1"), "Ready") == "Unknown")
        .await;
    lab.until("all replicas are elsewhere", async || {
        let pods = lab.kube.list("test", "v1", "Pod");
        pods.iter()
            .filter(|p| {
                p["metadata"]["labels"]["app"] == "web"
                    && p["spec"]["nodeName"] == "w2"
                    && condition(p, "Ready") == "True"
            })
            .count()
            == 4
    })
    .await;
    lab.until("its node port is closed", async || !ping(31).await && ping(32).await).await;
    lab.node("w1", 31, false);
    lab.until("w1 is back", async || condition(&lab.get("v1", "Node", "", "w1"), "Ready") == "True").await;
    lab.until("its port is open", async || ping(31).await).await;

    lab.request("DELETE", "/apis/apps/v1/namespaces/default/deployments/web", "", None).await;
    lab.until("all pods are collected", async || {
        !lab.kube.list("test", "v1", "Pod").iter().any(|p| p["metadata"]["labels"]["app"] == "web")
    })
    .await;
    lab.until("the port closes", async || !ping(32).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn claims_jobs_and_stateful_sets() {
    let lab = cluster().await;
    calico(&lab).await;
    let class = json!({"apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata": {"name": "nfs-prod",
        "annotations": {"storageclass.kubernetes.io/is-default-class": "true"}}, "provisioner": "nfs/prod"});
    lab.apply(&class).await;
    let set = json!({"apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": {"name": "db", "namespace": "default"},
        "spec": {"serviceName": "db", "replicas": 2, "selector": {"matchLabels": {"app": "db"}}, "template": {"metadata": {"labels": {"app": "db"}},
            "spec": {"containers": [{"name": "c", "image": "db:1", "volumeMounts": [{"name": "data", "mountPath": "/data"}]}]}},
        "volumeClaimTemplates": [{"metadata": {"name": "data"}, "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}}]}});
    let (code, answer) = lab.apply(&set).await;
    assert_eq!(code, 201, "{answer}");
    lab.until("the pod waits for its claim", async || {
        condition(&lab.get("v1", "Pod", "default", "db-0"), "PodScheduled") == "False"
    })
    .await;
    let mut provisioner = deployment("nfs", 1, "nfs:1");
    provisioner["spec"]["template"]["spec"]["containers"][0]["env"] = json!([{"name": "PROVISIONER_NAME", "value": "nfs/prod"},
        {"name": "NFS_SERVER", "value": "10.0.0.9"}, {"name": "NFS_PATH", "value": "/srv"}]);
    lab.apply(&provisioner).await;
    lab.until("both members run", async || {
        lab.get("apps/v1", "StatefulSet", "default", "db")["status"]["readyReplicas"] == 2
    })
    .await;
    let claim = lab.get("v1", "PersistentVolumeClaim", "default", "data-db-1");
    assert_eq!(
        (claim["status"]["phase"].as_str(), claim["spec"]["storageClassName"].as_str()),
        (Some("Bound"), Some("nfs-prod"))
    );
    let volume = lab.get("v1", "PersistentVolume", "", claim["spec"]["volumeName"].as_str().unwrap());
    assert!(
        volume["spec"]["nfs"]["path"].as_str().unwrap().starts_with("/srv/default-data-db-1-pvc-"),
        "{volume}"
    );

    let job = json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "once", "namespace": "default"},
        "spec": {"template": {"spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "x:1"}]}}}});
    let (code, answer) = lab.apply(&job).await;
    assert_eq!(code, 201, "{answer}");
    lab.until("the job completes", async || {
        condition(&lab.get("batch/v1", "Job", "default", "once"), "Complete") == "True"
    })
    .await;

    // A namespace takes everything in it along.
    lab.apply(&json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "n"}})).await;
    let mut there = deployment("web", 2, "web:1");
    there["metadata"]["namespace"] = "n".into();
    lab.until("the account", async || lab.get("v1", "ServiceAccount", "n", "default").is_object()).await;
    lab.apply(&there).await;
    lab.until("it runs", async || {
        lab.get("apps/v1", "Deployment", "n", "web")["status"]["availableReplicas"] == 2
    })
    .await;
    lab.request("DELETE", "/api/v1/namespaces/n", "", None).await;
    lab.until("it is gone", async || lab.get("v1", "Namespace", "", "n").is_null()).await;
    assert!(!lab.kube.list("test", "v1", "Pod").iter().any(|p| p["metadata"]["namespace"] == "n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_and_certificates() {
    let lab = cluster().await;
    calico(&lab).await;
    for object in documents(&artefacts::cert_manager()).iter().chain(&documents(&artefacts::traefik_crds())) {
        let (code, answer) = lab.apply(object).await;
        assert!(code == 200 || code == 201, "{code} {answer}");
    }
    let issuer = json!({"apiVersion": "cert-manager.io/v1", "kind": "ClusterIssuer", "metadata": {"name": "vault"}, "spec": {"vault": {
        "server": "https://vault", "path": "pki/sign/x", "auth": {"appRole": {"path": "approle", "roleId": "r", "secretRef": {"name": "vault-id", "key": "secretId"}}}}}});
    lab.apply(&issuer).await;
    lab.until("the secret is missed", async || {
        condition(&lab.get("cert-manager.io/v1", "ClusterIssuer", "", "vault"), "Ready") == "False"
    })
    .await;
    lab.apply(&json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "vault-id", "namespace": "cert-manager"}, "stringData": {"secretId": "s"}})).await;
    lab.until("the issuer", async || {
        condition(&lab.get("cert-manager.io/v1", "ClusterIssuer", "", "vault"), "Ready") == "True"
    })
    .await;
    lab.apply(&json!({"apiVersion": "cert-manager.io/v1", "kind": "Certificate", "metadata": {"name": "c", "namespace": "default"},
        "spec": {"secretName": "c-tls", "dnsNames": ["a.example"], "issuerRef": {"kind": "ClusterIssuer", "name": "vault"}}})).await;
    lab.until("its secret", async || {
        lab.get("v1", "Secret", "default", "c-tls")["data"]["tls.crt"].is_string()
    })
    .await;
    let hooks = lab.get(
        "admissionregistration.k8s.io/v1",
        "ValidatingWebhookConfiguration",
        "",
        "cert-manager-webhook",
    );
    assert!(hooks["webhooks"][0]["clientConfig"]["caBundle"].is_string());

    let mut server = deployment("metrics-server", 1, "metrics:1");
    server["metadata"]["namespace"] = "kube-system".into();
    lab.apply(&server).await;
    lab.apply(&json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "metrics-server", "namespace": "kube-system"},
        "spec": {"selector": {"app": "metrics-server"}, "ports": [{"name": "https", "port": 443, "targetPort": "web"}]}})).await;
    lab.apply(&json!({"apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService", "metadata": {"name": "v1beta1.metrics.k8s.io"},
        "spec": {"group": "metrics.k8s.io", "version": "v1beta1", "groupPriorityMinimum": 100, "versionPriority": 100,
            "insecureSkipTLSVerify": true, "service": {"name": "metrics-server", "namespace": "kube-system"}}})).await;
    lab.until("the API is available", async || {
        condition(
            &lab.get("apiregistration.k8s.io/v1", "APIService", "", "v1beta1.metrics.k8s.io"),
            "Available",
        ) == "True"
    })
    .await;
    let (code, nodes) = lab.request("GET", "/apis/metrics.k8s.io/v1beta1/nodes", "", None).await;
    assert_eq!((code, nodes["items"].as_array().unwrap().len()), (200, 3));
}

#[tokio::test(flavor = "multi_thread")]
async fn faults_journal_and_restarts() {
    let lab = Lab::start().await;
    let fault = |action| Fault {
        window: Window::Kube,
        matching: "GET /api/v1/nodes".into(),
        skip: 0,
        times: 1,
        action,
    };
    lab.world.faults.inject(fault(Action::Status(503, "apiserver not ready".into())));
    let (code, answer) = lab.request("GET", "/api/v1/nodes", "", None).await;
    assert_eq!((code, answer["message"].as_str().unwrap()), (503, "apiserver not ready"));
    lab.world.faults.inject(fault(Action::DropBefore));
    assert!(lab.client.get(lab.url("/api/v1/nodes")).send().await.is_err());
    assert_eq!(lab.request("GET", "/api/v1/nodes", "", None).await.0, 200);

    let mark = lab.world.journal.len();
    let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a", "namespace": "default"}, "data": {"k": "v"}});
    lab.request(
        "PATCH",
        "/api/v1/namespaces/default/configmaps/a?fieldManager=t&dryRun=All",
        "application/apply-patch+yaml",
        Some(&map),
    )
    .await;
    assert!(lab.world.journal.changing_since(mark).is_empty());
    lab.apply(&map).await;
    let changes = lab.world.journal.changing_since(mark);
    assert_eq!(changes.len(), 1);
    assert_eq!(
        (changes[0].target.as_str(), changes[0].request.as_str()),
        ("cp1", "PATCH /api/v1/namespaces/default/configmaps/a")
    );
    let (code, _) = lab.request("GET", "/api/v1/replicationcontrollers", "", None).await;
    assert_eq!((code, lab.world.journal.unknown().len()), (501, 1));

    lab.kube.api_down("cp1");
    lab.until("it is down", async || lab.client.get(lab.url("/readyz")).send().await.is_err()).await;
    lab.api_up();
    lab.until("it is up", async || lab.client.get(lab.url("/readyz")).send().await.is_ok()).await;
    assert_eq!(lab.get("v1", "ConfigMap", "default", "a")["data"]["k"], "v");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_thousand_objects_are_quick() {
    let lab = cluster().await;
    let start = Instant::now();
    for n in 0..2000 {
        lab.kube.put("test", json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": format!("c{n}"), "namespace": "default"}, "data": {"k": "v"}}));
    }
    let mut path = "/api/v1/namespaces/default/configmaps?limit=500".to_owned();
    let mut seen = 0;
    loop {
        let (code, page) = lab.request("GET", &path, "", None).await;
        assert_eq!(code, 200);
        seen += page["items"].as_array().unwrap().len();
        match page["metadata"]["continue"].as_str() {
            Some(token) => path = format!("/api/v1/namespaces/default/configmaps?limit=500&continue={token}"),
            None => break,
        }
    }
    assert_eq!(seen, 2001);
    eprintln!("2000 objects in {:?}", start.elapsed());
}
