//! Nodes: what kubelets report, and what the node lifecycle controller makes of their silence.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::{
    MANAGER, Plant, condition, conditions, delete, ensure, event, going, list, names, pods, scheduler,
    set_status, text, update,
};
use crate::kube::store::{Store, key_of};
use crate::kube::verbs::now;
use crate::world::Kubelet;

/// A kubelet as the lab knows it.
#[derive(Clone, Debug)]
pub(crate) struct Machine {
    /// What it reports.
    pub kubelet: Kubelet,
    /// It runs.
    pub up: bool,
    /// It came up and its node is not registered yet.
    pub registers: bool,
    /// A CNI plugin has been installed on it.
    pub cni: bool,
    /// Counts starts, so that latencies begin anew.
    pub starts: u64,
    /// Where it is with its serving certificate.
    pub serving: Serving,
    /// What its last report followed from: the node as it was then, its network.
    reported: Option<(String, bool, bool)>,
}

/// A kubelet's way to its serving certificate.
#[derive(Clone, Debug, Default)]
pub(crate) struct Serving {
    /// The request that it made: its name, and the key (PEM) that never leaves the machine.
    pub asked: Option<(String, String)>,
    /// The certificate and its key (PEM).
    pub issued: Option<(String, String)>,
    /// Counts its requests.
    pub tries: u64,
}

impl Plant {
    /// A kubelet starts.
    pub(crate) fn kubelet_up(&mut self, kubelet: Kubelet) {
        let before = self.machines.get(&kubelet.name);
        // The plugin's configuration is on the machine's disk: another machine of this name has none.
        let same = before.is_some_and(|m| m.kubelet.address == kubelet.address);
        if let Some(machine) = self.machines.get_mut(&kubelet.name)
            && machine.up
            && same
            && kubelet.process != 0
            && machine.kubelet.process == kubelet.process
        {
            machine.kubelet = kubelet;
            machine.reported = None;
            return;
        }
        let before = self.machines.get(&kubelet.name);
        let machine = Machine {
            up: true,
            registers: true,
            cni: same && before.is_some_and(|m| m.cni),
            starts: before.map_or(0, |m| m.starts) + 1,
            // A request that is under way dies with the process that holds its key.
            serving: Serving { tries: before.map_or(0, |m| m.serving.tries), ..Serving::default() },
            reported: None,
            kubelet,
        };
        self.machines.insert(machine.kubelet.name.clone(), machine);
    }

    /// A kubelet goes silent.
    pub(crate) fn kubelet_down(&mut self, node: &str) {
        if let Some(machine) = self.machines.get_mut(node) {
            machine.up = false;
            machine.starts += 1;
            machine.serving = Serving { tries: machine.serving.tries, ..Serving::default() };
        }
    }

    /// A node that came with a snapshot: its kubelet reported once.
    pub(crate) fn remembered(&mut self, node: &str) {
        self.machines.entry(node.to_owned()).or_insert_with(|| Machine {
            reported: None,
            kubelet: Kubelet { name: node.to_owned(), ..Kubelet::default() },
            up: false,
            registers: false,
            cni: false,
            starts: 0,
            serving: Serving::default(),
        });
    }

    /// The machine of a node whose kubelet runs.
    pub(crate) fn running(&self, node: &str) -> Option<&Machine> {
        self.machines.get(node).filter(|m| m.up)
    }
}

/// True when the node is Ready.
pub(crate) fn is_ready(node: &Value) -> bool {
    super::holds(node, "Ready")
}

/// Kubelets register their nodes and report their state.
pub(crate) fn kubelets(store: &mut Store, plant: &mut Plant) {
    let up: Vec<String> = plant.machines.iter().filter(|(_, m)| m.up).map(|(name, _)| name.clone()).collect();
    for name in up {
        let present = store.get("nodes", "", &name).is_some();
        let Some(machine) = plant.machines.get(&name) else { continue };
        if machine.registers {
            let machine = machine.clone();
            if !plant.due(format!("register {name} {}", machine.starts), Duration::from_secs(1)) {
                continue;
            }
            if !present {
                register(store, &machine);
            }
            renew(store, &name);
            if let Some(m) = plant.machines.get_mut(&name) {
                m.registers = false;
                if !present {
                    m.cni = false;
                }
            }
        } else if !present {
            // Its node was deleted: a kubelet registers anew only when it starts.
            continue;
        }
        let runs_cni = store.pods_on(&name).any(|p| {
            matches!(text(p, "/metadata/namespace"), "calico-system" | "kube-system")
                && list(p, "/metadata/ownerReferences")
                    .iter()
                    .any(|o| o["kind"] == "DaemonSet" && o["name"] == "calico-node")
                && pods::is_ready(p)
        });
        let Some(machine) = plant.machines.get_mut(&name) else { continue };
        machine.cni |= runs_cni;
        let follows = |store: &Store, machine: &Machine| {
            let node = store.get("nodes", "", &name)?;
            Some((text(node, "/metadata/resourceVersion").to_owned(), machine.cni, runs_cni))
        };
        if machine.reported.is_none() || machine.reported != follows(store, machine) {
            report(store, machine, runs_cni);
            machine.reported = follows(store, machine);
        }
        if machine.kubelet.control_plane {
            mirror_pods(store, machine);
        }
    }
}

fn register(store: &mut Store, machine: &Machine) {
    let k = &machine.kubelet;
    let mut labels = json!({"beta.kubernetes.io/arch": "amd64", "beta.kubernetes.io/os": "linux",
        "kubernetes.io/arch": "amd64", "kubernetes.io/hostname": k.name, "kubernetes.io/os": "linux"});
    let mut taints = vec![json!({"key": "node.kubernetes.io/not-ready", "effect": "NoSchedule"})];
    if k.control_plane {
        labels["node-role.kubernetes.io/control-plane"] = "".into();
        labels["node.kubernetes.io/exclude-from-external-load-balancers"] = "".into();
        taints.insert(0, json!({"key": "node-role.kubernetes.io/control-plane", "effect": "NoSchedule"}));
    }
    let cidr = pod_network(store);
    ensure(
        store,
        "kubelet",
        json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": k.name, "labels": labels, "annotations": {
            "node.alpha.kubernetes.io/ttl": "0", "volumes.kubernetes.io/controller-managed-attach-detach": "true"}},
            "spec": {"taints": taints, "podCIDR": cidr, "podCIDRs": [cidr]}}),
    );
}

/// A kubelet that starts renews its node's lease at once. (That it does so every ten seconds from then on is not modelled.)
fn renew(store: &mut Store, name: &str) {
    let renewed = crate::clock::micro_time(time::OffsetDateTime::now_utc());
    let lease = json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": name, "namespace": "kube-node-lease"},
            "spec": {"holderIdentity": name, "leaseDurationSeconds": 40, "renewTime": renewed}});
    match store.get("leases.coordination.k8s.io", "kube-node-lease", name).map(|l| (**l).clone()) {
        None => ensure(store, "kubelet", lease),
        Some(mut there) => {
            there["spec"] = lease["spec"].clone();
            update(store, "kubelet", there);
        }
    }
}

// The next free /24 of the pod network.
fn pod_network(store: &Store) -> String {
    let config = store.get("configmaps", "kube-system", "kubeadm-config");
    let config = config.map(|c| text(c, "/data/ClusterConfiguration").to_owned()).unwrap_or_default();
    let base = config
        .lines()
        .find_map(|l| l.trim().strip_prefix("podSubnet:"))
        .and_then(|c| c.trim().trim_matches('"').split('/').next()?.parse::<std::net::Ipv4Addr>().ok())
        .unwrap_or(std::net::Ipv4Addr::new(10, 244, 0, 0));
    (0..=255u32)
        .map(|n| format!("{}/24", std::net::Ipv4Addr::from(u32::from(base) + (n << 8))))
        .find(|c| !store.list("nodes", None).any(|node| node["spec"]["podCIDR"] == c.as_str()))
        .unwrap_or_default()
}

fn report(store: &mut Store, machine: &Machine, calico: bool) {
    let k = &machine.kubelet;
    let Some(node) = store.get("nodes", "", &k.name).cloned() else { return };
    let mut status = node["status"].clone();
    let memory = |mib: u64| format!("{}Ki", mib * 1024);
    let size = |cpu: u32, mib: u64| {
        json!({"cpu": cpu.to_string(), "ephemeral-storage": "41152812Ki", "hugepages-1Gi": "0", "hugepages-2Mi": "0",
            "memory": memory(mib), "pods": "110"})
    };
    status["capacity"] = size(k.cores, k.memory_mib);
    status["allocatable"] = size(k.cores, k.memory_mib.saturating_sub(100));
    let mut addresses = vec![json!({"type": "Hostname", "address": k.name})];
    if let Some(ip) = k.address {
        addresses.insert(0, json!({"type": "InternalIP", "address": ip.to_string()}));
    }
    status["addresses"] = addresses.into();
    status["daemonEndpoints"] = json!({"kubeletEndpoint": {"Port": 10250}});
    let id = crate::kube::store::hash(&json!(k.name));
    status["nodeInfo"] = json!({"architecture": "amd64", "bootID": format!("{id}-{}", machine.starts), "containerRuntimeVersion": "containerd://2.1.9",
        "kernelVersion": "6.12.48+deb13-amd64", "kubeProxyVersion": "", "kubeletVersion": k.version, "machineID": id,
        "operatingSystem": "linux", "osImage": k.os_image, "systemUUID": id});
    let mut all = conditions(&node);
    for (kind, reason, message) in [
        ("MemoryPressure", "KubeletHasSufficientMemory", "kubelet has sufficient memory available"),
        ("DiskPressure", "KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
        ("PIDPressure", "KubeletHasSufficientPID", "kubelet has sufficient PID available"),
    ] {
        condition(&mut all, kind, "False", reason, message);
    }
    if machine.cni {
        condition(&mut all, "Ready", "True", "KubeletReady", "kubelet is posting ready status");
    } else {
        let message = "container runtime network not ready: NetworkReady=false reason:NetworkPluginNotReady message:Network plugin returns error: cni plugin not initialized";
        condition(&mut all, "Ready", "False", "KubeletNotReady", message);
    }
    if calico {
        condition(&mut all, "NetworkUnavailable", "False", "CalicoIsUp", "Calico is running on this node");
    }
    for c in all.iter_mut() {
        if c.get("lastHeartbeatTime").is_none()
            || c["lastHeartbeatTime"].as_str() < c["lastTransitionTime"].as_str()
        {
            c["lastHeartbeatTime"] = c["lastTransitionTime"].clone();
        }
    }
    status["conditions"] = all.into();
    set_status(store, "kubelet", &node, status);
}

fn mirror_pods(store: &mut Store, machine: &Machine) {
    let k = &machine.kubelet;
    let Some(node) = store.get("nodes", "", &k.name).cloned() else { return };
    let usual = || {
        [
            ("etcd".to_owned(), "registry.k8s.io/etcd:3.6.8-0".to_owned()),
            ("kube-apiserver".to_owned(), format!("registry.k8s.io/kube-apiserver:{}", k.version)),
            (
                "kube-controller-manager".to_owned(),
                format!("registry.k8s.io/kube-controller-manager:{}", k.version),
            ),
            ("kube-scheduler".to_owned(), format!("registry.k8s.io/kube-scheduler:{}", k.version)),
        ]
        .into()
    };
    // A kubelet that was added without a machine behind it has the pods that kubeadm would have given it.
    let pods = if k.static_pods.is_empty() { usual() } else { k.static_pods.clone() };
    for (component, image) in pods {
        let name = format!("{component}-{}", k.name);
        let before =
            store.get("pods", "kube-system", &name).map(|p| text(p, "/spec/containers/0/image").to_owned());
        if before.as_ref().is_some_and(|i| *i != image) {
            // An upgrade wrote another manifest: the pod is another one.
            store.take("pods", "kube-system", &name);
        }
        ensure(
            store,
            "kubelet",
            json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "kube-system",
                "labels": {"component": component, "tier": "control-plane"},
                "annotations": {"kubernetes.io/config.mirror": crate::kube::store::hash(&json!(image)), "kubernetes.io/config.source": "file"},
                "ownerReferences": [{"apiVersion": "v1", "kind": "Node", "name": k.name, "uid": node["metadata"]["uid"], "controller": true}]},
                "spec": {"nodeName": k.name, "hostNetwork": true, "priorityClassName": "system-node-critical",
                    "tolerations": [{"operator": "Exists", "effect": "NoExecute"}],
                    "containers": [{"name": component, "image": image, "command": [component]}]}}),
        );
    }
}

/// The node lifecycle controller: silence, taints, evictions.
pub(crate) fn lifecycle(store: &mut Store, plant: &mut Plant) {
    for (_, name) in names(store, "nodes") {
        let Some(node) = store.get("nodes", "", &name).cloned() else { continue };
        // A node that was registered by hand never had a kubelet: nothing is known of it.
        if let Some(machine) = plant.machines.get(&name).cloned()
            && !machine.up
            && plant.due(format!("silent {name} {}", machine.starts), Duration::from_secs(40))
        {
            silence(store, &node);
        }
        let Some(node) = store.get("nodes", "", &name).cloned() else { continue };
        taint(store, &node);
        let Some(node) = store.get("nodes", "", &name).cloned() else { continue };
        evict(store, plant, &node);
    }
    // Pods of nodes that are gone.
    for (ns, name) in names(store, "pods") {
        let Some(pod) = store.get("pods", &ns, &name) else { continue };
        let node = text(pod, "/spec/nodeName");
        if !node.is_empty() && store.get("nodes", "", node).is_none() {
            store.take("pods", &ns, &name);
        }
    }
}

fn silence(store: &mut Store, node: &Value) {
    let mut all = conditions(node);
    for kind in ["MemoryPressure", "DiskPressure", "PIDPressure", "Ready"] {
        condition(&mut all, kind, "Unknown", "NodeStatusUnknown", "Kubelet stopped posting node status.");
    }
    let mut status = node["status"].clone();
    status["conditions"] = all.into();
    set_status(store, MANAGER, node, status);
    let name = text(node, "/metadata/name");
    let mine: Vec<Value> = store.pods_on(name).filter(|p| pods::is_ready(p)).map(|p| (**p).clone()).collect();
    for pod in mine {
        let mut status = pod["status"].clone();
        let mut all = conditions(&pod);
        if let Some(c) = all.iter_mut().find(|c| c["type"] == "Ready") {
            c["status"] = "False".into();
            c["lastTransitionTime"] = now().into();
        }
        status["conditions"] = all.into();
        set_status(store, MANAGER, &pod, status);
        event(store, &pod, "Warning", "NodeNotReady", "Node is not ready", "node-controller");
    }
}

fn taint(store: &mut Store, node: &Value) {
    let ready = list(node, "/status/conditions")
        .iter()
        .find(|c| c["type"] == "Ready")
        .map(|c| text(c, "/status").to_owned());
    let mut wanted: Vec<(&str, &str)> = Vec::new();
    match ready.as_deref() {
        Some("True") => {}
        Some("Unknown") => {
            wanted.push(("node.kubernetes.io/unreachable", "NoSchedule"));
            wanted.push(("node.kubernetes.io/unreachable", "NoExecute"));
        }
        Some(_) => {
            wanted.push(("node.kubernetes.io/not-ready", "NoSchedule"));
            wanted.push(("node.kubernetes.io/not-ready", "NoExecute"));
        }
        None => return,
    }
    if node["spec"]["unschedulable"] == true {
        wanted.push(("node.kubernetes.io/unschedulable", "NoSchedule"));
    }
    let ours = |t: &Value| {
        matches!(
            text(t, "/key"),
            "node.kubernetes.io/unreachable"
                | "node.kubernetes.io/not-ready"
                | "node.kubernetes.io/unschedulable"
        )
    };
    let mut taints: Vec<Value> = list(node, "/spec/taints").to_vec();
    taints.retain(|t| !ours(t) || wanted.contains(&(text(t, "/key"), text(t, "/effect"))));
    for (key, effect) in wanted {
        if !taints.iter().any(|t| t["key"] == key && t["effect"] == effect) {
            let mut taint = json!({"key": key, "effect": effect});
            if effect == "NoExecute" {
                taint["timeAdded"] = now().into();
            }
            taints.push(taint);
        }
    }
    if taints != list(node, "/spec/taints") {
        let mut node = node.clone();
        match (taints.is_empty(), node["spec"].as_object_mut()) {
            (true, Some(spec)) => {
                spec.shift_remove("taints");
            }
            _ => node["spec"]["taints"] = taints.into(),
        }
        update(store, MANAGER, node);
    }
}

// Taints with NoExecute end pods that do not tolerate them, at once or after their tolerationSeconds.
fn evict(store: &mut Store, plant: &mut Plant, node: &Value) {
    let name = text(node, "/metadata/name");
    let taints: Vec<&Value> =
        list(node, "/spec/taints").iter().filter(|t| t["effect"] == "NoExecute").collect();
    if taints.is_empty() {
        return;
    }
    let mine: Vec<Arc<Value>> = store.pods_on(name).filter(|p| !going(p)).cloned().collect();
    for pod in mine {
        let mut patience = None;
        for taint in &taints {
            let found = list(&pod, "/spec/tolerations").iter().find(|t| scheduler::tolerated(t, taint));
            let seconds = match found {
                None => Some(0),
                Some(t) => t["tolerationSeconds"].as_u64(),
            };
            patience = match (patience, seconds) {
                (None, s) => s,
                (p, None) => p,
                (Some(a), Some(b)) => Some(u64::min(a, b)),
            };
        }
        let Some(seconds) = patience else { continue };
        let key = format!("evict {} {}", text(&pod, "/metadata/uid"), text(taints[0], "/timeAdded"));
        // Before there is a network nothing runs that could be evicted.
        let waits = pod["status"]["phase"] == "Pending" && seconds > 0 && !plant.has_time();
        if !waits && plant.due(key, Duration::from_secs(seconds)) {
            let (ns, pod_name) = key_of(&pod);
            let message = format!("Marking for deletion Pod {ns}/{pod_name}");
            event(store, &pod, "Normal", "TaintManagerEviction", &message, "taint-eviction-controller");
            delete(store, "pods", &ns, &pod_name, None);
        }
    }
}
