//! What a machine's configuration and status look like from outside.

use serde_json::{Map, Value as Json, json};

use super::super::boot;
use super::super::dispatch::Call;
use super::super::reply::{Answer, Fail, nothing};
use super::super::schema::Kind as Type;
use super::super::state::{Guest, Kind, Options};
use super::options;

/// A stored value as the API shows it: whole numbers and booleans as numbers, secrets as stars.
fn shown(call: &Call, kind: Kind, option: &str, value: &str) -> Json {
    let path = match kind {
        Kind::Qemu => "/nodes/{node}/qemu/{vmid}/config",
        Kind::Lxc => "/nodes/{node}/lxc/{vmid}/config",
    };
    let route = call.hub.schema.routes.iter().find(|r| r.method == "PUT" && r.path == path);
    let look = route.and_then(|r| r.params.get(option));
    match look.map(|l| l.kind) {
        _ if option == "cipassword" => "**********".into(),
        _ if option == "description" => format!("{}\n", value.trim_end()).into(),
        Some(Type::Int | Type::Bool) => value.parse::<i64>().map_or_else(|_| value.into(), Json::from),
        _ => value.into(),
    }
}

/// `GET …/config`: with what is pending, unless `current` is set.
pub fn config(call: &Call, kind: Kind) -> Answer {
    let state = call.hub.state();
    let guest = state.guest(kind, call.node(), call.vmid())?;
    let mut config: Options = match call.text("snapshot") {
        Some(name) => {
            let found = guest.snapshots.get(name);
            found.ok_or_else(|| Fail::die(format!("snapshot '{name}' does not exist")))?.config.clone()
        }
        None => guest.config.clone(),
    };
    if !call.flag("current") && call.text("snapshot").is_none() {
        for (option, value) in &guest.pending {
            match value {
                Some(value) => drop(config.insert(option.clone(), value.clone())),
                None => drop(config.remove(option)),
            }
        }
    }
    let mut view: Map<String, Json> =
        config.iter().map(|(option, value)| (option.clone(), shown(call, kind, option, value))).collect();
    view.insert("digest".into(), guest.digest().into());
    Ok(Json::Object(view).into())
}

/// `GET …/pending`.
pub fn pending(call: &Call, kind: Kind) -> Answer {
    let state = call.hub.state();
    let guest = state.guest(kind, call.node(), call.vmid())?;
    let mut keys: Vec<&String> = guest.config.keys().chain(guest.pending.keys()).collect();
    keys.sort();
    keys.dedup();
    let entry = |key: &String| {
        let mut entry = Map::new();
        entry.insert("key".into(), key.clone().into());
        if let Some(value) = guest.config.get(key) {
            entry.insert("value".into(), shown(call, kind, key, value));
        }
        match guest.pending.get(key) {
            Some(Some(value)) => drop(entry.insert("pending".into(), shown(call, kind, key, value))),
            Some(None) => drop(entry.insert("delete".into(), 1.into())),
            None => {}
        }
        Json::Object(entry)
    };
    Ok(Json::Array(keys.into_iter().map(entry).collect()).into())
}

/// `GET …/status/current`.
pub fn current(call: &Call, kind: Kind) -> Answer {
    let state = call.hub.state();
    let guest = state.guest(kind, call.node(), call.vmid())?;
    let mut view = super::summary(guest);
    let sid = format!("{}:{}", if kind == Kind::Qemu { "vm" } else { "ct" }, guest.vmid);
    let ha = match state.ha.resources.get(&sid) {
        Some(resource) => {
            json!({ "managed": 1, "state": resource.get("state").cloned().unwrap_or("started".into()) })
        }
        None => json!({ "managed": 0 }),
    };
    view.insert("ha".into(), ha);
    if kind == Kind::Qemu {
        view.insert("qmpstatus".into(), guest.status().into());
        if guest.config.get("agent").is_some_and(|a| agent_on(a)) {
            view.insert("agent".into(), 1.into());
        }
    } else {
        view.insert("type".into(), "lxc".into());
    }
    Ok(Json::Object(view).into())
}

/// True when an `agent` option switches the agent on.
pub fn agent_on(agent: &str) -> bool {
    agent.split(',').any(|p| matches!(p.trim_start_matches("enabled="), "1" | "on" | "yes" | "true"))
}

/// `GET …/cloudinit`: options that the drive does not hold yet.
pub fn cloudinit(call: &Call) -> Answer {
    let state = call.hub.state();
    let guest = state.guest(Kind::Qemu, call.node(), call.vmid())?;
    let options: Vec<Json> = guest
        .config
        .iter()
        .filter(|(k, _)| options::cloudinit(k))
        .map(|(k, v)| json!({ "key": k, "value": shown(call, Kind::Qemu, k, v) }))
        .collect();
    Ok(Json::Array(options).into())
}

/// `PUT …/cloudinit`: writes the drive anew.
pub fn regenerate(call: &Call) -> Answer {
    let mut state = call.hub.state();
    let guest = state.guest(Kind::Qemu, call.node(), call.vmid())?;
    if !super::drives::all(&guest.config).any(|(_, d)| d.cloudinit()) {
        return Err(Fail::die("no cloud-init drive found"));
    }
    let instance = boot::instance(guest);
    state.guest_mut(Kind::Qemu, call.node(), call.vmid())?.instance = Some(instance);
    nothing()
}

/// `GET …/cloudinit/dump`.
pub fn dump(call: &Call) -> Answer {
    let state = call.hub.state();
    let guest: &Guest = state.guest(Kind::Qemu, call.node(), call.vmid())?;
    let text = match call.text("type").unwrap_or_default() {
        "user" => boot::user_data(guest),
        "network" => boot::network_data(guest),
        _ => format!("instance-id: {}\n", boot::instance(guest)),
    };
    Ok(text.into())
}
