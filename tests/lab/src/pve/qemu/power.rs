//! Start, stop, shutdown, reboot, reset.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::super::boot;
use super::super::dispatch::Call;
use super::super::hub::Hub;
use super::super::locks;
use super::super::lxc;
use super::super::reply::{Answer, Fail};
use super::super::state::{Kind, Running};
use super::drives;

/// Seconds until a start's task ends; the guest boots on after that.
const START: Duration = Duration::from_secs(3);
/// Seconds that a guest takes to shut down.
const SHUTDOWN: Duration = Duration::from_secs(5);
/// Seconds until the HA manager acts.
const MANAGER: Duration = Duration::from_secs(10);

fn here(call: &Call) -> Result<(String, u32), Fail> {
    if call.flag("skiplock") && !call.who.root() {
        return Err(Fail::parameter("skiplock", "Only root may use this option."));
    }
    let (node, vmid) = (call.node().to_owned(), call.vmid());
    call.hub.state().guest(Kind::Qemu, &node, vmid)?;
    Ok((node, vmid))
}

/// The manager's name of a guest.
fn sid(kind: Kind, vmid: u32) -> String {
    format!("{}:{vmid}", if kind == Kind::Qemu { "vm" } else { "ct" })
}

/// True when the HA manager has the guest.
pub fn managed(call: &Call, kind: Kind, vmid: u32) -> bool {
    let state = call.hub.state();
    let resource = state.ha.resources.get(&sid(kind, vmid));
    resource.is_some_and(|r| r.get("state").and_then(|s| s.as_str()) != Some("ignored"))
}

/// Asks the HA manager: the task only queues the wish.
pub fn by_manager(call: &Call, guest: Kind, node: &str, vmid: u32, on: bool) -> Answer {
    let (hub, owner) = (call.hub.clone(), node.to_owned());
    let kind = if on { "hastart" } else { "hastop" };
    let upid = call.work(node, kind, &vmid.to_string(), move |_| async move {
        {
            let mut state = hub.state();
            let sid = sid(guest, vmid);
            if state.ha.errors.contains(&sid) {
                return Err(format!("service '{sid}' in error state, must be disabled and fixed first"));
            }
            if let Some(resource) = state.ha.resources.get_mut(&sid) {
                resource.insert("state".into(), if on { "started" } else { "stopped" }.into());
            }
        }
        let manager = hub.clone();
        hub.runtime.spawn(async move {
            manager.world.clock.wait(MANAGER).await;
            // What fails is seen in the machine's state, as with the real manager.
            let done = match (guest, on) {
                (Kind::Qemu, true) => boot(&manager, &owner, vmid).await,
                (Kind::Qemu, false) => off(&manager, &owner, vmid).await,
                (Kind::Lxc, true) => lxc::power::switch_on(&manager, &owner, vmid).await,
                (Kind::Lxc, false) => lxc::power::off(&manager, &owner, vmid),
            };
            if let Err(why) = done {
                tracing::debug!(vmid, why, "the HA manager could not act");
            }
        });
        Ok(())
    });
    Ok(upid.into())
}

/// `POST …/status/start`: the machine is looked at in the worker only.
pub fn start(call: &Call) -> Answer {
    let (node, vmid) = here(call)?;
    if managed(call, Kind::Qemu, vmid) {
        return by_manager(call, Kind::Qemu, &node, vmid, true);
    }
    let hub = call.hub.clone();
    let upid = call.work(&node.clone(), "qmstart", &vmid.to_string(), move |_| async move {
        boot(&hub, &node, vmid).await
    });
    Ok(upid.into())
}

/// Switches a machine on.
pub async fn boot(hub: &Arc<Hub>, node: &str, vmid: u32) -> Result<(), String> {
    let _held = hub.locks.guest("qemu", node, vmid, locks::CONFIG).await?;
    {
        let state = hub.state();
        let guest = state.guest(Kind::Qemu, node, vmid).map_err(|f| f.exit())?;
        if guest.template() {
            return Err("you can't start a vm if it's a template".into());
        }
        guest.unlocked().map_err(|f| f.exit())?;
        if guest.running.is_some() {
            return Err(format!("VM {vmid} already running"));
        }
        let volumes = drives::all(&guest.config).map(|(_, d)| d.file).filter(|f| f.contains(':'));
        if let Some(gone) = volumes.into_iter().find(|file| state.volume(node, file).is_none()) {
            return Err(format!("volume '{gone}' does not exist"));
        }
    }
    hub.world.clock.wait(START).await;
    let machine = {
        let mut state = hub.state();
        let pid = 2000 + state.count() as u32;
        let guest = state.guest_mut(Kind::Qemu, node, vmid).map_err(|f| f.exit())?;
        for (option, value) in std::mem::take(&mut guest.pending) {
            match value {
                Some(value) => drop(guest.config.insert(option, value)),
                None => drop(guest.config.remove(&option)),
            }
        }
        let agent = guest.config.get("agent").is_some_and(|a| super::show::agent_on(a));
        guest.stale = "stopped";
        guest.changed = Instant::now();
        guest.running = Some(Running { since: Instant::now(), pid, agent });
        guest.instance = Some(boot::instance(guest));
        let guest = state.guest(Kind::Qemu, node, vmid).map_err(|f| f.exit())?;
        boot::machine(&state, guest, &hub.config)
    };
    hub.machines.power_on(machine);
    Ok(())
}

/// Switches a machine off; one that is off already is fine.
pub async fn off(hub: &Arc<Hub>, node: &str, vmid: u32) -> Result<(), String> {
    let _held = hub.locks.guest("qemu", node, vmid, locks::CONFIG).await?;
    down(hub, node, vmid)
}

fn down(hub: &Hub, node: &str, vmid: u32) -> Result<(), String> {
    let was = {
        let mut state = hub.state();
        let guest = state.guest_mut(Kind::Qemu, node, vmid).map_err(|f| f.exit())?;
        guest.stale = "running";
        guest.changed = Instant::now();
        guest.commands.clear();
        guest.running.take()
    };
    if was.is_some() {
        hub.machines.power_off(vmid);
    }
    Ok(())
}

/// `POST …/status/stop`.
pub fn stop(call: &Call) -> Answer {
    let (node, vmid) = here(call)?;
    if managed(call, Kind::Qemu, vmid) {
        return by_manager(call, Kind::Qemu, &node, vmid, false);
    }
    let hub = call.hub.clone();
    let upid = call.work(&node.clone(), "qmstop", &vmid.to_string(), move |_| async move {
        unlocked(&hub, &node, vmid)?;
        off(&hub, &node, vmid).await
    });
    Ok(upid.into())
}

fn unlocked(hub: &Hub, node: &str, vmid: u32) -> Result<(), String> {
    let state = hub.state();
    let guest = state.guest(Kind::Qemu, node, vmid).map_err(|f| f.exit())?;
    guest.unlocked().map_err(|f| f.exit())
}

/// `POST …/status/shutdown`: holds the configuration's lock until the guest is off.
pub fn shutdown(call: &Call) -> Answer {
    let (node, vmid) = here(call)?;
    if managed(call, Kind::Qemu, vmid) {
        return by_manager(call, Kind::Qemu, &node, vmid, false);
    }
    let hub = call.hub.clone();
    let timeout = call.number("timeout").unwrap_or(60);
    let force = call.flag("forceStop");
    let upid = call.work(&node.clone(), "qmshutdown", &vmid.to_string(), move |_| async move {
        let _held = hub.locks.guest("qemu", &node, vmid, locks::CONFIG).await?;
        unlocked(&hub, &node, vmid)?;
        if hub.state().guests.get(&vmid).is_none_or(|g| g.running.is_none()) {
            return Ok(());
        }
        let needed = SHUTDOWN.min(Duration::from_secs(timeout));
        hub.world.clock.wait(needed).await;
        if needed < SHUTDOWN && !force {
            return Err("VM quit/powerdown failed - got timeout".into());
        }
        down(&hub, &node, vmid)
    });
    Ok(upid.into())
}

/// `POST …/status/reboot`: a shutdown and a start, with what was pending.
pub fn reboot(call: &Call) -> Answer {
    let (node, vmid) = here(call)?;
    running(call, &node, vmid)?;
    let hub = call.hub.clone();
    let upid = call.work(&node.clone(), "qmreboot", &vmid.to_string(), move |_| async move {
        unlocked(&hub, &node, vmid)?;
        hub.world.clock.wait(SHUTDOWN).await;
        off(&hub, &node, vmid).await?;
        boot(&hub, &node, vmid).await
    });
    Ok(upid.into())
}

fn running(call: &Call, node: &str, vmid: u32) -> Result<(), Fail> {
    let state = call.hub.state();
    let guest = state.guest(Kind::Qemu, node, vmid)?;
    match guest.running {
        Some(_) => Ok(()),
        None => Err(Fail::die(format!("VM {vmid} not running"))),
    }
}

/// `POST …/status/reset`: the power switch, off and on.
pub fn reset(call: &Call) -> Answer {
    let (node, vmid) = here(call)?;
    running(call, &node, vmid)?;
    let hub = call.hub.clone();
    let upid = call.work(&node.clone(), "qmreset", &vmid.to_string(), move |_| async move {
        unlocked(&hub, &node, vmid)?;
        let machine = {
            let state = hub.state();
            let guest = state.guest(Kind::Qemu, &node, vmid).map_err(|f| f.exit())?;
            boot::machine(&state, guest, &hub.config)
        };
        hub.machines.power_off(vmid);
        hub.machines.power_on(machine);
        Ok(())
    });
    Ok(upid.into())
}
