//! What an API server allocates, fills in from other objects and refuses, for the kinds that matter here.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::allocation;
use super::claims;
use super::controllers::list;
use super::resources::Resource;
use super::selectors::Selector;
use super::status::Status;
use super::store::Store;
use super::verbs::Call;

/// `(field, reason, message)` as a `Status` lists causes.
pub(crate) type Fault = (String, &'static str, String);

/// A value that may not be.
pub(crate) fn invalid(field: impl Into<String>, value: &Value, why: &str) -> Fault {
    (field.into(), "FieldValueInvalid", format!("Invalid value: {value}: {why}"))
}

/// A value that must be.
pub(crate) fn required(field: impl Into<String>, why: &str) -> Fault {
    let message = if why.is_empty() { "Required value".to_owned() } else { format!("Required value: {why}") };
    (field.into(), "FieldValueRequired", message)
}

/// A value that may not be given, or not be changed.
pub(crate) fn forbidden(field: impl Into<String>, why: &str) -> Fault {
    (field.into(), "FieldValueForbidden", format!("Forbidden: {why}"))
}

/// Admits an object: allocates, defaults from other objects, validates.
pub(crate) fn admit(
    store: &mut Store,
    res: &Resource,
    old: Option<&Value>,
    new: &mut Value,
    call: &mut Call,
) -> Result<(), Status> {
    let name = new["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    let mut faults: Vec<Fault> = Vec::new();
    if old.is_none() {
        name_faults(res, &name, &mut faults);
    }
    label_faults(new, &mut faults);
    match (res.group.as_str(), res.kind.as_str()) {
        ("", "Service") => allocation::service(store, old, new, &mut faults),
        ("", "Pod") => pod(store, res, old, new, &mut faults)?,
        ("", "Namespace") if old.is_none() => new["spec"]["finalizers"] = json!(["kubernetes"]),
        ("", "Node") if old.is_none() && !call.system => {
            let mut taints = list(new, "/spec/taints").to_vec();
            if !taints.iter().any(|t| t["key"] == "node.kubernetes.io/not-ready") {
                taints.push(json!({"key": "node.kubernetes.io/not-ready", "effect": "NoSchedule"}));
            }
            new["spec"]["taints"] = taints.into();
        }
        ("", "PersistentVolumeClaim") => claims::admit(store, old, new, &mut faults),
        ("", "PersistentVolume") => {
            if old.is_none() {
                new["metadata"]["finalizers"] = json!(["kubernetes.io/pv-protection"]);
            } else if let Some(old) = old {
                let source = |v: &Value| {
                    ["nfs", "hostPath", "local", "csi", "iscsi", "fc"].map(|s| v["spec"].get(s).cloned())
                };
                if source(old) != source(new) {
                    let why = "spec.persistentvolumesource is immutable after creation";
                    faults.push(forbidden("spec.persistentvolumesource", why));
                }
            }
        }
        ("", "ConfigMap" | "Secret") => frozen(old, new, &mut faults),
        ("apps", _) => workload(res, old, new, &mut faults),
        ("batch", "Job") => {
            containers(new, "/spec/template/spec", "spec.template.spec", &mut faults);
            for field in ["template", "selector", "completionMode"] {
                immutable(old, new, &format!("/spec/{field}"), &format!("spec.{field}"), &mut faults);
            }
        }
        ("batch", "CronJob") => {
            containers(
                new,
                "/spec/jobTemplate/spec/template/spec",
                "spec.jobTemplate.spec.template.spec",
                &mut faults,
            );
        }
        ("storage.k8s.io", "StorageClass") => {
            if new["provisioner"].as_str().unwrap_or_default().is_empty() {
                faults.push(required("provisioner", ""));
            }
            immutable(old, new, "/parameters", "parameters", &mut faults);
            if let Some(old) = old {
                if old["provisioner"] != new["provisioner"] {
                    faults.push(forbidden("provisioner", "updates to provisioner are forbidden."));
                }
                if old["reclaimPolicy"] != new["reclaimPolicy"] {
                    faults.push(forbidden("reclaimPolicy", "updates to reclaimPolicy are forbidden."));
                }
            }
            immutable(old, new, "/volumeBindingMode", "volumeBindingMode", &mut faults);
        }
        ("rbac.authorization.k8s.io", "ClusterRoleBinding" | "RoleBinding") => {
            if let Some(old) = old
                && old["roleRef"] != new["roleRef"]
            {
                faults.push(invalid("roleRef", &new["roleRef"], "cannot change roleRef"));
            }
        }
        ("networking.k8s.io", "Ingress") => {
            for (i, rule) in list(new, "/spec/rules").iter().enumerate() {
                for (j, path) in list(rule, "/http/paths").iter().enumerate() {
                    if path.get("pathType").is_none() {
                        faults.push(required(
                            format!("spec.rules[{i}].http.paths[{j}].pathType"),
                            "pathType must be specified",
                        ));
                    }
                }
            }
        }
        ("apiextensions.k8s.io", "CustomResourceDefinition") => {
            let group = new["spec"]["group"].as_str().unwrap_or_default();
            let wanted = format!("{}.{group}", new["spec"]["names"]["plural"].as_str().unwrap_or_default());
            if name != wanted {
                let why = format!("must be spec.names.plural+\".\"+spec.group: {wanted:?}");
                faults.push(invalid("metadata.name", &json!(name), &why));
            }
            for (i, version) in list(new, "/spec/versions").iter().enumerate() {
                if version.pointer("/schema/openAPIV3Schema").is_none() {
                    faults.push(required(
                        format!("spec.versions[{i}].schema.openAPIV3Schema"),
                        "schemas are required",
                    ));
                }
            }
            if old.is_some() && old.is_none_or(|o| o["spec"]["scope"] != new["spec"]["scope"]) {
                faults.push(invalid("spec.scope", &new["spec"]["scope"], "field is immutable"));
            }
        }
        _ => {}
    }
    if !faults.is_empty() {
        return Err(Status::invalid(res, &name, &faults));
    }
    match old.filter(|_| res.kind == "PersistentVolumeClaim").and_then(|old| claims::grows(store, old, new)) {
        Some(why) => Err(Status::forbidden(res, &name, why)),
        None => Ok(()),
    }
}

fn immutable(old: Option<&Value>, new: &Value, pointer: &str, field: &str, faults: &mut Vec<Fault>) {
    if let Some(old) = old
        && old.pointer(pointer) != new.pointer(pointer)
    {
        faults.push(invalid(field, new.pointer(pointer).unwrap_or(&Value::Null), "field is immutable"));
    }
}

fn name_faults(res: &Resource, name: &str, faults: &mut Vec<Fault>) {
    if res.group == "rbac.authorization.k8s.io" || res.kind == "IPAddress" {
        return;
    }
    let plain = matches!(res.kind.as_str(), "Service" | "Namespace");
    let good = |part: &str| {
        !part.is_empty()
            && part.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
            && !part.starts_with('-')
            && !part.ends_with('-')
    };
    let limit = if plain { 63 } else { 253 };
    if name.len() > limit || !name.split('.').all(good) || (plain && name.contains('.')) {
        let why = if plain {
            "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')"
        } else {
            "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"
        };
        faults.push(invalid("metadata.name", &json!(name), why));
    }
}

fn label_faults(new: &Value, faults: &mut Vec<Fault>) {
    for value in new["metadata"]["labels"].as_object().into_iter().flat_map(|m| m.values()) {
        let text = value.as_str().unwrap_or_default();
        let edge = |c: Option<char>| c.is_none_or(|c| c.is_ascii_alphanumeric());
        let inside = text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'));
        if text.len() > 63 || !inside || !edge(text.chars().next()) || !edge(text.chars().last()) {
            let why = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')";
            faults.push(invalid("metadata.labels", value, why));
        }
    }
}

fn frozen(old: Option<&Value>, new: &Value, faults: &mut Vec<Fault>) {
    let Some(old) = old else { return };
    if old["kind"] == "Secret" && old["type"] != new["type"] {
        faults.push(invalid("type", &new["type"], "field is immutable"));
    }
    if old["immutable"] == true {
        for field in ["data", "binaryData"] {
            if old.get(field) != new.get(field) {
                faults.push(forbidden(field, "field is immutable when `immutable` is set"));
            }
        }
        if new["immutable"] != true {
            faults.push(forbidden("immutable", "field is immutable when `immutable` is set"));
        }
    }
}

fn workload(res: &Resource, old: Option<&Value>, new: &Value, faults: &mut Vec<Fault>) {
    if res.kind == "ControllerRevision" {
        return;
    }
    match new.pointer("/spec/selector") {
        None => faults.push(required("spec.selector", "")),
        Some(selector) => {
            let labels = new.pointer("/spec/template/metadata/labels").unwrap_or(&Value::Null);
            if !Selector::of(selector).matches(labels) {
                let why = "`selector` does not match template `labels`";
                faults.push(invalid("spec.template.metadata.labels", labels, why));
            }
        }
    }
    containers(new, "/spec/template/spec", "spec.template.spec", faults);
    let Some(old_object) = old else { return };
    if res.kind != "StatefulSet" {
        immutable(old, new, "/spec/selector", "spec.selector", faults);
        return;
    }
    const FREE: [&str; 7] = [
        "replicas",
        "ordinals",
        "template",
        "updateStrategy",
        "revisionHistoryLimit",
        "persistentVolumeClaimRetentionPolicy",
        "minReadySeconds",
    ];
    let fixed = |v: &Value| -> std::collections::BTreeMap<String, Value> {
        let spec = v["spec"].as_object().cloned().unwrap_or_default();
        spec.into_iter().filter(|(k, _)| !FREE.contains(&k.as_str())).collect()
    };
    if fixed(old_object) != fixed(new) {
        faults.push(forbidden("spec", "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', 'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden"));
    }
}

fn containers(new: &Value, pointer: &str, field: &str, faults: &mut Vec<Fault>) {
    let Some(spec) = new.pointer(pointer) else {
        faults.push(required(format!("{field}.containers"), ""));
        return;
    };
    if list(spec, "/containers").is_empty() {
        faults.push(required(format!("{field}.containers"), ""));
    }
    let volumes: BTreeSet<&str> = list(spec, "/volumes").iter().filter_map(|v| v["name"].as_str()).collect();
    for kind in ["initContainers", "containers"] {
        for (i, container) in list(spec, &format!("/{kind}")).iter().enumerate() {
            if container["image"].as_str().unwrap_or_default().is_empty() {
                faults.push(required(format!("{field}.{kind}[{i}].image"), ""));
            }
            for (j, mount) in list(container, "/volumeMounts").iter().enumerate() {
                let wanted = mount["name"].as_str().unwrap_or_default();
                // A StatefulSet's claims become volumes only in its pods.
                if !volumes.contains(wanted) && new["kind"] != "StatefulSet" {
                    let at = format!("{field}.{kind}[{i}].volumeMounts[{j}].name");
                    faults.push((at, "FieldValueNotFound", format!("Not found: {wanted:?}")));
                }
            }
        }
    }
}

fn pod(
    store: &Store,
    res: &Resource,
    old: Option<&Value>,
    new: &mut Value,
    faults: &mut Vec<Fault>,
) -> Result<(), Status> {
    containers(new, "/spec", "spec", faults);
    let name = new["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    if let Some(old) = old {
        let mut before = old["spec"].clone();
        let after = &new["spec"];
        // An image, the tolerations (additions) and a binding may change; nothing else.
        for (mine, theirs) in [(&mut before, after)] {
            mine["tolerations"] = theirs["tolerations"].clone();
            mine["activeDeadlineSeconds"] = theirs["activeDeadlineSeconds"].clone();
            if mine.get("nodeName").is_none() {
                mine["nodeName"] = theirs["nodeName"].clone();
            }
            let images: Vec<Value> = list(theirs, "/containers").iter().map(|c| c["image"].clone()).collect();
            for (c, image) in mine["containers"].as_array_mut().into_iter().flatten().zip(images) {
                c["image"] = image;
            }
        }
        let mut after = after.clone();
        super::schema::check::drop_nulls(&mut before);
        super::schema::check::drop_nulls(&mut after);
        if before != after {
            faults.push(forbidden("spec", "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)"));
        }
        return Ok(());
    }
    let ns = new["metadata"]["namespace"].as_str().unwrap_or_default().to_owned();
    let mirror = new["metadata"]["annotations"].get("kubernetes.io/config.mirror").is_some();
    if !mirror {
        let account = new["spec"]["serviceAccountName"].as_str().unwrap_or("default").to_owned();
        if store.get("serviceaccounts", &ns, &account).is_none() {
            let why = format!(
                "error looking up service account {ns}/{account}: serviceaccount \"{account}\" not found"
            );
            return Err(Status::forbidden(res, &name, &why));
        }
        new["spec"]["serviceAccountName"] = account.as_str().into();
        new["spec"]["serviceAccount"] = account.into();
    }
    let class = new["spec"]["priorityClassName"].as_str().unwrap_or_default().to_owned();
    let priority = match class.as_str() {
        "" => 0,
        "system-cluster-critical" => 2_000_000_000,
        "system-node-critical" => 2_000_001_000,
        other => match store.get("priorityclasses.scheduling.k8s.io", "", other) {
            Some(class) => class["value"].as_i64().unwrap_or(0),
            None => {
                let why = format!("no PriorityClass with name {other} was found");
                return Err(Status::forbidden(res, &name, &why));
            }
        },
    };
    new["spec"]["priority"] = priority.into();
    new["spec"]["preemptionPolicy"] = "PreemptLowerPriority".into();
    let mut tolerations = list(new, "/spec/tolerations").to_vec();
    for key in ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"] {
        let held = |t: &Value| {
            (t["key"] == key || (t.get("key").is_none() && t["operator"] == "Exists"))
                && (t.get("effect").is_none() || t["effect"] == "NoExecute")
        };
        if !mirror && !tolerations.iter().any(held) {
            tolerations.push(
                json!({"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300}),
            );
        }
    }
    if !tolerations.is_empty() {
        new["spec"]["tolerations"] = tolerations.into();
    }
    Ok(())
}
