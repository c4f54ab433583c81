//! Virtual machines.

pub mod agent;
pub mod change;
pub mod clone;
pub mod create;
pub mod destroy;
pub mod disks;
pub mod drives;
pub mod migrate;
pub mod options;
pub mod power;
pub mod show;
pub mod snapshot;

use serde_json::{Map, Value as Json, json};

use super::dispatch::Call;
use super::reply::Answer;
use super::state::{Guest, Kind};

/// The list of a guest's sub-paths.
pub fn index() -> Answer {
    let names = ["config", "pending", "status", "snapshot", "agent", "clone", "resize"];
    let entries: Vec<Json> = names.iter().map(|n| json!({ "subdir": n })).collect();
    Ok(Json::Array(entries).into())
}

/// What lists and `status/current` say of a guest.
pub fn summary(guest: &Guest) -> Map<String, Json> {
    let number =
        |key: &str, default: u64| guest.config.get(key).and_then(|v| v.parse().ok()).unwrap_or(default);
    let mut view = Map::new();
    view.insert("vmid".into(), guest.vmid.into());
    view.insert("name".into(), guest.name().into());
    view.insert("status".into(), guest.status().into());
    view.insert("cpus".into(), (number("cores", 1) * number("sockets", 1)).into());
    view.insert("maxmem".into(), (number("memory", 512) << 20).into());
    view.insert("maxdisk".into(), drives::system_size(guest).into());
    let uptime = guest.running.as_ref().map_or(0, |r| r.since.elapsed().as_secs());
    view.insert("uptime".into(), uptime.into());
    if let Some(running) = &guest.running {
        view.insert("pid".into(), running.pid.into());
    }
    if guest.template() {
        view.insert("template".into(), 1.into());
    }
    for key in ["tags", "lock"] {
        if let Some(value) = guest.config.get(key) {
            view.insert(key.into(), value.clone().into());
        }
    }
    view
}

/// `GET /nodes/{node}/qemu` and `…/lxc`: live, and what the caller may see.
pub fn list(call: &Call, kind: Kind) -> Answer {
    let state = call.hub.state();
    let here = state.guests.values().filter(|g| g.kind == kind && g.node == call.node());
    let seen = here.filter(|g| call.hub.may(&state, &call.who, &format!("/vms/{}", g.vmid), "VM.Audit"));
    let list: Vec<Json> = seen.map(|g| Json::Object(summary(g))).collect();
    Ok(Json::Array(list).into())
}
