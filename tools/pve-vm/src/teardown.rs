//! What `destroy` does; pure.

use std::collections::BTreeSet;

use cluster_doc::spec::Role;
use stage::{HeldKind, Plan, StepId};

use crate::mark::{Mark, pool_mark};
use crate::options::on;
use crate::plan::unlock;
use crate::power;
use crate::privileges;
use crate::renew::data_disks;
use crate::roster::{Roster, State, half};
use crate::seed::{self, Orphan};
use crate::seen::{Guest, Owner, Seen};
use crate::step::{At, Step};
use crate::template;
use crate::want::{Design, Members};

/// Our machines go, and nothing else; with `--prune` only those that the document no longer has.
pub fn teardown(design: &Design, seen: &Seen) -> Plan<Step> {
    let roster = Roster::of(design, seen);
    let mut plan = Plan::new();
    let mut gone: BTreeSet<u32> = BTreeSet::new();
    let (mut names, mut last): (BTreeSet<String>, Vec<StepId>) = (BTreeSet::new(), Vec::new());
    let mut unmanaged = Vec::new();
    if let (Some(there), false) = (&seen.ha, design.prune) {
        unmanaged = crate::ha::drop_all(design, there, "the cluster goes", &mut plan);
    }
    let ours = seen.guests.iter().filter_map(|g| match g.owner(&design.cluster) {
        Owner::Ours(mark) => Some((g, mark)),
        _ => None,
    });
    for (guest, mark) in ours {
        let leaving = roster.leaving.iter().any(|(g, _)| g.vmid == guest.vmid);
        if design.prune && !leaving {
            continue;
        }
        if let Some((why, hint)) = protected(design, guest, &mark, leaving) {
            plan.hold(HeldKind::Unmet, mark.machine.as_str(), why, Some(hint));
            continue;
        }
        let at = At::of(&mark.machine, guest);
        let why = if leaving { "the document does not have it any more" } else { "the cluster goes" };
        // Its manager would start it again; what the whole cluster has there went before.
        let mut after = match design.prune {
            true => crate::ha::drop_one(design, seen, guest, why, &mut plan).into_iter().collect(),
            false => unmanaged.clone(),
        };
        if guest.running {
            after = vec![plan.step_after(&after, Step::Stop { at: at.clone() }, why)];
        }
        if let Some((storage, file)) = seed::of(design, seen, guest) {
            // The machine, which names its seed, goes after it.
            let step = Step::DropSeed { node: guest.node.clone(), storage, file };
            after = vec![plan.step_after(&after, step, why)];
        }
        if guest.config.as_ref().is_some_and(|c| on(c, "protection")) {
            after = vec![power::lift(&mut plan, &at, &after, why)];
        }
        last.push(plan.step_after(&after, Step::Destroy { at }, why));
        gone.insert(guest.vmid);
        names.insert(mark.machine);
    }
    // A clone that never ended is locked, which a token cannot undo; with --prune only one that nobody wants.
    for guest in &seen.guests {
        let Owner::Half(lock, Some(mark)) = guest.owner(&design.cluster) else { continue };
        if design.prune && design.machines.iter().any(|m| m.name == mark.machine) {
            continue;
        }
        let what = format!("guest {} on node {}", guest.vmid, guest.node);
        let (why, hint) = half(&what, &lock, &At::of(&mark.machine, guest));
        plan.hold(HeldKind::Unmet, mark.machine.as_str(), why, Some(hint));
    }
    for Orphan { node, storage, file, machine, awaited } in seed::orphans(design, seen, &roster) {
        // Another run may be about to put it into a machine that stays.
        if awaited && design.prune && !names.contains(&machine) {
            continue;
        }
        plan.step(Step::DropSeed { node, storage, file }, "no machine needs it");
    }
    for (machine, state) in &roster.machines {
        if let (State::Silent(guest), false) = (state, design.prune) {
            plan.hold(
                HeldKind::Unreachable,
                machine.name.as_str(),
                format!("its Proxmox node {} is off: guest {} is left there", guest.node, guest.vmid),
                Some(format!("switch {} on, then run again", guest.node)),
            );
        }
    }
    for guest in &roster.dark {
        let what = guest.name.clone().unwrap_or_else(|| format!("guest {}", guest.vmid));
        let why =
            format!("the document does not have it any more, and its Proxmox node {} is off", guest.node);
        plan.hold(
            HeldKind::Unreachable,
            what,
            why,
            Some(format!("switch {} on, then run again", guest.node)),
        );
    }
    if seen.job.as_ref().is_some_and(|job| job.ours) && !design.prune {
        plan.step(Step::DropJob { id: crate::job::id(&design.cluster) }, "the cluster goes");
    }
    templates(design, seen, &mut gone, &mut last, &mut plan);
    pool(design, seen, &gone, &last, &mut plan);
    privileges::checked(design, seen, plan)
}

/// Our templates, when they are to go as well and no machine that stays was cloned from them.
fn templates(
    design: &Design,
    seen: &Seen,
    gone: &mut BTreeSet<u32>,
    last: &mut Vec<StepId>,
    plan: &mut Plan<Step>,
) {
    if !design.drop_templates || design.prune {
        return;
    }
    let stays = |g: &&Guest| !matches!(g.owner(&design.cluster), Owner::Foreign) && !gone.contains(&g.vmid);
    let staying: Vec<String> = seen.guests.iter().filter(stays).filter_map(|g| g.name.clone()).collect();
    let machines_done = last.clone();
    for guest in seen.guests.iter().filter(|g| template::made_of(design, g).is_some()) {
        let name = guest.name.clone().unwrap_or_else(|| design.template.clone());
        if staying.is_empty() {
            let step = Step::DropTemplate { name, vmid: guest.vmid, node: guest.node.clone() };
            // Linked clones share its blocks, which not every storage guards (LVM-thin).
            last.push(plan.step_after(&machines_done, step, "it was made for this cluster"));
            gone.insert(guest.vmid);
        } else {
            let why = format!("machines that stay may share its blocks: {}", staying.join(", "));
            plan.hold(HeldKind::Flag, format!("template {name} ({})", guest.vmid), why, None);
        }
    }
}

/// The pool goes when it is ours and empty.
fn pool(design: &Design, seen: &Seen, gone: &BTreeSet<u32>, last: &[StepId], plan: &mut Plan<Step>) {
    let (Some(name), Some(pool), false) = (&design.pool, &seen.pool, design.prune) else { return };
    let ours = pool.exists && pool.comment == pool_mark(&design.cluster);
    if ours && pool.members.iter().all(|m| gone.contains(m)) {
        plan.step_after(last, Step::DropPool { pool: name.clone() }, "it is ours, and empty then");
    }
}

fn protected(design: &Design, guest: &Guest, mark: &Mark, leaving: bool) -> Option<(String, String)> {
    let config = guest.config.as_ref()?;
    if let Some(lock) = config.get("lock") {
        return Some((format!("it is locked ({lock})"), unlock(guest)));
    }
    let data = data_disks(config, mark);
    let named = design.delete_data.contains(&mark.machine);
    let prune = if design.prune { " --prune" } else { "" };
    let hint = || format!("pve-vm destroy{prune} --delete-data {}", mark.machine);
    if !data.is_empty() && !named {
        return Some((format!("it has data disks ({})", data.join(", ")), hint()));
    }
    if on(config, "protection") {
        let mut machines = design.machines.iter();
        let said = machines.any(|m| m.name == mark.machine && m.protection == Some(true));
        if data.is_empty() && !said {
            return Some(power::foreign(guest));
        }
        if !named {
            return Some(("the document protects it".to_owned(), hint()));
        }
    }
    let node = matches!(mark.role, Role::ControlPlane | Role::Worker) && leaving && design.prune;
    let (why, hint) = match &design.members {
        Members::Known(all) if all.contains(&mark.machine) => {
            ("it is still a node of the Kubernetes cluster", "kadm-bootstrap, which drains and removes it")
        }
        Members::Unknown => (
            "nothing says that it has left the Kubernetes cluster: the document has no status of kadm-bootstrap",
            "kadm-bootstrap -f FILE | pve-vm destroy --prune --yes",
        ),
        Members::Known(_) | Members::NoCluster => return None,
    };
    node.then(|| (why.to_owned(), hint.to_owned()))
}
