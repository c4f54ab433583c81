//! A lost machine made anew, at the same name, address and id; data disks stay where they are; pure.

use std::sync::OnceLock;

use stage::{HeldKind, Plan};

use crate::plan::rebuild;
use crate::roster::{Roster, State};
use crate::seen::Seen;
use crate::step::Step;
use crate::want::Design;

/// The plan: nothing once the machine has another host key than when it was first looked at, which `before` keeps.
pub(super) fn plan(design: &Design, seen: &Seen, name: &str, before: &OnceLock<Vec<String>>) -> Plan<Step> {
    let roster = Roster::of(design, seen);
    let Some((machine, state)) = roster.machines.iter().find(|(m, _)| m.name == name) else {
        return Plan::new();
    };
    let mut plan = Plan::new();
    let mut hold = |why: String, hint: String| plan.hold(HeldKind::Unmet, name, why, Some(hint));
    match state {
        State::Ours(guest, mark) => {
            let was = before.get_or_init(|| mark.host_keys.clone());
            let other = !mark.host_keys.is_empty() && !mark.host_keys.iter().any(|k| was.contains(k));
            let options = guest.config.clone().unwrap_or_default();
            if other
                && mark.renew.is_none()
                && crate::seed::attached(&design.cluster, &options).is_none()
                && guest.running
            {
                return Plan::new();
            }
            if other {
                // It is made, and only its first boot is not over.
                return rebuild(design, seen, machine, None);
            }
            if let Some(lock) = guest.option("lock") {
                let hint = format!(
                    "look at the tasks of node {}; when none runs: qm unlock {}",
                    guest.node, guest.vmid
                );
                hold(format!("it is locked ({lock})"), hint);
                return plan;
            }
            rebuild(design, seen, machine, Some((guest, mark)))
        }
        State::Silent(guest) => {
            // delnode leaves the node's folder, and an id is taken as long as a file has it (pvecm(1), pmxcfs(8)).
            let hint = format!(
                "switch {0} on; or, when it will never come back, on another node: pvecm delnode {0} && mv \
                 /etc/pve/nodes/{0}/{1}/{2}.conf /root/   (that frees the id), then take {0} out of spec.proxmox.nodes",
                guest.node,
                if guest.is_container() { "lxc" } else { "qemu-server" },
                guest.vmid
            );
            hold(
                format!("its Proxmox node {} is off, and its id is taken until that is settled", guest.node),
                hint,
            );
            plan
        }
        State::Missing(_) | State::NoId => {
            before.get_or_init(Vec::new);
            rebuild(design, seen, machine, None)
        }
    }
}
