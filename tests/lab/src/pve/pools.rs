//! Pools.

use serde_json::{Value as Json, json};

use super::dispatch::Call;
use super::reply::{Answer, Fail, nothing};
use super::state::{Pool, State};

fn name(call: &Call) -> &str {
    call.text("poolid").unwrap_or_default()
}

fn absent(pool: &str) -> Fail {
    Fail::die(format!("pool '{pool}' does not exist"))
}

fn members(state: &State, name: &str, pool: &Pool) -> Vec<Json> {
    let guests = state.guests.values().filter(|g| g.pool.as_deref() == Some(name));
    let guests = guests.map(|g| {
        let kind = g.kind.name();
        json!({
            "id": format!("{kind}/{}", g.vmid),
            "type": kind,
            "vmid": g.vmid,
            "node": g.node,
            "name": g.name(),
            "status": g.status(),
            "template": u8::from(g.template()),
        })
    });
    let storages = pool
        .storages
        .iter()
        .map(|s| json!({ "id": format!("storage/{s}"), "type": "storage", "storage": s }));
    guests.chain(storages).collect()
}

/// `GET /pools`, or one pool with `poolid`.
pub(super) fn list(call: &Call) -> Answer {
    let state = call.hub.state();
    let may = |pool: &str| call.hub.may(&state, &call.who, &format!("/pool/{pool}"), "Pool.Audit");
    if let Some(wanted) = call.text("poolid") {
        if !may(wanted) {
            return Err(Fail::forbidden(format!("Permission check failed (/pool/{wanted}, Pool.Audit)")));
        }
        let pool = state.pools.get(wanted).ok_or_else(|| absent(wanted))?;
        let mut view = json!({ "poolid": wanted, "members": members(&state, wanted, pool) });
        if let Some(comment) = &pool.comment {
            view["comment"] = comment.clone().into();
        }
        return Ok(json!([view]).into());
    }
    let list: Vec<Json> = state
        .pools
        .iter()
        .filter(|(id, _)| may(id))
        .map(|(id, pool)| match &pool.comment {
            Some(comment) => json!({ "poolid": id, "comment": comment }),
            None => json!({ "poolid": id }),
        })
        .collect();
    Ok(Json::Array(list).into())
}

/// `GET /pools/{poolid}`.
pub(super) fn get(call: &Call) -> Answer {
    let state = call.hub.state();
    let pool = state.pools.get(name(call)).ok_or_else(|| absent(name(call)))?;
    Ok(json!({ "members": members(&state, name(call), pool), "comment": pool.comment.clone().unwrap_or_default() }).into())
}

/// `POST /pools`.
pub(super) fn add(call: &Call) -> Answer {
    let mut state = call.hub.state();
    if state.pools.contains_key(name(call)) {
        return Err(Fail::die(format!("create pool failed: pool '{}' already exists", name(call))));
    }
    let comment = call.text("comment").map(str::to_owned);
    state.pools.insert(name(call).into(), Pool { comment, ..Pool::default() });
    nothing()
}

/// `PUT /pools`.
pub(super) fn change(call: &Call) -> Answer {
    let (pool, delete) = (name(call).to_owned(), call.flag("delete"));
    let split = |key: &str| -> Vec<String> {
        let list = call.text(key).unwrap_or_default();
        list.split([',', ';', ' ']).filter(|v| !v.is_empty()).map(str::to_owned).collect()
    };
    let failed = |why: String| Fail::die(format!("update pools failed: {why}"));
    if !call.hub.state().pools.contains_key(&pool) {
        return Err(failed(format!("pool '{pool}' does not exist")));
    }
    for vmid in split("vms").iter().filter_map(|v| v.parse::<u32>().ok()) {
        // A refusal inside the lock becomes a plain error.
        call.need_guest(vmid, None, &["VM.Allocate"]).map_err(|f| failed(f.message))?;
        let mut state = call.hub.state();
        let guest = state.guests.get_mut(&vmid).ok_or_else(|| failed(format!("VM {vmid} does not exist")))?;
        let inside = guest.pool.as_deref() == Some(pool.as_str());
        match (&guest.pool, delete) {
            (_, true) if !inside => return Err(failed(format!("VM {vmid} is not a pool member"))),
            (_, true) => guest.pool = None,
            (_, false) if inside => return Err(failed(format!("VM {vmid} is already a pool member"))),
            (Some(other), false) if !call.flag("allow-move") => {
                let why = format!(
                    "VM {vmid} belongs already to pool '{other}' and cannot be added to pool '{pool}'"
                );
                return Err(failed(why));
            }
            (_, false) => guest.pool = Some(pool.clone()),
        }
    }
    let mut state = call.hub.state();
    let entry = state.pools.entry(pool).or_default();
    for storage in split("storage") {
        if delete {
            entry.storages.remove(&storage);
        } else {
            entry.storages.insert(storage);
        }
    }
    if let Some(comment) = call.text("comment") {
        entry.comment = Some(comment.into());
    }
    nothing()
}

/// `DELETE /pools`.
pub(super) fn remove(call: &Call) -> Answer {
    let pool = name(call);
    let mut state = call.hub.state();
    let failed = |why: String| Fail::die(format!("delete pool failed: {why}"));
    let there = state.pools.get(pool).ok_or_else(|| failed(format!("pool '{pool}' does not exist")))?;
    if let Some(guest) = state.guests.values().find(|g| g.pool.as_deref() == Some(pool)) {
        return Err(failed(format!("pool '{pool}' is not empty (contains VM {})", guest.vmid)));
    }
    if let Some(storage) = there.storages.first() {
        return Err(failed(format!("pool '{pool}' is not empty (contains storage '{storage}')")));
    }
    state.pools.remove(pool);
    nothing()
}
