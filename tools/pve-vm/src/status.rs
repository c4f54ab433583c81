//! The section of `status`, and what `check` finds; pure.

use std::collections::BTreeMap;

use cluster_doc::spec::Spread;
use cluster_doc::status::{MachineStatus, PveVm, TemplateStatus};
use cluster_doc::{NodeName, VmId};
use stage::Finding;

use crate::mark::Mark;
use crate::options::{Options, mac};
use crate::roster::{Roster, State};
use crate::seen::{Guest, Seen, SshSeen};
use crate::step::At;
use crate::template;
use crate::want::{Design, Machine};

/// The machines in the document's order, then those that left it.
pub fn status(design: &Design, seen: &Seen) -> PveVm {
    let roster = Roster::of(design, seen);
    let mut machines: Vec<MachineStatus> =
        roster.machines.iter().map(|(machine, state)| known(design, machine, state)).collect();
    for (guest, mark) in &roster.leaving {
        let address = crate::ssh::address(guest);
        let hint = design.hints.get(&mark.machine);
        let Some(address) = address.or(hint.map(|h| h.address)) else { continue };
        machines.push(MachineStatus {
            name: mark.machine.clone(),
            role: mark.role,
            pool: Some(mark.pool.clone()),
            kind: At::of(&mark.machine, guest).kind,
            node: NodeName::parse(&guest.node).ok(),
            vmid: VmId::new(guest.vmid),
            address,
            macs: macs(guest.config.as_ref()),
            host_keys: whole(mark),
            reachable: answers(guest),
            leaving: true,
            labels: hint.map(|h| h.labels.clone()).unwrap_or_default(),
            taints: hint.map(|h| h.taints.clone()).unwrap_or_default(),
        });
    }
    let templates = seen.guests.iter().filter(|g| g.is_template()).filter_map(|guest| {
        let checksum = template::made_of(design, guest)?.to_owned();
        let name = guest.name.clone().unwrap_or_else(|| design.template.clone());
        Some(TemplateStatus { name, node: guest.node.clone(), vmid: guest.vmid, checksum })
    });
    PveVm { machines, templates: templates.collect(), held: Vec::new() }
}

fn known(design: &Design, machine: &Machine, state: &State<'_>) -> MachineStatus {
    let hint = design.hints.get(&machine.name);
    let (guest, keys, reachable) = match state {
        State::Ours(guest, mark) => (Some(*guest), whole(mark), answers(guest) && mark.pinned()),
        // What cannot be asked now is as the last run saw it.
        State::Silent(guest) => (Some(*guest), hint.map(|h| h.host_keys.clone()).unwrap_or_default(), false),
        State::Missing(_) | State::NoId => (None, Vec::new(), false),
    };
    let macs = match guest {
        Some(guest) if guest.config.is_some() => macs(guest.config.as_ref()),
        Some(_) => hint.map(|h| h.macs.clone()).unwrap_or_default(),
        None => BTreeMap::new(),
    };
    MachineStatus {
        name: machine.name.clone(),
        role: machine.role,
        pool: Some(machine.pool.clone()),
        kind: guest.map_or(machine.kind, |g| At::of(&machine.name, g).kind),
        node: guest.and_then(|g| NodeName::parse(&g.node).ok()),
        vmid: guest.and_then(|g| VmId::new(g.vmid)),
        address: machine.address,
        macs,
        host_keys: keys,
        reachable,
        leaving: false,
        labels: machine.labels.clone(),
        taints: machine.taints.clone(),
    }
}

/// The host keys that are known whole; others are not for other tools yet.
fn whole(mark: &Mark) -> Vec<String> {
    if mark.pinned() { mark.host_keys.clone() } else { Vec::new() }
}

fn answers(guest: &Guest) -> bool {
    guest.running && guest.ssh == Some(SshSeen::Answers)
}

fn macs(config: Option<&Options>) -> BTreeMap<String, String> {
    let cards = config.into_iter().flatten().filter(|(k, _)| {
        k.strip_prefix("net").is_some_and(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()))
    });
    cards.filter_map(|(card, value)| mac(value).map(|(_, mac)| (card.clone(), mac))).collect()
}

/// The command that moves a guest that is off or may be restarted.
fn migrate(guest: &Guest, to: &str) -> String {
    match guest.is_container() {
        true => format!("pct migrate {} {to} --restart", guest.vmid),
        false => format!("qm migrate {} {to}", guest.vmid),
    }
}

/// Machines of a pool that share a node although they must not, and machines on nodes that are not ours.
pub fn check(design: &Design, seen: &Seen) -> Vec<Finding> {
    let roster = Roster::of(design, seen);
    let mut findings = Vec::new();
    let mut first: BTreeMap<(&str, &str), &str> = BTreeMap::new();
    for (machine, state) in &roster.machines {
        let (State::Ours(guest, _) | State::Silent(guest)) = state else { continue };
        let (name, node) = (machine.name.as_str(), guest.node.as_str());
        if machine.spread == Spread::Hard
            && let Some(other) = first.insert((&machine.pool, node), name)
        {
            let message =
                format!("shares the Proxmox node {node} with {other}, which its pool forbids (spread hard)");
            findings
                .push(Finding::new(name, message).hint(format!("{}, on {node}", migrate(guest, "TARGET"))));
        }
        let managed = seen.ha.as_ref().is_some_and(|ha| ha.resources.contains_key(&crate::ha::sid(guest)));
        let was = design.hints.get(name).and_then(|h| h.node.as_ref()).map(ToString::to_string);
        if let (true, Some(was)) = (managed, was.filter(|was| was != node)) {
            let message =
                format!("was on the Proxmox node {was} and is on {node}: it was moved, and stays there");
            findings.push(Finding::new(name, message).hint("pve-vm rebalance"));
        }
        if !design.nodes.iter().any(|n| n == node) {
            let message = format!("is on the Proxmox node {node}, which spec.proxmox.nodes does not name");
            findings.push(Finding::new(name, message));
        }
    }
    findings
}
