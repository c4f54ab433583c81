//! Plans and files, held against what they were: `BLESS=write cargo test` writes them anew.
//!
//! A case is `golden/NAME.json`: a base (`blank` or `running` machines), a merge patch on what is seen, flags, a merge
//! patch on the document; `golden/NAME.txt` is the plan, or for `"verb": "destroy"` the teardown.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test may fail so")]

use std::path::{Path, PathBuf};

use cluster_doc::Document;
use kadm_bootstrap::args::Flags;
use kadm_bootstrap::seen::Seen;
use kadm_bootstrap::want::{Want, want};
use kadm_bootstrap::{KadmBootstrap, config, files};
use serde_json::{Value, json};
use stage::{Site, Tool as _};

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

fn document() -> Value {
    json!({
        "apiVersion": "kubeline/v1", "kind": "Cluster", "metadata": { "name": "prod" },
        "spec": {
            "network": { "cidr": "10.30.0.0/24" },
            "vip": { "address": "10.30.0.10", "routerId": 30 },
            "ssh": { "user": "kubeline" },
            "machines": [
                { "name": "cp-1", "role": "control-plane", "address": "10.30.0.21" },
                { "name": "cp-2", "role": "control-plane", "address": "10.30.0.22" },
                { "name": "cp-3", "role": "control-plane", "address": "10.30.0.23" },
                { "name": "w-1", "role": "worker", "address": "10.30.0.31", "labels": { "environment": "prod" } },
                { "name": "w-2", "role": "worker", "address": "10.30.0.32", "labels": { "environment": "nonprod" },
                  "taints": ["environment=nonprod:NoSchedule"] },
            ],
            "kubernetes": { "version": "1.36.2", "podCidr": "10.244.0.0/16", "serviceCidr": "10.96.0.0/12",
                "kubeconfig": "out/kubeconfig" },
        },
    })
}

fn wanted(document: &Value, flags: &Flags) -> Want {
    let doc = Document::parse(document.to_string()).unwrap();
    want(flags, &doc, &Site::new("/work".into(), std::sync::Arc::new(|_| None))).unwrap()
}

/// RFC 7396.
fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = json!({});
    }
    for (key, value) in patch {
        if value.is_null() {
            target.as_object_mut().unwrap().remove(key);
        } else {
            merge(&mut target[key.as_str()], value);
        }
    }
}

fn machine(want: &Want, n: usize, running: bool) -> Value {
    let node = &want.nodes[n];
    let mut host = json!({
        "hostname": node.name, "machineId": format!("id-{n}"), "productUuid": format!("uuid-{n}"),
        "macs": [format!("bc:24:11:00:00:{n:02x}")], "os": "debian 13", "cpus": 4, "memoryKib": 8_388_608,
        "time": 1_800_000_000, "cgroup": 2, "kernel": "6.12.48+deb13-amd64",
        "sysctls": { "net.ipv4.ip_forward": "0" }, "modules": ["overlay"], "units": {},
    });
    if !running {
        return host;
    }
    let mut state =
        vec!["/etc/kubernetes/kubelet.conf", "/etc/kubernetes/pki/ca.crt", "/var/lib/kubelet/config.yaml"];
    if node.control_plane {
        for component in ["kube-apiserver", "kube-controller-manager", "kube-scheduler"] {
            host["staticPods"][component] = json!("v1.36.2");
        }
        host["staticPods"]["etcd"] = json!("3.6.8-0");
        host["metrics"] = json!(["etcd", "kube-controller-manager", "kube-scheduler"]);
        state.extend([
            "/etc/kubernetes/admin.conf",
            "/etc/kubernetes/manifests/etcd.yaml",
            "/etc/kubernetes/manifests/kube-apiserver.yaml",
            "/etc/kubernetes/manifests/kube-controller-manager.yaml",
            "/etc/kubernetes/manifests/kube-scheduler.yaml",
            "/etc/kubernetes/pki/ca.key",
            "/var/lib/etcd/member",
        ]);
    }
    let mut managed = serde_json::Map::new();
    for (path, file) in &want.files.kernel {
        managed.insert(path.clone(), json!({ "sha256": file.sha256, "whose": "ours" }));
    }
    let sha256 = &want.files.containerd_2.sha256;
    managed.insert(files::CONTAINERD.into(), json!({ "sha256": sha256, "whose": "ours" }));
    let sysctls: std::collections::BTreeMap<_, _> = files::sysctls().collect();
    let exact = json!({ "version": "1.36.2-1.1", "held": true });
    merge(
        &mut host,
        &json!({
            "packages": { "kubelet": exact, "kubeadm": exact, "kubectl": exact,
                "containerd": { "version": "1.7.24~ds1-6" }, "chrony": { "version": "4.6.1-3" } },
            "units": { "containerd": "active", "kubelet": "active", "chrony": "active" },
            "files": managed, "state": state, "server": "https://10.30.0.10:6443",
            "certificates": { "ca": { "sha256": "cafe", "expires": 2_000_000_000 } },
            "modules": ["overlay", "br_netfilter"], "sysctls": sysctls,
            "kubelet": kadm_bootstrap::fields::wanted(want),
        }),
    );
    host
}

fn seen(want: &Want, running: bool) -> Value {
    let hosts: serde_json::Map<String, Value> = want
        .nodes
        .iter()
        .enumerate()
        .map(|(n, node)| (node.name.clone(), machine(want, n, running)))
        .collect();
    if !running {
        return json!({ "hosts": hosts });
    }
    let nodes: serde_json::Map<String, Value> = want
        .nodes
        .iter()
        .map(|n| {
            let keys: Vec<&String> = n.labels.keys().collect();
            let node = json!({ "ready": true, "version": "v1.36.2", "labels": n.labels, "ourLabels": keys,
                "taints": n.taints, "ourTaints": n.taints, "recorded": true });
            (n.name.clone(), node)
        })
        .collect();
    let members: Vec<Value> = want
        .control_planes()
        .enumerate()
        .map(|(n, c)| {
            json!({ "id": 12_102_231_493_559_379_567_u64 + n as u64, "name": c.name, "healthy": true,
                "peers": [format!("https://{}:2380", c.address)] })
        })
        .collect();
    json!({
        "hosts": hosts,
        "cluster": { "ca": "cafe", "lead": "cp-1", "version": "v1.36.2", "nodes": nodes, "etcd": members,
            "stored": "v1.36.2", "proxy": "v1.36.2", "proxyMode": "iptables",
            "kubelet": kadm_bootstrap::fields::wanted(want) },
        "kubeconfig": { "server": "https://10.30.0.10:6443", "ca": "cafe", "single": true, "private": true },
    })
}

fn held(path: &Path, text: &str) {
    if std::env::var_os("BLESS").is_some() {
        std::fs::write(path, text).unwrap();
    }
    let expected = std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    assert_eq!(text, expected, "{}", path.display());
}

#[test]
fn plans() {
    let mut cases = 0;
    let mut names: Vec<PathBuf> = std::fs::read_dir(golden()).unwrap().map(|e| e.unwrap().path()).collect();
    names.sort();
    for path in names.iter().filter(|p| p.extension().is_some_and(|e| e == "json")) {
        let case: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
        let list = |key: &str| -> Vec<String> {
            case[key].as_array().into_iter().flatten().map(|v| v.as_str().unwrap().to_owned()).collect()
        };
        let flags = Flags {
            reset_host: list("resetHost"),
            new_cluster: case["newCluster"] == true,
            max_unavailable: case["maxUnavailable"].as_u64().unwrap_or(1) as u16,
            ..Flags::default()
        };
        let base = wanted(&document(), &Flags::default());
        let mut seen = seen(&base, case["base"] == "running");
        merge(&mut seen, &case["seen"].as_object().map_or(json!({}), |o| json!(o)));
        let mut document = document();
        if case["document"].is_object() {
            merge(&mut document, &case["document"]);
        }
        let want = wanted(&document, &flags);
        let seen: Seen = serde_json::from_value(seen).unwrap();
        let plan = match case["verb"].as_str() {
            Some("destroy") => KadmBootstrap::teardown(&want, &seen),
            _ => KadmBootstrap::plan(&want, &seen),
        };
        let mut text = plan.text("kadm-bootstrap");
        for finding in KadmBootstrap::check(&want, &seen) {
            text.push_str(&format!("check {}: {}\n", finding.what, finding.message));
        }
        held(&path.with_extension("txt"), &text);
        // The same input gives the same plan, and what is seen can be a file.
        let again: Seen = serde_json::from_value(serde_json::to_value(&seen).unwrap()).unwrap();
        assert_eq!(seen, again);
        // A person reads steps; no secret could be in them.
        assert!(!plan.json("kadm-bootstrap").to_string().contains("token\":"));
        cases += 1;
    }
    assert!(cases >= 10, "{cases} cases");
}

#[test]
fn rendered() {
    let want = wanted(&document(), &Flags::default());
    let files = KadmBootstrap::render(&want).unwrap().unwrap();
    let mut text = String::new();
    for file in files.iter().filter(|f| f.path.starts_with("cp-1")) {
        text.push_str(&format!("==== {}\n{}", file.path, String::from_utf8_lossy(&file.content)));
    }
    let worker = want.node("w-2").unwrap();
    let join = config::join(&want, worker, "abcdef.0123456789abcdef", "sha256:0", None).unwrap();
    text.push_str(&format!("==== join of a worker\n{join}"));
    let plane = want.node("cp-2").unwrap();
    let join = config::join(&want, plane, "abcdef.0123456789abcdef", "sha256:0", Some("00ff")).unwrap();
    text.push_str(&format!("==== join of a control plane\n{join}"));
    text.push_str(&format!("==== containerd 2\n{}", want.files.containerd_3.content));
    held(&golden().join("files.txt"), &text);
    // kubeadm reads YAML; so does this.
    for part in
        config::init(&want, plane, Some("a.b"), Some("ff"), config::Etcd::Restored).unwrap().split("\n---\n")
    {
        let value: Value = serde_saphyr::from_str(part).unwrap();
        assert!(value["kind"].is_string());
    }
}
