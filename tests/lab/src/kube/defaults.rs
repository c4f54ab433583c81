//! The defaults that a real API server fills in for the kinds that matter here.

use serde_json::{Map, Value, json};

/// Sets a field that is missing.
fn missing(at: &mut Value, name: &str, value: Value) {
    if at.get(name).is_none_or(Value::is_null) {
        at[name] = value;
    }
}

fn each<'v>(at: &'v mut Value, name: &str) -> impl Iterator<Item = &'v mut Value> {
    at.get_mut(name).and_then(Value::as_array_mut).into_iter().flatten()
}

/// Fills in the defaults of a built-in kind.
pub(crate) fn fill(group: &str, kind: &str, object: &mut Value) {
    match (group, kind) {
        ("", "Namespace") => {
            let name = object["metadata"]["name"].clone();
            if !object["metadata"]["labels"].is_object() {
                object["metadata"]["labels"] = json!({});
            }
            missing(&mut object["metadata"]["labels"], "kubernetes.io/metadata.name", name);
            status(object, json!({"phase": "Active"}));
        }
        ("", "Node") => {
            status(object, json!({}));
            missing(&mut object["status"], "daemonEndpoints", json!({"kubeletEndpoint": {"Port": 0}}));
            missing(
                &mut object["status"],
                "nodeInfo",
                json!({"machineID": "", "systemUUID": "", "bootID": "", "kernelVersion": "", "osImage": "",
                    "containerRuntimeVersion": "", "kubeletVersion": "", "kubeProxyVersion": "",
                    "operatingSystem": "", "architecture": ""}),
            );
            ensure_object(object, "spec");
        }
        ("", "Pod") => {
            ensure_object(object, "spec");
            pod_spec(&mut object["spec"]);
            missing(&mut object["spec"], "enableServiceLinks", true.into());
            status(object, json!({}));
            missing(&mut object["status"], "phase", "Pending".into());
            let class = qos(&object["spec"]);
            missing(&mut object["status"], "qosClass", class.into());
        }
        ("", "Service") => service(object),
        ("", "Secret") => {
            missing(object, "type", "Opaque".into());
            if let Some(Value::Object(plain)) =
                object.as_object_mut().and_then(|o| o.shift_remove("stringData"))
            {
                use base64::Engine as _;
                ensure_object(object, "data");
                for (key, text) in plain {
                    let text = text.as_str().unwrap_or_default().to_owned();
                    object["data"][key] = base64::engine::general_purpose::STANDARD.encode(text).into();
                }
            }
        }
        ("", "PersistentVolumeClaim") => claim(object),
        ("", "PersistentVolume") => {
            missing(&mut object["spec"], "volumeMode", "Filesystem".into());
            missing(&mut object["spec"], "persistentVolumeReclaimPolicy", "Retain".into());
            status(object, json!({}));
            missing(&mut object["status"], "phase", "Pending".into());
            if let Some(claim) = object["spec"].get_mut("claimRef") {
                missing(claim, "kind", "PersistentVolumeClaim".into());
                missing(claim, "apiVersion", "v1".into());
            }
        }
        ("apps", "Deployment") => {
            let spec = &mut object["spec"];
            missing(spec, "replicas", 1.into());
            template(spec);
            missing(spec, "strategy", json!({}));
            missing(&mut spec["strategy"], "type", "RollingUpdate".into());
            if spec["strategy"]["type"] == "RollingUpdate" {
                missing(&mut spec["strategy"], "rollingUpdate", json!({}));
                missing(&mut spec["strategy"]["rollingUpdate"], "maxUnavailable", "25%".into());
                missing(&mut spec["strategy"]["rollingUpdate"], "maxSurge", "25%".into());
            }
            missing(spec, "revisionHistoryLimit", 10.into());
            missing(spec, "progressDeadlineSeconds", 600.into());
            status(object, json!({}));
        }
        ("apps", "DaemonSet") => {
            let spec = &mut object["spec"];
            template(spec);
            missing(spec, "updateStrategy", json!({}));
            missing(&mut spec["updateStrategy"], "type", "RollingUpdate".into());
            if spec["updateStrategy"]["type"] == "RollingUpdate" {
                missing(&mut spec["updateStrategy"], "rollingUpdate", json!({}));
                missing(&mut spec["updateStrategy"]["rollingUpdate"], "maxUnavailable", 1.into());
                missing(&mut spec["updateStrategy"]["rollingUpdate"], "maxSurge", 0.into());
            }
            missing(spec, "revisionHistoryLimit", 10.into());
            status(
                object,
                json!({"currentNumberScheduled": 0, "numberMisscheduled": 0, "desiredNumberScheduled": 0, "numberReady": 0}),
            );
        }
        ("apps", "StatefulSet") => {
            let spec = &mut object["spec"];
            missing(spec, "replicas", 1.into());
            template(spec);
            missing(spec, "podManagementPolicy", "OrderedReady".into());
            missing(spec, "updateStrategy", json!({}));
            missing(&mut spec["updateStrategy"], "type", "RollingUpdate".into());
            if spec["updateStrategy"]["type"] == "RollingUpdate" {
                missing(&mut spec["updateStrategy"], "rollingUpdate", json!({"partition": 0}));
            }
            missing(spec, "revisionHistoryLimit", 10.into());
            missing(
                spec,
                "persistentVolumeClaimRetentionPolicy",
                json!({"whenDeleted": "Retain", "whenScaled": "Retain"}),
            );
            for item in each(spec, "volumeClaimTemplates") {
                missing(item, "apiVersion", "v1".into());
                missing(item, "kind", "PersistentVolumeClaim".into());
                claim(item);
            }
            status(object, json!({"replicas": 0, "availableReplicas": 0}));
        }
        ("apps", "ReplicaSet") => {
            missing(&mut object["spec"], "replicas", 1.into());
            template(&mut object["spec"]);
            status(object, json!({"replicas": 0}));
        }
        ("batch", "Job") => {
            job(object);
            status(object, json!({}));
        }
        ("batch", "CronJob") => {
            let spec = &mut object["spec"];
            missing(spec, "concurrencyPolicy", "Allow".into());
            missing(spec, "suspend", false.into());
            missing(spec, "successfulJobsHistoryLimit", 3.into());
            missing(spec, "failedJobsHistoryLimit", 1.into());
            if let Some(inner) = spec.pointer_mut("/jobTemplate/spec") {
                template(inner);
            }
            status(object, json!({}));
        }
        ("networking.k8s.io", "Ingress") => status(object, json!({"loadBalancer": {}})),
        ("networking.k8s.io", "NetworkPolicy") => {
            let spec = &mut object["spec"];
            let mut kinds = vec!["Ingress"];
            if spec.get("egress").is_some() {
                kinds.push("Egress");
            }
            missing(spec, "podSelector", json!({}));
            missing(spec, "policyTypes", kinds.into());
            for side in ["ingress", "egress"] {
                for rule in each(spec, side) {
                    each(rule, "ports").for_each(|p| missing(p, "protocol", "TCP".into()));
                }
            }
        }
        ("policy", "PodDisruptionBudget") => status(
            object,
            json!({"disruptionsAllowed": 0, "currentHealthy": 0, "desiredHealthy": 0, "expectedPods": 0}),
        ),
        ("rbac.authorization.k8s.io", _) => {
            if object.get("roleRef").is_some() {
                missing(&mut object["roleRef"], "apiGroup", "rbac.authorization.k8s.io".into());
            }
            for subject in each(object, "subjects") {
                if subject["kind"] != "ServiceAccount" {
                    missing(subject, "apiGroup", "rbac.authorization.k8s.io".into());
                }
            }
        }
        ("storage.k8s.io", "StorageClass") => {
            missing(object, "reclaimPolicy", "Delete".into());
            missing(object, "volumeBindingMode", "Immediate".into());
        }
        ("scheduling.k8s.io", "PriorityClass") => {
            missing(object, "preemptionPolicy", "PreemptLowerPriority".into())
        }
        ("admissionregistration.k8s.io", _) => {
            let mutating = kind.starts_with("Mutating");
            for hook in each(object, "webhooks") {
                missing(hook, "failurePolicy", "Fail".into());
                missing(hook, "matchPolicy", "Equivalent".into());
                missing(hook, "namespaceSelector", json!({}));
                missing(hook, "objectSelector", json!({}));
                missing(hook, "timeoutSeconds", 10.into());
                if mutating {
                    missing(hook, "reinvocationPolicy", "Never".into());
                }
                each(hook, "rules").for_each(|r| missing(r, "scope", "*".into()));
                if let Some(service) = hook.pointer_mut("/clientConfig/service") {
                    missing(service, "port", 443.into());
                }
            }
        }
        ("apiregistration.k8s.io", "APIService") => {
            if let Some(service) = object.pointer_mut("/spec/service") {
                missing(service, "port", 443.into());
            }
            status(object, json!({}));
        }
        ("apiextensions.k8s.io", "CustomResourceDefinition") => {
            let spec = &mut object["spec"];
            missing(spec, "conversion", json!({"strategy": "None"}));
            let kind = spec["names"]["kind"].as_str().unwrap_or_default().to_owned();
            missing(&mut spec["names"], "listKind", format!("{kind}List").into());
            missing(&mut spec["names"], "singular", kind.to_lowercase().into());
            let stored: Vec<Value> = spec["versions"]
                .as_array()
                .into_iter()
                .flatten()
                .filter(|v| v["storage"] == true)
                .map(|v| v["name"].clone())
                .collect();
            status(
                object,
                json!({"conditions": null, "acceptedNames": {"plural": "", "kind": ""}, "storedVersions": stored}),
            );
        }
        ("discovery.k8s.io", "EndpointSlice") => {
            for port in each(object, "ports") {
                missing(port, "protocol", "TCP".into());
                missing(port, "name", "".into());
            }
        }
        ("certificates.k8s.io", _) => status(object, json!({})),
        _ => {}
    }
}

fn status(object: &mut Value, value: Value) {
    missing(object, "status", value);
}

fn ensure_object(object: &mut Value, name: &str) {
    if !object.get(name).is_some_and(Value::is_object) {
        object[name] = Value::Object(Map::new());
    }
}

fn claim(object: &mut Value) {
    missing(&mut object["spec"], "volumeMode", "Filesystem".into());
    status(object, json!({}));
    missing(&mut object["status"], "phase", "Pending".into());
}

fn job(object: &mut Value) {
    let uid = object["metadata"]["uid"].clone();
    let name = object["metadata"]["name"].clone();
    let spec = &mut object["spec"];
    missing(spec, "completions", 1.into());
    missing(spec, "parallelism", 1.into());
    missing(spec, "backoffLimit", 6.into());
    missing(spec, "completionMode", "NonIndexed".into());
    missing(spec, "suspend", false.into());
    missing(spec, "manualSelector", false.into());
    missing(spec, "podReplacementPolicy", "TerminatingOrFailed".into());
    template(spec);
    if uid.is_string() && spec["manualSelector"] != true {
        missing(spec, "selector", json!({"matchLabels": {"batch.kubernetes.io/controller-uid": uid}}));
        ensure_object(&mut spec["template"], "metadata");
        ensure_object(&mut spec["template"]["metadata"], "labels");
        let labels = &mut spec["template"]["metadata"]["labels"];
        missing(labels, "batch.kubernetes.io/controller-uid", uid.clone());
        missing(labels, "batch.kubernetes.io/job-name", name.clone());
        missing(labels, "controller-uid", uid);
        missing(labels, "job-name", name);
    }
}

fn template(spec: &mut Value) {
    if let Some(pod) = spec.pointer_mut("/template/spec") {
        pod_spec(pod);
    }
}

fn service(object: &mut Value) {
    let spec = &mut object["spec"];
    missing(spec, "type", "ClusterIP".into());
    missing(spec, "sessionAffinity", "None".into());
    let external = matches!(spec["type"].as_str(), Some("NodePort" | "LoadBalancer"));
    for port in each(spec, "ports") {
        missing(port, "protocol", "TCP".into());
        let number = port["port"].clone();
        missing(port, "targetPort", number);
    }
    if spec["type"] != "ExternalName" {
        if external {
            missing(spec, "externalTrafficPolicy", "Cluster".into());
        }
        missing(spec, "ipFamilies", json!(["IPv4"]));
        missing(spec, "ipFamilyPolicy", "SingleStack".into());
        missing(spec, "internalTrafficPolicy", "Cluster".into());
        if spec["type"] == "LoadBalancer" {
            missing(spec, "allocateLoadBalancerNodePorts", true.into());
        }
    }
    status(object, json!({"loadBalancer": {}}));
}

/// Fills in a pod's defaults.
pub(crate) fn pod_spec(spec: &mut Value) {
    let host_network = spec["hostNetwork"] == true;
    for list in ["initContainers", "containers"] {
        for container in each(spec, list) {
            missing(container, "resources", json!({}));
            missing(container, "terminationMessagePath", "/dev/termination-log".into());
            missing(container, "terminationMessagePolicy", "File".into());
            let image = container["image"].as_str().unwrap_or_default();
            let last = image.rsplit('/').next().unwrap_or_default();
            let latest = !image.contains('@') && (!last.contains(':') || last.ends_with(":latest"));
            missing(container, "imagePullPolicy", if latest { "Always" } else { "IfNotPresent" }.into());
            for port in each(container, "ports") {
                missing(port, "protocol", "TCP".into());
                if host_network {
                    let number = port["containerPort"].clone();
                    missing(port, "hostPort", number);
                }
            }
            for probe in ["livenessProbe", "readinessProbe", "startupProbe"] {
                let Some(probe) = container.get_mut(probe) else { continue };
                missing(probe, "timeoutSeconds", 1.into());
                missing(probe, "periodSeconds", 10.into());
                missing(probe, "successThreshold", 1.into());
                missing(probe, "failureThreshold", 3.into());
                if let Some(http) = probe.get_mut("httpGet") {
                    missing(http, "scheme", "HTTP".into());
                    missing(http, "path", "/".into());
                }
            }
            for env in each(container, "env") {
                if let Some(field) = env.pointer_mut("/valueFrom/fieldRef") {
                    missing(field, "apiVersion", "v1".into());
                }
            }
            // Limits are requests where no requests are given.
            if let Some(limits) = container["resources"].get("limits").and_then(Value::as_object).cloned() {
                missing(&mut container["resources"], "requests", json!({}));
                for (name, amount) in limits {
                    missing(&mut container["resources"]["requests"], &name, amount);
                }
            }
        }
    }
    for volume in each(spec, "volumes") {
        for source in ["configMap", "secret", "projected", "downwardAPI"] {
            if let Some(source) = volume.get_mut(source) {
                missing(source, "defaultMode", 420.into());
            }
        }
        if let Some(host) = volume.get_mut("hostPath") {
            missing(host, "type", "".into());
        }
        if let Some(projected) = volume.get_mut("projected") {
            for source in each(projected, "sources") {
                if let Some(token) = source.get_mut("serviceAccountToken") {
                    missing(token, "expirationSeconds", 3600.into());
                }
            }
        }
        for items in ["/downwardAPI", "/projected/downwardAPI"] {
            if let Some(api) = volume.pointer_mut(items) {
                for item in each(api, "items") {
                    if let Some(field) = item.get_mut("fieldRef") {
                        missing(field, "apiVersion", "v1".into());
                    }
                }
            }
        }
    }
    missing(spec, "restartPolicy", "Always".into());
    missing(spec, "terminationGracePeriodSeconds", 30.into());
    missing(spec, "dnsPolicy", "ClusterFirst".into());
    missing(spec, "securityContext", json!({}));
    missing(spec, "schedulerName", "default-scheduler".into());
    if let Some(account) = spec.get("serviceAccountName").cloned() {
        spec["serviceAccount"] = account;
    } else if let Some(account) = spec.get("serviceAccount").cloned() {
        spec["serviceAccountName"] = account;
    }
}

fn qos(spec: &Value) -> &'static str {
    let containers = || spec["containers"].as_array().into_iter().flatten();
    let set = |c: &Value, what: &str| c["resources"][what].as_object().is_some_and(|m| !m.is_empty());
    if containers().all(|c| !set(c, "requests") && !set(c, "limits")) {
        return "BestEffort";
    }
    let full = |c: &Value| {
        ["cpu", "memory"].iter().all(|r| {
            c["resources"]["limits"].get(r).is_some()
                && c["resources"]["limits"][r] == c["resources"]["requests"][r]
        })
    };
    if containers().all(full) { "Guaranteed" } else { "Burstable" }
}
