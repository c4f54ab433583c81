//! Proxmox's own high availability: which machines it restarts elsewhere when their node fails, and what keeps them
//! apart then; pure.
//!
//! Proxmox VE 9 has rules of affinity, 8 has groups of nodes (pve-ha-manager, API2/HA/Rules.pm and Groups.pm). What is
//! ours bears our comment; nothing else is changed.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use cluster_doc::spec::Spread;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use stage::{HeldKind, Plan, StepId};

use crate::mark::pool_mark;
use crate::plan::Planner;
use crate::pve::text;
use crate::roster::{Roster, State};
use crate::seen::{Guest, Seen};
use crate::step::Step;
use crate::want::{Design, Machine};

/// What the document asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wish {
    /// The pools.
    pub pools: BTreeSet<String>,
    /// How often a machine is started again where it is.
    pub max_restart: u32,
    /// How often it is moved then.
    pub max_relocate: u32,
}

/// What kind of entry it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Entry {
    /// A machine that is managed.
    Resource,
    /// A rule of affinity.
    Rule,
    /// A group of nodes.
    Group,
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Entry::Resource => "HA resource",
            Entry::Rule => "HA rule",
            Entry::Group => "HA group",
        })
    }
}

impl Entry {
    /// The path of its list.
    pub fn path(self) -> &'static str {
        match self {
            Entry::Resource => "/cluster/ha/resources",
            Entry::Rule => "/cluster/ha/rules",
            Entry::Group => "/cluster/ha/groups",
        }
    }

    /// The field of its name.
    pub fn key(self) -> &'static str {
        match self {
            Entry::Resource => "sid",
            Entry::Rule => "rule",
            Entry::Group => "group",
        }
    }

    /// The fields that the document decides.
    fn fields(self) -> &'static [&'static str] {
        match self {
            Entry::Resource => &["max_restart", "max_relocate", "group", "comment"],
            Entry::Rule => &["type", "affinity", "resources", "nodes", "strict", "comment"],
            Entry::Group => &["nodes", "restricted", "comment"],
        }
    }
}

/// The entries that are there, by name, each with what the document decides of it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct HaSeen {
    /// Managed guests by `vm:ID` or `ct:ID`.
    pub resources: BTreeMap<String, Fields>,
    /// Rules.
    pub rules: BTreeMap<String, Fields>,
    /// Groups.
    pub groups: BTreeMap<String, Fields>,
    /// What the manager says of each managed guest, such as `started`, `recovery` or `error`.
    pub states: BTreeMap<String, String>,
}

/// Fields of an entry in canonical form.
pub type Fields = BTreeMap<String, String>;

impl HaSeen {
    fn of(&self, entry: Entry) -> &BTreeMap<String, Fields> {
        match entry {
            Entry::Resource => &self.resources,
            Entry::Rule => &self.rules,
            Entry::Group => &self.groups,
        }
    }

    /// The names of those that bear our comment.
    pub fn ours(&self, cluster: &str, entry: Entry) -> Vec<String> {
        let all = self.of(entry).iter().filter(|(_, fields)| is_ours(cluster, fields));
        all.map(|(name, _)| name.clone()).collect()
    }
}

fn is_ours(cluster: &str, fields: &Fields) -> bool {
    fields.get("comment").is_some_and(|c| c.trim() == pool_mark(cluster))
}

/// How Proxmox's manager calls a guest.
pub fn sid(guest: &Guest) -> String {
    format!("{}:{}", if guest.is_container() { "ct" } else { "vm" }, guest.vmid)
}

fn sid_of(machine: &Machine, vmid: u32) -> String {
    format!("{}:{vmid}", if machine.kind.is_vm() { "vm" } else { "ct" })
}

/// An entry as Proxmox tells it: name and fields.
pub fn read(entry: Entry, told: &Value) -> Option<(String, Fields)> {
    let name = text(told, entry.key())?;
    let fields = entry.fields().iter().filter_map(|field| {
        let value = text(told, field)?;
        Some(((*field).to_owned(), canonical(field, &value)))
    });
    let mut fields: Fields = fields.collect();
    if entry == Entry::Resource {
        // The defaults need not be written (pve-ha-manager, HA/Resources.pm).
        for field in ["max_restart", "max_relocate"] {
            fields.entry(field.to_owned()).or_insert_with(|| "1".to_owned());
        }
    }
    Some((name, fields))
}

/// Lists are sets, and a node's priority 0 is none.
fn canonical(field: &str, value: &str) -> String {
    if field != "resources" && field != "nodes" {
        return value.trim_end().to_owned();
    }
    let words = value.split([',', ';', ' ']).filter(|w| !w.is_empty());
    let words: BTreeSet<&str> = words.map(|w| w.strip_suffix(":0").unwrap_or(w)).collect();
    words.into_iter().collect::<Vec<_>>().join(",")
}

fn group(design: &Design) -> String {
    format!("kubeline-{}", design.cluster)
}

fn set<const N: usize>(design: &Design, fields: [(&str, String); N]) -> Fields {
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

/// The steps that make the entries as the document says.
pub(crate) fn plan(planner: &mut Planner<'_>, roster: &Roster<'_>) {
    let (design, seen) = (planner.design, planner.seen);
    let Some(there) = &seen.ha else {
        if design.ha.is_some() {
            let why = "the login may not see the entries of Proxmox's HA manager";
            let hint = crate::pve::grant("/", "Sys.Audit Sys.Console", &design.grantee);
            planner.plan.hold(HeldKind::Unmet, "spec.proxmox.ha", why, Some(hint));
        }
        return;
    };
    let Some(wish) = &design.ha else {
        let why = "the document has no spec.proxmox.ha";
        drop_all(design, there, why, &mut planner.plan);
        return;
    };
    let nine = seen.version >= (9, 0);
    let grouped = (!nine).then(|| group(design));
    let first = grouped.as_ref().and_then(|name| {
        let fields = set(design, [("nodes", design.nodes.join(",")), ("restricted", "1".to_owned())]);
        entry(planner, there, Entry::Group, name, fields, &[])
    });
    let mut managed: BTreeMap<String, &Machine> = BTreeMap::new();
    let mut made: Vec<StepId> = Vec::new();
    for (machine, state) in &roster.machines {
        if !wish.pools.contains(&machine.pool) {
            continue;
        }
        let last = planner.plan.last_of(|step| step.at().is_some_and(|at| at.machine == machine.name));
        let held = planner.plan.held().iter().any(|h| h.what == machine.name && h.kind != HeldKind::Flag);
        // One that has not answered yet has a first boot before it, which nobody but us may begin.
        let (vmid, able) = match state {
            State::Ours(guest, mark) => {
                (guest.vmid, last.is_some() || (guest.running && mark.pinned() && !held))
            }
            State::Missing(vmid) => (*vmid, last.is_some()),
            State::Silent(guest) => (guest.vmid, false),
            State::NoId => continue,
        };
        let sid = sid_of(machine, vmid);
        if able {
            let (restart, relocate) = (wish.max_restart.to_string(), wish.max_relocate.to_string());
            let mut fields = set(design, [("max_restart", restart), ("max_relocate", relocate)]);
            fields.extend(grouped.iter().map(|g| ("group".to_owned(), g.clone())));
            let after: Vec<StepId> = last.into_iter().chain(first).collect();
            made.extend(entry(planner, there, Entry::Resource, &sid, fields, &after));
        } else if !there.resources.contains_key(&sid) {
            continue;
        }
        // What is held or off now keeps its place in the rules.
        managed.insert(sid, machine);
    }
    let wanted = if nine { rules(design, seen, &managed) } else { BTreeMap::new() };
    for (name, fields) in &wanted {
        entry(planner, there, Entry::Rule, name, fields.clone(), &made);
    }
    for name in there.ours(&design.cluster, Entry::Rule).into_iter().filter(|n| !wanted.contains_key(n)) {
        let step = Step::HaDrop { entry: Entry::Rule, id: name };
        planner.plan.step(step, "no pool needs it");
    }
    let pools = |machine: &Machine| wish.pools.contains(&machine.pool);
    let unwanted = roster.machines.iter().filter(|(m, _)| !pools(m)).filter_map(|(_, state)| match state {
        State::Ours(guest, _) => Some(sid(guest)),
        _ => None,
    });
    let unwanted: BTreeSet<String> = unwanted.collect();
    for id in there.ours(&design.cluster, Entry::Resource).into_iter().filter(|s| unwanted.contains(s)) {
        let step = Step::HaDrop { entry: Entry::Resource, id };
        planner.plan.step(step, "spec.proxmox.ha does not name its pool");
    }
}

/// The rules of Proxmox VE 9: the document's nodes alone, where there are others, and hard pools apart.
fn rules(design: &Design, seen: &Seen, managed: &BTreeMap<String, &Machine>) -> BTreeMap<String, Fields> {
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

/// Makes one entry right; gives the step.
fn entry(
    planner: &mut Planner<'_>,
    there: &HaSeen,
    entry: Entry,
    id: &str,
    fields: Fields,
    after: &[StepId],
) -> Option<StepId> {
    let have = there.of(entry).get(id);
    let why = match have {
        Some(have) if !is_ours(&planner.design.cluster, have) => {
            let why = "it is there and does not bear our comment; it was left untouched";
            let kind = if entry == Entry::Resource { HeldKind::Flag } else { HeldKind::Unmet };
            let hint = match entry {
                Entry::Resource => format!("ha-manager remove {id}, and it is made as the document says"),
                _ => format!("pvesh delete {}/{id}, or take spec.proxmox.ha out", entry.path()),
            };
            planner.plan.hold(kind, format!("{entry} {id}"), why, Some(hint));
            return None;
        }
        Some(have) => {
            let differ: Vec<&str> =
                fields.iter().filter(|(k, v)| have.get(*k) != Some(v)).map(|(k, _)| k.as_str()).collect();
            if differ.is_empty() {
                return None;
            }
            format!("{} differ", differ.join(", "))
        }
        None => "it is not there".to_owned(),
    };
    let step = Step::HaSet { entry, id: id.to_owned(), set: fields, there: have.is_some() };
    Some(planner.plan.step_after(after, step, why))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_sent_is_read_again() {
        let told = serde_json::json!({
            "rule": "kubeline-prod-apart-cp", "type": "resource-affinity", "affinity": "negative",
            "resources": "vm:3004,vm:3003", "digest": "abc", "comment": "made by kubeline's pve-vm for the cluster prod",
        });
        let (name, fields) = read(Entry::Rule, &told).unwrap();
        assert_eq!(
            (name.as_str(), fields["resources"].as_str()),
            ("kubeline-prod-apart-cp", "vm:3003,vm:3004")
        );
        assert!(is_ours("prod", &fields) && !is_ours("pro", &fields));
        let told = serde_json::json!({ "sid": "vm:3000", "state": "started", "max_restart": 2 });
        let (_, fields) = read(Entry::Resource, &told).unwrap();
        assert_eq!((fields["max_restart"].as_str(), fields["max_relocate"].as_str()), ("2", "1"));
        assert_eq!(canonical("nodes", "pve2:0,pve1"), "pve1,pve2");
    }
}
