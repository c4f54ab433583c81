//! Migration of a container to another node: off, or switched off for the time that it takes.

use std::time::Duration;

use super::super::dispatch::Call;
use super::super::hub::Hub;
use super::super::locks;
use super::super::qemu::drives::{Drive, Wanted, allocate};
use super::super::qemu::options::stem;
use super::super::reply::{Answer, Fail};
use super::super::state::{Kind, Options};
use super::power::{off, switch_on};

/// `POST …/migrate` (pve-container, API2/LXC.pm and LXC/Migrate.pm).
pub fn migrate(call: &Call) -> Answer {
    let (node, vmid) = (call.node().to_owned(), call.vmid());
    let target = call.text("target").unwrap_or_default().to_owned();
    let (online, restart) = (call.flag("online"), call.flag("restart"));
    {
        let state = call.hub.state();
        if target == node {
            return Err(Fail::parameter("target", "target is local node."));
        }
        match state.nodes.get(&target) {
            None => return Err(Fail::die(format!("no such cluster node '{target}'"))),
            Some(there) if !there.online => return Err(Fail::die(format!("node '{target}' is not online"))),
            Some(_) => {}
        }
        let guest = state.guest(Kind::Lxc, &node, vmid)?;
        if guest.running.is_some() && !online && !restart {
            return Err(Fail::die("can't migrate running container without --online or --restart"));
        }
    }
    let to = call.text("target-storage").map(|t| t.rsplit(':').next().unwrap_or(t).to_owned());
    let to = to.filter(|t| t != "1");
    if let Some(storage) = &to {
        call.need(&format!("/storage/{storage}"), &["Datastore.AllocateSpace"])?;
    }
    let hub = call.hub.clone();
    let upid = call.work(&node.clone(), "vzmigrate", &vmid.to_string(), move |log| async move {
        let _held = hub.locks.guest("lxc", &node, vmid, locks::CONFIG).await?;
        let running = {
            let state = hub.state();
            let guest = state.guest(Kind::Lxc, &node, vmid).map_err(|f| f.exit())?;
            guest.unlocked().map_err(|f| f.exit())?;
            guest.running.is_some()
        };
        if running && online {
            return Err("lxc live migration is currently not implemented".into());
        }
        if running {
            log.line(format!("shutdown CT {vmid}"));
            hub.world.clock.wait(Duration::from_secs(2)).await;
            off(&hub, &node, vmid)?;
        }
        log.line(format!("starting migration of CT {vmid} to node '{target}'"));
        let moved = carry(&hub, &node, &target, vmid, to.as_deref()).await;
        let at = if moved.is_ok() { &target } else { &node };
        if running {
            log.line(format!("start container on {at} node"));
            switch_on(&hub, at, vmid).await?;
        }
        moved
    });
    Ok(upid.into())
}

/// Carries configuration and volumes over; what fails leaves both where they are.
async fn carry(hub: &Hub, node: &str, target: &str, vmid: u32, to: Option<&str>) -> Result<(), String> {
    let config = {
        let mut state = hub.state();
        let guest = state.guest_mut(Kind::Lxc, node, vmid).map_err(|f| f.exit())?;
        guest.config.insert("lock".into(), "migrate".into());
        guest.config.clone()
    };
    hub.world.clock.wait(Duration::from_secs(30)).await;
    let mut state = hub.state();
    let mut moved: Options = config.clone();
    moved.remove("lock");
    let volumes = config.iter().filter(|(option, _)| matches!(stem(option), "rootfs" | "mp"));
    let volumes: Vec<(&String, Drive)> =
        volumes.map(|(option, value)| (option, Drive::stored(value))).collect();
    let local: Vec<&(&String, Drive)> =
        volumes.iter().filter(|(_, drive)| !state.place(drive.storage(), node).is_empty()).collect();
    for (option, drive) in &local {
        let storage = to.unwrap_or_else(|| drive.storage()).to_owned();
        let size = state.volume(node, &drive.file).map_or(0, |v| v.size);
        match allocate(&mut state, target, &storage, vmid, Wanted::Disk, size, None) {
            Ok(file) => drop(moved.insert((*option).clone(), Drive { file, ..drive.clone() }.print())),
            Err(why) => {
                let guest = state.guest_mut(Kind::Lxc, node, vmid).map_err(|f| f.exit())?;
                guest.config.remove("lock");
                return Err(format!("migration aborted: {why}"));
            }
        }
    }
    for (_, drive) in &local {
        state.remove_volume(node, &drive.file);
    }
    let guest = state.guest_mut(Kind::Lxc, node, vmid).map_err(|f| f.exit())?;
    (guest.config, guest.node) = (moved, target.to_owned());
    Ok(())
}
