//! Migrations that would spread the machines as placement would have; pure, and only proposed: a migration of a
//! running machine is the operator's decision.

use std::collections::BTreeMap;

use cluster_doc::spec::Spread;

use crate::roster::{Roster, State};
use crate::seen::{Guest, Seen};
use crate::want::{Design, Machine};

/// One machine that would better be elsewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Move {
    /// Its name.
    pub machine: String,
    /// Its id.
    pub vmid: u32,
    /// The node that it is on.
    pub from: String,
    /// The node that it should be on.
    pub to: String,
    /// Why.
    pub why: String,
    /// The command that moves it, on the node that it is on.
    pub command: String,
}

/// The proposal as lines that can be run on the nodes named.
pub(super) fn text(moves: &[Move]) -> String {
    if moves.is_empty() {
        return "pve-vm: the machines are spread evenly\n".to_owned();
    }
    let line = |m: &Move| format!("# {}: {}\nssh root@{} {}\n", m.machine, m.why, m.from, m.command);
    moves.iter().map(line).collect()
}

/// The moves, each counted before the next is looked for; the fewest that even out pools and roles.
pub fn moves(design: &Design, seen: &Seen) -> Vec<Move> {
    let roster = Roster::of(design, seen);
    let mut all: Vec<(&Machine, &Guest, String)> = roster
        .machines
        .iter()
        .filter_map(|(machine, state)| match state {
            State::Ours(guest, _) => Some((*machine, *guest, guest.node.clone())),
            _ => None,
        })
        .collect();
    let nodes: Vec<&String> =
        design.nodes.iter().filter(|n| seen.nodes.get(*n).is_some_and(|n| n.online)).collect();
    let mut found = Vec::new();
    while let Some((n, to, why)) = next(design, seen, &nodes, &all) {
        let (machine, guest, from) = (all[n].0, all[n].1, std::mem::replace(&mut all[n].2, to.clone()));
        let shared = seen.nodes.get(&guest.node).and_then(|n| n.storages.get(&design.storage));
        let options = match (guest.running, shared.is_some_and(|s| s.shared)) {
            (true, true) => " --online",
            (true, false) => " --online --with-local-disks",
            (false, _) => "",
        };
        let command = match (guest.is_container(), guest.running) {
            // A container cannot move while it runs.
            (true, true) => format!("pct migrate {} {to} --restart", guest.vmid),
            (true, false) => format!("pct migrate {} {to}", guest.vmid),
            (false, _) => format!("qm migrate {} {to}{options}", guest.vmid),
        };
        found.push(Move { machine: machine.name.clone(), vmid: guest.vmid, from, to, why, command });
        if found.len() > all.len() {
            break;
        }
    }
    found
}

type Standing<'s> = [(&'s Machine, &'s Guest, String)];

/// The next move: off a node that is not the document's, out of a hard pool's company, or from where most of a role
/// are to where fewest are.
fn next(
    design: &Design,
    seen: &Seen,
    nodes: &[&String],
    all: &Standing<'_>,
) -> Option<(usize, String, String)> {
    let of = |test: &dyn Fn(&Machine) -> bool, node: &str| {
        all.iter().filter(|(m, _, at)| test(m) && at == node).count()
    };
    for (n, (machine, _, at)) in all.iter().enumerate() {
        let in_pool = |m: &Machine| m.pool == machine.pool;
        let stranger = !design.nodes.contains(at);
        let company = machine.spread == Spread::Hard && of(&in_pool, at) > 1;
        if !stranger && !company {
            continue;
        }
        let open = nodes.iter().filter(|to| {
            ***to != *at
                && room(seen, to, &design.storage, all, machine)
                && (machine.spread != Spread::Hard || of(&in_pool, to) == 0)
        });
        if let Some(to) = open.min_by_key(|to| of(&in_pool, to)) {
            let why = match stranger {
                true => format!("{at} is not among spec.proxmox.nodes"),
                false => format!("its pool {} must not share a node, and does on {at}", machine.pool),
            };
            return Some((n, (*to).clone(), why));
        }
    }
    let mut roles: BTreeMap<String, &Machine> = BTreeMap::new();
    for (machine, ..) in all.iter().filter(|(m, ..)| m.spread == Spread::Soft) {
        roles.entry(machine.role.to_string()).or_insert(machine);
    }
    for (name, example) in roles {
        let role = |m: &Machine| m.role == example.role;
        let count = |node: &String| of(&role, node);
        let (most, least) = (nodes.iter().max_by_key(|n| count(n))?, nodes.iter().min_by_key(|n| count(n))?);
        if count(most) <= count(least) + 1 {
            continue;
        }
        let there = all.iter().enumerate().filter(|(_, (m, _, at))| {
            role(m) && m.spread == Spread::Soft && at == *most && room(seen, least, &design.storage, all, m)
        });
        // Of the pool that is most crowded there.
        let crowd = |m: &Machine| of(&|other: &Machine| other.pool == m.pool, most);
        if let Some((n, _)) = there.max_by_key(|(_, (m, ..))| crowd(m)) {
            let why = format!("{most} has {} of the role {name}, {least} {}", count(most), count(least));
            return Some((n, (*least).clone(), why));
        }
    }
    None
}

/// True when a node has room for one more, with all moves so far: memory as configured and as in use, whichever is
/// more; processors; and the disks, where they are not on a storage that all nodes share.
fn room(seen: &Seen, node: &str, storage: &str, all: &Standing<'_>, machine: &Machine) -> bool {
    let Some(found) = seen.nodes.get(node) else { return false };
    if found.cores.is_some_and(|cores| u64::from(machine.cores) > cores) {
        return false;
    }
    let came = || all.iter().filter(|(_, g, at)| at == node && g.node != node);
    let left = || all.iter().filter(|(_, g, at)| at != node && g.node == node);
    let bytes = |one: &(&Machine, &Guest, String)| one.0.memory_mib << 20;
    let running = |one: &(&Machine, &Guest, String)| if one.1.running { bytes(one) } else { 0 };
    let claimed = (found.claimed + came().map(bytes).sum::<u64>()).saturating_sub(left().map(bytes).sum());
    let used = (found.used + came().map(running).sum::<u64>()).saturating_sub(left().map(running).sum());
    if found.memory.is_some_and(|memory| claimed.max(used) + (machine.memory_mib << 20) > memory) {
        return false;
    }
    let disks = |m: &Machine| m.disk + m.disks.iter().map(|(_, bytes)| bytes).sum::<u64>();
    let storage = found.storages.get(storage).filter(|s| !s.shared);
    let taken: u64 = came().map(|(m, ..)| disks(m)).sum();
    storage.and_then(|s| s.free).is_none_or(|free| taken + disks(machine) <= free)
}

#[cfg(test)]
mod tests {
    use cluster_doc::spec::Role;

    use super::*;
    use crate::seen::{Node, Storage};

    #[test]
    fn room_is_what_is_configured_and_what_is_in_use() {
        let machine = Machine {
            name: "c-w-1".into(),
            role: Role::Worker,
            pool: "w".into(),
            spread: Spread::Soft,
            kind: cluster_doc::spec::GuestKind::Vm,
            cores: 4,
            memory_mib: 8 << 10,
            disk: 40 << 30,
            disks: vec![("data".into(), 10 << 30)],
            order: crate::power::Order::Any,
            protection: None,
            address: [10, 0, 0, 1].into(),
            prefix: 24,
            gateway: None,
            labels: BTreeMap::new(),
            taints: Vec::new(),
        };
        let storage = Storage { free: Some(60 << 30), ..Storage::default() };
        let node = Node {
            memory: Some(16 << 30),
            cores: Some(8),
            storages: [("local-lvm".to_owned(), storage)].into(),
            ..Node::default()
        };
        let fits = |change: fn(&mut Node), standing: &Standing<'_>| {
            let mut node = node.clone();
            change(&mut node);
            let seen = Seen { nodes: [("pve1".to_owned(), node)].into(), ..Seen::default() };
            room(&seen, "pve1", "local-lvm", standing, &machine)
        };
        assert!(fits(|_| (), &[]));
        assert!(!fits(|n| n.claimed = 9 << 30, &[]), "configured, though off");
        assert!(!fits(|n| n.used = 9 << 30, &[]), "in use, though nobody configured it");
        assert!(!fits(|n| n.cores = Some(2), &[]));
        assert!(!fits(|n| n.storages.values_mut().for_each(|s| s.free = Some(49 << 30)), &[]));
        let other = Guest { node: "pve2".into(), running: true, ..Guest::default() };
        assert!(
            !fits(|n| n.claimed = 1 << 30, &[(&machine, &other, "pve1".into())]),
            "one that comes counts"
        );
    }
}
