//! Migration of a stopped machine to another node.

use std::time::Duration;

use serde_json::json;

use super::super::dispatch::Call;
use super::super::locks;
use super::super::reply::{Answer, Fail};
use super::super::state::Kind;
use super::drives::{self, Drive, Wanted, allocate};

/// `GET …/migrate`.
pub fn preconditions(call: &Call) -> Answer {
    let state = call.hub.state();
    let guest = state.guest(Kind::Qemu, call.node(), call.vmid())?;
    let local: Vec<_> = drives::all(&guest.config)
        .filter(|(_, d)| !state.place(d.storage(), &guest.node).is_empty() && !d.storage().is_empty())
        .map(|(_, d)| json!({ "volid": d.file, "cdrom": u8::from(d.cdrom()), "shared": 0 }))
        .collect();
    let others: Vec<&String> = state.nodes.keys().filter(|n| *n != call.node()).collect();
    let running = u8::from(guest.running.is_some());
    Ok(json!({ "running": running, "local_disks": local, "local_resources": [], "allowed_nodes": others })
        .into())
}

/// `POST …/migrate`.
pub fn migrate(call: &Call) -> Answer {
    let (node, vmid) = (call.node().to_owned(), call.vmid());
    let target = call.text("target").unwrap_or_default().to_owned();
    {
        let state = call.hub.state();
        let guest = state.guest(Kind::Qemu, &node, vmid)?;
        if target == node {
            return Err(Fail::parameter("target", "target is local node."));
        }
        match state.nodes.get(&target) {
            None => return Err(Fail::parameter("target", format!("no such cluster node '{target}'"))),
            Some(there) if !there.online => return Err(Fail::die(format!("node '{target}' is not online"))),
            Some(_) => {}
        }
        if guest.running.is_some() && !call.flag("online") {
            return Err(Fail::die("can't migrate running VM without --online"));
        }
        if guest.running.is_some() {
            return Err(Fail::die("the lab migrates stopped machines only"));
        }
        guest.unlocked()?;
    }
    let to = call.text("targetstorage").map(|t| t.rsplit(':').next().unwrap_or(t).to_owned());
    let to = to.filter(|t| t != "1");
    if let Some(storage) = &to {
        call.need(&format!("/storage/{storage}"), &["Datastore.AllocateSpace"])?;
    }
    let hub = call.hub.clone();
    let upid = call.work(&node.clone(), "qmigrate", &vmid.to_string(), move |log| async move {
        let _held = hub.locks.guest("qemu", &node, vmid, locks::CONFIG).await?;
        let config = {
            let mut state = hub.state();
            let guest = state.guest_mut(Kind::Qemu, &node, vmid).map_err(|f| f.exit())?;
            guest.config.insert("lock".into(), "migrate".into());
            guest.config.clone()
        };
        hub.world.clock.wait(Duration::from_secs(30)).await;
        let mut state = hub.state();
        let mut moved = config.clone();
        moved.remove("lock");
        for (option, drive) in drives::all(&config) {
            let local = !drive.storage().is_empty() && !state.place(drive.storage(), &node).is_empty();
            if !local {
                continue;
            }
            let storage = to.clone().unwrap_or_else(|| drive.storage().to_owned());
            let size = state.volume(&node, &drive.file).map_or(0, |v| v.size);
            let wanted = if drive.cloudinit() { Wanted::CloudInit } else { Wanted::Disk };
            let made = match drive.cdrom() && !drive.cloudinit() {
                true => Err(format!("can't migrate local cdrom '{}'", drive.file)),
                false => allocate(&mut state, &target, &storage, vmid, wanted, size, None),
            };
            match made {
                Ok(file) => drop(moved.insert(option.clone(), Drive { file, ..drive }.print())),
                Err(why) => {
                    let guest = state.guest_mut(Kind::Qemu, &node, vmid).map_err(|f| f.exit())?;
                    guest.config.remove("lock");
                    return Err(format!("migration aborted: {why}"));
                }
            }
        }
        for (_, drive) in drives::all(&config) {
            // On a shared storage the volume is the target's as well.
            if !state.place(drive.storage(), &node).is_empty() {
                state.remove_volume(&node, &drive.file);
            }
        }
        let guest = state.guest_mut(Kind::Qemu, &node, vmid).map_err(|f| f.exit())?;
        guest.config = moved;
        guest.node = target.clone();
        log.line(format!("migration finished to '{target}'"));
        Ok(())
    });
    Ok(upid.into())
}
