//! What is to be done, and why; pure.

use std::collections::{BTreeMap, BTreeSet};

use stage::{HeldKind, Plan};

use crate::build::Build;
use crate::course::{Course, course};
use crate::faults::faults;
use crate::look;
use crate::merge;
use crate::node::Node;
use crate::prepare;
use crate::seen::{HostSeen, Seen};
use crate::shrink;
use crate::state::{self, State};
use crate::step::Step;
use crate::upgrade;
use crate::want::Want;

/// The plan of `apply`.
pub fn plan(want: &Want, seen: &Seen) -> Plan<Step> {
    let mut plan = Plan::new();
    for (name, why) in &seen.unreachable {
        plan.hold(HeldKind::Unreachable, name, why, None);
    }
    let cluster = seen.cluster.as_ref();
    let states: BTreeMap<&str, State> = want
        .nodes
        .iter()
        .filter_map(|n| Some((n.name.as_str(), state::of(n, seen.hosts.get(&n.name)?, cluster))))
        .collect();
    let found = faults(want, seen, |name| states.get(name).is_some_and(|s| *s != State::Done));
    if !found.is_empty() {
        for fault in found {
            plan.hold(HeldKind::Unmet, fault.what, fault.why, fault.hint);
        }
        return plan;
    }
    let stand = upgrade::stand(want, seen, &states);
    let course = course(&mut plan, want, seen, &states, &stand);
    let again = match &course {
        Course::Init(first) => Some(first.name.as_str()),
        _ => None,
    };
    let mut build = Build::new(plan, want, seen, &states);
    build.again = again;
    for node in &want.nodes {
        build.machine(node, &states);
    }
    build.cluster(&course, &stand, &states);
    build.plan
}

/// The plan of `destroy`: workers first, then control planes one by one.
pub fn teardown(want: &Want, seen: &Seen) -> Plan<Step> {
    let mut plan = Plan::new();
    for (name, why) in &seen.unreachable {
        plan.hold(HeldKind::Unreachable, name, why, None);
    }
    if let Some(file) = &seen.kubeconfig {
        let known: BTreeSet<&str> = seen.hosts.values().filter_map(|h| h.ca()).collect();
        let server = format!("https://{}", want.endpoint);
        let ours = file.single
            && file.server.as_deref() == Some(&server)
            && file.ca.as_deref().is_none_or(|ca| known.is_empty() || known.contains(ca));
        if ours {
            plan.step(Step::RemoveKubeconfig { path: want.kubeconfig_shown.clone() }, "the cluster goes");
        } else {
            let why = format!("{} is of another cluster, and stays", want.kubeconfig_shown);
            plan.hold(HeldKind::Flag, "the kubeconfig", why, None);
        }
    }
    let known: BTreeSet<&str> = seen.hosts.values().filter_map(|h| h.ca()).collect();
    if let Some(step) = merge::gone(want, seen, |ca| known.is_empty() || known.contains(ca)) {
        plan.step(step, "the cluster goes");
    }
    for (name, host) in &seen.hosts {
        let remove = prepare::own_timer(host);
        if !remove.is_empty() {
            plan.step(Step::Timer { host: name.clone(), files: BTreeMap::new(), remove }, "the cluster goes");
        }
    }
    let due = |node: &&Node| seen.hosts.get(&node.name).is_some_and(HostSeen::to_reset);
    // A machine that left the document goes along as long as it knows no other cluster.
    let cas: BTreeSet<&str> =
        want.nodes.iter().filter_map(|n| seen.hosts.get(&n.name)).filter_map(HostSeen::ca).collect();
    let ours =
        |node: &&Node| seen.hosts.get(&node.name).and_then(HostSeen::ca).is_none_or(|ca| cas.contains(ca));
    let leaving = || want.leaving.iter().filter(ours);
    let mut workers = Vec::new();
    let all = || want.nodes.iter().chain(leaving());
    for node in all().filter(|n| !n.control_plane).filter(due) {
        workers.push(plan.step(Step::Reset { host: node.name.clone() }, "the cluster goes"));
    }
    let mut chain = workers;
    // The first one made the others; it goes last, so that each can still leave etcd in order.
    let control_planes: Vec<&Node> = all().filter(|n| n.control_plane).filter(due).collect();
    for node in control_planes.into_iter().rev() {
        chain = vec![plan.step_after(&chain, Step::Reset { host: node.name.clone() }, "the cluster goes")];
    }
    plan
}

/// The names of the machines that are in the cluster; those that have yet to leave it are last.
pub fn members(want: &Want, seen: &Seen, control_plane: bool) -> Vec<String> {
    let Some(cluster) = &seen.cluster else { return Vec::new() };
    let ours = want
        .nodes
        .iter()
        .filter(|n| n.control_plane == control_plane && cluster.nodes.contains_key(&n.name))
        .map(|n| n.name.as_str());
    ours.chain(shrink::still_in(want, seen, control_plane)).map(str::to_owned).collect()
}

/// True when the metrics of etcd, controller manager and scheduler of every control plane can be had from other
/// machines.
pub fn serves_metrics(want: &Want, seen: &Seen) -> bool {
    let Some(cluster) = &seen.cluster else { return false };
    let planes: Vec<&Node> = want.control_planes().filter(|n| cluster.nodes.contains_key(&n.name)).collect();
    let serves = |n: &Node| {
        let host = seen.hosts.get(&n.name);
        host.is_some_and(|h| look::METRICS.iter().all(|c| h.metrics.contains(*c)))
    };
    !planes.is_empty() && planes.into_iter().all(serves)
}

/// True when every kubelet of the cluster that could be looked at serves with a certificate of the cluster.
pub fn serving_certificates(want: &Want, seen: &Seen) -> bool {
    let Some(cluster) = &seen.cluster else { return false };
    let nodes = want.nodes.iter().filter(|n| cluster.nodes.contains_key(&n.name));
    let mut hosts = nodes.filter_map(|n| seen.hosts.get(&n.name)).peekable();
    hosts.peek().is_some() && hosts.all(|h| h.serving && h.serves.is_some())
}
