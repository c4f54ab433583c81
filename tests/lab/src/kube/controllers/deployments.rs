//! Deployments: a ReplicaSet for each template, scaled against each other.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::{
    MANAGER, Plant, children, condition, conditions, create, going, names, number, owner, set_status, share,
    text, update,
};
use crate::kube::store::{Store, hash, key_of};

const STORE: &str = "deployments.apps";
const SETS: &str = "replicasets.apps";
const REVISION: &str = "deployment.kubernetes.io/revision";

/// One pass.
pub(crate) fn run(store: &mut Store, plant: &mut Plant) {
    for (ns, name) in names(store, STORE) {
        let Some(deployment) = store.get(STORE, &ns, &name).cloned() else { continue };
        if !going(&deployment) {
            roll(store, plant, &deployment);
        }
    }
}

fn revision(set: &Value) -> i64 {
    set["metadata"]["annotations"][REVISION].as_str().and_then(|r| r.parse().ok()).unwrap_or(0)
}

fn roll(store: &mut Store, plant: &mut Plant, deployment: &Value) {
    let (ns, name) = key_of(deployment);
    let template = &deployment["spec"]["template"];
    let hash = hash(template);
    let mut sets = children(store, SETS, deployment);
    sets.sort_by_key(|s| revision(s));
    let latest = sets.iter().map(|s| revision(s)).max().unwrap_or(0);
    let is_new = |set: &Value| set["metadata"]["labels"]["pod-template-hash"] == hash.as_str();
    let wanted = number(deployment, "/spec/replicas");
    if !sets.iter().any(|s| is_new(s)) {
        if deployment["spec"]["paused"] == true {
            return;
        }
        let mut template = template.clone();
        template["metadata"]["labels"]["pod-template-hash"] = hash.as_str().into();
        let mut selector = deployment["spec"]["selector"].clone();
        selector["matchLabels"]["pod-template-hash"] = hash.as_str().into();
        let set = json!({"apiVersion": "apps/v1", "kind": "ReplicaSet", "metadata": {"name": format!("{name}-{hash}"),
            "namespace": ns, "labels": template["metadata"]["labels"], "ownerReferences": [owner(deployment)],
            "annotations": {REVISION: (latest + 1).to_string(), "deployment.kubernetes.io/desired-replicas": wanted.to_string()}},
            "spec": {"replicas": 0, "selector": selector, "template": template}});
        match create(store, MANAGER, set) {
            Ok(set) => sets.push(Arc::new(set)),
            Err(_) => return,
        }
    }
    let (new, old): (Vec<&Value>, Vec<&Value>) = sets.iter().map(Arc::as_ref).partition(|s| is_new(s));
    let Some(new) = new.first().copied() else { return };
    let mut current = new.clone();
    if revision(&current) < latest && !old.is_empty() {
        current["metadata"]["annotations"][REVISION] = (latest + 1).to_string().into();
        update(store, MANAGER, current.clone());
        current = store.get(SETS, &ns, text(new, "/metadata/name")).map(|o| (**o).clone()).unwrap_or(current);
    }
    let mark = current["metadata"]["annotations"][REVISION].clone();
    if deployment["metadata"]["annotations"][REVISION] != mark {
        let mut marked = deployment.clone();
        if !marked["metadata"]["annotations"].is_object() {
            marked["metadata"]["annotations"] = json!({});
        }
        marked["metadata"]["annotations"][REVISION] = mark;
        update(store, MANAGER, marked);
    }
    scale_sets(store, deployment, &current, &old, wanted);
    prune_history(store, deployment, &old);
    let Some(deployment) = store.get(STORE, &ns, &name).cloned() else { return };
    report(store, plant, &deployment, &hash);
}

fn scale(store: &mut Store, set: &Value, to: i64) {
    if number(set, "/spec/replicas") != to {
        let mut set = set.clone();
        set["spec"]["replicas"] = to.into();
        if let Some(meta) = set["metadata"].as_object_mut() {
            meta.shift_remove("resourceVersion");
        }
        update(store, MANAGER, set);
    }
}

fn limits(deployment: &Value, wanted: i64) -> (i64, i64) {
    let rolling = &deployment["spec"]["strategy"]["rollingUpdate"];
    let surge = share(&rolling["maxSurge"], wanted, true);
    let unavailable = share(&rolling["maxUnavailable"], wanted, false);
    if surge == 0 && unavailable == 0 { (0, 1) } else { (surge, unavailable) }
}

fn scale_sets(store: &mut Store, deployment: &Value, new: &Value, old: &[&Value], wanted: i64) {
    let old_total: i64 = old.iter().map(|s| number(s, "/spec/replicas")).sum();
    let mine = number(new, "/spec/replicas");
    if deployment["spec"]["strategy"]["type"] == "Recreate" {
        old.iter().for_each(|set| scale(store, set, 0));
        let left = old.iter().any(|set| !children(store, "pods", set).is_empty());
        if !left {
            scale(store, new, wanted);
        }
        return;
    }
    if deployment["spec"]["paused"] == true && old_total > 0 {
        return;
    }
    let (surge, unavailable) = limits(deployment, wanted);
    let room = wanted + surge - old_total;
    let target = if mine > wanted { wanted } else { mine.max(wanted.min(room)) };
    scale(store, new, target);
    if old_total == 0 {
        return;
    }
    let available: i64 = old.iter().chain([&new]).map(|s| number(s, "/status/availableReplicas")).sum();
    let old_available: i64 = old.iter().map(|s| number(s, "/status/availableReplicas")).sum();
    // Old pods that do not serve anyway may go at once; the others while enough are left.
    let broken = (old_total - old_available).max(0);
    let mut spare = broken + (available - (wanted - unavailable)).clamp(0, old_available);
    for set in old {
        let has = number(set, "/spec/replicas");
        let cut = has.min(spare);
        if cut > 0 {
            scale(store, set, has - cut);
            spare -= cut;
        }
    }
}

fn prune_history(store: &mut Store, deployment: &Value, old: &[&Value]) {
    let limit = deployment["spec"]["revisionHistoryLimit"].as_u64().unwrap_or(10) as usize;
    let done: Vec<&&Value> = old
        .iter()
        .filter(|s| number(s, "/spec/replicas") == 0 && number(s, "/status/replicas") == 0)
        .collect();
    for set in done.iter().take(done.len().saturating_sub(limit)) {
        let (ns, name) = key_of(set);
        super::delete(store, SETS, &ns, &name, None);
    }
}

fn report(store: &mut Store, plant: &mut Plant, deployment: &Value, hash: &str) {
    let sets = children(store, SETS, deployment);
    let new = sets.iter().find(|s| s["metadata"]["labels"]["pod-template-hash"] == hash);
    let sum = |field: &str| -> i64 { sets.iter().map(|s| number(s, field)).sum() };
    let wanted = number(deployment, "/spec/replicas");
    let (replicas, ready, available) =
        (sum("/status/replicas"), sum("/status/readyReplicas"), sum("/status/availableReplicas"));
    let updated = new.map_or(0, |s| number(s, "/status/replicas"));
    let mut status = json!({"observedGeneration": deployment["metadata"]["generation"]});
    for (field, n) in [
        ("replicas", replicas),
        ("updatedReplicas", updated),
        ("readyReplicas", ready),
        ("availableReplicas", available),
        ("unavailableReplicas", (wanted - available).max(0)),
    ] {
        if n > 0 {
            status[field] = n.into();
        }
    }
    let mut all = conditions(deployment);
    let unavailable =
        if deployment["spec"]["strategy"]["type"] == "Recreate" { 0 } else { limits(deployment, wanted).1 };
    if available >= wanted - unavailable {
        condition(
            &mut all,
            "Available",
            "True",
            "MinimumReplicasAvailable",
            "Deployment has minimum availability.",
        );
    } else {
        let message = "Deployment does not have minimum availability.";
        condition(&mut all, "Available", "False", "MinimumReplicasUnavailable", message);
    }
    let set = new.map(|s| text(s, "/metadata/name")).unwrap_or_default();
    let complete = updated == wanted && replicas == wanted && available == wanted;
    let uid = text(deployment, "/metadata/uid");
    let deadline = Duration::from_secs(deployment["spec"]["progressDeadlineSeconds"].as_u64().unwrap_or(600));
    if complete {
        let message = format!("ReplicaSet \"{set}\" has successfully progressed.");
        condition(&mut all, "Progressing", "True", "NewReplicaSetAvailable", &message);
    } else if plant.has_time() && plant.due(format!("progress {uid} {hash} {updated} {available}"), deadline)
    {
        let message = format!("ReplicaSet \"{set}\" has timed out progressing.");
        condition(&mut all, "Progressing", "False", "ProgressDeadlineExceeded", &message);
    } else {
        let message = format!("ReplicaSet \"{set}\" is progressing.");
        condition(&mut all, "Progressing", "True", "ReplicaSetUpdated", &message);
    }
    let failure =
        new.and_then(|s| super::list(s, "/status/conditions").iter().find(|c| c["type"] == "ReplicaFailure"));
    match failure {
        Some(f) => condition(&mut all, "ReplicaFailure", "True", text(f, "/reason"), text(f, "/message")),
        None => all.retain(|c| c["type"] != "ReplicaFailure"),
    }
    for c in all.iter_mut().filter(|c| c.get("lastUpdateTime").is_none()) {
        c["lastUpdateTime"] = c["lastTransitionTime"].clone();
    }
    status["conditions"] = all.into();
    set_status(store, MANAGER, deployment, status);
}
