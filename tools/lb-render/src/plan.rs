//! What is to be done; pure.

use std::fmt;

use cluster_doc::spec::PackageSource;
use fleet::Change;
use fleet::tool::in_turn;
use serde::{Deserialize, Serialize};
use stage::{HeldKind, Plan, StepId};

use crate::config::{CONFIG, digest, mark};
use crate::files::FOLDER;
use crate::seen::{FileSeen, MachineSeen, Seen};
use crate::want::{Balancer, Want};

/// One change on one load balancer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "kebab-case")]
pub enum Step {
    /// Installs the package, which enables and starts its unit.
    Install {
        /// The machine.
        machine: String,
    },
    /// Makes the unit start at boot.
    Enable {
        /// The machine.
        machine: String,
    },
    /// Writes the configuration beside the live one and lets HAProxy test it.
    Test {
        /// The machine.
        machine: String,
        /// The configuration.
        digest: String,
    },
    /// Swaps the configuration in, reloads or starts HAProxy, and sees that it runs with it.
    Load {
        /// The machine.
        machine: String,
        /// The configuration.
        digest: String,
    },
    /// Stops HAProxy for good and removes what is ours; the package stays.
    Remove {
        /// The machine.
        machine: String,
    },
}

impl Step {
    /// The machine that it changes.
    pub fn on(&self) -> &str {
        match self {
            Step::Install { machine }
            | Step::Enable { machine }
            | Step::Test { machine, .. }
            | Step::Load { machine, .. }
            | Step::Remove { machine } => machine,
        }
    }
}

impl Change for Step {
    fn machine(&self) -> Option<&str> {
        Some(self.on())
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Step::Install { machine } => write!(f, "install haproxy on {machine}"),
            Step::Enable { machine } => write!(f, "enable haproxy on {machine}"),
            Step::Test { machine, digest } => write!(f, "write and test configuration {digest} on {machine}"),
            Step::Load { machine, digest } => write!(f, "load configuration {digest} on {machine}"),
            Step::Remove { machine } => write!(f, "stop haproxy and remove its configuration on {machine}"),
        }
    }
}

/// What `apply` does: everything is tested on every machine before anything live is touched; then one machine
/// after the other loads it, the holder of the shared address last.
pub fn plan(want: &Want, seen: &Seen) -> Plan<Step> {
    let mut plan = Plan::new();
    seen.hold_unreachable(&mut plan);
    let mut ready: Vec<StepId> = Vec::new();
    let mut loads: Vec<(&Balancer, &MachineSeen, String)> = Vec::new();
    for balancer in &want.balancers {
        let name = &balancer.name;
        let Some(machine) = seen.machines.get(name) else { continue };
        if held(&mut plan, want, name, machine) {
            continue;
        }
        let mut before = Vec::new();
        if machine.version.is_none() {
            let id = plan.step(Step::Install { machine: name.clone() }, "it is not installed");
            before.push(id);
        } else if !machine.unit.is_enabled() {
            let why = format!("it is {} and would not start at boot", machine.unit.enabled);
            ready.push(plan.step(Step::Enable { machine: name.clone() }, why));
        }
        if let Some(why) = stale(want, balancer, machine) {
            let step = Step::Test { machine: name.clone(), digest: balancer.text.digest.clone() };
            ready.push(plan.step_after(&before, step, why.clone()));
            loads.push((balancer, machine, why));
        } else if let Some(why) = idle(balancer, machine) {
            loads.push((balancer, machine, why));
        }
    }
    loads.sort_by_key(|(_, machine, _)| machine.addresses.contains(&want.vip.address));
    for (balancer, machine, why) in loads {
        let holds = machine.addresses.contains(&want.vip.address);
        let why = if holds { format!("{why}; last, for it holds {}", want.vip.address) } else { why };
        let step = Step::Load { machine: balancer.name.clone(), digest: balancer.text.digest.clone() };
        // One after the other: a configuration that fails to load takes one machine out of service, not three.
        ready = vec![plan.step_after(&ready, step, why)];
    }
    plan
}

/// What keeps a machine from being touched.
fn held(plan: &mut Plan<Step>, want: &Want, name: &str, machine: &MachineSeen) -> bool {
    let (why, hint) = if machine.config == FileSeen::Foreign {
        (
            format!("{CONFIG} is somebody's own: it is neither ours nor as the package brought it"),
            format!("keep what you need of it, then: ssh {name} sudo mv {CONFIG} {CONFIG}.mine"),
        )
    } else if machine.unit.is_masked() {
        ("haproxy.service is masked".to_owned(), format!("ssh {name} sudo systemctl unmask haproxy"))
    } else if machine.version.is_none() && want.packages.source == PackageSource::Present {
        (
            "haproxy is not installed, and spec.packages.source is \"present\"".to_owned(),
            format!("ssh {name} sudo apt-get install haproxy"),
        )
    } else {
        return false;
    };
    plan.hold(HeldKind::Unmet, name, why, Some(hint));
    true
}

/// Why the files on the disk are not those that are wanted.
fn stale(want: &Want, balancer: &Balancer, machine: &MachineSeen) -> Option<String> {
    match &machine.config {
        FileSeen::Absent if machine.version.is_none() => Some("a new load balancer".to_owned()),
        FileSeen::Absent => Some(format!("there is no {CONFIG}")),
        FileSeen::Pristine => Some(format!("{CONFIG} is the package's")),
        FileSeen::Ours(is) if *is != digest(balancer.text.text.as_bytes()) => {
            Some("its configuration differs".to_owned())
        }
        _ if machine.files != want.files.seen() => {
            Some(format!("what lies in {FOLDER} is not what its configuration refers to"))
        }
        _ => None,
    }
}

/// Why HAProxy does not run with the files on the disk.
fn idle(balancer: &Balancer, machine: &MachineSeen) -> Option<String> {
    match &machine.running {
        _ if !machine.unit.is_active() => Some(format!("haproxy is {}", machine.unit.active)),
        None => Some("haproxy's runtime socket does not answer".to_owned()),
        Some(running) if running.description != mark(&balancer.text.digest) => {
            Some("haproxy runs with another configuration than the one on the disk".to_owned())
        }
        Some(_) => None,
    }
}

/// What `destroy` does: one machine after the other, the holder of the shared address last.
pub fn teardown(want: &Want, seen: &Seen) -> Plan<Step> {
    let mut plan = Plan::new();
    seen.hold_unreachable(&mut plan);
    let ours =
        |machine: &MachineSeen| matches!(machine.config, FileSeen::Ours(_)) || !machine.files.is_empty();
    let names = want.balancers.iter().map(|b| &b.name);
    let due =
        names.filter_map(|name| Some((name, seen.machines.get(name)?))).filter(|(_, m)| ours(m)).collect();
    let holds = |machine: &MachineSeen| machine.addresses.contains(&want.vip.address);
    let step = |name: &str| Step::Remove { machine: name.to_owned() };
    in_turn(&mut plan, due, holds, step, "it is ours");
    plan
}
