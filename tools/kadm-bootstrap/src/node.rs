//! A node: as the document wants it, and as its object in the API tells of it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use cluster_doc::Machine;
use cluster_doc::spec::Role;
use serde_json::{Value, json};

use crate::MANAGER;
use crate::seen::NodeSeen;

/// The label that makes `kubectl get nodes` show a worker as one.
pub const WORKER_LABEL: &str = "node-role.kubernetes.io/worker";
/// kubeadm's label of control planes.
pub const CONTROL_PLANE_LABEL: &str = "node-role.kubernetes.io/control-plane";
/// kubeadm's taint of control planes.
pub const CONTROL_PLANE_TAINT: &str = "node-role.kubernetes.io/control-plane:NoSchedule";
/// The annotation that notes the taints that are ours: a list of taints has no owner for each.
pub const TAINTS: &str = "kubeline/taints";
/// The annotation of a node that this tool cordoned, and so opens again.
pub const CORDON: &str = "kubeline/cordoned";

/// What a machine is to be.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// Its name, the node's too.
    pub name: String,
    /// True for a control plane.
    pub control_plane: bool,
    /// Its address.
    pub address: Ipv4Addr,
    /// The labels of its node that are ours.
    pub labels: BTreeMap<String, String>,
    /// The taints of its node that are ours.
    pub taints: BTreeSet<String>,
}

/// The node that a machine of the document is to be.
pub(crate) fn wanted(machine: &Machine) -> Node {
    let control_plane = machine.role == Role::ControlPlane;
    let mut labels: BTreeMap<String, String> =
        machine.labels.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
    let role = if control_plane { CONTROL_PLANE_LABEL } else { WORKER_LABEL };
    labels.insert(role.to_owned(), String::new());
    let mut taints: BTreeSet<String> = machine.taints.iter().map(ToString::to_string).collect();
    if control_plane {
        taints.insert(CONTROL_PLANE_TAINT.to_owned());
    }
    Node { name: machine.name.clone(), control_plane, address: machine.address, labels, taints }
}

/// A node object as planning sees it.
pub fn read(object: &Value) -> NodeSeen {
    let meta = &object["metadata"];
    let strings = |map: &Value| -> BTreeMap<String, String> {
        let entries = map.as_object().into_iter().flatten();
        entries.map(|(k, v)| (k.clone(), v.as_str().unwrap_or_default().to_owned())).collect()
    };
    let ours = meta["managedFields"].as_array().into_iter().flatten();
    let ours = ours.filter(|m| m["manager"] == MANAGER && m["operation"] == "Apply");
    let our_labels = ours
        .flat_map(|m| m["fieldsV1"]["f:metadata"]["f:labels"].as_object().into_iter().flatten())
        .filter_map(|(key, _)| key.strip_prefix("f:").map(str::to_owned))
        .collect();
    let note = strings(&meta["annotations"]).remove(TAINTS);
    let conditions = object["status"]["conditions"].as_array().into_iter().flatten();
    let ready = conditions.into_iter().find(|c| c["type"] == "Ready");
    NodeSeen {
        ready: ready.is_some_and(|c| c["status"] == "True"),
        reason: ready.and_then(|c| c["message"].as_str()).unwrap_or("it has not reported").to_owned(),
        version: object["status"]["nodeInfo"]["kubeletVersion"].as_str().unwrap_or_default().to_owned(),
        labels: strings(&meta["labels"]),
        our_labels,
        taints: object["spec"]["taints"].as_array().into_iter().flatten().map(taint).collect(),
        our_taints: note
            .iter()
            .flat_map(|n| n.split(','))
            .filter(|t| !t.is_empty())
            .map(str::to_owned)
            .collect(),
        recorded: note.is_some(),
        cordoned: object["spec"]["unschedulable"] == true,
        our_cordon: meta["annotations"].get(CORDON).is_some(),
    }
}

/// A taint as `kubectl taint` writes it.
pub fn taint(taint: &Value) -> String {
    let text = |field: &str| taint[field].as_str().unwrap_or_default();
    let equals = if text("value").is_empty() { "" } else { "=" };
    format!("{}{equals}{}:{}", text("key"), text("value"), text("effect"))
}

/// `key=value:Effect` as the API has it.
pub fn parse_taint(text: &str) -> Option<Value> {
    let (left, effect) = text.rsplit_once(':')?;
    Some(match left.split_once('=') {
        Some((key, value)) => json!({ "key": key, "value": value, "effect": effect }),
        None => json!({ "key": left, "effect": effect }),
    })
}
