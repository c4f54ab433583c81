//! The scheduler: a node for each pod, or the reason why there is none. Resources are not counted.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Value, json};

use super::{at, condition, conditions, event, going, list, text};
use crate::kube::selectors::Selector;
use crate::kube::store::{Store, key_of};
use crate::kube::verbs::{Call, PatchKind};

const NAME: &str = "default-scheduler";

/// One pass.
pub(crate) fn run(store: &mut Store) {
    let pending: Vec<Arc<Value>> = store
        .list("pods", None)
        .filter(|p| p["spec"].get("nodeName").is_none() && !going(p) && p["status"]["phase"] == "Pending")
        .filter(|p| p["spec"]["schedulerName"] == NAME && list(p, "/spec/schedulingGates").is_empty())
        .cloned()
        .collect();
    for pod in pending {
        match place(store, &pod) {
            Ok(node) => bind(store, &pod, &node),
            Err(why) => refuse(store, &pod, &why),
        }
    }
}

fn bind(store: &mut Store, pod: &Value, node: &str) {
    let Some(res) = store.resource("", "v1", "pods") else { return };
    let (ns, name) = key_of(pod);
    let mut call = Call::component("kube-scheduler");
    if store
        .patch(&res, &ns, &name, PatchKind::Merge, &json!({"spec": {"nodeName": node}}), &mut call)
        .is_err()
    {
        return;
    }
    let Some(bound) = store.get("pods", &ns, &name).cloned() else { return };
    let mut status = bound["status"].clone();
    let mut all = conditions(&bound);
    all.retain(|c| c["type"] != "PodScheduled");
    all.push(json!({"type": "PodScheduled", "status": "True", "lastProbeTime": null, "lastTransitionTime": crate::kube::verbs::now()}));
    status["conditions"] = all.into();
    super::set_status(store, "kube-scheduler", &bound, status);
    event(store, pod, "Normal", "Scheduled", &format!("Successfully assigned {ns}/{name} to {node}"), NAME);
}

fn refuse(store: &mut Store, pod: &Value, why: &str) {
    let mut status = pod["status"].clone();
    let mut all = conditions(pod);
    condition(&mut all, "PodScheduled", "False", "Unschedulable", why);
    status["conditions"] = all.into();
    super::set_status(store, "kube-scheduler", pod, status);
    event(store, pod, "Warning", "FailedScheduling", why, NAME);
}

/// The node that a DaemonSet's pod is meant for.
pub(crate) fn pinned(pod: &Value) -> Option<&str> {
    let fields = "/spec/affinity/nodeAffinity/requiredDuringSchedulingIgnoredDuringExecution/nodeSelectorTerms/0/matchFields";
    let field = list(pod, fields).iter().find(|f| f["key"] == "metadata.name")?;
    field["values"].get(0)?.as_str()
}

/// The nodes that a pod's node selector and required node affinity let it onto.
pub(crate) struct Selects {
    labels: Selector,
    /// Of labels and of fields; one of them is enough.
    terms: Vec<(Selector, Selector)>,
}

impl Selects {
    pub(crate) fn of(pod: &Value) -> Selects {
        let terms = list(
            pod,
            "/spec/affinity/nodeAffinity/requiredDuringSchedulingIgnoredDuringExecution/nodeSelectorTerms",
        );
        let term = |term: &Value| {
            (
                Selector::of_expressions(&term["matchExpressions"]),
                Selector::of_expressions(&term["matchFields"]),
            )
        };
        Selects {
            labels: Selector::of_map(&pod["spec"]["nodeSelector"]),
            terms: terms.iter().map(term).collect(),
        }
    }

    pub(crate) fn node(&self, node: &Value) -> bool {
        let labels = &node["metadata"]["labels"];
        let term = |(of, fields): &(Selector, Selector)| of.matches(labels) && fields.matches_fields(node);
        self.labels.matches(labels) && (self.terms.is_empty() || self.terms.iter().any(term))
    }
}

/// The taint that keeps the pod away, if there is one.
pub(crate) fn tolerates<'n>(pod: &Value, node: &'n Value) -> Option<&'n Value> {
    list(node, "/spec/taints")
        .iter()
        .filter(|t| matches!(text(t, "/effect"), "NoSchedule" | "NoExecute"))
        .find(|taint| !list(pod, "/spec/tolerations").iter().any(|t| tolerated(t, taint)))
}

/// True when the toleration is for the taint.
pub(crate) fn tolerated(toleration: &Value, taint: &Value) -> bool {
    let effect = text(toleration, "/effect");
    let key = text(toleration, "/key");
    let any = text(toleration, "/operator") == "Exists";
    (effect.is_empty() || effect == text(taint, "/effect"))
        && ((key.is_empty() && any) || key == text(taint, "/key"))
        && (any || text(toleration, "/value") == text(taint, "/value"))
}

fn place(store: &Store, pod: &Value) -> Result<String, String> {
    claims(store, pod)?;
    let nodes: Vec<_> = store.list("nodes", None).collect();
    if nodes.is_empty() {
        return Err("no nodes available to schedule pods".into());
    }
    let selects = Selects::of(pod);
    // A DaemonSet's pod is for one node, and needs no other to be looked at where it fits.
    if let Some(node) = pinned(pod).and_then(|name| store.get("nodes", "", name))
        && unfit(store, pod, &selects, node).is_none()
    {
        return Ok(text(node, "/metadata/name").to_owned());
    }
    let mut reasons: BTreeMap<String, usize> = BTreeMap::new();
    let mut best: Option<(i64, usize, usize, String)> = None;
    for node in &nodes {
        if let Some(why) = unfit(store, pod, &selects, node) {
            *reasons.entry(why).or_default() += 1;
            continue;
        }
        let name = text(node, "/metadata/name");
        let (mut siblings, mut all) = (0, 0);
        for other in store.pods_on(name) {
            all += 1;
            if other["metadata"]["labels"] == pod["metadata"]["labels"] && !going(other) {
                siblings += 1;
            }
        }
        let score = (-preference(pod, node), siblings, all, name.to_owned());
        if best.as_ref().is_none_or(|b| score < *b) {
            best = Some(score);
        }
    }
    if let Some((_, _, _, name)) = best {
        return Ok(name);
    }
    let total = nodes.len();
    let parts: Vec<String> = reasons.iter().map(|(why, n)| format!("{n} {why}")).collect();
    Err(format!(
        "0/{total} nodes are available: {}. preemption: 0/{total} nodes are available: {total} Preemption is not helpful for scheduling.",
        parts.join(", ")
    ))
}

fn preference(pod: &Value, node: &Value) -> i64 {
    list(pod, "/spec/affinity/nodeAffinity/preferredDuringSchedulingIgnoredDuringExecution")
        .iter()
        .filter(|p| {
            Selector::of_expressions(&p["preference"]["matchExpressions"])
                .matches(&node["metadata"]["labels"])
        })
        .map(|p| p["weight"].as_i64().unwrap_or(1))
        .sum()
}

fn claims(store: &Store, pod: &Value) -> Result<(), String> {
    let ns = text(pod, "/metadata/namespace");
    for volume in list(pod, "/spec/volumes") {
        let Some(name) = at(volume, "/persistentVolumeClaim/claimName").and_then(Value::as_str) else {
            continue;
        };
        let Some(claim) = store.get("persistentvolumeclaims", ns, name) else {
            return Err(format!("persistentvolumeclaim \"{name}\" not found"));
        };
        let class = text(claim, "/spec/storageClassName");
        let waits = store
            .get("storageclasses.storage.k8s.io", "", class)
            .is_some_and(|c| c["volumeBindingMode"] == "WaitForFirstConsumer");
        if claim["status"]["phase"] != "Bound" && !waits {
            return Err("pod has unbound immediate PersistentVolumeClaims. not found".into());
        }
    }
    Ok(())
}

fn unfit(store: &Store, pod: &Value, selects: &Selects, node: &Value) -> Option<String> {
    if node["spec"]["unschedulable"] == true
        && !list(pod, "/spec/tolerations").iter().any(|t| {
            tolerated(t, &json!({"key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule"}))
        })
    {
        return Some("node(s) were unschedulable".into());
    }
    if let Some(taint) = tolerates(pod, node) {
        return Some(format!(
            "node(s) had untolerated taint {{{}: {}}}",
            text(taint, "/key"),
            text(taint, "/value")
        ));
    }
    if !selects.node(node) {
        return Some("node(s) didn't match Pod's node affinity/selector".into());
    }
    let name = text(node, "/metadata/name");
    let here = || store.pods_on(name).filter(|p| !matches!(text(p, "/status/phase"), "Succeeded" | "Failed"));
    let ports = |p: &Value| -> Vec<(i64, String)> {
        list(p, "/spec/containers")
            .iter()
            .flat_map(|c| list(c, "/ports"))
            .filter_map(|p| {
                Some((p["hostPort"].as_i64().filter(|n| *n > 0)?, text(p, "/protocol").to_owned()))
            })
            .collect()
    };
    let wanted = ports(pod);
    if !wanted.is_empty() && here().any(|other| ports(other).iter().any(|p| wanted.contains(p))) {
        return Some("node(s) didn't have free ports for the requested pod ports".into());
    }
    for term in list(pod, "/spec/affinity/podAntiAffinity/requiredDuringSchedulingIgnoredDuringExecution") {
        let selector = Selector::of(&term["labelSelector"]);
        let same = |p: &Value| {
            p["metadata"]["namespace"] == pod["metadata"]["namespace"]
                && selector.matches(&p["metadata"]["labels"])
        };
        let key = text(term, "/topologyKey");
        let domain = &node["metadata"]["labels"][key];
        let in_domain = |p: &Value| {
            store
                .get("nodes", "", text(p, "/spec/nodeName"))
                .is_some_and(|n| n["metadata"]["labels"][key] == *domain)
        };
        if store.list("pods", None).any(|p| !going(p) && same(p) && in_domain(p)) {
            return Some("node(s) didn't match pod anti-affinity rules".into());
        }
    }
    for spread in list(pod, "/spec/topologySpreadConstraints") {
        if spread["whenUnsatisfiable"] == "DoNotSchedule" && !spreads(store, pod, selects, node, spread) {
            return Some("node(s) didn't match pod topology spread constraints".into());
        }
    }
    None
}

fn spreads(store: &Store, pod: &Value, selects: &Selects, node: &Value, spread: &Value) -> bool {
    let key = text(spread, "/topologyKey");
    let selector = Selector::of(&spread["labelSelector"]);
    let mut domains: BTreeMap<String, i64> = BTreeMap::new();
    for other in store.list("nodes", None).filter(|n| selects.node(n)) {
        if let Some(domain) = other["metadata"]["labels"].get(key) {
            let n = store
                .pods_on(text(other, "/metadata/name"))
                .filter(|p| p["metadata"]["namespace"] == pod["metadata"]["namespace"] && !going(p))
                .filter(|p| selector.matches(&p["metadata"]["labels"]))
                .count() as i64;
            *domains.entry(domain.to_string()).or_default() += n;
        }
    }
    let Some(domain) = node["metadata"]["labels"].get(key) else { return false };
    let least = domains.values().min().copied().unwrap_or(0);
    let mine = domains.get(&domain.to_string()).copied().unwrap_or(0);
    mine + 1 - least <= spread["maxSkew"].as_i64().unwrap_or(1)
}
