//! DaemonSets: a pod on every node that it may run on.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::{Value, json};

use super::{
    MANAGER, children, create, delete, event, going, list, names, number, pods, scheduler, set_status, share,
    text,
};
use crate::kube::store::{Store, hash, key_of};

const STORE: &str = "daemonsets.apps";

/// One pass.
pub(crate) fn run(store: &mut Store) {
    for (ns, name) in names(store, STORE) {
        let Some(set) = store.get(STORE, &ns, &name).cloned() else { continue };
        if !going(&set) {
            spread(store, &set);
        }
    }
}

fn spread(store: &mut Store, set: &Value) {
    let revision = hash(&set["spec"]["template"]);
    let sample = pod(set, "", &revision);
    let selects = scheduler::Selects::of(&sample);
    let nodes: Vec<Arc<Value>> = store.list("nodes", None).cloned().collect();
    let mut mine = children(store, "pods", set);
    let mut wanted = BTreeSet::new();
    let mut placed: BTreeMap<String, Vec<Arc<Value>>> = BTreeMap::new();
    for p in &mine {
        placed.entry(meant_for(p).to_owned()).or_default().push(p.clone());
    }
    for node in &nodes {
        let name = text(node, "/metadata/name");
        let here = placed.get(name).map_or(&[][..], Vec::as_slice);
        let selected = selects.node(node);
        let fits = selected && scheduler::tolerates(&sample, node).is_none();
        let stays = selected && here.iter().any(|p| pods::is_active(p));
        if fits || stays {
            wanted.insert(name.to_owned());
            if !here.iter().any(|p| !matches!(text(p, "/status/phase"), "Failed" | "Succeeded")) {
                match create(store, MANAGER, pod(set, name, &revision)) {
                    Ok(made) => mine.push(Arc::new(made)),
                    Err(status) => {
                        let message = format!("Error creating: {}", status.message());
                        event(store, set, "Warning", "FailedCreate", &message, "daemonset-controller");
                    }
                }
            }
        }
    }
    for p in &mine {
        if !wanted.contains(meant_for(p)) && !going(p) {
            let (ns, name) = key_of(p);
            delete(store, "pods", &ns, &name, None);
        }
    }
    let alive: Vec<&Arc<Value>> = mine.iter().filter(|p| pods::is_active(p)).collect();
    let updated = |p: &&&Arc<Value>| p["metadata"]["labels"]["controller-revision-hash"] == revision.as_str();
    let ready = alive.iter().filter(|p| pods::is_ready(p)).count() as i64;
    if text(set, "/spec/updateStrategy/type") == "RollingUpdate" {
        let limit = share(
            &set["spec"]["updateStrategy"]["rollingUpdate"]["maxUnavailable"],
            wanted.len() as i64,
            true,
        )
        .max(1);
        let mut room = limit - (wanted.len() as i64 - ready).max(0);
        for p in alive.iter().filter(|p| !updated(p)) {
            let serves = pods::is_ready(p);
            if !serves || room > 0 {
                room -= i64::from(serves);
                let (ns, name) = key_of(p);
                delete(store, "pods", &ns, &name, None);
            }
        }
    }
    let fresh = alive.iter().filter(updated).count();
    let mut status = json!({"currentNumberScheduled": alive.len(), "numberMisscheduled": 0,
        "desiredNumberScheduled": wanted.len(), "numberReady": ready,
        "observedGeneration": set["metadata"]["generation"]});
    if fresh > 0 {
        status["updatedNumberScheduled"] = fresh.into();
    }
    if ready > 0 {
        status["numberAvailable"] = ready.into();
    }
    if (wanted.len() as i64) > ready {
        status["numberUnavailable"] = (wanted.len() as i64 - ready).into();
    }
    set_status(store, MANAGER, set, status);
}

/// The node that a pod was made for, and runs on.
fn meant_for(pod: &Value) -> &str {
    scheduler::pinned(pod).unwrap_or(text(pod, "/spec/nodeName"))
}

fn pod(set: &Value, node: &str, revision: &str) -> Value {
    let mut pod = super::replicas::from_template(set);
    pod["metadata"]["generateName"] = format!("{}-", text(set, "/metadata/name")).into();
    pod["metadata"]["labels"]["controller-revision-hash"] = revision.into();
    pod["metadata"]["labels"]["pod-template-generation"] =
        number(set, "/metadata/generation").to_string().into();
    if !node.is_empty() {
        let here = json!({"key": "metadata.name", "operator": "In", "values": [node]});
        let required = "requiredDuringSchedulingIgnoredDuringExecution";
        let mut terms =
            list(&pod, &format!("/spec/affinity/nodeAffinity/{required}/nodeSelectorTerms")).to_vec();
        if terms.is_empty() {
            terms.push(json!({}));
        }
        terms.iter_mut().for_each(|t| t["matchFields"] = json!([here]));
        pod["spec"]["affinity"]["nodeAffinity"][required]["nodeSelectorTerms"] = terms.into();
    }
    let mut tolerations = list(&pod, "/spec/tolerations").to_vec();
    for (key, effect) in [
        ("not-ready", "NoExecute"),
        ("unreachable", "NoExecute"),
        ("disk-pressure", "NoSchedule"),
        ("memory-pressure", "NoSchedule"),
        ("pid-pressure", "NoSchedule"),
        ("unschedulable", "NoSchedule"),
    ] {
        tolerations.push(
            json!({"key": format!("node.kubernetes.io/{key}"), "operator": "Exists", "effect": effect}),
        );
    }
    if pod["spec"]["hostNetwork"] == true {
        tolerations.push(json!({"key": "node.kubernetes.io/network-unavailable", "operator": "Exists", "effect": "NoSchedule"}));
    }
    pod["spec"]["tolerations"] = tolerations.into();
    pod
}
