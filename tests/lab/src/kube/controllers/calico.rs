//! The Tigera operator, played: once its Deployment serves and an Installation is there, Calico comes up.

use std::sync::LazyLock;

use serde_json::{Value, json};

use super::{Plant, condition, ensure, going, holds, list, number, set_status, text, update};
use crate::kube::artefacts;
use crate::kube::store::Store;

const OPERATOR: &str = "tigera-operator";
const NS: &str = "calico-system";
const INSTALLATIONS: &str = "installations.operator.tigera.io";
const STATUSES: &str = "tigerastatuses.operator.tigera.io";
const POOLS: &str = "ippools.crd.projectcalico.org";

/// One pass.
pub(crate) fn run(store: &mut Store, plant: &mut Plant) {
    let works = store
        .get("deployments.apps", OPERATOR, OPERATOR)
        .is_some_and(|d| number(d, "/status/availableReplicas") > 0);
    if works {
        crds(store);
    }
    let installation = store.get(INSTALLATIONS, "", "default").map(|i| (**i).clone());
    match installation {
        Some(i) if going(&i) && works => uninstall(store, &i),
        Some(i) if works && !going(&i) => match refused(store, &i) {
            Some(why) => degraded(store, &i, why),
            None => install(store, plant, &i),
        },
        _ => {}
    }
    without_operator(store);
}

/// calico-node makes the first pool from its variables, once, when it starts where there is none (`startup.go`).
fn without_operator(store: &mut Store) {
    let Some(daemon) = store.get("daemonsets.apps", "kube-system", "calico-node").map(|d| (**d).clone())
    else {
        return;
    };
    let runs = number(&daemon, "/status/numberAvailable") > 0;
    let served = store.get("customresourcedefinitions.apiextensions.k8s.io", "", POOLS).is_some();
    if !runs || !served || store.list(POOLS, None).next().is_some() {
        return;
    }
    let env = list(&daemon, "/spec/template/spec/containers/0/env");
    let variable = |name: &str| {
        let found = env.iter().find(|one| one["name"] == name);
        found.and_then(|one| one["value"].as_str()).unwrap_or_default().to_owned()
    };
    let cidr = match variable("CALICO_IPV4POOL_CIDR") {
        given if given.is_empty() => "192.168.0.0/16".to_owned(),
        given => given,
    };
    let block: i64 = variable("CALICO_IPV4POOL_BLOCK_SIZE").parse().unwrap_or(26);
    ensure(
        store,
        "calico-node",
        json!({"apiVersion": "crd.projectcalico.org/v1", "kind": "IPPool", "metadata": {"name": "default-ipv4-ippool"},
            "spec": {"cidr": cidr, "blockSize": block, "natOutgoing": true, "nodeSelector": "all()",
                "ipipMode": variable("CALICO_IPV4POOL_IPIP"), "vxlanMode": variable("CALICO_IPV4POOL_VXLAN")}}),
    );
}

// The operator runs with -manage-crds=true and makes what is missing.
fn crds(store: &mut Store) {
    static ALL: LazyLock<Vec<Value>> = LazyLock::new(|| {
        let texts = [artefacts::operator_crds(), artefacts::calico_crds()];
        texts.iter().flat_map(|text| artefacts::documents(text)).collect()
    });
    for document in ALL.iter() {
        if store
            .get("customresourcedefinitions.apiextensions.k8s.io", "", text(document, "/metadata/name"))
            .is_none()
        {
            ensure(store, OPERATOR, document.clone());
        }
    }
}

fn template(name: &str, image: &str, host_network: bool) -> Value {
    // As the operator has it: what is on the hosts' network tolerates everything, the rest no lost node.
    let tolerations = if host_network {
        json!([{"operator": "Exists", "effect": "NoSchedule"}, {"operator": "Exists", "effect": "NoExecute"},
            {"key": "CriticalAddonsOnly", "operator": "Exists"}])
    } else {
        json!([{"key": "CriticalAddonsOnly", "operator": "Exists"},
            {"key": "node-role.kubernetes.io/control-plane", "effect": "NoSchedule"}])
    };
    json!({"metadata": {"labels": {"k8s-app": name, "app.kubernetes.io/name": name}}, "spec": {
        "containers": [{"name": name, "image": image}], "hostNetwork": host_network, "serviceAccountName": name,
        "nodeSelector": {"kubernetes.io/os": "linux"}, "priorityClassName": "system-cluster-critical",
        "tolerations": tolerations}})
}

fn install(store: &mut Store, plant: &mut Plant, installation: &Value) {
    let owner = json!({"apiVersion": installation["apiVersion"], "kind": "Installation", "name": "default",
        "uid": installation["metadata"]["uid"], "controller": true, "blockOwnerDeletion": true});
    let registry = match text(installation, "/spec/registry") {
        "" => "quay.io/".to_owned(),
        given => given.to_owned(),
    };
    let image = |name: &str| format!("{registry}calico/{name}:v3.32.1");
    // The operator writes what it filled in back into spec, as a status of its wishes it keeps `computed`.
    ensure(
        store,
        OPERATOR,
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NS,
        "labels": {"name": NS, "pod-security.kubernetes.io/enforce": "privileged"}}}),
    );
    for name in ["calico-node", "calico-kube-controllers", "calico-typha"] {
        ensure(
            store,
            OPERATOR,
            json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name, "namespace": NS}}),
        );
    }
    let selector = |name: &str| json!({"matchLabels": {"k8s-app": name}});
    ensure(
        store,
        OPERATOR,
        json!({"apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": {"name": "calico-node", "namespace": NS, "ownerReferences": [owner]},
            "spec": {"selector": selector("calico-node"), "template": template("calico-node", &image("node"), true)}}),
    );
    ensure(
        store,
        OPERATOR,
        json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "calico-kube-controllers", "namespace": NS, "ownerReferences": [owner]},
            "spec": {"replicas": 1, "selector": selector("calico-kube-controllers"), "strategy": {"type": "Recreate"},
                "template": template("calico-kube-controllers", &image("kube-controllers"), false)}}),
    );
    let nodes = store.list("nodes", None).count() as i64;
    // pkg/common/autoscale.go of the operator.
    let typhas = match nodes {
        0..=2 => 1,
        3..=4 => 2,
        n => 3 + n / 200,
    };
    match store.get("deployments.apps", NS, "calico-typha").map(|d| (**d).clone()) {
        Some(mut typha) => {
            if number(&typha, "/spec/replicas") != typhas {
                typha["spec"]["replicas"] = typhas.into();
                update(store, OPERATOR, typha);
            }
        }
        None => ensure(
            store,
            OPERATOR,
            json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "calico-typha", "namespace": NS, "ownerReferences": [owner]},
                "spec": {"replicas": typhas, "selector": selector("calico-typha"), "template": template("calico-typha", &image("typha"), true)}}),
        ),
    }
    pools(store, installation);
    kube_proxy(store, installation);
    report(store, plant, installation);
}

/// With `kubeProxyManagement` the operator has kube-proxy's DaemonSet choose no node, and gives it back its nodes when the
/// data plane is another one again (tigera/operator, pkg/controller/kubeproxy).
fn kube_proxy(store: &mut Store, installation: &Value) {
    const OFF: &str = "operator.tigera.io/disable-kube-proxy";
    if text(installation, "/spec/calicoNetwork/kubeProxyManagement") != "Enabled" {
        return;
    }
    let Some(mut set) = store.get("daemonsets.apps", "kube-system", "kube-proxy").map(|d| (**d).clone())
    else {
        return;
    };
    let off = text(installation, "/spec/calicoNetwork/linuxDataplane") == "BPF";
    let selector = &mut set["spec"]["template"]["spec"]["nodeSelector"];
    if selector.get(OFF).is_some() == off {
        return;
    }
    match (off, selector.as_object_mut()) {
        (true, _) => selector[OFF] = "true".into(),
        (false, Some(keys)) => drop(keys.remove(OFF)),
        (false, None) => {}
    }
    update(store, OPERATOR, set);
}

/// What the operator refuses before it does anything (tigera/operator, pkg/controller/utils/bpf.go).
fn refused(store: &Store, installation: &Value) -> Option<&'static str> {
    if text(installation, "/spec/calicoNetwork/bpfNetworkBootstrap") != "Enabled" {
        return None;
    }
    if text(installation, "/spec/calicoNetwork/linuxDataplane") != "BPF" {
        return Some("bpfNetworkBootstrap is enabled but linuxDataplane is not set to BPF");
    }
    let endpoint = store.get("configmaps", OPERATOR, "kubernetes-services-endpoint").is_some();
    endpoint.then_some("kubernetes service endpoint is defined by the kubernetes-service-endpoints ConfigMap")
}

fn degraded(store: &mut Store, installation: &Value, why: &str) {
    let status = json!({"apiVersion": "operator.tigera.io/v1", "kind": "TigeraStatus", "metadata": {"name": "calico"}, "spec": {}});
    ensure(store, OPERATOR, status);
    let Some(status) = store.get(STATUSES, "", "calico").cloned() else { return };
    let mut all = super::conditions(&status);
    condition(&mut all, "Degraded", "True", "ResourceValidationError", why);
    condition(&mut all, "Available", "False", "ResourceValidationError", why);
    condition(&mut all, "Progressing", "False", "ResourceValidationError", why);
    all.iter_mut().for_each(|c| c["observedGeneration"] = installation["metadata"]["generation"].clone());
    set_status(store, OPERATOR, &status, json!({"conditions": all}));
}

fn pools(store: &mut Store, installation: &Value) {
    for pool in list(installation, "/spec/calicoNetwork/ipPools") {
        let cidr = text(pool, "/cidr");
        let name = match text(pool, "/name") {
            "" => "default-ipv4-ippool",
            given => given,
        };
        let (ipip, vxlan) = match text(pool, "/encapsulation") {
            "" | "IPIP" => ("Always", "Never"),
            "IPIPCrossSubnet" => ("CrossSubnet", "Never"),
            "VXLAN" => ("Never", "Always"),
            "VXLANCrossSubnet" => ("Never", "CrossSubnet"),
            _ => ("Never", "Never"),
        };
        let nat = text(pool, "/natOutgoing") != "Disabled";
        ensure(
            store,
            OPERATOR,
            json!({"apiVersion": "crd.projectcalico.org/v1", "kind": "IPPool", "metadata": {"name": name, "labels": {"app.kubernetes.io/managed-by": OPERATOR}},
                "spec": {"cidr": cidr, "ipipMode": ipip, "vxlanMode": vxlan, "natOutgoing": nat,
                    "blockSize": pool.get("blockSize").cloned().unwrap_or_else(|| 26.into()),
                    "nodeSelector": pool.get("nodeSelector").cloned().unwrap_or_else(|| "all()".into())}}),
        );
        if let Some(mut made) = store.get(POOLS, "", name).map(|p| (**p).clone()) {
            if (text(&made, "/spec/ipipMode"), text(&made, "/spec/vxlanMode")) != (ipip, vxlan) {
                made["spec"]["ipipMode"] = ipip.into();
                made["spec"]["vxlanMode"] = vxlan.into();
                update(store, OPERATOR, made.clone());
            }
            let mut all = super::conditions(&made);
            condition(&mut all, "Allocatable", "True", "OK", "");
            set_status(store, OPERATOR, &made, json!({"conditions": all}));
        }
    }
}

fn report(store: &mut Store, _plant: &mut Plant, installation: &Value) {
    let generation = installation["metadata"]["generation"].clone();
    let daemon = store.get("daemonsets.apps", NS, "calico-node").map(|d| (**d).clone()).unwrap_or_default();
    let wanted = number(&daemon, "/status/desiredNumberScheduled");
    let running = wanted > 0
        && number(&daemon, "/status/numberAvailable") == wanted
        && daemon["status"]["observedGeneration"] == daemon["metadata"]["generation"];
    let serves = |name: &str| {
        store.get("deployments.apps", NS, name).is_some_and(|d| {
            number(d, "/status/availableReplicas") == number(d, "/spec/replicas") && holds(d, "Available")
        })
    };
    let missing = if !running {
        Some("DaemonSet \"calico-system/calico-node\" is not available (awaiting nodes)")
    } else if !serves("calico-typha") {
        Some("Deployment \"calico-system/calico-typha\" is not available (awaiting replicas)")
    } else if !serves("calico-kube-controllers") {
        Some("Deployment \"calico-system/calico-kube-controllers\" is not available (awaiting replicas)")
    } else {
        None
    };
    for name in ["calico", "ippools", "tiers"] {
        ensure(
            store,
            OPERATOR,
            json!({"apiVersion": "operator.tigera.io/v1", "kind": "TigeraStatus", "metadata": {"name": name}, "spec": {}}),
        );
        let Some(status) = store.get(STATUSES, "", name).cloned() else { continue };
        let missing = if name == "calico" { missing } else { None };
        let all = state(super::conditions(&status), missing, &generation);
        set_status(store, OPERATOR, &status, json!({"conditions": all}));
    }
    let mut status = installation["status"].clone();
    let mut all = state(super::conditions(installation), missing, &generation);
    let ready = if missing.is_none() { "True" } else { "False" };
    condition(
        &mut all,
        "Ready",
        ready,
        if missing.is_none() { "AllObjectsAvailable" } else { "ResourceNotReady" },
        missing.unwrap_or("All objects available"),
    );
    all.iter_mut().for_each(|c| c["observedGeneration"] = generation.clone());
    status["conditions"] = all.into();
    status["variant"] = "Calico".into();
    status["calicoVersion"] = "v3.32.1".into();
    set_status(store, OPERATOR, installation, status);
}

fn state(mut all: Vec<Value>, missing: Option<&str>, generation: &Value) -> Vec<Value> {
    match missing {
        None => {
            condition(&mut all, "Available", "True", "AllObjectsAvailable", "All objects available");
            condition(&mut all, "Progressing", "False", "AllObjectsAvailable", "All objects available");
        }
        Some(what) => {
            condition(&mut all, "Available", "False", "ResourceNotReady", what);
            condition(&mut all, "Progressing", "True", "ResourceNotReady", what);
        }
    }
    condition(&mut all, "Degraded", "False", "AllObjectsAvailable", "All objects available");
    all.iter_mut().for_each(|c| c["observedGeneration"] = generation.clone());
    all
}

fn uninstall(store: &mut Store, installation: &Value) {
    let mut free = installation.clone();
    free["metadata"]["finalizers"] = json!([]);
    update(store, OPERATOR, free);
}
