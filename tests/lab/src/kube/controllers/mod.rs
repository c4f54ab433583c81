//! Controllers, scheduler and kubelets: plain functions over the store, run in passes until nothing changes.
//!
//! A latency is a question: [`Plant::due`] says whether it has passed since it was first asked for, and the earliest
//! open one is when the next pass comes. With a clock of zero everything settles in one go.

pub(crate) mod bootstrap;
pub(crate) mod budgets;
pub(crate) mod calico;
pub(crate) mod certificates;
pub(crate) mod certmanager;
pub(crate) mod daemons;
pub(crate) mod deployments;
pub(crate) mod gc;
pub(crate) mod jobs;
pub(crate) mod namespaces;
pub(crate) mod nodeports;
pub(crate) mod nodes;
pub(crate) mod pods;
pub(crate) mod replicas;
pub(crate) mod scheduler;
pub(crate) mod services;
pub(crate) mod stateful;
pub(crate) mod storage;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;

use self::nodeports::NodePorts;
use self::nodes::Machine;
use super::deletion::DeleteOptions;
use super::status::Status;
use super::store::{Store, hash, key_of};
use super::verbs::{Call, now};
use crate::Clock;

/// What the controllers know beside the objects: the machines and the latencies that run.
#[derive(Debug)]
pub(crate) struct Plant {
    clock: Clock,
    now: Instant,
    timers: BTreeMap<String, Instant>,
    asked: BTreeSet<String>,
    pub machines: BTreeMap<String, Machine>,
    pub ports: NodePorts,
    /// What the controller manager signs with: the CA's certificate and key (PEM).
    pub signer: Option<(String, String)>,
    collected: u64,
    /// What the controllers of workloads have seen.
    weighed: Option<u64>,
}

impl Plant {
    pub(crate) fn new(clock: Clock) -> Plant {
        Plant {
            clock,
            now: Instant::now(),
            timers: BTreeMap::new(),
            asked: BTreeSet::new(),
            machines: BTreeMap::new(),
            ports: NodePorts::default(),
            signer: None,
            collected: 0,
            weighed: None,
        }
    }

    /// When the next latency ends.
    pub(crate) fn next(&self) -> Option<Instant> {
        self.timers.values().filter(|at| **at > self.now).min().copied()
    }

    /// True when this nominal time has passed since the first question with this name.
    pub(crate) fn due(&mut self, name: String, nominal: Duration) -> bool {
        let at = *self.timers.entry(name.clone()).or_insert(self.now + self.clock.real(nominal));
        self.asked.insert(name);
        at <= self.now
    }

    /// True when latencies are not scaled away altogether.
    pub(crate) fn has_time(&self) -> bool {
        !self.clock.real(Duration::from_secs(1)).is_zero()
    }

    // The controller manager and the scheduler are static pods: they run once a control plane's kubelet has.
    fn manager_runs(&self) -> bool {
        self.machines.values().any(|m| m.kubelet.control_plane)
    }
}

/// One pass of everything.
pub(crate) fn pass(store: &mut Store, plant: &mut Plant) {
    plant.now = Instant::now();
    plant.asked.clear();
    nodes::kubelets(store, plant);
    certificates::kubelets(store, plant);
    if plant.manager_runs() {
        namespaces::run(store);
        gc::run(store, plant);
        nodes::lifecycle(store, plant);
        deployments::run(store, plant);
        let news = plant.weighed.replace(store.weight) != Some(store.weight);
        if news {
            replicas::run(store);
            daemons::run(store);
            stateful::run(store);
        }
        jobs::run(store, plant);
        storage::run(store, plant);
        if news {
            scheduler::run(store);
        }
        pods::run(store, plant);
        if news {
            services::run(store);
            budgets::run(store);
        }
        calico::run(store, plant);
        certmanager::run(store);
        certificates::approver(store);
        certificates::signer(store, plant);
        bootstrap::signer(store);
    }
    for name in names(store, "apiservices.apiregistration.k8s.io") {
        store.judge_api_service(&name.1);
    }
    nodeports::run(store, plant);
    let Plant { timers, asked, .. } = plant;
    timers.retain(|name, _| asked.contains(name));
}

/// Namespace and name of all objects of a store.
pub(crate) fn names(store: &Store, of: &str) -> Vec<(String, String)> {
    store.list(of, None).map(|o| key_of(o)).collect()
}

/// What a path of plain names leads to: `Value::pointer` without its escapes, which cost two strings a name.
pub(crate) fn at<'v>(value: &'v Value, path: &str) -> Option<&'v Value> {
    path.split('/').skip(1).try_fold(value, |at, name| match at {
        Value::Array(all) => all.get(name.parse::<usize>().ok()?),
        other => other.get(name),
    })
}

/// A text field, or nothing.
pub(crate) fn text<'v>(value: &'v Value, pointer: &str) -> &'v str {
    at(value, pointer).and_then(Value::as_str).unwrap_or_default()
}

/// A number field, or 0.
pub(crate) fn number(value: &Value, pointer: &str) -> i64 {
    at(value, pointer).and_then(Value::as_i64).unwrap_or(0)
}

/// A list field, or nothing.
pub(crate) fn list<'v>(value: &'v Value, pointer: &str) -> &'v [Value] {
    at(value, pointer).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// True while an object is being deleted.
pub(crate) fn going(object: &Value) -> bool {
    object["metadata"].get("deletionTimestamp").is_some()
}

/// The manager of most writes.
pub(crate) const MANAGER: &str = "kube-controller-manager";

/// Creates an object as a component.
pub(crate) fn create(store: &mut Store, manager: &str, object: Value) -> Result<Value, Status> {
    let Some(res) = store.resource_of_kind(text(&object, "/apiVersion"), text(&object, "/kind")) else {
        return Err(Status::unknown_to_lab(text(&object, "/kind")));
    };
    let ns = text(&object, "/metadata/namespace").to_owned();
    let mut call = Call { sub: "whole".into(), ..Call::component(manager) };
    store.create(&res, &ns, object, &mut call)
}

/// Creates an object unless it is there; a refusal waits for the next pass.
pub(crate) fn ensure(store: &mut Store, manager: &str, object: Value) {
    let Some(res) = store.resource_of_kind(text(&object, "/apiVersion"), text(&object, "/kind")) else {
        return;
    };
    let (ns, name) = key_of(&object);
    if store.get(&res.store(), &ns, &name).is_none() {
        let _ = create(store, manager, object);
    }
}

/// Writes a changed object.
pub(crate) fn update(store: &mut Store, manager: &str, object: Value) {
    let Some(res) = store.resource_of_kind(text(&object, "/apiVersion"), text(&object, "/kind")) else {
        return;
    };
    let (ns, name) = key_of(&object);
    let mut call = Call::component(manager);
    if let Err(status) = store.update(&res, &ns, &name, object, &mut call) {
        tracing::debug!(name, message = status.message(), "a controller's update was refused");
    }
}

/// Writes a status when it differs.
pub(crate) fn set_status(store: &mut Store, manager: &str, object: &Value, status: Value) {
    if object["status"] == status {
        return;
    }
    let Some(res) = store.resource_of_kind(text(object, "/apiVersion"), text(object, "/kind")) else {
        return;
    };
    let (ns, name) = key_of(object);
    let mut wanted = object.clone();
    wanted["status"] = status;
    if let Some(meta) = wanted["metadata"].as_object_mut() {
        meta.shift_remove("resourceVersion");
    }
    let mut call = Call::component(manager).on("status");
    if let Err(status) = store.update(&res, &ns, &name, wanted, &mut call) {
        tracing::debug!(name, message = status.message(), "a controller's status was refused");
    }
}

/// Deletes an object in the background.
pub(crate) fn delete(store: &mut Store, of: &str, ns: &str, name: &str, grace: Option<i64>) {
    if let Some(res) = store.resource_of_store(of) {
        let options = DeleteOptions { grace, ..DeleteOptions::default() };
        // Gone already is as good.
        let _ = store.delete(&res, ns, name, &options, &Call::component(MANAGER));
    }
}

/// Sets a condition in a list; its transition time stays while its status does.
pub(crate) fn condition(conditions: &mut Vec<Value>, kind: &str, status: &str, reason: &str, message: &str) {
    let found = conditions.iter_mut().find(|c| c["type"] == kind);
    match found {
        Some(c) => {
            if c["status"] != status {
                c["lastTransitionTime"] = now().into();
                c["status"] = status.into();
            }
            c["reason"] = reason.into();
            c["message"] = message.into();
        }
        None => conditions.push(json!({"type": kind, "status": status, "lastTransitionTime": now(),
            "reason": reason, "message": message})),
    }
}

/// The conditions of an object, to be changed.
pub(crate) fn conditions(object: &Value) -> Vec<Value> {
    list(object, "/status/conditions").to_vec()
}

/// True when a condition holds.
pub(crate) fn holds(object: &Value, kind: &str) -> bool {
    list(object, "/status/conditions").iter().any(|c| c["type"] == kind && c["status"] == "True")
}

/// The owner reference of a controller.
pub(crate) fn owner(object: &Value) -> Value {
    json!({"apiVersion": object["apiVersion"], "kind": object["kind"], "name": object["metadata"]["name"],
        "uid": object["metadata"]["uid"], "controller": true, "blockOwnerDeletion": true})
}

/// True when the object is controlled by the one of this uid.
pub(crate) fn owned_by(object: &Value, uid: &str) -> bool {
    list(object, "/metadata/ownerReferences").iter().any(|o| o["controller"] == true && o["uid"] == uid)
}

/// The objects of a namespace that one controls.
pub(crate) fn children(store: &Store, of: &str, owner: &Value) -> Vec<Arc<Value>> {
    let uid = text(owner, "/metadata/uid");
    store.list(of, Some(text(owner, "/metadata/namespace"))).filter(|o| owned_by(o, uid)).cloned().collect()
}

/// Writes an event, once for each thing that it says.
pub(crate) fn event(store: &mut Store, about: &Value, kind: &str, reason: &str, message: &str, from: &str) {
    let ns = match text(about, "/metadata/namespace") {
        "" => "default",
        ns => ns,
    };
    let uid = text(about, "/metadata/uid");
    let name = format!("{}.{}", text(about, "/metadata/name"), hash(&json!([uid, reason, message])));
    if store.get("events", ns, &name).is_some() || store.get("namespaces", "", ns).is_none_or(|n| going(n)) {
        return;
    }
    let at = now();
    let object = json!({"apiVersion": "v1", "kind": "Event", "metadata": {"name": name, "namespace": ns},
        "involvedObject": {"apiVersion": about["apiVersion"], "kind": about["kind"], "name": about["metadata"]["name"],
            "namespace": about["metadata"]["namespace"], "uid": uid, "resourceVersion": about["metadata"]["resourceVersion"]},
        "type": kind, "reason": reason, "message": message, "firstTimestamp": at, "lastTimestamp": at, "count": 1,
        "source": {"component": from}, "reportingComponent": from, "reportingInstance": ""});
    let _ = create(store, from, object);
}

/// A count or a percentage of `whole`.
pub(crate) fn share(value: &Value, whole: i64, up: bool) -> i64 {
    match value {
        Value::String(text) => {
            let percent: i64 = text.trim_end_matches('%').parse().unwrap_or(0);
            if up { (percent * whole + 99) / 100 } else { percent * whole / 100 }
        }
        other => other.as_i64().unwrap_or(0),
    }
}
