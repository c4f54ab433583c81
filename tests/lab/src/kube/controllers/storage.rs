//! Claims and volumes: static binding, and NFS provisioners that run as Deployments.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::{Value, json};

use super::{MANAGER, Plant, create, delete, event, going, list, names, number, set_status, text, update};
use crate::kube::store::{Store, key_of};

const CLAIMS: &str = "persistentvolumeclaims";
const VOLUMES: &str = "persistentvolumes";

/// One pass.
pub(crate) fn run(store: &mut Store, plant: &mut Plant) {
    for (_, name) in names(store, VOLUMES) {
        let Some(volume) = store.get(VOLUMES, "", &name).cloned() else { continue };
        settle_volume(store, &volume);
    }
    let provisioners = provisioners(store);
    for (ns, name) in names(store, CLAIMS) {
        let Some(claim) = store.get(CLAIMS, &ns, &name).cloned() else { continue };
        if going(&claim) {
            release_claim(store, &claim);
        } else if claim["status"]["phase"] != "Bound" {
            bind(store, plant, &claim, &provisioners);
        }
    }
}

// Names of provisioners, with the server and path that each serves.
fn provisioners(store: &Store) -> Vec<(String, Value)> {
    let mut all = Vec::new();
    for deployment in
        store.list("deployments.apps", None).filter(|d| number(d, "/status/availableReplicas") > 0)
    {
        for container in list(deployment, "/spec/template/spec/containers") {
            let env = |wanted: &str| {
                list(container, "/env")
                    .iter()
                    .find(|e| e["name"] == wanted)
                    .map(|e| text(e, "/value").to_owned())
            };
            if let Some(name) = env("PROVISIONER_NAME") {
                let export = json!({"server": env("NFS_SERVER").unwrap_or_default(), "path": env("NFS_PATH").unwrap_or_default()});
                all.push((name, export));
            }
        }
    }
    all
}

fn settle_volume(store: &mut Store, volume: &Value) {
    let claim = &volume["spec"]["claimRef"];
    let name = text(volume, "/metadata/name");
    let bound = claim
        .is_object()
        .then(|| store.get(CLAIMS, text(claim, "/namespace"), text(claim, "/name")))
        .flatten();
    let alive = bound.is_some_and(|c| claim.get("uid").is_none() || c["metadata"]["uid"] == claim["uid"]);
    if going(volume) {
        if !alive {
            let mut free = volume.clone();
            free["metadata"]["finalizers"] = json!([]);
            update(store, MANAGER, free);
        }
        return;
    }
    let phase = if !claim.is_object() || claim.get("uid").is_none() {
        "Available"
    } else if alive {
        "Bound"
    } else {
        "Released"
    };
    if phase == "Released" && volume["spec"]["persistentVolumeReclaimPolicy"] == "Delete" {
        delete(store, VOLUMES, "", name, None);
        return;
    }
    let mut status = volume["status"].clone();
    status["phase"] = phase.into();
    set_status(store, MANAGER, volume, status);
}

fn release_claim(store: &mut Store, claim: &Value) {
    let (ns, name) = key_of(claim);
    let used = store.list("pods", Some(&ns)).any(|p| {
        list(p, "/spec/volumes").iter().any(|v| text(v, "/persistentVolumeClaim/claimName") == name)
            && !matches!(text(p, "/status/phase"), "Succeeded" | "Failed")
    });
    if !used {
        let mut free = claim.clone();
        let rest: Vec<Value> = list(&free, "/metadata/finalizers")
            .iter()
            .filter(|f| *f != "kubernetes.io/pvc-protection")
            .cloned()
            .collect();
        free["metadata"]["finalizers"] = rest.into();
        update(store, MANAGER, free);
    }
}

/// Bytes of a quantity.
fn bytes(value: &Value) -> f64 {
    let text = match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let split = text.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(text.len());
    let unit = match &text[split..] {
        "k" => 1e3,
        "M" => 1e6,
        "G" => 1e9,
        "T" => 1e12,
        "Ki" => 1024.0,
        "Mi" => 1024f64.powi(2),
        "Gi" => 1024f64.powi(3),
        "Ti" => 1024f64.powi(4),
        _ => 1.0,
    };
    text[..split].parse::<f64>().unwrap_or(0.0) * unit
}

fn matching(store: &Store, claim: &Value) -> Option<Value> {
    let wanted = bytes(&claim["spec"]["resources"]["requests"]["storage"]);
    let modes: BTreeSet<String> = list(claim, "/spec/accessModes").iter().map(Value::to_string).collect();
    let (ns, name) = key_of(claim);
    let given = text(claim, "/spec/volumeName");
    store
        .list(VOLUMES, None)
        .filter(|v| !going(v) && (given.is_empty() || v["metadata"]["name"] == given))
        .filter(|v| {
            let r = &v["spec"]["claimRef"];
            !r.is_object() || (text(r, "/namespace") == ns && text(r, "/name") == name)
        })
        .filter(|v| v["spec"]["claimRef"].is_object() || v["status"]["phase"] == "Available")
        .filter(|v| text(v, "/spec/storageClassName") == text(claim, "/spec/storageClassName"))
        .filter(|v| bytes(&v["spec"]["capacity"]["storage"]) >= wanted)
        .filter(|v| modes.is_subset(&list(v, "/spec/accessModes").iter().map(Value::to_string).collect()))
        .min_by(|a, b| {
            let size = |v: &Value| bytes(&v["spec"]["capacity"]["storage"]);
            size(a).total_cmp(&size(b))
        })
        .map(|v| (**v).clone())
}

fn bind(store: &mut Store, plant: &mut Plant, claim: &Value, provisioners: &[(String, Value)]) {
    let (ns, name) = key_of(claim);
    if let Some(mut volume) = matching(store, claim) {
        volume["spec"]["claimRef"] = json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "name": name, "namespace": ns,
            "uid": claim["metadata"]["uid"]});
        update(store, MANAGER, volume.clone());
        let mut bound = claim.clone();
        bound["spec"]["volumeName"] = volume["metadata"]["name"].clone();
        bound["metadata"]["annotations"]["pv.kubernetes.io/bind-completed"] = "yes".into();
        update(store, MANAGER, bound);
        if let Some(claim) = store.get(CLAIMS, &ns, &name).map(|o| (**o).clone()) {
            let status = json!({"phase": "Bound", "accessModes": volume["spec"]["accessModes"], "capacity": volume["spec"]["capacity"]});
            set_status(store, MANAGER, &claim, status);
        }
        return;
    }
    let class_name = text(claim, "/spec/storageClassName");
    if class_name.is_empty() || !text(claim, "/spec/volumeName").is_empty() {
        let message = "no persistent volumes available for this claim and no storage class is set";
        event(store, claim, "Normal", "FailedBinding", message, "persistentvolume-controller");
        return;
    }
    let Some(class) = store.get("storageclasses.storage.k8s.io", "", class_name).cloned() else {
        let message = format!("storageclass.storage.k8s.io \"{class_name}\" not found");
        event(store, claim, "Warning", "ProvisioningFailed", &message, "persistentvolume-controller");
        return;
    };
    if class["volumeBindingMode"] == "WaitForFirstConsumer" {
        let wanted = store.list("pods", Some(&ns)).any(|p| {
            list(p, "/spec/volumes").iter().any(|v| text(v, "/persistentVolumeClaim/claimName") == name)
        });
        if !wanted {
            let message = "waiting for first consumer to be created before binding";
            event(store, claim, "Normal", "WaitForFirstConsumer", message, "persistentvolume-controller");
            return;
        }
    }
    let provisioner = text(&class, "/provisioner");
    let Some((_, export)) = provisioners.iter().find(|(p, _)| p == provisioner) else {
        let message = format!(
            "Waiting for a volume to be created either by the external provisioner '{provisioner}' or manually by the system administrator. If volume creation is delayed, please verify that the provisioner is running and correctly registered."
        );
        event(store, claim, "Normal", "ExternalProvisioning", &message, "persistentvolume-controller");
        return;
    };
    let uid = text(claim, "/metadata/uid");
    if !plant.due(format!("provision {uid}"), Duration::from_secs(1)) {
        return;
    }
    let volume = format!("pvc-{uid}");
    let path = format!("{}/{ns}-{name}-{volume}", text(export, "/path").trim_end_matches('/'));
    let made = json!({"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": volume,
        "annotations": {"pv.kubernetes.io/provisioned-by": provisioner}},
        "spec": {"capacity": {"storage": claim["spec"]["resources"]["requests"]["storage"]}, "accessModes": claim["spec"]["accessModes"],
            "persistentVolumeReclaimPolicy": class["reclaimPolicy"], "storageClassName": class_name,
            "mountOptions": class.get("mountOptions").cloned().unwrap_or_else(|| json!([])),
            "nfs": {"server": export["server"], "path": path},
            "claimRef": {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "name": name, "namespace": ns, "uid": uid}}});
    if create(store, provisioner, made).is_ok() {
        let message = format!("Successfully provisioned volume {volume}");
        event(store, claim, "Normal", "ProvisioningSucceeded", &message, provisioner);
    }
}
