//! Puts the steps in order: preparing, the cluster, its nodes.

use std::collections::{BTreeMap, BTreeSet};

use stage::{HeldKind, Plan, StepId};

use crate::course::Course;
use crate::look::INTENT;
use crate::node::Node;
use crate::prepare::prepare;
use crate::seen::{MemberSeen, NodeSeen, RequestState, Seen};
use crate::state::{self, Stand, State, States};
use crate::step::Step;
use crate::want::Want;

/// A plan that comes to be.
pub(crate) struct Build<'a> {
    pub(crate) plan: Plan<Step>,
    pub(crate) want: &'a Want,
    pub(crate) seen: &'a Seen,
    /// The machine of the init, which is set up anew whatever it is now.
    pub(crate) again: Option<&'a str>,
    /// What must be done before a machine may join; those without an entry cannot.
    ready: BTreeMap<&'a str, Vec<StepId>>,
    /// The last change of etcd's membership or of a control plane: there is never more than one at a time.
    pub(crate) chain: Vec<StepId>,
    /// etcd's members as they are once the steps so far are done.
    pub(crate) members: Vec<MemberSeen>,
    /// The machines that are part of the cluster.
    pub(crate) done: BTreeSet<&'a str>,
    /// Those that join in this plan.
    pub(crate) joins: BTreeSet<&'a str>,
    /// The steps that join them.
    joined: Vec<StepId>,
    /// Machines that get the document's kubeadm for an upgrade.
    pub(crate) kubeadm: BTreeMap<String, StepId>,
}

/// A kubeconfig whose certificate ends sooner than this, in seconds, is written anew.
pub(crate) const RENEW: i64 = 30 * 86_400;

impl<'a> Build<'a> {
    /// An empty plan over what was seen.
    pub(crate) fn new(plan: Plan<Step>, want: &'a Want, seen: &'a Seen, states: &States<'_>) -> Build<'a> {
        let done = |n: &&Node| states.get(n.name.as_str()) == Some(&State::Done);
        Build {
            plan,
            want,
            seen,
            again: None,
            ready: BTreeMap::new(),
            chain: Vec::new(),
            members: seen.cluster.iter().flat_map(|c| c.etcd.clone()).collect(),
            done: want.nodes.iter().filter(done).map(|n| n.name.as_str()).collect(),
            joins: BTreeSet::new(),
            joined: Vec::new(),
            kubeadm: BTreeMap::new(),
        }
    }

    /// Prepares a machine, whatever comes of the cluster.
    pub(crate) fn machine(&mut self, node: &'a Node, states: &States<'_>) {
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

    /// What must be done before a machine may join; empty for one that cannot.
    pub(crate) fn ready_of(&self, name: &str) -> Vec<StepId> {
        self.ready.get(name).cloned().unwrap_or_default()
    }

    /// The cluster and its nodes.
    pub(crate) fn cluster(&mut self, course: &Course<'a>, stand: &Stand, states: &States<'_>) {
        let via = match course {
            Course::Stay => return,
            Course::Join(via) => via.clone(),
            Course::Init(first) => {
                let Some(()) = self.init(first, states) else { return };
                first.name.clone()
            }
        };
        self.kubeconfig(&via);
        self.merge(&via);
        self.approve(&via);
        let tokens = self.seen.cluster.iter().flat_map(|c| &c.tokens);
        for id in tokens {
            let step = Step::DropToken { via: via.clone(), id: id.clone() };
            self.plan.step(step, "an interrupted run left it");
        }
        let joins = |n: &&'a Node| n.name != via || !matches!(course, Course::Init(_));
        let planes_join = self.want.control_planes().filter(joins).any(|n| {
            states.get(n.name.as_str()).is_some_and(|s| *s != State::Done)
                && self.ready.contains_key(n.name.as_str())
        });
        self.members_stay(&via, states);
        match course {
            Course::Init(_) => self.kubelet_note(&via),
            _ => {
                self.kubelets(&via, states);
                self.proxy(&via);
            }
        }
        self.shrink(|ill| ill || !planes_join);
        if matches!(stand, Stand::Due) && !self.upgrade(&via, states) {
            return;
        }
        for node in self.want.nodes.iter().filter(joins) {
            self.node(node, &via, states);
        }
        self.shrink(|ill| !ill && planes_join);
        self.approver(&via);
    }

    /// The approver of kubelets' certificates. It comes last: those that join have theirs approved by the step that
    /// joins them, and an image that cannot be had keeps no machine out.
    fn approver(&mut self, via: &str) {
        let step = Step::Approver { via: via.to_owned(), sha256: self.want.approver_sha256.clone() };
        let after: Vec<StepId> = self.chain.iter().chain(&self.joined).copied().collect();
        let Some(cluster) = self.seen.cluster.as_ref().filter(|c| c.missing.is_empty()) else {
            self.plan.step_after(&after, step, "kubelets ask for a certificate each time that one ends");
            return;
        };
        let seen = &cluster.approver;
        if let Some(fault) = &seen.fault {
            let hint =
                "kubectl -n kube-system get deployment kubelet-csr-approver -o yaml --show-managed-fields";
            self.plan.hold(HeldKind::Unmet, "the approver of certificates", fault, Some(hint.to_owned()));
        } else if !seen.due.is_empty() {
            let due: Vec<&str> = seen.due.iter().map(String::as_str).collect();
            self.plan.step_after(&after, step, format!("missing or different: {}", due.join(", ")));
        }
    }

    /// Approves the requests of kubelets that nobody has answered.
    fn approve(&mut self, via: &str) {
        let cluster = self.seen.cluster.as_ref().filter(|c| c.missing.is_empty());
        for (name, request) in cluster.into_iter().flat_map(|c| &c.requests) {
            if request.state == RequestState::Good && self.done.contains(request.node.as_str()) {
                let step = Step::Approve {
                    via: via.to_owned(),
                    node: request.node.clone(),
                    request: name.clone(),
                    sha256: request.sha256.clone(),
                };
                self.plan.step(step, "its kubelet asks for its own name and address, and nobody answered");
            }
        }
    }

    fn init(&mut self, first: &'a Node, states: &States<'_>) -> Option<()> {
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
        after.extend(self.images(first));
        let step = Step::Init {
            host: first.name.clone(),
            address: first.address.to_string(),
            endpoint: self.want.endpoint.clone(),
            version: self.want.version.to_string(),
        };
        let id = self.plan.step_after(&after, step, "no control plane knows a cluster");
        self.chain = vec![id];
        // What is asked of the API waits until the only etcd has come back.
        self.begun(first);
        let chain = self.chain.clone();
        self.labels(first, &first.name, &chain, None);
        Some(())
    }

    /// Has a control plane pull its images while others are still set up: kubeadm would in its own turn.
    fn images(&mut self, node: &Node) -> Option<StepId> {
        let ignored = |check: &String| check == "all" || check.eq_ignore_ascii_case("ImagePull");
        // A worker gets its two from its kubelet, and nobody waits for them.
        if !node.control_plane || self.want.ignore.iter().any(ignored) {
            return None;
        }
        let step = Step::Images {
            host: node.name.clone(),
            version: self.want.version.tag(),
            registry: self.want.registry.clone(),
        };
        let ready = self.ready_of(&node.name);
        Some(self.plan.step_after(&ready, step, "the machines pull side by side, and join one by one"))
    }

    /// Joins a machine, or keeps it as the document says.
    fn node(&mut self, node: &'a Node, via: &str, states: &States<'_>) {
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
        if node.control_plane
            && let Some(lost) = self.lost_member()
        {
            let why = format!(
                "etcd takes no new member while {lost} is away, and the machine of that cannot be reached"
            );
            let hint = format!("bring {lost} back, or take it out of the document");
            self.plan.hold(HeldKind::Unmet, &node.name, why, Some(hint));
            return;
        }
        after.extend(ready);
        after.extend(self.images(node));
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
            let peers = vec![format!("https://{}:2380", node.address)];
            self.members.push(MemberSeen {
                id: 0,
                name: node.name.clone(),
                healthy: true,
                peers,
                learner: false,
            });
        }
        self.joins.insert(&node.name);
        self.joined.push(id);
        self.labels(node, via, &[id], None);
    }

    /// A member of etcd that does not answer, on a machine that does not either: waiting would not bring it back. etcd
    /// refuses another one then (`isConnectedFullySince` in its server.go, on by `strict-reconfig-check`).
    fn lost_member(&self) -> Option<String> {
        let lost = |m: &&MemberSeen| !m.learner && !m.healthy && !self.seen.hosts.contains_key(&m.name);
        self.members.iter().find(lost).map(|m| m.name.clone())
    }

    /// Takes a machine that is to join anew out of etcd and the API; `None` when etcd could not bear it.
    fn forget(&mut self, node: &Node, via: &str, registered: Option<&NodeSeen>) -> Option<Vec<StepId>> {
        let mut after = Vec::new();
        let cluster = self.seen.cluster.as_ref();
        if let Some(member) = cluster.and_then(|c| state::member(node, c)) {
            if !state::may_go(&self.members, member.id) || via == node.name {
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
            self.members.retain(|m| m.id != member.id);
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
                let soon = |host: &crate::seen::HostSeen| file.expires.is_some_and(|e| e - host.time < RENEW);
                match () {
                    () if self.seen.hosts.get(via).is_some_and(soon) => "its certificate ends soon",
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
