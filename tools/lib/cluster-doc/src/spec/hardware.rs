//! Machines: where they are made, and which.

use std::net::Ipv4Addr;

use crate::read::{choice, section};
use crate::types::{
    AddressRange, BridgeName, Endpoint, FilePath, Labels, MountPath, Name, NodeName, Quantity, Taint, Vlan,
    VmIdRange,
};

section! {
    /// A Proxmox VE cluster and what may be used of it.
    pub struct Proxmox {
        /// The API's address; port 8006 unless another is given.
        endpoint: Endpoint,
        /// More addresses of the same cluster, tried in turn when the first does not answer.
        endpoints: Vec<Endpoint>,
        /// File with the API token, USER@REALM!ID=UUID, mode 0600.
        token_file: Option<FilePath>,
        /// User and password instead of a token.
        ticket: Option<Ticket>,
        /// The CA that signed the API's certificate (PEM; /etc/pve/pve-root-ca.pem on a Proxmox node).
        ca_file: Option<FilePath>,
        /// SHA-256 fingerprint of the API's certificate instead of a CA, as Proxmox shows it.
        fingerprint: Option<String>,
        /// The Proxmox nodes that machines may be placed on.
        nodes: Vec<NodeName>,
        /// The resource pool that the machines join.
        pool: Option<NodeName>,
        /// The storage of the machines' disks.
        storage: NodeName,
        /// The storage that seeds of first boots are uploaded to (content type iso); the image's, or the first, unless
        /// said.
        seed_storage: Option<NodeName>,
        /// The bridge of the machines' network card.
        bridge: BridgeName,
        /// The VLAN on that bridge.
        vlan: Option<Vlan>,
        /// The ids that belong to this cluster's machines.
        vmids: VmIdRange,
        /// What machines are cloned from.
        template: Template,
        /// What containers are made from; needed by pools of the kind lxc.
        container_template: Option<ContainerTemplate>,
        /// Proxmox's own high availability; none unless given, and shared storage is needed for it.
        ha: Option<HighAvailability>,
        /// Linked or full clones; linked where the storage can, unless said.
        clone: Option<CloneMode>,
        /// The order in which Proxmox starts the machines of a node after a power loss, where a pool does not say it: by
        /// role, where the login may set one (Sys.Modify on /) and nobody has set another, unless said.
        start_order: Option<StartOrder>,
    }
}

section! {
    /// Which machines Proxmox starts again elsewhere when their Proxmox node fails.
    pub struct HighAvailability {
        /// The pools whose machines it does that for; all, unless said.
        pools: Vec<Name>,
        /// How often a machine that does not run is started again where it is.
        max_restart: u32 = 1,
        /// How often it is tried on another node after that, before the machine is given up.
        max_relocate: u32 = 1,
    }
}

section! {
    /// A login by password; the ticket made from it lives two hours.
    pub struct Ticket {
        /// USER@REALM.
        user: String,
        /// File with the password, mode 0600.
        password_file: FilePath,
    }
}

section! {
    /// The template that machines are cloned from, on each Proxmox node where storage is local.
    pub struct Template {
        /// Its name at Proxmox.
        name: NodeName,
        /// The cloud image that it is made from when it is not there.
        image: Option<Image>,
    }
}

section! {
    /// A cloud image.
    pub struct Image {
        /// Where the Proxmox node downloads it.
        url: Option<String>,
        /// A file of the operator's that is uploaded instead.
        file: Option<FilePath>,
        /// Its digest, such as sha512:ab12...
        checksum: Option<String>,
        /// A list of digests that names the image, such as SHA512SUMS.
        checksum_url: Option<String>,
        /// The storage that holds the image (content type import).
        storage: NodeName,
    }
}

section! {
    /// The archive that containers are made from: one that is there, or one that the Proxmox node downloads.
    pub struct ContainerTemplate {
        /// An archive that is there on each node, such as local:vztmpl/debian-13-standard_13.1-2_amd64.tar.zst.
        volume: Option<String>,
        /// Where the Proxmox node downloads it.
        url: Option<String>,
        /// Its digest, such as sha512:ab12...; needed with url.
        checksum: Option<String>,
        /// The storage that holds it (content type vztmpl); needed with url.
        storage: Option<NodeName>,
    }
}

choice! {
    /// How a machine's disks relate to the template's.
    pub enum CloneMode {
        /// They share the template's blocks.
        Linked = "linked",
        /// They are a copy.
        Full = "full",
    }
}

choice! {
    /// The order in which the machines of a Proxmox node start.
    pub enum StartOrder {
        /// The NFS server, control planes, load balancers, workers; they stop in reverse.
        ByRole = "by-role",
        /// As Proxmox would: by their ids.
        None = "none",
    }
}

choice! {
    /// What a machine is for.
    pub enum Role {
        /// HAProxy and keepalived.
        LoadBalancer = "load-balancer",
        /// The Kubernetes control plane and etcd.
        ControlPlane = "control-plane",
        /// Workloads.
        Worker = "worker",
        /// The NFS server.
        Nfs = "nfs",
    }
}

choice! {
    /// How strictly the machines of a pool keep apart.
    pub enum Spread {
        /// Never two on one Proxmox node.
        Hard = "hard",
        /// Evenly, as far as possible.
        Soft = "soft",
        /// Wherever there is room.
        None = "none",
    }
}

choice! {
    /// What kind of guest a machine is.
    pub enum GuestKind {
        /// A virtual machine.
        Vm = "vm",
        /// A container; for load balancers only.
        Lxc = "lxc",
    }
}

impl GuestKind {
    /// The account to log in as, where `spec.ssh` does not decide: Proxmox gives the keys of a new container to its
    /// root (pve-container, API2/LXC.pm: `ssh-public-keys`).
    pub fn account(self) -> Option<&'static str> {
        match self {
            GuestKind::Vm => None,
            GuestKind::Lxc => Some("root"),
        }
    }

    /// True for a virtual machine.
    pub fn is_vm(&self) -> bool {
        *self == GuestKind::Vm
    }
}

section! {
    /// A number of machines alike, named CLUSTER-POOL-1 and so on.
    pub struct Pool {
        /// The pool's name, part of the machines' names.
        name: Name,
        /// What the machines are for.
        role: Role,
        /// How many.
        count: u32,
        /// Processors of each.
        cores: u32,
        /// Memory of each, such as 8Gi.
        memory: Quantity,
        /// The system disk of each, such as 40Gi.
        disk: Quantity,
        /// Their addresses: the n-th machine has the n-th of the range.
        addresses: AddressRange,
        /// How strictly they keep apart.
        spread: Spread = Spread::Soft,
        /// Virtual machines or containers.
        kind: GuestKind = GuestKind::Vm,
        /// Labels of their Kubernetes nodes.
        labels: Labels,
        /// Taints of their Kubernetes nodes.
        taints: Vec<Taint>,
        /// Data disks of each.
        disks: Vec<Disk>,
        /// When Proxmox starts them as their node comes up, and how it stops them; by role, unless said.
        startup: Option<Startup>,
        /// Whether Proxmox refuses to delete them and their disks; on for those with data disks, unless said.
        protection: Option<bool>,
    }
}

section! {
    /// When a machine starts as its Proxmox node comes up, among the guests of that node.
    pub struct Startup {
        /// Its place: lower numbers start earlier and stop later.
        order: Option<u32>,
        /// Seconds that the next one is held back after its start.
        up_seconds: Option<u32>,
        /// Seconds that it is given to shut down before it is switched off.
        down_seconds: Option<u32>,
    }
}

section! {
    /// A data disk.
    pub struct Disk {
        /// Its name, the label of its file system.
        name: Name,
        /// Its size.
        size: Quantity,
        /// Where it is mounted.
        mount: Option<MountPath>,
    }
}

section! {
    /// A machine that exists already: a Debian or Ubuntu host reached over SSH.
    pub struct ExistingMachine {
        /// Its host name.
        name: Name,
        /// What it is for.
        role: Role,
        /// Its address.
        address: Ipv4Addr,
        /// Its SSH host key, such as: ssh-ed25519 AAAA...
        host_key: Option<String>,
        /// A known_hosts file that has its key.
        known_hosts_file: Option<FilePath>,
        /// Labels of its Kubernetes node.
        labels: Labels,
        /// Taints of its Kubernetes node.
        taints: Vec<Taint>,
    }
}
