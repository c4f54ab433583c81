//! Privileges: what the plan needs and the login lacks, all together; pure.

use std::collections::{BTreeMap, BTreeSet};

use stage::{HeldKind, Plan};

use crate::options::{Options, Properties};
use crate::pve::grant;
use crate::seen::Seen;
use crate::step::Step;
use crate::want::Design;

/// What pve-vm does with guests.
pub fn guest_role() -> Vec<&'static str> {
    vec![
        "VM.Allocate",
        "VM.Audit",
        "VM.Config.CDROM",
        "VM.Config.CPU",
        "VM.Config.Cloudinit",
        "VM.Config.Disk",
        "VM.Config.HWType",
        "VM.Config.Memory",
        "VM.Config.Network",
        "VM.Config.Options",
        "VM.PowerMgmt",
    ]
}

/// True when the login has a privilege on a path. Proxmox lists the effective privileges of every path that
/// has rules of its own; the nearest of them decides, and counts below itself only where it propagates.
pub(crate) fn has(seen: &Seen, path: &str, privilege: &str) -> bool {
    let mut at = path;
    loop {
        if let Some(here) = seen.privileges.get(at) {
            return match here.get(privilege) {
                Some(propagates) => at == path || *propagates == 1,
                None => false,
            };
        }
        at = match at.rsplit_once('/') {
            Some(("", "")) | None => return false,
            Some(("", _)) => "/",
            Some((parent, _)) => parent,
        };
    }
}

/// What a step needs: paths of which any will do, the first to be told, and the privileges there.
fn needs(design: &Design, seen: &Seen, step: &Step) -> Vec<(Vec<String>, Vec<&'static str>)> {
    let guests = |vmid: Option<u32>, pool: Option<&String>| {
        let pool = pool.map(|p| format!("/pool/{p}"));
        let guest = vmid.map(|id| format!("/vms/{id}"));
        let all: Vec<String> = pool.into_iter().chain(guest).chain(["/vms".to_owned()]).collect();
        all
    };
    let storage = |name: &str| (vec![format!("/storage/{name}")], vec!["Datastore.AllocateSpace"]);
    match step {
        Step::MakePool { pool, .. } | Step::DropPool { pool } => {
            vec![(vec![format!("/pool/{pool}")], vec!["Pool.Allocate"])]
        }
        Step::HaSet { .. } | Step::HaDrop { .. } => vec![(vec!["/".to_owned()], vec!["Sys.Console"])],
        Step::MakeJob { .. } | Step::DropJob { .. } => vec![(vec!["/".to_owned()], vec!["Sys.Modify"])],
        Step::Upload { storage, .. } => {
            vec![(vec![format!("/storage/{storage}")], vec!["Datastore.AllocateTemplate"])]
        }
        Step::Download { node, storage, .. } => vec![
            (vec![format!("/storage/{storage}")], vec!["Datastore.AllocateTemplate"]),
            (vec![format!("/nodes/{node}")], vec!["Sys.AccessNetwork"]),
        ],
        Step::DropTemplate { vmid, .. } => {
            vec![(guests(Some(*vmid), design.pool.as_ref()), vec!["VM.Allocate", "VM.Audit"])]
        }
        Step::MakeTemplate { .. } => {
            vec![
                (guests(None, design.pool.as_ref()), guest_role()),
                storage(&design.storage),
                (bridge(seen, &design.bridge, design.vlan), vec!["SDN.Use"]),
            ]
        }
        Step::Clone { template, pool, .. } => {
            let from = seen.guests.iter().find(|g| g.vmid == *template);
            let mut paths = vec![format!("/vms/{template}")];
            // One that is being made joins the machines' pool.
            let inside = from.map_or(design.pool.as_ref(), |g| g.pool.as_ref());
            paths.extend(inside.map(|p| format!("/pool/{p}")));
            let mut all = vec![
                (guests(None, pool.as_ref()), guest_role()),
                (paths, vec!["VM.Clone"]),
                storage(&design.storage),
            ];
            if seen.version >= (8, 0) {
                all.push((bridge(seen, &design.bridge, design.vlan), vec!["SDN.Use"]));
                // The clone is made with the template's cards, wherever they are.
                let options = from.and_then(|g| g.config.as_ref()).into_iter().flatten();
                let cards = options.filter(|(k, _)| k.starts_with("net")).map(|(_, v)| Properties::parse(v));
                for card in cards {
                    let tag = card.get("tag").and_then(|t| t.parse().ok());
                    all.extend(card.get("bridge").map(|name| (bridge(seen, name, tag), vec!["SDN.Use"])));
                }
            }
            all
        }
        Step::MakeContainer { pool, options, .. } => {
            let mut all = vec![
                (guests(None, pool.as_ref()), guest_role()),
                storage(&design.storage),
                (bridge(seen, &design.bridge, design.vlan), vec!["SDN.Use"]),
            ];
            if let Some(origin) = &design.container {
                all.push((vec![format!("/storage/{}", origin.storage())], vec!["Datastore.Audit"]));
            }
            all.extend(start_order(options));
            all
        }
        Step::DropSeed { storage, .. } => {
            vec![(vec![format!("/storage/{storage}")], vec!["Datastore.AllocateTemplate"])]
        }
        step => {
            let mut all = Vec::new();
            let seeds = match step {
                Step::Seed { storage, .. } => Some(storage.clone()),
                Step::Seal { at, .. } => crate::seed::storage(design, seen, &at.node).ok(),
                _ => None,
            };
            all.extend(seeds.map(|storage| {
                (vec![format!("/storage/{storage}")], vec!["Datastore.AllocateTemplate", "Datastore.Audit"])
            }));
            let pool = step.at().and_then(|at| seen.guests.iter().find(|g| g.vmid == at.vmid)?.pool.as_ref());
            let vmid = step.at().map(|at| at.vmid);
            all.push((guests(vmid, pool.or(design.pool.as_ref())), guest_role()));
            if let Step::Configure { set, .. } = step {
                all.extend(start_order(set));
            }
            if let Step::Renew { at, .. } = step
                && let Ok(from) = crate::template::existing(design, seen, &at.node)
            {
                let template = format!("/vms/{}", from.vmid);
                let inside = from.pool.map(|p| format!("/pool/{p}"));
                all.push((std::iter::once(template).chain(inside).collect(), vec!["VM.Clone"]));
                all.push(storage(&design.storage));
            }
            all
        }
    }
}

/// What a start order needs: it concerns the guests of others too (qemu-server, API2/Qemu.pm: `startup`).
fn start_order(options: &Options) -> Option<(Vec<String>, Vec<&'static str>)> {
    options.contains_key("startup").then(|| (vec!["/".to_owned()], vec!["Sys.Modify"]))
}

/// The paths by which a bridge may be used: in the zone of plain bridges, or in one of a software network.
fn bridge(seen: &Seen, name: &str, vlan: Option<u16>) -> Vec<String> {
    let plain = format!("/sdn/zones/localnetwork/{name}");
    let told = vlan.map_or(plain.clone(), |v| format!("{plain}/{v}"));
    // In another zone it is a software network, whose VLAN is its own.
    let own = seen.privileges.keys().filter(|p| {
        let mut parts = p.strip_prefix("/sdn/zones/").unwrap_or_default().split('/');
        parts.next() != Some("localnetwork") && parts.next() == Some(name)
    });
    let own: Vec<String> = own.cloned().collect();
    std::iter::once(told).chain(own).collect()
}

/// What is missing for the plan, by path.
pub fn missing(design: &Design, seen: &Seen, plan: &Plan<Step>) -> BTreeMap<String, BTreeSet<&'static str>> {
    let mut all: BTreeMap<String, BTreeSet<&'static str>> = BTreeMap::new();
    if seen.privileges.is_empty() {
        return all;
    }
    for step in plan.steps() {
        for (paths, privileges) in needs(design, seen, step) {
            let lacking = privileges.into_iter().filter(|p| !paths.iter().any(|path| has(seen, path, p)));
            for privilege in lacking {
                all.entry(paths.first().cloned().unwrap_or_default()).or_default().insert(privilege);
            }
        }
    }
    all
}

/// The plan, or, where privileges are missing, nothing but what is missing: nothing is begun that could not be
/// finished.
pub fn checked(design: &Design, seen: &Seen, plan: Plan<Step>) -> Plan<Step> {
    let missing = missing(design, seen, &plan);
    if missing.is_empty() {
        return plan;
    }
    let mut held = Plan::new();
    for (path, privileges) in missing {
        let names = privileges.iter().copied().collect::<Vec<_>>();
        held.hold(
            HeldKind::Unmet,
            format!("privileges on {path}"),
            format!("the login lacks {}", names.join(", ")),
            Some(grant(&path, &names.join(" "), &design.grantee)),
        );
    }
    held
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_listed_path_decides() {
        let mut seen = Seen::default();
        let mut add = |path: &str, privilege: &str, propagates: u8| {
            seen.privileges.entry(path.into()).or_default().insert(privilege.into(), propagates);
        };
        add("/", "Sys.Audit", 0);
        add("/vms", "VM.Clone", 1);
        add("/vms/7", "VM.Audit", 1);
        assert!(has(&seen, "/", "Sys.Audit"));
        assert!(!has(&seen, "/nodes/pve1", "Sys.Audit"));
        assert!(has(&seen, "/vms/8", "VM.Clone"));
        assert!(!has(&seen, "/vms/7", "VM.Clone"));
    }
}
