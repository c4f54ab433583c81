//! What a simulated Proxmox cluster is made of.

use std::collections::BTreeMap;

pub use super::schema::Generation;

/// A Proxmox cluster as it stands before the first request.
#[derive(Clone, Debug)]
pub struct ProxmoxConfig {
    /// Proxmox VE 8 or 9.
    pub generation: Generation,
    /// True when errors carry a `message` field (libpve-http-server-perl 5.2.0 and newer).
    pub message_field: bool,
    /// The port of the API on each node's address.
    pub port: u16,
    /// The cluster's name.
    pub cluster: String,
    /// The nodes' domain.
    pub domain: String,
    /// The nodes.
    pub nodes: Vec<NodeConfig>,
    /// The storages.
    pub storages: Vec<StorageConfig>,
    /// Bridges that every node has.
    pub bridges: Vec<String>,
    /// Pools that exist.
    pub pools: Vec<String>,
    /// Users and their API tokens.
    pub users: Vec<UserConfig>,
    /// Images that a node can download, by URL; any other URL gives an image of [`ImageConfig::default`].
    pub images: BTreeMap<String, ImageConfig>,
    /// The nodes' DNS server, which a guest gets when it names none.
    pub nameserver: String,
    /// True when qemu-guest-agent is in the images; the plain cloud images of Debian and Ubuntu have none.
    pub agent_in_images: bool,
}

/// A Proxmox node.
#[derive(Clone, Debug)]
pub struct NodeConfig {
    /// Its name.
    pub name: String,
    /// The last octet of its address in the lab's network.
    pub host: u8,
    /// Processors.
    pub cores: u32,
    /// Memory in MiB.
    pub memory_mib: u64,
}

/// What a storage can do follows from its kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StorageKind {
    /// A directory.
    Dir,
    /// An NFS export.
    Nfs,
    /// Thick LVM.
    Lvm,
    /// LVM with thin provisioning.
    LvmThin,
    /// A ZFS pool.
    ZfsPool,
    /// Ceph.
    Rbd,
}

impl StorageKind {
    /// The name in Proxmox's configuration.
    pub fn name(self) -> &'static str {
        match self {
            StorageKind::Dir => "dir",
            StorageKind::Nfs => "nfs",
            StorageKind::Lvm => "lvm",
            StorageKind::LvmThin => "lvmthin",
            StorageKind::ZfsPool => "zfspool",
            StorageKind::Rbd => "rbd",
        }
    }

    /// True for storages that keep images as files.
    pub fn files(self) -> bool {
        matches!(self, StorageKind::Dir | StorageKind::Nfs)
    }

    /// True when all nodes see the same volumes.
    pub fn shared(self) -> bool {
        matches!(self, StorageKind::Nfs | StorageKind::Rbd)
    }

    /// True when base images and linked clones are possible.
    pub fn bases(self) -> bool {
        self != StorageKind::Lvm
    }
}

/// A storage.
#[derive(Clone, Debug)]
pub struct StorageConfig {
    /// Its name.
    pub name: String,
    /// Its kind.
    pub kind: StorageKind,
    /// What it may hold.
    pub content: Vec<String>,
    /// Its size in bytes, for each node where it is local.
    pub size: u64,
    /// The nodes that have it; empty: all.
    pub nodes: Vec<String>,
}

impl StorageConfig {
    /// A storage on all nodes.
    pub fn new(name: &str, kind: StorageKind, content: &[&str], gib: u64) -> StorageConfig {
        StorageConfig {
            name: name.into(),
            kind,
            content: content.iter().map(|c| (*c).to_owned()).collect(),
            size: gib << 30,
            nodes: Vec::new(),
        }
    }

    /// True when this node has it.
    pub fn on(&self, node: &str) -> bool {
        self.nodes.is_empty() || self.nodes.iter().any(|n| n == node)
    }

    /// True when it may hold this.
    pub fn holds(&self, content: &str) -> bool {
        self.content.iter().any(|c| c == content)
    }
}

/// Privileges on a path.
#[derive(Clone, Debug)]
pub struct Acl {
    /// The path, such as `/vms/9000`.
    pub path: String,
    /// The privileges.
    pub privileges: Vec<String>,
    /// True when paths below inherit them.
    pub propagate: bool,
}

impl Acl {
    /// Privileges, separated by blanks, on a path and all below.
    pub fn new(path: &str, privileges: &str) -> Acl {
        let privileges = privileges.split_whitespace().map(str::to_owned).collect();
        Acl { path: path.into(), privileges, propagate: true }
    }

    /// The same, on this path alone.
    pub fn here(path: &str, privileges: &str) -> Acl {
        Acl { propagate: false, ..Acl::new(path, privileges) }
    }
}

/// An API token.
#[derive(Clone, Debug)]
pub struct TokenConfig {
    /// The token's name.
    pub id: String,
    /// Its secret, a UUID.
    pub secret: String,
    /// With privilege separation it can do what both the user and `acl` allow.
    pub privsep: bool,
    /// Its own rights.
    pub acl: Vec<Acl>,
}

/// A user.
#[derive(Clone, Debug)]
pub struct UserConfig {
    /// `name@realm`.
    pub id: String,
    /// For `POST /access/ticket`; none: no login by password.
    pub password: Option<String>,
    /// The user's rights; `root@pam` needs none.
    pub acl: Vec<Acl>,
    /// The user's tokens.
    pub tokens: Vec<TokenConfig>,
}

/// An image on the simulated internet.
#[derive(Clone, Debug)]
pub struct ImageConfig {
    /// Bytes to download.
    pub size: u64,
    /// The size of the disk in it.
    pub virtual_size: u64,
    /// Its digests in hex by algorithm (`sha512`); an algorithm not listed matches anything.
    pub digests: BTreeMap<String, String>,
    /// The server answers 404.
    pub missing: bool,
}

impl Default for ImageConfig {
    fn default() -> Self {
        ImageConfig { size: 350 << 20, virtual_size: 3 << 30, digests: BTreeMap::new(), missing: false }
    }
}

/// The privileges of a role that manages the cluster's machines, and no more.
fn role(generation: Generation) -> String {
    let agent = match generation {
        Generation::V8 => "VM.Monitor",
        Generation::V9 => "VM.GuestAgent.Audit VM.GuestAgent.FileRead",
    };
    format!(
        "VM.Allocate VM.Audit VM.Clone VM.Config.CDROM VM.Config.CPU VM.Config.Cloudinit VM.Config.Disk \
         VM.Config.HWType VM.Config.Memory VM.Config.Network VM.Config.Options VM.PowerMgmt VM.Migrate VM.Snapshot \
         VM.Snapshot.Rollback VM.Backup Pool.Audit {agent}"
    )
}

impl ProxmoxConfig {
    /// The smallest set of rights for machines in `pool`, with disks on `disks` and images on `images`.
    ///
    /// It leaves out what only optional features need: on `/`, `Sys.Modify` (start order, backup jobs) and
    /// `Sys.Console` (HA); on the pool, `Pool.Allocate` (making it).
    pub fn least_rights(generation: Generation, pool: &str, disks: &str, images: &str) -> Vec<Acl> {
        vec![
            Acl::new(&format!("/pool/{pool}"), &role(generation)),
            Acl::new("/pool/templates", "VM.Clone VM.Audit Pool.Audit"),
            Acl::new(&format!("/storage/{disks}"), "Datastore.AllocateSpace Datastore.Audit"),
            Acl::new(
                &format!("/storage/{images}"),
                "Datastore.AllocateSpace Datastore.Audit Datastore.AllocateTemplate",
            ),
            Acl::new("/sdn/zones/localnetwork", "SDN.Use"),
            Acl::new("/nodes", "Sys.Audit Sys.AccessNetwork"),
            Acl::here("/", "Sys.Audit"),
        ]
    }

    /// Gives more rights to every user and token.
    pub fn grant(mut self, path: &str, privileges: &str) -> ProxmoxConfig {
        for user in &mut self.users {
            user.acl.push(Acl::here(path, privileges));
            for token in &mut user.tokens {
                token.acl.push(Acl::here(path, privileges));
            }
        }
        self
    }

    /// Adds an NFS storage that all nodes see, with the right to use it.
    pub fn with_shared(mut self, name: &str) -> ProxmoxConfig {
        self.storages.push(StorageConfig::new(
            name,
            StorageKind::Nfs,
            &["images", "rootdir", "iso", "import"],
            4096,
        ));
        let path = format!("/storage/{name}");
        self.grant(&path, "Datastore.AllocateSpace Datastore.Audit Datastore.AllocateTemplate")
    }

    /// A cluster of this generation with the rights to match.
    pub fn of(generation: Generation) -> ProxmoxConfig {
        let acl = ProxmoxConfig::least_rights(generation, "k8s-prod", "local-lvm", "local");
        let token = TokenConfig {
            id: "cli".into(),
            secret: "5a6d1c0e-7b1f-4c55-9a0e-0d2f3b4c5d6e".into(),
            privsep: true,
            acl: acl.clone(),
        };
        let node =
            |n: u8| NodeConfig { name: format!("pve{n}"), host: 200 + n, cores: 64, memory_mib: 262_144 };
        ProxmoxConfig {
            generation,
            message_field: true,
            port: 8006,
            cluster: "lab".into(),
            domain: "lab.example".into(),
            nodes: (1..=3).map(node).collect(),
            storages: vec![
                StorageConfig::new(
                    "local",
                    StorageKind::Dir,
                    &["iso", "vztmpl", "backup", "import", "snippets"],
                    200,
                ),
                StorageConfig::new("local-lvm", StorageKind::LvmThin, &["images", "rootdir"], 4096),
                StorageConfig::new("backup", StorageKind::Nfs, &["backup"], 8192),
            ],
            bridges: vec!["vmbr0".into()],
            pools: vec!["k8s-prod".into(), "templates".into()],
            users: vec![
                UserConfig { id: "root@pam".into(), password: None, acl: Vec::new(), tokens: Vec::new() },
                UserConfig {
                    id: "kubeline@pve".into(),
                    password: Some("kubeline-in-the-lab".into()),
                    acl,
                    tokens: vec![token],
                },
            ],
            images: BTreeMap::new(),
            nameserver: "10.30.0.1".into(),
            agent_in_images: true,
        }
    }
}

impl Default for ProxmoxConfig {
    fn default() -> Self {
        ProxmoxConfig::of(Generation::V9)
    }
}
