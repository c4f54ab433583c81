//! ReplicaSets: as many pods as wanted.

use std::sync::Arc;

use serde_json::{Value, json};

use super::{
    MANAGER, children, condition, conditions, create, delete, event, going, names, number, owner, pods,
    set_status, text,
};
use crate::kube::store::{Store, key_of};

const STORE: &str = "replicasets.apps";

/// One pass.
pub(crate) fn run(store: &mut Store) {
    for (ns, name) in names(store, STORE) {
        let Some(set) = store.get(STORE, &ns, &name).cloned() else { continue };
        if !going(&set) {
            replicate(store, &set);
        }
    }
}

fn replicate(store: &mut Store, set: &Value) {
    let wanted = number(set, "/spec/replicas");
    let mut alive: Vec<Arc<Value>> =
        children(store, "pods", set).into_iter().filter(|p| pods::is_active(p)).collect();
    let mut failure = None;
    for _ in (alive.len() as i64)..wanted {
        match create(store, MANAGER, pod(set)) {
            Ok(made) => alive.push(Arc::new(made)),
            Err(status) => {
                failure = Some(status.message().to_owned());
                break;
            }
        }
    }
    if alive.len() as i64 > wanted {
        // The ones that serve least go first, and of equals the youngest.
        alive.sort_by_key(|p| {
            let placed = p["spec"].get("nodeName").is_some();
            (pods::is_ready(p), placed, std::cmp::Reverse(number(p, "/metadata/resourceVersion")))
        });
        let extra = alive.len() - wanted.max(0) as usize;
        for p in alive.drain(..extra) {
            let (ns, name) = key_of(&p);
            delete(store, "pods", &ns, &name, None);
        }
    }
    let ready = alive.iter().filter(|p| pods::is_ready(p)).count();
    let mut status = json!({"replicas": alive.len(), "observedGeneration": set["metadata"]["generation"]});
    if !alive.is_empty() {
        status["fullyLabeledReplicas"] = alive.len().into();
    }
    if ready > 0 {
        status["readyReplicas"] = ready.into();
        status["availableReplicas"] = ready.into();
    }
    let mut all = conditions(set);
    match &failure {
        Some(message) => {
            condition(&mut all, "ReplicaFailure", "True", "FailedCreate", message);
            event(
                store,
                set,
                "Warning",
                "FailedCreate",
                &format!("Error creating: {message}"),
                "replicaset-controller",
            );
        }
        None => all.retain(|c| c["type"] != "ReplicaFailure"),
    }
    if !all.is_empty() {
        status["conditions"] = all.into();
    }
    set_status(store, MANAGER, set, status);
}

fn pod(set: &Value) -> Value {
    let name = text(set, "/metadata/name");
    let mut pod = from_template(set);
    pod["metadata"]["generateName"] = format!("{name}-").into();
    pod
}

/// A pod of a template, owned by its controller; the caller names it.
pub(crate) fn from_template(owner_of: &Value) -> Value {
    let template = &owner_of["spec"]["template"];
    let mut meta =
        json!({"namespace": owner_of["metadata"]["namespace"], "ownerReferences": [owner(owner_of)]});
    for field in ["labels", "annotations", "finalizers"] {
        if let Some(value) = template["metadata"].get(field) {
            meta[field] = value.clone();
        }
    }
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": template["spec"]})
}
