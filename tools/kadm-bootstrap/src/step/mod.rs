//! The steps: each carries every name, address and digest that it needs.

mod line;

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use serde_json::Value;

use crate::exchange::Exchange;
use crate::pin::Pin;

/// One change.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "kebab-case", rename_all_fields = "camelCase")]
pub enum Step {
    /// Kernel modules and settings, swap.
    Kernel {
        /// The machine.
        host: String,
        /// Files to write, by path, with their digests.
        files: BTreeMap<String, String>,
        /// Modules to load.
        modules: BTreeSet<String>,
        /// True when the settings are to be read again.
        settings: bool,
        /// True when swap is to be switched off, now and at boot.
        swap_off: bool,
    },
    /// Packages.
    Packages {
        /// The machine.
        host: String,
        /// What apt installs: names, `name=version*` or paths.
        install: Vec<String>,
        /// What is held afterwards.
        hold: Vec<String>,
        /// The repository, when it is needed.
        repository: Option<Repository>,
    },
    /// Programs as their publishers' files, checked against the digests that the document has.
    Pin {
        /// The machine.
        host: String,
        /// The files.
        pins: Vec<Pin>,
        /// Units to write, by path, with their digests.
        units: BTreeMap<String, String>,
    },
    /// The container runtime's configuration.
    Runtime {
        /// The machine.
        host: String,
        /// The digest of the configuration, when it is to be written.
        sha256: Option<String>,
    },
    /// Pulls the images of a control plane, so that kubeadm finds them.
    Images {
        /// The machine.
        host: String,
        /// The version, as a tag.
        version: String,
        /// The registry that they come from.
        registry: String,
    },
    /// Removes files with secrets that an interrupted run left.
    Sweep {
        /// The machine.
        host: String,
        /// The files.
        files: BTreeSet<String>,
    },
    /// Undoes what kubeadm did on a machine.
    Reset {
        /// The machine.
        host: String,
    },
    /// Makes the cluster.
    Init {
        /// The first control plane.
        host: String,
        /// Its address.
        address: String,
        /// Where the API is to answer.
        endpoint: String,
        /// The version.
        version: String,
    },
    /// Sees to it that etcd never begins another cluster.
    Existing {
        /// The machine whose etcd it is.
        host: String,
        /// The control plane whose admin.conf is used.
        via: String,
        /// The version of the control plane on the machine, as a tag.
        version: String,
        /// The tag of etcd's image, which stays; `None` right after an init.
        tag: Option<String>,
        /// True when kubeadm's stored configuration is to be changed.
        stored: bool,
        /// True when the machine's manifest is to be written anew, which restarts etcd.
        manifest: bool,
    },
    /// Adds a machine to the cluster.
    Join {
        /// The machine.
        host: String,
        /// Its address.
        address: String,
        /// True for a control plane.
        control_plane: bool,
        /// The control plane that helps.
        via: String,
    },
    /// Evicts the pods of a node, so that none comes back to it.
    Drain {
        /// The control plane whose admin.conf is used.
        via: String,
        /// The node.
        node: String,
        /// How long its pods may take, in seconds.
        seconds: u64,
        /// True when the node leaves for good: it stays cordoned whatever becomes of its pods.
        leaves: bool,
        /// True when its kubelet runs: pods are waited for until they have ended.
        runs: bool,
    },
    /// Lets pods be placed on a node again.
    Uncordon {
        /// The control plane whose admin.conf is used.
        via: String,
        /// The node.
        node: String,
    },
    /// Saves etcd before an upgrade.
    Snapshot {
        /// The control plane.
        host: String,
        /// The file on it.
        path: String,
    },
    /// Upgrades the static pods of a control plane.
    ControlPlane {
        /// The machine.
        host: String,
        /// The version.
        version: String,
        /// True for `upgrade apply`, which also stores the version for the whole cluster; false for `upgrade node`.
        first: bool,
    },
    /// Upgrades the kubelet of a node.
    Kubelet {
        /// The machine.
        host: String,
        /// The control plane whose admin.conf is used.
        via: String,
        /// The version.
        version: String,
        /// What apt installs.
        install: Vec<String>,
        /// What is held afterwards.
        hold: Vec<String>,
        /// Programs as their publishers' files.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        pins: Vec<Pin>,
        /// True when kubeadm writes the kubelet's configuration first: a worker's.
        configure: bool,
        /// True when the node is to be Ready afterwards, as it was before.
        ready: bool,
    },
    /// Changes where a node's programs of Kubernetes come from, at the version that runs.
    Programs {
        /// The machine.
        host: String,
        /// The control plane whose admin.conf is used.
        via: String,
        /// True when the node is to be Ready afterwards, as it was before.
        ready: bool,
        /// What is changed.
        what: Box<Exchange>,
    },
    /// Changes the cluster's copy of the kubelets' configuration.
    KubeletConfig {
        /// The control plane whose admin.conf is used.
        via: String,
        /// The fields to set.
        fields: BTreeMap<String, Value>,
        /// The fields to drop.
        drop: BTreeSet<String>,
        /// The names of the fields that are noted as the document's before.
        noted: BTreeSet<String>,
    },
    /// Notes which fields of the kubelets' configuration are the document's.
    KubeletNote {
        /// The control plane whose admin.conf is used.
        via: String,
        /// Their names.
        fields: BTreeSet<String>,
    },
    /// Brings a node's kubelet to the cluster's copy of its configuration.
    Configure {
        /// The machine.
        host: String,
        /// The control plane whose admin.conf is used.
        via: String,
        /// The fields that it must not have any more.
        drop: BTreeSet<String>,
        /// True when the node is to be Ready afterwards, as it was before.
        ready: bool,
    },
    /// Changes the mode of kube-proxy and starts its pods anew.
    Proxy {
        /// The control plane whose admin.conf is used.
        via: String,
        /// The mode.
        mode: String,
    },
    /// The timer that saves etcd: its files, or their removal.
    Timer {
        /// The machine.
        host: String,
        /// Files to write, by path, with their digests.
        files: BTreeMap<String, String>,
        /// Files to remove.
        remove: BTreeSet<String>,
    },
    /// Renews the certificates of a control plane and restarts what uses them.
    Renew {
        /// The machine.
        host: String,
    },
    /// Puts etcd's data aside before a reset.
    Aside {
        /// The machine.
        host: String,
    },
    /// Makes the cluster from a backup.
    Restore {
        /// The first control plane.
        host: String,
        /// Its address.
        address: String,
        /// Where the API is to answer.
        endpoint: String,
        /// The encrypted file on the operator's machine.
        backup: String,
        /// The file with the identity that opens it.
        identity: String,
        /// SHA-256 of what is in it.
        content_sha256: String,
    },
    /// Starts a service and keeps it started.
    Start {
        /// The machine.
        host: String,
        /// The systemd unit.
        unit: String,
    },
    /// Removes a member from etcd.
    RemoveMember {
        /// The control plane that does it.
        via: String,
        /// The member's id.
        id: u64,
        /// The member's name.
        name: String,
    },
    /// Deletes a node object.
    DeleteNode {
        /// The control plane whose admin.conf is used.
        via: String,
        /// The node.
        node: String,
    },
    /// Writes the operator's kubeconfig.
    Kubeconfig {
        /// The control plane that it comes from.
        via: String,
        /// The file, as the document has it.
        path: String,
        /// The server in it.
        server: String,
    },
    /// Merges the operator's access into a kubeconfig of several clusters.
    Merge {
        /// The control plane that it comes from.
        via: String,
        /// The file, as the flag has it.
        path: String,
        /// The context.
        context: String,
        /// The server in it.
        server: String,
        /// True when it is the current context afterwards.
        switch: bool,
    },
    /// Takes the cluster out of such a kubeconfig.
    Unmerge {
        /// The file, as the flag has it.
        path: String,
        /// The context.
        context: String,
    },
    /// Removes the operator's kubeconfig.
    RemoveKubeconfig {
        /// The file, as the document has it.
        path: String,
    },
    /// Labels and taints of a node.
    Node {
        /// The control plane whose admin.conf is used.
        via: String,
        /// The node.
        node: String,
        /// All labels of ours.
        labels: BTreeMap<String, String>,
        /// All taints of ours.
        taints: BTreeSet<String>,
        /// Taints that were ours and go.
        drop_taints: BTreeSet<String>,
    },
    /// Installs the approver of kubelets' serving certificates in the cluster.
    Approver {
        /// The control plane whose admin.conf is used.
        via: String,
        /// A digest of its manifests.
        sha256: String,
    },
    /// Approves a kubelet's request for a serving certificate.
    Approve {
        /// The control plane whose admin.conf is used.
        via: String,
        /// The node that made it.
        node: String,
        /// The request's name.
        request: String,
        /// The digest of what it asks for.
        sha256: String,
    },
    /// Deletes a bootstrap token that an interrupted run left.
    DropToken {
        /// The control plane whose admin.conf is used.
        via: String,
        /// The token's public half.
        id: String,
    },
}

/// A package repository.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Repository {
    /// Its address.
    pub url: String,
    /// The digest of the file that names it.
    pub list_sha256: String,
    /// Where its key is, when it is to be fetched.
    pub key_url: Option<String>,
    /// The digest of its key.
    pub key_sha256: String,
}

impl Step {
    /// The machine that the step changes over SSH.
    pub fn host(&self) -> Option<&str> {
        match self {
            Step::Kernel { host, .. }
            | Step::Packages { host, .. }
            | Step::Pin { host, .. }
            | Step::Runtime { host, .. }
            | Step::Images { host, .. }
            | Step::Sweep { host, .. }
            | Step::Reset { host }
            | Step::Init { host, .. }
            | Step::Existing { host, .. }
            | Step::Join { host, .. }
            | Step::Snapshot { host, .. }
            | Step::ControlPlane { host, .. }
            | Step::Kubelet { host, .. }
            | Step::Programs { host, .. }
            | Step::Configure { host, .. }
            | Step::Timer { host, .. }
            | Step::Renew { host }
            | Step::Aside { host }
            | Step::Restore { host, .. }
            | Step::Start { host, .. } => Some(host),
            Step::RemoveMember { via, .. }
            | Step::DeleteNode { via, .. }
            | Step::Node { via, .. }
            | Step::Drain { via, .. }
            | Step::Uncordon { via, .. }
            | Step::KubeletConfig { via, .. }
            | Step::KubeletNote { via, .. }
            | Step::Proxy { via, .. }
            | Step::Approver { via, .. }
            | Step::Approve { via, .. }
            | Step::DropToken { via, .. }
            | Step::Merge { via, .. }
            | Step::Kubeconfig { via, .. } => Some(via),
            Step::RemoveKubeconfig { .. } | Step::Unmerge { .. } => None,
        }
    }
}
