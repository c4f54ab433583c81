//! What is there: plain data, so that a test can be a file.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::access::{KubeconfigSeen, MergeSeen};
use crate::probed::{Probed, Wal};

/// All that was looked at.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Seen {
    /// Machines that answer, by name.
    pub hosts: BTreeMap<String, HostSeen>,
    /// Machines that do not, by name, and why.
    pub unreachable: BTreeMap<String, String>,
    /// The cluster, when its API answers.
    pub cluster: Option<ClusterSeen>,
    /// Why a cluster that machines know of could not be asked.
    pub api_fault: Option<String>,
    /// The operator's kubeconfig, when the file exists.
    pub kubeconfig: Option<KubeconfigSeen>,
    /// The kubeconfig of several clusters that a flag names.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub merge: Option<MergeSeen>,
}

/// One machine.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct HostSeen {
    /// Its host name.
    pub hostname: String,
    /// Its machine-id.
    pub machine_id: String,
    /// The product UUID of its firmware.
    pub product_uuid: String,
    /// The MAC addresses of its network cards.
    pub macs: BTreeSet<String>,
    /// The system's id and version, such as `debian 13`.
    pub os: String,
    /// Processors.
    pub cpus: u32,
    /// Memory in KiB.
    pub memory_kib: u64,
    /// Its clock, in seconds since 1970.
    pub time: i64,
    /// 1 or 2.
    pub cgroup: u8,
    /// The kernel's release, such as `6.12.48+deb13-amd64`.
    pub kernel: String,
    /// True while swap is in use.
    pub swap: bool,
    /// True when swap comes back with the next boot.
    pub swap_at_boot: bool,
    /// Installed packages.
    pub packages: BTreeMap<String, PackageSeen>,
    /// Versions of programs that no package brought.
    pub programs: BTreeMap<String, String>,
    /// What was pinned here: the SHA-256 of each program, or of the archive that it came in.
    pub pinned: BTreeMap<String, String>,
    /// Programs at the places of pinned ones that this tool did not put there.
    pub unowned: BTreeSet<String>,
    /// The active state of units.
    pub units: BTreeMap<String, String>,
    /// Files that this tool manages.
    pub files: BTreeMap<String, FileSeen>,
    /// Files that kubeadm, the kubelet and etcd leave, as far as they exist.
    pub state: BTreeSet<String>,
    /// What a pod network leaves.
    pub remains: BTreeSet<String>,
    /// Files with secrets that an interrupted run of this tool left.
    pub leftovers: BTreeSet<String>,
    /// True when this tool began an init here that it did not see through.
    pub intent: bool,
    /// True when this tool began a renewal of certificates here that it did not see through.
    pub renewing: bool,
    /// The API server that the kubelet reports to.
    pub server: Option<String>,
    /// Certificates by name; `ca` is the cluster's.
    pub certificates: BTreeMap<String, CertificateSeen>,
    /// Kernel modules and file systems that are ready, of those asked for.
    pub modules: BTreeSet<String>,
    /// Kernel settings.
    pub sysctls: BTreeMap<String, String>,
    /// Package files in the directory that the document names.
    pub debs: Vec<String>,
    /// The tags of the images of kubeadm's static pods, such as `v1.36.2`, by component.
    pub static_pods: BTreeMap<String, String>,
    /// Components whose metrics can be had from other machines.
    pub metrics: BTreeSet<String>,
    /// True when etcd's manifest lets it begin a cluster once its data is gone.
    pub begins_anew: bool,
    /// True when the kubelet asks the cluster for its serving certificate.
    pub serving: bool,
    /// The serving certificate that the cluster gave to the kubelet.
    pub serves: Option<CertificateSeen>,
    /// What its etcd counted of its disk.
    pub wal: Option<Wal>,
    /// The fields of the kubelet's configuration.
    pub kubelet: BTreeMap<String, Value>,
    /// True when this tool began to change it and did not see that through.
    pub configuring: bool,
    /// True while the change of its programs was not seen through.
    #[serde(default)]
    pub exchanging: bool,
    /// Snapshots of etcd that were taken before an upgrade.
    pub snapshots: BTreeSet<String>,
    /// Its ports, its disk and its ways to others, while it or one of them is new.
    pub probed: Probed,
}

/// An installed package.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PackageSeen {
    /// Its version.
    pub version: String,
    /// True when apt keeps it as it is.
    #[serde(default)]
    pub held: bool,
}

/// Whose a file is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Whose {
    /// It has our first line.
    Ours,
    /// It is as its package brought it.
    Pristine,
    /// Somebody wrote it.
    #[default]
    Foreign,
}

/// A file that exists.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct FileSeen {
    /// The SHA-256 of its content.
    pub sha256: String,
    /// Who wrote it.
    pub whose: Whose,
}

/// A certificate on a machine.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct CertificateSeen {
    /// SHA-256 of the certificate (DER).
    pub sha256: String,
    /// When it ends, in seconds since 1970.
    pub expires: i64,
}

/// The cluster as its API tells of it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ClusterSeen {
    /// SHA-256 of its CA certificate (DER).
    pub ca: String,
    /// The control plane whose admin.conf and etcd were used.
    pub lead: String,
    /// Why the API does not answer through the VIP, when it does not.
    pub vip_fault: Option<String>,
    /// The API server's version, such as `v1.36.2`.
    pub version: String,
    /// What kubeadm's init should have left and is not there.
    pub missing: BTreeSet<String>,
    /// Nodes by name.
    pub nodes: BTreeMap<String, NodeSeen>,
    /// etcd's members.
    pub etcd: Vec<MemberSeen>,
    /// Why etcd could not be asked.
    pub etcd_fault: Option<String>,
    /// Ids of this tool's bootstrap tokens that are still there.
    pub tokens: BTreeSet<String>,
    /// `kubernetesVersion` of kubeadm's stored configuration; `None` when there is none.
    pub stored: Option<String>,
    /// True when that configuration lets etcd begin a cluster once its data is gone.
    pub begins_anew: bool,
    /// The tag of kube-proxy's image; `None` when it does not run here.
    pub proxy: Option<String>,
    /// The mode of its configuration.
    pub proxy_mode: Option<String>,
    /// True when that was changed and its pods were not started anew.
    pub proxy_stale: bool,
    /// The fields of the cluster's copy of the kubelets' configuration; `None` when there is none.
    pub kubelet: Option<BTreeMap<String, Value>>,
    /// The names of those that the document set.
    pub kubelet_noted: BTreeSet<String>,
    /// SHA-256 of the backup that the cluster was made from, when it was.
    pub restored: Option<String>,
    /// What kubelets ask to be certified for serving, by the request's name.
    pub requests: BTreeMap<String, RequestSeen>,
    /// The approver of such requests.
    pub approver: ApproverSeen,
    /// The version of Calico that runs, such as `v3.32.1`; looked for while an upgrade is due.
    pub calico: Option<String>,
}

/// A kubelet's request for a serving certificate.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RequestSeen {
    /// The node that made it, or the user when it is none.
    pub node: String,
    /// What became of it.
    pub state: RequestState,
    /// SHA-256 of what it asks for.
    pub sha256: String,
}

/// What became of a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RequestState {
    /// Nobody decided yet; it is a node's own wish.
    Good,
    /// Nobody decided yet, and this is odd about it.
    Odd(String),
    /// Approved, and not signed yet.
    Approved,
    /// Signed.
    Issued,
    /// Denied by somebody or refused by the signer, who said so.
    Refused(String),
}

/// The approver of kubelets' requests in the cluster.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ApproverSeen {
    /// Its objects that are missing or differ.
    pub due: BTreeSet<String>,
    /// Why it cannot be installed, such as a field that somebody else has set.
    pub fault: Option<String>,
    /// Why it does not run.
    pub away: Option<String>,
}

/// A node object.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct NodeSeen {
    /// True when its Ready condition is true.
    pub ready: bool,
    /// Why it is not.
    pub reason: String,
    /// The kubelet's version, such as `v1.36.2`.
    pub version: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// The keys of the labels that this tool set.
    pub our_labels: BTreeSet<String>,
    /// Its taints, `key=value:Effect`.
    pub taints: BTreeSet<String>,
    /// The taints that this tool set.
    pub our_taints: BTreeSet<String>,
    /// True once this tool recorded its taints.
    pub recorded: bool,
    /// True while no pods are placed on it.
    pub cordoned: bool,
    /// True when it was this tool that cordoned it.
    pub our_cordon: bool,
}

/// A member of etcd.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct MemberSeen {
    /// Its id, which does not fit into a float.
    pub id: u64,
    /// Its name; empty until it started.
    pub name: String,
    /// True until it caught up.
    pub learner: bool,
    /// True when it answers.
    pub healthy: bool,
    /// Its peer addresses.
    pub peers: Vec<String>,
}

impl HostSeen {
    /// The digest of the cluster's CA that the machine believes in.
    pub fn ca(&self) -> Option<&str> {
        self.certificates.get("ca").map(|c| c.sha256.as_str())
    }

    /// True when kubeadm, the kubelet or etcd left something here.
    pub fn traces(&self) -> bool {
        !self.state.is_empty()
    }

    /// True when anything is here that a reset would remove.
    pub fn to_reset(&self) -> bool {
        self.traces()
            || !self.remains.is_empty()
            || !self.leftovers.is_empty()
            || self.intent
            || self.active("kubelet")
    }

    /// True when the unit runs.
    pub fn active(&self, unit: &str) -> bool {
        self.units.get(unit).is_some_and(|s| s == "active")
    }
}
