//! The plan: from what shall be and what is there to steps with reasons; pure.

mod build;
mod converge;
mod ha;
mod job;
mod power;

use std::collections::BTreeMap;

use cluster_doc::spec::GuestKind;
use stage::{HeldKind, Plan, StepId};

use crate::homes::settle;
use crate::mark::{Mark, pool_mark};
use crate::power::hold_order;
use crate::preflight::impossible;
use crate::privileges;
use crate::renew::data_disks;
use crate::roster::{Roster, State};
use crate::seen::{Guest, Seen};
use crate::step::Step;
use crate::template::{Source, source};
use crate::want::{Design, Machine};

/// How many linked clones run side by side on one storage: each holds its lock for seconds, and others wait for
/// ten (pve-storage); a full clone holds it for long.
pub(crate) const LINKED_LANES: usize = 4;

/// What is to be done.
pub fn plan(design: &Design, seen: &Seen) -> Plan<Step> {
    let roster = Roster::of(design, seen);
    let stopped = impossible(design, seen, &roster);
    if !stopped.held().is_empty() {
        return stopped;
    }
    let mut planner = Planner::new(design, seen);
    planner.pool();
    let homes = planner.homes(&roster);
    for (machine, state) in &roster.machines {
        planner.machine(machine, state, &roster, &homes);
    }
    let ids: Vec<u32> = roster
        .machines
        .iter()
        .filter_map(|(_, state)| match state {
            State::Ours(guest, _) | State::Silent(guest) => Some(guest.vmid),
            State::Missing(id) => Some(*id),
            State::NoId => None,
        })
        .collect();
    hold_order(design, seen, &roster, &mut planner.plan);
    self::ha::plan(&mut planner, &roster);
    self::job::plan(design, seen, &ids, &mut planner.plan);
    planner.drop_seeds(&roster, None);
    for (guest, mark) in &roster.leaving {
        planner.plan.hold(
            HeldKind::Flag,
            mark.machine.as_str(),
            format!(
                "the document does not have it any more; it is left running as guest {} on {}",
                guest.vmid, guest.node
            ),
            Some("once it has left the cluster: pve-vm destroy --prune".to_owned()),
        );
    }
    privileges::checked(design, seen, planner.plan)
}

/// One machine made anew in the place of `lost`, or brought to the end of its making.
pub(crate) fn rebuild(
    design: &Design,
    seen: &Seen,
    machine: &Machine,
    lost: Option<(&Guest, &Mark)>,
) -> Plan<Step> {
    let roster = Roster::of(design, seen);
    let stopped = impossible(design, seen, &roster);
    if !stopped.held().is_empty() {
        return stopped;
    }
    let mut planner = Planner::new(design, seen);
    planner.pool();
    match lost {
        Some((guest, mark)) if !data_disks(&guest.config.clone().unwrap_or_default(), mark).is_empty() => {
            planner.renew(machine, guest, mark, "it is made anew, and its data disks stay");
        }
        Some((guest, _)) => planner.anew(machine, guest),
        None => {
            let mut homes = planner.homes(&roster);
            homes.retain(|name, _| *name == machine.name);
            if let Some((machine, state)) = roster.machines.iter().find(|(m, _)| m.name == machine.name) {
                planner.machine(machine, state, &roster, &homes);
            }
        }
    }
    planner.drop_seeds(&roster, Some(&machine.name));
    privileges::checked(design, seen, planner.plan)
}

/// A node by machine, and what a virtual machine is cloned from.
type Homes = BTreeMap<String, (String, Option<Source>)>;

/// Clones that share a bound: the node that they are made from, whether they are linked, whether they go to other nodes.
pub(crate) type Lane = (String, bool, bool);

pub(crate) struct Planner<'d> {
    pub(crate) design: &'d Design,
    pub(crate) seen: &'d Seen,
    pub(crate) plan: Plan<Step>,
    /// The clones in hand.
    lanes: BTreeMap<Lane, Vec<StepId>>,
    /// The last restart of each pool: one machine at a time.
    restarts: BTreeMap<String, StepId>,
    /// What ends the first boot of a machine, by its name.
    seals: BTreeMap<String, StepId>,
    pub(crate) pool: Option<StepId>,
    /// Archives of containers that are being downloaded, by node (none for shared storage).
    pub(crate) archives: BTreeMap<String, StepId>,
    /// Templates that are being made, by id.
    templates: BTreeMap<u32, StepId>,
}

impl<'d> Planner<'d> {
    fn new(design: &'d Design, seen: &'d Seen) -> Planner<'d> {
        Planner {
            design,
            seen,
            plan: Plan::new(),
            lanes: BTreeMap::new(),
            restarts: BTreeMap::new(),
            seals: BTreeMap::new(),
            pool: None,
            archives: BTreeMap::new(),
            templates: BTreeMap::new(),
        }
    }

    fn machine(&mut self, machine: &Machine, state: &State<'_>, roster: &Roster<'_>, homes: &Homes) {
        match state {
            State::Ours(guest, mark) => self.converge(machine, guest, mark),
            State::Silent(guest) => self.plan.hold(
                HeldKind::Unreachable,
                machine.name.as_str(),
                format!("its Proxmox node {} is off", guest.node),
                Some(format!(
                    "switch {} on, then run again; if it never comes back: pve-vm replace {}",
                    guest.node, machine.name
                )),
            ),
            State::Missing(vmid) => {
                if let Some(conflict) = roster.conflict(&machine.name) {
                    self.plan.hold(
                        HeldKind::Unreachable,
                        machine.name.as_str(),
                        conflict.why.clone(),
                        conflict.hint.clone(),
                    );
                } else if let Some((node, source)) = homes.get(&machine.name) {
                    self.build(machine, *vmid, node, source.as_ref(), Vec::new());
                }
            }
            State::NoId => {}
        }
    }

    fn pool(&mut self) {
        if let (Some(pool), Some(seen)) = (&self.design.pool, &self.seen.pool)
            && !seen.exists
        {
            let step = Step::MakePool { pool: pool.clone(), comment: pool_mark(&self.design.cluster) };
            self.pool = Some(self.plan.step(step, "it does not exist"));
        }
    }

    /// A node and a source for each missing machine; what has none is held.
    fn homes(&mut self, roster: &Roster<'_>) -> Homes {
        let (homes, homeless) = settle(self.design, self.seen, roster);
        for one in homeless {
            let hint = Some("switch the node on, then run again".to_owned());
            self.plan.hold(HeldKind::Unreachable, one.machine, one.why, hint);
        }
        let kinds: BTreeMap<&str, GuestKind> =
            self.design.machines.iter().map(|m| (m.name.as_str(), m.kind)).collect();
        let with = |(machine, node): (String, String)| {
            let source = match kinds.get(machine.as_str())? {
                GuestKind::Vm => Some(source(self.design, self.seen, &node).ok()?),
                GuestKind::Lxc => None,
            };
            Some((machine, (node, source)))
        };
        homes.into_iter().filter_map(with).collect()
    }

    /// The mark of a machine that is being made.
    pub(crate) fn mark(&self, machine: &Machine, vmid: u32) -> Mark {
        Mark {
            cluster: self.design.cluster.clone(),
            machine: machine.name.clone(),
            vmid,
            role: machine.role,
            pool: machine.pool.clone(),
            host_keys: Vec::new(),
            proven: false,
            renew: None,
        }
    }

    /// What the next one in a lane of this width waits for.
    pub(crate) fn lane(&self, lane: &Lane, width: usize) -> Option<StepId> {
        let lane = self.lanes.get(lane)?;
        lane.len().checked_sub(width).and_then(|n| lane.get(n)).copied()
    }

    pub(crate) fn in_lane(&mut self, lane: Lane, step: StepId) {
        self.lanes.entry(lane).or_default().push(step);
    }
}

/// How a lock that was left behind goes.
pub(crate) fn unlock(guest: &Guest) -> String {
    let program = if guest.is_container() { "pct" } else { "qm" };
    format!("look at the tasks of node {}; when none runs: {program} unlock {}", guest.node, guest.vmid)
}

pub(crate) fn list(last: Option<StepId>) -> Vec<StepId> {
    last.into_iter().collect()
}
