//! The steps for Proxmox's HA manager.

use std::collections::{BTreeMap, BTreeSet};

use stage::{HeldKind, StepId};

use super::Planner;
use crate::entry::{Entry, Fields, HaSeen, is_ours};
use crate::ha;
use crate::roster::{Roster, State};
use crate::step::Step;
use crate::want::Machine;

/// The steps that make the entries as the document says.
pub(super) fn plan(planner: &mut Planner<'_>, roster: &Roster<'_>) {
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
        ha::drop_all(design, there, why, &mut planner.plan);
        return;
    };
    let nine = seen.version >= (9, 0);
    let grouped = (!nine).then(|| ha::group(design));
    let first = grouped.as_ref().and_then(|name| {
        let fields = ha::set(design, [("nodes", design.nodes.join(",")), ("restricted", "1".to_owned())]);
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
        let sid = ha::sid_of(machine, vmid);
        if able {
            let (restart, relocate) = (wish.max_restart.to_string(), wish.max_relocate.to_string());
            let mut fields = ha::set(design, [("max_restart", restart), ("max_relocate", relocate)]);
            fields.extend(grouped.iter().map(|g| ("group".to_owned(), g.clone())));
            let after: Vec<StepId> = last.into_iter().chain(first).collect();
            made.extend(entry(planner, there, Entry::Resource, &sid, fields, &after));
        } else if !there.resources.contains_key(&sid) {
            continue;
        }
        // What is held or off now keeps its place in the rules.
        managed.insert(sid, machine);
    }
    let wanted = if nine { ha::rules(design, seen, &managed) } else { BTreeMap::new() };
    for (name, fields) in &wanted {
        entry(planner, there, Entry::Rule, name, fields.clone(), &made);
    }
    for name in there.ours(&design.cluster, Entry::Rule).into_iter().filter(|n| !wanted.contains_key(n)) {
        let step = Step::HaDrop { entry: Entry::Rule, id: name };
        planner.plan.step(step, "no pool needs it");
    }
    let pools = |machine: &Machine| wish.pools.contains(&machine.pool);
    let unwanted = roster.machines.iter().filter(|(m, _)| !pools(m)).filter_map(|(_, state)| match state {
        State::Ours(guest, _) => Some(ha::sid(guest)),
        _ => None,
    });
    let unwanted: BTreeSet<String> = unwanted.collect();
    for id in there.ours(&design.cluster, Entry::Resource).into_iter().filter(|s| unwanted.contains(s)) {
        let step = Step::HaDrop { entry: Entry::Resource, id };
        planner.plan.step(step, "spec.proxmox.ha does not name its pool");
    }
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
