//! The columns of `kubectl get`, as a real server's printers name them.

use serde_json::Value;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::resources::Resource;

/// A column: its name, type, priority and cell.
pub(crate) struct Column {
    pub name: String,
    pub kind: &'static str,
    pub priority: i64,
    pub cell: Box<dyn Fn(&Value) -> Value>,
}

fn column(name: &str, cell: impl Fn(&Value) -> Value + 'static) -> Column {
    Column { name: name.into(), kind: "string", priority: 0, cell: Box::new(cell) }
}

fn wide(name: &str, cell: impl Fn(&Value) -> Value + 'static) -> Column {
    Column { priority: 1, ..column(name, cell) }
}

fn at(pointer: &'static str) -> impl Fn(&Value) -> Value {
    move |object| match object.pointer(pointer) {
        None | Some(Value::Null) => "<none>".into(),
        Some(value) => value.clone(),
    }
}

fn number(pointer: &'static str) -> impl Fn(&Value) -> Value {
    move |object| object.pointer(pointer).cloned().unwrap_or_else(|| 0.into())
}

fn items<'v>(object: &'v Value, pointer: &str) -> &'v [Value] {
    object.pointer(pointer).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

fn joined(list: impl Iterator<Item = String>) -> Value {
    let all: Vec<String> = list.collect();
    if all.is_empty() { "<none>".into() } else { all.join(",").into() }
}

/// How long ago, as kubectl writes it.
pub(crate) fn since(value: &Value) -> Value {
    let Some(then) = value.as_str().and_then(|t| OffsetDateTime::parse(t, &Rfc3339).ok()) else {
        return "<unknown>".into();
    };
    let seconds = (OffsetDateTime::now_utc() - then).whole_seconds().max(0);
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86400);
    let text = match seconds {
        0..120 => format!("{seconds}s"),
        120..600 if seconds % 60 != 0 => format!("{minutes}m{}s", seconds % 60),
        120..10_800 => format!("{minutes}m"),
        10_800..28_800 if minutes % 60 != 0 => format!("{hours}h{}m", minutes % 60),
        10_800..172_800 => format!("{hours}h"),
        172_800..691_200 if hours % 24 != 0 => format!("{days}d{}h", hours % 24),
        _ => format!("{days}d"),
    };
    text.into()
}

fn age() -> Column {
    column("Age", |o| since(&o["metadata"]["creationTimestamp"]))
}

fn name() -> Column {
    column("Name", at("/metadata/name"))
}

fn out_of(ready: &'static str, wanted: &'static str) -> impl Fn(&Value) -> Value {
    move |o| format!("{}/{}", number(ready)(o), number(wanted)(o)).into()
}

fn condition(object: &Value, kind: &str) -> Value {
    items(object, "/status/conditions").iter().find(|c| c["type"] == kind).cloned().unwrap_or_default()
}

fn labels_with<'v>(object: &'v Value, prefix: &'v str) -> impl Iterator<Item = String> + 'v {
    object["metadata"]["labels"]
        .as_object()
        .into_iter()
        .flatten()
        .filter_map(move |(k, _)| k.strip_prefix(prefix).map(str::to_owned))
}

fn containers(pointer: &'static str, field: &'static str) -> impl Fn(&Value) -> Value {
    move |o| joined(items(o, pointer).iter().filter_map(|c| c[field].as_str()).map(str::to_owned))
}

fn selector_text(value: &Value) -> Value {
    joined(
        value
            .as_object()
            .into_iter()
            .flatten()
            .map(|(k, v)| format!("{k}={}", v.as_str().unwrap_or_default())),
    )
}

fn pod_status(pod: &Value) -> String {
    if pod["metadata"].get("deletionTimestamp").is_some() {
        return "Terminating".into();
    }
    for status in items(pod, "/status/containerStatuses") {
        if let Some(reason) = status.pointer("/state/waiting/reason").and_then(Value::as_str) {
            return reason.into();
        }
        if let Some(reason) = status.pointer("/state/terminated/reason").and_then(Value::as_str) {
            return reason.into();
        }
    }
    pod["status"]["phase"].as_str().unwrap_or("Pending").into()
}

fn node_status(node: &Value) -> String {
    let ready = condition(node, "Ready");
    let mut text = match ready["status"].as_str() {
        Some("True") => "Ready",
        Some(_) => "NotReady",
        None => "Unknown",
    }
    .to_owned();
    if node["spec"]["unschedulable"] == true {
        text.push_str(",SchedulingDisabled");
    }
    text
}

fn address(node: &Value, kind: &str) -> Value {
    items(node, "/status/addresses")
        .iter()
        .find(|a| a["type"] == kind)
        .map_or_else(|| "<none>".into(), |a| a["address"].clone())
}

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

fn modes(value: &Value) -> Value {
    let short = |mode: &str| match mode {
        "ReadWriteOnce" => "RWO",
        "ReadOnlyMany" => "ROX",
        "ReadWriteMany" => "RWX",
        "ReadWriteOncePod" => "RWOP",
        _ => "",
    };
    let all: Vec<&str> =
        value.as_array().into_iter().flatten().filter_map(Value::as_str).map(short).collect();
    all.join(",").into()
}

fn custom_columns(columns: &[Value]) -> Vec<Column> {
    let mut all = vec![name()];
    for definition in columns {
        let path = definition["jsonPath"].as_str().unwrap_or_default().to_owned();
        let date = definition["type"] == "date";
        let title = definition["name"].as_str().unwrap_or_default();
        let cell = move |o: &Value| match json_path(o, &path) {
            Some(found) if date => since(&found),
            Some(found) => found,
            None => Value::Null,
        };
        let mut made = column(title, cell);
        made.priority = definition["priority"].as_i64().unwrap_or(0);
        all.push(made);
    }
    if columns.is_empty() {
        all.push(age());
    }
    all
}

// The JSON paths of printer columns: fields, and one filter of equality.
fn json_path(object: &Value, path: &str) -> Option<Value> {
    let mut at = object;
    let mut rest = path.trim_start_matches('$');
    while !rest.is_empty() {
        rest = rest.strip_prefix('.').unwrap_or(rest);
        if let Some(filter) = rest.strip_prefix("[?(@.") {
            let (inside, tail) = filter.split_once(")]")?;
            let (field, wanted) = inside.split_once("==")?;
            let wanted = wanted.trim().trim_matches(['"', '\'']);
            at = at.as_array()?.iter().find(|i| i[field.trim()] == wanted)?;
            rest = tail;
            continue;
        }
        if let Some(index) = rest.strip_prefix('[') {
            let (n, tail) = index.split_once(']')?;
            at = at.get(n.parse::<usize>().ok()?)?;
            rest = tail;
            continue;
        }
        let end = rest.find(['.', '[']).unwrap_or(rest.len());
        at = at.get(&rest[..end])?;
        rest = &rest[end..];
    }
    Some(at.clone())
}
