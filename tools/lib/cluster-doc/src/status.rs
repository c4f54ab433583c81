//! What the tools write that other tools read. Read leniently: unknown fields are ignored.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};

use crate::spec::{GuestKind, Role};
use crate::types::{NodeName, VmId};

/// `status["pve-vm"]`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PveVm {
    /// The machines, by name.
    pub machines: Vec<MachineStatus>,
    /// The templates that pve-vm made, by id.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub templates: Vec<TemplateStatus>,
    /// What was not done, and why.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub held: Vec<HeldStatus>,
}

/// A template that pve-vm made of a cloud image.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TemplateStatus {
    /// Its name at Proxmox.
    pub name: String,
    /// The Proxmox node that it is on.
    pub node: String,
    /// Its id at Proxmox.
    pub vmid: u32,
    /// The digest of its image, such as `sha512:ab12...`.
    pub checksum: String,
}

/// One machine as pve-vm made or found it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MachineStatus {
    /// Its host name.
    pub name: String,
    /// What it is for.
    pub role: Role,
    /// Its pool.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pool: Option<String>,
    /// What kind of guest it is.
    #[serde(default = "vm", skip_serializing_if = "GuestKind::is_vm")]
    pub kind: GuestKind,
    /// The Proxmox node that it is on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<NodeName>,
    /// Its id at Proxmox.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vmid: Option<VmId>,
    /// Its address.
    pub address: Ipv4Addr,
    /// The MAC address of each network card, by card.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub macs: BTreeMap<String, String>,
    /// Its SSH host keys in OpenSSH form, without comments.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub host_keys: Vec<String>,
    /// False when it could not be reached: later stages skip it.
    #[serde(default = "yes")]
    pub reachable: bool,
    /// True when the document no longer has it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub leaving: bool,
    /// Labels of its Kubernetes node.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Taints of its Kubernetes node.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub taints: Vec<String>,
}

fn vm() -> GuestKind {
    GuestKind::Vm
}

fn yes() -> bool {
    true
}

/// Something that was not done, in a tool's section.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HeldStatus {
    /// What it concerns, such as a machine's name.
    pub what: String,
    /// Why it was not done.
    pub why: String,
    /// What would do it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}
