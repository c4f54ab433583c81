//! Placement: which Proxmox node a machine goes to; pure.

use std::collections::BTreeMap;

use cluster_doc::spec::{Role, Spread};

use crate::want::Machine;

/// A Proxmox node as placement sees it.
#[derive(Clone, Debug)]
pub struct Spot {
    /// Its name.
    pub name: String,
    /// Why nothing can be placed on it now, if so.
    pub closed: Option<String>,
    /// True when it is closed because it is off.
    pub offline: bool,
    /// Its memory in bytes, when known.
    pub memory: Option<u64>,
    /// Memory that its guests claim, in bytes.
    pub claimed: u64,
}

/// A machine that has its place.
#[derive(Clone, Debug)]
pub struct Placed {
    /// The machine's role.
    pub role: Role,
    /// Its pool.
    pub pool: String,
    /// Where it is.
    pub node: String,
}

/// A machine that has no place, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Homeless {
    /// The machine's name.
    pub machine: String,
    /// The arithmetic.
    pub why: String,
    /// True when a node that is off might have taken it.
    pub offline: bool,
}

/// Finds a node for each machine, in order: even by role first, then by pool, then by memory that is claimed.
/// Machines that have a place keep it and count.
pub fn place(
    machines: &[&Machine],
    there: &[Placed],
    spots: &[Spot],
) -> (BTreeMap<String, String>, Vec<Homeless>) {
    let mut placed = there.to_vec();
    let mut spots = spots.to_vec();
    let mut found = BTreeMap::new();
    let mut homeless = Vec::new();
    for machine in machines {
        let bytes = machine.memory_mib << 20;
        let mut open: Vec<(usize, usize, u64, usize)> = Vec::new();
        let mut reasons = Vec::new();
        let mut offline = false;
        for (n, spot) in spots.iter().enumerate() {
            let on = |p: &&Placed| p.node == spot.name;
            let of_role = placed.iter().filter(on).filter(|p| p.role == machine.role).count();
            let of_pool = placed.iter().filter(on).filter(|p| p.pool == machine.pool).count();
            match refusal(machine, spot, of_pool, bytes) {
                None => {
                    let (role, pool) =
                        if machine.spread == Spread::None { (0, 0) } else { (of_role, of_pool) };
                    open.push((role, pool, spot.claimed, n));
                }
                Some(why) => {
                    offline |= spot.offline && !(machine.spread == Spread::Hard && of_pool > 0);
                    reasons.push(format!("{}: {why}", spot.name));
                }
            }
        }
        match open.into_iter().min() {
            Some((_, _, _, n)) => {
                let spot = &mut spots[n];
                spot.claimed += bytes;
                let node = spot.name.clone();
                placed.push(Placed { role: machine.role, pool: machine.pool.clone(), node: node.clone() });
                found.insert(machine.name.clone(), node);
            }
            None => homeless.push(Homeless {
                machine: machine.name.clone(),
                why: format!("no Proxmox node can take it: {}", reasons.join("; ")),
                offline,
            }),
        }
    }
    (found, homeless)
}

fn refusal(machine: &Machine, spot: &Spot, of_pool: usize, bytes: u64) -> Option<String> {
    if let Some(why) = &spot.closed {
        return Some(why.clone());
    }
    if machine.spread == Spread::Hard && of_pool > 0 {
        return Some(format!("has a machine of the pool {} (spread hard)", machine.pool));
    }
    let memory = spot.memory?;
    let gib = |bytes: u64| bytes as f64 / f64::from(1 << 30);
    (spot.claimed + bytes > memory).then(|| {
        format!(
            "{:.1} of {:.1} GiB memory are claimed, {:.1} more are needed",
            gib(spot.claimed),
            gib(memory),
            gib(bytes)
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machines(pool: &str, role: Role, spread: Spread, count: usize) -> Vec<Machine> {
        let one = |n: usize| Machine {
            name: format!("c-{pool}-{n}"),
            role,
            pool: pool.into(),
            spread,
            cores: 1,
            memory_mib: 1024,
            disk: 8 << 30,
            disks: Vec::new(),
            address: [10, 0, 0, n as u8].into(),
            prefix: 24,
            gateway: None,
            labels: BTreeMap::new(),
            taints: Vec::new(),
        };
        (1..=count).map(one).collect()
    }

    fn spots(count: usize) -> Vec<Spot> {
        let one = |n: usize| Spot {
            name: format!("pve{n}"),
            closed: None,
            offline: false,
            memory: Some(64 << 30),
            claimed: 0,
        };
        (1..=count).map(one).collect()
    }

    fn counts(found: &BTreeMap<String, String>, part: &str) -> Vec<usize> {
        let on =
            |n: usize| found.iter().filter(|(m, at)| m.contains(part) && **at == format!("pve{n}")).count();
        (1..=3).map(on).collect()
    }

    #[test]
    fn four_and_two_workers_on_three_nodes_are_two_each() {
        let mut all = machines("prod", Role::Worker, Spread::Soft, 4);
        all.extend(machines("nonprod", Role::Worker, Spread::Soft, 2));
        let (found, homeless) = place(&all.iter().collect::<Vec<_>>(), &[], &spots(3));
        assert_eq!((counts(&found, "c-"), homeless.len()), (vec![2, 2, 2], 0));
        assert_eq!(counts(&found, "-nonprod-"), [0, 1, 1]);
    }

    #[test]
    fn hard_is_never_two_and_says_why_not() {
        let all = machines("cp", Role::ControlPlane, Spread::Hard, 3);
        let mut nodes = spots(3);
        let (found, _) = place(&all.iter().collect::<Vec<_>>(), &[], &nodes);
        assert_eq!(counts(&found, "cp"), [1, 1, 1]);
        nodes[1].closed = Some("is off".into());
        nodes[1].offline = true;
        let (found, homeless) = place(&all.iter().collect::<Vec<_>>(), &[], &nodes);
        assert_eq!((counts(&found, "cp"), homeless.len()), (vec![1, 0, 1], 1));
        assert!(homeless[0].offline && homeless[0].why.contains("pve2: is off"), "{homeless:?}");
    }

    #[test]
    fn memory_is_counted() {
        let mut all = machines("big", Role::Worker, Spread::None, 3);
        all.iter_mut().for_each(|m| m.memory_mib = 40 * 1024);
        let mut nodes = spots(2);
        nodes[0].claimed = 8 << 30;
        let (found, homeless) = place(&all.iter().collect::<Vec<_>>(), &[], &nodes);
        assert_eq!(found["c-big-1"], "pve2");
        assert_eq!(found["c-big-2"], "pve1");
        assert!(!homeless[0].offline);
        assert!(
            homeless[0].why.contains("pve1: 48.0 of 64.0 GiB memory are claimed, 40.0 more"),
            "{homeless:?}"
        );
    }

    #[test]
    fn what_is_there_stays_and_counts() {
        let all = machines("w", Role::Worker, Spread::Soft, 1);
        let there = [Placed { role: Role::Worker, pool: "w".into(), node: "pve1".into() }];
        let (found, _) = place(&all.iter().collect::<Vec<_>>(), &there, &spots(2));
        assert_eq!(found["c-w-1"], "pve2");
    }

    proptest::proptest! {
        #[test]
        fn hard_pools_keep_apart_and_roles_are_even(nodes in 1usize..6, a in 0usize..9, b in 0usize..9, hard in 0usize..6) {
            let mut all = machines("a", Role::Worker, Spread::Soft, a);
            all.extend(machines("b", Role::Worker, Spread::Soft, b));
            all.extend(machines("h", Role::ControlPlane, Spread::Hard, hard));
            let (found, homeless) = place(&all.iter().collect::<Vec<_>>(), &[], &spots(nodes));
            proptest::prop_assert_eq!(homeless.len(), hard.saturating_sub(nodes));
            let per = |part: &str| -> Vec<usize> {
                (1..=nodes).map(|n| found.iter().filter(|(m, at)| {
                    part.split('|').any(|p| m.contains(p)) && **at == format!("pve{n}")
                }).count()).collect()
            };
            proptest::prop_assert!(per("-h-").into_iter().all(|n| n <= 1));
            let workers = per("-a-|-b-");
            let (low, high) = (workers.iter().min().unwrap(), workers.iter().max().unwrap());
            proptest::prop_assert!(high - low <= 1);
        }
    }
}
