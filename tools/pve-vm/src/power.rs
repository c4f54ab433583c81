//! Start order and protection: what a power loss and a slip of the hand must not undo; pure.
//!
//! Proxmox starts the guests of a node in the order of their option `startup` when the node comes up, and stops them in
//! reverse (pve-manager, API2/Nodes.pm: `startall`, `stopall`). It refuses to delete a guest whose `protection` is on,
//! or to remove a drive from it (pve-guest-common, AbstractConfig.pm: `check_protection`).

use cluster_doc::spec::{Pool, Proxmox, Role, StartOrder, Startup};
use stage::{HeldKind, Plan, StepId};

use crate::change::Change;
use crate::options::{Options, Properties, on};
use crate::plan::{Planner, list};
use crate::privileges::has;
use crate::roster::{Roster, State};
use crate::seen::{Guest, Seen};
use crate::step::{At, Step};
use crate::want::{Design, Machine};

/// When a machine is started, as its option `startup` says it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Order {
    /// As it is.
    Any,
    /// By its role, where nobody has said anything else and the login may say it.
    Role(String),
    /// As the document says.
    Document(String),
}

impl Order {
    /// What the document says of a pool's machines.
    pub fn of(proxmox: &Proxmox, pool: &Pool) -> Order {
        match (&pool.startup, proxmox.start_order) {
            (Some(said), _) => Order::Document(text(said)),
            (None, Some(StartOrder::ByRole)) => Order::Document(by_role(pool.role).to_owned()),
            (None, None) => Order::Role(by_role(pool.role).to_owned()),
            (None, Some(StartOrder::None)) => Order::Any,
        }
    }

    /// What is to be set on a machine with these options, if anything.
    pub fn due(&self, have: &Options, seen: &Seen) -> Option<&str> {
        let is = have.get("startup").map(String::as_str);
        match self {
            Order::Document(wanted) if is.map(canonical) != Some(canonical(wanted)) => Some(wanted),
            // What a person has set stays.
            Order::Role(wanted) if is.is_none() && permitted(seen) => Some(wanted),
            _ => None,
        }
    }
}

/// What others stand on starts first: exports before those that mount them, the API before those that ask it.
fn by_role(role: Role) -> &'static str {
    match role {
        Role::Nfs => "order=1,up=30",
        Role::ControlPlane => "order=2",
        Role::LoadBalancer => "order=3",
        Role::Worker => "order=4",
    }
}

fn text(startup: &Startup) -> String {
    let parts = [("order", startup.order), ("up", startup.up_seconds), ("down", startup.down_seconds)];
    let parts = parts.iter().filter_map(|(key, value)| value.map(|v| format!("{key}={v}")));
    parts.collect::<Vec<_>>().join(",")
}

/// The three numbers; Proxmox also takes the first without its key.
fn canonical(startup: &str) -> [Option<u64>; 3] {
    let all = Properties::parse(startup);
    let number = |key: &str| all.get(key).and_then(|v| v.parse().ok());
    [number("order").or_else(|| all.head.as_deref()?.parse().ok()), number("up"), number("down")]
}

/// True when the login may set a start order, which Proxmox allows to who may change the whole site.
fn permitted(seen: &Seen) -> bool {
    seen.privileges.is_empty() || has(seen, "/", "Sys.Modify")
}

/// Sets start order and protection where they differ. What has not ended its first boot is protected after that.
pub(crate) fn difference(machine: &Machine, have: &Options, seen: &Seen, settled: bool, change: &mut Change) {
    if let Some(wanted) = machine.order.due(have, seen) {
        let is = have.get("startup").map_or("not set", String::as_str);
        change.set("startup", wanted);
        change.why.push(format!("its start order is {is}, not {wanted}"));
    }
    match (machine.protection, on(have, "protection")) {
        (Some(true), false) if settled => {
            change.set("protection", "1");
            change.why.push("it is not protected".to_owned());
        }
        (Some(false), true) => {
            change.set("protection", "0");
            change.why.push("it is protected".to_owned());
        }
        _ => {}
    }
}

/// Says once that no start order is set, where that is for want of a privilege.
pub(crate) fn hold_order(design: &Design, seen: &Seen, roster: &Roster<'_>, plan: &mut Plan<Step>) {
    let unset = |guest: &Guest| guest.config.as_ref().is_some_and(|c| !c.contains_key("startup"));
    let concerned = roster.machines.iter().any(|(machine, state)| {
        matches!(machine.order, Order::Role(_))
            && match state {
                State::Ours(guest, _) => unset(guest),
                State::Missing(_) => true,
                State::Silent(_) | State::NoId => false,
            }
    });
    if !concerned || permitted(seen) {
        return;
    }
    let grant = crate::pve::grant("/", "Sys.Modify", &design.grantee);
    plan.hold(
        HeldKind::Flag,
        "start order",
        "none is set, since the login lacks Sys.Modify on /: after a power loss Proxmox starts the machines of a node \
         by their ids",
        Some(format!("{grant}; or spec.proxmox.startOrder: none")),
    );
}

impl Planner<'_> {
    /// Protects a machine whose first boot has ended.
    pub(crate) fn protect(&mut self, machine: &Machine, at: &At, have: &Options, after: StepId) {
        if machine.protection == Some(true) && !on(have, "protection") {
            let why = if machine.disks.is_empty() { "the document says so" } else { "it has data disks" };
            switch(&mut self.plan, at, "1", &[after], why);
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
            let (why, hint) = foreign(guest);
            self.plan.hold(HeldKind::Unmet, machine.name.as_str(), why, Some(hint));
            return Err(());
        }
        Ok(list(Some(lift(&mut self.plan, &At::of(&machine.name, guest), &after, why))))
    }
}

/// Switches a guest's protection off.
pub(crate) fn lift(plan: &mut Plan<Step>, at: &At, after: &[StepId], why: &str) -> StepId {
    switch(plan, at, "0", after, why)
}

fn switch(plan: &mut Plan<Step>, at: &At, value: &str, after: &[StepId], why: &str) -> StepId {
    let set = [("protection".to_owned(), value.to_owned())].into();
    plan.step_after(after, Step::Configure { at: at.clone(), set, net: None, delete: Vec::new() }, why)
}

/// Why a guest that a person protected stays, and how that is ended.
pub(crate) fn foreign(guest: &Guest) -> (String, String) {
    let program = if guest.is_container() { "pct" } else { "qm" };
    let hint = format!("on node {}: {program} set {} --protection 0", guest.node, guest.vmid);
    ("somebody switched its protection on".to_owned(), hint)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(startup: &str) -> Options {
        [("startup".to_owned(), startup.to_owned())].into()
    }

    #[test]
    fn orders_compare_in_any_form() {
        let seen = Seen::default();
        let wanted = Order::Document("order=1,up=30".into());
        for same in ["order=1,up=30", "up=30,order=1", "1,up=30"] {
            assert_eq!(wanted.due(&options(same), &seen), None, "{same}");
        }
        for other in ["order=2,up=30", "order=1", "order=1,up=30,down=5", "up=30"] {
            assert_eq!(wanted.due(&options(other), &seen), Some("order=1,up=30"), "{other}");
        }
        assert_eq!(wanted.due(&Options::new(), &seen), Some("order=1,up=30"));
    }

    #[test]
    fn a_person_s_order_stays_where_the_document_says_none() {
        let mut seen = Seen::default();
        let role = Order::Role("order=4".into());
        assert_eq!(role.due(&options("order=7"), &seen), None);
        assert_eq!(role.due(&Options::new(), &seen), Some("order=4"));
        seen.privileges.entry("/".into()).or_default().insert("Sys.Audit".into(), 0);
        assert_eq!(role.due(&Options::new(), &seen), None);
        seen.privileges.entry("/".into()).or_default().insert("Sys.Modify".into(), 0);
        assert_eq!(role.due(&Options::new(), &seen), Some("order=4"));
        assert_eq!(Order::Any.due(&options("order=7"), &seen), None);
    }
}
