//! The plan: from what shall be and what is there to steps with reasons; pure.

use std::collections::BTreeMap;

use cluster_doc::spec::GuestKind;
use stage::{HeldKind, Plan, StepId};

use crate::change::{Change, Running, difference};
use crate::container;
use crate::ha;
use crate::homes::settle;
use crate::job;
use crate::mark::{Mark, pool_mark};
use crate::options::Options;
use crate::power;
use crate::preflight::{impossible, names};
use crate::privileges;
use crate::renew::{Renewal, data_disks, renewal};
use crate::roster::{Roster, State};
use crate::seed::{self, FirstBoot, Orphan};
use crate::seen::{Guest, Seen, SshSeen};
use crate::step::{At, Step};
use crate::template::{From, Source, cloned, source};
use crate::want::{Design, Machine};

/// How many linked clones run side by side on one storage: each holds its lock for seconds, and others wait for
/// ten (pve-storage); a full clone holds it for long.
pub(crate) const LINKED_LANES: usize = 4;
/// How long after its start a machine that does not answer may still be booting, in seconds.
const BOOTING: u64 = 300;

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
    power::hold_order(design, seen, &roster, &mut planner.plan);
    ha::plan(&mut planner, &roster);
    job::plan(design, seen, &ids, &mut planner.plan);
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

    /// The lost one goes, and another takes its name, id and node.
    fn anew(&mut self, machine: &Machine, lost: &Guest) {
        let at = At::of(&machine.name, lost);
        let source = match (machine.kind, container::closed(self.design, self.seen, &lost.node)) {
            (GuestKind::Vm, _) => source(self.design, self.seen, &lost.node).map(Some),
            (GuestKind::Lxc, Some(why)) => Err(why),
            (GuestKind::Lxc, None) => Ok(None),
        };
        let source = match source {
            Ok(source) => source,
            Err(why) => {
                let why = format!("it cannot be made anew on {}, which {why}", lost.node);
                return self.plan.hold(HeldKind::Unmet, machine.name.as_str(), why, None);
            }
        };
        let why = "it is made anew";
        // Its manager would start it again. The next apply makes the entry anew.
        let free = ha::drop_one(self.design, self.seen, lost, why, &mut self.plan);
        let mut after = list(free);
        if lost.running {
            after = vec![self.plan.step_after(&after, Step::Stop { at: at.clone() }, why)];
        }
        if let Some((storage, file)) = seed::of(self.design, self.seen, lost) {
            let step = Step::DropSeed { node: lost.node.clone(), storage, file };
            after = vec![self.plan.step_after(&after, step, why)];
        }
        let Ok(after) = self.unprotect(machine, lost, after, why) else { return };
        let gone = self.plan.step_after(&after, Step::Destroy { at }, why);
        self.build(machine, lost.vmid, &lost.node, source.as_ref(), vec![gone]);
    }

    /// Another system disk, and a first boot from it; the data disks stay.
    fn renew(&mut self, machine: &Machine, guest: &Guest, mark: &Mark, why: &str) {
        let at = At::of(&machine.name, guest);
        let renewal = match renewal(self.design, self.seen, machine, guest, mark) {
            Ok(renewal) => renewal,
            Err((why, hint)) => {
                let why = format!("its system disk cannot be made anew: {why}");
                return self.plan.hold(HeldKind::Unmet, machine.name.as_str(), why, Some(hint));
            }
        };
        let stopped = guest.running.then(|| self.plan.step(Step::Stop { at: at.clone() }, why));
        let Ok(stopped) = self.unprotect(machine, guest, list(stopped), why) else { return };
        let Renewal { lost, drive, options, mark } = renewal;
        let step = Step::Renew { at: at.clone(), lost, drive };
        let renewed = self.plan.step_after(&stopped, step, why);
        let mark = Mark { role: machine.role, pool: machine.pool.clone(), ..mark };
        let change = difference(self.design, machine, &mark, &options, self.seen, None);
        let last = self.changes(Some(renewed), &at, &change);
        self.first_boot(machine, &at, &options, list(last), "its system is new");
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

    fn build(
        &mut self,
        machine: &Machine,
        vmid: u32,
        node: &str,
        source: Option<&Source>,
        mut after: Vec<StepId>,
    ) {
        let Some(source) = source else { return self.build_container(machine, vmid, node, after) };
        let design = self.design;
        let at = At { machine: machine.name.clone(), vmid, node: node.to_owned(), kind: machine.kind };
        let mark = self.mark(machine, vmid);
        let description = mark.write("");
        let across = source.node != node;
        let lane = (source.node.clone(), source.linked, across);
        // Clones of one template to several nodes get into each other's way at its volume (bpg/
        // terraform-provider-proxmox, issue 2145).
        let width = if source.linked && !across { LINKED_LANES } else { 1 };
        after.extend(self.lane(&lane, width));
        after.extend(self.pool);
        after.extend(self.template(source));
        let step = Step::Clone {
            at: at.clone(),
            template: source.vmid,
            source: source.node.clone(),
            full: (!source.linked).then(|| design.storage.clone()),
            pool: design.pool.clone(),
            description: description.clone(),
        };
        let cloned_by = self.plan.step_after(&after, step, format!("there is no {}", machine.name));
        self.in_lane(lane, cloned_by);
        let options = cloned(source, &machine.name, &description);
        let change = difference(design, machine, &mark, &options, self.seen, None);
        let last = self.changes(Some(cloned_by), &at, &change);
        self.first_boot(machine, &at, &options, list(last), "it is new");
    }

    /// Seed, start, proof, and the seed away again.
    fn first_boot(&mut self, machine: &Machine, at: &At, options: &Options, after: Vec<StepId>, why: &str) {
        let described = options.get("description").and_then(|d| Mark::read(d));
        let before = described.map(|m| m.host_keys).unwrap_or_default();
        let (slot, file) = (seed::slot(options), seed::file(&self.design.cluster, &at.machine, at.vmid));
        // Preflight has found a storage for it on every node.
        let storage = seed::storage(self.design, self.seen, &at.node).unwrap_or_default();
        let seed = Step::Seed {
            at: at.clone(),
            address: self.seen.nodes.get(&at.node).and_then(|n| n.address.clone()),
            storage,
            file,
            slot,
            before,
            boot: FirstBoot::of(self.design, machine),
        };
        let seeded = self.plan.step_after(&after, seed, "it has not booted yet");
        let started = self.plan.step_after(&[seeded], Step::Start { at: at.clone() }, why);
        let ready = Step::Ready { at: at.clone(), address: machine.address };
        let ready = self.plan.step_after(&[started], ready, "it boots for the first time");
        let seal = Step::Seal { at: at.clone(), address: machine.address };
        let sealed = self.plan.step_after(&[ready], seal, "cloud-init goes off for good, and its seed away");
        self.protect(machine, at, options, sealed);
        self.seals.insert(machine.name.clone(), sealed);
    }

    /// Removes seeds that no drive holds; of a machine that boots for the first time once that is over.
    fn drop_seeds(&mut self, roster: &Roster<'_>, only: Option<&str>) {
        for orphan in seed::orphans(self.design, self.seen, roster) {
            let Orphan { node, storage, file, machine, awaited } = orphan;
            let sealed = self.seals.get(&machine).copied();
            if only.is_some_and(|name| name != machine) || (awaited && sealed.is_none()) {
                continue;
            }
            let step = Step::DropSeed { node, storage, file };
            self.plan.step_after(&list(sealed), step, "no machine needs it");
        }
    }

    /// The step that makes the source, once for each node, when it is not there.
    fn template(&mut self, source: &Source) -> Option<StepId> {
        let made = source.made.as_ref()?;
        if let Some(step) = self.templates.get(&source.vmid) {
            return Some(*step);
        }
        let (algorithm, digest) = made.digest.clone();
        let (node, storage, file) = (source.node.clone(), made.storage.clone(), made.file.clone());
        let download = match &made.from {
            From::Url(url) => {
                let (url, content) = (url.clone(), "import".to_owned());
                Step::Download { node, storage, content, url, file, algorithm, digest }
            }
            From::File(from) => {
                let address = self.seen.nodes.get(&node).and_then(|n| n.address.clone());
                Step::Upload { node, address, storage, from: from.clone(), file, algorithm, digest }
            }
        };
        let download =
            self.plan.step(download, format!("{} has no template {}", source.node, self.design.template));
        let mut options = source.options.clone();
        options.extend(self.design.pool.iter().map(|p| ("pool".to_owned(), p.clone())));
        let make = Step::MakeTemplate {
            name: self.design.template.clone(),
            vmid: source.vmid,
            node: source.node.clone(),
            options,
        };
        let mut after = vec![download];
        after.extend(self.pool);
        let step = self.plan.step_after(&after, make, "the image is there then");
        self.templates.insert(source.vmid, step);
        Some(step)
    }

    /// Configure and resize; gives the last step.
    pub(crate) fn changes(&mut self, after: Option<StepId>, at: &At, change: &Change) -> Option<StepId> {
        let mut last = after;
        if change.configures() {
            let step = Step::Configure {
                at: at.clone(),
                set: change.set.clone(),
                net: change.net.clone(),
                delete: change.delete.clone(),
            };
            let why = if after.is_some() { "it is new".to_owned() } else { reason(change) };
            last = Some(self.plan.step_after(&list(last), step, why));
        }
        for (disk, gib) in &change.grow {
            let step = Step::Resize { at: at.clone(), disk: disk.clone(), gib: *gib };
            last = Some(self.plan.step_after(&list(last), step, "it is smaller"));
        }
        last
    }

    fn converge(&mut self, machine: &Machine, guest: &Guest, mark: &Mark) {
        let design = self.design;
        let at = At::of(&machine.name, guest);
        let empty = BTreeMap::new();
        let options = guest.config.as_ref().unwrap_or(&empty);
        if let Some(lock @ ("clone" | "create" | "disk" | "migrate" | "rollback")) = guest.option("lock") {
            let hint = unlock(guest);
            self.plan.hold(
                HeldKind::Unmet,
                machine.name.as_str(),
                format!("it is locked ({lock})"),
                Some(hint),
            );
            return;
        }
        if let Some((why, hint)) = ha::given_up(self.seen, guest) {
            return self.plan.hold(HeldKind::Unmet, machine.name.as_str(), why, Some(hint));
        }
        if mark.renew.is_some() {
            return self.renew(machine, guest, mark, "it was begun");
        }
        if at.kind != machine.kind {
            return self.other_kind(machine, guest);
        }
        if !at.kind.is_vm() {
            return self.converge_container(machine, guest, mark);
        }
        let wanted = Mark { role: machine.role, pool: machine.pool.clone(), ..mark.clone() };
        let seeded = seed::attached(&design.cluster, options);
        // One that was switched off before its first boot was proven begins anew, with a new key; so does one that
        // was switched on before it had a seed, as by its node that came back.
        let unknown = mark.host_keys.is_empty();
        let new = unknown || (!guest.running && seeded.is_some());
        if unknown && guest.running {
            let stop = Step::Stop { at: at.clone() };
            let stop =
                self.plan.step(stop, "it runs without a first boot of ours: nobody knows its host key");
            self.first_boot(machine, &at, options, vec![stop], "it was stopped");
            return;
        }
        let booted = match (guest.running, new) {
            (true, _) => Some(Running::Yes),
            (false, false) => Some(Running::No),
            (false, true) => None,
        };
        let change = difference(design, machine, &wanted, options, self.seen, booted);
        self.hold_frozen(machine, &change);
        let last = self.changes(None, &at, &change);
        let mut last = self.join(guest, &at, last);
        if new {
            self.first_boot(machine, &at, options, list(last), "it is off");
            return;
        }
        let ready = Step::Ready { at: at.clone(), address: machine.address };
        if !guest.running {
            last = Some(self.plan.step_after(&list(last), Step::Start { at }, "it is off"));
            self.plan.step_after(&list(last), ready, "it is off");
            return;
        }
        if seeded.is_some() && self.answering(guest) {
            let ready = self.plan.step_after(&list(last), ready, "its first boot is not proven yet");
            let seal = Step::Seal { at: at.clone(), address: machine.address };
            let sealed = self.plan.step_after(&[ready], seal, "its seed is still in its drive");
            self.protect(machine, &at, options, sealed);
            return;
        }
        self.settle_running(machine, guest, &at, &change, last);
    }

    /// Puts a guest into the document's pool when it is not there; gives the last step.
    pub(crate) fn join(&mut self, guest: &Guest, at: &At, last: Option<StepId>) -> Option<StepId> {
        let Some(pool) = self.design.pool.as_ref().filter(|p| guest.pool.as_ref() != Some(p)) else {
            return last;
        };
        let why = match &guest.pool {
            Some(other) => format!("it is in the pool {other}"),
            None => "it is in no pool".to_owned(),
        };
        let step = Step::Join { at: at.clone(), pool: pool.clone() };
        Some(self.plan.step_after(&list(last.or(self.pool)), step, why))
    }

    /// A machine that runs: restarted where changes wait for it and that is wanted, and asked whether it answers.
    pub(crate) fn settle_running(
        &mut self,
        machine: &Machine,
        guest: &Guest,
        at: &At,
        change: &Change,
        last: Option<StepId>,
    ) {
        let ready = Step::Ready { at: at.clone(), address: machine.address };
        let mut waiting = guest.pending.clone();
        waiting.extend(change.restart.iter().filter(|r| !guest.pending.contains(r)).cloned());
        if !waiting.is_empty() && self.design.restart {
            let mut after = list(last);
            after.extend(self.restarts.get(&machine.pool));
            let why = format!("{} wait for it", waiting.join(", "));
            let restart = self.plan.step_after(&after, Step::Restart { at: at.clone() }, why);
            let proven = self.plan.step_after(&[restart], ready, "it was restarted");
            self.restarts.insert(machine.pool.clone(), proven);
            return;
        }
        if !waiting.is_empty() {
            let why = format!("changes of {} wait for a restart", waiting.join(", "));
            self.plan.hold(HeldKind::Flag, machine.name.as_str(), why, Some("pve-vm --restart".to_owned()));
        }
        self.answers(machine, guest, ready, last);
    }

    /// True for a machine that answers, or may still do so.
    fn answering(&self, guest: &Guest) -> bool {
        match &guest.ssh {
            None | Some(SshSeen::Answers) => true,
            Some(SshSeen::Silent(_) | SshSeen::Refuses(..)) => guest.uptime < BOOTING,
        }
    }

    fn answers(&mut self, machine: &Machine, guest: &Guest, ready: Step, last: Option<StepId>) {
        match &guest.ssh {
            None | Some(SshSeen::Answers) => {}
            Some(SshSeen::Silent(_)) if guest.uptime < BOOTING => {
                self.plan.step_after(&list(last), ready, "it was started a moment ago");
            }
            Some(SshSeen::Silent(why)) => self.plan.hold(
                HeldKind::Unreachable,
                machine.name.as_str(),
                format!("it runs and does not answer: {why}"),
                Some(format!("look at its console: guest {} on node {}", guest.vmid, guest.node)),
            ),
            Some(SshSeen::Refuses(why, hint)) => {
                self.plan.hold(HeldKind::Unmet, machine.name.as_str(), why.clone(), hint.clone());
            }
        }
    }

    pub(crate) fn hold_frozen(&mut self, machine: &Machine, change: &Change) {
        if !change.frozen.is_empty() {
            let (address, rest): (Vec<&String>, Vec<&String>) =
                change.frozen.iter().partition(|o| *o == "ipconfig0");
            if !address.is_empty() {
                self.plan.hold(
                    HeldKind::Unmet,
                    machine.name.as_str(),
                    "its address is not the document's, and is fixed since its first boot".to_owned(),
                    Some(
                        "give the pool its old address back, or destroy the machine and run again".to_owned(),
                    ),
                );
            }
            if !rest.is_empty() {
                self.plan.hold(
                    HeldKind::Flag,
                    machine.name.as_str(),
                    format!(
                        "settings of its first boot differ ({}): the document's are for new machines",
                        names(rest)
                    ),
                    None,
                );
            }
        }
        if !change.larger.is_empty() {
            let why = format!("{} is larger than the document says; disks only grow", names(&change.larger));
            self.plan.hold(HeldKind::Flag, machine.name.as_str(), why, None);
        }
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

fn reason(change: &Change) -> String {
    if change.why.is_empty() { "it differs from the document".to_owned() } else { change.why.join("; ") }
}
