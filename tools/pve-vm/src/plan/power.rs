//! Protection in a machine's course: on once its first boot has ended, off just before a disk of it goes.

use stage::{HeldKind, StepId};

use super::{Planner, list};
use crate::options::{Options, on};
use crate::power;
use crate::seen::Guest;
use crate::step::At;
use crate::want::Machine;

impl Planner<'_> {
    /// Protects a machine whose first boot has ended.
    pub(crate) fn protect(&mut self, machine: &Machine, at: &At, have: &Options, after: StepId) {
        if machine.protection == Some(true) && !on(have, "protection") {
            let why = if machine.disks.is_empty() { "the document says so" } else { "it has data disks" };
            power::switch(&mut self.plan, at, "1", &[after], why);
        }
    }

    /// Lifts the protection of a machine that loses a disk, or goes; `Err` when it is somebody else's.
    pub(crate) fn unprotect(
        &mut self,
        machine: &Machine,
        guest: &Guest,
        after: Vec<StepId>,
        why: &str,
    ) -> Result<Vec<StepId>, ()> {
        if !guest.config.as_ref().is_some_and(|c| on(c, "protection")) {
            return Ok(after);
        }
        if machine.protection.is_none() {
            let (why, hint) = power::foreign(guest);
            self.plan.hold(HeldKind::Unmet, machine.name.as_str(), why, Some(hint));
            return Err(());
        }
        Ok(list(Some(power::lift(&mut self.plan, &At::of(&machine.name, guest), &after, why))))
    }
}
