//! The steps of containers: made from an archive, their host key learned from the log of their making.

use stage::{HeldKind, StepId};

use super::{Origin, difference, has, made_with};
use crate::change::Running;
use crate::mark::Mark;
use crate::options::Options;
use crate::plan::{LINKED_LANES, Planner, list};
use crate::seen::Guest;
use crate::step::{At, Step};
use crate::want::Machine;

impl Planner<'_> {
    /// Makes a container, learns its host key, and starts it.
    pub(crate) fn build_container(
        &mut self,
        machine: &Machine,
        vmid: u32,
        node: &str,
        mut after: Vec<StepId>,
    ) {
        let design = self.design;
        let Some(origin) = &design.container else { return };
        let at = At { machine: machine.name.clone(), vmid, node: node.to_owned(), kind: machine.kind };
        after.extend(self.lane(&(node.to_owned(), true, false), LINKED_LANES));
        after.extend(self.pool);
        after.extend(self.archive(node, origin));
        let mark = self.mark(machine, vmid);
        let step = Step::MakeContainer {
            at: at.clone(),
            options: made_with(design, self.seen, machine, origin, &mark),
            pool: design.pool.clone(),
        };
        let made = self.plan.step_after(&after, step, format!("there is no {}", machine.name));
        self.in_lane((node.to_owned(), true, false), made);
        let noted = self.note(machine, &at, &[made]);
        let started = self.plan.step_after(&[noted], Step::Start { at: at.clone() }, "it is new");
        let pin = Step::Pin { at, address: machine.address };
        self.plan.step_after(&[started], pin, "its key is known by its fingerprint alone");
    }

    /// The archive, downloaded once for each node that does not share its storage.
    fn archive(&mut self, node: &str, origin: &Origin) -> Option<StepId> {
        let Origin::Download { url, digest, storage } = origin else { return None };
        if has(self.seen, node, origin) {
            return None;
        }
        let shared =
            self.seen.nodes.get(node).and_then(|n| n.storages.get(storage)).is_some_and(|s| s.shared);
        let place = if shared { String::new() } else { node.to_owned() };
        if let Some(step) = self.archives.get(&place) {
            return Some(*step);
        }
        let step = Step::Download {
            node: node.to_owned(),
            storage: storage.clone(),
            content: "vztmpl".to_owned(),
            url: url.clone(),
            file: origin.file(),
            algorithm: digest.0.clone(),
            digest: digest.1.clone(),
        };
        let step = self.plan.step(step, format!("{node} has no container template of that digest"));
        self.archives.insert(place, step);
        Some(step)
    }

    /// Notes its host key's fingerprint, and its tags with it.
    fn note(&mut self, machine: &Machine, at: &At, after: &[StepId]) -> StepId {
        let tags = crate::change::join(&crate::change::tags(self.design, machine));
        let step = Step::Note { at: at.clone(), tags };
        self.plan.step_after(after, step, "nobody knows its host key yet")
    }

    /// Brings a container that is there to what the document says.
    pub(crate) fn converge_container(&mut self, machine: &Machine, guest: &Guest, mark: &Mark) {
        let design = self.design;
        let at = At::of(&machine.name, guest);
        let empty = Options::new();
        let options = guest.config.as_ref().unwrap_or(&empty);
        let running = if guest.running { Running::Yes } else { Running::No };
        let wanted = Mark { role: machine.role, pool: machine.pool.clone(), ..mark.clone() };
        let change = difference(design, machine, &wanted, options, self.seen, running);
        self.hold_frozen(machine, &change);
        let last = self.changes(None, &at, &change);
        let mut last = self.join(guest, &at, last);
        let unknown = mark.host_keys.is_empty();
        if unknown {
            last = Some(self.note(machine, &at, &list(last)));
        }
        if !guest.running {
            last = Some(self.plan.step_after(&list(last), Step::Start { at: at.clone() }, "it is off"));
        }
        if unknown || !mark.pinned() {
            let step = Step::Pin { at, address: machine.address };
            self.plan.step_after(&list(last), step, "its key is not known whole yet");
            return;
        }
        if !guest.running {
            let ready = Step::Ready { at, address: machine.address };
            self.plan.step_after(&list(last), ready, "it is off");
            return;
        }
        self.settle_running(machine, guest, &at, &change, last);
    }

    /// Holds a machine that is a guest of another kind than the document says.
    pub(crate) fn other_kind(&mut self, machine: &Machine, guest: &Guest) {
        let what = |container: bool| if container { "a container" } else { "a virtual machine" };
        let is = what(guest.is_container());
        let why =
            format!("guest {} is {is}, and the document wants {}", guest.vmid, what(!guest.is_container()));
        let hint = format!("make it anew: pve-vm replace {}", machine.name);
        self.plan.hold(HeldKind::Unmet, machine.name.as_str(), why, Some(hint));
    }
}
