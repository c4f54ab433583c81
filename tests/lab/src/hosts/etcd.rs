//! etcd clusters: members, their disks, and quorum.

use std::collections::BTreeMap;

use super::{Hosts, Machine};

/// Where a member keeps that it is one; blank disks make it a stranger.
pub const DATA: &str = "/var/lib/etcd/member/snap/db";

/// A member of a cluster.
#[derive(Clone, Debug, PartialEq)]
pub struct Member {
    /// Its id, above 2^53 as the real ones.
    pub id: u64,
    /// Its name: the node's.
    pub name: String,
    /// Its address.
    pub address: String,
    /// True until it caught up.
    pub learner: bool,
}

/// One cluster.
#[derive(Clone, Debug)]
pub struct Cluster {
    /// Its id.
    pub id: u64,
    /// Members by their ids.
    pub members: Vec<Member>,
    /// Counts changes.
    pub revision: u64,
    /// What the Kubernetes window was last told.
    pub told: bool,
}

/// All etcd clusters of the lab, by the Kubernetes cluster's id.
#[derive(Clone, Debug, Default)]
pub struct Clusters {
    by_id: BTreeMap<String, Cluster>,
}

fn random_id() -> u64 {
    rand::random::<u64>() | 1 << 60
}

impl Clusters {
    /// Begins a cluster with its first member, which it gives.
    pub fn begin(&mut self, cluster_id: &str, name: &str, address: &str) -> Member {
        let member = Member { id: random_id(), name: name.into(), address: address.into(), learner: false };
        // One from a snapshot takes the place of the one that may have lost its quorum.
        let told = self.by_id.get(cluster_id).is_none_or(|c| c.told);
        let cluster = Cluster { id: random_id(), members: vec![member.clone()], revision: 1, told };
        self.by_id.insert(cluster_id.into(), cluster);
        member
    }

    /// The cluster, if it began.
    pub fn get(&self, cluster_id: &str) -> Option<&Cluster> {
        self.by_id.get(cluster_id)
    }

    /// The cluster, to change it.
    pub fn get_mut(&mut self, cluster_id: &str) -> Option<&mut Cluster> {
        self.by_id.get_mut(cluster_id)
    }

    /// The ids of all clusters.
    pub fn ids(&self) -> Vec<String> {
        self.by_id.keys().cloned().collect()
    }
}

impl Cluster {
    /// Adds a learner.
    ///
    /// # Errors
    /// etcd's text: one learner at a time, as its default of `--max-learners` is 1.
    pub fn add(&mut self, name: &str, address: &str) -> Result<Member, String> {
        if self.members.iter().any(|m| m.learner) {
            return Err("etcdserver: too many learner members in cluster".into());
        }
        if self.members.iter().any(|m| m.address == address) {
            return Err("etcdserver: Peer URLs already exists".into());
        }
        let member = Member { id: random_id(), name: name.into(), address: address.into(), learner: true };
        self.members.push(member.clone());
        self.members.sort_by_key(|m| m.id);
        self.revision += 1;
        Ok(member)
    }

    /// Makes a learner a voting member.
    pub fn promote(&mut self, id: u64) {
        for member in self.members.iter_mut().filter(|m| m.id == id) {
            member.learner = false;
        }
        self.revision += 1;
    }

    /// Removes a member. True when it was one.
    pub fn remove(&mut self, id: u64) -> bool {
        let before = self.members.len();
        self.members.retain(|m| m.id != id);
        self.revision += 1;
        self.members.len() != before
    }

    /// Whether the voting members that run are a majority.
    pub fn quorate(&self, runs: &[u64]) -> bool {
        let voting = self.members.iter().filter(|m| !m.learner);
        let up = voting.clone().filter(|m| runs.contains(&m.id)).count();
        up * 2 > voting.count()
    }
}

/// Writes on a machine's disk that it is a member.
pub fn store(machine: &mut Machine, cluster_id: &str, member: &Member) {
    machine.fs.put(DATA, format!("{cluster_id} {}\n", member.id), 0o600, "root", "root");
    let _ = machine.fs.mkdir_p("/var/lib/etcd/member/wal", 0o700);
    for dir in ["/var/lib/etcd", "/var/lib/etcd/member"] {
        let _ = machine.fs.change(dir, Some(0o700), None, None);
    }
}

/// The cluster and member id on a machine's disk.
pub fn stored(machine: &Machine) -> Option<(String, u64)> {
    let text = machine.fs.text(DATA);
    let (cluster, id) = text.trim().split_once(' ')?;
    Some((cluster.into(), id.parse().ok()?))
}

/// Whether the member on this machine runs: its static pod is there and something runs it.
pub fn runs(machine: &Machine) -> Option<(String, u64)> {
    let pods = machine.up && machine.services.active("kubelet") && machine.services.active("containerd");
    (pods && machine.fs.exists("/etc/kubernetes/manifests/etcd.yaml")).then(|| stored(machine)).flatten()
}

/// The ids of the members of a cluster that run.
pub fn running(hosts: &Hosts, cluster_id: &str) -> Vec<u64> {
    let all = hosts.all();
    all.iter().filter_map(|h| runs(&h.machine())).filter(|(c, _)| c == cluster_id).map(|(_, id)| id).collect()
}

/// Whether a cluster has its quorum now.
pub fn quorate(hosts: &Hosts, cluster_id: &str) -> bool {
    let running = running(hosts, cluster_id);
    hosts.etcd().get(cluster_id).is_some_and(|c| c.quorate(&running))
}

/// Tells the Kubernetes window of a quorum lost or found.
pub fn settle(hosts: &Hosts) {
    let ids = hosts.etcd().ids();
    for id in ids {
        let now = quorate(hosts, &id);
        let news = match hosts.etcd().get_mut(&id) {
            Some(cluster) if cluster.told != now => {
                cluster.told = now;
                true
            }
            _ => false,
        };
        if news {
            hosts.kube().quorum(&id, now);
        }
    }
}

/// What a snapshot holds.
pub struct Snapshot {
    /// A checksum.
    pub hash: u32,
    /// etcd's revision.
    pub revision: u64,
    /// How many keys.
    pub keys: usize,
    /// The objects, as the Kubernetes window gave them.
    pub objects: String,
}

const MAGIC: &str = "lab etcd snapshot";

/// A snapshot of a cluster: its objects behind a line that tells of them and proves that nothing was cut.
pub fn snapshot(hosts: &Hosts, cluster_id: &str, cluster: &Cluster) -> String {
    let objects = hosts.kube().dump(cluster_id);
    let keys = objects.lines().count();
    format!(
        "{MAGIC} of {cluster_id} revision {} keys {keys} sum {}\n{objects}",
        cluster.revision,
        sum(&objects)
    )
}

fn sum(text: &str) -> u32 {
    use sha2::{Digest, Sha256};
    let digest = Sha256::digest(text.as_bytes());
    u32::from_be_bytes([digest[0], digest[1], digest[2], digest[3]])
}

/// Reads a snapshot; `None` for what is none, or was cut or changed.
pub fn read_snapshot(content: &[u8]) -> Option<Snapshot> {
    let text = std::str::from_utf8(content).ok()?;
    let (head, objects) = text.split_once('\n')?;
    let words: Vec<&str> = head.strip_prefix(MAGIC)?.split_whitespace().collect();
    let ["of", _, "revision", revision, "keys", keys, "sum", hash] = words.as_slice() else { return None };
    let hash: u32 = hash.parse().ok()?;
    (sum(objects) == hash).then_some(Snapshot {
        hash,
        revision: revision.parse().ok()?,
        keys: keys.parse().ok()?,
        objects: objects.to_string(),
    })
}
