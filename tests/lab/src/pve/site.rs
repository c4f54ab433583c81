//! The datacenter: version, status, resources, next id, options.

use serde_json::{Value as Json, json};

use super::config::Generation;
use super::dispatch::Call;
use super::hub::Hub;
use super::nodes;
use super::reply::{Answer, Fail, nothing};
use super::state::{Guest, Kind, State};

/// Version and release.
pub(super) fn numbers(hub: &Hub) -> (&'static str, &'static str) {
    match hub.config.generation {
        Generation::V8 => ("8.4.1", "8.4"),
        Generation::V9 => ("9.1.1", "9.1"),
    }
}

/// `GET /version`.
pub(super) fn version(call: &Call) -> Answer {
    let (version, release) = numbers(&call.hub);
    Ok(json!({ "version": version, "release": release, "repoid": "1ab0c0de2f3a4b5c" }).into())
}

/// `GET /access`.
pub(super) fn access(_call: &Call) -> Answer {
    Ok(json!([{ "subdir": "ticket" }, { "subdir": "permissions" }]).into())
}

/// `GET /access/ticket`: a page for browsers once, nothing now.
pub(super) fn login_form(_call: &Call) -> Answer {
    nothing()
}

/// `GET /cluster`.
pub(super) fn index(_call: &Call) -> Answer {
    let names = ["resources", "status", "tasks", "nextid", "ha", "backup", "options"];
    let entries: Vec<Json> = names.iter().map(|n| json!({ "name": n })).collect();
    Ok(Json::Array(entries).into())
}

/// `GET /cluster/status`.
pub(super) fn status(call: &Call) -> Answer {
    let state = call.hub.state();
    let mut list = Vec::new();
    if state.nodes.len() > 1 {
        let name = &call.hub.config.cluster;
        list.push(json!({
            "type": "cluster",
            "id": "cluster",
            "name": name,
            "nodes": state.nodes.len(),
            "quorate": u8::from(state.quorate()),
            "version": state.nodes.len(),
        }));
    }
    for (n, (name, node)) in state.nodes.iter().enumerate() {
        list.push(json!({
            "type": "node",
            "id": format!("node/{name}"),
            "name": name,
            "nodeid": n + 1,
            "ip": node.address,
            "online": u8::from(node.online),
            "local": u8::from(*name == call.entry),
            "level": "",
        }));
    }
    Ok(Json::Array(list).into())
}

/// The mixed view of guests: some fields fresh, some from statistics that are sent every ten seconds.
fn guest(call: &Call, guest: &Guest) -> Json {
    let kind = guest.kind.name();
    let mut view = json!({ "id": format!("{kind}/{}", guest.vmid), "vmid": guest.vmid, "node": guest.node, "type": kind });
    let fresh = guest.changed.elapsed() >= call.hub.world.clock.real(std::time::Duration::from_secs(10));
    if let Some(fields) = view.as_object_mut() {
        for key in ["tags", "lock"] {
            if let Some(value) = guest.config.get(key) {
                fields.insert(key.into(), value.clone().into());
            }
        }
        if let Some(pool) = &guest.pool {
            fields.insert("pool".into(), pool.clone().into());
        }
        fields.insert("status".into(), if fresh { guest.status() } else { guest.stale }.into());
        if fresh || guest.stale != "unknown" {
            for (key, value) in super::qemu::summary(guest) {
                match key.as_str() {
                    "cpus" => drop(fields.insert("maxcpu".into(), value)),
                    "name" | "maxmem" | "maxdisk" | "uptime" => drop(fields.insert(key, value)),
                    _ => {}
                }
            }
            fields.insert("template".into(), u8::from(guest.template()).into());
        }
    }
    view
}

/// `GET /cluster/resources`.
pub(super) fn resources(call: &Call) -> Answer {
    let state: &State = &call.hub.state();
    let wanted = |kind: &str| call.text("type").is_none_or(|t| t == kind);
    let may = |path: String, privilege: &str| call.hub.may(state, &call.who, &path, privilege);
    let mut list = Vec::new();
    if wanted("vm") {
        let seen = state.guests.values().filter(|g| may(format!("/vms/{}", g.vmid), "VM.Audit"));
        list.extend(seen.map(|g| guest(call, g)));
    }
    if wanted("node") {
        list.extend(state.nodes.iter().map(|(name, node)| nodes::view(call, state, name, node)));
    }
    if wanted("storage") {
        for (name, node) in state.nodes.iter() {
            let seen = state
                .storages
                .values()
                .filter(|s| s.on(name) && may(format!("/storage/{}", s.name), "Datastore.Audit"));
            for storage in seen {
                list.push(json!({
                    "id": format!("storage/{name}/{}", storage.name),
                    "type": "storage",
                    "node": name,
                    "storage": storage.name,
                    "plugintype": storage.kind.name(),
                    "content": storage.content.join(","),
                    "shared": u8::from(storage.kind.shared()),
                    "status": if node.online { "available" } else { "unknown" },
                    "maxdisk": storage.size,
                    "disk": state.used(&storage.name, name),
                }));
            }
        }
    }
    Ok(Json::Array(list).into())
}

/// `GET /cluster/nextid`: a number as text, as real servers send it.
pub(super) fn next_id(call: &Call) -> Answer {
    let state = call.hub.state();
    if let Some(vmid) = call.number("vmid") {
        return match state.guests.get(&(vmid as u32)) {
            Some(there) => {
                let kind = if there.kind == Kind::Qemu { "VM" } else { "CT" };
                Err(Fail::parameter("vmid", format!("{kind} {vmid} already exists")))
            }
            None => Ok(vmid.to_string().into()),
        };
    }
    let free = (100..1_000_000).find(|id| !state.guests.contains_key(id));
    Ok(free.unwrap_or(1_000_000).to_string().into())
}

/// `GET /cluster/options`.
pub(super) fn options(_call: &Call) -> Answer {
    Ok(json!({ "keyboard": "en-us", "mac_prefix": "BC:24:11" }).into())
}
