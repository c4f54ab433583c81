//! Preflight: what makes the whole document impossible here, found before anything is begun; pure.

use stage::{HeldKind, Plan};

use crate::homes::settle;
use crate::roster::{Roster, State};
use crate::seen::Seen;
use crate::step::Step;
use crate::template::source;
use crate::want::Design;

/// What makes the whole document impossible here; then nothing is begun.
pub(crate) fn impossible(design: &Design, seen: &Seen, roster: &Roster<'_>) -> Plan<Step> {
    let mut plan = Plan::new();
    for conflict in roster.conflicts.iter().filter(|c| !c.offline) {
        plan.hold(HeldKind::Unmet, conflict.machine.as_str(), conflict.why.clone(), conflict.hint.clone());
    }
    for (machine, _) in roster.machines.iter().filter(|(_, state)| matches!(state, State::NoId)) {
        let why = format!("every id of {} is taken", design.vmids);
        plan.hold(HeldKind::Unmet, machine.name.as_str(), why, Some("widen spec.proxmox.vmids".to_owned()));
    }
    for node in &design.nodes {
        match seen.nodes.get(node) {
            None => plan.hold(
                HeldKind::Unmet,
                node.as_str(),
                format!("is no node of this Proxmox cluster, which has {}", names(seen.nodes.keys())),
                Some("correct spec.proxmox.nodes; see: pvecm nodes".to_owned()),
            ),
            Some(found) if found.online => {
                let storage = found.storages.get(&design.storage);
                // Where containers can be made is placement's question: it concerns them alone.
                let machines = design.machines.iter().any(|m| m.kind.is_vm());
                if machines && !storage.is_some_and(|s| s.content.iter().any(|c| c == "images")) {
                    plan.hold(
                        HeldKind::Unmet,
                        node.as_str(),
                        format!(
                            "has no storage {} for disks that we may see; there are {}",
                            design.storage,
                            names(found.storages.keys())
                        ),
                        Some(format!(
                            "on a node: pvesm status --content images; see spec.proxmox.storage on {node}"
                        )),
                    );
                }
                if found.bridges.as_ref().is_some_and(|all| !all.is_empty() && !all.contains(&design.bridge))
                {
                    let all = names(found.bridges.iter().flatten());
                    let why = format!("has no bridge {}; there are {all}", design.bridge);
                    plan.hold(
                        HeldKind::Unmet,
                        node.as_str(),
                        why,
                        Some("correct spec.proxmox.bridge".to_owned()),
                    );
                }
            }
            Some(_) => {}
        }
    }
    if let Some((why, hint)) = crate::ha::impossible(design, seen) {
        plan.hold(HeldKind::Unmet, "spec.proxmox.ha", why, Some(hint));
    }
    if plan.held().is_empty() {
        let (_, homeless) = settle(design, seen, roster);
        let mut by_reason: Vec<(String, Vec<String>)> = Vec::new();
        for one in homeless.into_iter().filter(|h| !h.offline) {
            match by_reason.iter_mut().find(|(why, _)| *why == one.why) {
                Some((_, machines)) => machines.push(one.machine),
                None => by_reason.push((one.why, vec![one.machine])),
            }
        }
        for (why, machines) in by_reason {
            // A container is not cloned, and its reason says what would do.
            let cloned = design.machines.iter().any(|m| m.kind.is_vm() && machines.contains(&m.name));
            let hint = hint_for_template(design, seen).filter(|_| cloned);
            plan.hold(HeldKind::Unmet, machines.join(", "), why, hint);
        }
    }
    plan
}

pub(crate) fn names<'n>(all: impl IntoIterator<Item = &'n String>) -> String {
    let all: Vec<&str> = all.into_iter().map(String::as_str).collect();
    if all.is_empty() { "none".to_owned() } else { all.join(", ") }
}

fn hint_for_template(design: &Design, seen: &Seen) -> Option<String> {
    let online = design.nodes.iter().filter(|n| seen.nodes.get(*n).is_some_and(|n| n.online));
    let without: Vec<&String> = online.filter(|n| source(design, seen, n).is_err()).collect();
    let node = without.first()?;
    Some(format!(
        "on {node}, with a cloud image: qm create 9000 --name {} --memory 2048 --net0 \
         virtio,bridge={} --scsihw virtio-scsi-single --scsi0 {}:0,import-from=/path/image.qcow2 \
         --boot order=scsi0 --serial0 socket --vga serial0 --agent 1 && qm template 9000; its pool or /vms/9000 must \
         grant VM.Audit and VM.Clone",
        design.template, design.bridge, design.storage
    ))
}
