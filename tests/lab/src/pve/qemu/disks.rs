//! Resize, template, move.

use std::time::Duration;

use super::super::dispatch::Call;
use super::super::locks;
use super::super::reply::{Answer, Fail};
use super::super::state::Kind;
use super::drives::{self, Drive, Wanted, allocate, bytes, print_size};

/// `PUT …/resize`: the machine and the disk are looked at in the worker only.
pub fn resize(call: &Call) -> Answer {
    if call.flag("skiplock") && !call.who.root() {
        return Err(Fail::parameter("skiplock", "Only root may use this option."));
    }
    let (node, vmid) = (call.node().to_owned(), call.vmid());
    let disk = call.text("disk").unwrap_or_default().to_owned();
    let size = call.text("size").unwrap_or_default().to_owned();
    let digest = call.text("digest").map(str::to_owned);
    let hub = call.hub.clone();
    let upid = call.work(&node.clone(), "resize", &vmid.to_string(), move |_| async move {
        let _held = hub.locks.guest("qemu", &node, vmid, locks::CONFIG).await?;
        let (mut drive, new) = {
            let state = hub.state();
            let guest = state.guest(Kind::Qemu, &node, vmid).map_err(|f| f.exit())?;
            if digest.is_some_and(|d| d != guest.digest()) {
                return Err("checksum mismatch (file change by other user?)".into());
            }
            guest.unlocked().map_err(|f| f.exit())?;
            let value = guest.config.get(&disk).ok_or(format!("disk '{disk}' does not exist"))?;
            let drive = Drive::stored(value);
            if drive.cdrom() {
                return Err("you can't resize a cdrom".into());
            }
            let old = state.volume(&node, &drive.file).map_or(0, |v| v.size);
            let given = bytes(size.trim_start_matches('+')).ok_or("unable to parse size")?;
            let new = if size.starts_with('+') { old + given } else { given };
            if new < old {
                return Err("shrinking disks is not supported".into());
            }
            if new == old {
                return Ok(());
            }
            (drive, new)
        };
        hub.world.clock.wait(Duration::from_secs(1)).await;
        let mut state = hub.state();
        if let Some(volume) = state.volume_mut(&node, &drive.file) {
            volume.size = new;
        }
        drive.options.insert("size".into(), print_size(new));
        let guest = state.guest_mut(Kind::Qemu, &node, vmid).map_err(|f| f.exit())?;
        guest.config.insert(disk, drive.print());
        Ok(())
    });
    Ok(upid.into())
}

/// `POST …/template`: the flag first, then the disks.
pub fn template(call: &Call) -> Answer {
    let (node, vmid) = (call.node().to_owned(), call.vmid());
    {
        let state = call.hub.state();
        let guest = state.guest(Kind::Qemu, &node, vmid)?;
        guest.unlocked()?;
        if !guest.snapshots.is_empty() {
            return Err(Fail::die("unable to create template, because VM contains snapshots"));
        }
        if guest.template() && call.text("disk").is_none() {
            return Err(Fail::die("you can't convert a template to a template"));
        }
        if guest.running.is_some() {
            return Err(Fail::die("you can't convert a VM to template if VM is running"));
        }
    }
    let hub = call.hub.clone();
    let upid = call.work(&node.clone(), "qmtemplate", &vmid.to_string(), move |log| async move {
        let _held = hub.locks.guest("qemu", &node, vmid, locks::CONFIG).await?;
        let disks = {
            let mut state = hub.state();
            let guest = state.guest_mut(Kind::Qemu, &node, vmid).map_err(|f| f.exit())?;
            guest.config.insert("template".into(), "1".into());
            drives::disks(&guest.config)
        };
        hub.world.clock.wait(Duration::from_secs(5)).await;
        let mut state = hub.state();
        for (option, mut drive) in disks {
            let base = state.storage(drive.storage(), &node).is_ok_and(|s| s.kind.bases());
            if !base {
                continue;
            }
            let new = drive.file.replace(&format!("vm-{vmid}-"), &format!("base-{vmid}-"));
            if let Some(mut volume) = state.remove_volume(&node, &drive.file) {
                volume.volid = new.clone();
                state.put_volume(&node, volume);
            }
            log.line(format!("Renamed \"{}\" to \"{new}\"", drive.file));
            drive.file = new;
            let guest = state.guest_mut(Kind::Qemu, &node, vmid).map_err(|f| f.exit())?;
            guest.config.insert(option, drive.print());
        }
        Ok(())
    });
    Ok(upid.into())
}

/// `POST …/move_disk`.
pub fn move_disk(call: &Call) -> Answer {
    let (node, vmid) = (call.node().to_owned(), call.vmid());
    let disk = call.text("disk").unwrap_or_default().to_owned();
    let storage = call.text("storage").unwrap_or_default().to_owned();
    if storage.is_empty() || call.text("target-vmid").is_some() {
        return Err(Fail::die("the lab moves disks between storages only"));
    }
    call.need(&format!("/storage/{storage}"), &["Datastore.AllocateSpace"])?;
    super::create::images_allowed(call, &node, &storage)?;
    {
        let state = call.hub.state();
        let guest = state.guest(Kind::Qemu, &node, vmid)?;
        guest.unlocked()?;
        let value =
            guest.config.get(&disk).ok_or_else(|| Fail::die(format!("disk '{disk}' does not exist")))?;
        if Drive::stored(value).storage() == storage {
            return Err(Fail::die("you can't move to the same storage with same format"));
        }
    }
    let delete = call.flag("delete");
    let hub = call.hub.clone();
    let upid = call.work(&node.clone(), "qmmove", &vmid.to_string(), move |_| async move {
        let _held = hub.locks.guest("qemu", &node, vmid, locks::CONFIG).await?;
        let local = { (!hub.state().place(&storage, &node).is_empty()).then_some(node.as_str()) };
        let _lock = hub.locks.storage(&storage, local).await?;
        hub.world.clock.wait(Duration::from_secs(30)).await;
        let mut state = hub.state();
        let guest = state.guest(Kind::Qemu, &node, vmid).map_err(|f| f.exit())?;
        let mut drive = Drive::stored(guest.config.get(&disk).ok_or("the disk is gone")?);
        let size = super::create::size_of(&drive);
        let old = drive.file.clone();
        drive.file = allocate(&mut state, &node, &storage, vmid, Wanted::Disk, size, None)?;
        if delete {
            state.remove_volume(&node, &old);
        }
        let guest = state.guest_mut(Kind::Qemu, &node, vmid).map_err(|f| f.exit())?;
        guest.config.insert(disk, drive.print());
        if !delete {
            let free = (0..256).map(|n| format!("unused{n}")).find(|k| !guest.config.contains_key(k));
            guest.config.extend(free.map(|key| (key, old)));
        }
        Ok(())
    });
    Ok(upid.into())
}
