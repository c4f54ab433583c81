//! Switching containers on and off.

use std::time::{Duration, Instant};

use super::super::dispatch::Call;
use super::super::hub::Hub;
use super::super::locks;
use super::super::qemu::{drives, power};
use super::super::reply::{Answer, Fail};
use super::super::state::{Guest, Kind, Running};
use super::part;
use crate::world::Boot;

/// Switches a container on.
pub async fn switch_on(hub: &Hub, node: &str, vmid: u32) -> Result<(), String> {
    let _held = hub.locks.guest("lxc", node, vmid, locks::CONFIG).await?;
    hub.world.clock.wait(Duration::from_secs(3)).await;
    let boot = {
        let mut state = hub.state();
        let pid = 2000 + state.count() as u32;
        let guest = state.guest_mut(Kind::Lxc, node, vmid).map_err(|f| f.exit())?;
        if guest.running.is_some() {
            return Err(format!("CT {vmid} already running"));
        }
        guest.stale = "stopped";
        guest.changed = Instant::now();
        super::settle(guest);
        guest.running = Some(Running { since: Instant::now(), pid, agent: false });
        machine(guest)
    };
    hub.machines.power_on(boot);
    Ok(())
}

/// All that a container is switched on with.
pub fn machine(guest: &Guest) -> Boot {
    let number =
        |key: &str, default: u64| guest.config.get(key).and_then(|v| v.parse().ok()).unwrap_or(default);
    let net = guest.config.get("net0").map(String::as_str).unwrap_or_default();
    Boot {
        vmid: guest.vmid,
        generation: guest.generation,
        name: guest.name(),
        pve_node: guest.node.clone(),
        address: part(net, "ip").and_then(|ip| ip.split('/').next()?.parse().ok()),
        mac: part(net, "hwaddr").unwrap_or_default().to_owned(),
        user: "root".into(),
        container: true,
        authorized_keys: guest.keys.clone(),
        host_keys: guest.host_key.iter().cloned().collect(),
        cores: number("cores", 1) as u32,
        memory_mib: number("memory", 512),
        disks: vec![drives::system_size(guest)],
        ..Boot::default()
    }
}

/// `POST …/status/start`.
pub fn start(call: &Call) -> Answer {
    let (node, vmid) = (call.node().to_owned(), call.vmid());
    if power::managed(call, Kind::Lxc, vmid) {
        return power::by_manager(call, Kind::Lxc, &node, vmid, true);
    }
    {
        let state = call.hub.state();
        let guest = state.guest(Kind::Lxc, &node, vmid)?;
        if guest.running.is_some() {
            return Err(Fail::die(format!("CT {vmid} already running")));
        }
        if guest.template() {
            return Err(Fail::die("you can't start a CT if it's a template"));
        }
        guest.unlocked()?;
    }
    let hub = call.hub.clone();
    let upid = call.work(&node.clone(), "vzstart", &vmid.to_string(), move |_| async move {
        switch_on(&hub, &node, vmid).await
    });
    Ok(upid.into())
}

/// Switches a container off.
pub fn off(hub: &Hub, node: &str, vmid: u32) -> Result<(), String> {
    {
        let mut state = hub.state();
        let guest = state.guest_mut(Kind::Lxc, node, vmid).map_err(|f| f.exit())?;
        guest.stale = "running";
        guest.changed = Instant::now();
        guest.running = None;
    }
    hub.machines.power_off(vmid);
    Ok(())
}

fn running(call: &Call) -> Result<(String, u32), Fail> {
    let (node, vmid) = (call.node().to_owned(), call.vmid());
    match call.hub.state().guest(Kind::Lxc, &node, vmid)?.running {
        Some(_) => Ok((node.clone(), vmid)),
        None => Err(Fail::die(format!("CT {vmid} not running"))),
    }
}

/// `POST …/status/stop` and `…/shutdown`.
pub fn stop(call: &Call, kind: &'static str) -> Answer {
    let (node, vmid) = running(call)?;
    if power::managed(call, Kind::Lxc, vmid) {
        return power::by_manager(call, Kind::Lxc, &node, vmid, false);
    }
    let hub = call.hub.clone();
    let upid = call.work(&node.clone(), kind, &vmid.to_string(), move |_| async move {
        let _held = hub.locks.guest("lxc", &node, vmid, locks::CONFIG).await?;
        hub.world.clock.wait(Duration::from_secs(2)).await;
        off(&hub, &node, vmid)
    });
    Ok(upid.into())
}

/// `POST …/status/reboot`.
pub fn reboot(call: &Call) -> Answer {
    let (node, vmid) = running(call)?;
    let hub = call.hub.clone();
    let upid = call.work(&node.clone(), "vzreboot", &vmid.to_string(), move |_| async move {
        off(&hub, &node, vmid)?;
        switch_on(&hub, &node, vmid).await
    });
    Ok(upid.into())
}
