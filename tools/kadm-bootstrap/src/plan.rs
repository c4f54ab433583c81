//! What is to be done, and why; pure.

use std::collections::{BTreeMap, BTreeSet};

use stage::{HeldKind, Plan, StepId};

use crate::faults::faults;
use crate::look::INTENT;
use crate::prepare::prepare;
use crate::seen::{ClusterSeen, NodeSeen, Seen};
use crate::state::{self, State};
use crate::step::Step;
use crate::want::{Node, Want};

/// How the cluster comes to be.
enum Course<'c> {
    /// Made on this machine.
    Init(&'c Node),
    /// It is there; this control plane helps.
    Join(String),
    /// Held.
    Stay,
}

/// The plan of `apply`.
pub fn plan(want: &Want, seen: &Seen) -> Plan<Step> {
    let mut plan = Plan::new();
    for (name, why) in &seen.unreachable {
        plan.hold(HeldKind::Unreachable, name, why, None);
    }
    for name in &want.leaving {
        plan.hold(
            HeldKind::Flag,
            name,
            "it left the document; draining and removing it is not yet done here",
            Some(format!("kubectl drain {name} --ignore-daemonsets --delete-emptydir-data && kubectl delete node {name}")),
        );
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
    let course = course(&mut plan, want, seen, &states);
    let again = match &course {
        Course::Init(first) => Some(first.name.as_str()),
        _ => None,
    };
    let mut build = Build { plan, want, seen, again, ready: BTreeMap::new(), chain: Vec::new() };
    for node in &want.nodes {
        build.machine(node, &states);
    }
    build.cluster(&course, &states);
    build.plan
}

/// Decides on init or join. Never a second cluster.
fn course<'w>(
    plan: &mut Plan<Step>,
    want: &'w Want,
    seen: &Seen,
    states: &BTreeMap<&str, State>,
) -> Course<'w> {
    let mut hold = |why: String, hint: Option<String>| {
        plan.hold(HeldKind::Unmet, "the cluster", why, hint);
        Course::Stay
    };
    if let Some(cluster) = &seen.cluster {
        if !cluster.missing.is_empty() {
            let alone = cluster.nodes.keys().all(|n| *n == cluster.lead);
            let asked =
                want.control_planes().find(|n| n.name == cluster.lead && want.reset.contains(&n.name));
            return match own_init(want, seen).or(asked.filter(|_| alone)) {
                Some(node) => Course::Init(node),
                None => {
                    let missing: Vec<&str> = cluster.missing.iter().map(String::as_str).collect();
                    hold(
                        format!(
                            "its init on {} was not finished: {} is missing",
                            cluster.lead,
                            missing.join(", ")
                        ),
                        Some(format!("kadm-bootstrap --reset-host {}", cluster.lead)),
                    )
                }
            };
        }
        if let Some(fault) = &cluster.vip_fault {
            return hold(
                format!("its API does not answer at {}: {fault}", want.endpoint),
                Some("lb-render check; vip-keepalive check".to_owned()),
            );
        }
        if cluster.version != want.version.tag() {
            return hold(
                format!("it runs {}, the document wants {}", cluster.version, want.version.tag()),
                Some("set spec.kubernetes.version to what runs".to_owned()),
            );
        }
        return Course::Join(cluster.lead.clone());
    }
    let traces: Vec<&str> = states
        .iter()
        .filter(|(name, s)| **s != State::Blank && !want.reset.contains(**name))
        .map(|(name, _)| *name)
        .collect();
    if !traces.is_empty() && own_init(want, seen).is_none() {
        let fault = seen.api_fault.as_ref();
        let data =
            |name: &&str| seen.hosts.get(*name).is_some_and(|h| h.state.contains("/var/lib/etcd/member"));
        if let Some(fault) = fault.filter(|_| traces.iter().any(data)) {
            // A cluster that is down is to be started, not to be wiped: no flag is offered here.
            let why = format!("{} know of one, which does not answer: {fault}", traces.join(", "));
            return hold(
                why,
                Some("on a control plane: crictl ps -a; journalctl -u kubelet -n 50".to_owned()),
            );
        }
        let why = match traces.as_slice() {
            [one] => format!("{one} holds what an earlier set-up left"),
            many => format!("{} hold what an earlier set-up left", many.join(", ")),
        };
        let flags: Vec<String> = traces.iter().map(|n| format!("--reset-host {n}")).collect();
        return hold(why, Some(format!("if that is of no worth: kadm-bootstrap {}", flags.join(" "))));
    }
    let away: Vec<&str> =
        want.control_planes().map(|n| n.name.as_str()).filter(|n| !seen.hosts.contains_key(*n)).collect();
    if !away.is_empty() && !want.new_cluster {
        return hold(
            format!("{} cannot be asked whether there is one already", away.join(", ")),
            Some("bring them back, or: kadm-bootstrap --new-cluster".to_owned()),
        );
    }
    if let Some(file) = &seen.kubeconfig
        && !(want.new_cluster && file.server.as_deref() == Some(&format!("https://{}", want.endpoint)))
    {
        return hold(
            format!("every machine is blank, but {} speaks of one", want.kubeconfig_shown),
            Some(format!(
                "restore it from a backup, or move {} away, or: kadm-bootstrap --new-cluster",
                want.kubeconfig_shown
            )),
        );
    }
    match want.control_planes().find(|n| seen.hosts.contains_key(&n.name)) {
        Some(first) => Course::Init(first),
        None => Course::Stay,
    }
}

/// The control plane on which this tool began an init that nothing else came of.
fn own_init<'w>(want: &'w Want, seen: &Seen) -> Option<&'w Node> {
    let mut touched = seen.hosts.iter().filter(|(name, h)| h.traces() && !want.reset.contains(*name));
    let (name, host) = touched.next()?;
    let cluster = seen.cluster.as_ref();
    let only = touched.next().is_none()
        && host.intent
        && seen.kubeconfig.is_none()
        && cluster.is_none_or(|c| {
            !c.missing.is_empty()
                && c.nodes.keys().all(|n| n == name)
                && c.etcd.iter().all(|m| m.name == *name)
        });
    want.control_planes().find(|n| n.name == *name).filter(|_| only)
}

struct Build<'a> {
    plan: Plan<Step>,
    want: &'a Want,
    seen: &'a Seen,
    /// The machine of the init, which is set up anew whatever it is now.
    again: Option<&'a str>,
    /// What must be done before a machine may join; those without an entry cannot.
    ready: BTreeMap<&'a str, Vec<StepId>>,
    /// The last change of etcd's membership: there is never more than one at a time.
    chain: Vec<StepId>,
}

impl<'a> Build<'a> {
    /// Prepares a machine, whatever comes of the cluster.
    fn machine(&mut self, node: &'a Node, states: &BTreeMap<&str, State>) {
        let (Some(host), Some(state)) = (self.seen.hosts.get(&node.name), states.get(node.name.as_str()))
        else {
            return;
        };
        // What --reset-host asks for is done once the machine is in the cluster: the flag is no order to go on.
        let asked = self.want.reset.contains(&node.name) && *state != State::Done;
        let anew = asked || self.again == Some(&node.name);
        if let State::Doubtful(why) = state
            && !anew
        {
            let hint = format!("kadm-bootstrap --reset-host {}", node.name);
            self.plan.hold(HeldKind::Unmet, &node.name, why, Some(hint));
            return;
        }
        let runs = *state == State::Done && !anew;
        if let Some(ids) = prepare(&mut self.plan, self.want, &node.name, host, runs) {
            self.ready.insert(&node.name, ids);
        }
    }

    fn cluster(&mut self, course: &Course<'a>, states: &BTreeMap<&str, State>) {
        let via = match course {
            Course::Stay => return,
            Course::Join(via) => via.clone(),
            Course::Init(first) => {
                let Some(id) = self.init(first, states) else { return };
                self.chain = vec![id];
                first.name.clone()
            }
        };
        self.kubeconfig(&via);
        let tokens = self.seen.cluster.iter().flat_map(|c| &c.tokens);
        for id in tokens {
            let step = Step::DropToken { via: via.clone(), id: id.clone() };
            self.plan.step(step, "an interrupted run left it");
        }
        let joins = |n: &&'a Node| n.name != via || !matches!(course, Course::Init(_));
        for node in self.want.nodes.iter().filter(joins) {
            self.node(node, &via, states);
        }
    }

    fn init(&mut self, first: &'a Node, states: &BTreeMap<&str, State>) -> Option<StepId> {
        let mut after = self.ready.get(first.name.as_str())?.clone();
        // Every machine that was told to be reset is, before there is a cluster that it could disturb.
        for (name, state) in states {
            let why = match state {
                State::Blank => continue,
                State::Half(why) | State::Doubtful(why) => why.as_str(),
                State::Done => "its init was not seen through",
            };
            if *name == first.name || self.want.reset.contains(*name) {
                let before = self.ready.get(name).cloned().unwrap_or_default();
                let reset = self.plan.step_after(&before, Step::Reset { host: (*name).to_owned() }, why);
                after.push(reset);
                self.ready.entry(self.seen.hosts.get_key_value(*name)?.0).or_default().push(reset);
            }
        }
        let step = Step::Init {
            host: first.name.clone(),
            address: first.address.to_string(),
            endpoint: self.want.endpoint.clone(),
            version: self.want.version.to_string(),
        };
        let id = self.plan.step_after(&after, step, "no control plane knows a cluster");
        self.labels(first, &first.name, &[id], None);
        Some(id)
    }

    /// Joins a machine, or keeps it as the document says.
    fn node(&mut self, node: &'a Node, via: &str, states: &BTreeMap<&str, State>) {
        let cluster = self.seen.cluster.as_ref();
        let registered = cluster.and_then(|c| c.nodes.get(&node.name));
        let Some(state) = states.get(node.name.as_str()) else {
            // It does not answer, but its labels and taints live elsewhere.
            if let Some(seen) = registered {
                self.labels(node, via, &[], Some(seen));
            }
            return;
        };
        let Some(ready) = self.ready.get(node.name.as_str()).cloned() else { return };
        let host = self.seen.hosts.get(&node.name);
        if *state == State::Done {
            if host.is_some_and(|h| !h.active("kubelet")) {
                let step = Step::Start { host: node.name.clone(), unit: "kubelet".to_owned() };
                self.plan.step_after(&ready, step, "it does not run");
            }
            if host.is_some_and(|h| h.intent) {
                let step =
                    Step::Sweep { host: node.name.clone(), files: BTreeSet::from([INTENT.to_owned()]) };
                self.plan.step(step, "the init is done");
            }
            self.labels(node, via, &[], registered);
            return;
        }
        let Some(mut after) = self.forget(node, via, registered) else { return };
        after.extend(ready);
        // Before an init they are reset along with it.
        if *state != State::Blank && self.seen.cluster.as_ref().is_some_and(|c| c.missing.is_empty()) {
            let why = match state {
                State::Half(why) | State::Doubtful(why) => why.as_str(),
                State::Blank | State::Done => "",
            };
            let reset = self.plan.step_after(&after, Step::Reset { host: node.name.clone() }, why);
            after = vec![reset];
        }
        // Control planes come one by one, and workers once etcd has come to rest.
        after.extend(&self.chain);
        let step = Step::Join {
            host: node.name.clone(),
            address: node.address.to_string(),
            control_plane: node.control_plane,
            via: via.to_owned(),
        };
        let id = self.plan.step_after(&after, step, "it is not in the cluster");
        if node.control_plane {
            self.chain = vec![id];
        }
        self.labels(node, via, &[id], None);
    }

    /// Takes a machine that is to join anew out of etcd and the API; `None` when etcd could not bear it.
    fn forget(&mut self, node: &Node, via: &str, registered: Option<&NodeSeen>) -> Option<Vec<StepId>> {
        let mut after = Vec::new();
        let cluster = self.seen.cluster.as_ref();
        if let Some((cluster, member)) = cluster.and_then(|c| Some((c, state::member(node, c)?))) {
            if !state::may_remove(cluster, member.id) || via == node.name {
                let why = "its etcd member cannot be removed: the others would be no quorum";
                self.plan.hold(
                    HeldKind::Unmet,
                    &node.name,
                    why,
                    Some("etcdctl endpoint health --cluster".to_owned()),
                );
                return None;
            }
            let step = Step::RemoveMember { via: via.to_owned(), id: member.id, name: node.name.clone() };
            let chain = self.chain.clone();
            let id = self.plan.step_after(&chain, step, "the machine joins anew");
            self.chain = vec![id];
            after.push(id);
        }
        if registered.is_some() {
            let step = Step::DeleteNode { via: via.to_owned(), node: node.name.clone() };
            after.push(self.plan.step_after(&after.clone(), step, "the machine joins anew"));
        }
        Some(after)
    }

    fn labels(&mut self, node: &Node, via: &str, after: &[StepId], seen: Option<&NodeSeen>) {
        let (due, drop_taints) = match seen {
            None => (Some("the document says so"), BTreeSet::new()),
            Some(seen) => differs(node, seen),
        };
        if let Some(why) = due {
            let step = Step::Node {
                via: via.to_owned(),
                node: node.name.clone(),
                labels: node.labels.clone(),
                taints: node.taints.clone(),
                drop_taints,
            };
            self.plan.step_after(after, step, why);
        }
    }

    fn kubeconfig(&mut self, via: &str) {
        let server = format!("https://{}", self.want.endpoint);
        let step = Step::Kubeconfig {
            via: via.to_owned(),
            path: self.want.kubeconfig_shown.clone(),
            server: server.clone(),
        };
        let chain = self.chain.clone();
        let cluster = self.seen.cluster.as_ref().filter(|c| c.missing.is_empty());
        let why = match (&self.seen.kubeconfig, cluster) {
            (None, _) => "there is none",
            (Some(_), None) => "it is of the cluster before",
            (Some(file), Some(cluster)) => {
                if file.ca.as_deref() != Some(cluster.ca.as_str()) {
                    let path = &self.want.kubeconfig_shown;
                    let why = format!("{path} is of another cluster");
                    self.plan.hold(
                        HeldKind::Unmet,
                        "the kubeconfig",
                        why,
                        Some(format!("mv {path} {path}.old")),
                    );
                    return;
                }
                match () {
                    () if file.server.as_deref() != Some(&server) && file.single => {
                        "its server is not the VIP"
                    }
                    () if !file.private => "others can read it",
                    () => return,
                }
            }
        };
        self.plan.step_after(&chain, step, why);
    }
}

/// Why a node's labels or taints are due, and the taints that go.
fn differs(node: &Node, seen: &NodeSeen) -> (Option<&'static str>, BTreeSet<String>) {
    let drop: BTreeSet<String> = seen.our_taints.difference(&node.taints).cloned().collect();
    let keys: BTreeSet<String> = node.labels.keys().cloned().collect();
    let why = match () {
        () if node.labels.iter().any(|(k, v)| seen.labels.get(k) != Some(v)) => Some("labels differ"),
        () if seen.our_labels.difference(&keys).next().is_some() => Some("the document dropped a label"),
        () if !node.taints.is_subset(&seen.taints) => Some("taints differ"),
        () if !drop.is_empty() => Some("the document dropped a taint"),
        () if seen.our_labels != keys || !seen.recorded || seen.our_taints != node.taints => {
            Some("what is ours is not yet noted on it")
        }
        () => None,
    };
    (why, drop)
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
    let due = |node: &&Node| {
        seen.hosts.get(&node.name).is_some_and(|h| {
            h.traces() || !h.remains.is_empty() || !h.leftovers.is_empty() || h.intent || h.active("kubelet")
        })
    };
    let mut workers = Vec::new();
    for node in want.nodes.iter().filter(|n| !n.control_plane).filter(due) {
        workers.push(plan.step(Step::Reset { host: node.name.clone() }, "the cluster goes"));
    }
    let mut chain = workers;
    // The first one made the others; it goes last, so that each can still leave etcd in order.
    let control_planes: Vec<&Node> = want.control_planes().filter(due).collect();
    for node in control_planes.into_iter().rev() {
        chain = vec![plan.step_after(&chain, Step::Reset { host: node.name.clone() }, "the cluster goes")];
    }
    plan
}

/// The names of the document's machines that are in the cluster.
pub fn members(want: &Want, cluster: Option<&ClusterSeen>, control_plane: bool) -> Vec<String> {
    let Some(cluster) = cluster else { return Vec::new() };
    want.nodes
        .iter()
        .filter(|n| n.control_plane == control_plane && cluster.nodes.contains_key(&n.name))
        .map(|n| n.name.clone())
        .collect()
}
