//! What the three windows share, and the narrow doors between them.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::Arc;

use crate::{Clock, Faults, Journal, Subnet};

/// The frame of one lab: clock, journal, faults, network and a directory for its files.
#[derive(Debug)]
pub struct World {
    /// Latencies.
    pub clock: Clock,
    /// The record of requests.
    pub journal: Journal,
    /// The faults in force.
    pub faults: Faults,
    /// The loopback network of this lab.
    pub net: Subnet,
    /// Where the lab keeps files that a person or a tool reads (CA, token, keys, artefacts).
    pub dir: PathBuf,
}

/// A machine as it is switched on: what its hardware and its cloud-init drive say.
#[derive(Clone, Debug, Default)]
pub struct Boot {
    /// The id at Proxmox; the disks' identity, together with `generation`.
    pub vmid: u32,
    /// Counts creations of this vmid: a VM that was deleted and made anew has blank disks.
    pub generation: u64,
    /// The host name.
    pub name: String,
    /// The Proxmox node that it runs on.
    pub pve_node: String,
    /// Its address, from `ipconfig0` or the seed's network configuration.
    pub address: Option<Ipv4Addr>,
    /// The MAC address of `net0`.
    pub mac: String,
    /// The account that cloud-init makes, with sudo without a password; a container's is root.
    pub user: String,
    /// True for a container: who has a key is let in as root, whom the SSH server of a cloud image refuses.
    pub container: bool,
    /// Public keys that may log in as `user`.
    pub authorized_keys: Vec<String>,
    /// Private host keys in OpenSSH form handed over in a seed; empty: the machine makes its own.
    pub host_keys: Vec<String>,
    /// Processors.
    pub cores: u32,
    /// Memory in MiB.
    pub memory_mib: u64,
    /// Disks in the order of the bus (the first is the system's), each with its size in bytes.
    pub disks: Vec<u64>,
    /// True when `agent` is switched on in the VM's configuration, and its image has one.
    pub agent: bool,
    /// The instance id that its cloud-init drive or seed names; empty without one.
    pub instance: String,
}

/// An interface in a guest: its name, MAC, and addresses with prefix length.
pub type Interface = (String, String, Vec<(Ipv4Addr, u8)>);

/// What the guest agent tells Proxmox.
#[derive(Clone, Debug, Default)]
pub struct AgentView {
    /// The host name in the guest.
    pub hostname: String,
    /// Interface name, MAC, addresses with prefix length.
    pub interfaces: Vec<Interface>,
}

/// The answer of a command that the agent ran.
#[derive(Clone, Debug, Default)]
pub struct AgentExec {
    /// Exit code.
    pub exit: i32,
    /// Standard output.
    pub stdout: Vec<u8>,
    /// Standard error.
    pub stderr: Vec<u8>,
}

/// The door from Proxmox to the machines. Implemented by the SSH window, called by the Proxmox window.
pub trait Machines: Send + Sync {
    /// Switches a machine on: after its boot latency its SSH server answers at its address. A vmid and
    /// generation that ran before keeps its file system; a new one starts blank.
    fn power_on(&self, boot: Boot);
    /// Switches it off at once: all its services, listeners and connections end.
    fn power_off(&self, vmid: u32);
    /// Its disks are gone for good.
    fn erased(&self, vmid: u32);
    /// The guest agent's view; `None` while the machine is off, booting, or its image has no agent.
    fn agent(&self, vmid: u32) -> Option<AgentView>;
    /// Reads a file through the agent; `None` as for [`Machines::agent`] or when there is no such file.
    fn agent_read(&self, vmid: u32, path: &str) -> Option<Vec<u8>>;
    /// Runs a command through the agent.
    fn agent_exec(&self, vmid: u32, argv: &[String]) -> Option<AgentExec>;
}

/// A control plane that came up on a machine: what the API server there serves with.
#[derive(Clone, Debug, Default)]
pub struct ApiServer {
    /// The machine's name.
    pub host: String,
    /// Where the API server listens, such as `127.30.0.21:6443`.
    pub listen: Option<std::net::SocketAddr>,
    /// The serving certificate and key (PEM), and the cluster's CA certificate for client certificates.
    pub certificate: String,
    /// The private key (PEM).
    pub key: String,
    /// The CA that signs client certificates (PEM).
    pub client_ca: String,
    /// The private key of that CA (PEM), with which the controller manager beside it signs; empty: it signs nothing.
    pub ca_key: String,
    /// The version, such as `v1.36.2`.
    pub version: String,
    /// Names the cluster: control planes that joined one another share one store of objects.
    pub cluster_id: String,
}

/// What a kubelet reports of its machine.
#[derive(Clone, Debug, Default)]
pub struct Kubelet {
    /// The node's name.
    pub name: String,
    /// Its internal address.
    pub address: Option<Ipv4Addr>,
    /// `v1.36.2`.
    pub version: String,
    /// True for a control plane: kubeadm's label and taint are on the node.
    pub control_plane: bool,
    /// Allocatable processors.
    pub cores: u32,
    /// Memory in MiB.
    pub memory_mib: u64,
    /// The system's name, such as `Debian GNU/Linux 13 (trixie)`.
    pub os_image: String,
    /// The images of the static pods that it runs, by component.
    pub static_pods: BTreeMap<String, String>,
    /// Its process: another one is a kubelet that was started again.
    pub process: u32,
    /// True when it asks the cluster for its serving certificate (`serverTLSBootstrap`).
    pub asks: bool,
    /// True when it has one on its disk already.
    pub serves: bool,
}

/// The door from the machines to Kubernetes. Implemented by the Kubernetes window, called by the SSH window.
pub trait Kubernetes: Send + Sync {
    /// An API server starts at its address; the first one of a `cluster_id` makes an empty cluster with what
    /// kubeadm leaves in it (namespaces, `kubeadm-config`, `cluster-info`, kube-proxy, CoreDNS).
    fn api_up(&self, server: ApiServer);
    /// The API server on this machine ends: its listener closes and its connections drop.
    fn api_down(&self, host: &str);
    /// etcd of this cluster lost its quorum (`false`) or has it again: without it the API servers answer
    /// writes and reads with time-outs. Not called for a cluster that never lost it.
    fn quorum(&self, cluster_id: &str, quorate: bool) {
        let _ = (cluster_id, quorate);
    }
    /// A kubelet registers, comes back or runs other static pods: its node exists and, with a CNI installed, becomes Ready.
    fn kubelet_up(&self, cluster_id: &str, kubelet: Kubelet);
    /// A kubelet goes silent: its node turns NotReady.
    fn kubelet_down(&self, cluster_id: &str, node: &str);
    /// Writes an object as kubeadm does, whole, with the field manager `kubeadm`.
    fn put(&self, cluster_id: &str, object: serde_json::Value);
    /// Reads an object: API version, kind, namespace, name.
    fn get(
        &self,
        cluster_id: &str,
        api_version: &str,
        kind: &str,
        namespace: Option<&str>,
        name: &str,
    ) -> Option<serde_json::Value>;
    /// All objects of a kind, for the lab's own eyes.
    fn list(&self, cluster_id: &str, api_version: &str, kind: &str) -> Vec<serde_json::Value>;
    /// All objects of a cluster, one a line, as a snapshot of its etcd keeps them; empty where none are kept.
    fn dump(&self, cluster_id: &str) -> String {
        let _ = cluster_id;
        String::new()
    }
    /// Puts the objects of a dump in place of all that the cluster has.
    fn load(&self, cluster_id: &str, dump: &str) {
        let _ = (cluster_id, dump);
    }
    /// Hands over, once, the serving certificate that a kubelet was given, and its key (PEM): it goes to its disk.
    fn serving(&self, cluster_id: &str, node: &str) -> Option<(String, String)> {
        let _ = (cluster_id, node);
        None
    }
    /// Deletes an object.
    fn delete(&self, cluster_id: &str, api_version: &str, kind: &str, namespace: Option<&str>, name: &str);
}

/// Shared handle on the frame.
pub type Shared = Arc<World>;
