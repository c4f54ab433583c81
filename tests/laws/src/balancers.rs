//! What the tests of the tools need that look after the load balancers.

use lab::{Action, Clock, Fault, Window};
use serde_json::{Value, json};
use stage::Exit;

use crate::ssh::Site;
use crate::{Case, Trouble};

/// Three load balancers in the lab, and `spec` for them; control planes and workers are addresses that nobody listens
/// at.
///
/// # Panics
/// When a machine does not answer.
#[allow(clippy::unwrap_used, reason = "a test's set-up fails by panicking")]
pub async fn spec(site: &Site) -> Value {
    let mut machines = Vec::new();
    for n in 1..=3 {
        machines.push(site.machine(&format!("lb-{n}"), "load-balancer", 10 + n).await.unwrap());
    }
    for n in 1..=3 {
        machines.push(site.entry(&format!("cp-{n}"), "control-plane", 20 + n));
        machines.push(site.entry(&format!("w-{n}"), "worker", 30 + n));
    }
    json!({
        "vip": { "address": site.address(10), "routerId": 30, "ports": { "http": 7080, "https": 7443, "api": 7643 } },
        "ssh": site.ssh(),
        "machines": machines,
        "kubernetes": {
            "version": "1.36.2", "podCidr": "10.244.0.0/16", "serviceCidr": "10.96.0.0/12", "kubeconfig": "kubeconfig",
        },
    })
}

/// A lab without machines whose document has this `spec`: for what needs no SSH.
///
/// # Panics
/// When the lab does not start.
#[allow(clippy::unwrap_used, reason = "a test's set-up fails by panicking")]
pub fn offline(spec: Value) -> Case {
    Site::new(Clock::ZERO).unwrap().case(spec)
}

/// A fault of one command on a machine.
pub fn ssh(matching: &str, action: Action) -> Fault {
    Fault { window: Window::Ssh, matching: matching.into(), skip: 0, times: 1, action }
}

/// A fault, and how a run that meets it may end.
pub fn trouble(name: &'static str, fault: Fault, exit: Exit) -> Trouble {
    Trouble { name, fault, exits: vec![exit] }
}

/// The faults of a machine that every such tool meets: all of them pass.
pub fn troubles() -> Vec<Trouble> {
    let reload = |machine: &str, action| ssh(&format!("{machine} systemctl reload-or-restart"), action);
    vec![
        trouble("cut before a write", ssh("lb-3 write v1", Action::DropBefore), Exit::Transient),
        trouble("cut after a reload", reload("lb-1", Action::DropAfter), Exit::Transient),
        trouble("a host hangs", reload("lb-1", Action::Hang), Exit::Transient),
        trouble("a reload fails", reload("lb-2", Action::Exit(1, "Job failed.".into())), Exit::Precondition),
    ]
}
