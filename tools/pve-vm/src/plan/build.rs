//! The steps of machines that are made, or made anew.

use cluster_doc::spec::GuestKind;
use stage::{HeldKind, StepId};

use super::{LINKED_LANES, Planner, list};
use crate::change::difference;
use crate::container;
use crate::ha;
use crate::mark::Mark;
use crate::options::Options;
use crate::renew::{Renewal, renewal};
use crate::roster::Roster;
use crate::seed::{self, FirstBoot, Orphan};
use crate::seen::Guest;
use crate::step::{At, Step};
use crate::template::{From, Source, cloned, source};
use crate::want::Machine;

impl Planner<'_> {
    /// The lost one goes, and another takes its name, id and node.
    pub(super) fn anew(&mut self, machine: &Machine, lost: &Guest) {
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
    pub(super) fn renew(&mut self, machine: &Machine, guest: &Guest, mark: &Mark, why: &str) {
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

    pub(super) fn build(
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
    pub(super) fn first_boot(
        &mut self,
        machine: &Machine,
        at: &At,
        options: &Options,
        after: Vec<StepId>,
        why: &str,
    ) {
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
        self.seals.insert(machine.name.clone(), sealed);
        self.protect(machine, at, options, sealed);
    }

    /// Removes seeds that no drive holds; of a machine that boots for the first time once that is over.
    pub(super) fn drop_seeds(&mut self, roster: &Roster<'_>, only: Option<&str>) {
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
    pub(super) fn template(&mut self, source: &Source) -> Option<StepId> {
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
}
