//! The cluster's state, in plain data.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use serde_json::{Map, Value as Json};
use sha2::{Digest, Sha256};

use super::config::{NodeConfig, ProxmoxConfig, StorageConfig};
use super::reply::Fail;
use super::tasks::Task;
use crate::world::AgentExec;

/// A guest's kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Qemu,
    Lxc,
}

impl Kind {
    pub fn name(self) -> &'static str {
        match self {
            Kind::Qemu => "qemu",
            Kind::Lxc => "lxc",
        }
    }

    /// `VM` or `CT`, as messages say.
    pub fn short(self) -> &'static str {
        match self {
            Kind::Qemu => "VM",
            Kind::Lxc => "CT",
        }
    }

    fn folder(self) -> &'static str {
        match self {
            Kind::Qemu => "qemu-server",
            Kind::Lxc => "lxc",
        }
    }
}

/// A guest's configuration: option to text, as in its file.
pub(super) type Options = BTreeMap<String, String>;

/// A snapshot.
#[derive(Clone, Debug)]
pub(super) struct Snapshot {
    pub config: Options,
    pub description: Option<String>,
    pub time: u64,
    pub parent: Option<String>,
}

/// A running guest.
#[derive(Clone, Debug)]
pub(super) struct Running {
    pub since: Instant,
    pub pid: u32,
    /// The agent's channel exists: `agent` was on at the start.
    pub agent: bool,
}

/// A virtual machine or container.
#[derive(Clone, Debug)]
pub(super) struct Guest {
    pub vmid: u32,
    pub kind: Kind,
    pub node: String,
    pub config: Options,
    /// Changes that wait for the next start; `None` deletes.
    pub pending: BTreeMap<String, Option<String>>,
    pub pool: Option<String>,
    pub running: Option<Running>,
    pub generation: u64,
    pub snapshots: BTreeMap<String, Snapshot>,
    pub commands: BTreeMap<u32, AgentExec>,
    /// When its status last changed, and what the statistics say until they are refreshed.
    pub changed: Instant,
    pub stale: &'static str,
    /// Its cloud-init drive as of the last start.
    pub instance: Option<String>,
    /// Of a container: the keys that its root accepts.
    pub keys: Vec<String>,
    /// Of a container: the private host key that Proxmox made at its creation.
    pub host_key: Option<String>,
}

impl Guest {
    pub fn new(vmid: u32, kind: Kind, node: &str, generation: u64) -> Guest {
        Guest {
            vmid,
            kind,
            node: node.into(),
            config: Options::new(),
            pending: BTreeMap::new(),
            pool: None,
            running: None,
            generation,
            snapshots: BTreeMap::new(),
            commands: BTreeMap::new(),
            changed: Instant::now(),
            stale: "unknown",
            instance: None,
            keys: Vec::new(),
            host_key: None,
        }
    }

    pub fn template(&self) -> bool {
        self.on("template")
    }

    /// True when a boolean option is set.
    pub fn on(&self, option: &str) -> bool {
        self.config.get(option).is_some_and(|v| v == "1")
    }

    pub fn name(&self) -> String {
        let key = if self.kind == Kind::Lxc { "hostname" } else { "name" };
        self.config.get(key).cloned().unwrap_or_else(|| format!("{}{}", self.kind.short(), self.vmid))
    }

    /// 40 hex digits over the configuration, for compare and swap.
    pub fn digest(&self) -> String {
        let mut hash = Sha256::new();
        for (key, value) in &self.config {
            hash.update(format!("{key}: {value}\n"));
        }
        for (key, value) in &self.pending {
            hash.update(format!("pending {key}: {value:?}\n"));
        }
        hash.finalize().iter().take(20).map(|b| format!("{b:02x}")).collect()
    }

    pub fn status(&self) -> &'static str {
        if self.running.is_some() { "running" } else { "stopped" }
    }

    /// Refuses while the configuration's own lock is set.
    pub fn unlocked(&self) -> Result<(), Fail> {
        match self.config.get("lock") {
            Some(lock) => Err(Fail::die(format!("{} is locked ({lock})", self.kind.short()))),
            None => Ok(()),
        }
    }
}

/// A volume on a storage.
#[derive(Clone, Debug)]
pub(super) struct Volume {
    pub volid: String,
    pub storage: String,
    pub content: &'static str,
    pub format: &'static str,
    pub size: u64,
    /// Of an image file: the size of the disk in it.
    pub virtual_size: Option<u64>,
    pub vmid: Option<u32>,
    pub parent: Option<String>,
    pub ctime: u64,
    /// Digests by algorithm, where known.
    pub digests: BTreeMap<String, String>,
    /// The bytes of an uploaded file.
    pub bytes: Vec<u8>,
}

impl Volume {
    /// One made now, of nobody's and from nothing else.
    pub(super) fn new(
        volid: &str,
        storage: &str,
        content: &'static str,
        format: &'static str,
        size: u64,
    ) -> Volume {
        Volume {
            volid: volid.to_owned(),
            storage: storage.to_owned(),
            content,
            format,
            size,
            virtual_size: None,
            vmid: None,
            parent: None,
            ctime: super::tasks::now(),
            digests: BTreeMap::new(),
            bytes: Vec::new(),
        }
    }
}

/// A node.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub config: NodeConfig,
    pub online: bool,
    pub address: String,
    pub fingerprint: String,
    pub since: Instant,
}

/// A pool; its guests know that they are in it.
#[derive(Clone, Debug, Default)]
pub(super) struct Pool {
    pub comment: Option<String>,
    pub storages: BTreeSet<String>,
}

/// High availability.
#[derive(Clone, Debug, Default)]
pub(super) struct Ha {
    pub resources: BTreeMap<String, Map<String, Json>>,
    pub rules: BTreeMap<String, Map<String, Json>>,
    pub groups: BTreeMap<String, Map<String, Json>>,
    /// When its manager got its first resource: only a while after that it is awake and knows the nodes.
    pub woken: Option<Instant>,
    /// Resources that the manager has given up.
    pub errors: BTreeSet<String>,
}

/// All of it.
#[derive(Debug, Default)]
pub(super) struct State {
    pub nodes: BTreeMap<String, Node>,
    pub storages: BTreeMap<String, StorageConfig>,
    pub guests: BTreeMap<u32, Guest>,
    /// By the node (empty where shared) and volume id.
    pub volumes: BTreeMap<(String, String), Volume>,
    pub pools: BTreeMap<String, Pool>,
    pub tasks: BTreeMap<String, Task>,
    pub ha: Ha,
    pub jobs: BTreeMap<String, Map<String, Json>>,
    /// True while the nodes do not see each other, although they are on.
    pub cut: bool,
    /// Counts creations, processes and MAC addresses.
    pub counter: u64,
}

impl State {
    pub fn new(config: &ProxmoxConfig) -> State {
        State {
            storages: config.storages.iter().map(|s| (s.name.clone(), s.clone())).collect(),
            pools: config.pools.iter().map(|p| (p.clone(), Pool::default())).collect(),
            ..State::default()
        }
    }

    pub fn count(&mut self) -> u64 {
        self.counter += 1;
        self.counter
    }

    /// A new MAC address with the prefix of Proxmox Server Solutions.
    pub fn mac(&mut self) -> String {
        let low: u32 = rand::random_range(0..0x100_0000);
        format!("BC:24:11:{:02X}:{:02X}:{:02X}", low >> 16, (low >> 8) & 0xff, low & 0xff)
    }

    /// More than half of the nodes are on, and see each other.
    pub fn quorate(&self) -> bool {
        if self.cut {
            return false;
        }
        let on = self.nodes.values().filter(|n| n.online).count();
        self.nodes.len() == 1 || on * 2 > self.nodes.len()
    }

    /// The guest of this kind on this node.
    pub fn guest(&self, kind: Kind, node: &str, vmid: u32) -> Result<&Guest, Fail> {
        let found = self.guests.get(&vmid).filter(|g| g.kind == kind && g.node == node);
        found.ok_or_else(|| no_config(kind, node, vmid))
    }

    /// The same, to change it.
    pub fn guest_mut(&mut self, kind: Kind, node: &str, vmid: u32) -> Result<&mut Guest, Fail> {
        let found = self.guests.get_mut(&vmid).filter(|g| g.kind == kind && g.node == node);
        found.ok_or_else(|| no_config(kind, node, vmid))
    }

    /// The storage, when this node has it.
    pub fn storage(&self, name: &str, node: &str) -> Result<&StorageConfig, Fail> {
        let found =
            self.storages.get(name).ok_or_else(|| Fail::die(format!("storage '{name}' does not exist")))?;
        if found.on(node) {
            return Ok(found);
        }
        Err(Fail::die(format!("storage '{name}' is not available on node '{node}'")))
    }

    /// Where a storage's volumes are kept: under the node, or under no node where it is shared.
    pub fn place(&self, storage: &str, node: &str) -> String {
        let shared = self.storages.get(storage).is_some_and(|s| s.kind.shared());
        if shared { String::new() } else { node.to_owned() }
    }

    pub fn volume(&self, node: &str, volid: &str) -> Option<&Volume> {
        let storage = volid.split(':').next().unwrap_or_default();
        self.volumes.get(&(self.place(storage, node), volid.to_owned()))
    }

    pub fn volume_mut(&mut self, node: &str, volid: &str) -> Option<&mut Volume> {
        let storage = volid.split(':').next().unwrap_or_default();
        let place = self.place(storage, node);
        self.volumes.get_mut(&(place, volid.to_owned()))
    }

    pub fn put_volume(&mut self, node: &str, volume: Volume) {
        let place = self.place(&volume.storage, node);
        self.volumes.insert((place, volume.volid.clone()), volume);
    }

    pub fn remove_volume(&mut self, node: &str, volid: &str) -> Option<Volume> {
        let storage = volid.split(':').next().unwrap_or_default();
        let place = self.place(storage, node);
        self.volumes.remove(&(place, volid.to_owned()))
    }

    /// Bytes in use on a storage as a node sees it.
    pub fn used(&self, storage: &str, node: &str) -> u64 {
        let place = self.place(storage, node);
        self.volumes
            .iter()
            .filter(|((p, _), v)| *p == place && v.storage == storage)
            .map(|(_, v)| v.size / 4)
            .sum()
    }
}

/// What every call on a missing guest answers.
pub(super) fn no_config(kind: Kind, node: &str, vmid: u32) -> Fail {
    Fail::die(format!("Configuration file 'nodes/{node}/{}/{vmid}.conf' does not exist", kind.folder()))
}
