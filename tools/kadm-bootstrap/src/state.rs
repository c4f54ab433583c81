//! What a machine is to the cluster, and the cluster to the document's version, from evidence.

use std::collections::BTreeMap;

use crate::node::Node;
use crate::seen::{ClusterSeen, HostSeen, MemberSeen};

/// What a machine is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// Nothing of Kubernetes was set up here.
    Blank,
    /// Begun and provably of no account: neither a voting member of etcd nor a node.
    Half(String),
    /// A part of the cluster.
    Done,
    /// It may hold data; the operator decides.
    Doubtful(String),
}

/// Machines of the document that are part of the cluster, by name.
pub(crate) type States<'s> = BTreeMap<&'s str, State>;

/// How the cluster stands to the document's version.
pub(crate) enum Stand {
    /// It runs.
    Current,
    /// It is due.
    Due,
    /// It cannot be yet: what, why, and what helps.
    Held(String, String, Option<String>),
}

/// What a complete control plane has.
const CONTROL_PLANE_FILES: [&str; 8] = [
    "/etc/kubernetes/admin.conf",
    "/etc/kubernetes/kubelet.conf",
    "/etc/kubernetes/manifests/etcd.yaml",
    "/etc/kubernetes/manifests/kube-apiserver.yaml",
    "/etc/kubernetes/manifests/kube-controller-manager.yaml",
    "/etc/kubernetes/manifests/kube-scheduler.yaml",
    "/var/lib/etcd/member",
    "/var/lib/kubelet/config.yaml",
];

/// What a complete worker has.
const WORKER_FILES: [&str; 2] = ["/etc/kubernetes/kubelet.conf", "/var/lib/kubelet/config.yaml"];

/// The etcd member that a machine is, by its name or, before it started, by its peer address.
pub fn member<'c>(node: &Node, cluster: &'c ClusterSeen) -> Option<&'c MemberSeen> {
    let peer = format!("https://{}:", node.address);
    cluster
        .etcd
        .iter()
        .find(|m| m.name == node.name || (m.name.is_empty() && m.peers.iter().any(|p| p.starts_with(&peer))))
}

/// What the machine is to this cluster; without one, it can only be blank or half.
pub fn of(node: &Node, host: &HostSeen, cluster: Option<&ClusterSeen>) -> State {
    let Some(cluster) = cluster else {
        return if host.traces() { State::Half(left(host)) } else { State::Blank };
    };
    if !host.traces() {
        return State::Blank;
    }
    if let Some(ca) = host.ca().filter(|ca| *ca != cluster.ca) {
        return State::Doubtful(format!("it belongs to another cluster, whose CA is {}", short(ca)));
    }
    let registered = cluster.nodes.contains_key(&node.name);
    let member = member(node, cluster);
    let serves = host.state.iter().any(|f| f.starts_with("/etc/kubernetes/manifests/"));
    let data = host.state.contains("/var/lib/etcd/member");
    if (serves || data) && cluster.etcd_fault.is_some() {
        // A complete control plane is not doubted because etcd could not be asked this time.
        let complete = node.control_plane && registered && lacks(host, &CONTROL_PLANE_FILES).is_none();
        let fault = cluster.etcd_fault.clone().unwrap_or_default();
        return if complete {
            State::Done
        } else {
            State::Doubtful(format!("etcd cannot be asked for it: {fault}"))
        };
    }
    match (registered, member) {
        (_, Some(m)) if m.learner => State::Half("its etcd member never caught up".to_owned()),
        (false, None) => State::Half(left(host)),
        (false, Some(_)) => State::Doubtful("it is a member of etcd but no node".to_owned()),
        (true, None) if node.control_plane => {
            State::Doubtful("it is a node but no member of etcd".to_owned())
        }
        (true, Some(_)) if !node.control_plane => {
            State::Doubtful("it is a control plane, and the document wants a worker".to_owned())
        }
        (true, _) => {
            let files: &[&str] = if node.control_plane { &CONTROL_PLANE_FILES } else { &WORKER_FILES };
            match lacks(host, files) {
                Some(file) => State::Doubtful(format!("it is a node, but {file} is missing")),
                None => State::Done,
            }
        }
    }
}

fn lacks<'f>(host: &HostSeen, files: &[&'f str]) -> Option<&'f str> {
    files.iter().copied().find(|f| !host.state.contains(*f))
}

fn left(host: &HostSeen) -> String {
    let first = host.state.iter().next().map_or("", String::as_str);
    match host.state.len() {
        0 | 1 => format!("an unfinished set-up left {first}"),
        n => format!("an unfinished set-up left {first} and {} more", n - 1),
    }
}

/// The beginning of a digest, for people.
pub fn short(digest: &str) -> &str {
    digest.get(..12).unwrap_or(digest)
}

/// Whether etcd keeps its quorum, and has it now, when this one of its members goes.
pub fn may_go(members: &[MemberSeen], id: u64) -> bool {
    let Some(gone) = members.iter().find(|m| m.id == id) else { return false };
    if gone.learner {
        return true;
    }
    let voters = || members.iter().filter(|m| !m.learner);
    let now = voters().filter(|m| m.healthy).count();
    let after = voters().filter(|m| m.healthy && m.id != id).count();
    now * 2 > voters().count() && after * 2 > voters().count() - 1
}
