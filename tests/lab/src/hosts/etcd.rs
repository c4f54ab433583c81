//! etcd clusters: members, their disks, and quorum.

use std::collections::BTreeMap;

use super::{Hosts, Machine};
use crate::Window;

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
    /// Changes of its members that came while another was under way: nobody who keeps it safe makes one.
    pub overlaps: Vec<String>,
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
        let cluster = Cluster {
            id: random_id(),
            members: vec![member.clone()],
            revision: 1,
            told,
            overlaps: Vec::new(),
        };
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
        if let Some(learner) = self.members.iter().find(|m| m.learner) {
            self.overlaps.push(format!("{name} was added while {} had not caught up", learner.name));
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
        if let (Some(gone), Some(learner)) =
            (self.members.iter().find(|m| m.id == id), self.members.iter().find(|m| m.learner && m.id != id))
        {
            self.overlaps.push(format!("{} was removed while {} had not caught up", gone.name, learner.name));
        }
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

const MANIFEST: &str = "/etc/kubernetes/manifests/etcd.yaml";

/// Whether something runs etcd's static pod on this machine.
pub fn started(machine: &Machine) -> bool {
    let pods = machine.up && machine.services.active("kubelet") && machine.services.active("containerd");
    pods && machine.fs.exists(MANIFEST)
}

/// Whether the member on this machine runs: something runs its static pod, and it does not end each time.
pub fn runs(machine: &Machine) -> Option<(String, u64)> {
    (started(machine) && machine.kube.etcd_ends.is_none()).then(|| stored(machine)).flatten()
}

/// Lets each machine's etcd begin as a real one would: with its data as the member that it is, unless it was removed;
/// without data by what its manifest says (server/etcdserver/bootstrap.go of etcd 3.6).
pub fn begin(hosts: &Hosts) {
    for host in hosts.all().iter().filter(|h| h.runs(|now| now.etcd)) {
        let mut machine = host.machine();
        let ends = match stored(&machine) {
            _ if !started(&machine) => Ok(()),
            Some(member) => stays(hosts, member),
            None => begins(hosts, &mut machine),
        };
        let ends = ends.err();
        if let Some(why) = ends.as_ref().filter(|why| machine.kube.etcd_ends.as_ref() != Some(*why)) {
            let why = why.clone();
            machine.log("etcd", why);
        }
        if machine.kube.etcd_ends != ends {
            machine.kube.etcd_ends = ends;
        }
    }
}

fn stays(hosts: &Hosts, (cluster, id): (String, u64)) -> Result<(), String> {
    // A member of a cluster that was made anew from a snapshot is a stranger to it as well.
    match hosts.etcd().get(&cluster).is_some_and(|c| c.members.iter().all(|m| m.id != id)) {
        true => Err("the member has been permanently removed from the cluster; the data-dir used by this member must be removed".into()),
        false => Ok(()),
    }
}

fn begins(hosts: &Hosts, machine: &mut Machine) -> Result<(), String> {
    let text = machine.fs.text(MANIFEST);
    let flag = |name: &str| {
        let line = text.lines().find_map(|l| l.trim().trim_start_matches("- ").strip_prefix(name));
        line.unwrap_or_default().trim().to_owned()
    };
    let (name, peers) = (flag("--name="), flag("--initial-cluster="));
    let address = |peer: &str| {
        let host = peer.split_once("=https://")?.1.rsplit_once(':')?.0;
        Some(host.to_owned())
    };
    let own = format!("{name}=");
    let others: Vec<String> = peers.split(',').filter(|p| !p.starts_with(&own)).filter_map(address).collect();
    let known: Vec<(String, Cluster)> = {
        let clusters = hosts.etcd();
        clusters.ids().into_iter().filter_map(|id| Some((id.clone(), clusters.get(&id)?.clone()))).collect()
    };
    let remote = known.iter().find(|(_, c)| c.members.iter().any(|m| others.contains(&m.address)));
    if flag("--initial-cluster-state=") == "existing" {
        return Err(match remote {
            None => "cannot fetch cluster info from peer urls: could not retrieve cluster information from the given URLs".into(),
            Some((_, c)) if c.members.len() != others.len() + 1 => {
                "error validating peerURLs: member count is unequal".into()
            }
            // It takes its old id, and its leader believes that it has what it had.
            Some(_) => "tocommit is out of range [lastIndex(0)]. Was the raft log corrupted, truncated, or lost?".into(),
        });
    }
    if remote.is_some() {
        return Err(format!("member {name} has already been bootstrapped"));
    }
    let Some(ca) = super::kubeadm::cluster::cluster_id(machine) else { return Ok(()) };
    let Some(advertised) = peers.split(',').find(|p| p.starts_with(&own)).and_then(address) else {
        return Err(format!("couldn't find local name \"{name}\" in the initial cluster configuration"));
    };
    // The API server beside it serves a cluster of its own, with nothing in it.
    let second = format!("{ca}-begun-anew-on-{name}");
    let member = hosts.etcd().begin(&second, &name, &advertised);
    store(machine, &second, &member);
    Ok(())
}

/// The ids of the members of a cluster that run.
pub fn running(hosts: &Hosts, cluster_id: &str) -> Vec<u64> {
    let all = hosts.all();
    all.iter()
        .filter_map(|h| h.runs(|now| now.member.clone()))
        .filter(|(c, _)| c == cluster_id)
        .map(|(_, id)| id)
        .collect()
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
        let overlaps = hosts.etcd().get_mut(&id).map(|c| std::mem::take(&mut c.overlaps)).unwrap_or_default();
        for overlap in overlaps {
            hosts.world().journal.record_unknown(
                Window::Ssh,
                "etcd",
                &format!("two changes at once: {overlap}"),
            );
        }
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
