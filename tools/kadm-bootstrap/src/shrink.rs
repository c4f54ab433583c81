//! Machines that left the document leave the cluster: drained, out of etcd while the quorum bears it, reset, deleted.

use std::collections::BTreeSet;

use stage::{HeldKind, StepId};

use crate::build::Build;
use crate::node::CONTROL_PLANE_LABEL;
use crate::seen::{ClusterSeen, HostSeen, MemberSeen, NodeSeen, Seen};
use crate::state::{self, short};
use crate::step::Step;
use crate::want::Want;

/// A machine that is to leave, and what there is of it.
pub(crate) struct Gone<'a> {
    pub(crate) name: &'a str,
    control_plane: bool,
    host: Option<&'a HostSeen>,
    node: Option<&'a NodeSeen>,
    member: Option<&'a MemberSeen>,
}

/// Those that leave: machines that the document no longer has, and nodes that this tool made of such ones.
pub(crate) fn gone<'a>(want: &'a Want, seen: &'a Seen) -> Vec<Gone<'a>> {
    let Some(cluster) = &seen.cluster else { return Vec::new() };
    let mut all: Vec<Gone<'a>> = want
        .leaving
        .iter()
        .map(|n| Gone {
            name: &n.name,
            control_plane: n.control_plane,
            host: seen.hosts.get(&n.name),
            node: cluster.nodes.get(&n.name),
            member: state::member(n, cluster),
        })
        .collect();
    let known: BTreeSet<&str> = all.iter().map(|g| g.name).collect();
    // A node that somebody else added is somebody else's.
    let strays = cluster
        .nodes
        .iter()
        .filter(|(name, node)| node.recorded && want.node(name).is_none() && !known.contains(name.as_str()));
    for (name, node) in strays {
        all.push(Gone {
            name,
            control_plane: node.labels.contains_key(CONTROL_PLANE_LABEL),
            host: None,
            node: Some(node),
            member: cluster.etcd.iter().find(|m| m.name == *name),
        });
    }
    all
}

/// The names of those that are still in the cluster.
pub(crate) fn still_in<'a>(want: &'a Want, seen: &'a Seen, control_plane: bool) -> Vec<&'a str> {
    let still = gone(want, seen).into_iter().filter(|g| g.node.is_some() || g.member.is_some());
    still.filter(|g| g.control_plane == control_plane).map(|g| g.name).collect()
}

impl Gone<'_> {
    /// True when it is of no use to the cluster any more: it goes before anything joins.
    fn ill(&self) -> bool {
        self.member.is_some_and(|m| !m.healthy || m.learner) || self.node.is_some_and(|n| !n.ready)
    }
}

impl<'a> Build<'a> {
    /// The machines that leave now: before others join those that are ill (a new member of etcd waits for healthy
    /// ones), and all when nothing joins; the rest once the others have joined.
    pub(crate) fn shrink(&mut self, now: impl Fn(bool) -> bool) {
        let (want, seen) = (self.want, self.seen);
        let Some(cluster) = &seen.cluster else { return };
        for gone in gone(want, seen) {
            if now(gone.ill()) {
                self.leave(&gone, cluster);
            }
        }
    }

    /// A control plane that stays, to help with those that leave: it is done, or joins in this very plan.
    fn helper(&self) -> Option<&'a str> {
        let stays = |n: &&crate::node::Node| {
            self.done.contains(n.name.as_str()) || self.joins.contains(n.name.as_str())
        };
        // One that is there already before one that has yet to come.
        let mut all: Vec<_> = self.want.control_planes().filter(stays).collect();
        all.sort_by_key(|n| !self.done.contains(n.name.as_str()));
        all.first().map(|n| n.name.as_str())
    }

    fn leave(&mut self, gone: &Gone<'a>, cluster: &ClusterSeen) {
        let name = gone.name;
        let due = gone.host.is_some_and(HostSeen::to_reset);
        if gone.node.is_none() && gone.member.is_none() && !due {
            return;
        }
        let other = gone.host.and_then(HostSeen::ca).filter(|ca| *ca != cluster.ca);
        if let Some(ca) = other.filter(|_| !self.want.reset.contains(name)) {
            let why =
                format!("it left the document, and belongs to another cluster, whose CA is {}", short(ca));
            self.plan.hold(HeldKind::Flag, name, why, Some(format!("kadm-bootstrap --reset-host {name}")));
            return;
        }
        let why = "it left the document";
        let Some(via) = self.helper() else {
            let why = format!("{why}, and no other control plane is there");
            self.plan.hold(HeldKind::Unmet, name, why, Some("kadm-bootstrap check".to_owned()));
            return;
        };
        if gone.member.is_some_and(|m| !state::may_go(&self.members, m.id)) {
            let why = format!("{why}, but its etcd member cannot be removed: the others would be no quorum");
            let hint = "etcdctl endpoint health --cluster".to_owned();
            self.plan.hold(HeldKind::Unmet, name, why, Some(hint));
            return;
        }
        let mut after: Vec<StepId> = if gone.control_plane { self.chain.clone() } else { Vec::new() };
        if let Some(node) = gone.node {
            let step = Step::Drain {
                via: via.to_owned(),
                node: name.to_owned(),
                seconds: self.want.drain_timeout.as_secs(),
                leaves: true,
                runs: node.ready,
            };
            after = vec![self.plan.step_after(&after, step, why)];
        }
        if let Some(member) = gone.member {
            let step = Step::RemoveMember { via: via.to_owned(), id: member.id, name: member.name.clone() };
            let mut ids = after.clone();
            ids.extend(&self.chain);
            let id = self.plan.step_after(&ids, step, why);
            self.members.retain(|m| m.id != member.id);
            self.chain = vec![id];
            after = vec![id];
        }
        // Its kubelet ends before its node goes: one that is started again would register anew.
        if due {
            after = vec![self.plan.step_after(&after, Step::Reset { host: name.to_owned() }, why)];
            if gone.control_plane {
                self.chain.clone_from(&after);
            }
        }
        if gone.node.is_some() {
            let step = Step::DeleteNode { via: via.to_owned(), node: name.to_owned() };
            self.plan.step_after(&after, step, why);
        }
    }
}
