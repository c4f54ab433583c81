//! What the tests of all tools need that keep objects in the cluster.

use lab::{Action, Clock, Fault, Window};
use serde_json::{Value, json};
use stage::{Exit, Tool};

use crate::cluster::Cluster;
use crate::ssh::Site;
use crate::{Case, Trouble};

/// The three nodes of such a cluster: name, last octet, role.
pub const NODES: [(&str, u8, &str); 3] =
    [("cp-1", 21, "control-plane"), ("w-1", 31, "worker"), ("w-2", 32, "worker")];

/// Machines, a cluster of three nodes without a pod network, and a document for both.
///
/// The document has the machines, `vip`, `kubernetes` and `artifacts`; a test adds its tool's section.
///
/// # Panics
/// When the lab does not start.
#[allow(clippy::unwrap_used, reason = "a test's set-up fails by panicking")]
pub async fn start() -> (Site, Cluster, Value) {
    let (site, cluster, mut spec) = empty().await;
    for (name, last, role) in NODES {
        cluster.node(name, site.address(last), role == "control-plane");
        add(&mut spec, site.entry(name, role, last));
    }
    cluster.until("three nodes", |c| c.list("v1", "Node").len() == 3).await.unwrap();
    (site, cluster, spec)
}

/// The same with machines that answer SSH, and `ssh` in the document.
///
/// # Panics
/// When the lab does not start.
#[allow(clippy::unwrap_used, reason = "a test's set-up fails by panicking")]
pub async fn start_with_ssh() -> (Site, Cluster, Value) {
    let (site, cluster, mut spec) = empty().await;
    for (name, last, role) in NODES {
        cluster.node(name, site.address(last), role == "control-plane");
        add(&mut spec, site.machine(name, role, last).await.unwrap());
    }
    spec["ssh"] = site.ssh();
    cluster.until("three nodes", |c| c.list("v1", "Node").len() == 3).await.unwrap();
    (site, cluster, spec)
}

#[allow(clippy::unwrap_used, reason = "a test's set-up fails by panicking")]
async fn empty() -> (Site, Cluster, Value) {
    let site = Site::new(Clock::ZERO).unwrap();
    let cluster = Cluster::start(&site).await.unwrap();
    let spec = json!({
        "vip": cluster.vip(), "machines": [], "kubernetes": cluster.kubernetes(),
        "artifacts": cluster.artifacts(),
    });
    (site, cluster, spec)
}

/// Adds a machine to a document's `spec`.
pub fn add(spec: &mut Value, machine: Value) {
    if let Some(machines) = spec["machines"].as_array_mut() {
        machines.push(machine);
    }
}

/// A fault of the Kubernetes API.
pub fn kube(matching: &str, times: usize, action: Action) -> Fault {
    Fault { window: Window::Kube, matching: matching.into(), skip: 0, times, action }
}

/// The faults of the API that every such tool sits out.
pub fn troubles() -> Vec<Trouble> {
    let trouble = |name, fault| Trouble { name, fault, exits: vec![Exit::Done] };
    vec![
        trouble("the API is overloaded", kube("PATCH", 3, Action::Status(503, "busy".into()))),
        trouble("cut before a write", kube("PATCH", 1, Action::DropBefore)),
        trouble("cut after a write", kube("PATCH", 1, Action::DropAfter)),
    ]
}

/// The seven laws, with these faults beside those of [`troubles`]; prints what was tried.
///
/// # Panics
/// When a law does not hold.
#[allow(
    clippy::panic,
    clippy::print_stdout,
    reason = "a test's check fails by panicking and says what it tried"
)]
pub async fn keeps_the_laws<T: Tool>(more: Vec<Trouble>, make: impl AsyncFn() -> Case) {
    let troubles: Vec<Trouble> = troubles().into_iter().chain(more).collect();
    let summary = crate::check::<T>(&[], &troubles, make).await.unwrap_or_else(|e| panic!("{e}"));
    println!("{summary}");
}
