//! What the laws compare of a world.

use lab::world::Kubernetes as _;
use serde_json::{Value, json};

use super::Site;

impl Site {
    /// The names in the operator's kubeconfig for several clusters.
    fn people(&self) -> Value {
        let text = std::fs::read_to_string(self.path(super::PEOPLE)).unwrap_or_default();
        let root: Value = serde_saphyr::from_str(&text).unwrap_or_default();
        let names = |list: &str| -> Vec<Value> {
            root[list].as_array().into_iter().flatten().map(|one| one["name"].clone()).collect()
        };
        json!([names("clusters"), names("contexts"), names("users"), root["current-context"]])
    }

    /// The world as the laws compare it: etcd's members, nodes with labels and taints, what is left on machines.
    pub fn picture(&self) -> Value {
        let clusters = self.kube.clusters();
        let mut nodes = Vec::new();
        let mut etcd = Vec::new();
        let mut addons = Vec::new();
        let mut tokens = 0;
        for id in &clusters {
            let mut members: Vec<String> = self
                .hosts
                .etcd_members(id)
                .into_iter()
                .map(|m| format!("{} {}", m.name, m.learner))
                .collect();
            members.sort();
            etcd.push(members);
            let image = |kind: &str, name: &str| {
                let object = self.kube.get(id, "apps/v1", kind, Some("kube-system"), name);
                object.map(|o| o["spec"]["template"]["spec"]["containers"][0]["image"].clone())
            };
            addons.push(json!([image("DaemonSet", "kube-proxy"), image("Deployment", "coredns")]));
            for name in ["kubelet-config", "kube-proxy", "kubeline-kubelet"] {
                let map = self.kube.get(id, "v1", "ConfigMap", Some("kube-system"), name);
                addons.push(map.map(|m| m["data"].clone()).unwrap_or_default());
            }
            let list = |kind: &str| self.kube.list(id, "v1", kind);
            for node in list("Node") {
                let taints = kadm_bootstrap::node::read(&node);
                nodes.push(json!({ "name": node["metadata"]["name"], "labels": node["metadata"]["labels"],
                    "taints": taints.taints, "ours": taints.our_taints, "ourLabels": taints.our_labels,
                    "version": taints.version, "cordoned": taints.cordoned, "ourCordon": taints.our_cordon }));
            }
            tokens += list("Secret")
                .iter()
                .filter(|s| {
                    s["type"] == "bootstrap.kubernetes.io/token"
                        && s["data"]["usage-bootstrap-signing"] == "dHJ1ZQ=="
                })
                .count();
        }
        nodes.sort_by_key(|n| n["name"].as_str().unwrap_or_default().to_owned());
        let mut machines = serde_json::Map::new();
        for (name, _) in self.machines().iter().skip(1) {
            let aged = self.ends_soon(name);
            let host = self.hosts.find(name).unwrap();
            let machine = host.machine();
            let mut left: Vec<String> = machine.fs.list("/run").unwrap_or_default();
            left.retain(|n| n.starts_with("kubeline-"));
            machines.insert(
                name.clone(),
                json!({
                    "member": lab::hosts::etcd::stored(&machine).is_some(),
                    "kubelet": machine.services.active("kubelet"),
                    "version": machine.packages.version("kubelet"),
                    "held": machine.packages.is_held("kubelet"),
                    "existing": machine.fs.text("/etc/kubernetes/manifests/etcd.yaml").contains("--initial-cluster-state=existing"),
                    "pods": lab::hosts::kubeadm::manifests::static_pods(&machine),
                    "kubeline": machine.fs.list("/var/lib/kubeline").unwrap_or_default(),
                    "manifests": machine.fs.list("/etc/kubernetes/manifests").unwrap_or_default(),
                    "left": left,
                    "local": machine.packages.local,
                    "configuration": machine.fs.text("/var/lib/kubelet/config.yaml"),
                    "serves": machine.fs.exists(lab::hosts::kubeadm::kubelet::SERVING),
                    "aged": aged,
                    "intent": machine.fs.exists("/var/lib/kubeline/kadm-init"),
                }),
            );
        }
        json!({ "clusters": clusters.len(), "nodes": nodes, "tokens": tokens, "machines": machines,
            "etcd": etcd, "addons": addons,
            "kubeconfig": self.path("out/kubeconfig").exists(), "kubeconfigAged": self.kubeconfig_ends_soon(), "people": self.people() })
    }
}
