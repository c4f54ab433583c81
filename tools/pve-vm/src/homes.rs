//! Homes: which Proxmox node each missing machine goes to, beside what is there already; pure.

use std::collections::BTreeMap;

use crate::container;
use crate::options::disks;
use crate::place::{Homeless, Placed, Spot, place};
use crate::roster::{Roster, State};
use crate::seed;
use crate::seen::{Guest, Owner, Seen};
use crate::template::source;
use crate::want::{Design, Machine};

/// Where the missing machines go. When those that are there stand where a build from nothing puts them, the others
/// go where it would have put them: a build that broke off ends as an undisturbed one. Otherwise, as when pools
/// have grown, they are added to what is there.
pub(crate) fn settle(
    design: &Design,
    seen: &Seen,
    roster: &Roster<'_>,
) -> (BTreeMap<String, String>, Vec<Homeless>) {
    let mut there = Vec::new();
    let mut missing = Vec::new();
    let mut at: BTreeMap<&str, &str> = BTreeMap::new();
    for (machine, state) in &roster.machines {
        match state {
            State::Ours(guest, _) | State::Silent(guest) => {
                at.insert(&machine.name, &guest.node);
                there.push(Placed {
                    role: machine.role,
                    pool: machine.pool.clone(),
                    node: guest.node.clone(),
                });
            }
            State::Missing(_) if roster.conflict(&machine.name).is_none() => missing.push(*machine),
            State::Missing(_) | State::NoId => {}
        }
    }
    let all: Vec<&Machine> = roster.machines.iter().map(|(machine, _)| *machine).collect();
    let empty: Vec<Spot> = design.nodes.iter().map(|node| spot(design, seen, node, Claims::Others)).collect();
    let (ideal, mut homeless) = place(&all, &[], &empty);
    if at.iter().all(|(name, node)| ideal.get(*name).is_some_and(|n| n == node)) {
        let is_missing = |name: &str| missing.iter().any(|m| m.name == name);
        homeless.retain(|h| is_missing(&h.machine));
        return (ideal.into_iter().filter(|(name, _)| is_missing(name)).collect(), homeless);
    }
    let spots: Vec<Spot> = design.nodes.iter().map(|node| spot(design, seen, node, Claims::All)).collect();
    place(&missing, &there, &spots)
}

/// Whose memory counts.
#[derive(Clone, Copy, PartialEq)]
enum Claims {
    /// That of all guests.
    All,
    /// That of guests that are not machines of this cluster.
    Others,
}

fn spot(design: &Design, seen: &Seen, name: &str, whose: Claims) -> Spot {
    let node = seen.nodes.get(name);
    let online = node.is_some_and(|n| n.online);
    let closed = match online {
        true => source(design, seen, name).err().or_else(|| seed::storage(design, seen, name).err()),
        false => Some("is off".to_owned()),
    };
    let closed_to_containers = match online {
        true => container::closed(design, seen, name),
        false => Some("is off".to_owned()),
    };
    let left_out = seen.guests.iter().filter(|g| {
        let ours = whose == Claims::Others && matches!(g.owner(&design.cluster), Owner::Ours(_));
        g.node == name && (ours || crate::template::unfinished(design, g))
    });
    let number = |g: &Guest, option: &str, default: u64| {
        g.option(option).and_then(|m| m.trim_start_matches("current=").parse::<u64>().ok()).unwrap_or(default)
    };
    let (mut memory, mut running, mut cores, mut disk) = (0, 0, 0, 0);
    for guest in left_out {
        let bytes = number(guest, "memory", 512) << 20;
        memory += bytes;
        running += if guest.running { bytes } else { 0 };
        cores += number(guest, "cores", 1) * number(guest, "sockets", 1);
        let config = guest.config.iter().flat_map(disks);
        disk += config.filter_map(|d| d.size).sum::<u64>();
    }
    let (claimed, used) = node.map_or((0, 0), |n| (n.claimed, n.used));
    let storage = node.and_then(|n| n.storages.get(&design.storage));
    Spot {
        name: name.to_owned(),
        closed,
        closed_to_containers,
        offline: !online,
        memory: node.and_then(|n| n.memory),
        // What is configured, or what is really in use where that is more.
        claimed: claimed.saturating_sub(memory).max(used.saturating_sub(running)),
        cores: node.and_then(|n| n.cores),
        claimed_cores: node.map_or(0, |n| n.claimed_cores).saturating_sub(cores),
        free: storage.and_then(|s| s.free).map(|free| free + disk),
        shared: storage.is_some_and(|s| s.shared),
    }
}
