//! The steps of machines that are there.

use std::collections::BTreeMap;

use stage::{HeldKind, StepId};

use super::{Planner, list, unlock};
use crate::change::{Running, difference};
use crate::delta::Change;
use crate::ha;
use crate::mark::Mark;
use crate::options::Options;
use crate::preflight::names;
use crate::seed;
use crate::seen::{Guest, SshSeen};
use crate::step::{At, Step};
use crate::want::Machine;

/// How long after its start a machine that does not answer may still be booting, in seconds.
const BOOTING: u64 = 300;

impl Planner<'_> {
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

    pub(super) fn converge(&mut self, machine: &Machine, guest: &Guest, mark: &Mark) {
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
        // was switched on before it had a seed, as by its node that came back. After the proof cloud-init may be off
        // already, so that it goes on with the seed that it has.
        let unknown = mark.host_keys.is_empty();
        let goes_on = mark.proven && seed::of(design, self.seen, guest).is_some();
        let new = unknown || (!guest.running && seeded.is_some() && !goes_on);
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
        let last = self.join(guest, &at, last);
        if new {
            self.first_boot(machine, &at, options, list(last), "it is off");
            return;
        }
        let ready = Step::Ready { at: at.clone(), address: machine.address };
        if !guest.running {
            let start = Step::Start { at: at.clone() };
            let started = self.plan.step_after(&list(last), start, "it is off");
            let ready = self.plan.step_after(&[started], ready, "it is off");
            if seeded.is_some() {
                self.seal(machine, &at, options, ready);
            }
            return;
        }
        if seeded.is_some() && self.answering(guest) {
            let ready = self.plan.step_after(&list(last), ready, "its first boot is not proven yet");
            self.seal(machine, &at, options, ready);
            return;
        }
        self.settle_running(machine, guest, &at, &change, last);
    }

    /// Ends a first boot that was begun before.
    fn seal(&mut self, machine: &Machine, at: &At, options: &Options, ready: StepId) {
        let seal = Step::Seal { at: at.clone(), address: machine.address };
        let sealed = self.plan.step_after(&[ready], seal, "its seed is still in its drive");
        self.protect(machine, at, options, sealed);
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

fn reason(change: &Change) -> String {
    if change.why.is_empty() { "it differs from the document".to_owned() } else { change.why.join("; ") }
}
