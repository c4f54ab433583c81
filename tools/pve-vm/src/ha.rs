//! Proxmox's own high availability: which machines it restarts elsewhere when their node fails, and what keeps them
//! apart then; pure.
//!
//! Proxmox VE 9 has rules of affinity, 8 has groups of nodes (pve-ha-manager, API2/HA/Rules.pm and Groups.pm). What is
//! ours bears our comment; nothing else is changed.

use std::collections::{BTreeMap, BTreeSet};

use cluster_doc::spec::Spread;
use stage::{Plan, StepId};

use crate::entry::{Entry, Fields, HaSeen, canonical, is_ours};
use crate::mark::pool_mark;
use crate::seen::{Guest, Seen};
use crate::step::Step;
use crate::want::{Design, Machine};

/// How Proxmox's manager calls a guest.
pub fn sid(guest: &Guest) -> String {
    format!("{}:{}", if guest.is_container() { "ct" } else { "vm" }, guest.vmid)
}

pub(crate) fn sid_of(machine: &Machine, vmid: u32) -> String {
    format!("{}:{vmid}", if machine.kind.is_vm() { "vm" } else { "ct" })
}

pub(crate) fn group(design: &Design) -> String {
    format!("kubeline-{}", design.cluster)
}

pub(crate) fn set<const N: usize>(design: &Design, fields: [(&str, String); N]) -> Fields {
    let comment = ("comment", pool_mark(&design.cluster));
    fields.into_iter().chain([comment]).map(|(k, v)| (k.to_owned(), canonical(k, &v))).collect()
}

/// Why the manager could not start a machine elsewhere, if so.
pub(crate) fn impossible(design: &Design, seen: &Seen) -> Option<(String, String)> {
    design.ha.as_ref()?;
    let local = seen.nodes.iter().find(|(name, node)| {
        design.nodes.contains(name) && node.storages.get(&design.storage).is_some_and(|s| !s.shared)
    });
    let (node, storage) = (local?.0, &design.storage);
    Some((
        format!(
            "the storage {storage} is local to {node}: no other node could start a machine without its disks"
        ),
        "take spec.proxmox.ha out (Kubernetes goes on without a node), or name a shared storage in \
         spec.proxmox.storage"
            .to_owned(),
    ))
}

/// Why a machine is not touched now: its manager gave it up.
pub(crate) fn given_up(seen: &Seen, guest: &Guest) -> Option<(String, String)> {
    let sid = sid(guest);
    let state = seen.ha.as_ref()?.states.get(&sid)?;
    (state == "error").then(|| {
        (
            format!("Proxmox's HA manager gave it up (state error): guest {} on node {}", guest.vmid, guest.node),
            format!(
                "see to why (ha-manager status), then on a node: ha-manager set {sid} --state disabled && ha-manager \
                 set {sid} --state started"
            ),
        )
    })
}

/// The rules of Proxmox VE 9: the document's nodes alone, where there are others, and hard pools apart.
pub(crate) fn rules(
    design: &Design,
    seen: &Seen,
    managed: &BTreeMap<String, &Machine>,
) -> BTreeMap<String, Fields> {
    let mut all = BTreeMap::new();
    let list = |sids: Vec<&String>| sids.into_iter().cloned().collect::<Vec<_>>().join(",");
    if seen.nodes.keys().any(|n| !design.nodes.contains(n)) && !managed.is_empty() {
        let fields = [
            ("type", "node-affinity".to_owned()),
            ("nodes", design.nodes.join(",")),
            ("strict", "1".to_owned()),
            ("resources", list(managed.keys().collect())),
        ];
        all.insert(format!("{}-nodes", group(design)), set(design, fields));
    }
    let hard: BTreeSet<&String> =
        managed.values().filter(|m| m.spread == Spread::Hard).map(|m| &m.pool).collect();
    for pool in hard {
        let members: Vec<&String> = managed.iter().filter(|(_, m)| m.pool == *pool).map(|(s, _)| s).collect();
        // Fewer than two have nobody to keep apart from, and are refused (pve-ha-manager, HA/Rules).
        if members.len() > 1 {
            let fields = [
                ("type", "resource-affinity".to_owned()),
                ("affinity", "negative".to_owned()),
                ("resources", list(members)),
            ];
            all.insert(format!("{}-apart-{pool}", group(design)), set(design, fields));
        }
    }
    all
}

/// All that is ours goes: rules before what they speak of, the group after those that are in it.
pub(crate) fn drop_all(design: &Design, there: &HaSeen, why: &str, plan: &mut Plan<Step>) -> Vec<StepId> {
    let mut before = Vec::new();
    for entry in [Entry::Rule, Entry::Resource, Entry::Group] {
        let mut now = Vec::new();
        for id in there.ours(&design.cluster, entry) {
            now.push(plan.step_after(&before, Step::HaDrop { entry, id }, why));
        }
        before.extend(now);
    }
    before
}

/// The step that takes one guest from the manager before it goes, when it is ours there.
pub(crate) fn drop_one(
    design: &Design,
    seen: &Seen,
    guest: &Guest,
    why: &str,
    plan: &mut Plan<Step>,
) -> Option<StepId> {
    let fields = seen.ha.as_ref()?.resources.get(&sid(guest))?;
    let step = Step::HaDrop { entry: Entry::Resource, id: sid(guest) };
    is_ours(&design.cluster, fields).then(|| plan.step(step, why))
}
