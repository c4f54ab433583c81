//! `POST /nodes/{node}/qemu/{vmid}/clone`.

use std::sync::Arc;
use std::time::Duration;

use super::super::config::StorageKind;
use super::super::dispatch::Call;
use super::super::hub::Hub;
use super::super::locks;
use super::super::reply::{Answer, Fail};
use super::super::state::{Guest, Kind, Options};
use super::super::tasks::Log;
use super::create::{size_of, uuid};
use super::drives::{self, Drive, Wanted, allocate, print_size};
use super::options::stem;

struct Wish {
    from: u32,
    to: u32,
    node: String,
    target: String,
    full: bool,
    storage: Option<String>,
    name: Option<String>,
    description: Option<String>,
    pool: Option<String>,
}

/// Clones a machine.
pub fn clone(call: &Call) -> Answer {
    let (node, from) = (call.node().to_owned(), call.vmid());
    let to = call.number("newid").unwrap_or(0) as u32;
    let pool = call.text("pool").map(str::to_owned);
    let target = call.text("target").unwrap_or(&node).to_owned();
    let storage = call.text("storage").map(str::to_owned);
    let (wish, config) = {
        let state = call.hub.state();
        if let Some(pool) = pool.as_ref().filter(|p| !state.pools.contains_key(*p)) {
            return Err(Fail::die(format!("pool '{pool}' does not exist")));
        }
        if !state.nodes.contains_key(&target) {
            return Err(Fail::parameter("target", format!("no such cluster node '{target}'")));
        }
        let guest = state.guest(Kind::Qemu, &node, from)?;
        guest.unlocked()?;
        let full = call.text("full").map_or(!guest.template(), |f| f == "1");
        if !full && !guest.template() {
            return Err(Fail::parameter(
                "full",
                format!("Full clone feature is needed: VM {from} is no template"),
            ));
        }
        if state.guests.get(&to).is_some_and(|g| g.node == node) {
            return Err(Fail::die(format!("unable to create VM {to}: config file already exists")));
        }
        let wish = Wish {
            from,
            to,
            node,
            target,
            full,
            storage,
            name: call.text("name").map(str::to_owned),
            description: call.text("description").map(str::to_owned),
            pool,
        };
        (wish, guest.config.clone())
    };
    checks(call, &wish, &config)?;
    let hub = call.hub.clone();
    let node = wish.node.clone();
    Ok(call
        .work(&node, "qmclone", &from.to_string(), move |log| async move { work(hub, wish, log).await })
        .into())
}

fn checks(call: &Call, wish: &Wish, config: &Options) -> Result<(), Fail> {
    for (name, value) in [("storage", call.text("storage")), ("format", call.text("format"))] {
        if !wish.full && value.is_some() {
            return Err(Fail::die(format!("parameter '{name}' not allowed for linked clones")));
        }
    }
    for (option, value) in config {
        if stem(option) == "net" {
            super::options::bridge_permitted(call, value)?;
        }
    }
    let drives: Vec<(String, Drive)> = drives::all(config).map(|(k, d)| (k.clone(), d)).collect();
    for (option, drive) in &drives {
        if matches!(drive.file.as_str(), "none" | "cdrom") {
            continue;
        }
        let iso = drive.cdrom() && !drive.cloudinit();
        let place = if iso { None } else { wish.storage.as_deref() }.unwrap_or(drive.storage()).to_owned();
        if !iso {
            call.need(&format!("/storage/{place}"), &["Datastore.AllocateSpace"])?;
        }
        let state = call.hub.state();
        let kind = state.storage(drive.storage(), &wish.node)?.kind;
        if !wish.full && !drive.cdrom() && kind == StorageKind::Lvm {
            let why = format!("Linked clone feature is not supported for '{}' ({option})", drive.file);
            return Err(Fail::die(why));
        }
        if wish.target != wish.node && !kind.shared() {
            return Err(Fail::die(format!(
                "can't clone VM to node '{}' (VM uses local storage)",
                wish.target
            )));
        }
        let to = state.storage(&place, &wish.target)?;
        if wish.target != wish.node && !to.kind.shared() {
            return Err(Fail::die(format!("can't clone to non-shared storage '{place}'")));
        }
        if !iso && !to.holds("images") {
            return Err(Fail::parameter("storage", format!("storage '{place}' does not support vm images")));
        }
    }
    Ok(())
}

async fn work(hub: Arc<Hub>, wish: Wish, log: Log) -> Result<(), String> {
    let running = { hub.state().guests.get(&wish.from).is_some_and(|g| g.running.is_some()) };
    let _source = if running {
        hub.locks.guest("qemu", &wish.node, wish.from, locks::WORKER).await?
    } else {
        hub.locks.guest_shared("qemu", &wish.node, wish.from, locks::WORKER).await?
    };
    let _new = hub.locks.guest("qemu", &wish.node, wish.to, locks::WORKER).await?;
    // The new configuration appears only here, locked; a machine of the same id on this node or another
    // is found only now.
    let source = {
        let mut state = hub.state();
        if let Some(there) = state.guests.get(&wish.to) {
            return Err(match there.node == wish.node {
                true => format!("unable to create VM {}: config file already exists", wish.to),
                false => format!(
                    "close (rename) atomic file '/etc/pve/nodes/{}/qemu-server/{}.conf' failed: File exists",
                    wish.node, wish.to
                ),
            });
        }
        let source = state.guest(Kind::Qemu, &wish.node, wish.from).map_err(|f| f.message)?.clone();
        let generation = state.count();
        let mut guest = Guest::new(wish.to, Kind::Qemu, &wish.node, generation);
        guest.config.insert("lock".into(), "clone".into());
        state.guests.insert(wish.to, guest);
        source
    };
    match copy(&hub, &wish, &source.config, &log).await {
        Ok(config) => {
            let mut state = hub.state();
            let guest = state.guests.get_mut(&wish.to).ok_or("the new configuration is gone")?;
            guest.config = config;
            guest.config.remove("lock");
            guest.node = wish.target.clone();
            guest.changed = std::time::Instant::now();
            // The pool is joined last.
            guest.pool = wish.pool;
            Ok(())
        }
        Err(why) => {
            let mut state = hub.state();
            drives::free_all(&mut state, &wish.node, wish.to);
            state.guests.remove(&wish.to);
            Err(format!("clone failed: {why}"))
        }
    }
}

/// A disk that is copied, with the lines that tell how far it is (qemu-server, QemuServer/QemuImage.pm).
pub(super) async fn transfer(hub: &Hub, size: u64, length: Duration, say: impl Fn(String)) {
    const PARTS: u64 = 10;
    for part in 0..=PARTS {
        let gib = |bytes: u64| bytes as f64 / f64::from(1u32 << 30);
        let (done, percent) = (gib(size) * part as f64 / PARTS as f64, part as f64 * 100.0 / PARTS as f64);
        say(format!("transferred {done:.1} GiB of {:.1} GiB ({percent:.2}%)", gib(size)));
        if part < PARTS {
            hub.world.clock.wait(length / PARTS as u32).await;
        }
    }
}

/// Copies drive by drive, in the order of their names. After each the configuration is written as far as it is, with
/// its lock: a node that goes off leaves it so, and in no pool (qemu-server, API2/Qemu.pm: `clone_vm`).
async fn copy(hub: &Hub, wish: &Wish, source: &Options, log: &Log) -> Result<Options, String> {
    let drives: Vec<(String, Drive)> = drives::all(source).map(|(k, d)| (k.clone(), d)).collect();
    let iso = |drive: &Drive| drive.cdrom() && !drive.cloudinit();
    let mut config = source.clone();
    for gone in ["template", "parent", "vmgenid", "smbios1", "snaptime"] {
        config.remove(gone);
    }
    config.retain(|k, _| stem(k) != "unused" && !drives.iter().any(|(option, d)| option == k && !iso(d)));
    config.insert("lock".into(), "clone".into());
    config.insert("vmgenid".into(), uuid());
    config.insert("smbios1".into(), format!("uuid={}", uuid()));
    if let Some(name) = &wish.name {
        config.insert("name".into(), name.clone());
    } else {
        let old = source.get("name").cloned().unwrap_or_else(|| format!("VM-{}", wish.from));
        config.insert("name".into(), format!("Copy-of-{old}"));
    }
    if let Some(description) = &wish.description {
        config.insert("description".into(), description.clone());
    }
    for (option, value) in source {
        if stem(option) == "net" && option != "net" {
            let (model, rest) = value.split_once('=').unwrap_or((value, ""));
            let rest = rest.split_once(',').map_or("", |(_, r)| r);
            let mac = hub.state().mac();
            let comma = if rest.is_empty() { "" } else { "," };
            config.insert(option.clone(), format!("{model}={mac}{comma}{rest}"));
        }
    }
    for (option, mut drive) in drives {
        if iso(&drive) {
            continue;
        }
        let storage = wish.storage.clone().unwrap_or_else(|| drive.storage().to_owned());
        let local = { (!hub.state().place(&storage, &wish.node).is_empty()).then_some(wish.node.as_str()) };
        let size = size_of(&drive);
        if drive.cloudinit() {
            let _lock = hub.locks.storage(&storage, local).await?;
            drive.file =
                allocate(&mut hub.state(), &wish.node, &storage, wish.to, Wanted::CloudInit, 4 << 20, None)?;
        } else if wish.full {
            log.line(format!("create full clone of drive {option} ({})", drive.file));
            drive.file = {
                let _lock = hub.locks.storage(&storage, local).await?;
                hub.world.clock.wait(Duration::from_secs(1)).await;
                allocate(&mut hub.state(), &wish.node, &storage, wish.to, Wanted::Disk, size, None)?
            };
            transfer(hub, size, Duration::from_secs(59), |line| log.line(line)).await;
        } else {
            log.line(format!("create linked clone of drive {option} ({})", drive.file));
            let parent = drive.file.clone();
            let _lock = hub.locks.storage(&storage, local).await?;
            hub.world.clock.wait(Duration::from_secs(2)).await;
            drive.file =
                allocate(&mut hub.state(), &wish.node, &storage, wish.to, Wanted::Disk, size, Some(&parent))?;
        }
        if size > 0 {
            drive.options.insert("size".into(), print_size(size));
        }
        config.insert(option, drive.print());
        if let Some(guest) = hub.state().guests.get_mut(&wish.to) {
            guest.config = config.clone();
        }
    }
    Ok(config)
}
