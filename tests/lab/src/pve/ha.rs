//! High availability: resources, rules (9), groups (8). The manager's own decisions are not played out:
//! a node that goes down takes its guests with it.

use std::time::{Duration, Instant};

use serde_json::{Map, Value as Json, json};

use super::config::Generation;
use super::dispatch::Call;
use super::reply::{Answer, Fail, nothing};
use super::schema::Errors;
use super::state::{Kind, State};

fn sid(call: &Call, state: &State) -> String {
    let given = call.text("sid").unwrap_or_default();
    match given.parse::<u32>() {
        Ok(vmid) => {
            let container = state.guests.get(&vmid).is_some_and(|g| g.kind == Kind::Lxc);
            format!("{}:{vmid}", if container { "ct" } else { "vm" })
        }
        Err(_) => given.to_owned(),
    }
}

fn words(text: &str) -> Vec<String> {
    text.split([',', ';', ' ']).filter(|w| !w.is_empty()).map(str::to_owned).collect()
}

fn fields(call: &Call, not: &[&str]) -> Map<String, Json> {
    let sent =
        call.values.iter().filter(|(k, _)| !not.contains(&k.as_str()) && *k != "delete" && *k != "digest");
    let value = |text: String| text.parse::<u64>().map_or_else(|_| Json::from(text), Json::from);
    sent.map(|(k, v)| (k.clone(), value(v.text()))).collect()
}

fn drop_deleted(call: &Call, entry: &mut Map<String, Json>) {
    for gone in words(call.text("delete").unwrap_or_default()) {
        entry.remove(&gone);
    }
}

/// `GET /cluster/ha/status/current`.
pub(super) fn current(call: &Call) -> Answer {
    let state = call.hub.state();
    let master = state.nodes.keys().next().cloned().unwrap_or_default();
    let mut list = vec![json!({
        "id": "quorum", "type": "quorum", "node": call.entry, "status": "OK", "quorate": u8::from(state.quorate()),
    })];
    if !state.ha.resources.is_empty() {
        list.push(json!({ "id": "master", "type": "master", "node": master, "status": format!("{master} (active)") }));
    }
    for (sid, resource) in &state.ha.resources {
        let vmid = sid.split(':').nth(1).and_then(|v| v.parse::<u32>().ok());
        let guest = vmid.and_then(|v| state.guests.get(&v));
        let wish = resource.get("state").and_then(Json::as_str).unwrap_or("started").to_owned();
        let is = match guest.is_some_and(|g| g.running.is_some()) {
            _ if state.ha.errors.contains(sid) => "error",
            true => "started",
            false => "stopped",
        };
        list.push(json!({
            "id": format!("service:{sid}"),
            "type": "service",
            "sid": sid,
            "state": is,
            "crm_state": is,
            "request_state": wish,
            "node": guest.map(|g| g.node.clone()).unwrap_or_default(),
            "status": format!("{sid} ({is})"),
        }));
    }
    Ok(Json::Array(list).into())
}

/// `GET /cluster/ha/resources`.
pub(super) fn resources(call: &Call) -> Answer {
    let state = call.hub.state();
    let wanted = |sid: &str| call.text("type").is_none_or(|t| sid.starts_with(t));
    let list: Vec<Json> =
        state.ha.resources.iter().filter(|(s, _)| wanted(s)).map(|(_, r)| Json::Object(r.clone())).collect();
    Ok(Json::Array(list).into())
}

/// `GET /cluster/ha/resources/{sid}`.
pub(super) fn resource(call: &Call) -> Answer {
    let state = call.hub.state();
    let sid = sid(call, &state);
    let found = state.ha.resources.get(&sid);
    Ok(Json::Object(found.cloned().ok_or_else(|| Fail::die(format!("no such resource '{sid}'")))?).into())
}

/// `POST /cluster/ha/resources`.
pub(super) fn add_resource(call: &Call) -> Answer {
    let mut state = call.hub.state();
    let sid = sid(call, &state);
    let failed = |why: String| Fail::die(format!("create resource failed: {why}"));
    let vmid = sid.split(':').nth(1).and_then(|v| v.parse::<u32>().ok());
    let kind = match sid.split(':').next() {
        Some("vm") => Kind::Qemu,
        Some("ct") => Kind::Lxc,
        other => {
            return Err(Fail::die(format!("unable to detect type from sid '{}'", other.unwrap_or_default())));
        }
    };
    if state.ha.resources.contains_key(&sid) {
        return Err(failed(format!("resource ID '{sid}' already defined")));
    }
    if !vmid.and_then(|v| state.guests.get(&v)).is_some_and(|g| g.kind == kind) {
        return Err(failed(format!("resource '{sid}' does not exist in cluster")));
    }
    if let Some(group) = call.text("group") {
        if call.hub.config.generation == Generation::V9 {
            return Err(Fail::die("invalid parameter 'group': ha groups have been migrated to rules"));
        }
        if !state.ha.groups.contains_key(group) {
            return Err(failed(format!("HA group '{group}' does not exist")));
        }
    }
    let mut resource = fields(call, &["sid", "type"]);
    resource.insert("sid".into(), sid.clone().into());
    resource.insert("type".into(), sid[..2].into());
    resource.entry("state").or_insert("started".into());
    state.ha.resources.insert(sid, resource);
    state.ha.woken.get_or_insert_with(Instant::now);
    nothing()
}

/// `PUT /cluster/ha/resources/{sid}`.
pub(super) fn change_resource(call: &Call) -> Answer {
    let mut state = call.hub.state();
    let sid = sid(call, &state);
    let failed = || Fail::die(format!("update resource failed: no such resource '{sid}'"));
    let disabled = matches!(call.text("state"), Some("disabled" | "stopped"));
    if state.ha.errors.contains(&sid) && call.text("state").is_some() && !disabled {
        return Err(Fail::die(format!(
            "update resource failed: service '{sid}' in error state, must be disabled and fixed first"
        )));
    }
    if disabled {
        state.ha.errors.remove(&sid);
    }
    let resource = state.ha.resources.get_mut(&sid).ok_or_else(failed)?;
    drop_deleted(call, resource);
    resource.extend(fields(call, &["sid"]));
    nothing()
}

/// `DELETE /cluster/ha/resources/{sid}`; in 9 it leaves the rules as well.
pub(super) fn remove_resource(call: &Call) -> Answer {
    let mut state = call.hub.state();
    let sid = sid(call, &state);
    if state.ha.resources.remove(&sid).is_none() {
        return Err(Fail::die(format!("cannot delete service '{sid}', not HA managed!")));
    }
    if call.hub.config.generation == Generation::V9 && call.text("purge") != Some("0") {
        forget(&mut state, &sid);
    }
    nothing()
}

/// Takes a resource out of all rules; a rule that it was alone in goes with it.
pub(super) fn forget(state: &mut State, sid: &str) {
    state.ha.rules.retain(|_, rule| {
        let list = words(rule.get("resources").and_then(Json::as_str).unwrap_or_default());
        let left: Vec<String> = list.iter().filter(|r| *r != sid).cloned().collect();
        let alone = left.is_empty() && !list.is_empty();
        rule.insert("resources".into(), left.join(",").into());
        !alone
    });
}

/// `GET /cluster/ha/rules`.
pub(super) fn rules(call: &Call) -> Answer {
    let state = call.hub.state();
    let list: Vec<Json> = state
        .ha
        .rules
        .values()
        .filter(|r| call.text("type").is_none_or(|t| r.get("type").and_then(Json::as_str) == Some(t)))
        .map(|r| Json::Object(r.clone()))
        .collect();
    Ok(Json::Array(list).into())
}

/// `GET /cluster/ha/rules/{rule}`.
pub(super) fn rule(call: &Call) -> Answer {
    let name = call.text("rule").unwrap_or_default();
    let found = call.hub.state().ha.rules.get(name).cloned();
    Ok(Json::Object(found.ok_or_else(|| Fail::die(format!("no such ha rule '{name}'")))?).into())
}

/// Until the manager is awake it knows no nodes (pve-ha-manager, HA/CRM.pm: it idles without resources).
const AWAKE: Duration = Duration::from_secs(20);

fn check_rule(
    call: &Call,
    state: &State,
    name: &str,
    rule: &Map<String, Json>,
    verb: &str,
) -> Result<(), Fail> {
    let awake = state.ha.woken.is_some_and(|since| since.elapsed() >= call.hub.world.clock.real(AWAKE));
    let known = if awake { state.nodes.len() } else { 0 };
    let text = |key: &str| rule.get(key).and_then(Json::as_str).unwrap_or_default();
    let resources = words(text("resources"));
    let failed = |why: String| Fail::die(format!("{verb} ha rule failed: {why}"));
    let unmanaged: Vec<&String> = resources.iter().filter(|r| !state.ha.resources.contains_key(*r)).collect();
    if !unmanaged.is_empty() {
        let list: Vec<&str> = unmanaged.iter().map(|u| u.as_str()).collect();
        return Err(failed(format!("cannot use unmanaged resource(s) {}.", list.join(", "))));
    }
    let nodes: Vec<String> =
        words(text("nodes")).iter().map(|n| n.split(':').next().unwrap_or_default().to_owned()).collect();
    let strange: Vec<&str> =
        nodes.iter().filter(|n| !state.nodes.contains_key(*n)).map(String::as_str).collect();
    if !strange.is_empty() {
        return Err(failed(format!("cannot use non-existent node(s) {}.", strange.join(", "))));
    }
    let node_rule = text("type") == "node-affinity";
    if node_rule && nodes.is_empty() {
        return Err(failed("missing value for required option 'nodes'".into()));
    }
    if !node_rule && text("affinity").is_empty() {
        return Err(failed("missing value for required option 'affinity'".into()));
    }
    let mut errors = Errors::new();
    let mut wrong = |why: String| drop(errors.insert("resources".into(), why));
    if !node_rule && resources.len() < 2 {
        wrong("rule is ineffective as there are less than two resources".into());
    } else if text("affinity") == "negative" && resources.len() > known {
        wrong("rule defines more resources than available nodes".into());
    }
    let others =
        state.ha.rules.iter().filter(|(n, r)| *n != name && r.get("type") == rule.get("type") && node_rule);
    for (_, other) in others {
        let taken = words(other.get("resources").and_then(Json::as_str).unwrap_or_default());
        if let Some(twice) = resources.iter().find(|r| taken.contains(r)) {
            wrong(format!("resource '{twice}' is already used in another node affinity rule"));
        }
    }
    // The lock around it turns the exception into text.
    match errors.get("resources") {
        Some(why) => Err(failed(format!("400 Rule '{name}' is invalid.\nresources: {why}"))),
        None => Ok(()),
    }
}

/// `POST /cluster/ha/rules`.
pub(super) fn add_rule(call: &Call) -> Answer {
    let mut state = call.hub.state();
    let name = call.text("rule").unwrap_or_default().to_owned();
    if state.ha.rules.contains_key(&name) {
        return Err(Fail::die(format!("create ha rule failed: HA rule '{name}' already defined")));
    }
    let rule = fields(call, &[]);
    check_rule(call, &state, &name, &rule, "create")?;
    state.ha.rules.insert(name, rule);
    nothing()
}

/// `PUT /cluster/ha/rules/{rule}`.
pub(super) fn change_rule(call: &Call) -> Answer {
    let mut state = call.hub.state();
    let name = call.text("rule").unwrap_or_default().to_owned();
    let absent = || Fail::die(format!("update ha rule failed: HA rule '{name}' does not exist"));
    let mut rule = state.ha.rules.get(&name).cloned().ok_or_else(absent)?;
    drop_deleted(call, &mut rule);
    rule.extend(fields(call, &[]));
    check_rule(call, &state, &name, &rule, "update")?;
    state.ha.rules.insert(name, rule);
    nothing()
}

/// `DELETE /cluster/ha/rules/{rule}`.
pub(super) fn remove_rule(call: &Call) -> Answer {
    call.hub.state().ha.rules.remove(call.text("rule").unwrap_or_default());
    nothing()
}

fn migrated(call: &Call, verb: &str) -> Result<(), Fail> {
    match call.hub.config.generation {
        Generation::V8 => Ok(()),
        Generation::V9 => Err(Fail::die(format!("cannot {verb}: ha groups have been migrated to rules"))),
    }
}

/// `GET /cluster/ha/groups`.
pub(super) fn groups(call: &Call) -> Answer {
    migrated(call, "index groups")?;
    let list: Vec<Json> = call.hub.state().ha.groups.values().map(|g| Json::Object(g.clone())).collect();
    Ok(Json::Array(list).into())
}

/// `GET /cluster/ha/groups/{group}`.
pub(super) fn group(call: &Call) -> Answer {
    migrated(call, "get group")?;
    let name = call.text("group").unwrap_or_default();
    let found = call.hub.state().ha.groups.get(name).cloned();
    Ok(Json::Object(found.ok_or_else(|| Fail::die(format!("no such ha group '{name}'")))?).into())
}

/// `POST /cluster/ha/groups`.
pub(super) fn add_group(call: &Call) -> Answer {
    migrated(call, "create group")?;
    let mut state = call.hub.state();
    let name = call.text("group").unwrap_or_default().to_owned();
    if state.ha.groups.contains_key(&name) {
        return Err(Fail::die(format!("create ha group failed: ha group ID '{name}' already defined")));
    }
    state.ha.groups.insert(name, fields(call, &[]));
    nothing()
}

/// `PUT /cluster/ha/groups/{group}`.
pub(super) fn change_group(call: &Call) -> Answer {
    migrated(call, "update group")?;
    let mut state = call.hub.state();
    let name = call.text("group").unwrap_or_default().to_owned();
    let failed = || Fail::die(format!("update group failed: no such ha group '{name}'"));
    let group = state.ha.groups.get_mut(&name).ok_or_else(failed)?;
    drop_deleted(call, group);
    group.extend(fields(call, &["group"]));
    nothing()
}

/// `DELETE /cluster/ha/groups/{group}`.
pub(super) fn remove_group(call: &Call) -> Answer {
    migrated(call, "delete group")?;
    let mut state = call.hub.state();
    let name = call.text("group").unwrap_or_default();
    let used = state.ha.resources.values().any(|r| r.get("group").and_then(Json::as_str) == Some(name));
    if used {
        return Err(Fail::die(format!("delete group failed: ha group '{name}' is in use")));
    }
    state.ha.groups.remove(name);
    nothing()
}
