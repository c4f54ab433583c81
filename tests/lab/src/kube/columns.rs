//! The columns of `kubectl get`, as a real server's printers name them.

mod cells;
mod custom;

use serde_json::Value;

use self::cells::*;
use self::custom::custom_columns;
use super::resources::Resource;

pub(crate) use self::cells::{Column, since};

/// The columns of a resource.
pub(crate) fn of(res: &Resource) -> Vec<Column> {
    if let Some(custom) = &res.custom {
        return custom_columns(&custom.columns);
    }
    let template = "/spec/template/spec/containers";
    let mut all = match res.kind.as_str() {
        "Pod" => vec![
            name(),
            column("Ready", |o| {
                let statuses = items(o, "/status/containerStatuses");
                let ready = statuses.iter().filter(|s| s["ready"] == true).count();
                format!("{ready}/{}", items(o, "/spec/containers").len()).into()
            }),
            column("Status", |o| pod_status(o).into()),
            column("Restarts", |o| {
                items(o, "/status/containerStatuses")
                    .iter()
                    .map(|s| s["restartCount"].as_i64().unwrap_or(0))
                    .sum::<i64>()
                    .into()
            }),
            age(),
            wide("IP", at("/status/podIP")),
            wide("Node", at("/spec/nodeName")),
            wide("Nominated Node", |_| "<none>".into()),
            wide("Readiness Gates", |_| "<none>".into()),
        ],
        "Node" => vec![
            name(),
            column("Status", |o| node_status(o).into()),
            column("Roles", |o| joined(labels_with(o, "node-role.kubernetes.io/"))),
            age(),
            column("Version", at("/status/nodeInfo/kubeletVersion")),
            wide("Internal-IP", |o| address(o, "InternalIP")),
            wide("External-IP", |o| address(o, "ExternalIP")),
            wide("OS-Image", at("/status/nodeInfo/osImage")),
            wide("Kernel-Version", at("/status/nodeInfo/kernelVersion")),
            wide("Container-Runtime", at("/status/nodeInfo/containerRuntimeVersion")),
        ],
        "Deployment" => vec![
            name(),
            column("Ready", out_of("/status/readyReplicas", "/spec/replicas")),
            column("Up-to-date", number("/status/updatedReplicas")),
            column("Available", number("/status/availableReplicas")),
            age(),
            wide("Containers", containers(template, "name")),
            wide("Images", containers(template, "image")),
            wide("Selector", |o| selector_text(&o["spec"]["selector"]["matchLabels"])),
        ],
        "ReplicaSet" => vec![
            name(),
            column("Desired", number("/spec/replicas")),
            column("Current", number("/status/replicas")),
            column("Ready", number("/status/readyReplicas")),
            age(),
        ],
        "StatefulSet" => {
            vec![name(), column("Ready", out_of("/status/readyReplicas", "/spec/replicas")), age()]
        }
        "DaemonSet" => vec![
            name(),
            column("Desired", number("/status/desiredNumberScheduled")),
            column("Current", number("/status/currentNumberScheduled")),
            column("Ready", number("/status/numberReady")),
            column("Up-to-date", number("/status/updatedNumberScheduled")),
            column("Available", number("/status/numberAvailable")),
            column("Node Selector", |o| selector_text(&o["spec"]["template"]["spec"]["nodeSelector"])),
            age(),
        ],
        "Job" => vec![
            name(),
            column("Status", |o| {
                let done = ["Complete", "Failed"].iter().find(|k| condition(o, k)["status"] == "True");
                done.copied().unwrap_or("Running").into()
            }),
            column("Completions", out_of("/status/succeeded", "/spec/completions")),
            age(),
        ],
        "Service" => vec![
            name(),
            column("Type", at("/spec/type")),
            column("Cluster-IP", at("/spec/clusterIP")),
            column("External-IP", |_| "<none>".into()),
            column("Port(s)", |o| {
                joined(items(o, "/spec/ports").iter().map(|p| {
                    let protocol = p["protocol"].as_str().unwrap_or("TCP");
                    match p["nodePort"].as_i64() {
                        Some(node) => format!("{}:{node}/{protocol}", p["port"]),
                        None => format!("{}/{protocol}", p["port"]),
                    }
                }))
            }),
            age(),
            wide("Selector", |o| selector_text(&o["spec"]["selector"])),
        ],
        "Namespace" => vec![name(), column("Status", at("/status/phase")), age()],
        "ConfigMap" => {
            vec![name(), column("Data", |o| o["data"].as_object().map_or(0, |d| d.len()).into()), age()]
        }
        "Secret" => vec![
            name(),
            column("Type", at("/type")),
            column("Data", |o| o["data"].as_object().map_or(0, |d| d.len()).into()),
            age(),
        ],
        "PersistentVolumeClaim" => vec![
            name(),
            column("Status", at("/status/phase")),
            column("Volume", |o| o["spec"].get("volumeName").cloned().unwrap_or_else(|| "".into())),
            column("Capacity", |o| {
                o.pointer("/status/capacity/storage").cloned().unwrap_or_else(|| "".into())
            }),
            column("Access Modes", |o| modes(&o["status"]["accessModes"])),
            column("StorageClass", |o| {
                o["spec"].get("storageClassName").cloned().unwrap_or_else(|| "".into())
            }),
            column("VolumeAttributesClass", |_| "<unset>".into()),
            age(),
        ],
        "PersistentVolume" => vec![
            name(),
            column("Capacity", at("/spec/capacity/storage")),
            column("Access Modes", |o| modes(&o["spec"]["accessModes"])),
            column("Reclaim Policy", at("/spec/persistentVolumeReclaimPolicy")),
            column("Status", at("/status/phase")),
            column("Claim", |o| match o["spec"].get("claimRef") {
                Some(c) => format!(
                    "{}/{}",
                    c["namespace"].as_str().unwrap_or_default(),
                    c["name"].as_str().unwrap_or_default()
                )
                .into(),
                None => "".into(),
            }),
            column("StorageClass", |o| {
                o["spec"].get("storageClassName").cloned().unwrap_or_else(|| "".into())
            }),
            age(),
        ],
        "StorageClass" => vec![
            column("Name", |o| {
                let default =
                    o["metadata"]["annotations"]["storageclass.kubernetes.io/is-default-class"] == "true";
                let name = o["metadata"]["name"].as_str().unwrap_or_default();
                if default { format!("{name} (default)").into() } else { name.into() }
            }),
            column("Provisioner", at("/provisioner")),
            column("ReclaimPolicy", at("/reclaimPolicy")),
            column("VolumeBindingMode", at("/volumeBindingMode")),
            column("AllowVolumeExpansion", |o| {
                o.get("allowVolumeExpansion").cloned().unwrap_or_else(|| false.into())
            }),
            age(),
        ],
        "Ingress" => vec![
            name(),
            column("Class", at("/spec/ingressClassName")),
            column("Hosts", |o| {
                joined(items(o, "/spec/rules").iter().map(|r| r["host"].as_str().unwrap_or("*").to_owned()))
            }),
            column("Address", |_| "".into()),
            column(
                "Ports",
                |o| if items(o, "/spec/tls").is_empty() { "80".into() } else { "80, 443".into() },
            ),
            age(),
        ],
        "Event" => vec![
            column("Last Seen", |o| since(&o["lastTimestamp"])),
            column("Type", at("/type")),
            column("Reason", at("/reason")),
            column("Object", |o| {
                let about = &o["involvedObject"];
                let kind = about["kind"].as_str().unwrap_or_default().to_lowercase();
                format!("{kind}/{}", about["name"].as_str().unwrap_or_default()).into()
            }),
            column("Message", at("/message")),
        ],
        "APIService" => vec![
            name(),
            column("Service", |o| match o["spec"]["service"].as_object() {
                Some(s) => format!(
                    "{}/{}",
                    s["namespace"].as_str().unwrap_or_default(),
                    s["name"].as_str().unwrap_or_default()
                )
                .into(),
                None => "Local".into(),
            }),
            column("Available", |o| {
                let c = condition(o, "Available");
                match (c["status"].as_str(), c["reason"].as_str()) {
                    (Some("True"), _) => "True".into(),
                    (Some(status), Some(reason)) => format!("{status} ({reason})").into(),
                    _ => "Unknown".into(),
                }
            }),
            age(),
        ],
        "CustomResourceDefinition" => vec![name(), column("Created At", at("/metadata/creationTimestamp"))],
        "PodDisruptionBudget" => vec![
            name(),
            column("Min Available", |o| {
                o["spec"].get("minAvailable").cloned().unwrap_or_else(|| "N/A".into())
            }),
            column("Max Unavailable", |o| {
                o["spec"].get("maxUnavailable").cloned().unwrap_or_else(|| "N/A".into())
            }),
            column("Allowed Disruptions", number("/status/disruptionsAllowed")),
            age(),
        ],
        "Lease" => vec![name(), column("Holder", at("/spec/holderIdentity")), age()],
        "EndpointSlice" => vec![
            name(),
            column("AddressType", at("/addressType")),
            column("Ports", |o| joined(items(o, "/ports").iter().map(|p| p["port"].to_string()))),
            column("Endpoints", |o| {
                joined(
                    items(o, "/endpoints")
                        .iter()
                        .flat_map(|e| items(e, "/addresses"))
                        .filter_map(Value::as_str)
                        .map(str::to_owned),
                )
            }),
            age(),
        ],
        "Endpoints" => vec![
            name(),
            column("Endpoints", |o| {
                joined(items(o, "/subsets").iter().flat_map(|s| {
                    items(s, "/addresses").iter().flat_map(move |a| {
                        items(s, "/ports")
                            .iter()
                            .map(move |p| format!("{}:{}", a["ip"].as_str().unwrap_or_default(), p["port"]))
                    })
                }))
            }),
            age(),
        ],
        "CertificateSigningRequest" => vec![
            name(),
            age(),
            column("SignerName", at("/spec/signerName")),
            column("Requestor", at("/spec/username")),
            column("RequestedDuration", |_| "<none>".into()),
            column("Condition", |o| {
                let mut kinds: Vec<String> = items(o, "/status/conditions")
                    .iter()
                    .filter_map(|c| c["type"].as_str())
                    .map(str::to_owned)
                    .collect();
                if kinds.is_empty() {
                    kinds.push("Pending".into());
                }
                if o["status"].get("certificate").is_some() {
                    kinds.push("Issued".into());
                }
                kinds.join(",").into()
            }),
        ],
        _ => vec![name(), age()],
    };
    if let Some(first) = all.first_mut() {
        first.kind = "string";
    }
    all
}
