//! What is there: plain data, so that a test can be a JSON file.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::ha::HaSeen;
use crate::job::Job;
use crate::mark::Mark;
use crate::options::Options;

/// What was seen at Proxmox and on the machines.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Seen {
    /// The release: major, minor.
    pub version: (u32, u32),
    /// The Proxmox nodes by name.
    pub nodes: BTreeMap<String, Node>,
    /// All guests that concern us: ours, those at our ids or with our names, templates of our template's name.
    pub guests: Vec<Guest>,
    /// The resource pool, when the document names one and it can be seen.
    pub pool: Option<PoolSeen>,
    /// The backup job with our id, where the login may look.
    pub job: Option<Job>,
    /// The entries of the HA manager, where the login may look.
    pub ha: Option<HaSeen>,
    /// The privileges that the login has: by path, with 1 where they hold below it too.
    pub privileges: BTreeMap<String, BTreeMap<String, u8>>,
    /// The image's digest, when one is asked for and was needed: algorithm and hex digits.
    pub digest: Option<(String, String)>,
}

/// A Proxmox node.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Node {
    /// True when it is on and in the cluster.
    pub online: bool,
    /// Its address, when we may know: uploads go to the very node.
    pub address: Option<String>,
    /// Its memory in bytes, when we may know.
    pub memory: Option<u64>,
    /// Memory of all its guests that are no templates, in bytes, as configured.
    pub claimed: u64,
    /// Memory that is in use now, in bytes: guests that run, and the node itself.
    pub used: u64,
    /// Its processors, when we may know.
    pub cores: Option<u64>,
    /// Processors of all its guests that are no templates.
    pub claimed_cores: u64,
    /// Its storages by name.
    pub storages: BTreeMap<String, Storage>,
    /// Its bridges; none when they cannot be seen.
    pub bridges: Option<Vec<String>>,
}

/// A storage as one node sees it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Storage {
    /// Its type, such as `lvmthin`.
    pub kind: String,
    /// True when all nodes see the same volumes.
    pub shared: bool,
    /// What it may hold.
    pub content: Vec<String>,
    /// Bytes that are free, when we may know.
    pub free: Option<u64>,
    /// Files of seeds of this cluster that are there.
    pub seeds: Vec<String>,
    /// Archives of containers that are there, where the document has containers.
    pub archives: Vec<String>,
}

/// A resource pool.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PoolSeen {
    /// True when it exists.
    pub exists: bool,
    /// Its comment.
    pub comment: String,
    /// The ids of its guests.
    pub members: Vec<u32>,
}

/// A guest.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Guest {
    /// Its id.
    pub vmid: u32,
    /// The Proxmox node that it is on.
    pub node: String,
    /// `qemu` or `lxc`.
    pub kind: String,
    /// Its name, as far as known.
    pub name: Option<String>,
    /// Its tags.
    pub tags: String,
    /// Its resource pool.
    pub pool: Option<String>,
    /// True when it runs.
    pub running: bool,
    /// Seconds since it was switched on.
    pub uptime: u64,
    /// Its configuration with what is pending; none when it could not be asked.
    pub config: Option<Options>,
    /// Options whose change waits for a restart.
    pub pending: Vec<String>,
    /// What SSH with its known host key says; none when it was not tried.
    pub ssh: Option<SshSeen>,
    /// Of a guest that the login may not see: a making that broke off and may have left it.
    pub broken: Option<Broken>,
}

/// A task that was to make a guest and has no end: its node went off, or its worker was killed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Broken {
    /// The Proxmox node that it ran on.
    pub node: String,
    /// Its UPID.
    pub task: String,
}

/// What SSH with the known host key says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum SshSeen {
    /// It answers with the key and lets us in.
    Answers,
    /// It does not answer, and why.
    Silent(String),
    /// It answers with another key, or lets nobody in: why, and what helps.
    Refuses(String, Option<String>),
}

/// Whose a guest is.
#[derive(Clone, Debug, PartialEq)]
pub enum Owner {
    /// Ours: it bears our cluster's mark.
    Ours(Mark),
    /// Somebody else's.
    Foreign,
    /// Its configuration cannot be read: its node is off. True when its tags are ours.
    Silent(bool),
    /// One that is being made, or was never finished: its lock, and our mark when that is in it already. It never
    /// ran: a mark with a host key is that of a machine, whatever has locked it since.
    Half(String, Option<Mark>),
}

impl Guest {
    /// An option of its configuration.
    pub fn option(&self, name: &str) -> Option<&str> {
        self.config.as_ref()?.get(name).map(String::as_str)
    }

    /// Whose it is.
    pub fn owner(&self, cluster: &str) -> Owner {
        let Some(config) = &self.config else {
            let tags = crate::options::tags(&self.tags);
            let ours = tags.contains("pve-vm") && tags.contains(&cluster.to_lowercase());
            return Owner::Silent(ours);
        };
        let making = config.get("lock").filter(|lock| *lock == "clone" || *lock == "create");
        match (config.get("description").and_then(|d| Mark::read(d)), making) {
            (Some(mark), making) if mark.cluster == cluster && mark.vmid == self.vmid => match making {
                Some(lock) if mark.host_keys.is_empty() && mark.renew.is_none() => {
                    Owner::Half(lock.clone(), Some(mark))
                }
                _ => Owner::Ours(mark),
            },
            (Some(_), _) => Owner::Foreign,
            (None, Some(lock)) => Owner::Half(lock.clone(), None),
            (None, None) => Owner::Foreign,
        }
    }

    /// True for a container.
    pub fn is_container(&self) -> bool {
        self.kind == "lxc"
    }

    /// True for a template that can be cloned.
    pub fn is_template(&self) -> bool {
        let Some(config) = &self.config else { return false };
        self.kind == "qemu" && crate::options::on(config, "template") && !config.contains_key("lock")
    }
}
