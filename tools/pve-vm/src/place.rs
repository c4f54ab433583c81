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
    /// Why no container can be placed on it now, if so.
    pub closed_to_containers: Option<String>,
    /// True when it is closed because it is off.
    pub offline: bool,
    /// Its memory in bytes, when known.
    pub memory: Option<u64>,
    /// Memory that its guests claim, in bytes.
    pub claimed: u64,
    /// Its processors, when known: a guest must not have more.
    pub cores: Option<u64>,
    /// Processors of all its guests; they may be more than it has.
    pub claimed_cores: u64,
    /// Bytes that are free on the storage for disks, when known.
    pub free: Option<u64>,
    /// True when the storage is the same for all nodes.
    pub shared: bool,
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

/// Finds a node for each machine, in order: even by role first, then by pool, then by memory that is claimed, then by
/// processors.
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
        let (bytes, disks) = (machine.memory_mib << 20, disks(machine));
        let mut open: Vec<(usize, usize, u64, u64, usize)> = Vec::new();
        let mut reasons = Vec::new();
        let mut offline = false;
        for (n, spot) in spots.iter().enumerate() {
            let on = |p: &&Placed| p.node == spot.name;
            let of_role = placed.iter().filter(on).filter(|p| p.role == machine.role).count();
            let of_pool = placed.iter().filter(on).filter(|p| p.pool == machine.pool).count();
            match refusal(machine, spot, of_pool, bytes, disks) {
                None => {
                    let (role, pool) =
                        if machine.spread == Spread::None { (0, 0) } else { (of_role, of_pool) };
                    open.push((role, pool, spot.claimed, spot.claimed_cores, n));
                }
                Some(why) => {
                    offline |= spot.offline && !(machine.spread == Spread::Hard && of_pool > 0);
                    reasons.push(format!("{}: {why}", spot.name));
                }
            }
        }
        match open.into_iter().min() {
            Some((.., n)) => {
                let shared = spots[n].shared;
                for spot in spots.iter_mut().filter(|s| shared && s.shared) {
                    spot.free = spot.free.map(|f| f.saturating_sub(disks));
                }
                let spot = &mut spots[n];
                spot.claimed += bytes;
                spot.claimed_cores += u64::from(machine.cores);
                if !shared {
                    spot.free = spot.free.map(|f| f.saturating_sub(disks));
                }
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

/// Bytes of all its disks.
fn disks(machine: &Machine) -> u64 {
    machine.disk + machine.disks.iter().map(|(_, bytes)| bytes).sum::<u64>()
}

fn refusal(machine: &Machine, spot: &Spot, of_pool: usize, bytes: u64, disks: u64) -> Option<String> {
    let closed = if machine.kind.is_vm() { &spot.closed } else { &spot.closed_to_containers };
    if let Some(why) = closed {
        return Some(why.clone());
    }
    if machine.spread == Spread::Hard && of_pool > 0 {
        return Some(format!("has a machine of the pool {} (spread hard)", machine.pool));
    }
    let gib = |bytes: u64| bytes as f64 / f64::from(1 << 30);
    if let Some(memory) = spot.memory.filter(|memory| spot.claimed + bytes > *memory) {
        return Some(format!(
            "{:.1} of {:.1} GiB memory are claimed, {:.1} more are needed",
            gib(spot.claimed),
            gib(memory),
            gib(bytes)
        ));
    }
    // QEMU's virtual processors are threads: Proxmox refuses a guest with more than the node has
    // (qemu-server, QemuServer.pm: "vcpus allowed per VM on this node").
    if let Some(cores) = spot.cores.filter(|cores| u64::from(machine.cores) > *cores) {
        return Some(format!("has {cores} processors, and the machine is to have {}", machine.cores));
    }
    let free = spot.free.filter(|free| disks > *free)?;
    Some(format!("{:.1} GiB are free for disks, {:.1} are needed", gib(free), gib(disks)))
}

#[cfg(test)]
mod tests {
    use cluster_doc::spec::GuestKind;

    use super::*;

    fn machines(pool: &str, role: Role, spread: Spread, count: usize) -> Vec<Machine> {
        let one = |n: usize| Machine {
            name: format!("c-{pool}-{n}"),
            role,
            kind: GuestKind::Vm,
            pool: pool.into(),
            spread,
            cores: 1,
            memory_mib: 1024,
            disk: 8 << 30,
            disks: Vec::new(),
            order: crate::power::Order::Any,
            protection: None,
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
            closed_to_containers: None,
            offline: false,
            memory: Some(64 << 30),
            claimed: 0,
            cores: Some(16),
            claimed_cores: 0,
            free: Some(1 << 40),
            shared: false,
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
    fn processors_and_storage_are_counted() {
        let mut all = machines("big", Role::Worker, Spread::None, 3);
        all.iter_mut().for_each(|m| (m.cores, m.disk) = (8, 400 << 30));
        let mut nodes = spots(3);
        nodes[0].cores = Some(4);
        nodes[1].free = Some(500 << 30);
        let (found, homeless) = place(&all.iter().collect::<Vec<_>>(), &[], &nodes);
        assert_eq!((counts(&found, "big"), homeless.len()), (vec![0, 1, 2], 0));
        nodes[2].free = Some(0);
        nodes.iter_mut().for_each(|n| n.shared = true);
        nodes[1].free = Some(700 << 30);
        let (found, homeless) = place(&all.iter().collect::<Vec<_>>(), &[], &nodes);
        assert_eq!((counts(&found, "big"), homeless.len()), (vec![0, 1, 0], 2));
        let why = &homeless[0].why;
        assert!(why.contains("pve1: has 4 processors, and the machine is to have 8"), "{why}");
        assert!(why.contains("pve2: 300.0 GiB are free for disks, 400.0 are needed"), "{why}");
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
