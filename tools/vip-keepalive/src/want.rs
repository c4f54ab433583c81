//! What the operator wants: every refusal of input is here.

use cluster_doc::spec::{Packages, Role, Ssh, Vip};
use cluster_doc::{Document, Machine, Pointer, Refusals, Section};
use fleet::{Route, Wanted};
use serde::Deserialize;
use stage::{Failure, Site};

use crate::config::Instance;

/// The sections that vip-keepalive reads.
pub const READS: &[Section] = &[
    Section::Network,
    Section::Vip,
    Section::Ssh,
    Section::Pools,
    Section::Machines,
    Section::LoadBalancer,
    Section::Packages,
];

/// The highest priority; each machine after the first has ten less, so that no two are alike.
const TOP: u8 = 150;
const STEP: u8 = 10;
/// More machines than this carry no address better.
const MOST: usize = 5;

/// keepalived on each load balancer.
pub struct Want {
    /// The load balancers in the document's order, which is that of their priorities.
    pub balancers: Vec<Balancer>,
    /// Load balancers that the document no longer has: they give the address up for good.
    pub leaving: Vec<String>,
    /// The shared address.
    pub vip: Vip,
    /// A port that HAProxy listens on, for the proof that the address serves.
    pub port: Option<u16>,
    /// Where packages come from.
    pub packages: Packages,
    /// How the machines are reached; a document without `spec.ssh` can only be rendered.
    pub route: Result<Route, Failure>,
}

/// One load balancer.
pub struct Balancer {
    /// Its name.
    pub name: String,
    /// What its keepalived does.
    pub instance: Instance,
    /// The interface that the document names.
    pub interface: Option<String>,
    /// The interface for `render`, which asks no machine: the document's, the last run's, or a cloud image's.
    pub likely: String,
}

impl Wanted for Want {
    fn route(&self) -> Result<&Route, Failure> {
        self.route.as_ref().map_err(Clone::clone)
    }
}

impl Want {
    /// What the check asks for, on every machine alike.
    pub fn monitor(&self) -> &str {
        self.balancers.first().map(|b| b.instance.monitor.as_str()).unwrap_or_default()
    }

    /// The load balancer of this name.
    ///
    /// # Errors
    /// Exit 1: a step names only machines of the document.
    pub fn balancer(&self, name: &str) -> Result<&Balancer, Failure> {
        let found = self.balancers.iter().find(|b| b.name == name);
        found.ok_or_else(|| Failure::internal(format!("{name} is no load balancer")))
    }
}

#[derive(Deserialize, Default)]
struct Status {
    #[serde(default)]
    machines: Vec<MachineStatus>,
}

#[derive(Deserialize)]
struct MachineStatus {
    name: String,
    interface: String,
}

/// The meaning of a document.
///
/// # Errors
/// Exit 3 for the document.
pub fn want(doc: &Document, site: &Site) -> Result<Want, Failure> {
    let spec = doc.spec(READS)?;
    let vip = spec.vip().map_err(|e| doc.locate(e))?.clone();
    let machines = doc.machines(&spec);
    let (leaving, present): (Vec<&Machine>, Vec<&Machine>) =
        machines.iter().filter(|m| m.role == Role::LoadBalancer).partition(|m| m.leaving);
    if !(2..=MOST).contains(&present.len()) {
        let key = if spec.pools.is_some() { "pools" } else { "machines" };
        let why = format!(
            "holds {} machines of the role \"load-balancer\"; a shared address needs 2 to {MOST}",
            present.len()
        );
        return Err(doc.locate(Refusals::one(Pointer::root().key("spec").key(key), why)).into());
    }
    let has = |role: Role| machines.iter().any(|m| m.role == role);
    let port = match () {
        () if has(Role::ControlPlane) => Some(vip.ports.api.get()),
        () if has(Role::Worker) => Some(vip.ports.http.get()),
        () => None,
    };
    let stats_port = spec.load_balancer.clone().unwrap_or_default().stats_port;
    let status: Status = doc.status("vip-keepalive").unwrap_or_default();
    let balancer = |(n, machine): (usize, &&Machine)| {
        let last = status.machines.iter().find(|m| m.name == machine.name).map(|m| m.interface.clone());
        let interface = vip.interface.as_ref().map(ToString::to_string);
        Balancer {
            name: machine.name.clone(),
            instance: Instance {
                name: machine.name.clone(),
                source: machine.address,
                peers: present.iter().map(|m| m.address).filter(|a| *a != machine.address).collect(),
                vip: vip.address,
                router_id: vip.router_id.get(),
                // Five machines at most: no underflow.
                priority: TOP.saturating_sub(STEP.saturating_mul(n as u8)),
                advert_ms: vip.advert_interval_ms,
                monitor: format!("http://127.0.0.1:{stats_port}/healthz"),
            },
            likely: interface.clone().or(last).unwrap_or_else(|| "eth0".to_owned()),
            interface,
        }
    };
    let route = |ssh: &Ssh| Route::new(present.iter().chain(&leaving).copied(), ssh, site);
    Ok(Want {
        balancers: present.iter().enumerate().map(balancer).collect(),
        leaving: leaving.iter().map(|m| m.name.clone()).collect(),
        port,
        packages: spec.packages.clone().unwrap_or_default(),
        route: spec.ssh().map(route).map_err(|missing| {
            Failure::from(doc.locate(missing))
                .hint("without spec.ssh only render and lint work: vip-keepalive render --dir DIR")
        }),
        vip,
    })
}
