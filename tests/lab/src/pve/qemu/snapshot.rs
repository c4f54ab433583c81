//! Snapshots.

use std::time::Duration;

use serde_json::{Value as Json, json};

use super::super::config::StorageKind;
use super::super::dispatch::Call;
use super::super::locks;
use super::super::lxc;
use super::super::reply::{Answer, Fail};
use super::super::state::{Kind, Snapshot};
use super::super::tasks::now;
use super::drives::{self, Drive};

/// `GET …/snapshot`: always with the pseudo entry `current`.
pub fn list(call: &Call, kind: Kind) -> Answer {
    let state = call.hub.state();
    let guest = state.guest(kind, call.node(), call.vmid())?;
    let one = |(name, s): (&String, &Snapshot)| {
        let mut entry = json!({
            "name": name,
            "snaptime": s.time,
            "description": s.description.clone().unwrap_or_default(),
            "vmstate": 0,
        });
        if let (Some(parent), Some(entry)) = (&s.parent, entry.as_object_mut()) {
            entry.insert("parent".into(), parent.clone().into());
        }
        entry
    };
    let mut list: Vec<Json> = guest.snapshots.iter().map(one).collect();
    let running = u8::from(guest.running.is_some());
    let mut current = json!({ "name": "current", "running": running, "digest": guest.digest() });
    current["description"] = "You are here!".into();
    if let Some(parent) = guest.config.get("parent") {
        current["parent"] = parent.clone().into();
    }
    list.push(current);
    Ok(Json::Array(list).into())
}

/// `POST …/snapshot`.
pub fn take(call: &Call, kind: Kind) -> Answer {
    let (node, vmid) = (call.node().to_owned(), call.vmid());
    let name = call.text("snapname").unwrap_or_default().to_owned();
    if name == "current" || name == "pending" {
        return Err(Fail::die(format!("unable to use snapshot name '{name}' (reserved name)")));
    }
    call.hub.state().guest(kind, &node, vmid)?;
    let description = call.text("description").map(str::to_owned);
    let hub = call.hub.clone();
    let upid = call.work(&node.clone(), &worker(kind, "snapshot"), &vmid.to_string(), move |_| async move {
        let _held = hub.locks.guest(kind.name(), &node, vmid, locks::CONFIG).await?;
        {
            let mut state = hub.state();
            let guest = state.guest(kind, &node, vmid).map_err(|f| f.exit())?;
            guest.unlocked().map_err(|f| f.exit())?;
            if guest.template() {
                return Err("you can't take a snapshot if it's a template".into());
            }
            if guest.snapshots.contains_key(&name) {
                return Err(format!("snapshot name '{name}' already used"));
            }
            let able =
                |storage: &str| state.storages.get(storage).is_some_and(|s| s.kind != StorageKind::Lvm);
            let root = guest.config.get("rootfs").map(|r| Drive::stored(r).storage().to_owned());
            if !drives::disks(&guest.config).iter().all(|(_, d)| able(d.storage()))
                || root.is_some_and(|storage| !able(&storage))
            {
                return Err("snapshot feature is not available".into());
            }
            let guest = state.guest_mut(kind, &node, vmid).map_err(|f| f.exit())?;
            guest.config.insert("lock".into(), "snapshot".into());
        }
        hub.world.clock.wait(Duration::from_secs(2)).await;
        let mut state = hub.state();
        let guest = state.guest_mut(kind, &node, vmid).map_err(|f| f.exit())?;
        guest.config.remove("lock");
        let parent = guest.config.insert("parent".into(), name.clone());
        let config = guest.config.clone();
        guest.snapshots.insert(name, Snapshot { config, description, time: now(), parent });
        Ok(())
    });
    Ok(upid.into())
}

/// A worker's type: `qmsnapshot` or `vzsnapshot`.
fn worker(kind: Kind, what: &str) -> String {
    let letters = if kind == Kind::Qemu { "qm" } else { "vz" };
    format!("{letters}{what}")
}

fn exists(call: &Call, kind: Kind, name: &str) -> Result<(), Fail> {
    let state = call.hub.state();
    let guest = state.guest(kind, call.node(), call.vmid())?;
    match guest.snapshots.contains_key(name) {
        true => Ok(()),
        false => Err(Fail::die(format!("snapshot '{name}' does not exist"))),
    }
}

/// `DELETE …/snapshot/{snapname}`.
pub fn remove(call: &Call, kind: Kind) -> Answer {
    let (node, vmid) = (call.node().to_owned(), call.vmid());
    let name = call.text("snapname").unwrap_or_default().to_owned();
    exists(call, kind, &name)?;
    let hub = call.hub.clone();
    let upid =
        call.work(&node.clone(), &worker(kind, "delsnapshot"), &vmid.to_string(), move |_| async move {
            let _held = hub.locks.guest(kind.name(), &node, vmid, locks::CONFIG).await?;
            hub.world.clock.wait(Duration::from_secs(1)).await;
            let mut state = hub.state();
            let guest = state.guest_mut(kind, &node, vmid).map_err(|f| f.exit())?;
            guest.unlocked().map_err(|f| f.exit())?;
            let Some(gone) = guest.snapshots.remove(&name) else {
                return Err(format!("snapshot '{name}' does not exist"));
            };
            if guest.config.get("parent") == Some(&name) {
                match gone.parent {
                    Some(parent) => drop(guest.config.insert("parent".into(), parent)),
                    None => drop(guest.config.remove("parent")),
                }
            }
            Ok(())
        });
    Ok(upid.into())
}

/// `POST …/snapshot/{snapname}/rollback`.
pub fn rollback(call: &Call, kind: Kind) -> Answer {
    let (node, vmid) = (call.node().to_owned(), call.vmid());
    let name = call.text("snapname").unwrap_or_default().to_owned();
    exists(call, kind, &name)?;
    let (hub, start) = (call.hub.clone(), call.flag("start"));
    let upid = call.work(&node.clone(), &worker(kind, "rollback"), &vmid.to_string(), move |_| async move {
        match kind {
            Kind::Qemu => super::power::off(&hub, &node, vmid).await?,
            Kind::Lxc => lxc::power::off(&hub, &node, vmid)?,
        }
        hub.world.clock.wait(Duration::from_secs(2)).await;
        {
            let mut state = hub.state();
            let guest = state.guest_mut(kind, &node, vmid).map_err(|f| f.exit())?;
            let old = guest.snapshots.get(&name).ok_or(format!("snapshot '{name}' does not exist"))?;
            guest.config = old.config.clone();
            guest.config.insert("parent".into(), name);
            guest.pending.clear();
        }
        match (start, kind) {
            (false, _) => Ok(()),
            (true, Kind::Qemu) => super::power::boot(&hub, &node, vmid).await,
            (true, Kind::Lxc) => lxc::power::switch_on(&hub, &node, vmid).await,
        }
    });
    Ok(upid.into())
}
