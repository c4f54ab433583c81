//! StatefulSets: numbered pods, one after the other, each with its claims.

use std::sync::Arc;

use serde_json::{Value, json};

use super::{
    MANAGER, children, create, delete, ensure, event, going, list, names, number, pods, set_status, text,
};
use crate::kube::store::{Store, hash, key_of};

const STORE: &str = "statefulsets.apps";

/// One pass.
pub(crate) fn run(store: &mut Store) {
    for (ns, name) in names(store, STORE) {
        let Some(set) = store.get(STORE, &ns, &name).cloned() else { continue };
        if !going(&set) {
            number_pods(store, &set);
        }
    }
}

fn number_pods(store: &mut Store, set: &Value) {
    let name = text(set, "/metadata/name");
    let revision = format!("{name}-{}", hash(&set["spec"]["template"]));
    let wanted = number(set, "/spec/replicas");
    let first = number(set, "/spec/ordinals/start");
    let parallel = set["spec"]["podManagementPolicy"] == "Parallel";
    let mine = children(store, "pods", set);
    let find = |n: i64| mine.iter().find(|p| p["metadata"]["name"] == format!("{name}-{n}"));
    let mut all_good = true;
    for n in first..first + wanted {
        match find(n) {
            Some(p) if matches!(text(p, "/status/phase"), "Failed" | "Succeeded") => {
                let (ns, name) = key_of(p);
                delete(store, "pods", &ns, &name, None);
                all_good = false;
            }
            Some(p) => all_good &= pods::is_ready(p) && !going(p),
            None => {
                claims(store, set, n);
                if let Err(status) = create(store, MANAGER, pod(set, n, &revision)) {
                    let message = format!(
                        "create Pod {name}-{n} in StatefulSet {name} failed error: {}",
                        status.message()
                    );
                    event(store, set, "Warning", "FailedCreate", &message, "statefulset-controller");
                }
                all_good = false;
            }
        }
        if !all_good && !parallel {
            break;
        }
    }
    let mut extra: Vec<&Arc<Value>> =
        mine.iter().filter(|p| ordinal(p) >= first + wanted && !going(p)).collect();
    extra.sort_by_key(|p| -ordinal(p));
    for p in extra.iter().take(if parallel { extra.len() } else { 1 }) {
        let (ns, name) = key_of(p);
        delete(store, "pods", &ns, &name, None);
    }
    let fresh = |p: &&Arc<Value>| p["metadata"]["labels"]["controller-revision-hash"] == revision.as_str();
    if all_good && text(set, "/spec/updateStrategy/type") == "RollingUpdate" {
        let partition = number(set, "/spec/updateStrategy/rollingUpdate/partition");
        let mut stale: Vec<&Arc<Value>> =
            mine.iter().filter(|p| !fresh(p) && ordinal(p) >= partition).collect();
        stale.sort_by_key(|p| -ordinal(p));
        if let Some(p) = stale.first() {
            let (ns, name) = key_of(p);
            delete(store, "pods", &ns, &name, None);
        }
    }
    let alive = children(store, "pods", set);
    let ready = alive.iter().filter(|p| pods::is_ready(p) && !going(p)).count() as i64;
    let updated = alive.iter().filter(fresh).count() as i64;
    let done = updated == wanted && ready == wanted;
    let before = match text(set, "/status/currentRevision") {
        "" => revision.as_str(),
        before => before,
    };
    let mut status = json!({"replicas": alive.len(), "availableReplicas": ready, "collisionCount": 0,
        "observedGeneration": set["metadata"]["generation"], "updateRevision": revision,
        "currentRevision": if done { revision.as_str() } else { before }});
    for (field, n) in [
        ("readyReplicas", ready),
        ("updatedReplicas", updated),
        ("currentReplicas", if done { updated } else { alive.len() as i64 - updated }),
    ] {
        if n > 0 {
            status[field] = n.into();
        }
    }
    set_status(store, MANAGER, set, status);
}

fn ordinal(pod: &Value) -> i64 {
    text(pod, "/metadata/name").rsplit('-').next().and_then(|n| n.parse().ok()).unwrap_or(-1)
}

fn claim_name(template: &Value, set: &Value, n: i64) -> String {
    format!("{}-{}-{n}", text(template, "/metadata/name"), text(set, "/metadata/name"))
}

fn claims(store: &mut Store, set: &Value, n: i64) {
    for template in list(set, "/spec/volumeClaimTemplates") {
        let mut labels = set["spec"]["selector"]["matchLabels"].clone();
        for (k, v) in template["metadata"]["labels"].as_object().into_iter().flatten() {
            labels[k] = v.clone();
        }
        ensure(
            store,
            MANAGER,
            json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": claim_name(template, set, n),
                "namespace": set["metadata"]["namespace"], "labels": labels}, "spec": template["spec"]}),
        );
    }
}

fn pod(set: &Value, n: i64, revision: &str) -> Value {
    let mut pod = super::replicas::from_template(set);
    let name = format!("{}-{n}", text(set, "/metadata/name"));
    pod["metadata"]["name"] = name.as_str().into();
    pod["metadata"]["labels"]["controller-revision-hash"] = revision.into();
    pod["metadata"]["labels"]["statefulset.kubernetes.io/pod-name"] = name.as_str().into();
    pod["metadata"]["labels"]["apps.kubernetes.io/pod-index"] = n.to_string().into();
    pod["spec"]["hostname"] = name.into();
    pod["spec"]["subdomain"] = set["spec"].get("serviceName").cloned().unwrap_or_default();
    let mut volumes = list(&pod, "/spec/volumes").to_vec();
    for template in list(set, "/spec/volumeClaimTemplates") {
        let name = text(template, "/metadata/name");
        volumes.retain(|v| v["name"] != name);
        volumes.push(
            json!({"name": name, "persistentVolumeClaim": {"claimName": claim_name(template, set, n)}}),
        );
    }
    if !volumes.is_empty() {
        pod["spec"]["volumes"] = volumes.into();
    }
    pod
}
