//! `PUT` and `POST …/config`, `PUT …/unlink`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value as Json;

use super::super::dispatch::Call;
use super::super::hub::Hub;
use super::super::locks;
use super::super::reply::{Answer, Fail, nothing};
use super::super::state::Kind;
use super::create::{NOT_OPTIONS, check_drive, make_drive};
use super::drives::{self, Drive};
use super::options;

/// What is to become of a configuration, checked.
struct Change {
    node: String,
    vmid: u32,
    digest: Option<String>,
    set: BTreeMap<String, String>,
    drives: BTreeMap<String, Drive>,
    delete: Vec<String>,
    /// Removed volumes are freed rather than kept as unused ones.
    force: bool,
    revert: Vec<String>,
}

/// Synchronous.
pub async fn put(call: Call) -> Answer {
    let change = understand(&call)?;
    let hub = call.hub.clone();
    carry_out(&hub, change).await?;
    nothing()
}

/// In a worker; null instead of a UPID when it ended within `background_delay`.
pub async fn post(call: Call) -> Answer {
    let change = understand(&call)?;
    let (hub, node, vmid) = (call.hub.clone(), change.node.clone(), change.vmid);
    let upid = call.work(&node, "qmconfig", &vmid.to_string(), move |_| async move {
        carry_out(&hub, change).await.map_err(|f| f.exit())
    });
    if let Some(delay) = call.number("background_delay") {
        let ended = call.hub.task_ended(&upid, Duration::from_secs(delay)).await;
        let good = call.hub.state().tasks.get(&upid).and_then(|t| t.exit.clone()).is_some_and(|e| e == "OK");
        if ended && good {
            return Ok(Json::Null.into());
        }
    }
    Ok(upid.into())
}

/// Takes volumes out of a configuration.
pub async fn unlink(mut call: Call) -> Answer {
    let list = call.text("idlist").unwrap_or_default().to_owned();
    call.values.insert("delete".into(), super::super::schema::Value::One(list));
    call.values.remove("idlist");
    put(call).await
}

fn words(text: Option<&str>) -> Vec<String> {
    let split = |c: char| matches!(c, ',' | ';' | '\0') || c.is_whitespace();
    text.unwrap_or_default().split(split).filter(|w| !w.is_empty()).map(str::to_owned).collect()
}

fn understand(call: &Call) -> Result<Change, Fail> {
    let (node, vmid) = (call.node().to_owned(), call.vmid());
    if call.flag("skiplock") && !call.who.root() {
        return Err(Fail::parameter("skiplock", "Only root may use this option."));
    }
    let delete = words(call.text("delete"));
    let revert = words(call.text("revert"));
    let sent: BTreeMap<String, String> = call
        .values
        .iter()
        .filter(|(k, _)| !NOT_OPTIONS.contains(&k.as_str()))
        .map(|(k, v)| (k.clone(), v.text()))
        .collect();
    if sent.is_empty() && delete.is_empty() && revert.is_empty() {
        return Err(Fail::die("no options specified"));
    }
    let known = |option: &str| {
        call.hub.schema.routes.iter().any(|r| {
            r.method == "PUT" && r.path == "/nodes/{node}/qemu/{vmid}/config" && r.params.contains_key(option)
        })
    };
    for option in delete.iter().chain(&revert) {
        if !known(option) {
            return Err(Fail::parameter("delete", format!("unknown option '{option}'")));
        }
        if sent.contains_key(option) {
            let why = format!("you can't use '-{option}' and -delete {option} at the same time");
            return Err(Fail::parameter("delete", why));
        }
    }
    let current = call.hub.state().guest(Kind::Qemu, &node, vmid)?.config.clone();
    for option in &delete {
        options::permitted(call, vmid, None, option, None)?;
    }
    let mut set = BTreeMap::new();
    let mut wanted = BTreeMap::new();
    for (option, value) in &sent {
        options::permitted(call, vmid, None, option, Some(value))?;
        if drives::table(option).is_some() {
            check_drive(call, &node, vmid, option, value)?;
            wanted.insert(option.clone(), Drive::parse(&call.hub, option, value)?);
            continue;
        }
        if options::stem(option) == "net" {
            options::bridge_permitted(call, value)?;
        }
        if option == "boot" {
            options::boot_order(value, |d| current.contains_key(d) || sent.contains_key(d))?;
        }
        let stored = options::stored(call, &mut call.hub.state(), option, value)?;
        set.insert(option.clone(), stored);
    }
    Ok(Change {
        node,
        vmid,
        digest: call.text("digest").map(str::to_owned),
        set,
        drives: wanted,
        delete,
        force: call.flag("force"),
        revert,
    })
}

async fn carry_out(hub: &Arc<Hub>, change: Change) -> Result<(), Fail> {
    let Change { node, vmid, digest, mut set, drives: wanted, delete, force, revert } = change;
    let _held = hub.locks.guest("qemu", &node, vmid, locks::CONFIG).await.map_err(Fail::die)?;
    {
        let state = hub.state();
        let guest = state.guest(Kind::Qemu, &node, vmid)?;
        if digest.is_some_and(|d| d != guest.digest()) {
            return Err(Fail::die("checksum mismatch (file change by other user?)"));
        }
        guest.unlocked()?;
    }
    for (option, drive) in wanted {
        let imported = drive.options.contains_key("import-from");
        let drive = make_drive(hub, &node, vmid, &option, drive, None).await.map_err(Fail::die)?;
        let boots = set
            .get("boot")
            .is_some_and(|b| b.trim_start_matches("order=").split(';').next() == Some(&option));
        if imported && boots {
            // With another system disk it is another machine inside.
            let mut state = hub.state();
            let generation = state.count();
            state.guest_mut(Kind::Qemu, &node, vmid)?.generation = generation;
        }
        set.insert(option, drive.print());
    }
    let mut state = hub.state();
    let running = state.guest(Kind::Qemu, &node, vmid)?.running.is_some();
    for option in delete {
        remove(&mut state, &node, vmid, &option, running, force)?;
    }
    let guest = state.guest_mut(Kind::Qemu, &node, vmid)?;
    for option in revert {
        guest.pending.remove(&option);
    }
    let (mut replaced, mut freed) = (Vec::new(), Vec::new());
    for (option, value) in set {
        // A drive that was not there is plugged in; a CD is changed in its drive; another drive waits for the
        // next start (qemu-server, vmconfig_update_disk).
        let was = guest.config.get(&option).map(|o| Drive::stored(o));
        let disc = |d: &Drive| d.cdrom() && !d.cloudinit();
        let changed = was.as_ref().is_some_and(disc) && disc(&Drive::stored(&value));
        let hot =
            options::at_once(&option) || (drives::table(&option).is_some() && (was.is_none() || changed));
        let same = guest.config.get(&option) == Some(&value);
        if running && !hot && !same {
            guest.pending.insert(option, Some(value));
            continue;
        }
        guest.pending.remove(&option);
        if drives::table(&option).is_some()
            && let Some(old) = was.filter(|o| o.file != Drive::stored(&value).file)
        {
            // A cloud-init drive goes with its place in the configuration.
            match old.cloudinit() {
                true => freed.push(old.file),
                false if !old.cdrom() => replaced.push(old.file),
                false => {}
            }
        }
        guest.config.insert(option, value);
    }
    for volid in replaced {
        let free = (0..256).map(|n| format!("unused{n}")).find(|k| !guest.config.contains_key(k));
        guest.config.extend(free.map(|key| (key, volid)));
    }
    for volid in freed {
        state.remove_volume(&node, &volid);
    }
    Ok(())
}

fn remove(
    state: &mut super::super::state::State,
    node: &str,
    vmid: u32,
    option: &str,
    running: bool,
    force: bool,
) -> Result<(), Fail> {
    let guest = state.guest_mut(Kind::Qemu, node, vmid)?;
    let Some(value) = guest.config.get(option).cloned() else {
        guest.pending.remove(option);
        return Ok(());
    };
    if guest.on("protection") && (drives::table(option).is_some() || option.starts_with("unused")) {
        return Err(Fail::die(format!("can't remove drive '{option}' - protection mode enabled")));
    }
    let drive = Drive::stored(&value);
    let mut freed = None;
    if options::stem(option) == "unused" {
        freed = Some(drive.file);
    } else if drives::table(option).is_some() {
        // A disk of a running machine is unplugged only where the guest lets it go, which the lab does not play.
        if running && !drive.cdrom() {
            return Err(Fail::die(format!("error unplugging {option} in the lab: the machine runs")));
        }
        let order = guest.config.get("boot").and_then(|b| b.strip_prefix("order=")).map(str::to_owned);
        if let Some(order) = order.filter(|o| o.split(';').any(|d| d == option)) {
            let left: Vec<&str> = order.split(';').filter(|d| *d != option).collect();
            let boot = if left.is_empty() { String::new() } else { format!("order={}", left.join(";")) };
            guest.config.insert("boot".into(), boot);
        }
        if drive.cloudinit() || (force && !drive.cdrom()) {
            freed = Some(drive.file);
        } else if !drive.cdrom() {
            let free = (0..256).map(|n| format!("unused{n}")).find(|k| !guest.config.contains_key(k));
            guest.config.extend(free.map(|key| (key, drive.file)));
        }
    } else if running && !options::at_once(option) {
        guest.pending.insert(option.to_owned(), None);
        return Ok(());
    }
    guest.config.remove(option);
    guest.pending.remove(option);
    if let Some(volid) = freed {
        state.remove_volume(node, &volid);
    }
    Ok(())
}
