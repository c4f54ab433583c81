//! Pods on their nodes: what a kubelet starts, reports and ends.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::{Plant, condition, conditions, event, going, list, set_status, text};
use crate::kube::store::{Store, key_of};
use crate::kube::verbs::now;

/// True when the pod is Ready.
pub(crate) fn is_ready(pod: &Value) -> bool {
    super::holds(pod, "Ready")
}

/// True when the pod counts as one of its controller's: neither done nor going.
pub(crate) fn is_active(pod: &Value) -> bool {
    !going(pod) && !matches!(text(pod, "/status/phase"), "Succeeded" | "Failed")
}

/// One pass over all pods that have a node.
pub(crate) fn run(store: &mut Store, plant: &mut Plant) {
    let placed: Vec<Arc<Value>> =
        store.list("pods", None).filter(|p| p["spec"].get("nodeName").is_some()).cloned().collect();
    for pod in placed {
        let node = text(&pod, "/spec/nodeName");
        let Some(cni) = plant.running(node).map(|m| m.cni) else { continue };
        if store.get("nodes", "", node).is_none() {
            continue;
        }
        let uid = text(&pod, "/metadata/uid").to_owned();
        if going(&pod) {
            let held = !list(&pod, "/metadata/finalizers").is_empty();
            if !held && plant.due(format!("stop {uid}"), Duration::from_secs(1)) {
                let (ns, name) = key_of(&pod);
                store.take("pods", &ns, &name);
            }
            continue;
        }
        match text(&pod, "/status/phase") {
            "Pending" => start(store, plant, &pod, &uid, cni),
            "Running" => {
                let finite = text(&pod, "/spec/restartPolicy") != "Always";
                if finite && plant.due(format!("work {uid}"), Duration::from_secs(2)) {
                    finish(store, &pod);
                } else if !is_ready(&pod) {
                    // Its node was silent and is back.
                    let status = running(&pod, text(&pod, "/status/podIP"), text(&pod, "/status/hostIP"));
                    set_status(store, "kubelet", &pod, status);
                }
            }
            _ => {}
        }
    }
}

enum Obstacle {
    /// The sandbox is not there yet, or a volume is missing: `ContainerCreating`.
    Creating(&'static str, String),
    /// A variable refers to nothing: `CreateContainerConfigError`.
    Config(String),
}

fn start(store: &mut Store, plant: &mut Plant, pod: &Value, uid: &str, cni: bool) {
    let host = pod["spec"]["hostNetwork"] == true;
    let node_ip = |store: &Store| {
        let node = store.get("nodes", "", text(pod, "/spec/nodeName"));
        node.map(|n| {
            let found = list(n, "/status/addresses").iter().find(|a| a["type"] == "InternalIP");
            found.map(|a| text(a, "/address").to_owned()).unwrap_or_default()
        })
        .unwrap_or_default()
    };
    let obstacle = if !host && !cni {
        Some(Obstacle::Creating(
            "NetworkNotReady",
            "network is not ready: container runtime network not ready: NetworkReady=false reason:NetworkPluginNotReady message:Network plugin returns error: cni plugin not initialized".into(),
        ))
    } else {
        missing(store, pod)
    };
    if let Some(obstacle) = obstacle {
        let (reason, message) = match &obstacle {
            Obstacle::Creating(reason, message) => {
                event(store, pod, "Warning", reason, message, "kubelet");
                ("ContainerCreating", None)
            }
            Obstacle::Config(message) => ("CreateContainerConfigError", Some(message.as_str())),
        };
        let host_ip = node_ip(store);
        set_status(store, "kubelet", pod, waiting(pod, reason, message, &host_ip));
        return;
    }
    if !plant.due(format!("pull {uid}"), Duration::from_secs(3)) {
        let host_ip = node_ip(store);
        set_status(store, "kubelet", pod, waiting(pod, "ContainerCreating", None, &host_ip));
        return;
    }
    let host_ip = node_ip(store);
    let ip = if host { host_ip.clone() } else { pod_ip(store, text(pod, "/spec/nodeName")) };
    set_status(store, "kubelet", pod, running(pod, &ip, &host_ip));
}

// The first free address of the node's network.
fn pod_ip(store: &Store, node: &str) -> String {
    let cidr = store.get("nodes", "", node).map(|n| text(n, "/spec/podCIDR").to_owned()).unwrap_or_default();
    let base = cidr.split('/').next().and_then(|b| b.parse::<std::net::Ipv4Addr>().ok());
    let base = base.unwrap_or(std::net::Ipv4Addr::new(10, 244, 0, 0));
    let used: BTreeSet<String> = store
        .list("pods", None)
        .map(|p| text(p, "/status/podIP").to_owned())
        .filter(|ip| !ip.is_empty())
        .collect();
    (2..u32::MAX)
        .map(|n| std::net::Ipv4Addr::from(u32::from(base) + n).to_string())
        .find(|ip| !used.contains(ip))
        .unwrap_or_default()
}

// The first thing that the pod refers to and that is not there.
fn missing(store: &Store, pod: &Value) -> Option<Obstacle> {
    let ns = text(pod, "/metadata/namespace");
    let absent = |kind: &str, name: &str| store.get(kind, ns, name).is_none();
    let optional = |v: &Value| v["optional"] == true;
    let mount = |volume: &str, what: String| {
        Some(Obstacle::Creating(
            "FailedMount",
            format!("MountVolume.SetUp failed for volume \"{volume}\" : {what}"),
        ))
    };
    for volume in list(pod, "/spec/volumes") {
        let label = text(volume, "/name");
        let sources = [volume].into_iter().chain(list(volume, "/projected/sources"));
        for source in sources {
            let secret = &source["secret"];
            let name = if secret.get("secretName").is_some() {
                text(secret, "/secretName")
            } else {
                text(secret, "/name")
            };
            if secret.is_object() && !optional(secret) && absent("secrets", name) {
                return mount(label, format!("secret \"{name}\" not found"));
            }
            let map = &source["configMap"];
            if map.is_object() && !optional(map) {
                let name = text(map, "/name");
                let Some(found) = store.get("configmaps", ns, name) else {
                    return mount(label, format!("configmap \"{name}\" not found"));
                };
                let has =
                    |key: &str| found["data"].get(key).is_some() || found["binaryData"].get(key).is_some();
                if let Some(item) = list(map, "/items").iter().find(|i| !has(text(i, "/key"))) {
                    return mount(
                        label,
                        format!("references non-existent config key: {}", text(item, "/key")),
                    );
                }
            }
        }
        let claim = text(volume, "/persistentVolumeClaim/claimName");
        if !claim.is_empty() {
            match store.get("persistentvolumeclaims", ns, claim) {
                None => return mount(label, format!("persistentvolumeclaim \"{claim}\" not found")),
                Some(c) if c["status"]["phase"] != "Bound" => {
                    return mount(label, format!("PVC {ns}/{claim} is not bound"));
                }
                Some(_) => {}
            }
        }
    }
    let config = |what: String| Some(Obstacle::Config(what));
    for container in list(pod, "/spec/initContainers").iter().chain(list(pod, "/spec/containers")) {
        for env in list(container, "/env") {
            for (field, kind, word) in
                [("secretKeyRef", "secrets", "secret"), ("configMapKeyRef", "configmaps", "configmap")]
            {
                let r = &env["valueFrom"][field];
                if !r.is_object() || optional(r) {
                    continue;
                }
                let (name, key) = (text(r, "/name"), text(r, "/key"));
                match store.get(kind, ns, name) {
                    None => return config(format!("{word} \"{name}\" not found")),
                    Some(o) if o["data"].get(key).is_none() => {
                        return config(format!(
                            "couldn't find key {key} in {} {ns}/{name}",
                            if word == "secret" { "Secret" } else { "ConfigMap" }
                        ));
                    }
                    Some(_) => {}
                }
            }
        }
        for from in list(container, "/envFrom") {
            for (field, kind, word) in
                [("secretRef", "secrets", "secret"), ("configMapRef", "configmaps", "configmap")]
            {
                let r = &from[field];
                if r.is_object() && !optional(r) && absent(kind, text(r, "/name")) {
                    return config(format!("{word} \"{}\" not found", text(r, "/name")));
                }
            }
        }
    }
    None
}

fn states(pod: &Value, pointer: &str, state: &Value, ready: bool) -> Vec<Value> {
    list(pod, pointer)
        .iter()
        .map(|c| {
            let mut status = json!({"name": c["name"], "image": c["image"], "imageID": "", "lastState": {}, "ready": ready,
                "restartCount": 0, "started": state.get("running").is_some(), "state": state});
            if state.get("waiting").is_none() {
                let id = crate::kube::store::hash(&json!([pod["metadata"]["uid"], c["name"]]));
                status["containerID"] = format!("containerd://{id}").into();
                status["imageID"] = format!("sha256:{}", crate::kube::store::hash(&c["image"])).into();
            }
            status
        })
        .collect()
}

fn base(pod: &Value) -> Value {
    let mut status = pod["status"].clone();
    if status.get("startTime").is_none() {
        status["startTime"] = now().into();
    }
    status["observedGeneration"] = pod["metadata"]["generation"].clone();
    status
}

fn set_host(status: &mut Value, host_ip: &str) {
    if !host_ip.is_empty() {
        status["hostIP"] = host_ip.into();
        status["hostIPs"] = json!([{"ip": host_ip}]);
    }
}

fn waiting(pod: &Value, reason: &str, message: Option<&str>, host_ip: &str) -> Value {
    let mut status = base(pod);
    set_host(&mut status, host_ip);
    let mut state = json!({"waiting": {"reason": reason}});
    if let Some(message) = message {
        state["waiting"]["message"] = message.into();
    }
    status["phase"] = "Pending".into();
    status["containerStatuses"] = states(pod, "/spec/containers", &state, false).into();
    let names: Vec<&str> = list(pod, "/spec/containers").iter().map(|c| text(c, "/name")).collect();
    let unready = format!("containers with unready status: [{}]", names.join(" "));
    let mut all = conditions(pod);
    plain(&mut all, "Initialized", "True");
    condition(&mut all, "Ready", "False", "ContainersNotReady", &unready);
    condition(&mut all, "ContainersReady", "False", "ContainersNotReady", &unready);
    plain(&mut all, "PodScheduled", "True");
    status["conditions"] = all.into();
    status
}

fn running(pod: &Value, ip: &str, host_ip: &str) -> Value {
    let mut status = base(pod);
    set_host(&mut status, host_ip);
    let at = now();
    status["phase"] = "Running".into();
    if !ip.is_empty() {
        status["podIP"] = ip.into();
        status["podIPs"] = json!([{"ip": ip}]);
    }
    status["containerStatuses"] =
        states(pod, "/spec/containers", &json!({"running": {"startedAt": at}}), true).into();
    if !list(pod, "/spec/initContainers").is_empty() {
        let done =
            json!({"terminated": {"exitCode": 0, "reason": "Completed", "startedAt": at, "finishedAt": at}});
        status["initContainerStatuses"] = states(pod, "/spec/initContainers", &done, true).into();
    }
    let mut all = conditions(pod);
    for kind in ["PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled"] {
        plain(&mut all, kind, "True");
    }
    status["conditions"] = all.into();
    status
}

// A condition without a reason, as good ones of pods are.
fn plain(conditions: &mut Vec<Value>, kind: &str, status: &str) {
    condition(conditions, kind, status, "", "");
    for c in conditions.iter_mut().filter(|c| c["type"] == kind) {
        if let Some(map) = c.as_object_mut() {
            map.shift_remove("reason");
            map.shift_remove("message");
        }
    }
}

fn finish(store: &mut Store, pod: &Value) {
    let mut status = base(pod);
    let at = now();
    let done = json!({"terminated": {"exitCode": 0, "reason": "Completed", "startedAt": status["startTime"], "finishedAt": at}});
    status["phase"] = "Succeeded".into();
    status["containerStatuses"] = states(pod, "/spec/containers", &done, false).into();
    let mut all = conditions(pod);
    for kind in ["Ready", "ContainersReady"] {
        condition(&mut all, kind, "False", "PodCompleted", "");
    }
    status["conditions"] = all.into();
    set_status(store, "kubelet", pod, status);
}
