//! Another version: one minor at a time, control planes first, every order and skew held.

use std::collections::BTreeMap;

use cluster_doc::KubeVersion;
use stage::{HeldKind, StepId};

use crate::build::Build;
use crate::exchange;
use crate::faults;
use crate::node::Node;
use crate::pins;
use crate::prepare;
use crate::seen::{ClusterSeen, HostSeen, NodeSeen, Seen};
use crate::state::{Stand, State, States};
use crate::step::Step;
use crate::version::right;
use crate::want::Want;

/// The components whose static pods carry the cluster's version; etcd has its own.
const COMPONENTS: [&str; 3] = ["kube-apiserver", "kube-controller-manager", "kube-scheduler"];
/// How many minors a kubelet may be older than the API servers (kubernetes.io, version skew policy).
const KUBELET_SKEW: u16 = 3;

/// Where the snapshot before an upgrade lies.
pub fn snapshot(version: KubeVersion) -> String {
    format!("/var/lib/kubeline/etcd-before-{version}.db")
}

fn old_plane(want: &Want, host: &HostSeen) -> bool {
    let tag = want.version.tag();
    COMPONENTS.iter().any(|c| host.static_pods.get(*c).is_some_and(|t| *t != tag))
}

fn old_kubelet(want: &Want, host: &HostSeen, node: Option<&NodeSeen>) -> bool {
    let version = want.version.to_string();
    !right(host, "kubelet", &version)
        || !right(host, "kubectl", &version)
        || node.is_some_and(|n| !n.version.is_empty() && n.version != want.version.tag())
}

/// The members of the document that are done, with what was seen of each.
fn done<'a>(
    want: &'a Want,
    seen: &'a Seen,
    states: &States<'_>,
) -> impl Iterator<Item = (&'a Node, &'a HostSeen)> {
    let done: Vec<&Node> =
        want.nodes.iter().filter(|n| states.get(n.name.as_str()) == Some(&State::Done)).collect();
    done.into_iter().filter_map(|n| Some((n, seen.hosts.get(&n.name)?)))
}

/// Whether an upgrade is due, and whether it may be.
pub(crate) fn stand(want: &Want, seen: &Seen, states: &States<'_>) -> Stand {
    let Some(cluster) = &seen.cluster else { return Stand::Current };
    let tag = want.version.tag();
    let planes: Vec<(&Node, &HostSeen)> = done(want, seen, states).filter(|(n, _)| n.control_plane).collect();
    let stored = cluster.stored.as_ref().is_some_and(|v| *v != tag);
    let proxy = cluster.proxy.as_ref().is_some_and(|v| *v != tag);
    let planes_due = stored || proxy || planes.iter().any(|(_, h)| old_plane(want, h));
    let kubelets_due = done(want, seen, states).any(|(n, h)| {
        let node = cluster.nodes.get(&n.name);
        old_kubelet(want, h, node) || node.is_some_and(|n| n.our_cordon) || exchange::due(want, h).is_some()
    });
    if !planes_due && !kubelets_due {
        return Stand::Current;
    }
    let other = |n: &&NodeSeen| !n.version.is_empty() && n.version != tag;
    if let Some((node, why)) = done(want, seen, states).find_map(|(n, h)| Some((n, exchange::due(want, h)?)))
        && let Some(runs) = cluster.nodes.get(&node.name).filter(other)
    {
        let why = format!("{why}; that is changed at the version that runs, {}", runs.version);
        return Stand::Held(node.name.clone(), why, Some(exchange::hint(&runs.version)));
    }
    if let Some(held) = skew(want, cluster, &planes) {
        return held;
    }
    if planes_due { unfit(want, seen, cluster, states).unwrap_or(Stand::Due) } else { Stand::Due }
}

fn held(what: impl Into<String>, why: impl Into<String>, hint: impl Into<String>) -> Option<Stand> {
    Some(Stand::Held(what.into(), why.into(), Some(hint.into())))
}

/// What the skew policy of Kubernetes forbids.
fn skew(want: &Want, cluster: &ClusterSeen, planes: &[(&Node, &HostSeen)]) -> Option<Stand> {
    let target = want.version;
    let mut running: Vec<(String, KubeVersion)> = Vec::new();
    let mut add = |what: &str, text: &str| running.extend(version(text).map(|v| (what.to_owned(), v)));
    for (node, host) in planes {
        for component in COMPONENTS {
            add(&node.name, host.static_pods.get(component).map_or("", String::as_str));
        }
    }
    if planes.is_empty() {
        add("the cluster", &cluster.version);
    }
    let lowest = running.iter().map(|(_, v)| *v).min();
    for (name, node) in &cluster.nodes {
        if let Some(kubelet) = version(&node.version) {
            running.push((name.clone(), kubelet));
            if kubelet.minor() + KUBELET_SKEW < target.minor() {
                let why = format!(
                    "its kubelet {kubelet} is more than {KUBELET_SKEW} minors older than the document's {target}"
                );
                return held(name, why, "set spec.kubernetes.version to a version in between first");
            }
        }
    }
    if let Some((name, newest)) = running.iter().rev().max_by_key(|(_, v)| *v).filter(|(_, v)| *v > target) {
        let why =
            format!("{name} runs {newest}, the document wants the older {target}; there is no way back");
        return held("the cluster", why, format!("set spec.kubernetes.version to \"{newest}\""));
    }
    let lowest = lowest?;
    if lowest.minor() + 1 < target.minor() {
        let next = lowest.minor() + 1;
        let why =
            format!("it runs {lowest}, the document wants {target}; Kubernetes goes one minor at a time");
        return held("the cluster", why, format!("set spec.kubernetes.version to the newest 1.{next} first"));
    }
    let calico = cluster.calico.as_ref()?;
    let minors = cluster_doc::calico::minors(calico)?;
    if minors.contains(&target.minor()) {
        return None;
    }
    let (from, to) = (minors.start(), minors.end());
    let why = format!("Calico {calico} is for Kubernetes 1.{from} to 1.{to}, the document wants {target}");
    held("the cluster", why, "bring Calico up first: cni-install of a release that knows the new Kubernetes")
}

/// The version in a tag; `None` for what somebody tagged in another way.
fn version(text: &str) -> Option<KubeVersion> {
    KubeVersion::parse(text).ok()
}

/// What keeps the control planes from being upgraded now.
fn unfit(want: &Want, seen: &Seen, cluster: &ClusterSeen, states: &States<'_>) -> Option<Stand> {
    let why = |what: &str| format!("{what}; the upgrade to {} waits", want.version);
    for node in want.control_planes() {
        match states.get(node.name.as_str()) {
            Some(State::Done) => {}
            Some(_) => {
                let hint = format!("set spec.kubernetes.version to {} until it has joined", cluster.version);
                return held(&node.name, why("it is not in the cluster yet"), hint);
            }
            None => return held(&node.name, why("it cannot be reached"), "bring it back"),
        }
        if let Some(ill) = cluster.nodes.get(&node.name).filter(|n| !n.ready) {
            let hint = format!("kubectl describe node {}", node.name);
            return held(&node.name, why(&format!("its node is not ready ({})", ill.reason)), hint);
        }
    }
    if let Some(fault) = &cluster.etcd_fault {
        return held("etcd", why(&format!("it cannot be asked {fault}")), "kadm-bootstrap check");
    }
    let stays = |name: &str| want.node(name).is_some();
    if let Some(ill) = cluster.etcd.iter().find(|m| stays(&m.name) && (m.learner || !m.healthy)) {
        return held(
            "etcd",
            why(&format!("its member {} is not healthy", ill.name)),
            "etcdctl endpoint health --cluster",
        );
    }
    for (node, host) in done(want, seen, states) {
        if let Some(fault) = faults::of_version(want, &node.name, host).into_iter().next() {
            return Some(Stand::Held(node.name.clone(), why(&fault.why), fault.hint));
        }
    }
    None
}

impl<'a> Build<'a> {
    /// The whole upgrade: etcd saved, control planes one by one, their kubelets, then workers side by side.
    ///
    /// False when something that it needs is held: nothing may join before it is done.
    pub(crate) fn upgrade(&mut self, via: &str, states: &States<'_>) -> bool {
        let (want, seen) = (self.want, self.seen);
        let Some(cluster) = &seen.cluster else { return true };
        let mut planes: Vec<(&Node, &HostSeen)> =
            done(want, seen, states).filter(|(n, _)| n.control_plane).collect();
        planes.sort_by_key(|(n, _)| n.name != via);
        if !self.planes(&planes, cluster, via) {
            return false;
        }
        for (node, host) in planes {
            let chain = self.chain.clone();
            if let Some(id) = self.kubelet(node, host, via, &chain) {
                self.chain = vec![id];
            }
        }
        let mut workers: Vec<(&Node, &HostSeen)> =
            done(want, seen, states).filter(|(n, _)| !n.control_plane).collect();
        // One that is out of service already makes nothing worse by going first.
        workers.sort_by_key(|(n, _)| cluster.nodes.get(&n.name).is_some_and(|n| n.ready));
        let mut lanes = vec![self.chain.clone(); want.max_unavailable];
        let mut next = 0;
        for (node, host) in workers {
            let lane = next % lanes.len();
            let after = lanes[lane].clone();
            if let Some(id) = self.kubelet(node, host, via, &after) {
                lanes[lane] = vec![id];
                next += 1;
            }
        }
        true
    }

    fn planes(&mut self, planes: &[(&'a Node, &'a HostSeen)], cluster: &ClusterSeen, via: &str) -> bool {
        let (want, tag) = (self.want, self.want.version.tag());
        let stored = cluster.stored.as_ref().is_some_and(|v| *v != tag);
        let due: Vec<&(&Node, &HostSeen)> =
            planes.iter().filter(|(n, h)| old_plane(want, h) || (stored && n.name == via)).collect();
        let path = snapshot(want.version);
        let saved = planes.iter().any(|(_, h)| h.snapshots.contains(&path));
        if !due.is_empty() && due.len() == planes.len() && !saved {
            let step = Step::Snapshot { host: via.to_owned(), path };
            let chain = self.chain.clone();
            self.chain = vec![self.plan.step_after(&chain, step, "before anything of an upgrade")];
        }
        for (node, host) in &due {
            let Ok(kubeadm) = self.kubeadm(node, host) else { return false };
            let mut after = self.chain.clone();
            after.extend(kubeadm);
            let first = stored && node.name == via;
            let step =
                Step::ControlPlane { host: node.name.clone(), version: want.version.to_string(), first };
            let runs = host.static_pods.get(COMPONENTS[0]).map_or("another version", String::as_str);
            let why = match runs == tag {
                true => "its upgrade was not seen through".to_owned(),
                false => format!("it runs {runs}"),
            };
            self.chain = vec![self.plan.step_after(&after, step, why)];
        }
        // The last control plane brings the add-ons along, unless it was upgraded while another was behind.
        let proxy = cluster.proxy.as_ref().filter(|v| **v != tag);
        if let (Some(proxy), true, Some((node, host))) = (proxy, due.is_empty(), planes.first()) {
            let Ok(kubeadm) = self.kubeadm(node, host) else { return false };
            let mut after = self.chain.clone();
            after.extend(kubeadm);
            let version = want.version.to_string();
            let step = Step::ControlPlane { host: node.name.clone(), version, first: false };
            self.chain = vec![self.plan.step_after(&after, step, format!("kube-proxy is still {proxy}"))];
        }
        true
    }

    /// The document's kubeadm on a machine.
    fn kubeadm(&mut self, node: &Node, host: &HostSeen) -> Result<Option<StepId>, ()> {
        if right(host, "kubeadm", &self.want.version.to_string()) {
            return Ok(None);
        }
        if let Some(id) = self.kubeadm.get(&node.name) {
            return Ok(Some(*id));
        }
        let why = "the upgrade is kubeadm's work";
        if pins::kubernetes(self.want) {
            let pins = pins::obtain(&mut self.plan, self.want, &node.name, host, &["kubeadm"])?;
            let step = Step::Pin { host: node.name.clone(), pins, units: BTreeMap::new() };
            let id = self.plan.step(step, why);
            self.kubeadm.insert(node.name.clone(), id);
            return Ok(Some(id));
        }
        let (install, repository) =
            prepare::obtain(&mut self.plan, self.want, &node.name, host, &["kubeadm"])?;
        let hold = vec!["kubeadm".to_owned()];
        let step = Step::Packages { host: node.name.clone(), install, hold, repository };
        let id = self.plan.step(step, why);
        self.kubeadm.insert(node.name.clone(), id);
        Ok(Some(id))
    }

    /// One node's kubelet: emptied, upgraded, opened again. Gives the last step, when there is any.
    fn kubelet(&mut self, node: &Node, host: &HostSeen, via: &str, after: &[StepId]) -> Option<StepId> {
        let want = self.want;
        let seen = self.seen.cluster.as_ref().and_then(|c| c.nodes.get(&node.name))?;
        if let Some(why) = exchange::due(want, host) {
            return self.exchange(node, host, seen, via, after, why);
        }
        let open = Step::Uncordon { via: via.to_owned(), node: node.name.clone() };
        if !old_kubelet(want, host, Some(seen)) {
            return seen.our_cordon.then(|| self.plan.step_after(after, open, "its upgrade is done"));
        }
        if let Some(fault) = faults::of_version(want, &node.name, host).into_iter().next() {
            self.plan.hold(HeldKind::Unmet, &node.name, fault.why, fault.hint);
            return None;
        }
        let kubeadm = self.kubeadm(node, host).ok()?;
        let version = want.version.to_string();
        let wrong: Vec<&str> =
            ["kubelet", "kubectl"].into_iter().filter(|p| !right(host, p, &version)).collect();
        let (mut install, mut hold, mut pins) = (Vec::new(), Vec::new(), Vec::new());
        if pins::kubernetes(want) {
            pins = pins::obtain(&mut self.plan, want, &node.name, host, &wrong).ok()?;
        } else {
            install = prepare::obtain(&mut self.plan, want, &node.name, host, &wrong).ok()?.0;
            hold.extend(wrong.iter().map(|p| (*p).to_owned()));
        }
        let drain = Step::Drain {
            via: via.to_owned(),
            node: node.name.clone(),
            seconds: want.drain_timeout.as_secs(),
            leaves: false,
            runs: seen.ready,
        };
        let drained = self.plan.step_after(after, drain, "its kubelet is upgraded");
        let step = Step::Kubelet {
            host: node.name.clone(),
            via: via.to_owned(),
            version,
            install,
            hold,
            pins,
            configure: !node.control_plane,
            ready: seen.ready,
        };
        let after: Vec<StepId> = kubeadm.into_iter().chain([drained]).collect();
        let id = self.plan.step_after(&after, step, format!("it runs {}", seen.version));
        // Who cordoned it by hand wants it so.
        let ours = !seen.cordoned || seen.our_cordon;
        Some(if ours { self.plan.step_after(&[id], open, "its upgrade is done") } else { id })
    }
}
