//! What is to be done; pure.

use std::fmt;
use std::net::Ipv4Addr;

use cluster_doc::spec::PackageSource;
use fleet::Change;
use fleet::tool::in_turn;
use serde::{Deserialize, Serialize};
use stage::{HeldKind, Plan, StepId};

use crate::config::{
    CONFIG, Config, HAPROXY_UNIT, HAPROXY_UNIT_TEXT, HEADER, KEEPALIVED_UNIT, SCRIPT, SCRIPT_TEXT,
};
use crate::seen::{MachineSeen, Seen, holders};
use crate::want::{Balancer, Want};

/// One change, or one proof.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "kebab-case")]
pub enum Step {
    /// Gives the address up for good: stops and disables keepalived, and removes what is ours.
    Retire {
        /// The machine.
        machine: String,
    },
    /// Installs keepalived and arping.
    Install {
        /// The machine.
        machine: String,
    },
    /// Makes the unit start at boot.
    Enable {
        /// The machine.
        machine: String,
    },
    /// Asks the segment whether somebody has the address already, and hears whether somebody has the router id.
    Probe {
        /// The machine that asks.
        machine: String,
        /// Its interface.
        interface: String,
        /// The address.
        address: Ipv4Addr,
        /// The virtual router id.
        router_id: u8,
    },
    /// Installs the check, writes the configuration beside the live one and lets keepalived test it.
    Test {
        /// The machine.
        machine: String,
        /// The interface that carries the address.
        interface: String,
    },
    /// Has systemd tell keepalived that HAProxy ended, and clean up after a keepalived that ended.
    Supervise {
        /// The machine.
        machine: String,
        /// The interface that carries the address.
        interface: String,
    },
    /// Swaps the configuration in, reloads or starts keepalived, reads back what it understands.
    Load {
        /// The machine.
        machine: String,
        /// The interface that carries the address.
        interface: String,
    },
    /// Waits until exactly one machine holds the address and it takes connections.
    Prove {
        /// The machines that are asked.
        machines: Vec<String>,
        /// The address.
        address: Ipv4Addr,
        /// A port that HAProxy listens on.
        port: Option<u16>,
        /// True when the holder may be a machine that cannot be reached.
        elsewhere: bool,
    },
}

impl Change for Step {
    fn machine(&self) -> Option<&str> {
        match self {
            Step::Retire { machine }
            | Step::Install { machine }
            | Step::Enable { machine }
            | Step::Probe { machine, .. }
            | Step::Test { machine, .. }
            | Step::Supervise { machine, .. }
            | Step::Load { machine, .. } => Some(machine),
            Step::Prove { .. } => None,
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Step::Retire { machine } => write!(f, "stop keepalived for good on {machine}"),
            Step::Install { machine } => write!(f, "install keepalived and arping on {machine}"),
            Step::Enable { machine } => write!(f, "enable keepalived on {machine}"),
            Step::Probe { machine, address, router_id, .. } => {
                write!(f, "probe from {machine} that nobody has {address} or the router id {router_id}")
            }
            Step::Test { machine, interface } => {
                write!(f, "write and test the configuration for {interface} on {machine}")
            }
            Step::Supervise { machine, .. } => {
                write!(f, "have systemd watch over HAProxy and keepalived on {machine}")
            }
            Step::Load { machine, interface } => {
                write!(f, "load the configuration for {interface} on {machine}")
            }
            Step::Prove { address, .. } => write!(f, "prove that one machine holds {address}"),
        }
    }
}

/// What `apply` does: machines that leave stop first; everything is tested on every machine before anything live
/// is touched; then one machine after the other loads it, the holder of the address last.
pub fn plan(want: &Want, seen: &Seen) -> Plan<Step> {
    let vip = want.vip.address;
    let mut plan = Plan::new();
    seen.hold_unreachable(&mut plan);
    let mut ready: Vec<StepId> = retire(&mut plan, want, seen);
    let mut loads: Vec<(&Balancer, &MachineSeen, String, String)> = Vec::new();
    let mut installs: Vec<(String, StepId)> = Vec::new();
    let mut supervised: Vec<(String, String, String)> = Vec::new();
    let first_use = holders(seen, vip).is_empty() && !seen.machines.values().any(in_use);
    for balancer in &want.balancers {
        let name = &balancer.name;
        let Some(machine) = seen.machines.get(name) else { continue };
        let Some(interface) = held(&mut plan, want, balancer, machine) else { continue };
        if machine.version.is_none() || !machine.arping {
            let why = if machine.version.is_none() { "keepalived is not installed" } else { "arping is not" };
            installs.push((name.clone(), plan.step(Step::Install { machine: name.clone() }, why)));
        } else if !machine.unit.is_enabled() {
            let why = format!("it is {} and would not start at boot", machine.unit.enabled);
            ready.push(plan.step(Step::Enable { machine: name.clone() }, why));
        }
        if let Some(why) = unsupervised(balancer, machine, &interface) {
            supervised.push((name.clone(), interface.clone(), why));
        }
        if let Some(why) = due(balancer, machine, &interface) {
            loads.push((balancer, machine, interface, why));
        }
    }
    ready.extend(installs.iter().map(|(_, id)| *id));
    if let (true, Some((balancer, _, interface, _))) = (first_use, loads.first()) {
        let of =
            |name: &str| installs.iter().filter(|(n, _)| n == name).map(|(_, id)| *id).collect::<Vec<_>>();
        let (machine, router_id) = (balancer.name.clone(), balancer.instance.router_id);
        let step = Step::Probe { machine, interface: interface.clone(), address: vip, router_id };
        ready.push(plan.step_after(&of(&balancer.name), step, "its first use: both must be free"));
    }
    let tested = ready.clone();
    for (balancer, _, interface, why) in &loads {
        let step = Step::Test { machine: balancer.name.clone(), interface: interface.clone() };
        ready.push(plan.step_after(&tested, step, why.clone()));
    }
    // Beside one another: it takes effect only when a daemon starts or ends.
    let tested = ready.clone();
    for (name, interface, why) in supervised {
        ready.push(plan.step_after(&tested, Step::Supervise { machine: name, interface }, why));
    }
    loads.sort_by_key(|(_, machine, ..)| machine.addresses.contains_key(&vip));
    for (balancer, machine, interface, why) in loads {
        let holds = machine.addresses.contains_key(&vip);
        let why = if holds { format!("{why}; last, for it holds {vip}") } else { why };
        let step = Step::Load { machine: balancer.name.clone(), interface };
        ready = vec![plan.step_after(&ready, step, why)];
    }
    prove(&mut plan, want, seen, &ready);
    plan
}

/// True when keepalived runs there already.
fn in_use(machine: &MachineSeen) -> bool {
    machine.unit.is_active()
}

fn retire(plan: &mut Plan<Step>, want: &Want, seen: &Seen) -> Vec<StepId> {
    let leaving = want.leaving.iter().filter_map(|name| Some((name, seen.machines.get(name)?)));
    let due: Vec<&String> =
        leaving.filter(|(_, m)| !foreign(m) && (in_use(m) || ours(m))).map(|(name, _)| name).collect();
    let step = |name: &String| Step::Retire { machine: name.clone() };
    due.into_iter().map(|name| plan.step(step(name), "it leaves, and its peers no longer know it")).collect()
}

/// True when something of ours is there, and no configuration of somebody else's.
fn ours(machine: &MachineSeen) -> bool {
    let files = [&machine.config, &machine.haproxy_unit, &machine.keepalived_unit];
    !foreign(machine) && files.into_iter().flatten().any(|text| text.starts_with(HEADER))
}

fn foreign(machine: &MachineSeen) -> bool {
    machine.config.as_ref().is_some_and(|text| !text.starts_with(HEADER))
}

/// The machine's interface, unless something keeps it from being touched.
fn held(plan: &mut Plan<Step>, want: &Want, balancer: &Balancer, machine: &MachineSeen) -> Option<String> {
    let name = &balancer.name;
    let own = balancer.instance.source;
    let interface = balancer.interface.clone().or_else(|| machine.addresses.get(&own).cloned());
    let present = want.packages.source == PackageSource::Present;
    let (why, hint) = if foreign(machine) {
        (
            format!("{CONFIG} is somebody's own"),
            format!("keep what you need of it, then: ssh {name} sudo mv {CONFIG} {CONFIG}.mine"),
        )
    } else if machine.unit.is_masked() {
        ("keepalived.service is masked".to_owned(), format!("ssh {name} sudo systemctl unmask keepalived"))
    } else if present && (machine.version.is_none() || !machine.arping) {
        (
            "keepalived or arping is not installed, and spec.packages.source is \"present\"".to_owned(),
            format!("ssh {name} sudo apt-get install keepalived iputils-arping"),
        )
    } else if interface.is_none() {
        (
            format!("no interface of it has the address {own}"),
            "name the interface that carries the shared address in spec.vip.interface".to_owned(),
        )
    } else {
        return interface;
    };
    plan.hold(HeldKind::Unmet, name, why, Some(hint));
    None
}

/// Why a machine is to load its configuration.
fn due(balancer: &Balancer, machine: &MachineSeen, interface: &str) -> Option<String> {
    let instance = &balancer.instance;
    let Some(text) = &machine.config else { return Some("it has no configuration".to_owned()) };
    if instance.text(interface).ok().as_ref() != Some(text) {
        let why = Config::read(text).differs(&instance.config(interface));
        return Some(why.unwrap_or_else(|| "its text differs".to_owned()));
    }
    if machine.script.as_deref() != Some(SCRIPT_TEXT) {
        return Some(format!("{SCRIPT} is not the one that is due"));
    }
    if machine.script_mode != "755 root" {
        return Some(format!("{SCRIPT} is {}; keepalived would not trust it", machine.script_mode));
    }
    if !machine.unit.is_active() {
        return Some(format!("keepalived is {}", machine.unit.active));
    }
    machine.pending.then(|| "keepalived has not read its configuration yet".to_owned())
}

/// Why systemd does not watch over the two daemons as is due.
fn unsupervised(balancer: &Balancer, machine: &MachineSeen, interface: &str) -> Option<String> {
    let keepalived = balancer.instance.unit(interface).ok();
    for (path, is, due) in [
        (HAPROXY_UNIT, &machine.haproxy_unit, Some(HAPROXY_UNIT_TEXT)),
        (KEEPALIVED_UNIT, &machine.keepalived_unit, keepalived.as_deref()),
    ] {
        match is.as_deref() {
            None => return Some(format!("there is no {path}")),
            text if text != due => return Some(format!("{path} is not the one that is due")),
            Some(_) => {}
        }
    }
    if machine.unit.stale || machine.haproxy_stale {
        return Some("systemd has not read its files anew".to_owned());
    }
    let wrong = machine.ended && machine.healthy == Some(true);
    wrong.then(|| "keepalived is told that HAProxy ended, and it serves".to_owned())
}

fn prove(plan: &mut Plan<Step>, want: &Want, seen: &Seen, after: &[StepId]) {
    let holders = holders(seen, want.vip.address);
    let running = |name: &String| seen.machines.contains_key(name) && !is_held(plan, name);
    let machines: Vec<String> =
        want.balancers.iter().map(|b| b.name.clone()).filter(|name| running(name)).collect();
    let elsewhere = !seen.unreachable.is_empty();
    let lost = holders.len() > 1 || (holders.is_empty() && !elsewhere);
    if machines.is_empty() || (plan.is_empty() && !lost) {
        return;
    }
    let why = match holders.as_slice() {
        [] => "nobody holds it".to_owned(),
        [one] => format!("{one} holds it, and what it depends on changes"),
        many => format!("{} hold it at once", many.join(" and ")),
    };
    let step = Step::Prove { machines, address: want.vip.address, port: want.port, elsewhere };
    plan.step_after(after, step, why);
}

fn is_held(plan: &Plan<Step>, name: &str) -> bool {
    plan.held().iter().any(|held| held.what == name)
}

/// What `destroy` does: the holder of the address stops last, so that it does not wander.
pub fn teardown(want: &Want, seen: &Seen) -> Plan<Step> {
    let mut plan = Plan::new();
    seen.hold_unreachable(&mut plan);
    let names = want.balancers.iter().map(|b| &b.name).chain(&want.leaving);
    let due =
        names.filter_map(|name| Some((name, seen.machines.get(name)?))).filter(|(_, m)| ours(m)).collect();
    let holds = |machine: &MachineSeen| machine.addresses.contains_key(&want.vip.address);
    let step = |name: &str| Step::Retire { machine: name.to_owned() };
    // The holder of the address stops last, so that it does not wander.
    in_turn(&mut plan, due, holds, step, "it is ours");
    plan
}
