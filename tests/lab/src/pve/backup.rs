//! Backup jobs, and backups made by hand.

use std::time::Duration;

use serde_json::{Map, Value as Json};

use super::dispatch::Call;
use super::reply::{Answer, Fail, nothing};
use super::state::Volume;
use super::tasks::now;

fn id(call: &Call) -> &str {
    call.text("id").unwrap_or_default()
}

fn absent(call: &Call) -> Fail {
    Fail::parameter("id", format!("No such job '{}'", id(call)))
}

/// `GET /cluster/backup`.
pub(super) fn list(call: &Call) -> Answer {
    let jobs: Vec<Json> = call.hub.state().jobs.values().map(|j| Json::Object(j.clone())).collect();
    Ok(Json::Array(jobs).into())
}

/// `GET /cluster/backup/{id}`.
pub(super) fn get(call: &Call) -> Answer {
    let state = call.hub.state();
    let job = state.jobs.get(id(call)).ok_or_else(|| absent(call))?;
    Ok(Json::Object(job.clone()).into())
}

fn fields(call: &Call) -> Map<String, Json> {
    let shown = |name: &str, text: String| match name {
        "enabled" | "all" | "repeat-missed" | "remove" => {
            text.parse::<u8>().map_or_else(|_| text.into(), Json::from)
        }
        // Proxmox parses it and shows it as an object.
        "prune-backups" => {
            let pairs = text.split(',').filter_map(|p| p.split_once('='));
            Json::Object(pairs.map(|(k, v)| (k.to_owned(), v.into())).collect())
        }
        _ => text.into(),
    };
    let sent = call.values.iter().filter(|(k, _)| !matches!(k.as_str(), "delete" | "id"));
    sent.map(|(k, v)| (k.clone(), shown(k, v.text()))).collect()
}

/// `POST /cluster/backup`.
pub(super) fn add(call: &Call) -> Answer {
    let selections = ["vmid", "all", "pool"].iter().filter(|k| call.text(k).is_some()).count();
    if selections == 0 {
        return Err(Fail::parameter("vmid", "property is missing and it is not optional"));
    }
    if selections > 1 {
        return Err(Fail::parameter("vmid", "option conflicts with option 'all' or 'pool'"));
    }
    let name = match call.text("id") {
        Some(id) => id.to_owned(),
        None => format!("backup-{:08x}-{:04x}", rand::random::<u32>(), rand::random::<u16>()),
    };
    let mut state = call.hub.state();
    if let Some(storage) = call.text("storage").filter(|s| !state.storages.contains_key(*s)) {
        return Err(Fail::die(format!("storage '{storage}' does not exist")));
    }
    if state.jobs.contains_key(&name) {
        return Err(Fail::die(format!("Job '{name}' already exists")));
    }
    let mut job = fields(call);
    job.insert("id".into(), name.clone().into());
    job.insert("type".into(), "vzdump".into());
    job.entry("enabled").or_insert(1.into());
    state.jobs.insert(name, job);
    nothing()
}

/// `PUT /cluster/backup/{id}`.
pub(super) fn change(call: &Call) -> Answer {
    let mut state = call.hub.state();
    let job = state.jobs.get_mut(id(call)).ok_or_else(|| absent(call))?;
    for gone in call.text("delete").unwrap_or_default().split([',', ';', ' ']).filter(|k| !k.is_empty()) {
        job.remove(gone);
    }
    job.extend(fields(call));
    nothing()
}

/// `DELETE /cluster/backup/{id}`.
pub(super) fn remove(call: &Call) -> Answer {
    match call.hub.state().jobs.remove(id(call)) {
        Some(_) => nothing(),
        None => Err(absent(call)),
    }
}

/// `POST /nodes/{node}/vzdump`: guests of other nodes are left out; none left is the word `OK`.
pub(super) fn dump(call: &Call) -> Answer {
    let node = call.node().to_owned();
    let storage = call.text("storage").unwrap_or("local").to_owned();
    let wanted: Vec<u32> =
        call.text("vmid").unwrap_or_default().split([',', ';', ' ']).filter_map(|v| v.parse().ok()).collect();
    for vmid in &wanted {
        call.need(&format!("/vms/{vmid}"), &["VM.Backup"])?;
    }
    call.need(&format!("/storage/{storage}"), &["Datastore.AllocateSpace"])?;
    let here: Vec<(u32, &'static str)> = {
        let state = call.hub.state();
        if !state.storage(&storage, &node)?.holds("backup") {
            return Err(Fail::parameter("storage", format!("storage '{storage}' does not support backups")));
        }
        let chosen = |v: &u32| call.flag("all") || wanted.contains(v);
        state
            .guests
            .values()
            .filter(|g| g.node == node && chosen(&g.vmid))
            .map(|g| (g.vmid, g.kind.name()))
            .collect()
    };
    if here.is_empty() {
        return Ok("OK".to_owned().into());
    }
    let hub = call.hub.clone();
    let id = if here.len() == 1 { here[0].0.to_string() } else { String::new() };
    let upid = call.work(&node.clone(), "vzdump", &id, move |log| async move {
        for (vmid, kind) in here {
            log.line(format!("INFO: Starting Backup of VM {vmid} ({kind})"));
            let _held = hub.locks.guest(kind, &node, vmid, super::locks::CONFIG).await?;
            hub.world.clock.wait(Duration::from_secs(30)).await;
            let volid = format!("{storage}:backup/vzdump-{kind}-{vmid}-{}.vma.zst", now());
            let volume =
                Volume { vmid: Some(vmid), ..Volume::new(&volid, &storage, "backup", "vma.zst", 1 << 30) };
            hub.state().put_volume(&node, volume);
            log.line(format!("INFO: Finished Backup of VM {vmid}"));
        }
        Ok(())
    });
    Ok(upid.into())
}
