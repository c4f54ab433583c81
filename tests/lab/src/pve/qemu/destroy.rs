//! `DELETE …/{vmid}`.

use std::time::Duration;

use super::super::config::StorageKind;
use super::super::dispatch::Call;
use super::super::locks;
use super::super::reply::{Answer, Fail};
use super::super::state::{Kind, State};
use super::drives;

/// Removes a machine or a container with its volumes.
pub fn destroy(call: &Call, kind: Kind) -> Answer {
    if call.flag("skiplock") && !call.who.root() {
        return Err(Fail::parameter("skiplock", "Only root may use this option."));
    }
    let (node, vmid) = (call.node().to_owned(), call.vmid());
    let (short, purge) = (kind.short(), call.flag("purge"));
    let all = call.flag("destroy-unreferenced-disks");
    let sid = format!("{}:{vmid}", if kind == Kind::Qemu { "vm" } else { "ct" });
    {
        let state = call.hub.state();
        let guest = state.guest(kind, &node, vmid)?;
        if guest.on("protection") {
            return Err(Fail::die(format!("can't remove {short} {vmid} - protection mode enabled")));
        }
        guest.unlocked()?;
        if state.ha.resources.contains_key(&sid) && !purge {
            let text = format!(
                "unable to remove {short} {vmid} - used in HA resources and purge parameter not set."
            );
            return Err(Fail::die(text));
        }
        if guest.running.is_some() && !(kind == Kind::Lxc && call.flag("force")) {
            return Err(Fail::die(format!("{short} {vmid} is running - destroy failed")));
        }
    }
    let hub = call.hub.clone();
    let task = if kind == Kind::Qemu { "qmdestroy" } else { "vzdestroy" };
    let upid = call.work(&node.clone(), task, &vmid.to_string(), move |log| async move {
        let _held = hub.locks.guest(kind.name(), &node, vmid, locks::CONFIG).await?;
        {
            let state = hub.state();
            let guest = state.guest(kind, &node, vmid).map_err(|f| f.exit())?;
            guest.unlocked().map_err(|f| f.exit())?;
            if guest.running.is_some() && kind == Kind::Qemu {
                return Err(format!("{short} {vmid} is running - destroy failed"));
            }
            in_use(&state, &node, vmid)?;
        }
        hub.world.clock.wait(Duration::from_secs(1)).await;
        let running = {
            let mut state = hub.state();
            match all {
                true => drives::free_all(&mut state, &node, vmid),
                false => drives::free_own(&mut state, &node, vmid),
            }
            if purge {
                log.line(format!("purging {short} {vmid} from related configurations.."));
                purge_from(&mut state, vmid, &sid);
            }
            // The configuration goes last.
            state.guests.remove(&vmid).is_some_and(|g| g.running.is_some())
        };
        if running {
            hub.machines.power_off(vmid);
        }
        hub.machines.erased(vmid);
        Ok(())
    });
    Ok(upid.into())
}

/// A base that linked clones stand on is refused, but on thin LVM, which does not notice.
fn in_use(state: &State, node: &str, vmid: u32) -> Result<(), String> {
    let place = |p: &str| p.is_empty() || p == node;
    let own = state.volumes.iter().filter(|((p, _), v)| place(p) && v.vmid == Some(vmid));
    for (_, volume) in own {
        let thin = state.storages.get(&volume.storage).is_some_and(|s| s.kind == StorageKind::LvmThin);
        let child = |v: &super::super::state::Volume| v.parent.as_deref() == Some(volume.volid.as_str());
        if !thin && state.volumes.iter().any(|((p, _), v)| place(p) && child(v)) {
            return Err(format!("base volume '{}' is still in use by linked cloned", volume.volid));
        }
    }
    Ok(())
}

fn purge_from(state: &mut State, vmid: u32, sid: &str) {
    state.ha.resources.remove(sid);
    super::super::ha::forget(state, sid);
    for job in state.jobs.values_mut() {
        let left = job.get("vmid").and_then(|v| v.as_str()).map(|list| {
            let left: Vec<&str> = list.split(',').filter(|v| *v != vmid.to_string()).collect();
            left.join(",")
        });
        if let Some(left) = left {
            job.insert("vmid".into(), left.into());
        }
    }
}
